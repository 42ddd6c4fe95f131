"""DeepSeek R1's recipe from five base models, on which thinking is rare or is not.

Every run has its own base model, and leaves out one stage or none.
"""

from functools import partial
from typing import Any

from labs import deepseek_r1 as r1
from labs.r1_zero_runs import rarely
from labs.record import Record, call
from lib import pretrain
from lib.reward_model import reward_model

RARE = 0.001  # worked answers among the last documents


def stages(seed: int, *, rare: bool, without: str) -> dict[str, Any]:
    """The recipe of R1 on base `seed`, or all of it but one stage."""
    base = rarely(seed, RARE) if rare else pretrain.base_model(seed=seed)
    return r1.pipeline(base, reward_model(), seed=seed, without=without, updates=40)


ABLATIONS = ("", *r1.STAGES, "language reward")
PIPELINES = {
    f"{kind}, {f'without {a}' if a else 'all stages'}": partial(
        stages, rare=kind == "rare", without=a
    )
    for kind in ("rare", "common")
    for a in ABLATIONS
}
RECORD = Record("13_stages", call, runs=PIPELINES, seeds=range(5), file=__file__)
