"""What the losses on pairs share; the losses themselves are in test_preference.py."""

import math

import pytest
import torch
from torch.testing import assert_close

from lib.losses.pairs import (
    free_pair,
    log_ratio,
    log_rest,
    pair,
    pair_metrics,
    share_wrong,
)


def f64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_a_pair_is_two_scaled_log_ratios_and_their_difference():
    won, lost, h = pair(f64(-1, -2), f64(-5, -3), f64(-2, -2), f64(-4, -4), 0.5)
    assert won.tolist() == [0.5, 0] and lost.tolist() == [-0.5, 0.5]
    assert h.tolist() == [1, -0.5]


def test_names_in_errors_tell_the_side(refuses):
    for name, first, second in (
        ("chosen", "chosen_logps", "ref_chosen_logps"),
        ("", "logps", "ref_logps"),
    ):
        advice = "wanted shape (B,), not empty: sum over tokens first"
        with refuses(f"{first}: got shape (1, 1), {advice}"):
            log_ratio(name, f64([1]), f64([1]))
        with refuses(f"{second}: got inf at index (0,), wanted finite numbers"):
            log_ratio(name, f64(1), f64(math.inf))
    with refuses("logps: got list, wanted a Tensor"):
        log_ratio("", [1], f64(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rest_of_a_probability_is_held_above_zero(dtype):
    logps = torch.tensor([0.0, -1e-9, -0.5, -50.0], dtype=dtype)
    got = log_rest(logps)
    eps = torch.finfo(dtype).eps
    want = math.log(eps) if dtype == torch.float32 else math.log(1e-9)
    assert got[0].item() == pytest.approx(math.log(eps))
    assert got[1].item() == pytest.approx(want, rel=1e-5)
    assert got[2].item() == pytest.approx(math.log(1 - math.exp(-0.5)), rel=1e-6)
    assert abs(got[3].item()) < 1e-20


def test_metrics_are_means_and_a_tie_is_wrong():
    got = pair_metrics(f64(1, 2, 3), f64(1, 1, 4))
    assert got == pytest.approx(
        {"accuracy": 1 / 3, "chosen_reward": 2, "rejected_reward": 2, "margin": 0}
    )


def test_without_a_reference_both_sides_come_as_they_are(refuses):
    won, lost = free_pair(f64(-1, 0), f64(-2, -3))
    assert_close(won, f64(-1, 0))
    assert_close(lost, f64(-2, -3))
    with refuses("chosen_logps: got 0.25, wanted log-probabilities, at most 0"):
        free_pair(f64(-1, 0.25), f64(-2, -3))


def test_less_than_half_of_the_labels_may_be_wrong(refuses):
    assert share_wrong(0) == 0 and share_wrong(0.49) == 0.49
    with refuses("label_smoothing: got nan, wanted a finite number"):
        share_wrong(math.nan)
