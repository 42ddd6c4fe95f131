"""How well a reward model agrees with fresh annotators, by how many comparisons it saw.

Chapter 4 shows the result, benchmarks/reward_model.json, which this command writes anew
in about ten minutes: python -m benchmarks.reward_model
"""

import datetime
import json
import platform
from pathlib import Path

import torch

from lib import cache, reward_model
from lib.comparisons import ceiling, compare
from lib.instruct import instructed_model

SIZES, SEEDS, UPDATES = (32, 128, 512, 2048, 8192), 3, 32
KINDS = (reward_model.RewardModel, reward_model.Informed)
RESULT = Path(__file__).with_suffix(".json")


def trained(trunk, pairs, kind, seed):
    batch = min(64, len(pairs))
    knobs = {"epochs": max(2, UPDATES * batch // len(pairs)), "batch": batch}
    return reward_model.fit_reward_model(trunk, pairs, kind=kind, seed=seed, **knobs)[0]


def measure() -> dict:
    """Accuracy on 2,048 fresh comparisons of the test split, seed by seed.

    Every model is trained for at least 32 updates of at most 64 comparisons, and for at
    least two epochs.
    """
    trunk = instructed_model()
    fresh = compare(trunk, count=2048, seed=99, split="test")
    found = {kind.__name__: [] for kind in KINDS}
    for seed in range(SEEDS):
        everything = compare(trunk, count=max(SIZES), seed=200 + seed)
        for kind in KINDS:
            column = []
            for size in SIZES:
                model = trained(trunk, everything.rows(torch.arange(size)), kind, seed)
                column.append(round(reward_model.accuracy(model, fresh), 4))
            print(seed, kind.__name__, column, flush=True)
            found[kind.__name__].append(column)
    best, each_other = ceiling(fresh.chosen_gold, fresh.rejected_gold)
    return {"accuracy": found, "ceiling": best, "each other": each_other}


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = {
        "command": "python -m benchmarks.reward_model",
        "date": datetime.date.today().isoformat(),
        "code": cache.path("sweep", file=reward_model.__file__).stem[6:],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sizes": SIZES,
        **measure(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
