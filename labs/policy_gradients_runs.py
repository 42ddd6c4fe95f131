"""Chapter 8: ten algorithms on short shell games, five bases, a sweep of learning rates.

With one update from each set of answers, where GSPO and SAPO are GRPO to the last digit
and are not run again; and with four, where ratios and clips are at work. Seed s is base
model s, its games and its luck.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from labs.record import Record, call
from lib import evaluate, on_policy, pretrain, rewards
from lib.algorithms import ALGORITHMS, Algorithm
from lib.losses.policy_gradient import gspo
from lib.on_policy import RLConfig
from lib.seeds import generator

LEVELS, EXAMINED = (2, 3), 3  # swaps of a game: practised, and asked in the exam
PROMPTS, GROUP, TOKENS = 8, 8, 24  # of an update; longest answer
UPDATES, LOOKS = 24, (8, 16, 24)  # updates after which a policy is examined
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
AGAIN, SOME = 4, (3e-4, 1e-3, 3e-3)  # updates from one set of answers, and their rates
ITEMS, TUNING = 200, 100  # distinct games of the exam, and others that choose the rate
OTHERS = ("facts", "strings", "constraints")  # skills that nobody practises
CURVES = ("reward", "length", "entropy", "zero_variance", "answers", "grad_norm")
ON_POLICY = ("REINFORCE", "RLOO", "PPO", "GRPO", "Dr. GRPO", "DAPO", "CISPO", "MaxRL")
WIDE = "GSPO, clip × 100"
OFF_POLICY = ("REINFORCE", "GRPO", "GSPO", WIDE, "CISPO", "SAPO")


def algorithm(name: str) -> Algorithm:
    """One of the ten; or GSPO with a hundred times the room before its clip."""
    if name != WIDE:
        return ALGORITHMS[name]
    wide = partial(gspo, clip_low=3e-2, clip_high=4e-2)
    return replace(ALGORITHMS["GSPO"], loss=wide)


def examined(policy: nn.Module) -> tuple[str, float]:
    """One sampled answer a game: "1" or "0" for each of the exam, the share of the rest.

    The games are distinct, and none is practised. The exam is the first ITEMS of them;
    the other TUNING are for choosing a learning rate.
    """
    asked = evaluate.exam("cups", level=EXAMINED, count=ITEMS + TUNING)
    luck = generator("policy gradients, exam")
    rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
    right = evaluate.scores(asked, rollout)  # (ITEMS + TUNING,)
    return "".join(str(int(x)) for x in right[:ITEMS]), right[ITEMS:].mean().item()


def others(policy: nn.Module, count: int = 100) -> dict[str, float]:
    """The share of right answers in each of the skills that nobody practises."""
    found = {}
    for skill in OTHERS:
        asked = evaluate.exam(skill, count=count)
        luck = generator("policy gradients, others", skill)
        rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
        found[skill] = evaluate.scores(asked, rollout).mean().item()
    return found


def start(seed: int) -> dict[str, Any]:
    """The base model, before anything."""
    base = pretrain.base_model(seed=seed)
    exam, tuning = examined(base)
    return {"exam": exam, "tuning": tuning, "others": others(base)}


def trained(seed: int, *, name: str, lr: float, epochs: int = 1) -> dict[str, Any]:
    """One run: marks on the way, curves of all answers (kept or not), other skills."""
    marks: dict[int, tuple[str, float]] = {}

    def watch(update: int, policy: nn.Module) -> None:
        if update in LOOKS:
            marks[update] = examined(policy)

    policy, history = on_policy.train(
        pretrain.base_model(seed=seed),
        algorithm(name),
        rewards.verified,
        on_policy.task_stream("cups", count=PROMPTS, seed=seed, levels=LEVELS),
        seed=seed,
        updates=UPDATES,
        lr=lr,
        config=RLConfig(group=GROUP, epochs=epochs, max_tokens=TOKENS),
        watch=watch,
    )
    curves = {what: torch.tensor(history[what]) for what in CURVES}
    if epochs > 1 and "clip_fraction" in history:
        curves["clip_fraction"] = torch.tensor(history["clip_fraction"])
    return {
        "exam": [marks[update][0] for update in LOOKS],
        "tuning": [marks[update][1] for update in LOOKS],
        "others": others(policy),
        "curves": curves,
    }


RECORD = Record(
    "policy_gradients",
    call,
    runs={
        "start": start,
        **{
            f"{n}, {lr:g}": partial(trained, name=n, lr=lr)
            for n in ON_POLICY
            for lr in RATES
        },
        **{
            f"{n}, {lr:g}, {AGAIN} updates": partial(
                trained, name=n, lr=lr, epochs=AGAIN
            )
            for n in OFF_POLICY
            for lr in SOME
        },
    },
    file=__file__,
    digits=3,
)
