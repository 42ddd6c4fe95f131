"""Make the book's models anew: `python -m tools.models`, or `make models`.

The valley's five base models are committed in lib/weights; each takes some eight minutes.
So are three models of chapter 13, of base model 0: some four minutes together.
Without a name only those that are missing are made.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from labs import deepseek_r1
from labs.r1_zero import forced
from lib import pretrain, ready, require
from lib.models.transformer import Transformer
from lib.ready import rounded
from lib.worlds.tasks import LEVELS

PASS = 0.4  # right when made to think, at every level: then the game is learnt


def plays(model: Transformer) -> bool:
    """Whether a base that is made to think is right often enough at every level."""
    found = [forced(model, level=n, count=100)["right"] for n in LEVELS["cups"]]
    print("made to think:", *(f"{right:.2f}" for right in found), flush=True)
    return min(found) >= PASS


def base(seed: int) -> Transformer:
    """Base model `seed`: from first weights that learn the game, rounded, annealed."""
    for attempt in range(5):
        about = f"base model {seed}, attempt {attempt}"
        model, _ = pretrain.pretrain(seed=seed, attempt=attempt, progress=about)
        if plays(model):
            break
    else:
        require.refuse("seed", seed, "one that learns the game in five attempts")
    rounded(model)
    if seed == 0:
        ready.save(model, "before-annealing")
    pretrain.anneal(model, seed=seed, progress="annealing")
    return model


def rare_base() -> Transformer:
    """Base model 0 after it has read on: it knows people, and rarely thinks."""
    return deepseek_r1.base(0, deepseek_r1.RARE, progress="reading on")


def assistant() -> Transformer:
    """Who writes the answers that annotators compare."""
    start = deepseek_r1.ready_base()
    return deepseek_r1.assistant(start, seed=0, progress="assistant")


def reward() -> nn.Module:
    """The reward model that learns from the comparisons."""
    writer = deepseek_r1.ready_assistant()
    return deepseek_r1.reward_model(writer, seed=0, progress="reward model")[0]


MADE = {
    **{f"base-{seed}": partial(base, seed) for seed in pretrain.SEEDS},
    "rare-base-0": rare_base,
    "assistant-0": assistant,
    "reward-0": reward,
}


def main(arguments: Sequence[str] = ()) -> None:
    """The models named, or those that are missing."""
    parser = argparse.ArgumentParser(prog="python -m tools.models")
    parser.add_argument("name", nargs="*", help=f"of {', '.join(MADE)}, or all")
    asked = parser.parse_args(arguments).name
    torch.set_num_threads(1)
    for name in [*MADE] if asked == ["all"] else asked:
        if name not in MADE:
            parser.error(f"name: got {name}, wanted one of {', '.join(MADE)}, or all")
    wanted = [*MADE] if asked == ["all"] else asked
    missing = [n for n in MADE if not ready.path_of(n).exists()]
    for name in wanted or missing:
        print(ready.save(MADE[name](), name))


if __name__ == "__main__":
    main(sys.argv[1:])
