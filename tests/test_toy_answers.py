"""A world of eight numbers: gold by hand, and its moments against brute force."""

import math

import pytest
import torch

from labs import toy_answers


def at(length: float, merit: float = 0.0) -> torch.Tensor:
    """An answer of this length whose seven merits are equal and add up to `merit`."""
    x = torch.full((toy_answers.DIM,), merit / math.sqrt(7), dtype=torch.float64)
    x[0] = length
    return x


def raw(length: float, merit: float = 0.0) -> float:
    """What gold says before it is brought to the reference's σ: by hand."""
    return 0.7 * merit + length - 2 * max(0.0, length - 1) ** 2


ZERO = toy_answers.gold(at(0.0)).item()
UNIT = toy_answers.gold(at(1.0)).item() - ZERO


@pytest.mark.parametrize(
    ("length", "merit"), [(1, 0), (0.5, 2), (2, 0), (3, -1), (-4, 0.5)]
)
def test_gold_pays_merit_and_length_and_takes_twice_the_square_of_too_much(
    length, merit
):
    got = (toy_answers.gold(at(length, merit)).item() - ZERO) / UNIT
    assert got == pytest.approx(raw(length, merit), abs=1e-12)


def test_length_is_good_up_to_one_and_a_quarter_and_bad_from_there():
    lengths = torch.linspace(-3, 4, 701, dtype=torch.float64)
    gold = torch.stack([toy_answers.gold(at(each)) for each in lengths.tolist()])
    assert lengths[gold.argmax()].item() == pytest.approx(1.25)
    assert gold[-1] < gold[0]


def test_each_of_the_seven_merits_counts_the_same():
    x = torch.zeros(7, toy_answers.DIM, dtype=torch.float64)
    x[:, 1:] = torch.eye(7)
    got = (toy_answers.gold(x) - ZERO) / UNIT
    torch.testing.assert_close(got, torch.full((7,), 0.7 / math.sqrt(7)).double())


def test_gold_is_in_standard_deviations_of_the_reference_by_numerical_integration():
    length = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    weight = torch.exp(-length.square() / 2)
    weight = weight / weight.sum()
    along = torch.zeros(len(length), toy_answers.DIM, dtype=torch.float64)
    along[:, 0] = length
    gold = toy_answers.gold(along)  # merit 0: the merit adds variance 0.49, and no mean
    mean = weight @ gold
    variance = weight @ (gold - mean).square() + (0.7 * UNIT) ** 2
    assert mean.item() == pytest.approx(0, abs=1e-9)
    assert variance.item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("length", [-2.0, 0.0, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("merit", [-1.0, 0.0, 3.0])
def test_expected_gold_is_the_integral_over_what_the_policy_writes(length, merit):
    off = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    weight = torch.exp(-off.square() / 2)
    written = at(length, merit).repeat(len(off), 1)
    written[:, 0] += off
    want = (weight / weight.sum()) @ toy_answers.gold(written)
    got = toy_answers.expected_gold(at(length, merit))
    assert got.item() == pytest.approx(want.item(), abs=1e-9)


def test_the_reference_is_worth_0_and_expectations_carry_their_leading_axes():
    means = torch.zeros(3, 2, toy_answers.DIM, dtype=torch.float64)
    got = toy_answers.expected_gold(means)
    assert got.shape == (3, 2)
    assert got.abs().max() < 1e-12


def test_answers_are_standard_normal_float64_and_depend_on_the_generator_alone(seeded):
    x = toy_answers.draw(20_000, generator=seeded(1))
    assert x.dtype == torch.float64 and x.shape == (20_000, 8)
    assert x.mean(0).abs().max() < 0.03 and (x.std(0) - 1).abs().max() < 0.03
    assert torch.equal(x, toy_answers.draw(20_000, generator=seeded(1)))


def test_what_is_no_answer_is_refused(refuses, seeded):
    with refuses("count: got 0, wanted an int of at least 1"):
        toy_answers.draw(0, generator=seeded())
    with refuses("answers: got shape (3, 7), wanted shape (3, 8)"):
        toy_answers.gold(torch.zeros(3, 7))
    with refuses("answers: got shape (), wanted shape (8,)"):
        toy_answers.expected_gold(torch.zeros(()))
    with refuses("answers: got list, wanted a Tensor"):
        toy_answers.gold([1.0])
