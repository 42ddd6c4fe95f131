"""What was published about the three recipes, and what a lecture made of it: one file.

Every figure of `published.json` says where it was read and how far that was verified,
so that texts, tables and plots can be made from it, and a correction is one line.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lib import require

PLACE = Path(__file__).with_suffix(".json")
RECIPES = ("instructgpt", "tulu3", "deepseek_r1")
LECTURE = "lecture"
VERIFIED = {
    "text": "read in the text of the source",
    "computed": "computed from figures in the text of the source",
    "repository": "read in its authors' repository",
    "excerpt": "read where others quote it",
    "not": "not verified",
}
TIMES = {"": 1, "K": 1_000, "M": 1_000_000}


@dataclass(frozen=True)
class Fact:
    """One published figure."""

    recipe: str  # of RECIPES
    stage: str  # as in the recipe; "base", or "all" for the whole of it
    what: str  # "size" is what a stage's `published` counts
    value: (
        int | float | str | None
    )  # words where no number is printed; None: unpublished
    unit: str
    paper: str  # author and year; or LECTURE
    version: str
    table: str  # where in it
    verified: str  # of VERIFIED
    note: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "value" and not isinstance(value, str):
                require.refuse(field.name, repr(value), "text")
        require.one_of("recipe", self.recipe, RECIPES)
        require.one_of("verified", self.verified, list(VERIFIED))
        for name in ("stage", "what", "paper", "version", "table"):
            if not getattr(self, name):
                require.refuse(name, "nothing", "a word or more")
        if not isinstance(self.value, (str, type(None))):
            require.number("value", self.value)

    @property
    def number(self) -> float:
        """The value as a number, "~10K" and "100K+" included; NaN where it is none."""
        if isinstance(self.value, (int, float)):
            return self.value
        found = re.fullmatch(r"~?(\d+)([KM]?)\+?", self.value or "")
        return int(found[1]) * TIMES[found[2]] if found else math.nan


def read(rows: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """Facts from dictionaries; one that lacks a field or is there twice is refused."""
    names = [field.name for field in fields(Fact)]
    for row in rows:
        if sorted(row) != sorted(names):
            wrong = sorted(set(row) ^ set(names))
            require.refuse("row", f"{dict(row)}, off in {wrong}", ", ".join(names))
    found = [Fact(**row) for row in rows]
    twice = [key for key, count in Counter(map(_key, found)).items() if count > 1]
    if twice:
        require.refuse("rows", f"{twice[0]} twice", "every fact once")
    return found


def facts(recipe: str | None = None) -> list[Fact]:
    """All that is known of one recipe, or of all of them, in the order of the file."""
    if recipe is not None:
        require.one_of("recipe", recipe, RECIPES)
    known = read(json.loads(PLACE.read_text("utf-8")))
    return [fact for fact in known if recipe in (None, fact.recipe)]


def find(
    recipe: str,
    stage: str,
    what: str,
    *,
    paper: str | None = None,
    version: str | None = None,
) -> Fact:
    """The one fact of this name. Without `paper` the lecture's are passed over.

    Where sources disagree there is more than one: then say which paper or version.
    """
    found = [
        fact
        for fact in facts(recipe)
        if (fact.stage, fact.what) == (stage, what)
        and (fact.paper != LECTURE if paper is None else fact.paper == paper)
        and version in (None, fact.version)
    ]
    if len(found) != 1:
        got = f"{stage!r}, {what!r} with {len(found)} facts"
        require.refuse("what", got, "the name of one; see facts()")
    return found[0]


def _key(fact: Fact) -> tuple[str, ...]:
    return fact.recipe, fact.stage, fact.what, fact.paper, fact.version
