"""Every judge has one form, and no judge lets a NaN through."""

import pytest
import torch

from lib import reward_model, rewards
from lib.models.transformer import Config, Transformer
from lib.sft import written
from lib.worlds import cups
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import gold

GAME = Task("cups", 2, "Red 2, blue 5. ant 1-5, bee 2-3. Where?", "3 1")
TALK = Task("talk", 1, "Tell me about Ada Ash.", "")
TEXTS = [
    "<think> two five ant 1-5 two one bee 2-3 three one </think> 3 1",
    "3 1",
    "1 3",
    "<think> two five ant 1-5 one two bee 2-3 three one </think> 3 1",
]


def said(value):
    return lambda asked, rollout: torch.full((len(rollout),), value)


def test_a_verifier_pays_one_for_right_and_nothing_for_wrong():
    rollout = written([GAME] * 4, TEXTS)
    assert rewards.verified([GAME], rollout).tolist() == [1, 1, 0, 1]
    assert rewards.verified([GAME] * 4, rollout).tolist() == [1, 1, 0, 1]
    cut = written([GAME] * 4, TEXTS, finished=[False] * 4)
    assert rewards.verified([GAME], cut).tolist() == [0, 0, 0, 0]


def test_a_verifier_says_that_it_cannot_judge_taste(refuses):
    wanted = "wanted tasks that can be verified; taste is for a reward model"
    with refuses(f"asked: got 'Tell me about Ada Ash.', {wanted}"):
        rewards.verified([GAME, TALK], written([GAME, TALK], ["3 1", "No."]))


def test_a_rule_that_reads_the_text_is_a_reward():
    thinks = rewards.of_text(lambda task, answer: "<think>" in answer.text)
    rollout = written([GAME] * 4, TEXTS)
    assert rewards.judge(thinks, [GAME], rollout).tolist() == [1, 0, 0, 1]
    right = rewards.of_text(lambda task, answer: answer.text == f" {task.answer}")
    other = Task("cups", 1, "Red 3, blue 1. ant 1-3. Where?", "1 3")
    got = rewards.judge(right, [GAME, other], rollout)  # two answers to each
    assert got.tolist() == [0, 1, 1, 0] and got.dtype == torch.float64
    ended = rewards.of_text(lambda task, answer: 2.5 if answer.finished else -1)
    cut = written([GAME] * 2, ["3 1", "3 1"], finished=[True, False])
    assert rewards.judge(ended, [GAME], cut).tolist() == [2.5, -1]


def faithful_to(task, answer):
    return cups.faithful(task, answer.text)


def test_a_rule_reads_the_task_that_was_asked_as_well_as_the_answer():
    faithful = rewards.of_text(faithful_to)
    rollout = written([GAME] * 4, TEXTS)
    assert rewards.judge(faithful, [GAME], rollout).tolist() == [1, 0, 0, 0]
    assert rewards.verified([GAME], rollout).tolist() == [1, 1, 0, 1]


def test_a_rule_is_refused_tasks_that_cannot_have_these_rows_and_a_nan(refuses):
    rollout = written([GAME] * 4, TEXTS)
    reward = rewards.of_text(lambda task, answer: float("nan"))
    with refuses("asked: got 3 tasks, wanted a divisor of 4"):
        reward([GAME] * 3, rollout)
    with refuses("reward: got nan at index (0,), wanted finite numbers"):
        rewards.judge(reward, [GAME], rollout)


def test_gold_is_the_truth_in_talk_and_in_games():
    texts = ["Ada Ash is a doctor.", "3 1"]
    got = rewards.gold([TALK, GAME], written([TALK, GAME], texts))
    assert got.tolist() == [gold(TALK, texts[0]), 1]


def test_a_learned_reward_is_the_model_s_score():
    config = Config(vocabulary=len(TOKENIZER), layers=1, width=8, heads=2, hidden=8)
    trunk = Transformer(config, generator=torch.Generator().manual_seed(0))
    model = reward_model.RewardModel(trunk)
    torch.nn.init.ones_(model.head.weight)
    rollout = written([GAME] * 4, TEXTS)
    got = rewards.learned(model)([GAME], rollout)
    assert torch.equal(got, reward_model.score(model, rollout)) and got.std() > 0


def test_an_answer_that_was_cut_off_is_fined():
    rollout = written([GAME] * 2, ["3 1", "3 1"], finished=[True, False])
    fined = rewards.with_end(said(2.0), penalty=0.5)
    assert rewards.judge(fined, [GAME], rollout).tolist() == [2, 1.5]
    tenth = rewards.with_end(said(2.0), penalty=0.1)
    assert rewards.judge(tenth, [GAME], rollout).tolist() == [2, 2 - 0.1]  # in float64


def test_judges_add_up():
    rollout = written([GAME] * 4, TEXTS)
    both = rewards.total(
        (rewards.verified, rewards.of_text(faithful_to)), weights=(2.0, -0.5)
    )
    assert rewards.judge(both, [GAME], rollout).tolist() == [1.5, 2, 0, 2]
    one = rewards.total([rewards.with_end(both, penalty=1.0)], weights=[3.0])
    assert rewards.judge(one, [GAME], rollout).tolist() == [4.5, 6, 0, 6]


def test_a_judgement_is_float64_and_has_no_gradient():
    weight = torch.tensor(2.0, requires_grad=True)
    rollout = written([GAME] * 2, ["3 1", "1 3"])
    got = rewards.judge(lambda a, r: weight * torch.ones(len(r)), [GAME], rollout)
    assert got.dtype == torch.float64 and not got.requires_grad
    assert got.tolist() == [2, 2], "equal rewards are allowed"


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_no_nan_and_no_infinity_passes_any_judge(bad, refuses):
    rollout = written([GAME] * 2, ["3 1", "1 3"])
    broken = said(float(bad))
    for reward in (
        broken,
        rewards.with_end(broken, penalty=1.0),
        rewards.total((rewards.verified, broken), weights=(1.0, 0.0)),
    ):
        with refuses(f"reward: got {bad} at index (0,), wanted finite numbers"):
            rewards.judge(reward, [GAME], rollout)


def test_a_judge_speaks_once_for_every_row(refuses):
    rollout = written([GAME] * 2, ["3 1", "1 3"])
    with refuses("reward: got shape (1,), wanted shape (2,)"):
        rewards.judge(lambda a, r: torch.zeros(1), [GAME], rollout)
    with refuses("reward: got float, wanted a Tensor"):
        rewards.judge(lambda a, r: 1.0, [GAME], rollout)
    with refuses("asked: got 3 tasks, wanted a divisor of 2"):
        rewards.judge(rewards.verified, [GAME] * 3, rollout)
    with refuses("asked: got 0 tasks, wanted a divisor of 2"):
        rewards.judge(rewards.verified, [], rollout)


def test_impossible_fines_and_weights_are_refused(refuses):
    with refuses("penalty: got -1.0, wanted a number of at least 0"):
        rewards.with_end(said(1.0), penalty=-1.0)
    with refuses("weights: got inf, wanted a finite number"):
        rewards.total([said(1.0)], weights=[float("inf")])
    wanted = "wanted one for each reward, at least one"
    with refuses(f"weights: got 2 for 1 rewards, {wanted}"):
        rewards.total([said(1.0)], weights=[1.0, 2.0])
    with refuses(f"weights: got 0 for 0 rewards, {wanted}"):
        rewards.total([], weights=[])


def test_the_overlong_are_fined_before_they_are_cut_off():
    rollout = written([GAME] * 4, TEXTS)
    assert rollout.lengths.tolist()[1:3] == [3, 3] and rollout.lengths[0] > 11
    for length, buffer, fine in ((3, 1, 1), (4, 2, 0.5), (5, 2, 0), (7, 5, 0.2)):
        fined = rewards.with_overlong(said(2.0), length=length, buffer=buffer)
        got = rewards.judge(fined, [GAME], rollout).tolist()
        assert got == pytest.approx([1, 2 - fine, 2 - fine, 1])
    tenth = rewards.with_overlong(said(2.0), length=12, buffer=10)
    assert rewards.judge(tenth, [GAME], rollout).tolist()[1] == 2 - 1 / 10  # in float64


def test_a_buffer_is_no_longer_than_what_it_belongs_to(refuses):
    with refuses("length: got 3, wanted an int of at least 4"):
        rewards.with_overlong(said(1.0), length=3, buffer=4)
    with refuses("buffer: got 0, wanted an int of at least 1"):
        rewards.with_overlong(said(1.0), length=3, buffer=0)
    rewards.with_overlong(said(1.0), length=4, buffer=4)
    with refuses("reward: got nan at index (0,), wanted finite numbers"):
        broken = rewards.with_overlong(said(float("nan")), length=4, buffer=4)
        rewards.judge(broken, [GAME], written([GAME] * 2, ["3 1", "1 3"]))
