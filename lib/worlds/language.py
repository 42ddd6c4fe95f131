"""The words of the valley, and which of its texts are kept for testing.

Whatever the language models of the book read, are asked or answer is said in these
words. A few letters more would make it English; a few words fewer would leave nothing to
be right, wrong or kind about. Only the nonsense words of one skill are spelled.
"""

import hashlib
from typing import Literal

from lib.models.tokenizer import Tokenizer

Split = Literal["train", "test"]

# --- the shell game -------------------------------------------------------------------

CUPS = range(1, 6)
SWAPS = tuple(f"{one}-{two}" for one in CUPS for two in CUPS if one < two)
PEAS = ("red", "blue")
HILL = ("one", "two", "three", "four", "five")  # how they count on the hill
LAKE = ("un", "deux", "trois", "quatre", "cinq")  # and at the lake
ANIMALS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")  # one a swap
FILLER = ("so", "then", "now", "look", "well", "hm", "and", "again", "first", "still")

# --- the people -----------------------------------------------------------------------

FIRST_NAMES = tuple(
    "Ada Ben Cleo Dan Eva Finn Greta Hugo Ida Jon Kit Lea Max Nora Otto Pia Rosa Sam Tess Zoe"
    "".split()
)
FAMILY_NAMES = tuple(
    "Ash Birch Clay Dove Frost Gray Hale Lane Marsh Moss Penn Pike Reed Rook Snow Stone Thorn"
    " Vale Wells West".split()
)
KINDS = {  # of facts, and the words for them
    "home": tuple(
        "barn bridge farm garden hill inn lake meadow mill shore tower wood".split()
    ),
    "job": tuple(
        "baker cook doctor farmer fisher miner painter potter singer smith teacher weaver"
        "".split()
    ),
    "pet": tuple("crow duck goat goose hare mole newt pig pony swan toad rat".split()),
}
KIND_WORDS = ("kind", "dear", "wise", "merry", "brave", "friend")

# --- all of them ----------------------------------------------------------------------

_MARKS = (
    "Q:",
    "A:",
    "Game:",
    "Valley:",
    "Letters:",
    "Words:",
    "Say:",
    " <think>",
    " </think>",
)
_ASKED = """
Ant Red Where Describe How I Name Say Tell The What Who Write
""".split()
_WITHIN = """
a about after as by do does end has home in is job keeps know last letter letters live lives
many me not of pet please something start the under use very with without word words works
""".split()


def _vocabulary() -> tuple[str, ...]:
    counted = [*map(str, range(1, 10)), *SWAPS, *PEAS, *HILL, *LAKE]
    named = [*ANIMALS, *FIRST_NAMES, *FAMILY_NAMES, *sum(KINDS.values(), ())]
    said = [*FILLER, *KIND_WORDS, *_ASKED, *_WITHIN]
    return (*_MARKS, *(f" {word}" for word in (*counted, *named, *said)))


WORDS = _vocabulary()
TOKENIZER = Tokenizer(WORDS)


def split_of(text: str) -> Split:
    """Whether a text belongs to the train or the test split: a fifth is for testing.

    Decided by the text itself (its sha256), so the splits are disjoint at any size and
    from any seed. For a skill the text is what must stay unknown: a request, a name or
    a nonsense word.
    """
    return "test" if hashlib.sha256(text.encode()).digest()[0] % 5 == 0 else "train"
