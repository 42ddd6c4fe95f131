"""SmolLM2's sums written by another policy: in bfloat16, and by the past of the learner.

Seed s stands for the sums and the luck of sampling. Sixty-four answers a column: too few
for a gradient of 135 million numbers, and "cos halves" says how few. It needs
requirements-real.txt.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from labs import real_model as real
from labs import sampler_learner
from labs.record import Record, call
from lib import evaluate, on_policy
from lib.advantages import group_centred
from lib.algorithms import ALGORITHMS
from lib.on_policy import RLConfig
from lib.rollout import Rollout
from lib.seeds import generator

CONFIG = RLConfig(group=8, max_tokens=real.TOKENS)


def answers(policy: nn.Module, name: str, seed: int) -> tuple[Rollout, Tensor]:
    """Eight answers to each of eight sums, and their advantages (B,)."""
    _, lines, _ = real.ready()
    asked = real.sums(8, lines, seed=seed)
    draw = generator("sampler", name, seed)
    given = {"max_tokens": real.TOKENS, "tokenizer": lines, "group": 8}
    rollout = evaluate.ask(policy, asked, generator=draw, **given)
    rewards = real.begins_right(asked, rollout).reshape(-1, 8)
    return rollout, group_centred(rewards).flatten()


def table(learner: nn.Module, sampler: nn.Module, seed: int) -> dict[str, float]:
    """`sampler_learner.compared` of the two."""
    written, own = answers(sampler, "sampler", seed), answers(learner, "learner", seed)
    return sampler_learner.compared(learner, sampler, *written, *own, group=8)


def in_bfloat16(seed: int) -> dict[str, Any]:
    """The same weights rounded to bfloat16, and computed with in it."""
    start, _, _ = real.ready()
    return table(start, copy.deepcopy(start).to(torch.bfloat16), seed)


def of_the_past(seed: int, *, updates: int) -> dict[str, Any]:
    """A learner that has gone so many updates of GRPO away from its sampler."""
    start, lines, _ = real.ready()
    learner, _ = on_policy.train(
        start,
        ALGORITHMS["GRPO"],
        real.right,
        real.sum_stream(8, lines, seed=seed),
        seed=seed,
        updates=updates,
        lr=2e-5,
        config=CONFIG,
        tokenizer=lines,
        progress=f"{updates} updates, seed {seed}",
    )
    return table(learner, start, seed)


RECORD = Record(
    "real_sampler",
    call,
    runs={
        "bfloat16": in_bfloat16,
        "1 update": partial(of_the_past, updates=1),
        "4 updates": partial(of_the_past, updates=4),
    },
    seeds=range(3),
    file=__file__,
)
