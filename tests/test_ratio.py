"""What the policy-gradient losses share: shapes, edges, and what stays finite."""

import math

import pytest
import torch
from torch.testing import assert_close

from lib.kl import exp_limit
from lib.losses.ratio import (
    as_loss,
    clamped,
    clipped,
    per_row,
    per_token,
    ratio_metrics,
    spread,
)

NAN = math.nan
MASK = torch.tensor([[True, True, False], [True, False, False]])
ZEROS = torch.zeros(2, 3, dtype=torch.float64)


def f64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_one_number_a_completion_is_spread_over_its_tokens():
    assert torch.equal(spread(f64(3, -1), MASK), f64([3, 3, 3], [-1, -1, -1]))
    each = f64([3, 3, NAN], [-1, NAN, NAN])
    assert spread(each, MASK) is each
    got = per_token(ZEROS, ZEROS, f64(3, -1), MASK)
    assert torch.equal(got[2], f64([3, 3, 0], [-1, 0, 0]))


def test_as_many_numbers_as_tokens_are_not_mistaken_for_one_a_completion(refuses):
    square = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(spread(f64(3, -1), square), f64([3, 3], [-1, -1]))
    flat = torch.tensor([True, True, False])
    assert torch.equal(
        per_token(ZEROS[0], ZEROS[0], f64(1, 2, NAN), flat)[2], f64(1, 2, 0)
    )
    with refuses("advantages: got shape (3,), wanted shape (2, 3)"):
        per_token(ZEROS, ZEROS, f64(1, 2, 3), MASK)


def test_numbers_of_completions_come_with_the_rows_that_have_a_token():
    mask = torch.tensor([[True, False], [False, False]])
    new = f64([2, NAN], [NAN, NAN])
    each, got, rows = per_row(new, new - 1, f64(2, NAN), mask)
    assert torch.equal(got, f64(2, 0)) and rows.tolist() == [True, False]
    assert torch.equal(each, f64([1, 0], [0, 0]))


def test_what_is_no_tensor_is_refused_by_its_name(refuses):
    with refuses("advantages: got list, wanted a Tensor"):
        per_row(ZEROS, ZEROS, [3.0, -1.0], MASK)
    with refuses("mask: got list, wanted a Tensor"):
        per_row(ZEROS, ZEROS, f64(3, -1), [[True], [False]])


def test_numbers_a_completion_of_another_shape_are_refused(refuses):
    wanted = "wanted shape (2,), one number a completion"
    for shape in ((2, 3), (3,), (2, 1), ()):
        with refuses(f"advantages: got shape {shape}, {wanted}"):
            per_row(ZEROS, ZEROS, torch.zeros(shape), MASK)
    with refuses(
        "advantages: got shape (3,), wanted shape (3,), one number a completion"
    ):  # no tokens at all
        per_row(ZEROS, ZEROS, torch.zeros(3), torch.ones(3, dtype=torch.bool))
    with refuses("advantages: got inf at index (1, 0), wanted finite numbers"):
        per_row(ZEROS, ZEROS, f64(1, math.inf), MASK)


def test_an_empty_row_is_allowed_unless_every_row_is_asked_for(refuses):
    mask = torch.tensor([[True, True, False], [False, False, False]])
    for read in (per_token, per_row):
        assert len(read(ZEROS, ZEROS, f64(1, 1), mask)) == 3
        with refuses("mask: got no True in row 1, wanted a True in every row"):
            read(ZEROS, ZEROS, f64(1, 1), mask, every_row=True)


def test_log_ratios_are_new_minus_old_and_zero_behind_the_mask(refuses):
    new, old = f64([-1, -2, NAN], [-3, NAN, 1]), f64([-2, -2, NAN], [0, 0, NAN])
    now, got, _, more = per_token(new, old, f64(1, 1), MASK, ref_logps=old)
    assert now.tolist() == [[-1, -2, 0], [-3, 0, 0]]
    assert got.tolist() == [[1, 0, 0], [-3, 0, 0]]
    assert more.tolist() == [[-2, -2, 0], [0, 0, 0]]
    with refuses("ref_logps: got inf at index (0, 0), wanted finite numbers"):
        per_token(new, old, f64(1, 1), MASK, ref_logps=old + math.inf)


def test_only_the_policys_log_probabilities_carry_a_gradient():
    tracked = f64([-2, -2, 0], [0, 0, 0]).requires_grad_()
    one = f64(1, -1).requires_grad_()
    _, ratio, weights, ref = per_token(ZEROS, tracked, one, MASK, ref_logps=tracked)
    assert not (ratio.requires_grad or weights.requires_grad or ref.requires_grad)
    each, weights, _ = per_row(ZEROS, tracked, one, MASK)
    assert not (each.requires_grad or weights.requires_grad)
    now, ratio, *_ = per_token(tracked, ZEROS, one, MASK)
    assert now.requires_grad and ratio.requires_grad


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_ratios_are_held_where_exp_stays_finite(dtype):
    limit = exp_limit(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.tensor([-1e4, -8.0, 0, 8, 1e4], dtype=wide)
    want = torch.tensor([-limit, -8, 0, 8, limit], dtype=wide)
    assert torch.equal(clamped(x, dtype), want)
    assert clamped(x, dtype).exp().to(dtype).isfinite().all()
    far = x[None].clamp(-6e4, 6e4).to(dtype)
    got = per_token(far, 0 * far, far[:, 0], far < 2e4)[1]
    assert got.dtype == wide and torch.equal(got, want[None])


def test_the_surrogate_is_the_smaller_of_both_sides():
    ratio, mask = f64(0.5, 0.9, 1.1, 2.0), torch.ones(4, dtype=torch.bool)
    got, metrics = clipped(ratio.log(), f64(1, 1, 1, 1), mask, 0.8, 1.3)
    assert_close(got, f64(0.5, 0.9, 1.1, 1.3))
    assert metrics["clip_fraction"] == 0.5
    got, _ = clipped(ratio.log(), f64(-2, -2, -2, -2), mask, 0.8, 1.3)
    assert_close(got, f64(-1.6, -1.8, -2.2, -4.0))


def test_metrics_count_ratios_strictly_outside():
    ratio = f64([0.5, 1.0, 1.0], [3.0, 1.0, 1.0])
    got = ratio_metrics(ratio.log(), MASK, 0.5, 2.5)
    assert got["clip_fraction"].item() == pytest.approx(1 / 3)
    pair, mask = f64([0.5, 2.0]).log(), MASK[:1, :2]
    assert ratio_metrics(pair, mask, 0.5, 2.0)["clip_fraction"] == 0
    assert ratio_metrics(pair, mask, 0.6, 1.9)["clip_fraction"] == 1
    want = (0.5 - 1 - math.log(0.5) + 3 - 1 - math.log(3)) / 3
    assert got["approx_kl"].item() == pytest.approx(want, abs=1e-14)
    assert set(got) == {"clip_fraction", "approx_kl"}
    assert not ratio_metrics(pair.requires_grad_(), mask, 0, 1)[
        "approx_kl"
    ].requires_grad


def test_a_bound_below_one_counts_nothing_behind_the_mask():
    got = ratio_metrics(f64([-1, 0, 0], [0, 0, 0]), MASK, -math.inf, 0.9)
    assert got["clip_fraction"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_loss_has_the_type_of_the_log_probabilities_and_floats_for_metrics(dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    logps, value = torch.zeros(1, dtype=dtype), torch.tensor(0.5, dtype=wide)
    loss, metrics = as_loss(value, logps, {"a": value, "b": value + 1})
    assert loss.dtype == dtype and metrics == {"a": 0.5, "b": 1.5}
    assert all(type(x) is float for x in metrics.values())
