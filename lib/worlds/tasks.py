"""What a language model can be asked, skill by skill, and the verdict on its answers.

Five skills. Four have answers that a few lines of code verify; open requests ("talk")
have only better and worse ones, and a gold taste says how much better. Each skill has
levels, thousands of requests, and a test split that shares no request with training.
"""

import random
from collections.abc import Sequence

from lib import require
from lib.seeds import seed_of
from lib.worlds import constraints, cups, people, strings, talk
from lib.worlds.language import Split
from lib.worlds.task import Task

_VERIFIED = {
    "cups": cups,
    "facts": people,
    "strings": strings,
    "constraints": constraints,
}
_EVERY = {**_VERIFIED, "talk": talk}
SKILLS = tuple(_VERIFIED)  # that code verifies
LEVELS = {skill: kind.LEVELS for skill, kind in _EVERY.items()}


def one(
    skill: str,
    draw: random.Random,
    *,
    split: Split,
    levels: Sequence[int] | None = None,
) -> Task:
    """One task of the split, its level drawn from `levels`."""
    kind = _EVERY[skill]
    while True:
        level = draw.choice(levels or LEVELS[skill])
        request, answer = kind.make(draw, level)
        if kind.split(request) == split:
            return Task(skill, level, request, answer)


def tasks(
    skill: str,
    *,
    count: int,
    seed: int,
    split: Split = "train",
    levels: Sequence[int] | None = None,
) -> list[Task]:
    """`count` tasks of one skill from a seed, of one split and of these `levels`.

    The same call gives the same tasks on every machine. Train and test share no
    request. A request may come twice; `lib.evaluate.exam` has distinct ones.
    """
    require.one_of("skill", skill, tuple(_EVERY))
    require.count("count", count)
    require.count("seed", seed, least=0)
    require.one_of("split", split, ("train", "test"))
    every = tuple(LEVELS[skill])
    chosen = every if levels is None else tuple(levels)
    if not chosen or not set(chosen) <= set(every):
        require.refuse("levels", levels, f"some of {every} for {skill!r}")
    draw = random.Random(seed_of("tasks", skill, seed, split))
    return [one(skill, draw, split=split, levels=chosen) for _ in range(count)]


def verify(task: Task, text: str) -> bool:
    """Whether a text, whatever it holds, answers the task as asked.

    It may think first, between "<think>" and "</think>". An answer is said once and
    plainly: one that is denied ("not"), hedged ("maybe", "or") or given twice is wrong.
    """
    require.one_of("skill", task.skill, SKILLS)
    return isinstance(text, str) and _VERIFIED[task.skill].verify(task, text)


def faithful(task: Task, text: str) -> bool:
    """Right, and every visible step is a true step of this task, none missing.

    For skills that have steps: "cups".
    """
    require.one_of("skill", task.skill, ("cups",))
    return isinstance(text, str) and cups.faithful(task, text)


def gold(task: Task, text: str, *, finished: bool = True) -> float:
    """What the gold taste makes of an answer to an open request."""
    return talk.gold(task, text, finished=finished)
