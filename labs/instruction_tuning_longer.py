"""Instruction tuning with four times the updates of chapter 7: does skill go further?"""

from functools import partial

from labs import instruction_tuning as it
from labs.record import Record, call

UPDATES = 4 * it.UPDATES  # 1,024 demonstrations of each skill, four times over
RUNS = {"longer": partial(it.sized, number=1024, updates=UPDATES, lost=True)}
RECORD = Record("instruction_tuning_longer", call, runs=RUNS, file=__file__)
