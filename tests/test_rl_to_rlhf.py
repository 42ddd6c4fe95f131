"""Chapter 3's lab: what an exam counts, what the sweep takes, who learns from what."""

import pytest
import torch

from labs import agents, deepseek_r1, rl_to_rlhf
from lib import evaluate, rewards
from lib.reward_model import score
from lib.worlds import cartpole
from lib.worlds.annotators import PANEL, believed
from lib.worlds.talk import features


@pytest.fixture(scope="module")
def start():
    return deepseek_r1.ready_assistant()


@pytest.fixture(scope="module")
def liked():
    return rewards.learned(deepseek_r1.ready_reward_model())


def words(asked, rollout):
    """A reward that is quick to compute: the length of an answer in tokens."""
    return rollout.lengths.double()


def test_an_exam_says_who_likes_the_answers_and_what_is_in_them(start):
    found = rl_to_rlhf.exam(start, start, words)
    asked = evaluate.exam("talk")
    assert len({task.request for task in asked}) == len(found["gold"]) == 200
    luck = rl_to_rlhf.generator("rlhf exam")
    rollout = evaluate.ask(start, asked, generator=luck, max_tokens=rl_to_rlhf.TOKENS)
    said = evaluate.answers(rollout)
    seen = [features(t, a.text, finished=a.finished) for t, a in zip(asked, said)]
    assert found["gold"] == evaluate.scores(asked, rollout).tolist()
    assert found["reward"] == rollout.lengths.double().mean().item()
    assert abs(found["kl"]) < 1e-12  # of the reference itself
    assert found["false"] == sum(s.false for s in seen) / 200
    assert found["false_pets"] == sum(s.false_pets for s in seen) / 200
    each = [sum(a.weights.score(believed(s)) for s in seen) / 200 for a in PANEL]
    assert found["annotators"] == pytest.approx(sum(each) / 5)


def test_an_exams_kl_is_that_to_the_reference(start):
    other = rl_to_rlhf.pretrain.base_model(seed=1)
    assert rl_to_rlhf.exam(start, other, words)["kl"] > 1


def test_rlhf_climbs_what_is_liked_less_the_penalty_and_never_gold(start):
    def train(**settings):
        given = {"seed": 3, "lr": 1e-3, "updates": 2, "liked": words} | settings
        return rl_to_rlhf.rlhf(start, given.pop("liked"), **given)

    def weights(policy):
        return torch.cat([w.detach().flatten() for w in policy.parameters()])

    policy, history = train()
    assert torch.equal(weights(policy), weights(train()[0]))
    for other in ({"seed": 4}, {"beta": 0.0}, {"liked": rewards.gold}):
        assert not torch.equal(weights(policy), weights(train(**other)[0]))
    assert len(history["gold"]) == 2 and history["gold"] != history["reward"]
    assert history["beta"] == [rl_to_rlhf.BETA] * 2


def test_a_large_penalty_keeps_the_policy_where_it_was(start):
    kls = []
    for beta in (1e-6, 10.0):
        settings = {"seed": 0, "lr": 1e-3, "beta": beta, "updates": 6}
        kls.append(rl_to_rlhf.rlhf(start, words, **settings)[1]["kl"][-1])
    assert kls[1] < 0.5 * kls[0]


def test_the_sweep_takes_the_rate_with_the_highest_reward_less_penalty():
    kept = [(0.5, 1.0), (0.9, 2.0), (1.0, 4.0)]  # less a tenth of the KL: .4, .7, .6
    runs = {
        f"lr {lr}": {"10": {"reward": reward, "kl": kl, "gold": -k}}
        for k, (lr, (reward, kl)) in enumerate(zip(rl_to_rlhf.RATES, kept))
    }
    assert rl_to_rlhf.BETA == 0.1
    assert rl_to_rlhf.best_rate(runs) == rl_to_rlhf.RATES[1]


def test_a_writer_and_its_judge_come_from_the_base_of_their_seed(monkeypatch):
    monkeypatch.setattr(rl_to_rlhf, "SHOWN", 32)
    monkeypatch.setattr(rl_to_rlhf, "COMPARED", 32)
    one, other = rl_to_rlhf.writer(0), rl_to_rlhf.writer(1)
    texts = deepseek_r1.compared(one, count=32, seed=0)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
    model = rl_to_rlhf.judge(one, 0)
    assert torch.equal(model.first.embedding.weight, one.embedding.weight)
    said = torch.cat([score(model, some) for some in (texts.chosen, texts.rejected)])
    assert abs(said.mean()) < 1e-6 and abs(said.std() - 1) < 1e-6


def test_a_constant_decides_whether_the_agent_goes_on():
    def upright(states):
        return torch.ones(len(states), dtype=torch.float64)

    plain = agents.LADDER["PPO"], cartpole.world()
    agent, _ = agents.train(*plain, seed=0, steps=3_000)
    truth = agents.evaluate(agent, cartpole.world(), batch=16)
    assert rl_to_rlhf.shifted(upright, 0.0, seed=0) == truth
    assert rl_to_rlhf.shifted(upright, -2.0, seed=0) < 20 < truth


def test_true_rewards_are_counted_by_the_action(monkeypatch):
    monkeypatch.setattr(rl_to_rlhf.cartpole_preferences, "CONTENT", 10_000)
    count = rl_to_rlhf.true_rewards(0)  # never content: the budget, to the next rollout
    assert 25_000 <= count < 25_000 + 32 * 32
