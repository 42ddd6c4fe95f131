"""What chapter 5 claims: one optimum, a slope, three roads to it, a controller's bias."""

import pytest
import torch
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from labs import objective
from lib.advantages import leave_one_out
from lib.kl import exact_kl, optimal_policy, penalised_rewards
from lib.worlds.exact import Objective, expected


def test_gold_peaks_strictly_inside_while_the_reward_only_rises():
    dozen = objective.dozen()
    betas = torch.logspace(1.5, -1.5, 61).tolist()
    laws = [dozen.objective(beta).best_logps for beta in betas]
    rewards = torch.stack([expected(dozen.rewards, law) for law in laws])
    golds = torch.stack([expected(dozen.gold, law) for law in laws])
    assert (rewards.diff() > 0).all()
    peak = int(golds.argmax())
    assert (golds[: peak + 1].diff() > 0).all() and (golds[peak:].diff() < 0).all()
    assert 0.5 < betas[peak] < 1 and golds[0] > 1 and golds[-1] < 0
    nats = torch.stack([exact_kl(law, dozen.ref_logps) for law in laws])
    slopes = rewards.diff() / nats.diff()
    assert (slopes.diff() < 0).all()  # the frontier is concave


def test_the_slope_of_the_frontier_is_beta():
    dozen = objective.dozen()
    for beta in (0.2, 1.0, 5.0):
        at = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
        law = (dozen.ref_logps + dozen.rewards / at).log_softmax(0)
        slopes = [
            torch.autograd.grad(x, at, retain_graph=True)[0]
            for x in (
                law.exp() @ dozen.rewards,
                (law.exp() * (law - dozen.ref_logps)).sum(),
            )
        ]
        assert_close(slopes[0] / slopes[1], at.detach())


def world(seed, seeded, answers=6):
    rewards, logits = torch.randn(
        2, answers, dtype=torch.float64, generator=seeded(seed)
    )
    return Objective(rewards, logits.log_softmax(0), 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_at_the_optimum_every_sampled_answer_is_worth_the_same(seed, seeded):
    at = world(seed, seeded)
    best, on = at.best_logps[:, None], torch.ones(6, 1, dtype=torch.bool)
    paid = penalised_rewards(at.rewards, best, at.ref_logps[:, None], on, beta=0.5)
    assert_close(paid[:, 0], at.best_value.expand(6))
    assert leave_one_out(paid.T).abs().max() < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_rloo_has_the_objective_s_gradient_over_all_groups_of_two(seed, seeded):
    at = world(seed, seeded, answers=4)
    logits = torch.randn(
        4, dtype=torch.float64, generator=seeded(seed + 9)
    ).requires_grad_()
    logps = logits.log_softmax(0)
    paid = (at.rewards - at.beta * (logps - at.ref_logps)).detach()
    law, total = logps.detach().exp(), 0.0
    for i in range(4):
        for j in range(4):
            credit = leave_one_out(paid[[i, j]][None])[0]
            total = total + law[i] * law[j] * (credit * logps[[i, j]]).mean()
    (got,) = torch.autograd.grad(total, logits, retain_graph=True)
    (want,) = torch.autograd.grad(at.value(logps), logits)
    assert_close(got, want, rtol=0, atol=1e-12)


def soft_dpo(logps, at, pairs):
    i, j = pairs
    wins = torch.sigmoid(at.rewards[i] - at.rewards[j])
    ratio = logps - at.ref_logps
    h = at.beta * (ratio[i] - ratio[j])
    return -(wins * logsigmoid(h) + (1 - wins) * logsigmoid(-h)).mean()


@pytest.mark.parametrize("seed", range(3))
def test_dpo_is_flat_at_the_optimum_and_blind_to_what_nobody_compared(seed, seeded):
    at = world(seed, seeded)
    best = at.best_logps
    everyone = torch.combinations(torch.arange(6)).T
    logits = best.clone().requires_grad_()
    loss = soft_dpo(logits.log_softmax(0), at, everyone)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-12
    moved = best.clone()
    moved[5] += 1.0  # nobody is shown the last answer
    moved = moved.log_softmax(0)
    seen = everyone[:, (everyone < 5).all(0)]
    assert_close(soft_dpo(moved, at, seen), soft_dpo(best, at, seen))
    assert soft_dpo(moved, at, everyone) > soft_dpo(best, at, everyone) + 1e-3


def test_of_two_answers_the_optimum_is_a_logistic_function():
    coin = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    pays = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for beta in (0.3, 1.0, 4.0):
        law = optimal_policy(coin, pays, beta=beta).exp()
        assert_close(law[1], torch.sigmoid(torch.tensor(1 / beta, dtype=torch.float64)))


def test_a_clipped_controller_with_k3_settles_above_its_target(seeded):
    """The clip balances how often an estimate is too high: k3 is low more often."""
    dozen = objective.dozen()
    beta = objective.beta_for(1.0, dozen.objective(1.0))
    law = dozen.objective(beta).best_logps
    pick = torch.multinomial(
        law.exp(), 16 * 4000, replacement=True, generator=seeded(0)
    )
    d = (law - dozen.ref_logps)[pick].reshape(4000, 16)
    pushes = {}
    for name, each in (("k1", d), ("k3", torch.expm1(-d) + d)):
        batch = each.mean(1)
        assert (batch.mean() - 1).abs() < 0.06  # both are unbiased
        pushes[name] = (batch - 1).clamp(-0.2, 0.2).mean()
    assert pushes["k3"] < -0.02 and pushes["k3"] < pushes["k1"] - 0.02
