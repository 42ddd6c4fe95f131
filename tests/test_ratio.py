"""What the policy-gradient losses share: shapes, edges, and what stays finite."""

import math

import pytest
import torch
from torch.testing import assert_close

from lib.losses.ratio import (
    clamped,
    finite,
    log_ratio_of,
    per_row,
    per_token,
    pessimistic,
    ratio_metrics,
)

NAN = math.nan
MASK = torch.tensor([[True, True, False], [True, False, False]])


def f64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_one_number_a_completion_is_spread_over_its_tokens():
    want = f64([3, 3, 0], [-1, 0, 0])
    assert torch.equal(per_token(f64(3, -1), MASK), want)
    assert torch.equal(per_token(f64([3, 3, NAN], [-1, NAN, NAN]), MASK), want)


def test_as_many_numbers_as_tokens_are_not_mistaken_for_one_a_completion(refuses):
    square = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(per_token(f64(3, -1), square), f64([3, 3], [-1, -1]))
    flat = torch.tensor([True, True, False])
    assert torch.equal(per_token(f64(1, 2, NAN), flat), f64(1, 2, 0))
    with refuses("advantages: got shape (3,), wanted shape (2, 3)"):
        per_token(f64(1, 2, 3), MASK)


def test_numbers_of_completions_come_with_the_rows_that_have_a_token():
    mask = torch.tensor([[True, False], [False, False]])
    got, rows = per_row(f64(2, NAN), mask)
    assert torch.equal(got, f64(2, 0)) and rows.tolist() == [True, False]


def test_neither_carries_a_gradient():
    for spread in (per_token, lambda a, mask: per_row(a, mask)[0]):
        assert not spread(f64(3, -1).requires_grad_(), MASK).requires_grad


def test_what_is_no_tensor_is_refused_by_its_name(refuses):
    with refuses("advantages: got list, wanted a Tensor"):
        per_row([3.0, -1.0], MASK)
    with refuses("mask: got list, wanted a Tensor"):
        per_row(f64(3, -1), [[True], [False]])


def test_numbers_a_completion_of_another_shape_are_refused(refuses):
    wanted = "wanted shape (2,), one number a completion"
    for shape in ((2, 3), (3,), (2, 1), ()):
        with refuses(f"advantages: got shape {shape}, {wanted}"):
            per_row(torch.zeros(shape), MASK)
    with refuses(
        "advantages: got shape (3,), wanted shape (3,), one number a completion"
    ):
        per_row(torch.zeros(3), torch.ones(3, dtype=torch.bool))  # no tokens at all
    with refuses("advantages: got inf at index (1,), wanted finite numbers"):
        per_row(f64(1, math.inf), MASK)


def test_the_surrogate_is_the_smaller_of_both_sides():
    ratio = f64(0.5, 0.9, 1.1, 2.0)
    got = pessimistic(ratio.log(), f64(1, 1, 1, 1), 0.8, 1.3)
    assert_close(got, f64(0.5, 0.9, 1.1, 1.3))
    got = pessimistic(ratio.log(), f64(-2, -2, -2, -2), 0.8, 1.3)
    assert_close(got, f64(-1.6, -1.8, -2.2, -4.0))


def test_what_is_kept_must_be_finite(refuses):
    assert finite(f64([1, 2, NAN], [3, math.inf, 0]), MASK, "x").tolist() == [
        [1, 2, 0],
        [3, 0, 0],
    ]
    with refuses("values: got -inf at index (0, 1), wanted finite numbers"):
        finite(f64([1, -math.inf, 0], [1, 0, 0]), MASK, "values")


def test_log_ratios_are_new_minus_old_and_zero_behind_the_mask():
    new, old = f64([-1, -2, NAN], [-3, NAN, 1]), f64([-2, -2, NAN], [0, 0, NAN])
    assert log_ratio_of(new, old, MASK).tolist() == [[1, 0, 0], [-3, 0, 0]]
    tracked = old.nan_to_num().requires_grad_()
    assert not log_ratio_of(new, tracked, MASK).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ratios_are_held_at_half_of_what_exp_can_take(dtype):
    limit = math.log(torch.finfo(dtype).max) / 2
    x = torch.tensor([-1e4, -1.0, 0, 1, 1e4], dtype=dtype)
    want = torch.tensor([-limit, -1, 0, 1, limit], dtype=dtype)
    assert torch.equal(clamped(x), want)
    assert log_ratio_of(x[None], torch.zeros_like(x[None]), x[None] < 2e4)[
        0, 0
    ] == pytest.approx(-limit)


def test_metrics_count_ratios_strictly_outside():
    ratio = f64([0.5, 1.0, 2.0], [3.0, 9.0, 9.0])
    got = ratio_metrics(ratio.log(), MASK, 0.5, 2.5)
    assert got["clip_fraction"] == pytest.approx(1 / 3)
    assert (
        ratio_metrics(f64([0.5, 2.0]).log(), MASK[:1, :2], 0.5, 2.0)["clip_fraction"]
        == 0
    )
    assert (
        ratio_metrics(f64([0.5, 2.0]).log(), MASK[:1, :2], 0.6, 1.9)["clip_fraction"]
        == 1
    )
    want = (0.5 - 1 - math.log(0.5) + 3 - 1 - math.log(3)) / 3
    assert got["approx_kl"] == pytest.approx(want, abs=1e-14)
    assert set(got) == {"clip_fraction", "approx_kl"}
    assert all(type(value) is float for value in got.values())
