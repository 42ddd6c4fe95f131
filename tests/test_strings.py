"""Questions on the letters of nonsense words."""

import random

import pytest

from lib.worlds.language import TOKENIZER, split_of
from lib.worlds.strings import (
    ALPHABET,
    LEVELS,
    make,
    nonsense,
    page,
    split,
    verify,
    word_in,
)
from lib.worlds.task import Task


def drawn(level, count, seed=0):
    draw = random.Random(seed)
    return [Task("strings", level, *make(draw, level)) for _ in range(count)]


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize("letters", range(3, 7))
def test_a_nonsense_word_is_spelled_letter_by_letter_and_none_comes_twice(letters):
    draw = random.Random(0)
    for _ in range(500):
        word = nonsense(draw, letters)
        pieces = [TOKENIZER.decode([i]) for i in TOKENIZER.encode(f" {word}.")]
        assert pieces == [" ", *word, "."]
        assert len(set(word)) == letters and set(word) <= set(ALPHABET)


def test_the_level_is_the_length_less_two():
    for level in LEVELS:
        assert {len(word_in(t.request)) for t in drawn(level, 200)} == {level + 2}


@pytest.mark.parametrize("text", ["", "What is the last letter of bd?", "mill", "aaa"])
def test_a_text_without_a_nonsense_word_is_refused(text, refuses):
    wanted = f"wanted a question on a word of 3 to 6 letters of {ALPHABET}"
    with refuses(f"request: got {text!r}, {wanted}"):
        word_in(text)


# ---------------------------------------------------------------- the split


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_has_thousands_of_questions_and_no_word_is_in_both_splits(level):
    requests = {t.request for t in drawn(level, 20_000)}
    tested = {r for r in requests if split(r) == "test"}
    assert len(tested) >= 1000 and len(requests - tested) >= 5000
    assert not {*map(word_in, tested)} & {*map(word_in, requests - tested)}


def test_lessons_spell_no_word_for_testing_and_are_right():
    draw = random.Random(0)
    for _ in range(4000):
        request, _, answer = page(draw).removeprefix("Letters: ").partition("\nSay:")
        assert split_of(word_in(request)) == split(request) == "train"
        assert verify(Task("strings", 1, request, ""), answer)


# ---------------------------------------------------------------- verdicts


def test_reference_answers_are_right():
    for level in LEVELS:
        for task in drawn(level, 2000):
            for text in ("{}", " {}", "{}.", "<think> hm </think> {}"):
                assert verify(task, text.format(task.answer))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("What is the last letter of bdfk?", "k"),
        ("Say the first letter of bdfk.", "b"),
        ("How many letters has bdfk?", "4"),
        ("How many letters has the word bdfk?", "4"),
        ("What is after d in bdfk?", "f"),
        ("Name the letter after f in bdfk.", "k"),
    ],
)
def test_every_question_has_one_answer(request_, answer):
    task = Task("strings", 2, request_, answer)
    right = [c for c in ALPHABET + "123456789" if verify(task, c)]
    assert right == [answer]


LAST = Task("strings", 2, "What is the last letter of bdfk?", "k")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "K", "kk", "k k", "k. k.", "k b", "b k", "not k", "k or b",
        "maybe k", "k?", "k!", "k..", "letter k", "bdfk", "far from k", "isn't k",
        "<think> k", "k <think>", "<think> k </think>", "k </think> b", "\u212a",
        "I think k", "k\nb", "k\0", "k" * 1_000_000,
    ],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_near_misses_are_wrong(text):
    assert not verify(LAST, text)


def test_a_count_is_a_digit_and_no_word_or_sum():
    task = Task("strings", 2, "How many letters has bdfk?", "4")
    for text in ("four", "04", "4.0", "2+2", "4 4", "-4", "\u0664", "not 4", "4 or 5"):
        assert not verify(task, text)


@pytest.mark.parametrize("text", [None, 4, b"k", ["k"]])
def test_what_is_no_text_is_wrong(text):
    assert not verify(LAST, text)
