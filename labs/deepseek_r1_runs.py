"""DeepSeek-R1 in four stages, each taken away in turn, from bases that rarely think.

And the same from bases that think often enough; a reward model with a blind spot, and
what finds it. Seed s is base model s, its games and its luck.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn

from labs import deepseek_r1 as r1
from labs.r1_zero import forced
from labs.record import Record, call
from lib import evaluate, reward_model, rewards
from lib.models.transformer import Transformer
from lib.preference_data import PreferencePairs
from lib.reward_model import RewardModel
from lib.train import History

CURVES = ("reward", "length", "entropy", "zero_variance", "kept")
FULL = ("cold start", "reasoning RL", "SFT", "RL on everything")
ALONE = "RL on everything, all along"
RECIPES = {
    "the recipe": FULL,
    "no cold start": FULL[1:],
    "no reasoning RL": (FULL[0], *FULL[2:]),
    "no SFT from the base": (*FULL[:2], FULL[3]),
    "no general quarter": (*FULL[:2], "SFT on reasoning alone", FULL[3]),
    "no RL on everything": FULL[:3],
    "no reward model": (*FULL[:3], "RL with verifiers alone"),
    "RL on everything alone": (ALONE,),
    "R1-Zero": ("reasoning RL, any dialect",),
}
FEW = ("the recipe", "no cold start", "RL on everything alone", "R1-Zero")


@lru_cache(maxsize=1)
def base(seed: int, worked: float) -> Transformer:
    """Base `seed`, read on."""
    return r1.base(seed, worked)


@lru_cache(maxsize=1)
def judge(seed: int, worked: float) -> tuple[Transformer, RewardModel]:
    """The assistant of this base, and the reward model that learnt from its answers."""
    writer = r1.assistant(base(seed, worked), seed=seed)
    return writer, r1.reward_model(writer, seed=seed)[0]


def step(
    name: str, policy: nn.Module, *, seed: int, worked: float
) -> tuple[nn.Module, History | None]:
    """The policy after one stage, and what there is to tell of it."""
    if name == "cold start":
        return r1.cold_start(policy, seed=seed), None
    if name == "reasoning RL":
        return r1.reasoning(policy, seed=seed)
    if name == "reasoning RL, any dialect":
        return r1.reasoning(policy, seed=seed, reward=rewards.verified)
    if name.startswith("SFT"):
        share = r1.SHARE if name == "SFT" else 1.0
        start = base(seed, worked)
        pupil, count = r1.imitation(start, policy, seed=seed, share=share)
        return pupil, {"kept": [count]}
    mix, updates = r1.MIX, r1.EVERYTHING
    if name == "RL with verifiers alone":
        mix = {skill: 2 * n for skill, n in mix.items() if skill != "talk"}
    if name == ALONE:
        updates += r1.REASONING
    liked = rewards.learned(judge(seed, worked)[1])
    return r1.everything(policy, liked, seed=seed, mix=mix, updates=updates)


@lru_cache(maxsize=40)
def after(
    steps: tuple[str, ...], seed: int, worked: float
) -> tuple[nn.Module, dict[str, Any]]:
    """The model after these stages, and what is kept of the last of them."""
    history = None
    if steps:
        policy, _ = after(steps[:-1], seed, worked)
        policy, history = step(steps[-1], policy, seed=seed, worked=worked)
    else:
        policy = base(seed, worked)
    kept: dict[str, Any] = {"scores": r1.report(policy), "said": r1.samples(policy)}
    if not steps:
        made = {str(n): forced(policy, level=n)["right"] for n in (3, 5, 7)}
        kept["made to think"] = made
    if history is not None:
        kept["curves"] = {n: history[n][::2] for n in CURVES if n in history}
    return policy, kept


def stages(seed: int, *, steps: tuple[str, ...], worked: float) -> dict[str, Any]:
    """What is kept of every stage of a recipe, the base's first."""
    names = ("base", *steps)
    return {n: after(steps[:i], seed, worked)[1] for i, n in enumerate(names)}


def agreed(pairs: PreferencePairs) -> dict[str, float]:
    """How often gold, and the best judge that there can be, agree with the panel.

    In expectation; where gold does not tell two answers apart it is right half the time.
    """
    one, two = (evaluate.answers(r) for r in (pairs.chosen, pairs.rejected))
    of_pair = [
        r1.PANEL.probability(task, a.text, b.text, finished=(a.finished, b.finished))
        for task, a, b in zip(pairs.asked, one, two)
    ]
    chance = torch.tensor(of_pair, dtype=torch.float64)
    gap = (pairs.chosen_gold - pairs.rejected_gold).sign()
    return {
        "ceiling": torch.maximum(chance, 1 - chance).mean().item(),
        "gold": (0.5 + gap * (chance - 0.5)).mean().item(),
    }


def blind(seed: int, *, worked: float) -> dict[str, Any]:
    """A reward model, its accuracy, and reinforcement learning on talk that obeys it."""
    writer, model = judge(seed, worked)
    fresh = r1.compared(writer, count=1_000, seed=seed + 1_000, split="test")
    told: list[dict[str, float]] = []
    liked = rewards.learned(model)

    def watch(update: int, policy: nn.Module) -> None:
        if update % 10 == 0:
            told.append(r1.noticed(policy, liked))

    mix = {"talk": 32}
    policy, _ = r1.everything(
        writer, liked, seed=seed, mix=mix, updates=100, watch=watch
    )
    return {
        "accuracy": reward_model.accuracy(model, fresh),
        **agreed(fresh),
        "believes": {kind: r1.believes(model, kind) for kind in ("home", "job", "pet")},
        "curves": {name: [t[name] for t in told] for name in told[0]},
        "said": r1.samples(policy),
    }


def of(names: tuple[str, ...], worked: float) -> dict[str, Callable[[int], Any]]:
    """These recipes on bases of this rarity."""
    return {n: partial(stages, steps=RECIPES[n], worked=worked) for n in names}


RECORD = Record(
    "deepseek_r1",
    call,
    runs={**of((*RECIPES,), r1.RARE), "talk alone": partial(blind, worked=r1.RARE)},
    file=__file__,
)
OFTEN = Record("deepseek_r1_often", call, runs=of(FEW, r1.COMMON), file=__file__)
