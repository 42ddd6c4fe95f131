"""Answers to scrub through: what is in the page before and after any script has run."""

import json
import re

import pytest

from lib.show.transcript import transcript

QUESTIONS = ["Where is <it>?", "And now?"]
SAID = [
    [[("3", False)], [("4", True)]],
    [[("3", False)], [("think", None), ("4 < 5", True)]],
    [[("5", True)], [("4", True)]],
]


def made(said=SAID, *, readout=("none right", "one", "two"), start=0, **how):
    how = {"alt": "The answers grow longer.", **how}
    return transcript(
        "update", [0, 6, 12], QUESTIONS, said, readout=readout, start=start, **how
    )


def moves(widget) -> list[dict]:
    return json.loads(re.search(r"var D = (\{.*\});\n", widget.html)[1])["moves"]


def test_each_answer_stands_once_and_is_shown_where_it_was_given():
    rows = [move["v"] for move in moves(made())]
    assert rows == [[1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("start", range(3))
def test_one_answer_to_each_question_is_in_view_at_the_start(start):
    html = made(start=start).html
    assert html.count('class="w-said1"') == len(QUESTIONS)
    for move in moves(made(start=start)):
        assert f'data-m="{move["k"]}" class="w-said{move["v"][start]}"' in html


def test_true_and_false_differ_in_more_than_colour():
    style = re.search(r"\.w-false\{.*?\}", made().html)[0]
    assert "underline" in style
    assert '<span class="w-true">4 &lt; 5</span>' in made().html


def test_the_readout_the_alternative_and_the_questions_are_there():
    html = made().html
    assert 'aria-label="The answers grow longer."' in html
    assert "Where is &lt;it&gt;?" in html and ">none right</output>" in html


def test_same_answers_give_the_same_bytes_and_other_answers_another_digest():
    other = [*SAID[:2], [[("5", True)], [("4", False)]]]
    assert made().html == made().html
    assert repr(made()) != repr(made(other))
    assert repr(made()).startswith("transcript: 1 panel, 3 frames over update, data ")


def test_lengths_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="said: got 2, wanted 3"):
        made(SAID[:2])
    with pytest.raises(ValueError, match="readout: got 1, wanted 3"):
        made(readout=["x"])
    with pytest.raises(ValueError, match="said: got .* answers"):
        made([*SAID[:2], SAID[2][:1]])
    with pytest.raises(ValueError, match="alt"):
        made(alt=" ")
