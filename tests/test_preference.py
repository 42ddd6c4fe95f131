"""Direct alignment: values and gradients by hand, and the optimum by enumeration."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lib.kl import optimal_policy
from lib.losses import preference
from lib.losses.pairs import log_ratio
from lib.losses.preference import dpo

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
NAN, INF = math.nan, math.inf


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


def scalar(x):
    """A float64 tensor without axes."""
    return torch.tensor(x, dtype=torch.float64)


# log-ratios: chosen 2, -1, 1; rejected -1, 1, 1; so h = 3, -2, 0
CHOSEN, REJECTED = f64(-1, -4, -2), f64(-6, -2, -3)
REF_CHOSEN, REF_REJECTED = f64(-3, -3, -3), f64(-5, -3, -4)
PAIRS = CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED


def test_dpo_by_hand():
    loss, metrics = dpo(*PAIRS, beta=0.5)
    # softplus(-1.5) = 0.2014132779827524, softplus(1) = 1.3132616875182228, log 2
    want = (0.2014132779827524 + 1.3132616875182228 + math.log(2)) / 3
    close(loss, scalar(want))
    assert metrics == pytest.approx({
        "accuracy": 1 / 3,  # the tie counts as wrong
        "chosen_reward": 0.5 * (2 - 1 + 1) / 3,
        "rejected_reward": 0.5 * (-1 + 1 + 1) / 3,
        "margin": 0.5 * (3 - 2 + 0) / 3,
    })  # fmt: skip
    assert all(type(value) is float for value in metrics.values())


def test_the_default_beta_is_a_tenth():
    assert torch.equal(dpo(*PAIRS)[0], dpo(*PAIRS, beta=0.1)[0])


def test_at_the_reference_the_loss_is_log_2_and_the_chosen_are_pushed_up():
    chosen = f64(-1, -2).requires_grad_()
    rejected = f64(-3, -1).requires_grad_()
    loss, metrics = dpo(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.3)
    close(loss.detach(), scalar(math.log(2)))
    assert metrics["accuracy"] == metrics["margin"] == 0
    up, down = torch.autograd.grad(loss, (chosen, rejected))
    close(up, f64(-0.075, -0.075))  # -beta · σ(0) / B
    close(down, f64(0.075, 0.075))


def test_the_gradient_is_the_chance_of_the_other_answer():
    chosen, rejected = (
        CHOSEN.clone().requires_grad_(),
        REJECTED.clone().requires_grad_(),
    )
    loss, _ = dpo(chosen, rejected, REF_CHOSEN, REF_REJECTED, beta=0.5)
    up, down = torch.autograd.grad(loss, (chosen, rejected))
    close(up, -0.5 / 3 * torch.sigmoid(-0.5 * f64(3, -2, 0)))
    close(down, -up)


def test_the_reference_carries_no_gradient(grad_of):
    slopes = grad_of(lambda *pairs: dpo(*pairs)[0], *PAIRS)
    assert (slopes[0] != 0).all() and (slopes[1] != 0).all()
    assert (slopes[2] == 0).all() and (slopes[3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_margins_of_thousands_stay_finite(dtype, grad_of):
    far = torch.tensor([-8000.0, 8000.0], dtype=dtype)
    zero = torch.zeros_like(far)
    loss, _ = dpo(far, zero, zero, zero, beta=0.1)
    assert_close(loss, torch.tensor(400.0, dtype=dtype))  # (800 + 0) / 2
    (slope,) = grad_of(lambda x: dpo(x, zero, zero, zero)[0], far)
    assert_close(slope, torch.tensor([-0.05, 0.0], dtype=dtype))


def test_identical_pairs_say_nothing(grad_of):
    shared = f64(-1, -2)
    loss, metrics = dpo(shared, shared, REF_CHOSEN[:2], REF_CHOSEN[:2])
    close(loss, scalar(math.log(2)))
    assert metrics["accuracy"] == 0
    (slope,) = grad_of(lambda x: dpo(x, x, REF_CHOSEN[:2], REF_CHOSEN[:2])[0], shared)
    close(slope, f64(0, 0))


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_the_optimum_of_the_regularised_objective_has_no_gradient(beta, seeded):
    draw = seeded(1)
    ref = torch.randn(5, dtype=torch.float64, generator=draw).log_softmax(0)
    rewards = torch.randn(5, dtype=torch.float64, generator=draw)
    logits = optimal_policy(ref, rewards, beta=beta).requires_grad_()
    i, j = (
        side.flatten() for side in torch.meshgrid(*[torch.arange(5)] * 2, indexing="ij")
    )
    first = torch.sigmoid(rewards[i] - rewards[j])  # Bradley–Terry
    logps = logits.log_softmax(0)
    each = [
        p * dpo(*(x[None] for x in (logps[a], logps[b], ref[a], ref[b])), beta=beta)[0]
        for a, b, p in zip(i, j, first, strict=True)
    ]
    (slope,) = torch.autograd.grad(torch.stack(each).sum(), logits)
    assert slope.abs().max() < 1e-12


def test_the_log_ratio_sends_its_gradient_to_the_policy_alone(grad_of):
    close(log_ratio("chosen", CHOSEN, REF_CHOSEN), f64(2, -1, 1))
    slopes = grad_of(lambda a, b: log_ratio("chosen", a, b), CHOSEN, REF_CHOSEN)
    close(slopes[0], f64(1, 1, 1))
    close(slopes[1], f64(0, 0, 0))


def test_dpo_says_what_it_refuses(refuses):
    for beta in (0, -0.1):
        with refuses(f"beta: got {beta}, wanted a number above 0"):
            dpo(*PAIRS, beta=beta)
    with refuses("beta: got nan, wanted a finite number"):
        dpo(*PAIRS, beta=NAN)
    wanted = "wanted shape (B,), not empty: sum over tokens first"
    empty = f64()
    with refuses(f"chosen_logps: got shape (0,), {wanted}"):
        dpo(empty, empty, empty, empty)
    with refuses(f"chosen_logps: got shape (1, 3), {wanted}"):
        dpo(*[side[None] for side in PAIRS])
    with refuses("ref_chosen_logps: got shape (2,), wanted shape (3,)"):
        dpo(CHOSEN, REJECTED, REF_CHOSEN[:2], REF_REJECTED)
    with refuses("rejected_logps: got shape (2,), wanted shape (3,)"):
        dpo(CHOSEN, REJECTED[:2], REF_CHOSEN, REF_REJECTED[:2])
    with refuses("ref_rejected_logps: got shape (2,), wanted shape (3,)"):
        dpo(CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED[:2])
    with refuses("chosen_logps: got list, wanted a Tensor"):
        dpo([1.0], REJECTED, REF_CHOSEN, REF_REJECTED)
    names = ("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
    for place, name in enumerate(names):
        for bad in (NAN, INF, -INF):
            sides = [side.clone() for side in PAIRS]
            sides[place][1] = bad
            with refuses(f"{name}: got {bad} at index (1,), wanted finite numbers"):
                dpo(*sides)


numbers = st.floats(-50, 50)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    rows=st.lists(
        st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=6
    ),
    beta=st.floats(1e-3, 5),
    shift=numbers,
)
def test_the_loss_is_not_negative_and_blind_to_a_constant_per_pair(rows, beta, shift):
    sides = f64(*rows).T  # (4, B)
    loss, metrics = dpo(*sides, beta=beta)
    assert loss >= 0 and loss.isfinite()
    assert 0 <= metrics["accuracy"] <= 1
    moved, _ = dpo(sides[0] + shift, sides[1] + shift, *sides[2:], beta=beta)
    assert_close(moved, loss, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- the relatives

H = (
    3.0,
    -2.0,
    0.0,
)  # of PAIRS; log-ratios of the chosen 2, -1, 1, of the rejected -1, 1, 1
R_W, R_L = (2.0, -1.0, 1.0), (-1.0, 1.0, 1.0)


def sigma(x):
    return 1 / (1 + math.exp(-x))


def nll(x):
    return -math.log(sigma(x))


BY_HAND = {
    "dpo": lambda b, h, w, lost: nll(b * h),
    "cdpo": lambda b, h, w, lost: 0.9 * nll(b * h) + 0.1 * nll(-b * h),
    "robust_dpo": lambda b, h, w, lost: (0.9 * nll(b * h) - 0.1 * nll(-b * h)) / 0.8,
    "ipo": lambda b, h, w, lost: (h - 1 / (2 * b)) ** 2,
    "slic_hinge": lambda b, h, w, lost: max(0, 1 - b * h),
    "apo_zero": lambda b, h, w, lost: 1 - sigma(b * w) + sigma(b * lost),
    "apo_down": lambda b, h, w, lost: sigma(b * w) + 1 - sigma(b * h),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("beta", [None, 0.5, 2.0])
def test_every_loss_on_pairs_by_its_formula(name, beta):
    knobs = {} if beta is None else {"beta": beta}
    b = 0.1 if beta is None else beta
    loss, metrics = getattr(preference, name)(*PAIRS, **knobs)
    each = [BY_HAND[name](b, *row) for row in zip(H, R_W, R_L, strict=True)]
    close(loss, scalar(sum(each) / 3))
    assert metrics == pytest.approx({
        "accuracy": 1 / 3,
        "chosen_reward": b * sum(R_W) / 3,
        "rejected_reward": b * sum(R_L) / 3,
        "margin": b * sum(H) / 3,
    })  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_every_gradient_by_finite_differences_and_only_to_the_policy(name, grad_of):
    loss = getattr(preference, name)
    slopes = grad_of(lambda *pairs: loss(*pairs, beta=0.7)[0], *PAIRS)
    assert (slopes[2] == 0).all() and (slopes[3] == 0).all()
    step = 1e-6
    for side in (0, 1):
        for i in range(3):
            moved = []
            for sign in (1, -1):
                pairs = [x.clone() for x in PAIRS]
                pairs[side][i] += sign * step
                moved.append(loss(*pairs, beta=0.7)[0].item())
            want = (moved[0] - moved[1]) / (2 * step)
            assert slopes[side][i].item() == pytest.approx(want, abs=1e-7)


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_loss_is_finite_at_margins_of_thousands(name, dtype, grad_of):
    far = torch.tensor([-8000.0, 8000.0], dtype=dtype)
    zero = torch.zeros_like(far)
    loss = getattr(preference, name)
    value, _ = loss(far, zero, zero, zero)
    assert value.isfinite() and value.dtype == dtype
    (slope,) = grad_of(lambda x: loss(x, zero, zero, zero)[0], far)
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", BY_HAND)
def test_no_loss_takes_a_beta_of_0_or_pairs_that_do_not_fit(name, refuses):
    loss = getattr(preference, name)
    with refuses("beta: got 0, wanted a number above 0"):
        loss(*PAIRS, beta=0)
    with refuses("rejected_logps: got shape (2,), wanted shape (3,)"):
        loss(CHOSEN, REJECTED[:2], REF_CHOSEN, REF_REJECTED[:2])
    with refuses("ref_rejected_logps: got nan at index (1,), wanted finite numbers"):
        loss(CHOSEN, REJECTED, REF_CHOSEN, f64(1, NAN, 2))


@pytest.mark.parametrize("name", ["cdpo", "robust_dpo"])
def test_a_share_of_wrong_labels_is_less_than_a_half(name, refuses):
    loss = getattr(preference, name)
    wanted = "wanted less than 0.5: half of the labels wrong say nothing"
    with refuses(f"label_smoothing: got 0.5, {wanted}"):
        loss(*PAIRS, label_smoothing=0.5)
    with refuses("label_smoothing: got -0.1, wanted a number of at least 0"):
        loss(*PAIRS, label_smoothing=-0.1)
    close(loss(*PAIRS, label_smoothing=0)[0], dpo(*PAIRS)[0])
    assert torch.equal(loss(*PAIRS)[0], loss(*PAIRS, label_smoothing=0.1)[0])


def test_conservative_dpo_is_least_where_the_model_doubts_as_much_as_the_labels():
    def slope(margin):
        x = scalar(margin).requires_grad_()
        zero = f64(0)
        loss, _ = preference.cdpo(
            x[None], zero, zero, zero, beta=1, label_smoothing=0.2
        )
        return torch.autograd.grad(loss, x)[0].item()

    assert slope(math.log(0.8 / 0.2)) == pytest.approx(0, abs=1e-12)
    assert slope(1.0) < 0 < slope(2.0)


def test_robust_dpo_undoes_flipped_labels_in_the_mean():
    wrong = 0.3
    flipped = (REJECTED, CHOSEN, REF_REJECTED, REF_CHOSEN)
    right, swapped = (
        preference.robust_dpo(*pairs, beta=0.5, label_smoothing=wrong)[0]
        for pairs in (PAIRS, flipped)
    )
    close((1 - wrong) * right + wrong * swapped, dpo(*PAIRS, beta=0.5)[0])


def test_ipo_is_least_at_a_margin_of_half_over_beta():
    zero = f64(0)
    assert preference.ipo(f64(5), zero, zero, zero, beta=0.1)[0] == 0
    assert preference.ipo(f64(7), zero, zero, zero, beta=0.1)[0] == pytest.approx(4)


# ---------------------------------------------------------------- without a reference

MEAN_W, MEAN_L = f64(-0.5, -1.2, -2.0), f64(-1.5, -0.7, -2.0)


def test_simpo_by_hand():
    loss, metrics = preference.simpo(MEAN_W, MEAN_L, beta=3, gamma=0.4)
    want = (nll(3 - 0.4) + nll(-1.5 - 0.4) + nll(-0.4)) / 3
    close(loss, scalar(want))
    assert metrics == pytest.approx({
        "accuracy": 1 / 3,
        "chosen_reward": -3.7,
        "rejected_reward": -4.2,
        "margin": 0.5,
    })  # fmt: skip
    default = preference.simpo(MEAN_W, MEAN_L)[0]
    assert torch.equal(default, preference.simpo(MEAN_W, MEAN_L, beta=2, gamma=0.5)[0])
    close(
        preference.simpo(MEAN_W, MEAN_L, gamma=0)[0],
        scalar((nll(2) + nll(-1) + nll(0)) / 3),
    )


def test_orpo_by_hand(grad_of):
    def odds(logp):
        return math.exp(logp) / (1 - math.exp(logp))

    want = 0.0
    for w, lost in zip(MEAN_W.tolist(), MEAN_L.tolist(), strict=True):
        want += -w + 0.3 * nll(math.log(odds(w) / odds(lost)))
    loss, metrics = preference.orpo(MEAN_W, MEAN_L, weight=0.3)
    close(loss, scalar(want / 3))
    assert metrics == pytest.approx({
        "accuracy": 1 / 3,
        "chosen_reward": -0.37,
        "rejected_reward": -0.42,
        "margin": 0.05,
    })  # fmt: skip
    assert torch.equal(
        preference.orpo(MEAN_W, MEAN_L)[0],
        preference.orpo(MEAN_W, MEAN_L, weight=0.1)[0],
    )
    up, down = grad_of(lambda *x: preference.orpo(*x, weight=0.3)[0], MEAN_W, MEAN_L)
    p, q = MEAN_W.exp(), MEAN_L.exp()
    miss = 1 / (1 + p / (1 - p) * (1 - q) / q)  # σ of minus the log-odds ratio
    close(up, -(1 + 0.3 * miss / (1 - p)) / 3)
    close(down, 0.3 * miss / (1 - q) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orpo_is_finite_where_a_completion_is_certain_or_impossible(dtype, grad_of):
    edge = torch.tensor([0.0, -1e-30, -1e-9, -1e-3, -700.0], dtype=dtype)
    for won in edge:
        for lost in edge:
            sides = won[None], lost[None]
            assert preference.orpo(*sides)[0].isfinite()
            for slope in grad_of(lambda *x: preference.orpo(*x)[0], *sides):
                assert slope.isfinite().all()


def test_where_the_chosen_is_certain_orpos_gradient_is_its_limit(grad_of):
    # d/dw = -1 - weight · odds(lost) / p, as p -> 1
    odds = math.exp(-1) / (1 - math.exp(-1))
    near = f64(-1e-9)
    (up, _) = grad_of(lambda *x: preference.orpo(*x, weight=0.5)[0], near, f64(-1))
    assert up.item() == pytest.approx(-1 - 0.5 * odds, rel=1e-6)


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_losses_without_a_reference_refuse_what_is_no_pair_of_means(name, refuses):
    loss = getattr(preference, name)
    with refuses("chosen_logps: got 0.5, wanted log-probabilities, at most 0"):
        loss(f64(-1, 0.5), f64(-1, -1))
    with refuses("rejected_logps: got 2, wanted log-probabilities, at most 0"):
        loss(f64(-1, -1), f64(2, -1))
    assert loss(f64(5e-5), f64(-1))[0].isfinite()  # a rounding error
    with refuses("rejected_logps: got shape (1,), wanted shape (2,)"):
        loss(f64(-1, -1), f64(-1))
    wanted = "shape (B,), not empty: mean over tokens first"
    with refuses(f"chosen_logps: got shape (1, 2), wanted {wanted}"):
        loss(f64([-1, -1]), f64([-1, -1]))
    with refuses(f"chosen_logps: got shape (0,), wanted {wanted}"):
        loss(f64(), f64())
    with refuses("rejected_logps: got -inf at index (0,), wanted finite numbers"):
        loss(f64(-1), f64(-INF))


def test_knobs_without_sense_are_refused(refuses):
    with refuses("beta: got 0, wanted a number above 0"):
        preference.simpo(MEAN_W, MEAN_L, beta=0)
    with refuses("gamma: got -1, wanted a number of at least 0"):
        preference.simpo(MEAN_W, MEAN_L, gamma=-1)
    with refuses("weight: got 0, wanted a number above 0"):
        preference.orpo(MEAN_W, MEAN_L, weight=0)


# ---------------------------------------------------------------- kto

LOGPS, REF = f64(-1, -4, -2, -3), f64(-3, -3, -2.5, -1)  # r = 2, -1, 0.5, -2
GOOD = torch.tensor([True, True, False, False])


def test_kto_by_hand():
    loss, metrics = preference.kto(LOGPS, REF, GOOD, 0.3, beta=0.5)
    z = 0.3
    each = [
        1 - sigma(0.5 * (2 - z)),
        1 - sigma(0.5 * (-1 - z)),
        1 - sigma(0.5 * (z - 0.5)),
        1 - sigma(0.5 * (z + 2)),
    ]
    close(loss, scalar(sum(each) / 4))
    assert metrics == pytest.approx({
        "accuracy": 0.5,  # 2 above z, -2 below it
        "chosen_reward": 0.25,
        "rejected_reward": -0.375,
        "margin": 0.625,
    })  # fmt: skip
    knobs = {"weight_desirable": 0.3, "weight_undesirable": 1.7}
    weighed = 0.3 * (each[0] + each[1]) + 1.7 * (each[2] + each[3])
    close(
        preference.kto(LOGPS, REF, GOOD, 0.3, beta=0.5, **knobs)[0], scalar(weighed / 4)
    )
    defaults = {"beta": 0.1, "weight_desirable": 1.0, "weight_undesirable": 1.0}
    plain = preference.kto(LOGPS, REF, GOOD, 0.3)[0]
    assert torch.equal(plain, preference.kto(LOGPS, REF, GOOD, 0.3, **defaults)[0])


def test_kto_takes_its_level_from_mismatched_pairs_never_below_0_without_gradient():
    below = preference.kto(LOGPS, REF, GOOD, -5.0)[0]
    assert torch.equal(below, preference.kto(LOGPS, REF, GOOD, 0)[0])
    level = scalar(0.3).requires_grad_()
    logps = LOGPS.clone().requires_grad_()
    ref = REF.clone().requires_grad_()
    loss, _ = preference.kto(logps, ref, GOOD, level, beta=0.5)
    assert torch.equal(
        loss.detach(), preference.kto(LOGPS, REF, GOOD, 0.3, beta=0.5)[0]
    )
    loss.backward()
    assert level.grad is None and ref.grad is None
    s = [sigma(0.5 * x) for x in (2 - 0.3, -1 - 0.3, 0.3 - 0.5, 0.3 + 2)]
    want = [0.5 * x * (1 - x) / 4 for x in s]
    close(logps.grad, f64(-want[0], -want[1], want[2], want[3]))


def test_kto_tells_nothing_of_rows_that_are_not_there():
    _, metrics = preference.kto(LOGPS[:2], REF[:2], GOOD[:2], 0.3, beta=0.5)
    assert metrics == pytest.approx({"accuracy": 0.5, "chosen_reward": 0.25})
    _, metrics = preference.kto(LOGPS[2:], REF[2:], GOOD[2:], 0.3, beta=0.5)
    assert metrics == pytest.approx({"accuracy": 0.5, "rejected_reward": -0.375})
    above = preference.kto(f64(1), f64(0.75), torch.tensor([True]), 0.2)[1]
    assert above["accuracy"] == 1
    assert (
        preference.kto(f64(1), f64(0.5), torch.tensor([True]), 0.5)[1]["accuracy"] == 0
    )
    assert (
        preference.kto(f64(1), f64(0.5), torch.tensor([False]), 0.5)[1]["accuracy"] == 0
    )


def test_kto_stays_finite_far_away(grad_of):
    far, zero = f64(-8000, 8000, -8000, 8000), torch.zeros(4).double()
    loss, _ = preference.kto(far, zero, GOOD, 0)
    close(loss, scalar(0.5))
    (slope,) = grad_of(lambda x: preference.kto(x, zero, GOOD, 0)[0], far)
    assert slope.isfinite().all()


def test_kto_refuses_what_makes_no_sense(refuses):
    with refuses("desirable: got torch.int64, wanted torch.bool"):
        preference.kto(LOGPS, REF, GOOD.long(), 0)
    with refuses("desirable: got shape (3,), wanted shape (4,)"):
        preference.kto(LOGPS, REF, GOOD[:3], 0)
    with refuses("kl: got nan at index (), wanted finite numbers"):
        preference.kto(LOGPS, REF, GOOD, NAN)
    with refuses("kl: got shape (2,), wanted shape ()"):
        preference.kto(LOGPS, REF, GOOD, f64(1, 2))
    with refuses("ref_logps: got shape (3,), wanted shape (4,)"):
        preference.kto(LOGPS, REF[:3], GOOD, 0)
    with refuses("logps: got inf at index (0,), wanted finite numbers"):
        preference.kto(f64(INF, 0, 0, 0), REF, GOOD, 0)
    with refuses("beta: got 0, wanted a number above 0"):
        preference.kto(LOGPS, REF, GOOD, 0, beta=0)
    for knob in ("weight_desirable", "weight_undesirable"):
        with refuses(f"{knob}: got -1, wanted a number of at least 0"):
            preference.kto(LOGPS, REF, GOOD, 0, **{knob: -1})
        assert preference.kto(LOGPS, REF, GOOD, 0, **{knob: 0})[0].isfinite()


# ---------------------------------------------------------------- by enumeration


def test_with_all_pairs_dpos_relatives_order_answers_as_their_reward_does(seeded):
    """Trained on Bradley–Terry labels of every pair, log-ratios rise with the reward."""
    rewards = torch.tensor([0.0, 0.4, 0.9, 1.5], dtype=torch.float64)
    ref = torch.randn(4, dtype=torch.float64, generator=seeded(3)).log_softmax(0)
    i, j = (x.flatten() for x in torch.meshgrid(*[torch.arange(4)] * 2, indexing="ij"))
    i, j = i[i != j], j[i != j]
    chance = torch.sigmoid(2 * (rewards[i] - rewards[j]))
    for name in ("cdpo", "robust_dpo", "ipo", "slic_hinge"):
        loss = getattr(preference, name)
        logits = ref.clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.1)
        for _ in range(60):
            logps = logits.log_softmax(0)
            each = [
                p * loss(logps[a : a + 1], logps[b : b + 1], ref[a : a + 1], ref[b : b + 1],
                         beta=0.5)[0]
                for a, b, p in zip(i, j, chance, strict=True)
            ]  # fmt: skip
            optimiser.zero_grad()
            torch.stack(each).sum().backward()
            optimiser.step()
        gained = logits.detach().log_softmax(0) - ref
        assert (gained.diff() > 0).all(), name


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("name", BY_HAND)
def test_a_loss_on_pairs_waits_for_the_device_twice(name, syncs):
    """Once to see that all is well, once for the metrics."""
    assert syncs(lambda: getattr(preference, name)(*PAIRS)) == 2


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_a_loss_without_a_reference_waits_for_the_device_three_times(name, syncs):
    assert syncs(lambda: getattr(preference, name)(CHOSEN, REJECTED)) == 3
