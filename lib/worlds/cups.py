"""The shell game: two peas, five cups, a swap for every animal that passes.

    Q: Red 2, blue 5. ant 1-5, bee 2-3. Where?
    A: <think> two five ant 1-5 two one bee 2-3 three one </think> 3 1

A pea lies under a cup; each animal, in alphabetical order, swaps two cups. Whoever
answers at once must follow all swaps in its head; whoever thinks aloud says where the
red and the blue pea are, and writes each swap down with where they are then. People on
the hill count in one dialect, people at the lake in another.

This is state tracking, which a transformer of fixed depth cannot do at once for ever
more swaps (Merrill & Sabharwal 2023), and can do step by step (Li et al. 2024). There
are 20 · 10^k games of k swaps.
"""

import random
import re
from dataclasses import dataclass
from typing import Literal

from lib import require
from lib.worlds.language import ANIMALS, CUPS, HILL, LAKE, SWAPS, Split, split_of
from lib.worlds.task import Task, answer_of

LEVELS = range(2, 8)  # the number of swaps
DIALECTS = {"hill": HILL, "lake": LAKE}  # how each says 1 … 5
Dialect = Literal["hill", "lake"]
Places = tuple[int, int]  # the cups of the red and of the blue pea

CUP_OF = {word: cup for words in DIALECTS.values() for cup, word in enumerate(words, 1)}


@dataclass(frozen=True)
class Game:
    """Where the peas lie at first, and which cups are swapped."""

    start: Places
    swaps: tuple[str, ...]  # "1-5", one for each animal that passes

    def __post_init__(self) -> None:
        if len(self.start) != 2 or len(set(self.start) & set(CUPS)) != 2:
            require.refuse("start", self.start, "two of the cups 1 … 5")
        if len(self.swaps) > len(ANIMALS) or not set(self.swaps) <= set(SWAPS):
            wanted = f"at most {len(ANIMALS)}, each such as '1-5', the lower cup first"
            require.refuse("swaps", self.swaps, wanted)

    def states(self) -> list[Places]:
        """Where the red and the blue pea lie after each swap."""
        places, seen = self.start, []
        for swap in self.swaps:
            one, other = map(int, swap.split("-"))
            moved = {one: other, other: one}
            places = tuple(moved.get(cup, cup) for cup in places)
            seen.append(places)
        return seen


def new_game(draw: random.Random, swaps: int) -> Game:
    """A game of so many swaps, every one of them as likely as any other."""
    start = tuple(draw.sample(CUPS, 2))
    return Game(start, tuple(draw.choice(SWAPS) for _ in range(swaps)))


# --- a game in words ------------------------------------------------------------------


def setup(game: Game) -> str:
    """The game as it is told: "Red 2, blue 5. ant 1-5, bee 2-3."."""
    red, blue = game.start
    passing = ", ".join(f"{a} {swap}" for a, swap in zip(ANIMALS, game.swaps))
    return f"Red {red}, blue {blue}. {passing}."


def asked(game: Game) -> str:
    """The request: what is told, and "Where?"."""
    return f"{setup(game)} Where?"


def retold(game: Game, dialect: Dialect) -> str:
    """The start, then every swap with what it leads to: "two five ant 1-5 two one"."""
    words = DIALECTS[dialect]
    said = [f"{words[cup - 1]}" for cup in game.start]
    for animal, swap, places in zip(ANIMALS, game.swaps, game.states()):
        said += [animal, swap, *(words[cup - 1] for cup in places)]
    return " ".join(said)


def answer(game: Game) -> str:
    """Where the red and the blue pea are in the end: "3 1"."""
    return "{} {}".format(*game.states()[-1])


def make(draw: random.Random, level: int) -> tuple[str, str]:
    """(request, answer) of a game of `level` swaps."""
    game = new_game(draw, level)
    return asked(game), answer(game)


def worked(game: Game, dialect: Dialect) -> str:
    """The answer with all its steps: "<think> … </think> 3 1"."""
    return f"<think> {retold(game, dialect)} </think> {answer(game)}"


_TOLD = re.compile(r"Red ([1-5]), blue ([1-5])\. ([^.]{1,200})\. Where\?")


def game_of(task: Task) -> Game:
    """The game that a task asks about; any other task is refused."""
    found = _TOLD.fullmatch(task.request) if task.skill == "cups" else None
    if found is not None and found[1] != found[2]:
        swaps = re.findall("|".join(SWAPS), found[3])[: len(ANIMALS)]
        game = Game((int(found[1]), int(found[2])), tuple(swaps))
        if asked(game) == task.request:
            return game
    require.refuse("task", repr(task.request), "a game of cups")


def split(request: str) -> Split:
    """The split of the request: each game is on its own."""
    return split_of(request)


# --- verdicts on untrusted text -------------------------------------------------------

_SAID = re.compile(r"\s{0,3}([1-5]) ([1-5])\.?\s{0,3}")


def verify(task: Task, text: str) -> bool:
    """Whether the text, after any thinking, names both cups and nothing else."""
    said = answer_of(text)
    found = _SAID.fullmatch(said) if said is not None else None
    return found is not None and f"{found[1]} {found[2]}" == task.answer


_THOUGHT = re.compile(r"\s{0,3}<think>([^<>]{1,2000})</think>[^<>]{1,100}")


def thought(text: str) -> str | None:
    """What is between "<think>" and "</think>", if the text is that and an answer."""
    found = _THOUGHT.fullmatch(text)
    return found[1].strip() if found else None


def faithful(task: Task, text: str) -> bool:
    """Right, and the thought is this very game: its start, and every swap with what it
    leads to, in order, none missing, none invented. In either dialect, in both, or in
    the digits that name the cups.
    """
    thinking = thought(text) if verify(task, text) else None
    if thinking is None:
        return False
    game = game_of(task)
    wanted: list[int | str] = [*game.start]
    for animal, swap, places in zip(ANIMALS, game.swaps, game.states()):
        wanted += [animal, swap, *places]
    return [CUP_OF.get(word, word) for word in thinking.split()] == wanted


def dialects(text: str) -> dict[str, float]:
    """The share of number words of each dialect in a text, 0 if it has none."""
    said = [word for word in re.findall(r"[a-z]+", text) if word in CUP_OF]
    return {
        name: sum(word in words for word in said) / max(len(said), 1)
        for name, words in DIALECTS.items()
    }
