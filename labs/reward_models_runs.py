"""How well a reward model agrees with fresh annotators, by how many comparisons it saw.

Every model is trained for at least 32 updates of at most 64 comparisons, and for at
least two epochs: about ten minutes on one core.
"""

from typing import Any

import torch

from labs.record import Record
from lib.preference_data import ceiling, sample_pairs
from lib.reward_model import (
    RewardModel,
    SurprisalRewardModel,
    accuracy,
    fit_reward_model,
)
from lib.villagers import instructed_model

SIZES, SEEDS, UPDATES = (32, 128, 512, 2048, 8192), 3, 32
KINDS = (RewardModel, SurprisalRewardModel)


def run(kind: type[RewardModel], seed: int) -> dict[str, Any]:
    """Accuracy on 2,048 fresh comparisons of the test split, at each of SIZES."""
    trunk, found = instructed_model(), []
    fresh = sample_pairs(trunk, count=2048, seed=99, split="test")
    everything = sample_pairs(trunk, count=max(SIZES), seed=200 + seed)
    for size in SIZES:
        batch = min(64, size)
        knobs = {"epochs": max(2, UPDATES * batch // size), "batch": batch}
        some = everything.rows(torch.arange(size))
        model, _ = fit_reward_model(trunk, some, kind=kind, seed=seed, **knobs)
        found.append(accuracy(model, fresh))
    best, each_other = ceiling(fresh.chosen_gold, fresh.rejected_gold)
    made = {"sizes": SIZES, "ceiling": best, "each other": each_other}
    return {**made, "accuracy": found}


RECORD = Record(
    "04_reward_models",
    run,
    runs={kind.__name__: kind for kind in KINDS},
    seeds=range(SEEDS),
    file=__file__,
)
