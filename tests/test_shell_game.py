"""The shell game to drag: the peas lie where the last word says, in every frame."""

import json
import re

import pytest

from lib.show import shell_game
from lib.worlds import cups

GAME = cups.Game((2, 5), ("1-5", "2-3", "1-3"))
PLACES = [GAME.start, *GAME.states()]
ALT = "Five cups and two peas that follow three swaps."


def rows(game, words):
    """The words of a thought: start, a row a swap, answer."""
    told = cups.worked(game, words).split()
    middle = [tuple(told[i : i + 4]) for i in range(3, len(told) - 3, 4)]
    return [tuple(told[:3]), *middle, tuple(told[-3:])]


def made(**how):
    said = {name: rows(GAME, name) for name in cups.DIALECTS}
    known = {"thoughts": said, "places": PLACES, "swaps": GAME.swaps, "alt": ALT}
    return shell_game.drag(**(known | how))


def moves(widget, name):
    data = json.loads(re.search(r"var D = (\{.*\});\n", widget.html)[1])
    return [move["v"] for move in data["moves"] if move["a"] == name]


def test_one_frame_more_than_there_are_words():
    words = cups.worked(GAME, "hill").split()
    assert made().summary.startswith(
        f"cups: 1 panel, {len(words) + 1} frames over said"
    )


def test_each_pea_moves_when_its_word_is_said_and_ends_where_the_answer_says():
    for pea, xs in enumerate(moves(made(), "cx")):
        cup = [round((x - 60) / 80) + 1 for x in xs]
        assert cup[0] == GAME.start[pea] and cup[-1] == GAME.states()[-1][pea]
        for swap, (before, after) in enumerate(zip(PLACES, PLACES[1:])):
            word = 3 + 4 * swap + 2 + pea  # the number of words said before it
            assert cup[word] == before[pea] and cup[word + 1] == after[pea]


def test_a_word_stays_once_it_is_said_and_all_are_said_in_the_end():
    seen = moves(made(), "fill-opacity")
    assert len(seen) == 2 * len(cups.worked(GAME, "hill").split())
    assert all(each == sorted(each) and each[0] == 0 and each[-1] == 1 for each in seen)


def test_one_arc_is_seen_at_a_time_and_none_before_the_first_animal_comes():
    arcs = [sum(frame) for frame in zip(*moves(made(), "opacity"))]
    assert arcs[:4] == [0] * 4 and arcs[4:-3] == [1] * 12 and arcs[-3:] == [0] * 3


def test_what_is_said_below_names_every_swap_and_the_answer():
    said = json.loads(re.search(r'"readout": ?(\[.*?\])[,}]', made().html)[1])
    assert "… and swaps cups 2 and 3." in said
    red, blue = GAME.states()[-1]
    assert said[-1] == f"The answer: red under {red}, blue under {blue}."


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"places": PLACES[:-1]}, "places: got 3, wanted 4"),
        ({"thoughts": {"hill": rows(GAME, "hill")[:-1]}}, "thoughts: got"),
        ({"alt": " "}, "alt: got nothing"),
    ],
)
def test_what_does_not_fit_together_is_refused(how, named):
    with pytest.raises(ValueError, match=named):
        made(**how)


def test_the_same_game_gives_the_same_bytes():
    assert made().html == made().html
