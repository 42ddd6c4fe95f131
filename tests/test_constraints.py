"""Lists of words that keep to what was asked."""

import random

import pytest

from lib.worlds.constraints import (
    LEVELS,
    LONGEST,
    POOL,
    Constraints,
    make,
    page,
    read,
    split,
    verify,
)
from lib.worlds.task import Task


def drawn(level, count, seed=0):
    draw = random.Random(seed)
    return [Task("constraints", level, *make(draw, level)) for _ in range(count)]


def asked(task):
    """How many of the five kinds a request asks for."""
    return sum(value not in (None, ()) for value in vars(read(task.request)).values())


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_is_how_many_kinds_of_constraint_hold(level):
    tasks = drawn(level, 2000)
    assert {asked(task) for task in tasks} == {level}
    kinds = {k for t in tasks for k, v in vars(read(t.request)).items() if v}
    assert kinds == {"count", "start", "end", "use", "without"}


@pytest.mark.parametrize("level", LEVELS)
def test_no_word_is_in_two_constraints(level):
    for task in drawn(level, 2000):
        asks = read(task.request)
        words = [w for w in (asks.start, asks.end, *asks.use, *asks.without) if w]
        assert len(words) == len(set(words)) and set(words) <= set(POOL)


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_has_a_thousand_questions_of_training_and_hundreds_for_testing(
    level,
):
    requests = {t.request for t in drawn(level, 20_000)}
    tested = {r for r in requests if split(r) == "test"}
    assert len(tested) >= 400 and len(requests - tested) >= 1500
    again = {t.request for t in drawn(level, 20_000, seed=1)}
    assert not tested & {r for r in again if split(r) == "train"}


def test_a_request_is_read_as_it_was_said():
    request = (
        "Say 4 words, start with mill, end with pig, use hill and rat, without inn."
    )
    asks = Constraints(4, "mill", "pig", ("hill", "rat"), ("inn",))
    assert read(request) == asks
    assert "Say " + ", ".join(asks.clauses) + "." == request
    assert read("Write words, use rat.") == Constraints(use=("rat",))
    for task in drawn(3, 500):
        verb = task.request.split()[0]
        assert f"{verb} " + ", ".join(read(task.request).clauses) + "." == task.request


@pytest.mark.parametrize(
    "text",
    ["", "Write 3 words", "Write 1 words.", "Write 9 words.", "Say words, use cat."],
)
def test_a_text_that_is_no_such_request_is_refused(text, refuses):
    wanted = "wanted one such as 'Write 3 words, start with mill, without goose.'"
    with refuses(f"request: got {text!r}, {wanted}"):
        read(text)


def test_lessons_hold_no_request_for_testing_and_are_right():
    draw = random.Random(0)
    for _ in range(4000):
        request, _, answer = page(draw).removeprefix("Words: ").partition("\nSay:")
        assert split(request) == "train"
        assert verify(Task("constraints", 1, request, ""), answer)


def test_what_is_asked_with_one_verb_is_in_the_split_of_the_other():
    for task in drawn(2, 500):
        asks = task.request.partition(" ")[2]
        assert split(f"Write {asks}") == split(f"Say {asks}")


# ---------------------------------------------------------------- verdicts


def test_reference_answers_are_right():
    for level in LEVELS:
        for task in drawn(level, 2000):
            for text in ("{}", " {}", "{}.", "<think> hm </think> {}"):
                assert verify(task, text.format(task.answer))


def test_there_are_right_answers_besides_the_reference():
    task = Task("constraints", 2, "Write 2 words, start with mill.", "mill pig")
    right = [noun for noun in POOL if verify(task, f"mill {noun}")]
    assert right == [noun for noun in POOL if noun != "mill"]


@pytest.mark.parametrize(
    ("constraint", "right", "wrong"),
    [
        ("3 words", "mill pig rat", "mill pig"),
        ("words, start with mill", "mill pig", "pig mill"),
        ("words, end with mill", "pig mill", "mill pig"),
        ("words, use mill and pig", "rat pig mill", "rat pig"),
        ("words, without mill and pig", "rat", "rat pig"),
    ],
)
def test_each_constraint_tells_right_from_wrong(constraint, right, wrong):
    task = Task("constraints", 1, f"Say {constraint}.", right)
    assert verify(task, right) and not verify(task, wrong)


TASK = Task(
    "constraints", 3, "Write 3 words, start with mill, without rat.", "mill pig inn"
)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "mill", "mill pig", "mill pig inn toad", "pig mill inn",
        "mill pig rat", "mill pig pig", "mill mill mill", "mill pig cat", "mill pig x",
        "mill, pig, inn", "mill and pig", "not mill pig", "mill or pig", "mill pig inn?",
        "mill pig inn..", "mill pig inn. mill pig inn", "mill\npig inn", "mill  pig inn",
        "Mill pig inn", "mill pig 3", "I think mill", "maybe pig inn", "words mill pig",
        "<think> mill pig inn", "mill pig inn <think>", "<think> mill pig inn </think>",
        "mill pig inn </think>", "mill p\u0456g inn", "mill pig inn\0", "far from mill",
        "mill pig inn" + " pig" * 1_000_000, " ".join(POOL),
    ],
    ids=lambda text: repr(text)[:40],
)  # fmt: skip
def test_near_misses_are_wrong(text):
    assert not verify(TASK, text)


@pytest.mark.parametrize("text", [None, 3, b"mill pig inn", ["mill", "pig", "inn"]])
def test_what_is_no_text_is_wrong(text):
    assert not verify(TASK, text)


def test_an_answer_has_at_most_six_words_even_where_none_are_counted():
    task = Task("constraints", 1, "Say words, start with mill.", "mill")
    others = [noun for noun in POOL if noun != "mill"]
    for n in range(10):
        assert verify(task, " ".join(["mill", *others[:n]])) == (1 + n <= LONGEST)
