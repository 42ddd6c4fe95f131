"""Questions put to a model, its answers read, and the table of skills."""

import inspect
import math
from dataclasses import FrozenInstanceError
from fractions import Fraction
from itertools import combinations

import pytest
import torch
from torch import nn

from lib import evaluate
from lib.evaluate import (
    Answer,
    answers,
    ask,
    exam,
    mark,
    pass_at_k,
    prompt_ids,
    score,
    scores,
    skills,
    table,
)
from lib.models.transformer import Config, Transformer
from lib.rollout import Rollout
from lib.sampling import complete
from lib.seeds import generator
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import LEVELS, gold

JOB = Task("facts", 1, "What is the job of Ada Ash?", "doctor")
WORD = Task("strings", 2, "Say the first letter of bdfk.", "b")
TALK = Task("talk", 1, "Tell me about Ada Ash.", "Ada Ash is a doctor.")
BEST = "Ada Ash is kind and wise, has a hare, is a doctor, lives by the tower."
PAD, BEGIN, END = 0, 1, 2


class Replay(nn.Module):
    """A policy that gives each prompt the answer that it has learned by heart."""

    def __init__(self, said):
        super().__init__()
        self.next = {}
        for prompt, answer in said.items():
            row = [*prompt, *answer]
            for at in range(len(prompt), len(row)):
                self.next[tuple(row[:at])] = row[at]

    def forward(self, states):
        logits = torch.zeros(*states.shape, len(TOKENIZER))
        for row, out in zip(states.tolist(), logits):
            for at in range(len(row)):
                out[at, self.next.get(tuple(row[: at + 1]), END)] = 100.0
        return logits


def by_heart(asked, answer_of):
    """A policy that answers every task as `answer_of` says, and then stops."""
    said = {
        tuple(prompt_ids(t)): [*TOKENIZER.encode(f" {answer_of(t)}"), END]
        for t in asked
    }
    return Replay(said)


@pytest.fixture
def model(seeded):
    """A transformer that has learned nothing."""
    config = Config(len(TOKENIZER), context=128, layers=1, width=16, heads=2, hidden=16)
    return Transformer(config, generator=seeded(0))


def spoken(*texts, finished):
    """A rollout of two prompt tokens a row, then these texts."""
    rows = [TOKENIZER.encode(t) + [END] * f for t, f in zip(texts, finished)]
    width = 2 + max(map(len, rows))
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : 2 + len(row)] = torch.tensor([BEGIN, 99, *row])
        mask[i, 2 : 2 + len(row)] = True
    zeros = torch.zeros(len(rows), width - 1)
    return Rollout(
        states=tokens[:, :-1],
        actions=tokens[:, 1:],
        logps=zeros,
        rewards=zeros,
        mask=mask[:, 1:],
        last_states=torch.zeros(len(rows), dtype=torch.int64),
        terminated=torch.tensor(finished),
    )


# ---------------------------------------------------------------- asking and reading


def test_a_prompt_is_begin_and_the_question():
    ids = prompt_ids(JOB)
    assert ids[0] == BEGIN and BEGIN not in ids[1:]
    assert TOKENIZER.decode(ids[1:]) == "Q: What is the job of Ada Ash?\nA:"


def test_answers_are_the_sampled_tokens_as_text():
    rollout = spoken(" doctor", "", " Ada Ash is a", finished=[True, True, False])
    assert answers(rollout) == [
        Answer(" doctor", True),
        Answer("", True),
        Answer(" Ada Ash is a", False),
    ]


def test_nobody_changes_an_answer():
    with pytest.raises(FrozenInstanceError):
        Answer(" b", True).finished = False


def test_asking_completes_the_prompts_as_it_is_told(model, seeded):
    asked = [JOB, TALK, WORD]
    knobs = {"group": 2, "temperature": 0.7, "top_k": 5, "max_tokens": 9}
    prompts = [prompt_ids(task) for task in asked]
    want = complete(model, prompts, end=END, generator=seeded(3), **knobs)
    got = ask(model, asked, generator=seeded(3), **knobs)
    for field in vars(want):
        assert torch.equal(getattr(got, field), getattr(want, field))
    assert len(got) == 6


def test_an_answer_is_one_of_forty_eight_tokens_at_temperature_one(model, seeded):
    want = ask(
        model,
        [JOB, TALK],
        generator=seeded(4),
        group=1,
        temperature=1.0,
        top_k=None,
        max_tokens=48,
    )
    got = ask(model, [JOB, TALK], generator=seeded(4))
    assert torch.equal(got.actions, want.actions) and torch.equal(got.logps, want.logps)
    assert got.mask.sum(1).max() == 48 == evaluate.ANSWER


def test_any_policy_can_be_asked(seeded):
    rollout = ask(by_heart([JOB], lambda t: "doctor"), [JOB], generator=seeded(0))
    assert answers(rollout) == [Answer(" doctor", True)]
    short = ask(
        by_heart([TALK], lambda t: BEST), [TALK], generator=seeded(0), max_tokens=3
    )
    assert answers(short) == [Answer(" Ada Ash is", False)]


# ---------------------------------------------------------------- scores


def test_a_verified_answer_counts_one_if_it_was_finished():
    assert score(JOB, Answer(" doctor", True)) == 1.0
    assert score(JOB, Answer(" doctor", False)) == 0.0
    assert score(JOB, Answer(" baker", True)) == 0.0
    assert isinstance(score(JOB, Answer(" doctor", True)), float)


def test_talk_is_scored_by_the_gold_taste():
    for text in (BEST, "Ada is a doctor.", "Otto Moss keeps a pig", ""):
        for finished in (True, False):
            want = gold(TALK, text, finished=finished)
            assert score(TALK, Answer(text, finished)) == want
    assert score(TALK, Answer(BEST, True)) == pytest.approx(4)
    assert score(TALK, Answer(BEST, False)) == pytest.approx(3)


def test_scores_come_in_the_order_of_the_rows():
    said = (" doctor", " baker", " b", " doctor")
    rollout = spoken(*said, finished=[True, True, True, True])
    got = scores([JOB, JOB, WORD, WORD], rollout)
    assert got.tolist() == [1, 0, 1, 0] and got.dtype == torch.float64


def test_a_group_is_scored_by_the_task_it_answers():
    said = (" doctor", " doctor", " b", " b", " doctor", " b")
    rollout = spoken(*said, finished=[True, False, True, True, True, True])
    got = scores([JOB, WORD], rollout)  # rows 0, 1, 2: the job; 3, 4, 5: the word
    assert got.tolist() == [1, 0, 0, 1, 0, 1]
    assert scores([JOB], rollout).tolist() == [1, 0, 0, 0, 1, 0]


def test_scores_of_talk_and_of_tasks_may_be_mixed():
    rollout = spoken(f" {BEST}", " doctor", finished=[True, True])
    assert scores([TALK, JOB], rollout).tolist() == pytest.approx([4, 1])


def test_tasks_that_cannot_have_these_rows_are_refused(refuses):
    rollout = spoken(" b", " d", " f", finished=[True] * 3)
    with refuses("asked: got 2 tasks, wanted a divisor of 3"):
        scores([JOB, WORD], rollout)
    with refuses("asked: got 0 tasks, wanted a divisor of 3"):
        scores([], rollout)
    with refuses("asked: got 4 tasks, wanted a divisor of 3"):
        scores([JOB] * 4, rollout)


# ---------------------------------------------------------------- the table of skills


def test_a_skill_is_the_share_of_its_own_answers_that_are_right():
    every = [(skill, level) for skill, levels in LEVELS.items() for level in levels]
    exams = {key: exam(key[0], level=key[1], count=4) for key in every}
    known = {task.request for task in (exams["facts", 1][0], exams["facts", 1][2])}
    asked = [task for some in exams.values() for task in some]
    policy = by_heart(asked, lambda t: t.answer if t.request in known else "")
    got = skills(policy, count=4)
    assert got.pop("facts 1") == mark([1.0, 0.0, 1.0, 0.0])
    assert got.pop("talk").mean == -1 and {m.mean for m in got.values()} == {0.0}


def test_skills_are_measured_on_exams_with_one_seed(model):
    got = skills(model, count=2, seed=5, max_tokens=8)
    for name, found in got.items():
        skill, _, level = name.partition(" ")
        level = int(level or 1)
        asked = exam(skill, level=level, count=2, seed=5)
        luck = generator("exam answers", skill, level, 5)
        rollout = ask(model, asked, generator=luck, max_tokens=8)
        assert found == mark(scores(asked, rollout))
    before = torch.random.get_rng_state()
    assert skills(model, count=2, seed=5, max_tokens=8) == got
    assert torch.equal(torch.random.get_rng_state(), before)


def test_skills_ask_two_hundred_of_each_for_48_tokens_unless_told_otherwise():
    knobs = inspect.signature(skills).parameters
    given = {name: knobs[name].default for name in ("count", "seed", "max_tokens")}
    assert given == {"count": 200, "seed": 0, "max_tokens": 48}


# ---------------------------------------------------------------- pass at k


def drawn(n, correct, k):
    """The share of all sets of k among n that hold one of the correct, counted."""
    sets = list(combinations(range(n), k))
    return Fraction(sum(min(each) < correct for each in sets), len(sets))


def test_pass_at_k_counts_every_way_to_draw_k_of_n():
    for n in range(1, 8):
        for correct in range(n + 1):
            for k in range(1, n + 1):
                got = pass_at_k(n, correct, k)
                assert got.shape == () and got.dtype == torch.float64
                assert abs(got.item() - float(drawn(n, correct, k))) < 1e-15


def test_pass_at_k_is_without_bias():
    # n = 6 answers, each right with probability p: its mean is 1 - (1 - p)^k
    p = 0.3
    law = [math.comb(6, c) * p**c * (1 - p) ** (6 - c) for c in range(7)]
    for k in range(1, 7):
        got = pass_at_k(6, torch.arange(7), k)
        mean = (torch.tensor(law, dtype=torch.float64) * got).sum().item()
        assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-14)


def test_pass_at_k_of_ten_thousand_is_exact_and_does_not_overflow():
    for correct, k in ((1, 1), (3, 100), (50, 5000), (9999, 1), (2, 9999), (7, 10_000)):
        n = 10_000
        want = 1 - Fraction(math.comb(n - correct, k), math.comb(n, k))
        assert abs(pass_at_k(n, correct, k).item() - float(want)) < 1e-12


def test_pass_at_1_is_the_share_and_everything_in_between_is_certain_or_hopeless():
    assert pass_at_k(8, 2, 1) == 0.25
    assert pass_at_k(8, 0, 8) == 0 and pass_at_k(8, 8, 1) == 1
    assert pass_at_k(8, 1, 8) == 1 and pass_at_k(8, 3, 6) == 1  # only 5 are wrong


def test_pass_at_k_broadcasts():
    n, correct = torch.tensor([[4], [8]]), torch.tensor([0, 1, 2])
    k = torch.tensor([1, 2, 4], dtype=torch.int32).reshape(3, 1, 1)
    got = pass_at_k(n, correct, k)
    assert got.shape == (3, 2, 3)
    for i, each in enumerate((1, 2, 4)):
        for j, many in enumerate((4, 8)):
            want = [float(drawn(many, c, each)) for c in range(3)]
            assert got[i, j].tolist() == pytest.approx(want, abs=1e-15)
    assert pass_at_k(torch.tensor([4, 8]), 1, 2).tolist() == [0.5, 0.25]
    assert pass_at_k(4, torch.zeros(0, dtype=torch.int64), 1).shape == (0,)


def test_what_cannot_be_drawn_is_refused(refuses):
    with refuses("k: got 5 of 4, wanted at least 1 and at most n"):
        pass_at_k(4, 1, 5)
    with refuses("k: got 0 of 4, wanted at least 1 and at most n"):
        pass_at_k(4, 1, 0)
    with refuses("correct: got 5 of 4, wanted at least 0 and at most n"):
        pass_at_k(4, torch.tensor([4, 5]), 1)
    with refuses("correct: got -1 of 4, wanted at least 0 and at most n"):
        pass_at_k(4, -1, 1)
    with refuses("k: got 1 of 0, wanted at least 1 and at most n"):
        pass_at_k(0, 0, 1)
    for name, given in (
        ("n", (4.0, 1, 1)),
        ("correct", (4, 0.5, 1)),
        ("k", (4, 1, 1.0)),
    ):
        with refuses(f"{name}: got torch.float32, wanted whole numbers"):
            pass_at_k(*given)
    with refuses("correct: got torch.bool, wanted whole numbers"):
        pass_at_k(4, torch.tensor([True]), 1)
    with refuses("n: got torch.complex64, wanted whole numbers"):
        pass_at_k(1j, 1, 1)


# ---------------------------------------------------------------- as Markdown


def test_the_table_is_markdown_with_a_skill_a_row():
    columns = {
        "base": {"facts": 0.25, "cups": 0.125, "talk": -0.301},
        "tuned": {"facts": 1.0, "cups": 0.0, "talk": 12.345},
    }
    assert table(columns) == (
        "| skill | base | tuned |\n"
        "|---|---:|---:|\n"
        "| facts | 0.25 | 1.00 |\n"
        "| cups | 0.12 | 0.00 |\n"
        "| talk | -0.30 | 12.35 |"
    )


def test_a_table_may_have_one_column():
    assert (
        table({"base": {"cups": 1}}) == "| skill | base |\n|---|---:|\n| cups | 1.00 |"
    )


def test_columns_must_have_the_same_rows(refuses):
    with refuses("columns: got none, wanted at least one"):
        table({})
    with refuses("columns: got ['cups'] for 'b', wanted ['facts', 'cups']"):
        table({"a": {"facts": 0.0, "cups": 0.0}, "b": {"cups": 0.0}})
    with refuses("columns: got ['cups', 'facts'] for 'b', wanted ['facts', 'cups']"):
        table({"a": {"facts": 0.0, "cups": 0.0}, "b": {"cups": 0.0, "facts": 0.0}})


# --- paired differences ---------------------------------------------------------------


def test_a_paired_difference_has_the_interval_of_a_plain_bootstrap():
    luck = torch.Generator().manual_seed(1)
    one, other = (torch.rand(5, 40, generator=luck) < p for p in (0.7, 0.5))
    found, gaps = evaluate.paired(one, other), one.double() - other.double()
    plain = torch.empty(20_000, dtype=torch.float64)
    for k in range(len(plain)):
        rows = torch.randint(5, (5,), generator=luck)
        plain[k] = gaps[rows][:, torch.randint(40, (40,), generator=luck)].mean()
    low, high = plain.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    assert found.mean == pytest.approx(gaps.mean().item())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert evaluate.paired(one, other) == found  # the draws are always the same
    turned = evaluate.paired(other, one)
    assert turned.mean == pytest.approx(-found.mean)
    assert (
        str(found)
        == f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}], 5 seeds"
    )


def test_an_interval_over_seeds_alone_knows_how_far_they_lie_apart():
    near = evaluate.paired([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
    assert (near.low, near.mean, near.high, near.seeds) == (0.25, 0.25, 0.25, 3)
    far = evaluate.paired([0.0, 0.5, 1.0], [0.25, 0.25, 0.25])
    assert far.low < 0 < far.mean < far.high
    assert f"{evaluate.paired([1.0], [0.25]):.1f}" == "+0.8 [+0.8, +0.8], 1 seed"


def test_the_items_of_all_seeds_are_drawn_together():
    """An item that is hard for every seed widens the interval by as much as it should."""
    item = torch.arange(8.0).expand(5, 8)
    found = evaluate.paired(item, torch.zeros(5, 8))
    one_seed = evaluate.paired(item[:1], torch.zeros(1, 8))
    assert found.high - found.low == pytest.approx(
        one_seed.high - one_seed.low, rel=0.1
    )


def test_seeds_and_items_are_drawn_apart_where_there_are_as_many_of_both():
    """Of the identity's mean one luck for both would never find less than 1 / 5."""
    found = evaluate.paired(torch.eye(5), torch.zeros(5, 5))
    assert found.mean == pytest.approx(0.2) and found.low < 0.1


@pytest.mark.parametrize(
    "one, other, said",
    [
        ([], [], "one: got shape"),
        ([[[1.0]]], [[[1.0]]], "one: got shape"),
        ([1.0], [1.0, 2.0], "other: got shape"),
        ([float("nan")], [1.0], "one - other: got nan"),
    ],
)
def test_paired_refuses_what_are_no_pairs(one, other, said):
    with pytest.raises(ValueError, match=said):
        evaluate.paired(one, other)
