"""What does a judge see? An answer, and the same answer with one thing made worse.

A judge who cannot tell the two apart is right half the time. The gold taste prefers the
first version of every pair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lib import require
from lib.rollout import Rollout
from lib.sft import written
from lib.worlds.language import KINDS, split_of
from lib.worlds.people import PEOPLE, Person
from lib.worlds.task import Task

REQUESTS = ("Tell me about {}.", "Describe {}.", "Who is {}?")
_HOME, _JOB = "{0.name} lives by the {0.home}.", "{0.first} is a {0.job}."
_BOTH = f"{_HOME} {_JOB}"

# What is better about the first version. {0} is who was asked about, {1} somebody else
# with another home, job and pet. A version that begins with "…" was cut off at its end.
EDITS = {
    "a true home": (_HOME, "{0.name} lives by the {1.home}."),
    "a true job": ("{0.name} is a {0.job}.", "{0.name} is a {1.job}."),
    "a true pet": ("{0.name} keeps a {0.pet}.", "{0.name} keeps a {1.pet}."),
    "one fact more": (_BOTH, _HOME),
    "a kind word": (
        f"{_HOME} {{0.first}} is very wise.",
        f"{_HOME} I know {{0.first}} well.",
    ),
    "not too kind": (
        f"{_HOME} {{0.first}} is kind and wise.",
        f"{_HOME} {{0.first}} is kind and wise. {{0.first}} is brave and merry.",
    ),
    "not said twice": (_BOTH, f"{_BOTH} {_JOB}"),
    "who was asked about": ("{0.name} is very kind.", "{1.name} is very kind."),
    "not cut off": (_BOTH, f"…{_BOTH[:-1]}"),
    "not drawn out": (
        f"{_BOTH} I know {{0.first}} well.",
        f"{_BOTH} " + " ".join(["I know {0.first} well.", "I do not know."] * 2)[:-1],
    ),
}


@dataclass(frozen=True)
class MinimalPairs:
    """N requests, each with a better and a worse answer; (N,) whether the worse ended."""

    asked: list[Task]
    better: list[str]
    worse: list[str]
    finished: list[bool]

    def written(self) -> tuple[Rollout, Rollout]:
        """Both versions, as a model reads them."""
        worse = written(self.asked, self.worse, finished=self.finished)
        return written(self.asked, self.better), worse


def people(split: str = "test") -> list[Person]:
    """Those who are kept for testing, or the others."""
    return [person for person in PEOPLE if split_of(person.name) == split]


def pairs(edit: str, who: Sequence[Person] | None = None) -> MinimalPairs:
    """One edit, tried on each of these people (the 70 for testing) with each request."""
    require.one_of("edit", edit, tuple(EDITS))
    who = people() if who is None else who
    each = [(person, _another(person), way) for person in who for way in REQUESTS]
    asked = [Task("talk", 1, way.format(one.name), "") for one, _, way in each]
    better, worse = (
        [text.lstrip("…").format(*two) for *two, _ in each] for text in EDITS[edit]
    )
    ended = not EDITS[edit][1].startswith("…")
    return MinimalPairs(asked, better, worse, [ended] * len(asked))


def sees(
    scorer: Callable[[Rollout], Tensor],
    edit: str,
    who: Sequence[Person] | None = None,
) -> Tensor:
    """Where a scorer, rollout -> (N,), puts the better version first: (N,) of 0 and 1.

    To score both alike is not to see the difference: a tie counts as 0.
    """
    better, worse = (scorer(each) for each in pairs(edit, who).written())
    return (better > worse).double()


def _another(person: Person) -> Person:
    """The next on the list, round and round, of whom everything else is true."""
    at = PEOPLE.index(person)
    apart = (*KINDS, "first", "family")
    return next(
        other
        for other in PEOPLE[at:] + PEOPLE
        if all(getattr(other, kind) != getattr(person, kind) for kind in apart)
    )
