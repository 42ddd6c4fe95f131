"""Worked sums: one mistake, everything after it follows, and marks that are the truth."""

import random
import re

import pytest
import torch

from labs import process_rewards
from labs.process_rewards import BAD, GOOD, NEUTRAL, UNMARKED
from lib.losses.reward import outcome, process
from lib.models.transformer import Config, Transformer
from lib.reward_model import SurprisalRewardModel
from lib.worlds.village import TOKENIZER, split_of
from lib.worlds.village.tasks import Task, verify, verify_reasoning

SUM = Task("sum", 3, "What is 3 + 4 + 2 + 6?", "15")


def small() -> Transformer:
    config = Config(vocabulary=len(TOKENIZER), layers=1, width=16, heads=2, hidden=16)
    return Transformer(config, generator=torch.Generator().manual_seed(0))


class Says(torch.nn.Module):
    """A model that says what it is told to at every token: (B, n) or (B, n, 3)."""

    def __init__(self, said: torch.Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.shape == self.said.shape[:2]
        return self.said


def test_a_sum_without_a_mistake():
    one = process_rewards.work(SUM, random.Random(0), wrong=False)
    assert one.steps == ("3 + 4 = 7.", "7 + 2 = 9.", "9 + 6 = 15.")
    assert one.marks == (GOOD,) * 3 and one.answer == 15 and one.right
    assert one.text == "<think> 3 + 4 = 7. 7 + 2 = 9. 9 + 6 = 15. </think> 15"
    assert verify_reasoning(one.text)


@pytest.mark.parametrize("idle", [False, True])
def test_one_step_is_miscalculated_and_the_rest_follows_faithfully(idle):
    slips, errors, idles = set(), set(), set()
    for seed in range(200):
        one = process_rewards.work(SUM, random.Random(seed), wrong=True, idle=idle)
        assert not one.right and one.marks.count(BAD) == 1
        assert len(one.steps) == 3 + idle == len(one.marks)
        slip, total, terms = one.marks.index(BAD), 3, []
        for place, step in enumerate(one.steps):
            a, b, c = map(int, re.findall("[0-9]+", step))
            assert a == total, "a step begins where the last one ended"
            assert (c == a + b) == (place != slip)
            fine = GOOD if b else NEUTRAL
            want = UNMARKED if place > slip else BAD if place == slip else fine
            assert one.marks[place] == want
            errors |= {c - a - b}
            terms.append(b)
            total = c
        assert one.answer == total
        assert [t for t in terms if t] == [4, 2, 6] and terms.count(0) == idle
        assert terms[slip], "an idle step is never the wrong one"
        slips.add(slip)
        idles |= {place for place, term in enumerate(terms) if not term}
    assert errors == {-2, -1, 0, 1, 2}
    assert slips == set(range(3 + idle))
    assert idles == ({1, 2, 3} if idle else set())


def test_an_idle_step_is_true_and_neutral():
    one = process_rewards.work(SUM, random.Random(1), wrong=False, idle=True)
    assert sorted(one.marks) == [NEUTRAL, GOOD, GOOD, GOOD]
    assert " + 0 = " in one.steps[one.marks.index(NEUTRAL)]
    assert one.right and verify_reasoning(one.text)


def test_only_sums_can_be_worked(refuses):
    talk = Task("talk", 1, "Tell me about the fox.", "")
    with refuses("task: got skill 'talk', wanted a sum"):
        process_rewards.work(talk, random.Random(0), wrong=False)


def test_half_of_the_solutions_are_wrong_and_some_idle():
    found = process_rewards.solutions(count=400, seed=1)
    assert [one.right for one in found] == [True, False] * 200
    idle = sum(" + 0 = " in one.text for one in found)
    assert idle == 93, "about a quarter"
    assert {one.task.level for one in found} == {2, 3, 4}
    assert found == process_rewards.solutions(count=400, seed=1)
    assert found != process_rewards.solutions(count=400, seed=2)
    easy = process_rewards.solutions(count=20, seed=1, split="test", levels=[1])
    assert {one.task.level for one in easy} == {1}
    assert {split_of(one.task.request) for one in easy} == {"test"}
    assert {split_of(one.task.request) for one in found} == {"train"}


def test_marks_stand_on_the_last_token_of_their_step():
    found = process_rewards.solutions(count=30, seed=1)
    seen = process_rewards.marked(found)
    assert len(seen) == 30
    assert seen.right.tolist() == [one.right for one in found]
    for row, one in enumerate(found):
        assert tuple(seen.marks[row, seen.ends[row]].tolist()) == one.marks
        tokens = seen.rollout.actions[row, seen.ends[row]].tolist()
        assert TOKENIZER.decode(tokens) == "." * len(one.steps)
        said = seen.rollout.actions[row, seen.rollout.mask[row]].tolist()
        assert TOKENIZER.decode(said) == " " + one.text
        assert verify(one.task, TOKENIZER.decode(said)) == one.right
    assert (seen.marks[~seen.ends] == UNMARKED).all()
    few = seen.rows(torch.tensor([4, 1]))
    assert len(few) == 2 and few.right.tolist() == [True, False]
    assert torch.equal(few.marks, seen.marks[[4, 1]])
    assert torch.equal(few.ends, seen.ends[[4, 1]])
    assert torch.equal(few.rollout.actions, seen.rollout.actions[[4, 1]])


def test_what_a_model_says_after_an_action_stands_at_that_action():
    seen = process_rewards.marked(process_rewards.solutions(count=2, seed=1))
    n = seen.ends.shape[1]
    said = torch.arange(2.0 * (n + 1)).reshape(2, n + 1)
    assert torch.equal(
        process_rewards.at_actions(Says(said), seen.rollout), said[:, 1:]
    )


def test_the_outcome_loss_asks_every_token_of_the_answer_for_the_verdict():
    seen = process_rewards.marked(process_rewards.solutions(count=3, seed=1))
    said = torch.randn(3, seen.ends.shape[1] + 1, generator=torch.Generator())
    labels = torch.tensor([[1], [0], [1]]).expand(seen.ends.shape)
    want = outcome(said[:, 1:], labels, seen.rollout.mask)
    assert process_rewards.outcome_loss(Says(said), seen) == want


def test_the_process_loss_asks_up_to_the_first_mistake_only():
    seen = process_rewards.marked(process_rewards.solutions(count=8, seed=1))
    assert (seen.marks[seen.ends] == UNMARKED).any()
    said = torch.randn(8, seen.ends.shape[1] + 1, 3, generator=torch.Generator())
    want = process(said[:, 1:], seen.marks.clamp(min=0), seen.marks >= 0)
    assert process_rewards.process_loss(Says(said), seen) == want


def test_first_bad_is_the_number_of_the_first_step_called_bad():
    found = process_rewards.solutions(count=40, seed=1)
    seen = process_rewards.marked(found)
    truth = process_rewards.true_first_bad(seen)
    want = [one.marks.index(BAD) if BAD in one.marks else -1 for one in found]
    assert truth.tolist() == want and -1 in want and max(want) >= 2
    said = torch.zeros(40, seen.ends.shape[1] + 1, 3)
    said[..., BAD] = 1.0  # everywhere, but it only counts where a step ends
    assert process_rewards.first_bad(Says(said), seen).tolist() == [0] * 40
    said[:, 1:][seen.ends & (seen.marks != BAD)] = torch.tensor([0.0, 0.5, 1.0])
    assert process_rewards.first_bad(Says(said), seen).tolist() == want
    said[..., GOOD] = 2.0
    assert process_rewards.first_bad(Says(said), seen).tolist() == [-1] * 40


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [(process_rewards.outcome_loss, 1), (process_rewards.process_loss, 3)],
)
def test_marks_are_fitted_by_an_informed_model_from_the_seed(loss, outputs):
    seen = process_rewards.marked(process_rewards.solutions(count=8, seed=1))
    knobs = {"outputs": outputs, "epochs": 3, "batch": 3}
    models = [
        process_rewards.fit_marks(small(), seen, loss, seed=s, **knobs)
        for s in (0, 0, 1)
    ]
    assert all(type(model) is SurprisalRewardModel for model in models)
    heads = [model.head.weight for model in models]
    assert heads[0].shape == (outputs, 16) and heads[0].abs().sum() > 0
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_process_model_learns_by_heart():
    seen = process_rewards.marked(process_rewards.solutions(count=4, seed=1))
    model = process_rewards.fit_marks(
        small(),
        seen,
        process_rewards.process_loss,
        outputs=3,
        seed=0,
        epochs=150,
        lr=2e-2,
    )
    assert torch.equal(
        process_rewards.first_bad(model, seen), process_rewards.true_first_bad(seen)
    )


def test_one_solution_is_read_aloud():
    one = process_rewards.work(SUM, random.Random(0), wrong=True)
    seen = process_rewards.marked([one])
    n = seen.ends.shape[1] + 1
    right, step = torch.randn(1, n), torch.randn(1, n, 3)
    tokens, said = process_rewards.reading(Says(right), Says(step), one)
    assert "".join(tokens) == " " + one.text  # the end of the text has no letters
    assert tokens[-1] == "" and said.shape == (2, len(tokens))
    mask, ends = seen.rollout.mask[0], seen.ends[0]
    torch.testing.assert_close(said[0], torch.sigmoid(right[0, 1:][mask]))
    heard = said[1][~said[1].isnan()]
    torch.testing.assert_close(heard, step.softmax(-1)[0, 1:, BAD][ends])
    assert len(heard) == 3
