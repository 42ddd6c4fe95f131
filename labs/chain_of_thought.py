"""A thought about the shell game, read step by step: what each step says, and is it so.

`lib.worlds.cups.faithful` gives one verdict on a whole answer. A page that shows answers
wants one for each step.
"""

from lib.worlds import cups, tasks
from lib.worlds.language import ANIMALS
from lib.worlds.task import Task

Piece = tuple[str, bool | None]  # words, and whether they are true; None: no claim

STEP = 4  # words of a step: an animal, a swap, two cups


def pieces(task: Task, text: str) -> list[Piece]:
    """An answer in pieces: "<think>", the start, each step, "</think>", the two cups.

    A step is true where it names the swap that the game has there and the cups where
    the peas are then. Whatever is not shaped like this is one piece, true if the
    verifier accepts the whole.
    """
    words = text.split()
    if words[:1] != ["<think>"]:
        return [(" ".join(words), tasks.verify(task, text))]
    end = words.index("</think>") if "</think>" in words else len(words)
    game, thought = cups.game_of(task), words[1:end]
    found: list[Piece] = [("<think>", None)]
    found += [_claim(thought[:2], [*game.start])] if thought else []
    true = [
        [animal, swap, *places]
        for animal, swap, places in zip(ANIMALS, game.swaps, game.states())
    ]
    for at in range(2, len(thought), STEP):
        here = at // STEP
        found.append(
            _claim(thought[at : at + STEP], true[here] if here < len(true) else [])
        )
    if end < len(words):
        found += [("</think>", None)]
        found += [(" ".join(words[end + 1 :]), tasks.verify(task, text))]
    return found


def _claim(said: list[str], true: list[str | int]) -> Piece:
    """Words, and whether they say what is true, in either dialect."""
    return " ".join(said), [cups.CUP_OF.get(word, word) for word in said] == true
