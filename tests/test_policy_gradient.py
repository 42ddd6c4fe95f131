"""Policy-gradient losses: values and gradients by hand, and what must carry no gradient."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lib.losses import policy_gradient as pg
from lib.losses.policy_gradient import clipped_value, ppo_clip, reinforce
from lib.ops import token_logps
from lib.worlds import exact

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
T, F = True, False
NAN = math.nan
MASK = torch.tensor([[T, T, T, F], [T, F, F, F]])


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


def scalar(x):
    """A float64 tensor without axes."""
    return torch.tensor(x, dtype=torch.float64)


def slope(loss, x):
    """d loss(x) / dx."""
    x = x.detach().clone().requires_grad_()
    value, _ = loss(x)
    return torch.autograd.grad(value, x)[0]


# ---------------------------------------------------------------- reinforce

LOGPS = f64([-1, -2, -3, NAN], [-4, NAN, NAN, NAN])
ADVANTAGES = f64([1, -1, 2, NAN], [0.5, NAN, NAN, NAN])


def test_reinforce_on_hand_worked_numbers():
    loss, metrics = reinforce(LOGPS, ADVANTAGES, MASK)
    # rows: -1 + 2 - 6 = -5 and -2; minus their mean
    close(loss, scalar(3.5))
    assert metrics == {"nll": 2.5}  # (1 + 2 + 3 + 4) / 4 tokens
    want = f64([-0.5, 0.5, -1, 0], [-0.25, 0, 0, 0])  # -A / 2 rows
    close(slope(lambda x: reinforce(x, ADVANTAGES, MASK), LOGPS), want)


def test_reinforce_with_one_number_a_completion_spreads_it_over_its_tokens():
    loss, _ = reinforce(LOGPS, f64(1, -2), MASK)
    close(loss, scalar((6 - 8) / 2))
    spread = f64([1, 1, 1, 1], [-2, -2, -2, -2])
    close(loss, reinforce(LOGPS, spread, MASK)[0])
    want = f64([-0.5, -0.5, -0.5, 0], [1, 0, 0, 0])
    close(slope(lambda x: reinforce(x, f64(1, -2), MASK), LOGPS), want)


def test_reinforce_counts_a_row_without_true_among_the_rows():
    mask = torch.tensor([[T, T, T, F], [F, F, F, F]])
    loss, metrics = reinforce(LOGPS, ADVANTAGES, mask)
    close(loss, scalar(2.5))  # 5 / 2 rows
    assert metrics == {"nll": 2.0}


def test_reinforce_metrics_and_data_carry_no_gradient():
    advantages = ADVANTAGES.nan_to_num().requires_grad_()
    logps = LOGPS.nan_to_num().requires_grad_()
    loss, metrics = reinforce(logps, advantages, MASK)
    loss.backward()
    assert advantages.grad is None
    assert logps.grad is not None
    assert type(metrics["nll"]) is float


# ---------------------------------------------------------------- ppo_clip


def test_ppo_clip_on_hand_worked_ratios():
    ratio = f64([0.5, 1.1, 1.5, 1], [1.5, 0.5, 1.0, 1])
    advantages = f64([1, 1, 1, 7], [-1, -1, -1, 7])
    mask = torch.tensor([[T, T, T, F], [T, T, T, F]])
    old = f64([-1, -2, -0.5, 0], [-3, -1, -2, 0])
    loss, metrics = ppo_clip(old + ratio.log(), old, advantages, mask)
    # min(ratio·A, clip·A): 0.5, 1.1, 1.2 | -1.5, -0.8, -1
    close(loss, scalar(-(0.5 + 1.1 + 1.2 - 1.5 - 0.8 - 1) / 6))
    assert metrics["clip_fraction"] == 4 / 6
    want = sum(r - 1 - math.log(r) for r in (0.5, 1.1, 1.5, 1.5, 0.5, 1.0)) / 6
    assert metrics["approx_kl"] == pytest.approx(want, abs=1e-14)
    assert set(metrics) == {"clip_fraction", "approx_kl"}
    # where the ratio already moved with the advantage the gradient is 0, else -ratio·A/6
    got = slope(lambda x: ppo_clip(x, old, advantages, mask), old + ratio.log())
    close(got, f64([-0.5 / 6, -1.1 / 6, 0, 0], [1.5 / 6, 0, 1 / 6, 0]))


def test_the_default_clip_is_a_fifth_and_another_may_be_asked_for():
    old, mask = f64([0, 0]), torch.ones(1, 2).bool()
    logps = f64([1.4, 0.7]).log()
    for clip, want in ((None, (1.2 - 0.8) / 2), (0.5, (1.4 - 0.7) / 2), (0.1, 0.1)):
        knobs = {} if clip is None else {"clip": clip}
        loss, _ = ppo_clip(logps, old, f64([1, -1]), mask, **knobs)
        close(loss, -scalar(want))


@pytest.mark.parametrize(
    ("clip", "fraction"), [(0.05, 1), (0.3, 0.75), (0.45, 0.5), (0.6, 0.25), (1, 0)]
)
def test_clip_fraction_counts_the_ratios_outside(clip, fraction):
    logps, zeros = f64([0.9, 1.4, 0.5, 1.7]).log(), torch.zeros(1, 4).double()
    _, metrics = ppo_clip(logps, zeros, zeros, torch.ones(1, 4).bool(), clip=clip)
    assert metrics["clip_fraction"] == fraction


def test_a_ratio_on_the_edge_of_the_clip_is_inside():
    logps, zeros = f64([0.5, 1.5]).log(), torch.zeros(1, 2).double()
    edge = logps.exp()
    assert edge.tolist() == [[0.5, 1.5]]
    _, metrics = ppo_clip(logps, zeros, zeros, torch.ones(1, 2).bool(), clip=0.5)
    assert metrics["clip_fraction"] == 0


def test_before_the_first_update_ppo_is_the_plain_policy_gradient():
    advantages = f64([1, -1, 2, NAN], [0.5, NAN, NAN, NAN])
    loss, metrics = ppo_clip(LOGPS, LOGPS, advantages, MASK)
    close(loss, scalar(-2.5 / 4))  # minus the mean advantage of a token
    assert metrics == {"clip_fraction": 0, "approx_kl": 0}
    got = slope(lambda x: ppo_clip(x, LOGPS, advantages, MASK), LOGPS)
    close(got, f64([-1 / 4, 1 / 4, -2 / 4, 0], [-0.5 / 4, 0, 0, 0]))


def test_ppo_takes_one_number_a_completion_and_allows_an_empty_row():
    ones = f64([1, 1, 1, 1], [-2, -2, -2, -2])
    old = LOGPS - 0.1
    spread, _ = ppo_clip(LOGPS, old, ones, MASK)
    close(ppo_clip(LOGPS, old, f64(1, -2), MASK)[0], spread)
    mask = torch.tensor([[F, F, F, F], [T, F, F, F]])
    close(ppo_clip(LOGPS, LOGPS, f64(1, -2), mask)[0], scalar(2.0))


def test_old_log_probabilities_and_advantages_carry_no_gradient():
    logps, old, advantages = (
        x.nan_to_num().requires_grad_() for x in (LOGPS, LOGPS - 0.05, ADVANTAGES)
    )
    loss, metrics = ppo_clip(logps, old, advantages, MASK)
    loss.backward()
    assert old.grad is None and advantages.grad is None
    assert (logps.grad[MASK] != 0).all()
    assert all(type(value) is float for value in metrics.values())


def test_approx_kl_is_exact_where_the_policies_nearly_agree():
    d = 1e-6
    ones = torch.ones(1, 1).double()
    _, metrics = ppo_clip(ones * d, ones * 0, ones, ones.bool())
    assert metrics["approx_kl"] == pytest.approx(d**2 / 2, rel=1e-5)
    _, backwards = ppo_clip(ones * 0, ones * d, ones, ones.bool())
    assert backwards["approx_kl"] == pytest.approx(d**2 / 2, rel=1e-5)
    # direction: π = 2·π_old on this action gives 2 - 1 - log 2
    _, metrics = ppo_clip(ones * math.log(2), ones * 0, ones, ones.bool())
    assert metrics["approx_kl"] == pytest.approx(1 - math.log(2), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [200.0, -200.0, 5000.0, -5000.0])
def test_a_huge_log_ratio_gives_a_finite_loss_and_gradient(dtype, d):
    one = torch.ones(1, 1, dtype=dtype)
    for advantage in (1.0, -1.0):
        loss, metrics = ppo_clip(one * d, one * 0, one * advantage, one.bool())
        assert loss.isfinite() and loss.dtype == dtype
        assert all(math.isfinite(v) for v in metrics.values())
        got = slope(
            lambda x, a=advantage: ppo_clip(x, one * 0, one * a, one.bool()), one * d
        )
        assert got.isfinite().all()
        if d > 0 and advantage > 0:
            close(loss, -torch.tensor(1.2, dtype=dtype))


def test_a_ratio_is_held_at_the_root_of_the_largest_float():
    one = torch.ones(1, 1)
    loss, _ = ppo_clip(one * 500, one * 0, -one, one.bool())
    assert loss.item() == pytest.approx(torch.finfo(torch.float32).max ** 0.5, rel=1e-4)
    loss, _ = ppo_clip(one * 40, one * 0, -one, one.bool())
    assert loss.item() == pytest.approx(math.exp(40), rel=1e-4)
    low, _ = ppo_clip(one * -40, one * 0, one, one.bool())
    assert -low.item() == pytest.approx(math.exp(-40), rel=1e-4)
    floor, _ = ppo_clip(one * -500, one * 0, one, one.bool())
    assert -floor.item() == pytest.approx(
        torch.finfo(torch.float32).max ** -0.5, rel=1e-4
    )


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.floats(-3, 3), st.floats(-5, 5), st.floats(0.01, 0.9))
def test_the_surrogate_is_pessimistic_and_flat_only_beyond_the_clip(d, advantage, clip):
    one = torch.ones(1, 1).double()
    loss, _ = ppo_clip(one * d, one * 0, one * advantage, one.bool(), clip=clip)
    ratio = math.exp(d)
    assert -loss.item() <= ratio * advantage + 1e-12
    got = slope(
        lambda x: ppo_clip(x, one * 0, one * advantage, one.bool(), clip=clip), one * d
    ).item()
    moved = (advantage > 0 and ratio > 1 + clip) or (advantage < 0 and ratio < 1 - clip)
    want = 0 if moved else -ratio * advantage
    if min(abs(ratio - 1 - clip), abs(ratio - 1 + clip)) > 1e-9:
        assert got == pytest.approx(want, abs=1e-12)


# ---------------------------------------------------------------- clipped_value


def test_clipped_value_on_hand_worked_numbers():
    old, target = f64([0, 0, 0, NAN]), f64([1, 1, 1, NAN])
    mask = torch.tensor([[T, T, T, F]])
    values = f64([0.1, 0.9, -0.9, NAN])
    # V_clip 0.1, 0.2, -0.2; errors max(.81, .81), max(.01, .64), max(3.61, 1.44)
    loss, metrics = clipped_value(values, old, target, mask)
    close(loss, scalar((0.81 + 0.64 + 3.61) / 6))
    assert metrics == {"clip_fraction": pytest.approx(2 / 3, abs=1e-15)}
    got = slope(lambda v: clipped_value(v, old, target, mask), values)
    close(got, f64([(0.1 - 1) / 3, 0, (-0.9 - 1) / 3, 0]))


def test_clipped_value_within_the_clip_is_half_the_squared_error():
    values, old = f64([0.3, -0.3], [2, 5]), f64([0.2, -0.2], [2.1, 4.9])
    target, mask = f64([1, 2], [3, 4]), torch.tensor([[T, T], [T, F]])
    loss, metrics = clipped_value(values, old, target, mask)
    want = (0.7**2 + 2.3**2 + 1) / 6
    close(loss, scalar(want))
    assert metrics == {"clip_fraction": 0}


def test_another_value_clip_may_be_asked_for_and_its_edge_is_inside():
    one = torch.ones(1, 1).double()
    args = (one * 2, one * 0, one * 3, one.bool())
    for clip, near, outside in ((0.2, 0.2, 1), (0.5, 0.5, 1), (2, 2, 0), (3, 2, 0)):
        loss, metrics = clipped_value(*args, clip=clip)
        close(loss, scalar(0.5 * (near - 3) ** 2))
        assert metrics == {"clip_fraction": outside}
    default, _ = clipped_value(*args)
    close(default, clipped_value(*args, clip=0.2)[0])
    falling = clipped_value(one * -2, one * 0, one * -3, one.bool(), clip=0.5)
    close(falling[0], scalar(0.5 * 2.5**2))
    assert falling[1] == {"clip_fraction": 1}


def test_clipping_is_about_the_old_value():
    one = torch.ones(1, 1).double()
    loss, _ = clipped_value(one * 12, one * 10, one * 13, one.bool(), clip=0.5)
    close(loss, scalar(0.5 * 2.5**2))  # V_clip = 10.5


def test_old_values_and_returns_carry_no_gradient():
    values, old, target = (
        x.requires_grad_() for x in (f64([0.9, 3]), f64([0.0, 0]), f64([1.0, 2]))
    )
    loss, metrics = clipped_value(values, old, target, torch.ones(1, 2).bool())
    loss.backward()
    assert old.grad is None and target.grad is None and values.grad is not None
    assert type(metrics["clip_fraction"]) is float


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 3))
def test_the_clipped_value_loss_is_never_below_the_plain_one(value, old, target, clip):
    one = torch.ones(1, 1).double()
    args = (one * value, one * old, one * target, one.bool())
    loss, _ = clipped_value(*args, clip=clip)
    assert loss.item() >= 0.5 * (value - target) ** 2 - 1e-12


# ---------------------------------------------------------------- all of them

CLEAN = {
    "logps": f64([-1, -2, -0.5, -1], [-3, -1, -2, -1]),
    "old_logps": f64([-1.1, -1.9, -0.4, -1], [-3.1, -1, -2, -1]),
    "advantages": f64([1, -1, 2, 3], [0.5, 1, 1, 1]),
}
VALUES = {
    "values": f64([1, 2, 3, 4], [5, 6, 7, 8]),
    "old_values": f64([1.1, 1, 3, 4], [5.1, 6, 7, 8]),
    "returns": f64([2, 3, 4, 5], [6, 7, 8, 9]),
}
LOSSES = {
    reinforce: {name: CLEAN[name] for name in ("logps", "advantages")},
    ppo_clip: CLEAN,
    clipped_value: VALUES,
}
EVERY = [(loss, name) for loss, args in LOSSES.items() for name in args]


@pytest.mark.parametrize("loss", LOSSES)
def test_garbage_behind_the_mask_reaches_no_loss_no_metric_and_no_gradient(loss):
    args = LOSSES[loss]
    learned = next(iter(args))
    others = {name: x for name, x in args.items() if name != learned}
    clean, metrics = loss(**args, mask=MASK)
    want = slope(lambda x: loss(x, **others, mask=MASK), args[learned])
    assert (want[~MASK] == 0).all() and (want[MASK] != 0).any()
    for garbage in (NAN, math.inf, -math.inf, 1e30):
        dirty = {name: x.masked_fill(~MASK, garbage) for name, x in args.items()}
        got, dirty_metrics = loss(**dirty, mask=MASK)
        assert torch.equal(got, clean)
        assert dirty_metrics == metrics
        others = {name: x for name, x in dirty.items() if name != learned}
        moved = slope(lambda x, o=others: loss(x, **o, mask=MASK), dirty[learned])
        assert torch.equal(moved, want)


@pytest.mark.parametrize(("loss", "name"), EVERY)
def test_nan_where_the_mask_is_true_is_refused_by_name(loss, name, refuses):
    args = dict(LOSSES[loss])
    args[name] = args[name].clone()
    args[name][0, 2] = NAN
    with refuses(
        f"{name}: got NaN at index (0, 2), wanted no NaN where the mask is True"
    ):
        loss(**args, mask=MASK)


@pytest.mark.parametrize(("loss", "name"), EVERY)
def test_a_wrong_shape_is_refused_by_name(loss, name, refuses):
    args = {**LOSSES[loss], name: LOSSES[loss][name][:, :3]}
    with refuses(f"{name}: got shape (2, 3), wanted shape (2, 4)"):
        loss(**args, mask=MASK)
    with refuses(f"{name}: got list, wanted a Tensor"):
        loss(**{**args, name: [1.0]}, mask=MASK)


@pytest.mark.parametrize(("loss", "name"), [e for e in EVERY if e[1] not in ("logps",)])
def test_data_that_is_not_finite_is_refused_by_name(loss, name, refuses):
    args = dict(LOSSES[loss])
    args[name] = args[name].clone()
    args[name][1, 0] = math.inf
    with refuses(f"{name}: got inf at index (1, 0), wanted finite numbers"):
        loss(**args, mask=MASK)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_any_true_is_refused(loss, refuses):
    with refuses("mask: got no True at all, wanted at least one True to average"):
        loss(**LOSSES[loss], mask=torch.zeros_like(MASK))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_mask_is_bool(loss, refuses):
    with refuses("mask: got torch.int64, wanted torch.bool"):
        loss(**LOSSES[loss], mask=MASK.long())
    with refuses("mask: got list, wanted a Tensor"):
        loss(**LOSSES[loss], mask=[[True]])
    if "advantages" in LOSSES[loss]:
        with refuses("mask: got list, wanted a Tensor"):
            loss(**{**LOSSES[loss], "advantages": f64(1, 2)}, mask=[[True]])


@pytest.mark.parametrize("loss", [ppo_clip, clipped_value])
@pytest.mark.parametrize("clip", [0, -0.1])
def test_a_clip_is_above_zero(loss, clip, refuses):
    with refuses(f"clip: got {clip}, wanted a number above 0"):
        loss(**LOSSES[loss], mask=MASK, clip=clip)


@pytest.mark.parametrize("loss", [reinforce, ppo_clip])
def test_one_number_a_completion_needs_one_for_each(loss, refuses):
    args = {**LOSSES[loss], "advantages": f64(1, 2, 3)}
    with refuses("advantages: got shape (3,), wanted shape (2, 4)"):
        loss(**args, mask=MASK)
    flat = {name: x[0] for name, x in LOSSES[loss].items()}
    want = loss(**{n: x[:1] for n, x in LOSSES[loss].items()}, mask=MASK[:1])[0]
    close(
        loss(**flat, mask=MASK[0])[0], want
    )  # a row without its batch axis: per token


@pytest.mark.parametrize("loss", LOSSES)
def test_permuting_the_batch_leaves_the_loss_and_permutes_the_gradient(loss):
    args = LOSSES[loss]
    learned = next(iter(args))

    def run(order):
        moved = {name: x[order] for name, x in args.items()}
        x = moved.pop(learned)
        value, _ = loss(x, **moved, mask=MASK[order])
        return value, slope(lambda x: loss(x, **moved, mask=MASK[order]), x)

    (here, there), swapped = run([0, 1]), run([1, 0])
    close(swapped[0], here)
    close(swapped[1], there[[1, 0]])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_is_a_scalar_of_the_dtype_that_went_in(loss, dtype):
    value, _ = loss(**{n: x.to(dtype) for n, x in LOSSES[loss].items()}, mask=MASK)
    assert value.shape == () and value.dtype == dtype


# ---------------------------------------------------------------- the ladder

B2 = torch.tensor([[T, T, T, F], [T, F, F, F]])  # lengths 3 and 1
RATIO = f64([0.5, 1.1, 1.5, 9], [1.5, 9, 9, 9])
OLD = f64([-1, -2, -0.5, NAN], [-3, NAN, NAN, NAN])
NEW = torch.where(B2, OLD + RATIO.log(), NAN)
PER_TOKEN = {
    "ppo_clip": partial(pg.ppo_clip),
    "grpo": lambda new, old, a, m, **k: pg.grpo(new, old, None, a, m, **k),
    "dr_grpo": partial(pg.dr_grpo, length=4),
    "dapo": partial(pg.dapo),
    "cispo": partial(pg.cispo),
    "sapo": partial(pg.sapo),
}
PER_ROW = {"rloo": partial(pg.rloo), "gspo": partial(pg.gspo)}
ALL = PER_TOKEN | PER_ROW


def test_rloo_on_hand_worked_numbers():
    # whole-completion ratios: .5 · 1.1 · 1.5 = .825 and 1.5
    loss, metrics = pg.rloo(NEW, OLD, f64(2, 1), B2)
    close(loss, scalar(-(0.825 * 2 + 1.2) / 2))
    assert metrics["clip_fraction"] == 0.5
    want = (0.825 - 1 - math.log(0.825) + 1.5 - 1 - math.log(1.5)) / 2
    assert metrics["approx_kl"] == pytest.approx(want, abs=1e-12)
    got = slope(lambda x: pg.rloo(x, OLD, f64(2, 1), B2), NEW)
    close(got, f64([-0.825, -0.825, -0.825, 0], [0, 0, 0, 0]))
    close(pg.rloo(NEW, OLD, f64(2, 1), B2, clip=0.6)[0], scalar(-(0.825 * 2 + 1.5) / 2))
    close(pg.rloo(NEW, OLD, f64(-2, 0), B2, clip=0.1)[0], scalar(0.9 * 2 / 2))


def test_rloo_counts_a_row_without_true_among_the_rows():
    mask = torch.tensor([[T, T, T, F], [F, F, F, F]])
    loss, metrics = pg.rloo(NEW, OLD, f64(2, NAN), mask)
    close(loss, scalar(-0.825))
    assert metrics["clip_fraction"] == 0
    _, metrics = pg.rloo(NEW, OLD, f64(2, NAN), mask, clip=0.1)
    assert metrics["clip_fraction"] == 1


def test_grpo_on_hand_worked_numbers():
    advantages = f64(1, -1)
    # rows: (0.5 + 1.1 + 1.2) / 3 and -1.5; mean over the two
    want = -((0.5 + 1.1 + 1.2) / 3 - 1.5) / 2
    loss, metrics = pg.grpo(NEW, OLD, None, advantages, B2)
    close(loss, scalar(want))
    assert metrics["clip_fraction"] == 0.75 and set(metrics) == {
        "clip_fraction",
        "approx_kl",
    }
    ref = torch.where(B2, NEW - 0.3, NAN)
    k = math.exp(-0.3) - 1 + 0.3  # k3 of a log-ratio of .3, on every token
    loss, metrics = pg.grpo(NEW, OLD, ref, advantages, B2, beta=0.5)
    close(loss, scalar(want + 0.5 * k))
    assert metrics["kl"] == pytest.approx(k, abs=1e-12)
    close(pg.grpo(NEW, OLD, ref, advantages, B2, beta=0)[0], scalar(want))
    close(
        pg.grpo(NEW, OLD, None, advantages, B2, clip=0.05)[0],
        scalar(-((0.5 + 1.05 + 1.05) / 3 - 1.5) / 2),
    )


def test_grpo_pulls_towards_the_reference_by_the_gradient_of_k3():
    ref = torch.where(B2, NEW - 0.3, NAN)
    zero = f64(0, 0)
    got = slope(lambda x: pg.grpo(x, OLD, ref, zero, B2, beta=2.0), NEW)
    each = 2 * (1 - math.exp(-0.3))
    close(got, f64([each / 6] * 3 + [0], [each / 2, 0, 0, 0]))


def test_grpo_needs_a_reference_only_above_beta_0(refuses):
    with refuses("ref_logps: got None, wanted a tensor, since beta is above 0"):
        pg.grpo(NEW, OLD, None, f64(1, 1), B2, beta=0.1)
    with refuses("beta: got -0.1, wanted a number of at least 0"):
        pg.grpo(NEW, OLD, None, f64(1, 1), B2, beta=-0.1)
    bad = torch.where(B2, NEW, NAN).masked_fill(torch.arange(4) == 0, math.inf)
    with refuses("ref_logps: got inf at index (0, 0), wanted finite numbers"):
        pg.grpo(NEW, OLD, bad, f64(1, 1), B2, beta=0.1)


def test_dr_grpo_divides_by_rows_and_a_constant_length():
    want = -(0.5 + 1.1 + 1.2 - 1.5) / (2 * 5)
    loss, metrics = pg.dr_grpo(NEW, OLD, f64(1, -1), B2, length=5)
    close(loss, scalar(want))
    assert metrics["clip_fraction"] == 0.75
    got = slope(lambda x: pg.dr_grpo(x, OLD, f64(1, -1), B2, length=5), NEW)
    close(got, f64([-0.05, -0.11, 0, 0], [0.15, 0, 0, 0]))
    narrow = -(0.5 + 1.05 + 1.05 - 1.5) / 10
    close(pg.dr_grpo(NEW, OLD, f64(1, -1), B2, length=5, clip=0.05)[0], scalar(narrow))


def test_the_means_of_grpo_and_dr_grpo_weigh_a_short_and_a_long_completion_differently():
    mask = torch.ones(2, 10).bool()
    mask[0, 2:] = False  # lengths 2 and 10
    zeros, advantages = torch.zeros(2, 10).double(), f64(1, -1)
    by_row = slope(lambda x: pg.grpo(x, zeros, None, advantages, mask), zeros)
    constant = slope(lambda x: pg.dr_grpo(x, zeros, advantages, mask, length=10), zeros)
    by_token = slope(lambda x: pg.dapo(x, zeros, advantages, mask), zeros)
    assert by_row[0, 0] == -0.25 and by_row[1, 0] == pytest.approx(0.05)
    assert constant[0, 0] == -0.05 and constant[1, 0] == 0.05
    assert by_token[0, 0] == -1 / 12 and by_token[1, 0] == 1 / 12


def test_dapo_leaves_more_room_upwards():
    logps = f64([1.25, 1.4, 0.7, 0.85]).log()
    mask, zeros = torch.ones(1, 4).bool(), torch.zeros(1, 4).double()
    loss, metrics = pg.dapo(logps, zeros, f64([1, 1, -1, -1]), mask)
    close(loss, scalar(-(1.25 + 1.28 - 0.8 - 0.85) / 4))
    assert metrics["clip_fraction"] == 0.5
    loss, _ = pg.dapo(
        logps, zeros, f64([1, 1, -1, -1]), mask, clip_low=0.1, clip_high=0.2
    )
    close(loss, scalar(-(1.2 + 1.2 - 0.9 - 0.9) / 4))


def test_gspo_has_one_ratio_a_completion_the_root_of_its_length():
    root = (0.5 * 1.1 * 1.5) ** (1 / 3)
    loss, metrics = pg.gspo(NEW, OLD, f64(1, -1), B2, clip_low=0.2, clip_high=0.4)
    close(loss, scalar(-(root - 1.5) / 2))
    assert metrics["clip_fraction"] == 0.5
    want = (root - 1 - math.log(root) + 1.5 - 1 - math.log(1.5)) / 2
    assert metrics["approx_kl"] == pytest.approx(want, abs=1e-12)
    got = slope(
        lambda x: pg.gspo(x, OLD, f64(1, -1), B2, clip_low=0.2, clip_high=0.4), NEW
    )
    close(got, f64([-root / 6] * 3 + [0], [0.75, 0, 0, 0]))
    ratio, one = f64([1.00035], [1.00045], [0.99975], [0.99965]), torch.ones(4, 1)
    _, metrics = pg.gspo(ratio.log(), one.double() * 0, f64(1, 1, 1, 1), one.bool())
    assert metrics["clip_fraction"] == 0.5  # 3e-4 downwards, 4e-4 upwards
    loss, _ = pg.gspo(ratio.log(), one.double() * 0, f64(1, 1, -1, -1), one.bool())
    close(loss, scalar(-(1.00035 + 1.0004 - 0.99975 - 0.9997) / 4))


def test_cispo_weighs_log_probabilities_by_a_clipped_ratio_that_has_no_gradient():
    ratio = torch.tensor([[0.01, 2.0, 8.0]], dtype=torch.float64)
    old, mask = f64([-1, -2, -3]), torch.ones(1, 3).bool()
    new = old + ratio.log()
    loss, metrics = pg.cispo(new, old, f64([1, -1, 2]), mask)
    weights = f64([0.01, -2, 10])
    close(loss, -(weights * new).sum() / 3)
    assert metrics["clip_fraction"] == pytest.approx(1 / 3)
    close(slope(lambda x: pg.cispo(x, old, f64([1, -1, 2]), mask), new), -weights / 3)
    got = slope(lambda x: pg.cispo(x, old, f64([1, -1, 2]), mask, clip_high=1.5), new)
    close(got, -f64([0.01, -1.5, 3]) / 3)


def test_sapo_is_a_soft_gate_with_slope_one_at_the_old_policy():
    def gate(ratio, tau):
        return 4 / tau / (1 + math.exp(-tau * (ratio - 1)))

    loss, metrics = pg.sapo(NEW, OLD, f64(2, -1), B2)
    row = sum(gate(r, 1.0) for r in (0.5, 1.1, 1.5)) / 3
    close(loss, scalar(-(2 * row - gate(1.5, 1.05)) / 2))
    assert set(metrics) == {"approx_kl"}
    want = sum(r - 1 - math.log(r) for r in (0.5, 1.1, 1.5, 1.5)) / 4
    assert metrics["approx_kl"] == pytest.approx(want, abs=1e-12)
    loss, _ = pg.sapo(NEW, OLD, f64(2, -1), B2, tau_positive=3, tau_negative=0.5)
    row = sum(gate(r, 3) for r in (0.5, 1.1, 1.5)) / 3
    close(loss, scalar(-(2 * row - gate(1.5, 0.5)) / 2))
    got = slope(lambda x: pg.sapo(x, OLD, f64(2, -1), B2), OLD)
    close(got, f64([-1 / 3] * 3 + [0], [0.5, 0, 0, 0]))
    zero, _ = pg.sapo(NEW, OLD, f64(0, 0), B2)
    assert zero == 0


def test_sapo_takes_the_positive_slope_for_however_small_an_advantage():
    full, _ = pg.sapo(NEW, OLD, f64(2, 2), B2, tau_positive=3)
    small, _ = pg.sapo(NEW, OLD, f64(0.5, 0.5), B2, tau_positive=3)
    close(small, full / 4)


# by enumeration: every completion of a small world, the old policy being the policy


def enumerated():
    """31 completions of up to 4 tokens, a policy, a number for each completion."""
    rows = exact.every_completion([0], tokens=range(3), end=2, max_tokens=4)
    draws = torch.Generator().manual_seed(0)
    policy = exact.PrefixTable(3, 4)
    torch.nn.init.normal_(policy.logits, generator=draws)
    return rows, policy, torch.rand(len(rows), dtype=torch.float64, generator=draws)


def expected_slope(loss, rows, policy, credit):
    """The expected gradient of a loss of one completion, old policy = policy."""
    logps = token_logps(policy(rows.states), rows.actions)  # (K, T)
    old = logps.detach()
    law = exact.completion_logps(policy, rows).detach().exp()
    each = [
        loss(logps[k : k + 1], old[k : k + 1], credit[k : k + 1], rows.mask[k : k + 1])[
            0
        ]
        for k in range(len(rows))
    ]
    return exact.gradient((law * torch.stack(each)).sum(), policy)


@pytest.mark.parametrize("name", [*ALL, "reinforce"])
def test_on_policy_the_expected_gradient_is_that_of_j_up_to_its_scaling(name):
    rows, policy, reward = enumerated()
    loss = {**ALL, "reinforce": lambda new, old, a, m: reinforce(new, a, m)}[name]
    got = expected_slope(loss, rows, policy, reward)
    scaled = {
        "reinforce": reward,
        "rloo": reward,  # the completion is the action
        "dr_grpo": reward / 4,  # divided by the constant length
    }.get(name, reward / rows.lengths)  # divided by the completion's own length
    logps = exact.completion_logps(policy, rows)
    want = -exact.gradient(exact.expected(scaled, logps), policy)
    assert want.norm() > 1e-3
    close(got, want)
    if name not in ("reinforce", "rloo", "dr_grpo"):
        true = -exact.gradient(exact.expected(reward, logps), policy)
        cosine = torch.cosine_similarity(got, true, 0)
        assert cosine < 0.999  # the division by length is a bias, not a scaling


def test_the_mean_over_a_batchs_tokens_weighs_all_of_them_alike():
    rows, policy, reward = enumerated()
    few = rows.rows(torch.tensor([0, 5, 20, 30]))
    credit = reward[:4]
    for loss in (pg.ppo_clip, pg.dapo, pg.cispo):
        logps = token_logps(policy(few.states), few.actions)
        value, _ = loss(logps, logps.detach(), credit, few.mask)
        got = exact.gradient(value, policy)
        total = (credit * exact.completion_logps(policy, few)).sum()
        close(got, -exact.gradient(total, policy) / few.mask.sum())


# all of them


@pytest.mark.parametrize("name", ALL)
def test_no_garbage_behind_the_mask_reaches_a_loss(name, unmoved):
    loss, clean = ALL[name], OLD.nan_to_num()
    new = clean + torch.where(B2, RATIO.log() / 1e4, 0.0)
    credit = f64(1, -1)
    unmoved(lambda x: loss(x, clean, credit, B2)[0], new, B2)
    for dirt in (NAN, math.inf, 1e30):
        old = clean.masked_fill(~B2, dirt)
        assert torch.equal(
            loss(new, old, credit, B2)[0], loss(new, clean, credit, B2)[0]
        )


@pytest.mark.parametrize("name", ALL)
def test_only_the_new_log_probabilities_carry_a_gradient(name):
    new, old = (x.nan_to_num().requires_grad_() for x in (OLD, OLD))
    credit = f64(1, -1).requires_grad_()
    loss, metrics = ALL[name](new, old, credit, B2)
    loss.backward()
    assert old.grad is None and credit.grad is None
    assert (new.grad[B2] != 0).all() and (new.grad[~B2] == 0).all()
    assert all(type(value) is float for value in metrics.values())
    assert metrics["approx_kl"] == 0 and metrics.get("clip_fraction", 0) == 0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [200.0, -200.0, 5000.0, -5000.0])
def test_every_loss_is_finite_however_far_the_policy_has_moved(name, dtype, d):
    ones = torch.ones(1, 3, dtype=dtype)
    for credit in (1.0, -1.0):
        given = ones[:, 0] * credit

        def loss(x, given=given):
            return ALL[name](x, ones * 0, given, ones.bool())

        value, metrics = loss(ones * d)
        assert value.isfinite() and value.dtype == dtype
        assert all(math.isfinite(v) for v in metrics.values())
        assert slope(loss, ones * d).isfinite().all()


@pytest.mark.parametrize("name", ["grpo", "gspo", "sapo"])
def test_losses_with_a_mean_of_each_row_refuse_an_empty_one(name, refuses):
    mask = torch.tensor([[T, T, T, F], [F, F, F, F]])
    with refuses("mask: got no True in row 1, wanted a True in every row"):
        ALL[name](NEW, OLD, f64(1, 1), mask)


@pytest.mark.parametrize("name", ["rloo", "dr_grpo", "dapo", "cispo"])
def test_the_others_allow_an_empty_row(name):
    mask = torch.tensor([[T, T, T, F], [F, F, F, F]])
    assert ALL[name](NEW, OLD, f64(1, 1), mask)[0].isfinite()


@pytest.mark.parametrize("name", ALL)
def test_what_makes_no_sense_is_refused(name, refuses):
    loss = ALL[name]
    with refuses(
        "logps: got NaN at index (0, 0), wanted no NaN where the mask is True"
    ):
        loss(NEW * NAN, OLD, f64(1, 1), B2)
    with refuses(
        "old_logps: got NaN at index (0, 0), wanted no NaN where the mask is True"
    ):
        loss(NEW, OLD * NAN, f64(1, 1), B2)


@pytest.mark.parametrize(
    ("name", "knob"),
    [
        ("rloo", "clip"),
        ("grpo", "clip"),
        ("dr_grpo", "clip"),
        ("dapo", "clip_low"),
        ("dapo", "clip_high"),
        ("gspo", "clip_low"),
        ("gspo", "clip_high"),
        ("cispo", "clip_high"),
        ("sapo", "tau_positive"),
        ("sapo", "tau_negative"),
    ],
)
def test_a_knob_at_zero_is_refused(name, knob, refuses):
    with refuses(f"{knob}: got 0, wanted a number above 0"):
        ALL[name](NEW, OLD, f64(1, 1), B2, **{knob: 0})


def test_a_length_below_one_is_refused(refuses):
    with refuses("length: got 0, wanted an int of at least 1"):
        pg.dr_grpo(NEW, OLD, f64(1, 1), B2, length=0)


# ---------------------------------------------------------------- half precision

FULL = ALL | {
    "grpo, beta": lambda new, old, a, m: pg.grpo(new, old, old, a, m, beta=0.5)
}


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d", [-8.0, -6.0, -0.5, 0.125, 5.75, 6.0, 8.0])
def test_in_half_precision_a_loss_is_that_of_float64_rounded(name, dtype, d):
    new = torch.tensor([[-9.0, -9.0, -9.0], [-9.0, -9.0, -9.0]]) + max(d, 0)
    old = new - torch.tensor([[d, 0.0, 0.25], [0.0, d, 7.0]])
    mask = torch.tensor([[T, T, T], [T, T, F]])
    for credit in (torch.tensor([1.0, -1.5]), torch.tensor([-1.0, 2.0])):
        results = []
        for kind in (dtype, torch.float64):
            x, y, a = (t.to(dtype).to(kind) for t in (new, old, credit))
            value, metrics = FULL[name](x, y, a, mask)
            assert value.dtype == kind
            grad = slope(lambda x, y=y, a=a: FULL[name](x, y, a, mask), x)
            results.append((value, grad, metrics))
        (value, grad, metrics), (want, want_grad, want_metrics) = results
        eps = torch.finfo(dtype).eps
        assert value.isfinite() and grad.isfinite().all()
        assert_close(value.double(), want, rtol=eps, atol=eps / 100)
        assert_close(grad.double(), want_grad, rtol=2 * eps, atol=eps / 100)
        assert metrics == pytest.approx(want_metrics, rel=eps, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_of_many_half_precision_tokens_does_not_overflow(dtype):
    mask = torch.ones(4, 100).bool()
    new = torch.full((4, 100), -1.0, dtype=dtype)
    loss, _ = ppo_clip(new, new - 7, -torch.ones(4, dtype=dtype), mask)
    eps = torch.finfo(dtype).eps
    assert loss.item() == pytest.approx(math.exp(7), rel=eps)  # 400 of them: 438,653
    value, _ = clipped_value(300 + new, new, 0 * new, mask)  # 299² is beyond float16
    assert value.item() == pytest.approx(299**2 / 2, rel=2 * eps)
    credit = torch.tensor([800.0, 800.0, -800.0, -800.0], dtype=dtype)
    loss, _ = reinforce(new, credit, mask)  # rows of 80,000 that cancel
    assert loss.item() == 0


# ---------------------------------------------------------------- infinite surprise


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"cispo"}))
def test_a_token_that_the_policy_forbids_leaves_the_loss_finite(name):
    """Its ratio is 0, as nearly as can be: the log-ratio is held."""
    new = NEW.clone()
    new[0, 1] = -math.inf
    value, metrics = ALL[name](new, OLD, f64(1, -1), B2)
    assert value.isfinite() and all(math.isfinite(m) for m in metrics.values())


def test_a_token_that_the_policy_forbids_costs_reinforce_everything():
    loss, metrics = reinforce(LOGPS - math.inf, f64(1, 1), MASK)
    assert loss.item() == math.inf and metrics == {"nll": math.inf}


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("name", [*FULL, "reinforce"])
def test_a_loss_waits_for_the_device_twice(name, syncs):
    """Once to see that all is well, once for the metrics."""
    loss = FULL.get(name, lambda new, old, a, m: reinforce(new, a, m))
    assert syncs(lambda: loss(NEW, OLD, f64(1, -1), B2)) == 2


def test_a_value_loss_waits_for_the_device_twice(syncs):
    assert syncs(lambda: clipped_value(**VALUES, mask=MASK)) == 2


@pytest.mark.parametrize("clip_high", [0.3, 0.9])
def test_a_cispo_clip_below_one_counts_true_tokens_only(clip_high):
    ratio = f64([0.5, 2.0, 9], [1.0, 9, 9])
    mask = torch.tensor([[T, T, F], [T, F, F]])
    zeros = torch.zeros(2, 3).double()
    _, metrics = pg.cispo(ratio.log(), zeros, f64(1, 1), mask, clip_high=clip_high)
    want = {0.3: 1, 0.9: 2 / 3}[clip_high]
    assert metrics["clip_fraction"] == pytest.approx(want)
