"""Exact gradients over listed answers, and what the page on KL estimators says of them."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from labs import kl_estimators, kl_estimators_runs
from labs.kl_estimators import kl_slope, slope
from lib.kl import exact_kl, k1, k2, k3, optimal_policy
from lib.ops import sequence_logps, token_logps
from lib.worlds import exact
from lib.worlds.exact import expected

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


LOGPS, REF = f64(0.5, 0.3, 0.2).log(), f64(0.2, 0.2, 0.6).log()
D = LOGPS - REF
SCORES = torch.eye(3).double() - LOGPS.exp()  # row y: ∇ log π(y) by the logits


def by_hand(weights, law=LOGPS):
    """Σ_y law(y) w(y) ∇ log π(y), one answer after the other."""
    return sum(law.exp()[y] * weights[y] * SCORES[y] for y in range(3))


# ---------------------------------------------------------------- the lab


def test_a_slope_is_the_sum_over_answers():
    weights = f64(1.0, -2.0, 0.5)
    close(slope(weights, LOGPS), by_hand(weights))
    close(slope(weights, LOGPS, REF), by_hand(weights, REF))
    close(slope(weights, LOGPS, sampler=LOGPS), by_hand(weights))


def test_the_slope_of_the_kl_is_that_of_automatic_differentiation(grad_of):
    (want,) = grad_of(lambda logits: exact_kl(logits, REF), LOGPS)
    close(kl_slope(LOGPS, REF), want)
    close(kl_slope(LOGPS, REF), by_hand(D))
    close(kl_slope(LOGPS, LOGPS), f64(0, 0, 0))


def test_texts_are_all_strings_and_the_good_begin_with_1():
    rows, good = kl_estimators.texts(3)
    assert len(rows) == 15 and good.dtype == torch.float64
    assert torch.equal(good == 1, rows.actions[:, 0] == 1) and good.sum() == 7
    assert rows.logps[rows.mask].tolist() == pytest.approx([-math.log(3)] * 41)
    whole = sequence_logps(rows.logps, rows.mask)
    close(whole.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert not rows.logps.requires_grad


# ---------------------------------------------------------------- as estimates


@pytest.mark.parametrize(
    ("shift", "true", "want"),
    [(0.1, 0.005, [(0, 20), (0.0025, 1.42), (0, 1.42)]),
     (1.0, 0.5, [(0, 2), (0.25, 1.73), (0, 1.70)])],
)  # fmt: skip
def test_schulman_s_table(shift, true, want):
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    ref, logps = ((-((x - mean) ** 2) / 2).log_softmax(0) for mean in (0, shift))
    for k, (bias, sd) in zip((k1, k2, k3), want, strict=True):
        each = k(logps, ref)
        mean = expected(each, logps)
        deviation = expected((each - mean).square(), logps).sqrt()
        assert (mean / true - 1).item() == pytest.approx(bias, abs=1e-6)
        assert (deviation / true).item() == pytest.approx(sd, rel=0.005)
        assert (expected(each < 0, logps) > 0.3) == (k is k1)


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_k3_less_k1_is_0_only_for_samples_from_the_policy(seed, seeded):
    logps, ref, other = torch.randn(
        3, 6, dtype=torch.float64, generator=seeded(seed)
    ).log_softmax(1)
    difference = k3(logps, ref) - k1(logps, ref)
    assert expected(difference, logps).abs() < 1e-12
    assert expected(difference, other).abs() > 1e-2
    got = expected(k1(logps, ref), other)
    close(got, exact_kl(other, ref) - exact_kl(other, logps))


# ---------------------------------------------------------------- as gradients


@pytest.mark.parametrize("seed", range(5))
def test_expected_gradients_in_the_reward_and_in_the_loss(seed, seeded, grad_of):
    logps, ref = torch.randn(
        2, 6, dtype=torch.float64, generator=seeded(seed)
    ).log_softmax(1)
    true, other = kl_slope(logps, ref), logps.exp() - ref.exp()

    def in_loss(k):
        return grad_of(lambda x: expected(k(x.log_softmax(0), ref), logps), logps)[0]

    close(in_loss(k1), torch.zeros(6, dtype=torch.float64))
    close(in_loss(k2), true)
    close(in_loss(k3), other)
    close(slope(k1(logps, ref), logps), true)
    for k in (k2, k3):  # neither
        got = slope(k(logps, ref), logps)
        for way in (true, other):
            assert torch.cosine_similarity(got, way, 0) < 1 - 1e-4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("attached", [True, False])
def test_the_ratio_repairs_k1_and_k3_by_its_gradient_and_k2_without_it(
    attached, seed, seeded
):
    """Exact off-policy gradients of a penalty in the loss, for random policies."""
    ref, old, logits = torch.randn(3, 8, dtype=torch.float64, generator=seeded(seed))
    ref, old = ref.log_softmax(0), old.log_softmax(0)
    true = kl_slope(logits.log_softmax(0), ref)

    def error(estimator) -> float:
        leaf = logits.clone().requires_grad_()
        logps = leaf.log_softmax(0)
        ratio = (logps - old).exp()
        weight = ratio if attached else ratio.detach()
        mean = expected(weight * estimator(logps, ref), old)
        (push,) = torch.autograd.grad(mean, leaf)
        return ((push - true).norm() / true.norm()).item()

    right, wrong = ((k1, k3), (k2,)) if attached else ((k2,), (k1, k3))
    assert max(map(error, right)) < 1e-12
    assert min(map(error, wrong)) > 0.1
    if not attached:
        assert error(k1) == pytest.approx(1, abs=1e-12)  # no gradient at all


# ---------------------------------------------------------------- many tokens


def scattered(seed, length=4):
    policy = exact.PrefixTable(3, length)
    draw = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(policy.logits, generator=draw)
    return policy


@pytest.mark.parametrize("seed", range(5))
def test_only_the_answer_s_k2_or_k1_to_go_has_the_gradient_of_the_kl(seed):
    rows, _ = kl_estimators.texts(4)
    policy = scattered(seed)
    logps = token_logps(policy(rows.states), rows.actions).masked_fill(~rows.mask, 0)
    ref = rows.logps.masked_fill(~rows.mask, 0)
    whole, drawn = logps.sum(1), logps.detach().sum(1)
    true = exact.gradient(exact_kl(whole, ref.sum(1)), policy)
    d = (logps - ref).detach()
    to_go = d.flip(1).cumsum(1).flip(1)
    for right in (k2(whole, ref.sum(1)), (to_go * logps).sum(1)):
        close(exact.gradient(expected(right, drawn), policy), true)
    own = exact.gradient(expected((d * logps).sum(1), drawn), policy)
    close(exact.gradient(expected(k2(logps, ref).sum(1), drawn), policy), own)
    assert (own - true).norm() / true.norm() > 0.1


def test_the_last_token_leads_nowhere_and_its_own_k2_is_right():
    rows, _ = kl_estimators.texts(1)
    policy = scattered(0, 1)
    logps = token_logps(policy(rows.states), rows.actions)
    got = expected(k2(logps, rows.logps).sum(1), logps.detach().sum(1))
    true = exact_kl(logps.sum(1), rows.logps.sum(1))
    close(exact.gradient(got, policy), exact.gradient(true, policy))


def test_the_mean_s_optimum_is_stationary_for_the_mean_and_the_sum_s_for_the_sum():
    rows, good = kl_estimators.texts(4)
    ref, beta = sequence_logps(rows.logps, rows.mask), 0.5
    best = optimal_policy(ref, good, beta=beta)
    count = rows.lengths.double()
    low, high = good.min(), good.max()
    for _ in range(100):
        level = (low + high) / 2
        more = (ref + count * (good - level) / beta).logsumexp(0) > 0
        low, high = (level, high) if more else (low, level)
    mean = ref + count * (good - level) / beta
    for law, divide in ((best, torch.ones_like(count)), (mean, count)):
        paid = good - beta * (law - ref) / divide
        close(slope(paid, law), torch.zeros_like(law))
    assert expected(count, mean) > expected(count, best) + 0.2
    assert slope(good - beta * (mean - ref), mean).abs().max() > 1e-3


# ---------------------------------------------------------------- the record's uses


def test_a_token_is_charged_for_itself_and_all_that_follow_less_the_batch_s_mean():
    logps = f64([-1.0, -2.0, -3.0], [-2.0, -1.0, 0.0]).requires_grad_()
    ref = f64([-2.0, -2.0, -1.0], [-1.0, -3.0, 0.0])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    got = kl_estimators_runs.to_go(logps, ref, mask)
    charged = f64([-1.0, -2.0, -2.0], [1.0, 2.0, 0.0])  # of d = (1, 0, -2) and (-1, 2)
    less = f64([-1.0, -2.0, 0.0], [1.0, 2.0, 0.0])
    close(got, less * logps)
    (slopes,) = torch.autograd.grad(got.sum(), logps)
    close(slopes, less)
    assert not torch.equal(charged, less)


def test_every_use_ran_at_its_best_rate_and_the_sweep_has_luck_of_its_own():
    runs, rates = kl_estimators_runs.RECORD.read()["runs"], kl_estimators_runs.RATES
    for use, lr in kl_estimators_runs.LR.items():
        swept = {rate: runs[f"sweep: {use}, {rate:g}"]["0"]["after"] for rate in rates}
        assert min(swept, key=swept.get) == lr
        assert kl_estimators_runs.RUNS[use] == {"use": use, "lr": lr}
    assert all(each["luck"] == "sweep" for each in kl_estimators_runs.SWEEP.values())
