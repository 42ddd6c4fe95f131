"""The skill "constraints": lists of words that keep to what was asked, as in IFEval.

"Write 3 words, start with mill, without goose." has many right answers, and code can
tell them from the wrong ones (Zhou et al. 2023). There are five kinds of constraint: how
many words, the first one, the last one, words that must be there, words that must not. A
level says how many kinds hold at once.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib import require
from lib.worlds.language import KINDS, Split, split_of
from lib.worlds.task import Task, answer_of

LEVELS = range(1, 4)
POOL = (*KINDS["home"], *KINDS["pet"])  # the nouns that answers are made of
LONGEST = 6  # words in an answer


@dataclass(frozen=True)
class Constraints:
    """What a request asks of the words of an answer; None and () ask nothing."""

    count: int | None = None
    start: str | None = None
    end: str | None = None
    use: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def hold(self, words: Sequence[str]) -> bool:
        """Are these one to six words of the pool, none twice, and as was asked?"""
        return (
            1 <= len(words) <= LONGEST
            and set(words) <= set(POOL)
            and len(set(words)) == len(words)
            and self.count in (None, len(words))
            and self.start in (None, words[0])
            and self.end in (None, words[-1])
            and set(self.use) <= set(words)
            and not set(self.without) & set(words)
        )

    @property
    def clauses(self) -> list[str]:
        """How they are said: "3 words", "start with mill", "use hill and pony" …"""
        return [
            "words" if self.count is None else f"{self.count} words",
            *([f"start with {self.start}"] if self.start else []),
            *([f"end with {self.end}"] if self.end else []),
            *(["use " + " and ".join(self.use)] if self.use else []),
            *(["without " + " and ".join(self.without)] if self.without else []),
        ]


_NOUN = "|".join(POOL)
_NOUNS = f"(?:{_NOUN})(?: and (?:{_NOUN}))?"
_REQUEST = re.compile(
    rf"(?:Write|Say)(?: (?P<count>[2-{LONGEST}]))? words"
    rf"(?:, start with (?P<start>{_NOUN}))?(?:, end with (?P<end>{_NOUN}))?"
    rf"(?:, use (?P<use>{_NOUNS}))?(?:, without (?P<without>{_NOUNS}))?\."
)


def read(request: str) -> Constraints:
    """The constraints of a request; a text that is no such request is refused."""
    found = _REQUEST.fullmatch(request)
    if found is None:
        wanted = "one such as 'Write 3 words, start with mill, without goose.'"
        require.refuse("request", repr(request), wanted)
    return Constraints(
        int(found["count"]) if found["count"] else None,
        found["start"],
        found["end"],
        tuple((found["use"] or "").split(" and ")) if found["use"] else (),
        tuple((found["without"] or "").split(" and ")) if found["without"] else (),
    )


def make(draw: random.Random, level: int) -> tuple[str, str]:
    """(request, answer): `level` kinds of constraint, and words that keep to them all."""
    asked, answer = _draw(draw, level)
    request = draw.choice(("Write", "Say")) + " " + ", ".join(asked.clauses) + "."
    return request, " ".join(answer)


def _draw(draw: random.Random, level: int) -> tuple[Constraints, list[str]]:
    """Constraints that name no word twice, and an answer that there is room for."""
    kinds = draw.sample(("count", "start", "end", "use", "without"), level)
    nouns = draw.sample(POOL, len(POOL))

    def some(kind: str, most: int) -> tuple[str, ...]:
        wanted = draw.randint(1, most) if kind in kinds else 0
        return tuple(nouns.pop() for _ in range(wanted))

    start, end = some("start", 1), some("end", 1)
    use, without = some("use", 2), some("without", 2)
    least = max(2, len(start + use + end))
    count = draw.randint(least, LONGEST if "count" in kinds else 4)
    within = [*use, *nouns[: count - len(start + use + end)]]
    draw.shuffle(within)
    asked = Constraints(
        count if "count" in kinds else None,
        start[0] if start else None,
        end[0] if end else None,
        use,
        without,
    )
    return asked, [*start, *within, *end]


def split(request: str) -> Split:
    """The split of what is asked, whether by "Write" or by "Say"."""
    return split_of(request.partition(" ")[2])


def verify(task: Task, text: str) -> bool:
    """Does the answer keep to every constraint of the request?

    An answer is nouns of the pool with one space between them, and a full stop or none
    at the end. Any other word or mark is wrong: "not mill", "mill or hill", "mill, hill".
    """
    answer = answer_of(text)
    if answer is None or len(answer) > 200:
        return False
    return read(task.request).hold(answer.strip().removesuffix(".").split(" "))


# --- what is read ---------------------------------------------------------------------


def page(draw: random.Random) -> str:
    """A lesson: what is asked for, and words that keep to it; none is for testing."""
    while True:
        request, answer = make(draw, draw.choice(LEVELS))
        if split(request) == "train":
            return f"Words: {request}\nSay: {answer}"
