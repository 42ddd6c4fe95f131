"""SmolLM2 writes sums for a learner that is not quite itself: rounded, or updates ahead.

How far the two are apart, and what that does to GRPO's gradient, beside the gradient of
answers that the learner wrote itself. It needs requirements-real.txt.
"""

import copy
from functools import partial

from torch import Tensor, nn

from labs import real_model as real
from labs.real_model_runs import CONFIG, FULL, PROMPTS
from labs.record import Record, call
from labs.sampler_learner import compared
from lib import evaluate, on_policy
from lib.algorithms import ALGORITHMS
from lib.rollout import Rollout
from lib.seeds import generator

SUMS = 32  # that both are asked, with eight answers each
GRPO = ALGORITHMS["GRPO"]


def ahead(seed: int, updates: int) -> nn.Module:
    """SmolLM2 after so many updates of GRPO on sums, as in `real_model_runs`."""
    start, lines, _ = real.ready()
    stream = real.sum_stream(PROMPTS, lines, seed=seed)
    given = {"lr": FULL, "config": CONFIG, "tokenizer": lines, "seed": seed}
    return on_policy.train(start, GRPO, real.right, stream, updates=updates, **given)[0]


def answers(policy: nn.Module, seed: int, writer: str) -> tuple[Rollout, Tensor, float]:
    """What this policy writes: answers, GRPO's credit (B,), and the share that is right."""
    _, lines, _ = real.ready()
    asked, luck = real.sums(SUMS, lines, seed=seed), generator("pair", seed, writer)
    given = {"group": CONFIG.group, "max_tokens": real.TOKENS, "tokenizer": lines}
    rollout = evaluate.ask(policy, asked, generator=luck, **given)
    paid = real.right(asked, rollout)
    credit = GRPO.credit(paid.reshape(-1, CONFIG.group)).flatten()
    return rollout, credit, paid.mean().item()


def stale(seed: int, updates: int) -> dict[str, float]:
    """The model as it comes writes for itself after so many updates."""
    start, *_ = real.ready()
    return judged(ahead(seed, updates), start, seed)


def rounded(seed: int) -> dict[str, float]:
    """The same model in bfloat16 writes for itself in float32."""
    start, *_ = real.ready()
    return judged(start, copy.deepcopy(start).bfloat16(), seed)


def judged(learner: nn.Module, sampler: nn.Module, seed: int) -> dict[str, float]:
    """What `compared` tells of the two; both are asked the same sums."""
    with real.costs() as spent:
        *written, theirs = answers(sampler, seed, "sampler")
        *own, right = answers(learner, seed, "learner")
        found = compared(learner, sampler, *written, *own, group=CONFIG.group)
    return {"right": right, "sampler right": theirs, **found, **spent}


RECORD = Record(
    "real_sampler",
    call,
    runs={
        "bfloat16": rounded,
        "1 update old": partial(stale, updates=1),
        "4 updates old": partial(stale, updates=4),
    },
    seeds=range(3),
    file=__file__,
)
