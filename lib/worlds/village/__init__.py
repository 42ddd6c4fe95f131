"""The village: the facts of the toy world, its words, and who is told what.

Sixteen animals, each with a colour, a home and a food. Everything that the book's
language models read, are asked and are judged by is said in this vocabulary: small
enough for a model that trains in half a minute, rich enough to be right, wrong, kind,
verbose or evasive in.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from lib import require
from lib.models.tokenizer import Tokenizer

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Animal:
    """What is true of one animal."""

    name: str
    colour: str
    home: str
    food: str


ANIMALS = tuple(
    Animal(*line.split())
    for line in """
    fox red forest berries
    owl brown barn mice
    duck white pond bread
    frog green pond flies
    cow black meadow grass
    hen brown garden corn
    bee yellow garden nectar
    bear black cave honey
    crow black valley seeds
    hare grey meadow clover
    goat white valley leaves
    mole grey field worms
    otter brown river fish
    swan white lake weeds
    snail yellow forest cabbage
    wolf grey cave meat
    """.strip().splitlines()
)
BY_NAME = {animal.name: animal for animal in ANIMALS}
KINDS = {
    "colour": tuple(sorted({a.colour for a in ANIMALS})),
    "home": tuple(sorted({a.home for a in ANIMALS})),
    "food": tuple(sorted({a.food for a in ANIMALS})),
}

KIND_WORDS = ("lovely", "gentle", "sweet", "dear", "wonderful", "happy", "friend")

_WITHIN = """
a about again and animal animals at backwards can colour colours come day do does eat eats
find first foods for had has hello here home in is it know live lives me moon more morning
name night not now of old on once one pie please rain rained rock said saw say sings snow
something song star story thank the times to today very was went wind winter words you
Describe Every I Introduce It List No Repeat Reverse Say Tell The There They What Where
Who Write You Your
""".split()
_FIRST = (
    "Animals Dear Every Food Lesson Once One Shopping Sing Sums The Words You".split()
)
_MARKS = (" +", " =", " <think>", " </think>", "Q:", "A:", "Say:")
_NUMBERS = tuple(f" {n}" for n in range(41))


def _vocabulary() -> tuple[str, ...]:
    names = {a.name for a in ANIMALS}.union(*KINDS.values(), KIND_WORDS)
    within = [f" {word}" for word in sorted(names | set(_WITHIN))]
    return (*_MARKS, *_NUMBERS, *_FIRST, *within)


TOKENIZER = Tokenizer(_vocabulary())


def animal_in(text: str) -> Animal:
    """The first animal that a text names; a text that names none is refused."""
    for word in words_of(text):
        if word in BY_NAME:
            return BY_NAME[word]
    require.refuse("text", repr(text), "one that names an animal of the village")


def words_of(text: str) -> list[str]:
    """The words and numbers of a text, without what stands between them."""
    return re.findall(r"[A-Za-z0-9]+", text)


def split_of(text: str) -> Split:
    """Whether a prompt belongs to the train or the test split: a fifth is for testing.

    Decided by the text itself (its sha256), so the splits are disjoint at any size and
    from any seed.
    """
    return "test" if hashlib.sha256(text.encode()).digest()[0] % 5 == 0 else "train"
