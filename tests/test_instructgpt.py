"""InstructGPT's steps: who ranks, what is learnt from a ranking, PPO with old text."""

import copy
import random

import pytest
import torch
from torch.testing import assert_close

from labs import instructgpt as lab
from labs.deepseek_r1 import PANEL
from lib import evaluate, pretrain
from lib.losses.reward import k_wise
from lib.on_policy import (
    PolicyWithCritic,
    RLConfig,
    loss_of,
    make_batch,
    task_stream,
)
from lib.pretrain import next_token_loss
from lib.reward_model import SurprisalRewardModel, at_last
from lib.seeds import generator
from lib.sft import written
from lib.worlds import tasks
from lib.worlds.task import Task


@pytest.fixture(scope="module")
def base():
    return pretrain.base_model(seed=0)


@pytest.fixture(scope="module")
def few(base):
    return lab.ranked(base, seed=0, count=6, k=3)


@pytest.fixture(scope="module")
def judge(base):
    model = SurprisalRewardModel(base)
    torch.nn.init.normal_(model.head.weight, std=0.1, generator=generator("head"))
    return model


def test_two_answers_stand_in_a_ranking_as_often_as_the_panel_prefers_one(few):
    task, said = few.asked[0], evaluate.answers(few.answers)[:3]
    draw, count = random.Random(0), 3_000
    first = [0] * 3
    for _ in range(count):
        order = lab.rank(task, said, draw)
        assert sorted(order) == [0, 1, 2]
        for pair, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
            first[pair] += order.index(i) < order.index(j)
    for share, (i, j) in zip(first, ((0, 1), (0, 2), (1, 2))):
        a, b = said[i], said[j]
        ends = a.finished, b.finished
        exact = PANEL.probability(task, a.text, b.text, finished=ends)
        assert abs(share / count - exact) < 0.04


def test_the_best_of_a_ranking_stands_first_where_nobody_errs(base, monkeypatch):
    sharp = type(PANEL)(
        tuple(
            type(a)(a.name, a.weights, temperature=1e-6, inattention=0.0)
            for a in PANEL.panel[:1]
        )
    )
    monkeypatch.setattr(lab, "PANEL", sharp)
    rankings = lab.ranked(base, seed=0, count=4)
    said = evaluate.answers(rankings.answers)
    for i, task in enumerate(rankings.asked):
        for better, worse in zip(said[4 * i : 4 * i + 3], said[4 * i + 1 : 4 * i + 4]):
            ends = better.finished, worse.finished
            assert (
                sharp.probability(task, better.text, worse.text, finished=ends) >= 0.5
            )


def test_rows_of_rankings_keep_the_answers_of_a_request_together(few):
    some = few.rows(torch.tensor([4, 1]))
    assert some.asked == [few.asked[4], few.asked[1]] and len(some) == 2
    every = evaluate.answers(few.answers)
    assert evaluate.answers(some.answers) == every[12:15] + every[3:6]


def test_one_pair_of_a_ranking_keeps_its_order(few):
    pairs, every = lab.one_pair(few, seed=1), evaluate.answers(few.answers)
    assert list(pairs.asked) == list(few.asked) and len(pairs.answers) == 12
    said = evaluate.answers(pairs.answers)
    for i in range(len(few)):
        group = [every[3 * i : 3 * i + 3][j] for j in range(3)]
        two = said[2 * i : 2 * i + 2]
        assert any([group[a], group[b]] == two for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_ranking_loss_is_that_of_the_scores_at_the_last_tokens(few, judge):
    loss, told = lab.ranking_loss(judge, few)
    scores = at_last(judge, few.answers).reshape(6, 3)
    assert_close(loss, k_wise(scores)[0], rtol=0, atol=1e-12)
    assert set(told) == {"accuracy", "margin"}


def test_demonstrations_are_counted_once_each():
    shown = lab.shown_by_people(0, count=20)
    found = lab.distinct([*shown, *shown])
    assert found == lab.distinct(shown) and len(shown) == 100
    assert found["demonstrations"] == sum(found[skill] for skill in tasks.LEVELS)
    assert found["requests"] <= found["demonstrations"] <= 100


def test_the_loss_of_ppo_ptx_is_ppos_and_so_many_times_that_of_old_text(base, judge):
    asked = tasks.tasks("talk", count=2, seed=0)
    rollout = evaluate.ask(base, asked, generator=generator("ppo"), group=2)
    learner, scores = (
        PolicyWithCritic(base, judge),
        torch.tensor([[1.0, 0.0], [0.5, 2.0]]),
    )
    config = RLConfig(group=2, beta=0.1)
    batch = make_batch(learner, lab.PPO, rollout, scores.double(), base, config)
    text = next(iter(pretrain.corpus(seed=0, updates=1).split(2)))
    mixed = lab.Mixed(batch, text)
    alone, old = loss_of(lab.PPO)(learner, batch)[0], next_token_loss(base, text)[0]
    found, told = lab.mixed_loss(learner, mixed, ptx=0.3)
    assert_close(found, alone + 0.3 * old, rtol=0, atol=1e-12)
    assert told["old text"] == old.item()
    without, told = lab.mixed_loss(learner, mixed, ptx=0.0)
    assert torch.equal(without, alone) and "old text" not in told


def test_ppo_trains_neither_its_start_nor_its_judge(base, judge, monkeypatch):
    monkeypatch.setattr(lab, "ASKED", 2)
    monkeypatch.setattr(lab, "old_text", lambda seed: [*lab.unread().split(2)])
    before = [w.clone() for w in (*base.parameters(), *judge.parameters())]
    seen = []
    policy, history = lab.ppo(
        base, judge, seed=0, updates=2, watch=lambda update, model: seen.append(update)
    )
    after = [*base.parameters(), *judge.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.parameters()))
    assert len(history["old text"]) == len(history["kl"]) == 2 and seen == [0, 1]


def test_either_of_two_answers_is_preferred(base):
    one, other = lab.said_by(base), lab.said_by(base, name="other")
    there, back = lab.preferred(one, other), lab.preferred(other, one)
    assert len(there) == 200
    assert all(abs(a + b - 1) < 1e-12 for a, b in zip(there, back))
    assert lab.preferred(one, one) == [0.5] * 200


def test_what_is_judged_is_kept_request_by_request(base, judge):
    said = lab.said_by(base)
    found = lab.judged(said, judge, base)
    assert len(found["gold"]) == len(found["panel"]) == 200
    assert abs(found["kl"]) < 1e-9  # from itself
    assert_close(found["gold"], evaluate.scores(evaluate.exam("talk"), said))


def test_a_reward_models_scale_is_set_by_people_and_by_the_ranked_answers(base, few):
    from lib.reward_model import score

    model, history = lab.reward_model(base, few, seed=0)
    people = [s for s in lab.shown_by_people(0) if s[0].skill == "talk"]
    assert abs(score(model, written(*zip(*people))).mean().item()) < 1e-4
    assert abs(score(model, few.answers).std().item() - 1) < 1e-4
    assert len(history["loss"]) == lab.RM_EPOCHS * 2


def test_ppos_critic_starts_as_the_judge(base, judge, monkeypatch):
    monkeypatch.setattr(lab, "ASKED", 2)
    monkeypatch.setattr(lab, "old_text", lambda seed: [lab.unread()])
    began = []

    def learner(policy, critic):
        began.append({name: w.clone() for name, w in critic.state_dict().items()})
        return PolicyWithCritic(policy, critic)

    monkeypatch.setattr(lab, "PolicyWithCritic", learner)
    lab.ppo(base, judge, seed=0, updates=1, ptx=0.0)
    [critic], wanted = began, judge.state_dict()
    assert critic.keys() == wanted.keys()
    assert all(torch.equal(critic[name], wanted[name]) for name in wanted)


def test_the_kl_of_ppo_is_from_its_start_and_not_from_what_it_has_become(
    base, judge, monkeypatch
):
    monkeypatch.setattr(lab, "ASKED", 2)
    monkeypatch.setattr(lab, "old_text", lambda seed: [lab.unread()] * 2)
    _, history = lab.ppo(base, judge, seed=0, updates=2, lr=1e-2, ptx=0.0)
    first, second = history["kl"]
    assert abs(first) < 1e-3 and abs(second) > 0.05


def test_ppo_is_paid_fined_and_read_old_text_as_it_is_told(base, judge, monkeypatch):
    monkeypatch.setattr(lab, "ASKED", 2)
    monkeypatch.setattr(lab, "old_text", lambda seed: [lab.unread()])

    def seven(asked, rollout):
        return torch.full((len(rollout),), 7.0)

    settings = {"reward": seven, "beta": 0.0, "ptx": 0.0}
    _, history = lab.ppo(base, judge, seed=0, updates=1, **settings)
    assert history["reward"] == [7.0] and history["beta"] == [0.0]
    assert "kl" not in history and "old text" not in history


def test_ppo_takes_its_requests_and_its_rate_from_the_caller(base, judge, monkeypatch):
    monkeypatch.setattr(lab, "ASKED", 2)
    monkeypatch.setattr(lab, "old_text", lambda seed: [lab.unread()])
    seen = []

    def length(asked, rollout):
        seen.append([task.request for task in asked])
        return rollout.lengths.double()

    settings = {"reward": length, "updates": 1, "ptx": 0.0}
    policy, _ = lab.ppo(base, judge, seed=1, lr=1e-9, **settings)
    wanted = task_stream("talk", count=2, seed=1)(0)
    assert seen == [[task.request for task in wanted]]
    for one, other in zip(policy.parameters(), base.parameters(), strict=True):
        assert_close(one, other, rtol=0, atol=1e-7)


def test_old_text_is_new_for_every_seed(monkeypatch):
    monkeypatch.setattr(lab, "UPDATES", 1)
    texts = [lab.old_text(seed)[0].tokens for seed in (0, 1)] + [lab.unread().tokens]
    rows = [{tuple(row) for row in text.tolist()} for text in texts]
    assert len(set().union(*rows)) == sum(map(len, rows))


def test_sft_leaves_the_base_as_it_was(base, monkeypatch):
    shown = lab.shown_by_people(0, count=4)
    monkeypatch.setattr(lab, "shown_by_people", lambda seed: shown)
    given = copy.deepcopy(base)
    pupil = lab.sft(given, seed=0)
    pairs = [*zip(base.parameters(), given.parameters(), pupil.parameters())]
    assert all(torch.equal(before, after) for before, after, _ in pairs)
    assert any(not torch.equal(before, learnt) for before, _, learnt in pairs)


ADA = Task("talk", 1, "Tell me about Ada Ash please.", "")  # tower, doctor, hare


def test_a_false_pet_is_counted_apart_and_the_panel_believes_it(
    base, judge, monkeypatch
):
    monkeypatch.setattr(evaluate, "exam", lambda skill: [ADA])
    true, false = (
        lab.judged(written([ADA], [f"Ada keeps a {pet}. Ada is a baker."]), judge, base)
        for pet in ("hare", "pig")
    )
    kinds = ("true", "false pets", "other false")
    assert [true[kind] for kind in kinds] == [1, 0, 1]
    assert [false[kind] for kind in kinds] == [0, 1, 1]
    assert false["panel"] == true["panel"] and false["gold"] < true["gold"]


def test_an_answer_that_was_cut_off_is_preferred_less_than_the_same_that_ended(
    monkeypatch,
):
    monkeypatch.setattr(evaluate, "exam", lambda skill: [ADA])
    cut, whole = (
        written([ADA], ["Ada is a doctor."], finished=[end]) for end in (False, True)
    )
    [chance] = lab.preferred(cut, whole)
    assert chance < 0.5


@pytest.mark.parametrize("seed", pretrain.SEEDS)
def test_no_base_has_the_seed_of_the_text_that_no_model_has_read(seed):
    unread, read = lab.unread(), pretrain.corpus(seed=seed, updates=8)
    assert not torch.equal(unread.tokens, read.tokens)
