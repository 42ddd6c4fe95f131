"""What the estimators push towards, by hand and by sums over every answer."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from labs import kl_estimators
from labs.kl_estimators import as_loss, in_reward, kl_slope, noise, push, slope
from lib.kl import exact_kl, k1, k2, k3, optimal_policy, penalised_rewards
from lib.ops import sequence_logps, token_logps
from lib.train import fit
from lib.worlds import exact

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


# ---------------------------------------------------------------- as a meter


def test_a_meter_by_hand():
    # a coin: π = (¾, ¼), ref = (½, ½): d = log 1.5 and log 0.5
    logps, ref = f64(0.75, 0.25).log(), f64(0.5, 0.5).log()
    up, down = math.log(1.5), math.log(0.5)
    mean, sd, below = kl_estimators.meter(k1, logps, ref)
    assert mean == pytest.approx(0.75 * up + 0.25 * down)
    assert sd == pytest.approx(math.sqrt(0.75 * 0.25) * (up - down))
    assert below == pytest.approx(0.25)
    assert all(type(x) is float for x in (mean, sd, below))


@pytest.mark.parametrize(
    ("shift", "true", "want"),
    [(0.1, 0.005, [(0, 20), (0.0025, 1.42), (0, 1.42)]),
     (1.0, 0.5, [(0, 2), (0.25, 1.73), (0, 1.70)])],
)  # fmt: skip
def test_schulman_s_table(shift, true, want):
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    ref, logps = ((-((x - mean) ** 2) / 2).log_softmax(0) for mean in (0, shift))
    for k, (bias, sd) in zip((k1, k2, k3), want, strict=True):
        mean, deviation, below = kl_estimators.meter(k, logps, ref)
        assert mean / true - 1 == pytest.approx(bias, abs=1e-6)
        assert deviation / true == pytest.approx(sd, rel=0.005)
        assert (below > 0.3) == (k is k1)


# ---------------------------------------------------------------- as a motor


def test_the_six_numbers_by_hand():
    close(in_reward(k1, LOGPS, REF), D)
    close(in_reward(k2, LOGPS, REF), D**2 / 2)
    close(in_reward(k3, LOGPS, REF), (-D).exp() - 1 + D)
    close(as_loss(k1, LOGPS, REF), torch.ones(3, dtype=torch.float64))
    close(as_loss(k2, LOGPS, REF), D)
    close(as_loss(k3, LOGPS, REF), 1 - (-D).exp())


def test_k2_in_the_loss_is_k1_in_the_reward_answer_by_answer():
    assert torch.equal(as_loss(k2, LOGPS, REF), in_reward(k1, LOGPS, REF))


def test_the_numbers_carry_no_gradient_and_ask_for_none():
    leaf = LOGPS.clone().requires_grad_()
    for place in (in_reward, as_loss):
        assert not place(k2, leaf, REF).requires_grad
    assert leaf.grad is None


def test_a_slope_is_the_sum_over_answers():
    weights = f64(1.0, -2.0, 0.5)
    close(slope(weights, LOGPS), by_hand(weights))
    close(slope(weights, LOGPS, REF), by_hand(weights, REF))
    close(slope(weights, LOGPS, law=LOGPS), by_hand(weights))


def test_the_slope_of_the_kl_is_that_of_automatic_differentiation(grad_of):
    (want,) = grad_of(lambda logits: exact_kl(logits, REF), LOGPS)
    close(kl_slope(LOGPS, REF), want)
    close(kl_slope(LOGPS, REF), by_hand(D))
    close(kl_slope(LOGPS, LOGPS), f64(0, 0, 0))


def test_a_sampled_slope_is_the_mean_over_its_answers(seeded):
    weights = f64(1.0, -2.0, 0.5)
    got = kl_estimators.sampled_slope(weights, LOGPS, batch=1, generator=seeded(0))
    assert any(torch.allclose(got, weights[y] * SCORES[y]) for y in range(3))
    many = kl_estimators.sampled_slope(
        weights, LOGPS, batch=200_000, generator=seeded(0)
    )
    assert (many - slope(weights, LOGPS)).abs().max() < 0.01
    same = kl_estimators.sampled_slope(weights, LOGPS, batch=1, generator=seeded(0))
    assert torch.equal(got, same)


def test_the_noise_is_the_spread_of_one_answer_s_gradient():
    weights = f64(1.0, -2.0, 0.5)
    each = weights[:, None] * SCORES  # (y, logit)
    mean = LOGPS.exp() @ each
    variance = (LOGPS.exp() * (each - mean).square().sum(1)).sum()
    assert noise(weights, LOGPS) == pytest.approx(variance.sqrt().item())
    assert noise(f64(0, 0, 0), LOGPS) == 0
    sure = f64(1.0, 0.0, 0.0).log()
    assert noise(f64(3, 1, 1), sure) == 0  # it always says the same


@pytest.mark.parametrize("seed", range(5))
def test_expected_pushes(seed, seeded):
    logps, ref = torch.randn(
        2, 6, dtype=torch.float64, generator=seeded(seed)
    ).log_softmax(1)
    one = pytest.approx(1, abs=1e-12)
    assert push(k1, as_loss, logps, ref)[:3] == (0, 0, 0)
    assert push(k1, as_loss, logps, ref)[3] > 0.1  # nothing but noise
    assert push(k1, in_reward, logps, ref)[:2] == (one, one)
    assert push(k2, as_loss, logps, ref) == push(k1, in_reward, logps, ref)
    length, reverse, forward, _ = push(k3, as_loss, logps, ref)
    assert forward == one and reverse < 1 - 1e-6
    other = (logps.exp() - ref.exp()).norm() / kl_slope(logps, ref).norm()
    assert length == pytest.approx(other.item())
    for k in (k2, k3):  # neither
        _, reverse, forward, _ = push(k, in_reward, logps, ref)
        assert max(reverse, forward) < 1 - 1e-4


def test_a_push_is_measured_in_units_of_the_true_gradient():
    length, reverse, forward, loud = push(k2, in_reward, LOGPS, REF)
    true, got = kl_slope(LOGPS, REF), slope(D**2 / 2, LOGPS)
    other = LOGPS.exp() - REF.exp()
    assert length == pytest.approx((got.norm() / true.norm()).item())
    assert reverse == pytest.approx((got @ true / got.norm() / true.norm()).item())
    assert forward == pytest.approx((got @ other / got.norm() / other.norm()).item())
    assert loud == pytest.approx(noise(D**2 / 2, LOGPS) / true.norm().item())
    assert all(type(x) is float for x in (length, reverse, forward, loud))


# ---------------------------------------------------------------- off-policy

OLD = f64(0.4, 0.4, 0.2).log()


def test_penalties_by_hand():
    got = kl_estimators.penalties(LOGPS, OLD, REF)
    ratio = (LOGPS - OLD).exp()
    want = {
        "reward: ratio · d_old": by_hand(ratio * (OLD - REF), OLD),
        "loss: k2": by_hand(D, OLD),
        "loss: k3": by_hand(1 - (-D).exp(), OLD),
        "loss: ratio · k2": by_hand(ratio * D, OLD),
    }
    assert list(got) == list(want)
    for name, value in want.items():
        close(got[name], value)
    close(got["loss: ratio · k2"], kl_slope(LOGPS, REF))


def test_on_policy_reward_and_k2_agree_and_stale_they_part():
    errors = kl_estimators.staleness(torch.stack([OLD, LOGPS]), REF)
    reward, plain, third, repaired = errors.values()
    assert max(reward[0], plain[0], *repaired) < 1e-12
    assert third[0] > 0.05
    true, got = kl_slope(LOGPS, REF), kl_estimators.penalties(LOGPS, OLD, REF)
    for name, both in errors.items():
        want = (got[name] - true).norm() / true.norm()
        assert both[1] == pytest.approx(want.item()) and len(both) == 2
        assert all(type(x) is float for x in both)
    assert abs(reward[1] - plain[1]) > 0.01


def test_descending_moves_the_logits_against_the_direction():
    path = kl_estimators.descend(LOGPS, lambda now: kl_slope(now, REF), steps=2, lr=0.3)
    close(path[0], LOGPS.exp())
    close(path[1], (LOGPS - 0.3 * kl_slope(LOGPS, REF)).softmax(0))
    after = path[1].log()
    close(path[2], (after - 0.3 * kl_slope(after, REF)).softmax(0))
    loose = kl_estimators.descend(
        LOGPS + 3, lambda now: kl_slope(now, REF), steps=2, lr=0.3
    )
    close(loose, path)  # any logits will do
    default = kl_estimators.descend(LOGPS, lambda now: kl_slope(now, REF), steps=1)
    close(default[1], (LOGPS - 0.1 * kl_slope(LOGPS, REF)).softmax(0))


def test_descending_takes_at_least_a_step(refuses):
    with refuses("steps: got 0, wanted an int of at least 1"):
        kl_estimators.descend(LOGPS, lambda now: now, steps=0)


# ---------------------------------------------------------------- which way round


def test_hills_are_every_centre_with_every_width():
    x = torch.arange(5).double()
    family = kl_estimators.hills(x, f64(1, 3), f64(0.5, 2))
    assert family.shape == (4, 5)
    close(family.exp().sum(1), torch.ones(4, dtype=torch.float64))
    for row, (centre, width) in zip(family, [(1, 0.5), (1, 2), (3, 0.5), (3, 2)]):
        close(row, (-((x - centre) ** 2) / (2 * width**2)).log_softmax(0))


def test_two_hills_of_width_three_the_left_one_higher():
    x = torch.arange(61).double()
    apart = kl_estimators.two_hills(x, 32.0)
    close(apart.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert apart[14] - apart[46] == pytest.approx(0.2, abs=1e-6)
    assert apart[14] - apart[17] == pytest.approx(0.5, abs=1e-6)  # 3²/(2·3²)
    assert apart.argmax() == 14
    together = kl_estimators.two_hills(x, 0.0)
    close(together, kl_estimators.hills(x, f64(30), f64(3))[0])


def test_the_nearest_both_ways_round():
    target = f64(0.49, 0.02, 0.49).log()
    family = f64([0.9, 0.05, 0.05], [0.33, 0.34, 0.33], [0.05, 0.9, 0.05]).log()
    reverse, forward = kl_estimators.nearest(target, family)
    close(forward, family[1])  # it must be able to say both
    close(reverse, family[0])  # it must say nothing that is unwanted
    brute = [(p.exp() * (p - target)).sum().item() for p in family]
    assert brute.index(min(brute)) == 0


# ---------------------------------------------------------------- many tokens


def test_texts_are_all_strings_and_the_good_begin_with_1():
    rows, good = kl_estimators.texts(3)
    assert len(rows) == 15 and good.dtype == torch.float64
    assert torch.equal(good == 1, rows.actions[:, 0] == 1) and good.sum() == 7
    assert rows.logps[rows.mask].tolist() == pytest.approx([-math.log(3)] * 41)
    whole = sequence_logps(rows.logps, rows.mask)
    close(whole.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert not rows.logps.requires_grad


def scattered(seed, length=4):
    policy = exact.PrefixTable(3, length)
    draw = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(policy.logits, generator=draw)
    return policy


@pytest.mark.parametrize("average", [False, True])
def test_the_token_loss_is_the_expected_policy_gradient(average):
    rows, good = kl_estimators.texts(4)
    policy = scattered(0)
    logps = token_logps(policy(rows.states), rows.actions).detach()
    whole = exact.completion_logps(policy, rows)
    paid = []
    for k in range(len(rows)):
        d = (logps - rows.logps)[k][rows.mask[k]]
        paid.append(good[k] - 0.5 * (d.mean() if average else d.sum()))
    want = exact.gradient(
        exact.expected(torch.stack(paid) * whole, whole.detach()), policy
    )
    loss, metrics = kl_estimators.token_loss(
        policy, rows, good, beta=0.5, average=average
    )
    close(exact.gradient(loss, policy), -want)
    assert metrics == {}


@pytest.mark.parametrize("seed", range(5))
def test_token_pushes(seed):
    rows, _ = kl_estimators.texts(4)
    policy = scattered(seed)
    got = kl_estimators.token_pushes(policy, rows)
    whole, ref = (
        exact.completion_logps(policy, rows),
        sequence_logps(rows.logps, rows.mask),
    )
    close(got["true"], exact.gradient(exact_kl(whole, ref), policy))
    close(got["k1 in the reward, to go"], got["true"])
    close(got["k2 of the answer in the loss"], got["true"])
    logps = token_logps(policy(rows.states), rows.actions)
    half = ((logps - rows.logps) ** 2 / 2).masked_fill(~rows.mask, 0).sum(1)
    want = exact.gradient(exact.expected(half, whole.detach()), policy)
    close(got["k2 per token in the loss"], want)
    off = (want - got["true"]).norm() / got["true"].norm()
    assert off > 0.1


def test_the_last_token_leads_nowhere_and_its_own_k2_is_right():
    rows, _ = kl_estimators.texts(1)
    got = kl_estimators.token_pushes(scattered(0, 1), rows)
    close(got["k2 per token in the loss"], got["true"])


def test_a_penalised_row_sums_to_its_score_less_the_answer_s_k1():
    rows, good = kl_estimators.texts(4)
    logps = token_logps(scattered(0)(rows.states), rows.actions).detach()
    paid = penalised_rewards(good, logps, rows.logps, rows.mask, beta=0.5)
    d = sequence_logps(logps, rows.mask) - sequence_logps(rows.logps, rows.mask)
    close(paid.sum(1), good - 0.5 * d)


TOKENS = f64([0.7, 0.2, 0.1], [0.4, 0.3, 0.3]).log()


def test_estimates_have_the_kl_as_their_mean(seeded):
    got = kl_estimators.estimates(
        *TOKENS, tokens=3, answers=50, repeats=400, generator=seeded(0)
    )
    true = 3 * exact_kl(*TOKENS)
    assert list(got) == ["k1", "k3 per token", "k3 per answer"]
    for each in got.values():
        assert each.shape == (400,)
        error = each.std() / 20  # of the mean of 400
        assert (each.mean() - true).abs() < 4 * error < 0.05
    assert got["k1"].std() > 2 * got["k3 per token"].std()


def test_one_estimate_by_hand(seeded):
    sure = f64(1.0, 0.0).log(), f64(0.5, 0.5).log()  # always token 0, d = log 2
    got = kl_estimators.estimates(
        *sure, tokens=2, answers=3, repeats=4, generator=seeded(0)
    )
    d = math.log(2)
    assert got["k1"].tolist() == pytest.approx([2 * d] * 4)
    assert got["k3 per token"].tolist() == pytest.approx([2 * (0.5 - 1 + d)] * 4)
    assert got["k3 per answer"].tolist() == pytest.approx([0.25 - 1 + 2 * d] * 4)


def test_of_one_token_both_k3_are_one(seeded):
    got = kl_estimators.estimates(
        *TOKENS, tokens=1, answers=5, repeats=6, generator=seeded(0)
    )
    close(got["k3 per token"], got["k3 per answer"])
    assert len(got["k1"].unique()) > 1


def test_the_sum_reaches_the_optimum_and_the_mean_a_longer_one():
    rows, good = kl_estimators.texts(4)
    whole_ref = sequence_logps(rows.logps, rows.mask)
    beta, ends = 0.5, []
    for average in (False, True):
        policy = exact.PrefixTable(3, 4)
        loss = partial(
            kl_estimators.token_loss, rewards=good, beta=beta, average=average
        )
        fit(policy, [rows] * 300, loss, lr=lambda update: 0.2 * (1 - update / 300))
        ends.append(exact.completion_logps(policy, rows).detach())
    assert exact_kl(ends[0], optimal_policy(whole_ref, good, beta=beta)).item() < 1e-6
    # the mean stands still where every answer is paid the same after r - beta · d / |y|
    paid = good - beta * (ends[1] - whole_ref) / rows.lengths
    assert paid.max() - paid.min() < 0.01 < whole_ref.std()
    lengths = [exact.expected(rows.lengths.double(), end).item() for end in ends]
    assert lengths[1] > lengths[0] + 0.2
