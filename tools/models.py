"""Make the book's models anew: `python -m tools.models`, or `make models`.

The valley's models are committed in lib/weights: five base models (eight minutes each),
the tuned one and the reward model. Without a name only what is missing is made, and what
the village's chapters read from the cache (three minutes, then a second).
"""

import argparse

import torch

from lib import preference_data, pretrain, ready, reward_model, sft
from lib.ready import rounded
from lib.reward_model import RewardModel, SurprisalRewardModel, fit_reward_model
from lib.villagers import proxy_model


def base(seed: int) -> torch.nn.Module:
    """Base model `seed`: pretrained, rounded, annealed."""
    model, _ = pretrain.pretrain(seed=seed, progress=f"base model {seed}")
    rounded(model)
    if seed == 0:
        ready.save(model, "before-annealing")
    pretrain.anneal(model, seed=seed, progress="annealing")
    return model


def tuned() -> torch.nn.Module:
    """The tuned model: base model 0, shown answers of every skill but the shell game."""
    model = pretrain.base_model(seed=0)
    skills = ("facts", "strings", "constraints", "talk")
    shown = sft.demonstrations(skills, count=sft.TUNED, seed=0)
    sft.instruct(model, shown, lr=1e-3, progress="instruction tuning")
    return model


def reward() -> torch.nn.Module:
    """The reward model: a copy of the tuned one, taught by five annotators."""
    trunk = sft.tuned_model()
    pairs = preference_data.compared(trunk, count=reward_model.PAIRS, seed=0)
    kind = SurprisalRewardModel
    return fit_reward_model(trunk, pairs, kind=kind, seed=0, progress="reward model")[0]


MADE = {
    **{f"base-{seed}": lambda seed=seed: base(seed) for seed in pretrain.SEEDS},
    "tuned": tuned,
    "reward": reward,
}


def main() -> None:
    """The models named, or those that are missing."""
    parser = argparse.ArgumentParser(prog="python -m tools.models")
    parser.add_argument("name", nargs="*", help=f"of {', '.join(MADE)}, or all")
    asked = parser.parse_args().name
    torch.set_num_threads(1)
    for name in [*MADE] if asked == ["all"] else asked:
        if name not in MADE:
            parser.error(f"name: got {name}, wanted one of {', '.join(MADE)}, or all")
    wanted = [*MADE] if asked == ["all"] else asked
    missing = [n for n in MADE if not ready.path_of(n).exists()]
    for name in wanted or missing:
        print(ready.save(MADE[name](), name))
    if not asked:
        for kind in (RewardModel, SurprisalRewardModel):
            proxy_model(kind=kind)


if __name__ == "__main__":
    main()
