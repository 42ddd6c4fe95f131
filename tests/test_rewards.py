"""Every judge has one form, and no judge lets a NaN through."""

import pytest
import torch

from lib import reward_model, rewards, villagers
from lib.models.transformer import Config, Transformer
from lib.sft import written
from lib.worlds import cups
from lib.worlds import task as valley
from lib.worlds.village import TOKENIZER
from lib.worlds.village.tasks import Task
from lib.worlds.village.taste import gold

SUM = Task("sum", 2, "What is 3 + 4 + 2?", "9")
TALK = Task("talk", 1, "Tell me about the fox.", "")
TEXTS = [
    "<think> 3 + 4 = 7. 7 + 2 = 9. </think> 9",
    "9",
    "8",
    "<think> 3 + 4 = 8. 8 + 2 = 9. </think> 9",
]


def said(value):
    return lambda asked, rollout: torch.full((len(rollout),), value)


def test_a_verifier_pays_one_for_right_and_nothing_for_wrong():
    rollout = written([SUM] * 4, TEXTS)
    assert rewards.verified([SUM], rollout).tolist() == [1, 1, 0, 1]
    assert rewards.verified([SUM] * 4, rollout).tolist() == [1, 1, 0, 1]
    cut = written([SUM] * 4, TEXTS, finished=[False] * 4)
    assert rewards.verified([SUM], cut).tolist() == [0, 0, 0, 0]


def test_a_verifier_says_that_it_cannot_judge_taste(refuses):
    wanted = "wanted tasks that can be verified; taste is for a reward model"
    with refuses(f"asked: got 'Tell me about the fox.', {wanted}"):
        rewards.verified([SUM, TALK], written([SUM, TALK], ["9", "No."]))


def test_reasoning_is_paid_for_true_steps_whatever_the_answer():
    assert villagers.reasoned([SUM], written([SUM] * 4, TEXTS)).tolist() == [1, 0, 0, 0]


def test_a_rule_that_reads_the_text_is_a_reward():
    thinks = rewards.of_text(lambda task, answer: "<think>" in answer.text)
    rollout = written([SUM] * 4, TEXTS)
    assert rewards.judge(thinks, [SUM], rollout).tolist() == [1, 0, 0, 1]
    right = rewards.of_text(lambda task, answer: answer.text == f" {task.answer}")
    other = Task("sum", 1, "What is 3 + 5?", "8")
    got = rewards.judge(right, [SUM, other], rollout)  # two answers to each
    assert got.tolist() == [0, 1, 1, 0] and got.dtype == torch.float64
    ended = rewards.of_text(lambda task, answer: 2.5 if answer.finished else -1)
    cut = written([SUM] * 2, ["9", "9"], finished=[True, False])
    assert rewards.judge(ended, [SUM], cut).tolist() == [2.5, -1]


def test_a_rule_reads_a_task_of_the_valley_in_the_valley_s_words():
    game = valley.Task("cups", 1, "Red 1, blue 2. ant 2-5. Where?", "1 5")
    rollout = written(
        [game] * 2, ["<think> one two ant 2-5 one five </think> 1 5", "1 5"]
    )
    reward = rewards.of_text(faithful_to)
    assert rewards.judge(reward, [game], rollout).tolist() == [1, 0]
    assert rewards.verified([game], rollout).tolist() == [1, 1]


def faithful_to(task, answer):
    return cups.faithful(task, answer.text)


def test_a_rule_is_refused_tasks_that_cannot_have_these_rows_and_a_nan(refuses):
    rollout = written([SUM] * 4, TEXTS)
    reward = rewards.of_text(lambda task, answer: float("nan"))
    with refuses("asked: got 3 tasks, wanted a divisor of 4"):
        reward([SUM] * 3, rollout)
    with refuses("reward: got nan at index (0,), wanted finite numbers"):
        rewards.judge(reward, [SUM], rollout)


def test_gold_is_the_truth_in_talk_and_in_sums():
    texts = ["The fox is red.", "9"]
    got = rewards.gold([TALK, SUM], written([TALK, SUM], texts))
    assert got.tolist() == [gold(TALK, texts[0]), 1]


def test_a_learned_reward_is_the_model_s_score():
    config = Config(vocabulary=len(TOKENIZER), layers=1, width=8, heads=2, hidden=8)
    trunk = Transformer(config, generator=torch.Generator().manual_seed(0))
    model = reward_model.RewardModel(trunk)
    torch.nn.init.ones_(model.head.weight)
    rollout = written([SUM] * 4, TEXTS)
    got = rewards.learned(model)([SUM], rollout)
    assert torch.equal(got, reward_model.score(model, rollout)) and got.std() > 0


def test_an_answer_that_was_cut_off_is_fined():
    rollout = written([SUM] * 2, ["9", "9"], finished=[True, False])
    fined = rewards.with_end(said(2.0), penalty=0.5)
    assert rewards.judge(fined, [SUM], rollout).tolist() == [2, 1.5]
    tenth = rewards.with_end(said(2.0), penalty=0.1)
    assert rewards.judge(tenth, [SUM], rollout).tolist() == [2, 2 - 0.1]  # in float64


def test_length_is_paid_or_fined_by_the_token():
    rollout = written([SUM] * 2, ["9", "9."])
    for weight in (0.5, -1.0):
        longer = rewards.with_length(said(1.0), weight=weight)
        got = rewards.judge(longer, [SUM], rollout)
        assert torch.equal(got, 1 + weight * rollout.lengths.double())
    assert rollout.lengths.tolist() == [2, 3]


def test_judges_add_up():
    rollout = written([SUM] * 4, TEXTS)
    both = rewards.total((rewards.verified, villagers.reasoned), weights=(2.0, -0.5))
    assert rewards.judge(both, [SUM], rollout).tolist() == [1.5, 2, 0, 2]
    one = rewards.total([rewards.with_end(both, penalty=1.0)], weights=[3.0])
    assert rewards.judge(one, [SUM], rollout).tolist() == [4.5, 6, 0, 6]


def test_a_judgement_is_float64_and_has_no_gradient():
    weight = torch.tensor(2.0, requires_grad=True)
    rollout = written([SUM] * 2, ["9", "8"])
    got = rewards.judge(lambda a, r: weight * torch.ones(len(r)), [SUM], rollout)
    assert got.dtype == torch.float64 and not got.requires_grad
    assert got.tolist() == [2, 2], "equal rewards are allowed"


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_no_nan_and_no_infinity_passes_any_judge(bad, refuses):
    rollout = written([SUM] * 2, ["9", "8"])
    broken = said(float(bad))
    for reward in (
        broken,
        rewards.with_end(broken, penalty=1.0),
        rewards.with_length(broken, weight=1.0),
        rewards.total((rewards.verified, broken), weights=(1.0, 0.0)),
    ):
        with refuses(f"reward: got {bad} at index (0,), wanted finite numbers"):
            rewards.judge(reward, [SUM], rollout)


def test_a_judge_speaks_once_for_every_row(refuses):
    rollout = written([SUM] * 2, ["9", "8"])
    with refuses("reward: got shape (1,), wanted shape (2,)"):
        rewards.judge(lambda a, r: torch.zeros(1), [SUM], rollout)
    with refuses("reward: got float, wanted a Tensor"):
        rewards.judge(lambda a, r: 1.0, [SUM], rollout)
    with refuses("asked: got 3 tasks, wanted a divisor of 2"):
        rewards.judge(rewards.verified, [SUM] * 3, rollout)
    with refuses("asked: got 0 tasks, wanted a divisor of 2"):
        rewards.judge(rewards.verified, [], rollout)


def test_impossible_fines_and_weights_are_refused(refuses):
    with refuses("penalty: got -1.0, wanted a number of at least 0"):
        rewards.with_end(said(1.0), penalty=-1.0)
    with refuses("weight: got nan, wanted a finite number"):
        rewards.with_length(said(1.0), weight=float("nan"))
    with refuses("weights: got inf, wanted a finite number"):
        rewards.total([said(1.0)], weights=[float("inf")])
    wanted = "wanted one for each reward, at least one"
    with refuses(f"weights: got 2 for 1 rewards, {wanted}"):
        rewards.total([said(1.0)], weights=[1.0, 2.0])
    with refuses(f"weights: got 0 for 0 rewards, {wanted}"):
        rewards.total([], weights=[])


def test_the_overlong_are_fined_before_they_are_cut_off():
    rollout = written([SUM] * 4, TEXTS)
    assert rollout.lengths.tolist()[1:3] == [2, 2] and rollout.lengths[0] > 10
    for length, buffer, fine in ((2, 1, 1), (3, 2, 0.5), (4, 2, 0), (6, 5, 0.2)):
        fined = rewards.with_overlong(said(2.0), length=length, buffer=buffer)
        got = rewards.judge(fined, [SUM], rollout).tolist()
        assert got == pytest.approx([1, 2 - fine, 2 - fine, 1])
    tenth = rewards.with_overlong(said(2.0), length=11, buffer=10)
    assert rewards.judge(tenth, [SUM], rollout).tolist()[1] == 2 - 1 / 10  # in float64


def test_a_buffer_is_no_longer_than_what_it_belongs_to(refuses):
    with refuses("length: got 3, wanted an int of at least 4"):
        rewards.with_overlong(said(1.0), length=3, buffer=4)
    with refuses("buffer: got 0, wanted an int of at least 1"):
        rewards.with_overlong(said(1.0), length=3, buffer=0)
    rewards.with_overlong(said(1.0), length=4, buffer=4)
    with refuses("reward: got nan at index (0,), wanted finite numbers"):
        broken = rewards.with_overlong(said(float("nan")), length=4, buffer=4)
        rewards.judge(broken, [SUM], written([SUM] * 2, ["9", "8"]))
