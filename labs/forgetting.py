"""What fine-tuning on games alone forgets, gently and harshly, and what general data cure.

Seed s is base model s as it is committed, with its own lessons in its own order.
"""

import copy
from collections.abc import Sequence
from typing import Any

from labs.deepseek_r1 import demonstrations, readable, report
from labs.record import Record
from lib import pretrain
from lib.seeds import seed_of
from lib.sft import instruct

GAMES, GENERAL = 900, 300  # answers in the mixture
RATES = {"gentle": (1e-3, 2), "harsh": (3e-3, 4)}  # learning rate, epochs


def run(settings: tuple[float, int, bool] | None, seed: int) -> dict[str, Any]:
    """The report of a base, or of a copy that has imitated games, alone or not."""
    pupil = copy.deepcopy(pretrain.base_model(seed=seed))
    if settings is not None:
        lr, epochs, mixed = settings
        shown = [*readable(GAMES, seed=seed_of("forgetting", seed))]
        if mixed:
            shown += demonstrations(GENERAL // 4, seed=seed_of("rehearsal", seed))
        instruct(pupil, shown, epochs=epochs, lr=lr, seed=seed)
    return report(pupil)


def named(names: Sequence[str]) -> dict[str, tuple[float, int, bool]]:
    """The settings of each rate, on games alone and with general answers."""
    return {
        f"{name}, {what}": (*RATES[name], mixed)
        for name in names
        for what, mixed in (("games alone", False), ("with a quarter", True))
    }


RECORD = Record(
    "forgetting", run, runs={"base": None, **named([*RATES])}, file=__file__
)
