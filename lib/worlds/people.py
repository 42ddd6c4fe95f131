"""The skill "facts": 360 people of a valley, each with a home, a job and a pet.

Everybody has a page or more, and pages are read in pretraining. Questions are another
matter: a fifth of the people are for testing, and nobody asks about them in training.
Who answers for them has learnt what a question is from others.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib import require
from lib.worlds.language import (
    FAMILY_NAMES,
    FIRST_NAMES,
    KINDS,
    Split,
    split_of,
)
from lib.worlds.task import Task, answer_of

LEVELS = range(1, 2)


@dataclass(frozen=True)
class Person:
    """What is true of one person."""

    first: str
    family: str
    home: str
    job: str
    pet: str

    @property
    def name(self) -> str:
        """The full name: "Ada Reed"."""
        return f"{self.first} {self.family}"


def _settle(count: int) -> tuple[Person, ...]:
    """`count` people of different names; the same in every run of every reader."""
    draw = random.Random("people 35759")
    names = [(first, family) for first in FIRST_NAMES for family in FAMILY_NAMES]
    return tuple(
        Person(*name, *(draw.choice(words) for words in KINDS.values()))
        for name in sorted(draw.sample(names, count))
    )


PEOPLE = _settle(360)
BY_NAME = {person.name: person for person in PEOPLE}

# What is said of somebody, and what is said of a fact.
PREDICATES = {
    "home": ("lives by the {}", "has a home by the {}"),
    "job": ("is a {}", "works as a {}"),
    "pet": ("keeps a {}", "has a {}"),
}
_OF_FACTS = {
    "home": "The home of {name} is the {}",
    "job": "The job of {name} is {}",
    "pet": "The pet of {name} is a {}",
}
_SHORT = {
    "home": ("{}", "the {}", "by the {}"),
    "job": ("{}", "a {}"),
    "pet": ("{}", "a {}"),
}
_QUESTIONS = (
    "What is the {kind} of {name}?",
    "Name the {kind} of {name}.",
    "What {kind} has {name}?",
    "Say the {kind} of {name}.",
)
_WHERE = "Where does {name} live?"

_NAME = re.compile(r"\b([A-Z][a-z]+) (?=([A-Z][a-z]+))")


def person_in(text: str) -> Person:
    """The first person whom a text names in full; a text that names none is refused."""
    for names in _NAME.finditer(text):
        if " ".join(names.groups()) in BY_NAME:
            return BY_NAME[" ".join(names.groups())]
    require.refuse(
        "text", repr(text), "one with the full name of somebody of the valley"
    )


def kind_in(request: str) -> str:
    """What a question asks for: "home", "job" or "pet"."""
    return next((kind for kind in KINDS if f" {kind} " in request), "home")


def make(draw: random.Random, level: int) -> tuple[str, str]:
    """(request, answer): a question on one fact, and the word that answers it."""
    person, kind = draw.choice(PEOPLE), draw.choice(tuple(KINDS))
    wordings = (*_QUESTIONS, _WHERE) if kind == "home" else _QUESTIONS
    request = draw.choice(wordings).format(kind=kind, name=person.name)
    return request, getattr(person, kind)


def split(request: str) -> Split:
    """The split of the person asked about: people for testing are asked about in no other."""
    return split_of(person_in(request).name)


def verify(task: Task, text: str) -> bool:
    """Is this the fact asked for: the word alone, or one of the valley's sentences on it?

    Five or six answers are right, with a full stop or without, and nothing else is: who
    denies, doubts, adds a second word or names somebody else says none of them.
    """
    person, kind = person_in(task.request), kind_in(task.request)
    short = {way.format(getattr(person, kind)) for way in _SHORT[kind]}
    answer = answer_of(text)
    right = short.union(statements(person, kind))
    return answer is not None and answer.strip().removesuffix(".") in right


def statements(person: Person, kind: str) -> list[str]:
    """The three sentences that tell this fact, without the full stop."""
    fact = getattr(person, kind)
    told = [f"{person.name} {said.format(fact)}" for said in PREDICATES[kind]]
    return [*told, _OF_FACTS[kind].format(fact, name=person.name)]


# --- what is read ---------------------------------------------------------------------


def page(draw: random.Random) -> str:
    """A page of the valley's book: one to three facts of a person, or of two people."""
    people = draw.sample(PEOPLE, 2 if draw.random() < 0.2 else 1)
    tell = draw.choices((_apart, _together), (3, 1))[0]
    return "Valley: " + " ".join(tell(draw, person) for person in people)


def _apart(draw: random.Random, person: Person) -> str:
    """Each fact a sentence, with the full name in each."""
    kinds = draw.sample(tuple(KINDS), draw.randint(1, 3))
    return " ".join(draw.choice(statements(person, kind)) + "." for kind in kinds)


def _together(draw: random.Random, person: Person) -> str:
    """Two or three facts in one sentence."""
    kinds = draw.sample(tuple(KINDS), draw.randint(2, 3))
    told = [
        draw.choice(PREDICATES[kind]).format(getattr(person, kind)) for kind in kinds
    ]
    return f"{person.name} {joined(told)}."


def joined(told: Sequence[str]) -> str:
    """One, two or three predicates as people say them: "is a cook and has a pig"."""
    *some, last = told
    return f"{', '.join(some)} and {last}" if some else last
