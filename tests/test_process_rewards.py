"""Thoughts and their marks: who is wrong where, and what two reward models are asked."""

import pytest
import torch
from torch.nn.functional import logsigmoid

from labs import process_rewards
from lib import evaluate
from lib.losses.reward import outcome
from lib.worlds import cups, tasks
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task

GAME = cups.Game((2, 5), ("1-5", "2-3"))
TASK = Task("cups", 2, cups.asked(GAME), cups.answer(GAME))
WHOLE = cups.worked(GAME, "hill")  # two five, ant 1-5 two one, bee 2-3 three one, 3 1
SLIP = WHOLE.replace("ant 1-5 two one", "ant 1-5 two four")
EARLY = "<think> two five ant 1-5 two one </think> 2 1"
WRONG = WHOLE.replace("> 3 1", "> 1 3")
CUT = "<think> two five ant 1-5 two"
EMPTY = "<think> two five </think>"
SAID = [
    *((TASK, text, True) for text in (WHOLE, SLIP, EARLY, WRONG)),
    (TASK, CUT, False),
    (TASK, EMPTY, True),
]


class Says(torch.nn.Module):
    """A model that says what it is told to at every token: (B, n)."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def forward(self, tokens):
        assert tokens.shape == self.said.shape
        return self.said


def random_says(seen, seeded):
    """Such a model, and what it says at actions."""
    width = seen.ends.shape[1] + 1
    said = torch.randn(len(seen), width, dtype=torch.float64, generator=seeded(3))
    return Says(said), said[:, 1:]


def marks(text):
    return [
        mark for _, mark in process_rewards.steps_of(TASK, text) if mark is not None
    ]


def test_every_step_has_its_mark_and_to_end_too_early_is_a_wrong_step():
    assert marks(WHOLE) == [True] * 5, "start, two swaps, the end, the answer"
    assert marks(SLIP) == [True, False, True, True, True], "only the slip itself"
    assert marks(EARLY) == [True, True, False, False]
    assert marks(WRONG) == [True, True, True, True, False]
    assert marks(CUT) == [True, False]
    assert marks(EMPTY) == [True, False], "no answer, and no mark for one"
    assert marks("3 1") == [True], "no thought: the verdict on the answer"


def test_marks_stand_on_the_last_token_of_their_step_up_to_the_first_wrong_one():
    seen = process_rewards.marked(SAID)
    assert seen.right.tolist() == [True, True, False, False, False, False]
    for row, (_, text, _) in enumerate(SAID):
        steps = [
            (w, m) for w, m in process_rewards.steps_of(TASK, text) if m is not None
        ]
        begin = int(seen.rollout.mask[row].long().argmax())
        places = seen.ends[row].nonzero()[:, 0].tolist()
        assert len(places) == len(steps)
        for place, (words, mark) in zip(places, steps):
            tokens = seen.rollout.actions[row, begin : place + 1].tolist()
            assert TOKENIZER.decode(tokens).strip().endswith(words)
            assert bool(seen.true[row, place]) == mark
        wrong = [k for k, (_, mark) in enumerate(steps) if not mark]
        judged = seen.judged[row].nonzero()[:, 0].tolist()
        assert judged == places[: wrong[0] + 1 if wrong else None]
    assert not (seen.judged & ~seen.ends).any() and not (seen.true & ~seen.ends).any()
    few = seen.rows(torch.tensor([4, 1]))
    assert len(few) == 2 and few.right.tolist() == [False, True]
    assert torch.equal(few.judged, seen.judged[[4, 1]])


def test_the_first_wrong_step_true_and_as_a_model_names_it():
    seen = process_rewards.marked(SAID)
    assert process_rewards.true_first_wrong(seen).tolist() == [-1, 1, 2, 4, 1, 1]
    said = torch.ones_like(seen.ends, dtype=torch.float64)
    assert process_rewards.first_wrong(said, seen).tolist() == [-1] * 6
    said[0] = -1  # at every token: the first end of a step counts
    said[1, ~seen.ends[1]] = -1  # between the ends nobody asks
    assert process_rewards.first_wrong(said, seen).tolist() == [0] + [-1] * 5


def test_the_outcome_loss_asks_every_token_of_the_answer_for_the_verdict(seeded):
    seen = process_rewards.marked(SAID)
    model, said = random_says(seen, seeded)
    total = 0.0
    for row in range(len(seen)):
        sign = 1 if seen.right[row] else -1
        total -= logsigmoid(sign * said[row, seen.rollout.mask[row]]).sum().item()
    want = total / seen.rollout.mask.sum().item()
    assert process_rewards.outcome_loss(model, seen)[0].item() == pytest.approx(want)


def test_the_process_loss_asks_up_to_the_first_wrong_step_only(seeded):
    seen = process_rewards.marked(SAID)
    model, said = random_says(seen, seeded)
    want = outcome(said, seen.true, seen.judged)[0]
    assert process_rewards.process_loss(model, seen)[0] == want
    later = seen.ends & ~seen.judged
    assert later.any()
    model.said[:, 1:][later] += 7  # what follows is not marked
    assert process_rewards.process_loss(model, seen)[0] == want


def test_a_prm_multiplies_its_steps_and_an_orm_is_read_at_the_end(seeded):
    seen = process_rewards.marked(SAID)
    _, said = random_says(seen, seeded)
    last, every = process_rewards.verdicts(said, 2 * said, seen)
    for row in range(len(seen)):
        at = int(seen.rollout.mask[row].nonzero()[-1])
        assert last[row].exp().item() == pytest.approx(said[row, at].sigmoid().item())
        product = (2 * said[row, seen.ends[row]]).sigmoid().prod().item()
        assert every[row].exp().item() == pytest.approx(product)


def test_a_vote_counts_equal_answers_in_its_own_group_and_no_unfinished_ones():
    some = [SAID[0], SAID[0], SAID[3], SAID[4], SAID[3], SAID[3], SAID[0], SAID[5]]
    assert process_rewards.votes(some, group=4).tolist() == [2, 2, 1, 0, 2, 2, 1, 0]


def test_a_vote_of_n_is_held_in_every_subset_among_its_own_thoughts():
    some = [SAID[k] for k in (0, 0, 3, 3, 3, 4, 0, 3)]  # answers: 3 1, 1 3, and none
    right = torch.tensor([1, 1, 0, 0, 0, 0, 1, 0]).double()
    found = process_rewards.voted(some, right, (1, 2, 3, 4), group=4)
    # right right wrong wrong: always a tie, but of three two agree, right in two of four
    # wrong nothing right wrong: in pairs, nothing is never chosen
    want = [[1 / 2, 1 / 2, 1 / 2, 1 / 2], [1 / 4, (1 + 1 / 2 + 1 / 2) / 6, 1 / 4, 0]]
    assert found.tolist() == [pytest.approx(row) for row in want]
    whole = evaluate.best_of(
        process_rewards.votes(some, group=4).reshape(2, 4), right.reshape(2, 4), [4]
    )
    assert torch.equal(found[:, -1:], whole), "at its largest, a vote of all"


def test_the_reasons_of_wrong_thoughts_add_up():
    found = process_rewards.why_wrong(SAID)
    # the slip comes out right by luck; of the rest two end early and two are otherwise wrong
    want = {"right": 2 / 6, "swap": 1 / 6, "early end": 2 / 6, "answer": 1 / 6}
    assert found == pytest.approx(want)


def test_training_games_are_none_of_the_exam():
    some = process_rewards.games(200, seed=1)
    assert {task.level for task in some} == {2, 3, 4, 5}
    assert {cups.split(task.request) for task in some} == {"train"}
    assert some != process_rewards.games(200, seed=2)
    assert all(tasks.verify(task, task.answer) for task in some)
