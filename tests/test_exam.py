"""Exams of distinct tasks, marks with intervals, the table of skills."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from lib.evaluate import Answer, Mark, exam, grades, mark, prompt_ids, skills, table
from lib.sft import written
from lib.worlds import people
from lib.worlds.language import TOKENIZER, split_of
from lib.worlds.tasks import LEVELS, gold, tasks

EVERY = [(skill, level) for skill, levels in LEVELS.items() for level in levels]
NAMES = [
    *(f"cups {n}" for n in range(2, 8)),
    "facts 1",
    *(f"strings {n}" for n in range(1, 5)),
    *(f"constraints {n}" for n in range(1, 4)),
    "talk",
]
END = TOKENIZER.end


class Replay(nn.Module):
    """A policy that gives each prompt the answer that it has learned by heart."""

    def __init__(self, said):
        super().__init__()
        self.next = {}
        for task, answer in said:
            row = [*prompt_ids(task), *TOKENIZER.encode(answer), END]
            for at in range(len(prompt_ids(task)), len(row)):
                self.next[tuple(row[:at])] = row[at]

    def forward(self, states):
        logits = torch.zeros(*states.shape, len(TOKENIZER), dtype=torch.float64)
        for row, out in zip(states.tolist(), logits):
            for at in range(len(row)):
                out[at, self.next.get(tuple(row[: at + 1]), END)] = 100.0
        return logits


# ---------------------------------------------------------------- exams


@pytest.mark.parametrize(("skill", "level"), EVERY)
def test_an_exam_has_200_distinct_tasks_of_its_level_none_of_them_for_training(
    skill, level
):
    asked = exam(skill, level=level)
    requests = {task.request for task in asked}
    assert len(asked) == len(requests) == 200
    assert {(task.skill, task.level) for task in asked} == {(skill, level)}
    train = tasks(skill, count=4000, seed=0, levels=(level,))
    assert not requests & {task.request for task in train}


@pytest.mark.parametrize("skill", LEVELS)
def test_an_exam_without_a_level_has_all_of_them(skill):
    asked = exam(skill, count=150, seed=2)
    assert len({task.request for task in asked}) == 150
    assert {task.level for task in asked} == {*LEVELS[skill]}


def test_the_same_exam_comes_again_and_another_seed_sets_another():
    asked = exam("cups", level=4)
    assert asked == exam("cups", level=4, count=200, seed=0)
    assert asked[:50] != exam("cups", level=4, seed=1)[:50]
    assert exam("cups", level=3, count=1) != exam("cups", level=3, count=1, seed=1)


def test_where_there_are_fewer_tasks_the_error_says_how_many(refuses):
    # of 70 people for testing: 4 wordings of home, job and pet, and one more of home
    people_asked = sum(split_of(person.name) == "test" for person in people.PEOPLE)
    every = people_asked * (4 * 3 + 1)
    assert every == 910 == len({t.request for t in exam("facts", count=every)})
    with refuses(f"count: got {every + 1}, wanted at most the {every} that exist"):
        exam("facts", count=every + 1)


def test_an_impossible_exam_is_refused(refuses):
    with refuses("count: got 0, wanted an int of at least 1"):
        exam("cups", count=0)
    with refuses("seed: got -1, wanted an int of at least 0"):
        exam("cups", seed=-1)
    with refuses("levels: got (8,), wanted some of (2, 3, 4, 5, 6, 7) for 'cups'"):
        exam("cups", level=8)


# ---------------------------------------------------------------- marks


def wilson(right, n):
    """Where |p - right / n| = 1.96 √(p (1 - p) / n): the roots of a quadratic in p."""
    z2 = Fraction(196, 100) ** 2
    share = Fraction(right, n)
    a, b, c = 1 + z2 / n, -(2 * share + z2 / n), share**2
    root = math.sqrt(b * b - 4 * a * c)
    return tuple((float(-b) + sign * root) / float(2 * a) for sign in (-1, 1))


def test_the_interval_of_right_and_wrong_is_wilson_s():
    for n in (1, 2, 5, 40, 200, 1000):
        for right in sorted({0, 1, n // 3, n // 2, n - 1, n}):
            got = mark([1.0] * right + [0.0] * (n - right))
            low, high = wilson(right, n)
            assert got.mean == right / n and got.count == n
            assert got.low == pytest.approx(low, abs=1e-12)
            assert got.high == pytest.approx(high, abs=1e-12)
            assert 0 <= got.low <= got.mean <= got.high <= 1
    # by hand, 8 of 10: z² = 3.8416; centre .99208 / 1.38416, half width
    # 1.96 √(.016 + .009604) / 1.38416 = 1.96 · .160012 / 1.38416
    eight = mark([1] * 8 + [0] * 2)
    assert (eight.low, eight.high) == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_a_perfect_mark_and_a_failed_one_keep_within_0_and_1():
    for n in range(1, 400):
        all_wrong, all_right = mark([0] * n), mark([1] * n)
        assert all_wrong.low == 0 and all_right.high == 1
        assert 0 < all_wrong.high == pytest.approx(1 - all_right.low, abs=1e-12)
        assert str(all_wrong).startswith("0.00 [0.00, ")


def test_the_interval_of_any_other_numbers_is_normal():
    # mean 2, squared deviations 4 + 1 + 1 + 4 = 10, variance 10 / 3, n = 4
    half = 1.96 * math.sqrt(10 / 3 / 4)
    assert mark([0.0, 1.0, 3.0, 4.0]) == Mark(
        2.0, pytest.approx(2 - half), pytest.approx(2 + half), 4
    )
    assert mark([0.5, 0.5]) == Mark(0.5, 0.5, 0.5, 2)


def test_marks_take_lists_bools_and_tensors_of_any_type():
    want = mark([1.0, 0.0, 1.0])
    for found in (
        (True, False, True),
        torch.tensor([1, 0, 1]),
        torch.tensor([1.0, 0, 1]),
    ):
        assert mark(found) == want


def test_what_has_no_mean_or_no_interval_is_refused(refuses):
    with refuses("found: got shape (0,), wanted (N,), N at least 1"):
        mark([])
    with refuses("found: got shape (1,), wanted (N,), N at least 2"):
        mark([0.5])
    with refuses("found: got shape (2, 1), wanted (N,), N at least 1"):
        mark([[1.0], [0.0]])
    with pytest.raises(ValueError, match="^found: got nan"):
        mark([1.0, math.nan])


def test_a_mark_prints_two_digits_and_its_interval():
    assert str(Mark(0.5, 0.25, 0.755, 9)) == "0.50 [0.25, 0.76]"
    assert str(Mark(-0.301, -1.0, 2.345, 9)) == "-0.30 [-1.00, 2.35]"


# ---------------------------------------------------------------- the table of skills


def test_who_gives_the_reference_answers_has_every_skill_and_the_rows_have_names():
    count, exams = 2, {}
    for skill, level in EVERY:
        exams[skill, level] = exam(skill, level=level, count=count, seed=3)
    by_heart = [(t, f" {t.answer}") for asked in exams.values() for t in asked]
    got = skills(Replay(by_heart), count=count, seed=3)
    assert list(got) == NAMES
    assert all(got[name] == mark([1.0] * count) for name in NAMES[:-1])
    want = [gold(t, f" {t.answer}") for t in exams["talk", 1]]
    assert got["talk"] == mark(want)


def test_who_says_nothing_has_no_skill():
    got = skills(Replay([]), count=2)
    assert all(got[name] == mark([0.0, 0.0]) for name in NAMES[:-1])
    assert got["talk"].mean == -1  # nothing said, no full stop


def test_the_table_shows_marks_beside_numbers():
    columns = {
        "base": {"cups 3": mark([1, 0]), "talk": Mark(1.5, 1.0, 2.0, 9)},
        "tuned": {"cups 3": 0.125, "talk": 3},
    }
    low, high = wilson(1, 2)
    assert table(columns) == (
        "| skill | base | tuned |\n"
        "|---|---:|---:|\n"
        f"| cups 3 | 0.50 [{low:.2f}, {high:.2f}] | 0.12 |\n"
        "| talk | 1.50 [1.00, 2.00] | 3.00 |"
    )


# ---------------------------------------------------------------- grades


def test_grades_read_each_row_beside_the_task_that_it_answers():
    asked = tasks("cups", count=2, seed=0)
    each = [asked[0], asked[0], asked[1], asked[1]]
    texts = ["3 1", "2 5", "hm", ""]
    rollout = written(each, texts, finished=[True, True, False, True])
    seen = []

    def grade(task, answer):
        seen.append((task, answer))
        return len(seen)

    got = grades(grade, asked, rollout)
    assert got.tolist() == [1, 2, 3, 4] and got.dtype == torch.float64
    assert [task for task, _ in seen] == each
    ended = [True, True, False, True]
    assert [a for _, a in seen] == [Answer(f" {t}", e) for t, e in zip(texts, ended)]


def test_grades_refuse_tasks_that_cannot_have_these_rows(refuses):
    asked = tasks("cups", count=2, seed=0)
    rollout = written([asked[0]] * 3, ["3 1"] * 3)
    for some in (asked, [], asked * 2):
        with refuses(f"asked: got {len(some)} tasks, wanted a divisor of 3"):
            grades(lambda task, answer: 0.0, some, rollout)
