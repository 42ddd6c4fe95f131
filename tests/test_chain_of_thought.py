"""A thought read step by step: each step true or false by itself."""

import random

import pytest

from labs.chain_of_thought import pieces
from lib.worlds import cups, tasks
from lib.worlds.task import Task

GAME = cups.Game((2, 5), ("1-5", "2-3"))
TASK = Task("cups", 2, cups.asked(GAME), cups.answer(GAME))


def verdicts(text: str) -> list[bool | None]:
    return [verdict for _, verdict in pieces(TASK, text)]


def test_the_pieces_of_a_worked_answer_are_its_words_and_all_true():
    text = cups.worked(GAME, "hill")
    assert pieces(TASK, text) == [
        ("<think>", None),
        ("two five", True),
        ("ant 1-5 two one", True),
        ("bee 2-3 three one", True),
        ("</think>", None),
        ("3 1", True),
    ]


@pytest.mark.parametrize("dialect", cups.DIALECTS)
@pytest.mark.parametrize("level", cups.LEVELS)
def test_all_is_true_exactly_where_the_whole_is_faithful(dialect, level):
    for task in tasks.tasks("cups", count=20, seed=1, levels=(level,)):
        game = cups.game_of(task)
        text = cups.worked(game, dialect)
        assert tasks.faithful(task, text)
        assert all(true is not False for _, true in pieces(task, text))
        shorter = cups.Game(game.start, game.swaps[:-1])
        lazy = f"<think> {cups.retold(shorter, dialect)} </think> {cups.answer(game)}"
        assert not tasks.faithful(task, lazy)
        assert len(pieces(task, lazy)) == len(pieces(task, text)) - 1


def test_a_false_step_is_false_alone():
    text = "<think> two five ant 1-5 two four bee 2-3 three one </think> 3 1"
    assert verdicts(text) == [None, True, False, True, None, True]


def test_a_step_too_many_a_wrong_start_and_a_wrong_answer_are_false():
    text = "<think> two four ant 1-5 two one bee 2-3 three one cat 1-2 three two </think> 3 2"
    assert verdicts(text) == [None, False, True, True, False, None, False]


def test_an_answer_at_once_is_one_piece():
    assert pieces(TASK, " 3 1") == [("3 1", True)]
    assert pieces(TASK, " 1 3") == [("1 3", False)]
    assert pieces(TASK, "") == [("", False)]


def test_a_thought_that_was_cut_off_has_no_answer():
    assert verdicts("<think> two five ant 1-5 two") == [None, True, False]


def test_no_word_of_any_text_is_lost_and_none_raises():
    luck = random.Random(0)
    words = ["<think>", "</think>", "two", "deux", "ant", "1-5", "3", "know."]
    for _ in range(500):
        text = " ".join(luck.choices(words, k=luck.randint(0, 12)))
        said = " ".join(said for said, _ in pieces(TASK, text))
        assert said.split() == text.split()
