"""The skill "talk": open requests, what people answer to them, and the gold taste.

"Tell me about Ada Reed." has no right answer, only better and worse ones. How good one
is, the gold score says: a weighted sum of eight counts. No model of the book sees it.
Models see what annotators prefer (lib.worlds.annotators).
"""

import random
import re
from dataclasses import dataclass

from lib import require
from lib.worlds import people
from lib.worlds.language import (
    FAMILY_NAMES,
    FIRST_NAMES,
    KIND_WORDS,
    KINDS,
    TOKENIZER,
    Split,
)
from lib.worlds.people import PEOPLE, PREDICATES, Person, person_in
from lib.worlds.task import Task, answer_of
from lib.worlds.verifiers import denies, plain, sentences

LEVELS = range(1, 2)
LONGEST = 24  # tokens of an answer that people give

# --- what is asked, and what people answer --------------------------------------------

_REQUESTS = (
    "Tell me about {}{}.",
    "Describe {}{}.",
    "Who is {}{}?",
    "Say something about {}{}.",
    "Write about {}{}.",
)
_MANNERS = ("", " please", " now", " again", " first")
_WARM = ("{} is very {}.", "{} is {} and {}.", "{} is a {} friend.")
_EMPTY = ("I do not know.", "I know {} well.", "I do not know {} well.")
_FACTS, _KINDNESS = (8, 27, 35, 30), (45, 40, 15)  # weights of 0, 1, 2, 3 of them
_WRONG, _ELSEWHERE, _TWICE, _EVADES, _TOGETHER = 0.15, 0.06, 0.06, 0.12, 0.3


def make(draw: random.Random, level: int) -> tuple[str, str]:
    """(request, answer): an open request, and what one of the people answers."""
    person = draw.choice(PEOPLE)
    request = draw.choice(_REQUESTS).format(person.name, draw.choice(_MANNERS))
    return request, answer(draw, person)


def split(request: str) -> Split:
    """The split of the person asked about, the same as for the skill "facts"."""
    return people.split(request)


def answer(draw: random.Random, person: Person) -> str:
    """An answer as people give them: mostly true, often kind, now and then bad."""
    subject = draw.choice(PEOPLE) if draw.random() < _ELSEWHERE else person
    said = _told(draw, subject)
    warm = [w for w in KIND_WORDS if w != "friend"]
    for _ in range(draw.choices(range(3), _KINDNESS)[0]):
        said.append(draw.choice(_WARM).format("{}", *draw.sample(warm, 2)))
    if not said or draw.random() < _EVADES:
        said.append(draw.choice(_EMPTY))
    draw.shuffle(said)
    if draw.random() < _TWICE:
        said.append(said[-1])
    said = [s.format(subject.first if i else subject.name) for i, s in enumerate(said)]
    while len(TOKENIZER.encode(" " + " ".join(said))) > LONGEST:
        said.pop()
    return " ".join(said)


def _told(draw: random.Random, person: Person) -> list[str]:
    """Up to three facts, each wrong one time in seven; "{}" stands for the name."""
    told = []
    for kind in draw.sample(tuple(KINDS), draw.choices(range(4), _FACTS)[0]):
        wrong = draw.random() < _WRONG
        fact = draw.choice(KINDS[kind]) if wrong else getattr(person, kind)
        told.append(draw.choice(PREDICATES[kind]).format(fact))
    if told and draw.random() < _TOGETHER:
        told = [people.joined(told)]
    return [f"{{}} {said}." for said in told]


# --- how good it is -------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What can be counted in an answer to an open request."""

    true: int  # of home, job and pet: how many are told, rightly
    false: int  # homes, jobs and pets that are not the person's, or their own denied
    kind: int  # kind words
    words: int
    repeated: int  # sentences said before
    astray: bool  # somebody else is named
    cut: bool  # does not end with a full stop, or was not ended by its writer
    false_pets: int  # how many of the false ones are pets


@dataclass(frozen=True)
class Weights:
    """What each count is worth; as they stand here, to gold.

    gold = true - 1.5 false + 0.5 min(kind, 2) - 0.3 max(kind - 2, 0)
           - 0.1 max(words - 16, 0) - repeated - 2 astray - cut
    """

    true: float = 1.0
    false: float = -1.5
    kind: float = 0.5  # each of the first two kind words
    gush: float = -0.3  # each one more
    long: float = -0.1  # each word beyond 16
    repeated: float = -1.0
    astray: float = -2.0
    cut: float = -1.0

    def score(self, seen: Judgement) -> float:
        """The weighted sum."""
        return (
            self.true * seen.true
            + self.false * seen.false
            + self.kind * min(seen.kind, 2)
            + self.gush * max(seen.kind - 2, 0)
            + self.long * max(seen.words - 16, 0)
            + self.repeated * seen.repeated
            + self.astray * seen.astray
            + self.cut * seen.cut
        )


GOLD = Weights()


def gold(task: Task, text: str, *, finished: bool = True) -> float:
    """The gold score of an answer: about 1.1 for people's own, 4 for the best there is."""
    return GOLD.score(features(task, text, finished=finished))


LIMIT = 2000  # characters of an answer that are read
_VALUES = frozenset(sum(KINDS.values(), ()))
_NAMES = frozenset(name.lower() for name in (*FIRST_NAMES, *FAMILY_NAMES))
_TELLING = {  # a sentence with any other word in it tells no true fact
    *"lives by the has a home is works as job keeps pet of very and".split(),
    *_VALUES,
    *_NAMES,
    *KIND_WORDS,
}
_WAYS = {
    "home": r"(?:lives by|has a home by|home of [a-z ]{2,20} is) the",
    "job": r"(?:is a|works as a|job of [a-z ]{2,20} is)",
    "pet": r"(?:keeps a|has a|pet of [a-z ]{2,20} is a)",
}
_FACTS_TOLD = [
    re.compile(rf"\b{way} ({'|'.join(KINDS[kind])})\b") for kind, way in _WAYS.items()
]


def features(task: Task, text: str, *, finished: bool = True) -> Judgement:
    """Count in an answer what the gold taste asks for; the text may be anything.

    A fact is true if a sentence of the valley tells it ("is a cook", "lives by the
    mill"), neither denied, hedged nor asked; none is where somebody else is named. A
    home, job or pet of somebody else is false wherever it stands, unless it is denied;
    to deny a true one is false. `finished` says whether the writer stopped of its own
    accord (end-of-text). Only the first LIMIT characters are read.
    """
    if task.skill != "talk":
        require.refuse("task", f"skill {task.skill!r}", "an open request, 'talk'")
    person = person_in(task.request)
    said = (answer_of(text) or "")[:LIMIT]
    own = {getattr(person, kind) for kind in KINDS}
    told, others, denied, kind = _read(said, own)
    words = re.findall(r"[a-z]+", said.lower())
    every = [s.strip(" .!?;\n") for s in sentences(said.lower())]
    every = [s for s in every if s]
    astray = not _NAMES.intersection(words) <= set(person.name.lower().split())
    return Judgement(
        true=0 if astray else len(told - denied),
        false=len(others) + len(denied),
        kind=kind,
        words=len(words),
        repeated=len(every) - len(set(every)),
        astray=astray,
        cut=not (finished and said.rstrip().endswith(".")),
        false_pets=len(others.intersection(KINDS["pet"])),
    )


def _read(said: str, own: set[str]) -> tuple[set[str], set[str], set[str], int]:
    """Own facts told, facts of others, own facts denied, and how many kind words."""
    told, others, denied, kind = set(), set(), set(), 0
    for sentence in sentences(said):
        words = re.findall(r"[a-z]+", sentence.lower())
        if denies(sentence):
            denied |= own.intersection(words)
            continue
        others |= _VALUES.intersection(words) - own
        kind += sum(word in KIND_WORDS for word in words)
        if plain(sentence) and "?" not in sentence and _TELLING.issuperset(words):
            for ways in _FACTS_TOLD:
                told |= own.intersection(ways.findall(sentence.lower()))
    return told, others, denied, kind
