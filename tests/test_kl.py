"""KL divergences and what they buy, by hand and by summing over every action."""

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lib import kl

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
T, F = True, False
NAN, INF = math.nan, math.inf


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


def scalar(x):
    """A float64 tensor without axes."""
    return torch.tensor(x, dtype=torch.float64)


# Six states, as far apart as policies get, and the truth about them by plain sums.
LOGITS = f64(1.0, -0.5, 2.0, 0.0, -1.5, 0.3)
REF = f64(-1.0, 0.4, 0.2, 1.1, 0.0, -0.6)
P, Q = LOGITS.softmax(0), REF.softmax(0)
KL_PQ = sum(p * math.log(p / q) for p, q in zip(P.tolist(), Q.tolist(), strict=True))


def expected_slope(estimator):
    """Σ π(a) · d estimator(a) / d logits, the sampling law held fixed."""
    logits = LOGITS.clone().requires_grad_()
    terms = estimator(logits.log_softmax(0), REF.log_softmax(0))
    return torch.autograd.grad((P * terms).sum(), logits)[0]


# ---------------------------------------------------------------- estimators


def test_the_estimators_by_hand():
    logps, ref = f64(-1, -2, -0.5), f64(-1.5, -1, -0.5)  # d = 0.5, -1, 0
    close(kl.k1(logps, ref), f64(0.5, -1, 0))
    close(kl.k2(logps, ref), f64(0.125, 0.5, 0))
    close(kl.k3(logps, ref), f64(math.exp(-0.5) - 0.5, math.e - 2, 0))


def test_k1_and_k3_have_the_kl_as_their_mean_over_the_policy_and_k2_has_not():
    logps, ref = LOGITS.log_softmax(0), REF.log_softmax(0)
    assert (P * kl.k1(logps, ref)).sum().item() == pytest.approx(KL_PQ, abs=1e-14)
    assert (P * kl.k3(logps, ref)).sum().item() == pytest.approx(KL_PQ, abs=1e-14)
    assert abs((P * kl.k2(logps, ref)).sum().item() - KL_PQ) > 0.03


def test_k1_as_a_loss_has_no_gradient_in_the_mean():
    close(expected_slope(kl.k1), torch.zeros(6, dtype=torch.float64))


def test_k2_as_a_loss_has_the_gradient_of_the_kl(grad_of):
    by_hand = P * ((P / Q).log() - KL_PQ)  # d KL(π ‖ ref) / d logits
    close(expected_slope(kl.k2), by_hand)
    close(grad_of(lambda x: kl.exact_kl(x, REF), LOGITS)[0], by_hand)


def test_k3_as_a_loss_has_the_gradient_of_the_other_direction():
    close(expected_slope(kl.k3), P - Q)  # d KL(ref ‖ π) / d logits


def test_k1_inside_the_reward_has_the_gradient_of_the_kl():
    score = expected_slope(lambda logps, ref: logps * kl.k1(logps, ref).detach())
    close(score, P * ((P / Q).log() - KL_PQ))


@pytest.mark.parametrize("estimator", [kl.k1, kl.k2, kl.k3])
def test_an_estimator_sends_no_gradient_to_the_reference(estimator, grad_of):
    x, ref = f64([-1, -2], [-3, -0.5]), f64([-2, -2.5], [-1, -0.5])
    slope, none = grad_of(estimator, x, ref)
    assert (none == 0).all()
    want = {kl.k1: torch.ones_like(x), kl.k2: x - ref, kl.k3: 1 - (ref - x).exp()}
    close(slope, want[estimator])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k3_is_exact_near_zero_in_value_and_gradient(dtype, grad_of):
    sizes = [10.0**power for power in range(-12, 1)] + [0.0099, 0.0101]
    d = torch.tensor(sizes + [-x for x in sizes], dtype=dtype)
    got, (slope,) = kl.k3(d, torch.zeros_like(d)), grad_of(kl.k3, d, 0 * d)[:1]
    exact = d.double()
    # a Taylor sum long enough for |d| <= 1
    terms = [(-exact) ** k / float(math.factorial(k)) for k in range(2, 25)]
    want = sum(reversed(terms))
    near = {torch.float32: 2e-5, torch.float64: 1e-13}[dtype]
    assert ((got.double() - want).abs() <= near * want).all()
    assert got.dtype == dtype and (got >= 0).all()
    assert ((slope.double() + torch.expm1(-exact)).abs() <= 1e-4 * exact.abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k3_is_finite_for_any_log_ratio(dtype, grad_of):
    d = torch.tensor([200.0, 1e4, -200.0, -1e4, -INF], dtype=dtype)
    got, (slope,) = kl.k3(d, torch.zeros_like(d)), grad_of(kl.k3, d, 0 * d)[:1]
    assert got[:2].tolist() == [199, 9999]
    assert got.isfinite().all() and slope.isfinite().all()
    assert (1e6 * got).isfinite().all()  # so that a batch of them has a sum
    limit = math.log(torch.finfo(dtype).max) / 2
    assert got[-1].item() == pytest.approx(math.exp(limit) - 1 - limit, rel=1e-4)
    assert slope[-1] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_k3_in_half_precision_is_that_of_float64_rounded(dtype, grad_of):
    d = torch.linspace(-8, 8, 33).to(dtype)
    got, (slope,) = kl.k3(d, 0 * d), grad_of(kl.k3, d, 0 * d)[:1]
    assert got.dtype == slope.dtype == dtype
    want = torch.expm1(-d.double()) + d.double()
    assert_close(got.double(), want, rtol=torch.finfo(dtype).eps, atol=0)
    want = -torch.expm1(-d.double())
    assert_close(slope.double(), want, rtol=torch.finfo(dtype).eps, atol=0)
    far = torch.tensor([-200.0, -5000.0], dtype=dtype)
    assert kl.k3(far, 0 * far).isfinite().all()
    assert grad_of(kl.k3, far, 0 * far)[0].tolist() == [0, 0]


def test_a_log_ratio_may_go_as_far_as_half_of_exp_and_in_float16_all_of_it():
    assert kl.exp_limit(torch.float32) == pytest.approx(44.36, abs=0.01)
    assert kl.exp_limit(torch.bfloat16) == pytest.approx(44.36, abs=0.01)
    assert kl.exp_limit(torch.float64) == pytest.approx(354.89, abs=0.01)
    assert math.exp(kl.exp_limit(torch.float16)) == pytest.approx(65504)


def test_the_estimators_are_infinite_where_the_reference_is_zero(grad_of):
    for estimator in (kl.k1, kl.k2, kl.k3):
        assert estimator(f64(-1.0), f64(-INF)).item() == INF
    assert grad_of(kl.k3, f64(-1.0), f64(-INF))[0].tolist() == [1]


def test_the_estimators_say_what_they_refuse(refuses):
    for estimator in (kl.k1, kl.k2, kl.k3):
        with refuses("ref_logps: got shape (1,), wanted shape (2,)"):
            estimator(f64(1, 2), f64(1))
        with refuses("logps: got float, wanted a Tensor"):
            estimator(1.0, f64(1))


# ---------------------------------------------------------------- exact_kl


def test_exact_kl_is_the_sum_over_all_actions():
    got = kl.exact_kl(torch.stack([LOGITS, REF]), torch.stack([REF, REF]))
    close(got, f64(KL_PQ, 0))
    close(
        kl.exact_kl(LOGITS + 5, REF - 3), scalar(KL_PQ)
    )  # logits, not log-probabilities
    assert kl.exact_kl(LOGITS.float(), REF.float()).dtype == torch.float32


def test_where_the_policy_is_zero_it_contributes_zero(grad_of):
    logits, ref = f64(0, 0, -INF), f64(0, 0, 0)
    close(kl.exact_kl(logits, ref), scalar(math.log(1.5)))
    close(kl.exact_kl(logits, f64(0, 0, -INF)), scalar(0.0))
    slope, none = grad_of(kl.exact_kl, f64(1, 0, -INF), f64(0, 0, -INF))
    p = 1 / (1 + math.exp(-1))
    d = p * (1 - p) * 1.0  # of two actions with a gap of 1 in their logits
    close(slope, f64(d, -d, 0))
    assert (none == 0).all()


def test_the_kl_is_infinite_where_only_the_reference_is_zero():
    assert kl.exact_kl(f64(0, 0), f64(0, -INF)).item() == INF


def test_exact_kl_sends_no_gradient_to_the_reference(grad_of):
    slope, none = grad_of(kl.exact_kl, LOGITS, REF)
    assert (none == 0).all() and (slope != 0).all()


def test_exact_kl_survives_logits_of_ten_thousand(grad_of):
    x, ref = f64(1e4, -1e4), f64(-1e4, 1e4)
    close(kl.exact_kl(x, ref), scalar(2e4))
    assert grad_of(kl.exact_kl, x, ref)[0].isfinite().all()


def test_exact_kl_says_what_it_refuses(refuses):
    wanted = "wanted at least one finite logit a row, no NaN, no +inf"
    for bad in (f64(NAN, 0), f64(-INF, -INF), f64(INF, 0)):
        with refuses(f"logits: got no distribution, {wanted}"):
            kl.exact_kl(bad, f64(0, 0))
        with refuses(f"ref_logits: got no distribution, {wanted}"):
            kl.exact_kl(f64(0, 0), bad)
    with refuses(f"logits: got no distribution, {wanted}"):
        kl.exact_kl(f64([0, 0], [NAN, 0]), f64([0, 0], [0, 0]))
    with refuses("ref_logits: got shape (1,), wanted shape (2,)"):
        kl.exact_kl(f64(0, 0), f64(0))
    with refuses("logits: got shape (), wanted shape (..., A)"):
        kl.exact_kl(scalar(0.0), scalar(0.0))
    with refuses("logits: got shape (2, 0), wanted shape (..., A)"):
        kl.exact_kl(torch.zeros(2, 0), torch.zeros(2, 0))
    with refuses("logits: got list, wanted a Tensor"):
        kl.exact_kl([0.0], f64(0))


# ---------------------------------------------------------------- penalised_rewards

LOGPS = f64([-1, -2, -3, NAN], [-0.5, NAN, NAN, NAN], [NAN, -1, -1, NAN])
REF_LOGPS = f64([-1.5, -1, -3, NAN], [-0.25, NAN, NAN, NAN], [NAN, -2, -4, NAN])
MASK = torch.tensor([[T, T, T, F], [T, F, F, F], [F, T, T, F]])


def test_the_penalty_is_on_every_token_and_the_score_on_the_last():
    got = kl.penalised_rewards(f64(10, -1, 0.5), LOGPS, REF_LOGPS, MASK, beta=2.0)
    # d = 0.5, -1, 0 | -0.25 | 1, 3
    close(got, f64([-1, 2, 10, 0], [-0.5, 0, 0, 0], [0, -2, -5.5, 0]))


def test_a_row_sums_to_its_score_less_beta_times_its_log_ratio():
    scores = f64(10, -1, 0.5)
    got = kl.penalised_rewards(scores, LOGPS, REF_LOGPS, MASK, beta=0.3)
    ratio = torch.where(MASK, LOGPS - REF_LOGPS, 0).sum(-1)
    close(got.sum(-1), scores - 0.3 * ratio)


def test_the_score_sits_on_the_last_true_even_behind_a_gap():
    mask = torch.tensor([[T, F, T, F]])
    got = kl.penalised_rewards(
        f64(7), f64([0, NAN, 0, NAN]), f64([0] * 4), mask, beta=1.0
    )
    assert got.tolist() == [[0, 0, 7, 0]]


def test_without_a_penalty_no_reference_is_needed():
    got = kl.penalised_rewards(f64(10, -1, 0.5), LOGPS, None, MASK, beta=0.0)
    assert got.tolist() == [[0, 0, 10, 0], [-1, 0, 0, 0], [0, 0, 0.5, 0]]
    assert not got.signbit()[:, 3].any()  # no -0.0 behind the mask
    same = kl.penalised_rewards(
        f64(10, -1, 0.5), LOGPS, REF_LOGPS - INF, MASK, beta=0.0
    )
    assert torch.equal(same, got)


def test_penalised_rewards_are_data_and_read_nothing_behind_the_mask():
    logps, ref, scores = (
        x.clone().requires_grad_() for x in (LOGPS, REF_LOGPS, f64(1, 2, 3))
    )
    got = kl.penalised_rewards(scores, logps, ref, MASK, beta=1.0)
    assert not got.requires_grad and got.isfinite().all()
    for garbage in (INF, -INF, 1e30):
        x, y = LOGPS.masked_fill(~MASK, garbage), REF_LOGPS.masked_fill(~MASK, garbage)
        assert torch.equal(
            kl.penalised_rewards(f64(1, 2, 3), x, y, MASK, beta=1.0), got
        )


def test_a_verifier_s_verdicts_and_the_dtype_of_the_logps():
    for scores in (torch.tensor([1, 0, 1]), torch.tensor([T, F, T]), f64(1, 0, 1)):
        x, ref = LOGPS.float(), REF_LOGPS.float()
        got = kl.penalised_rewards(scores, x, ref, MASK, beta=1.0)
        assert got.dtype == torch.float32
        assert got[0].tolist() == [-0.5, 1, 1, 0]


def test_a_token_that_the_reference_forbids_costs_everything():
    mask = torch.tensor([[T, T]])
    got = kl.penalised_rewards(f64(1), f64([-1, -1]), f64([-INF, -1]), mask, beta=0.1)
    assert got.tolist() == [[-INF, 1]]


def test_penalised_rewards_say_what_they_refuse(refuses):
    def call(scores=None, logps=LOGPS, ref=REF_LOGPS, mask=MASK, beta=0.1):
        scores = f64(1, 2, 3) if scores is None else scores
        return kl.penalised_rewards(scores, logps, ref, mask, beta=beta)

    with refuses("beta: got -0.1, wanted a number of at least 0"):
        call(beta=-0.1)
    with refuses("mask: got no True in row 1, wanted a True in every row"):
        call(mask=torch.tensor([[T, T, T, F], [F] * 4, [F, T, T, F]]))
    with refuses("scores: got shape (3, 1), wanted shape (3,)"):
        call(scores=f64([1], [2], [3]))
    with refuses("scores: got nan at index (1,), wanted finite numbers"):
        call(scores=f64(1, NAN, 3))
    with refuses(
        "logps: got NaN at index (0, 3), wanted no NaN where the mask is True"
    ):
        call(mask=MASK | torch.tensor([[F, F, F, T]] * 3))
    with refuses("logps: got -inf at index (0, 0), wanted finite numbers"):
        call(logps=torch.full_like(LOGPS, -INF))
    with refuses("ref_logps: got NoneType, wanted a Tensor"):
        call(ref=None)
    with refuses(
        "ref_logps: got NaN at index (0, 0), wanted no NaN where the mask is True"
    ):
        call(ref=REF_LOGPS * NAN)


# ---------------------------------------------------------------- the optimum

REWARDS = f64(0.2, -1.0, 3.0, 0.0, 1.0, 1.0)
REF_LOGPS_6 = REF.log_softmax(0)


def objective(logps, beta):
    """E r - beta · KL(π ‖ ref) by a plain sum."""
    terms = zip(logps.exp().tolist(), Q.tolist(), REWARDS.tolist(), strict=True)
    return sum(p * (r - beta * math.log(p / q)) for p, q, r in terms if p > 0)


@pytest.mark.parametrize("beta", [0.05, 0.5, 1.0, 20.0])
def test_the_optimal_policy_reaches_the_optimal_value_and_no_other_does(beta, seeded):
    weights = [
        q * math.exp(r / beta)
        for q, r in zip(Q.tolist(), REWARDS.tolist(), strict=True)
    ]
    z = sum(weights)
    best = kl.optimal_policy(REF_LOGPS_6, REWARDS, beta=beta)
    close(best.exp(), f64(*[w / z for w in weights]))
    value = kl.optimal_value(REF_LOGPS_6, REWARDS, beta=beta)
    close(value, scalar(beta * math.log(z)))
    assert objective(best, beta) == pytest.approx(value.item(), abs=1e-12)
    for _ in range(50):
        step = torch.randn(6, dtype=torch.float64, generator=seeded(_))
        other = (best + 0.3 * step).log_softmax(0)
        assert objective(other, beta) < value.item()


def test_a_large_beta_stays_at_the_reference_and_a_small_one_takes_the_best():
    close(kl.optimal_policy(REF_LOGPS_6, REWARDS, beta=1e14), REF_LOGPS_6)
    greedy = kl.optimal_policy(REF_LOGPS_6, REWARDS, beta=1e-3)
    close(greedy.exp(), f64(0, 0, 1, 0, 0, 0))
    near = kl.optimal_value(REF_LOGPS_6, REWARDS, beta=1e-3)
    assert near.item() == pytest.approx(3 + 1e-3 * REF_LOGPS_6[2].item(), abs=1e-12)


def test_the_optimum_of_many_prompts_is_that_of_each():
    ref = torch.stack([REF_LOGPS_6, LOGITS.log_softmax(0)])
    rewards = torch.stack([REWARDS, -REWARDS])
    policies = kl.optimal_policy(ref, rewards, beta=0.7)
    values = kl.optimal_value(ref, rewards, beta=0.7)
    assert policies.shape == (2, 6) and values.shape == (2,)
    for row in range(2):
        close(policies[row], kl.optimal_policy(ref[row], rewards[row], beta=0.7))
        close(values[row], kl.optimal_value(ref[row], rewards[row], beta=0.7))


def test_what_the_reference_never_writes_the_optimum_never_writes(grad_of):
    ref = f64(0.5, 0.5, 0).log()
    rewards = f64(0, 1, 100)
    best = kl.optimal_policy(ref, rewards, beta=1.0)
    assert best[2] == -INF
    close(best[:2], f64(0, 1).log_softmax(0))
    value = kl.optimal_value(ref, rewards, beta=1.0)
    close(value, scalar(math.log(0.5 + 0.5 * math.e)))


def test_the_optimal_value_differentiates_to_the_optimal_policy(grad_of):
    function = partial(kl.optimal_value, beta=0.7)
    no_slope, slope = grad_of(function, REF_LOGPS_6, REWARDS)
    close(slope, kl.optimal_policy(REF_LOGPS_6, REWARDS, beta=0.7).exp())
    assert (no_slope == 0).all()


@pytest.mark.parametrize("function", [kl.optimal_policy, kl.optimal_value])
def test_the_optimum_says_what_it_refuses(function, refuses):
    for beta, message in (
        (0.0, "got 0.0, wanted a number above 0"),
        (-1, "got -1, wanted a number above 0"),
    ):
        with refuses(f"beta: {message}"):
            function(REF_LOGPS_6, REWARDS, beta=beta)
    with refuses("rewards: got shape (2,), wanted shape (6,)"):
        function(REF_LOGPS_6, f64(1, 2), beta=1.0)
    with refuses("rewards: got inf at index (1,), wanted finite numbers"):
        function(REF_LOGPS_6, f64(1, INF, 0, 0, 0, 0), beta=1.0)
    wanted = "wanted all the completions there are, summing to 1"
    with refuses(f"ref_logps: got probabilities that sum to 2, {wanted}"):
        function(f64(0, 0), f64(1, 2), beta=1.0)
    with refuses(f"ref_logps: got probabilities that sum to nan, {wanted}"):
        function(f64(NAN, 0), f64(1, 2), beta=1.0)


def test_normalised_allows_the_rounding_of_float32_and_no_more(refuses):
    kl.normalised("x", torch.randn(50_000).log_softmax(0))
    kl.normalised("x", f64([0.50009, 0.5], [0.5, 0.49991]).log())
    wanted = "wanted all the completions there are, summing to 1"
    with refuses(f"x: got probabilities that sum to 0.9998, {wanted}"):
        kl.normalised("x", f64([0.5, 0.5], [0.5, 0.4998]).log())
    with refuses(f"x: got probabilities that sum to 1.00011, {wanted}"):
        kl.normalised("x", f64(0.500106, 0.5).log())
    with refuses(f"x: got probabilities that sum to 3, {wanted}"):
        kl.normalised("x", f64([0.5, 0.5], [1.5, 1.5], [2, 2]).log())
    with refuses("x: got shape (), wanted shape (..., K)"):
        kl.normalised("x", scalar(0.0))
    with refuses("x: got shape (2, 0), wanted shape (..., K)"):
        kl.normalised("x", torch.zeros(2, 0))
    with refuses("x: got shape (0,), wanted shape (..., K)"):
        kl.normalised("x", f64())
    with refuses("x: got float, wanted a Tensor"):
        kl.normalised("x", 0.0)


# ---------------------------------------------------------------- best of n


def brute_force(probabilities, rewards, n):
    """P(best of n): every n-tuple, the tie at the top broken in proportion to ref."""
    out = [0.0] * len(rewards)
    for drawn in itertools.product(range(len(rewards)), repeat=n):
        top = max(rewards[i] for i in drawn)
        winners = [i for i in drawn if rewards[i] == top]
        chance = math.prod(probabilities[i] for i in drawn)
        for i in winners:  # any of the drawn best, each as likely as another
            out[i] += chance / len(winners)
    return out


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "rewards", [[0.2, -1.0, 3.0, 0.0, 1.0], [0, 1, 1, 0, 1], [2, 2, 2, 2, 2]]
)
def test_best_of_n_agrees_with_every_tuple(rewards, n):
    p = f64(0.1, 0.25, 0.05, 0.4, 0.2)
    got = kl.best_of_n_policy(p.log(), f64(*rewards), n)
    close(got.exp(), f64(*brute_force(p.tolist(), rewards, n)))


def test_best_of_one_is_the_reference_and_of_very_many_the_best():
    close(kl.best_of_n_policy(REF_LOGPS_6, REWARDS, 1), REF_LOGPS_6)
    close(kl.best_of_n_policy(REF_LOGPS_6, REWARDS, 10**6).exp(), f64(0, 0, 1, 0, 0, 0))


def test_best_of_n_never_writes_what_the_reference_never_writes():
    p = f64(0.5, 0.0, 0.5, 0.0)
    got = kl.best_of_n_policy(p.log(), f64(1, 2, 2, 0), 3)
    close(got.exp(), f64(1 / 8, 0, 7 / 8, 0))
    assert got[1] == got[3] == -INF
    close(kl.best_of_n_policy(p.log(), f64(1, 9, 2, -9), 3), got)


def test_best_of_n_is_exact_where_probabilities_are_tiny():
    tiny = 1e-15
    p = f64(1 - tiny, tiny)
    got = kl.best_of_n_policy(p.log(), f64(0, 1), 4)
    assert got[1].item() == pytest.approx(math.log(4 * tiny), abs=1e-9)
    low = kl.best_of_n_policy(p.log(), f64(1, 0), 4)
    assert low[1].item() == pytest.approx(4 * math.log(tiny), abs=1e-9)


def test_best_of_n_is_finite_where_the_reference_underflows():
    ref = f64(0.0, -800.0, -2000.0)  # exp(-800) is 0 in float64
    best = kl.best_of_n_policy(ref, f64(0, 1, 2), 4)
    # so rare that each of 4 draws adds its own chance: p(best) = 4p
    close(best[1:], f64(math.log(4) - 800, math.log(4) - 2000))
    worst = kl.best_of_n_policy(ref, f64(2, 1, 0), 4)
    # all four draws must be no better: p⁴, and for the one in the middle q⁴ - p⁴ = q⁴
    close(worst, f64(0, -3200, -8000))
    tied = kl.best_of_n_policy(f64(0.0, -800.0, -801.0), f64(0, 1, 1), 4)
    close(tied[1:], f64(math.log(4) - 800, math.log(4) - 801))
    never = kl.best_of_n_policy(f64(-INF, 0.0, -800.0), f64(0, 1, 2), 4)
    assert never[0] == -INF and never[2].item() == pytest.approx(math.log(4) - 800)


@pytest.mark.parametrize("exponent", [-70.0, -79.9, -80.1, -90.0])
def test_best_of_n_is_smooth_where_its_formula_changes(exponent):
    best = kl.best_of_n_policy(f64(0.0, exponent), f64(0, 1), 1000)
    close(best[1], scalar(math.log(1000) + exponent))  # 1 - (1 - p)ⁿ = np at p ≪ 1/n


def test_best_of_n_keeps_the_dtype_and_carries_no_gradient():
    ref = REF_LOGPS_6.float().requires_grad_()
    got = kl.best_of_n_policy(ref, REWARDS, 4)
    assert got.dtype == torch.float32 and not got.requires_grad
    want = kl.best_of_n_policy(REF_LOGPS_6, REWARDS, 4)
    assert_close(got.double(), want, rtol=0, atol=1e-5)
    for rewards in (REWARDS.float(), (10 * REWARDS).round().long()):
        close(kl.best_of_n_policy(REF_LOGPS_6, rewards, 4), want)
    many = torch.full((10_000,), 1e-4).log()
    got = kl.best_of_n_policy(many, torch.arange(10_000), 1000)[9000:]
    assert got[-1].item() == pytest.approx(math.log(1 - (1 - 1e-4) ** 1000), abs=1e-5)
    want = kl.best_of_n_policy(many.double(), torch.arange(10_000), 1000)[9000:]
    assert torch.equal(got, want.float())


def test_a_reference_that_misses_one_by_a_rounding_still_yields_a_distribution():
    ref = f64(0.50004, 0.5).log()
    got = kl.best_of_n_policy(ref, f64(1, 1), 1024)
    close(got.exp().sum(), scalar(1.0), atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 8, 1024])
def test_the_kl_of_best_of_n_is_below_its_bound(n):
    bound = kl.best_of_n_kl_bound(n)
    few = kl.exact_kl(kl.best_of_n_policy(REF_LOGPS_6, REWARDS, n), REF_LOGPS_6)
    assert few.item() <= bound + 1e-12
    many = torch.full((100_000,), -math.log(100_000), dtype=torch.float64)
    rank = torch.arange(100_000, dtype=torch.float64)
    dense = kl.exact_kl(kl.best_of_n_policy(many, rank, n), many)
    assert bound - 0.01 < dense.item() <= bound + 1e-9


def test_the_bound_in_numbers():
    assert kl.best_of_n_kl_bound(1) == 0
    assert kl.best_of_n_kl_bound(4) == pytest.approx(math.log(4) - 0.75, abs=1e-15)
    two = f64(0.5, 0.5).log()  # eight draws of two atoms: far below the bound of 1.204
    got = kl.exact_kl(kl.best_of_n_policy(two, f64(0, 1), 8), two)
    low = 0.5**8
    want = low * math.log(2 * low) + (1 - low) * math.log(2 * (1 - low))
    close(got, scalar(want))


def test_best_of_n_says_what_it_refuses(refuses):
    for n, got in ((0, "0"), (1.5, "1.5"), (True, "True")):
        with refuses(f"n: got {got}, wanted an int of at least 1"):
            kl.best_of_n_policy(REF_LOGPS_6, REWARDS, n)
        with refuses(f"n: got {got}, wanted an int of at least 1"):
            kl.best_of_n_kl_bound(n)
    with refuses("rewards: got shape (2,), wanted shape (6,)"):
        kl.best_of_n_policy(REF_LOGPS_6, f64(1, 2), 2)
    with refuses("ref_logps: got shape (1, 6), wanted shape (6,)"):
        kl.best_of_n_policy(REF_LOGPS_6[None], REWARDS, 2)
    with refuses("rewards: got nan at index (0,), wanted finite numbers"):
        kl.best_of_n_policy(f64(0.0), f64(NAN), 2)
    wanted = "wanted all the completions there are, summing to 1"
    with refuses(f"ref_logps: got probabilities that sum to 2, {wanted}"):
        kl.best_of_n_policy(f64(0, 0), f64(1, 2), 2)


# ---------------------------------------------------------------- AdaptiveKL


def test_the_controller_moves_beta_by_the_clipped_error():
    control = kl.AdaptiveKL(0.2, target=6.0, horizon=100)
    control.update(6.6, 10)  # error 0.1
    assert control.beta == pytest.approx(0.2 * 1.01, abs=1e-15)
    control.update(60.0, 50)  # error 9, clipped to 0.2
    assert control.beta == pytest.approx(0.2 * 1.01 * 1.1, abs=1e-15)
    control.update(-1.0, 50)  # an estimate may be negative; clipped to -0.2
    assert control.beta == pytest.approx(0.2 * 1.01 * 1.1 * 0.9, abs=1e-15)
    control.update(6.0, 100)
    assert control.beta == pytest.approx(0.2 * 1.01 * 1.1 * 0.9, abs=1e-15)
    assert (control.target, control.horizon) == (6.0, 100)


def test_the_controller_brings_a_kl_that_falls_with_beta_to_its_target():
    control = kl.AdaptiveKL(0.05, target=3.0, horizon=20)
    for _ in range(400):
        control.update(1 / control.beta, 1)
    assert 1 / control.beta == pytest.approx(3.0, abs=1e-3)


def test_the_controller_says_what_it_refuses(refuses):
    for name in ("beta", "target", "horizon"):
        for bad in (0, -1.0):
            with refuses(f"{name}: got {bad}, wanted a number above 0"):
                kl.AdaptiveKL(**{"beta": 0.1, "target": 1.0, "horizon": 10, name: bad})
    control = kl.AdaptiveKL(0.1, 1.0, 10)
    with refuses("observed_kl: got nan, wanted a finite number"):
        control.update(NAN, 1)
    with refuses("steps: got 0, wanted a number above 0"):
        control.update(1.0, 0)
    wanted = "wanted fewer than 5 horizons (50), or beta turns negative"
    with refuses(f"steps: got 50, {wanted}"):
        control.update(1.0, 50)
    assert control.beta == 0.1
    control.update(0.0, 49)
    assert control.beta == pytest.approx(0.1 * (1 - 0.2 * 4.9), abs=1e-15)


# ---------------------------------------------------------------- properties

pairs = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        *[st.lists(st.floats(-30, 30), min_size=k, max_size=k) for _ in range(3)]
    )
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(pairs, st.floats(0.05, 10))
def test_any_policy_misses_the_optimum_by_beta_times_its_kl_from_it(drawn, beta):
    logits, ref, rewards = (torch.tensor(x, dtype=torch.float64) for x in drawn)
    logps, ref = logits.log_softmax(0), ref.log_softmax(0)
    assert kl.exact_kl(logps, ref) >= -1e-12
    best = kl.optimal_policy(ref, rewards, beta=beta)
    value = (logps.exp() * rewards).sum() - beta * kl.exact_kl(logps, ref)
    gap = kl.optimal_value(ref, rewards, beta=beta) - value
    assert_close(gap, beta * kl.exact_kl(logps, best), rtol=1e-9, atol=1e-9)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(pairs, st.integers(1, 40))
def test_best_of_n_is_a_distribution_within_the_bound(drawn, n):
    logits, rewards, _ = (torch.tensor(x, dtype=torch.float64) for x in drawn)
    ref = logits.log_softmax(0)
    got = kl.best_of_n_policy(ref, rewards.round(), n)
    close(got.exp().sum(), scalar(1.0))
    assert kl.exact_kl(got, ref).item() <= kl.best_of_n_kl_bound(n) + 1e-9
