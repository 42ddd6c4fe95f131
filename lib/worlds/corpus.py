"""What the people of the valley have written: the text that a base model learns from.

Half of it are games, told and then retold. A question with its answer is rarer, so that
instruction tuning has something to teach. A question whose answer is *worked*, inside
<think>, is rare, and half done, so that reinforcement learning has something to find.
`SHARES` says how much there is of each; a page prints it, and experiments change it.
"""

import random
from collections.abc import Callable

from lib import require
from lib.seeds import seed_of
from lib.worlds import constraints, cups, people, strings
from lib.worlds.language import ANIMALS, FILLER
from lib.worlds.tasks import one

LAZY = 0.4  # of the worked answers stop thinking before the last swap


def _dialect(draw: random.Random) -> cups.Dialect:
    return draw.choice(tuple(cups.DIALECTS))


def _pause(draw: random.Random) -> str:
    """Up to six words that say nothing: what follows may stand anywhere."""
    return "".join(f" {draw.choice(FILLER)}" for _ in range(draw.randint(0, 6)))


def _game(draw: random.Random) -> str:
    """A game as it was told, perhaps its swaps once more in any order, and retold."""
    game = cups.new_game(draw, draw.randint(1, max(cups.LEVELS)))
    while cups.split(cups.asked(game)) == "test":
        game = cups.new_game(draw, len(game.swaps))
    text = f"Game: {cups.setup(game)}"
    if draw.random() < 0.5:
        seen = draw.sample(list(zip(ANIMALS, game.swaps)), len(game.swaps))
        text += (
            _pause(draw) + "".join(f" {animal} {swap}" for animal, swap in seen) + "."
        )
    text += f"{_pause(draw)} {cups.retold(game, _dialect(draw))}."
    return f"{text} {cups.answer(game)}"


def _asked(draw: random.Random, skill: str) -> str:
    """A question for training and one good answer, given at once."""
    task = one(skill, draw, split="train")
    return f"{task.prompt} {task.answer}"


def _worked(draw: random.Random) -> str:
    """A game whose answer is worked step by step, by some only halfway."""
    task = one("cups", draw, split="train")
    game, dialect = cups.game_of(task), _dialect(draw)
    if draw.random() >= LAZY:
        return f"{task.prompt} {cups.worked(game, dialect)}"
    some = cups.Game(game.start, game.swaps[: draw.randint(1, len(game.swaps))])
    said = cups.answer(draw.choice((game, some)))
    return f"{task.prompt} <think> {cups.retold(some, dialect)} </think> {said}"


def _unanswered(draw: random.Random) -> str:
    """Questions, and nobody there to answer them."""
    skill = draw.choice(("facts", "strings", "constraints", "talk"))
    return "\n".join(f"Q: {one(skill, draw, split='train').request}" for _ in range(2))


WRITERS: dict[str, Callable[[random.Random], str]] = {
    "games": _game,
    "cups answered": lambda draw: _asked(draw, "cups"),
    "cups worked": _worked,
    "pages on people": people.page,
    "facts answered": lambda draw: _asked(draw, "facts"),
    "pages on letters": strings.page,
    "strings answered": lambda draw: _asked(draw, "strings"),
    "lists of words": constraints.page,
    "constraints answered": lambda draw: _asked(draw, "constraints"),
    "talk": lambda draw: _asked(draw, "talk"),
    "unanswered": _unanswered,
}
SHARES = {
    "games": 0.37,
    "cups answered": 0.12,
    "cups worked": 0.015,
    "pages on people": 0.17,
    "facts answered": 0.04,
    "pages on letters": 0.10,
    "strings answered": 0.03,
    "lists of words": 0.06,
    "constraints answered": 0.03,
    "talk": 0.055,
    "unanswered": 0.02,
}


def shares_of(**changed: float) -> dict[str, float]:
    """`SHARES` with some of them changed ("cups_worked" for "cups worked")."""
    new = {name.replace("_", " "): share for name, share in changed.items()}
    for name, share in new.items():
        require.one_of("shares", name, tuple(SHARES))
        require.non_negative(name, share)
    return SHARES | new


def documents(*, count: int, seed: int, **shares: float) -> list[str]:
    """`count` documents from a seed; no request of the test split is in them.

    `shares` change those of `SHARES`; they need not sum to 1. Facts of everybody are
    told on pages; what a test asks about a person, some page tells.
    """
    require.count("count", count)
    require.count("seed", seed, least=0)
    draw = random.Random(seed_of("corpus", seed))
    mix = shares_of(**shares)
    kinds = draw.choices(tuple(mix), tuple(mix.values()), k=count)
    return [WRITERS[kind](draw) for kind in kinds]
