"""Reward-model losses: values and gradients by hand, extreme margins, what is refused."""

import math
from functools import partial
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lib.losses.reward import bradley_terry, k_wise, outcome, process

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
T, F = True, False
NAN, INF = math.nan, math.inf


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


def scalar(x):
    """A float64 tensor without axes."""
    return torch.tensor(x, dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softplus(x):
    """-log σ(-x)."""
    return math.log1p(math.exp(x))


# ---------------------------------------------------------------- bradley_terry


def test_bradley_terry_on_hand_worked_scores(grad_of):
    chosen, rejected = f64(2, 0, 1), f64(0, 1, 1)
    loss, metrics = bradley_terry(chosen, rejected)  # gaps 2, -1, 0
    close(loss, scalar((softplus(-2) + softplus(1) + math.log(2)) / 3))
    assert metrics == {"accuracy": pytest.approx(1 / 3), "margin": pytest.approx(1 / 3)}
    assert all(type(value) is float for value in metrics.values())
    up, down = grad_of(lambda c, r: bradley_terry(c, r)[0], chosen, rejected)
    close(up, -f64(sigmoid(-2), sigmoid(1), 0.5) / 3)  # the wrong pair pushes hardest
    close(down, -up)


def test_a_tie_is_wrong_and_costs_log_two():
    loss, metrics = bradley_terry(f64(5, 5), f64(5, 4))
    assert metrics["accuracy"] == 0.5
    close(bradley_terry(f64(5), f64(5))[0], scalar(math.log(2)))
    assert loss < math.log(2)


def test_only_the_difference_of_scores_counts_unless_they_are_centred():
    chosen, rejected = f64(1, -2), f64(0.5, 3)
    shifted = bradley_terry(chosen + 100, rejected + 100)[0]
    close(shifted, bradley_terry(chosen, rejected)[0])
    assert bradley_terry(chosen + 100, rejected + 100, centre=0.01)[0] > shifted + 1


def test_a_margin_asks_for_a_wider_gap(grad_of):
    chosen, rejected = f64(2, 0), f64(0, 1)
    each = bradley_terry(chosen, rejected, margin=f64(1, 0.5))[0]  # gaps 1, -1.5
    close(each, scalar((softplus(-1) + softplus(1.5)) / 2))
    same = bradley_terry(chosen, rejected, margin=1)[0]  # gaps 1, -2
    close(same, scalar((softplus(-1) + softplus(2)) / 2))
    _, metrics = bradley_terry(chosen, rejected, margin=5.0)
    assert metrics == {"accuracy": 0.5, "margin": 0.5}  # of the scores as they are
    (slope,) = grad_of(
        lambda m: bradley_terry(chosen, rejected, margin=m)[0], f64(1, 2)
    )
    assert (slope == 0).all()  # a margin is data


def test_centring_adds_the_mean_square_of_the_sums(grad_of):
    chosen, rejected = f64(2, 0), f64(1, -1)  # sums 3, -1
    plain = bradley_terry(chosen, rejected)[0]
    close(bradley_terry(chosen, rejected, centre=0.1)[0], plain + 0.1 * (9 + 1) / 2)
    only = grad_of(
        lambda c: (
            bradley_terry(c, rejected, centre=0.1)[0] - bradley_terry(c, rejected)[0]
        ),
        chosen,
    )[0]
    close(only, f64(0.1 * 2 * 3 / 2, 0.1 * 2 * -1 / 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_margins_of_eight_hundred_are_finite(dtype, grad_of):
    chosen = torch.tensor([800.0, -800.0], dtype=dtype)
    loss, _ = bradley_terry(chosen, torch.zeros_like(chosen))
    assert loss.item() == 400.0  # (0 + 800) / 2
    assert loss.dtype == dtype
    (slope,) = grad_of(lambda c: bradley_terry(c, torch.zeros_like(c))[0], chosen)
    assert slope.tolist() == [0, -0.5]


def test_integer_scores_become_floats():
    loss, _ = bradley_terry(torch.tensor([1, 2]), torch.tensor([0, 2]))
    assert loss.item() == pytest.approx((softplus(-1) + math.log(2)) / 2, abs=1e-6)
    assert k_wise(torch.tensor([[1, 0]]))[0].item() == pytest.approx(
        softplus(-1), abs=1e-6
    )


def test_permuting_the_pairs_changes_nothing():
    chosen, rejected, order = f64(1, 2, 3), f64(2, 0, 5), [2, 0, 1]
    close(
        bradley_terry(chosen[order], rejected[order]), bradley_terry(chosen, rejected)
    )


def test_bradley_terry_says_what_it_refuses(refuses):
    one = f64(1.0)
    with refuses("chosen: got shape (1, 1), wanted shape (B,), not empty"):
        bradley_terry(one[None], one)
    with refuses("rejected: got shape (1, 1), wanted shape (B,), not empty"):
        bradley_terry(one, one[None])
    with refuses("rejected: got shape (1,), wanted shape (2,)"):
        bradley_terry(f64(1, 2), one)
    with refuses("chosen: got shape (0,), wanted shape (B,), not empty"):
        bradley_terry(one[:0], one[:0])
    with refuses("chosen: got float, wanted a Tensor"):
        bradley_terry(1.0, one)
    with refuses("rejected: got nan at index (1,), wanted finite numbers"):
        bradley_terry(f64(1, 2), f64(1, NAN))
    with refuses("chosen: got inf at index (0,), wanted finite numbers"):
        bradley_terry(f64(INF), one)
    with refuses("centre: got -0.1, wanted a number of at least 0"):
        bradley_terry(one, one, centre=-0.1)
    with refuses("margin: got shape (2,), wanted shape (1,)"):
        bradley_terry(one, one, margin=f64(1, 2))
    with refuses("margin: got inf at index (0,), wanted finite numbers"):
        bradley_terry(one, one, margin=f64(INF))
    with refuses("margin: got 'wide', wanted a number"):
        bradley_terry(one, one, margin="wide")


# ---------------------------------------------------------------- k_wise


def test_k_wise_is_bradley_terry_over_every_pair_of_the_ranking(grad_of):
    scores = f64([3, 1, 1, -2], [0, 2, -1, 5])
    loss, metrics = k_wise(scores)
    pairs = [(row[i], row[j]) for row in scores for i, j in combinations(range(4), 2)]
    better, worse = (torch.stack(side) for side in zip(*pairs, strict=True))
    want, same = bradley_terry(better, worse)
    close(loss, want)
    assert metrics == same
    assert metrics["accuracy"] == 7 / 12  # 5 of 6 (a tie), 2 of 6
    (slope,) = grad_of(lambda s: k_wise(s)[0], scores)
    assert slope[0, 0] < 0 < slope[0, 3]


def test_k_wise_by_hand_for_three_answers(grad_of):
    scores = f64([2, 1, 1])
    loss, metrics = k_wise(scores)  # gaps 1, 1, 0
    close(loss, scalar((2 * softplus(-1) + math.log(2)) / 3))
    assert metrics == {"accuracy": pytest.approx(2 / 3), "margin": pytest.approx(2 / 3)}
    s = sigmoid(-1)
    (slope,) = grad_of(lambda s: k_wise(s)[0], scores)
    close(slope, f64([-2 * s / 3, (s - 0.5) / 3, (s + 0.5) / 3]))


def test_two_answers_are_a_pair_and_prompts_weigh_the_same():
    scores = f64([2, 0], [1, 3])
    close(k_wise(scores)[0], bradley_terry(scores[:, 0], scores[:, 1])[0])
    assert k_wise(f64([800, 0, -800]))[0].item() == 0
    assert k_wise(f64([-800, 0]))[0].item() == 800


def test_k_wise_says_what_it_refuses(refuses):
    with refuses("scores: got K = 1, wanted at least two answers to compare"):
        k_wise(f64([1], [2]))
    with refuses("scores: got shape (2,), wanted shape (P, K), not empty"):
        k_wise(f64(1, 2))
    with refuses("scores: got shape (0, 2), wanted shape (P, K), not empty"):
        k_wise(f64([1, 2])[:0])
    with refuses("scores: got nan at index (0, 1), wanted finite numbers"):
        k_wise(f64([1, NAN]))


# ---------------------------------------------------------------- outcome

LOGITS = f64([2, -1, NAN], [0, NAN, NAN])
MASK = torch.tensor([[T, T, F], [T, F, F]])
LABELS = torch.tensor([[1, 1, -100], [0, -100, -100]])


def test_outcome_is_the_binary_cross_entropy_of_every_token(grad_of):
    loss, metrics = outcome(LOGITS, LABELS, MASK)
    close(loss, scalar((softplus(-2) + softplus(1) + math.log(2)) / 3))
    assert metrics == {"accuracy": pytest.approx(1 / 3)}  # right, wrong, undecided
    assert type(metrics["accuracy"]) is float
    (slope,) = grad_of(lambda x: outcome(x, LABELS, MASK)[0], LOGITS)
    want = f64([sigmoid(2) - 1, sigmoid(-1) - 1, 0], [0.5, 0, 0]) / 3  # σ - label
    close(slope, want)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float32, torch.float64]
)
def test_outcome_labels_may_be_ints_bools_or_floats(dtype):
    labels = (LABELS == 1).to(dtype)
    close(outcome(LOGITS, labels, MASK)[0], outcome(LOGITS, LABELS, MASK)[0])


def test_outcome_accuracy_looks_at_the_label_s_side():
    logits, mask = f64([3, -3, 3, -3]), torch.ones(1, 4).bool()
    assert outcome(logits, f64([1, 0, 0, 0]), mask)[1] == {"accuracy": 0.75}
    assert outcome(logits / 6, f64([1, 0, 0, 0]), mask)[1] == {"accuracy": 0.75}


def test_nothing_behind_the_mask_reaches_outcome_or_process(unmoved):
    x = LOGITS.nan_to_num(1.5)
    unmoved(lambda x: outcome(x, LABELS, MASK)[0], x, MASK)
    labels = torch.tensor([[2.0, 0.0, NAN], [1.0, INF, NAN]], dtype=torch.float64)
    mask = torch.tensor([[F, T, F], [T, F, F]])
    assert outcome(x, labels, mask)[0].isfinite()
    three = torch.stack([x, -x, 2 * x], -1)
    unmoved(
        lambda x: process(x, LABELS, MASK)[0], three, MASK.unsqueeze(-1).expand(2, 3, 3)
    )


def test_outcome_survives_extreme_logits(grad_of):
    logits, mask = f64([800, -800, INF, -INF]), torch.ones(1, 4).bool()
    right = torch.tensor([[1, 0, 1, 0]])
    assert outcome(logits, right, mask)[0].item() == 0
    assert outcome(logits[:, :2], 1 - right[:, :2], mask[:, :2])[0].item() == 800
    (slope,) = grad_of(lambda x: outcome(x, 1 - right, mask)[0], f64([800, -800, 1, 1]))
    assert slope.isfinite().all()


def test_outcome_labels_carry_no_gradient(grad_of):
    labels = f64([1, 0, 1])
    (slope,) = grad_of(
        lambda y: outcome(f64([1, 2, 3]), y, labels.bool() | T)[0], labels
    )
    assert (slope == 0).all()


def test_outcome_says_what_it_refuses(refuses):
    with refuses("labels: got a value other than 0 and 1, wanted labels of 0 or 1"):
        outcome(LOGITS, LABELS * 2, MASK)
    with refuses("labels: got a value other than 0 and 1, wanted labels of 0 or 1"):
        outcome(LOGITS, f64([0.5, 1, 1], [0, 0, 0]), MASK)
    with refuses(
        "logits: got NaN at index (0, 2), wanted no NaN where the mask is True"
    ):
        outcome(LOGITS, (LABELS == 1).long(), MASK | T)
    with refuses("labels: got shape (2,), wanted shape (2, 3)"):
        outcome(LOGITS, LABELS[:, 0], MASK)
    with refuses("logits: got shape (2,), wanted shape (2, 3)"):
        outcome(LOGITS[:, 0], LABELS, MASK)
    with refuses("mask: got no True at all, wanted at least one True to average"):
        outcome(LOGITS, LABELS, MASK & F)


# ---------------------------------------------------------------- process


def test_process_is_the_cross_entropy_of_the_step_ends(grad_of):
    logits = f64([[0, 0, math.log(2)], [9, 9, 9]], [[0, math.log(3), 0], [1, 5, 1]])
    mask = torch.tensor([[T, F], [T, T]])
    labels = torch.tensor([[2, 7], [0, 1]])
    # p(label) = 2/4 and 1/5; the third is 1 / (1 + 2 exp(-4))
    third = math.log1p(2 * math.exp(-4))
    loss, metrics = process(logits, labels, mask)
    close(loss, scalar((math.log(2) + math.log(5) + third) / 3))
    assert metrics == {"accuracy": pytest.approx(2 / 3)}
    assert type(metrics["accuracy"]) is float
    (slope,) = grad_of(lambda x: process(x, labels, mask)[0], logits)
    close(slope[0, 0], f64(0.25, 0.25, -0.5) / 3)  # π - 1{label}
    close(slope[1, 0], f64(-0.8, 0.6, 0.2) / 3)
    assert (slope[0, 1] == 0).all()


def test_a_tie_of_classes_is_wrong():
    mask, tie = torch.tensor([[T]]), f64([[4, 4, 0]])
    for label in range(3):
        assert process(tie, torch.tensor([[label]]), mask)[1] == {"accuracy": 0}
    alone = f64([[4, 5, 4]])
    assert process(alone, torch.tensor([[1]]), mask)[1] == {"accuracy": 1}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_process_labels_may_be_any_integers(dtype):
    labels = torch.tensor([[2]], dtype=dtype)
    loss, _ = process(f64([[0, 0, 0]]), labels, torch.tensor([[T]]))
    close(loss, scalar(math.log(3)))


def test_process_survives_extreme_logits():
    logits, mask = f64([[800, 0, -800]]), torch.tensor([[T]])
    for label, want in enumerate((0, 800, 1600)):
        assert process(logits, torch.tensor([[label]]), mask)[0].item() == want


def test_a_class_that_process_rules_out_costs_nothing_unless_it_is_the_label():
    logits, mask = f64([[0, 0, -INF]]), torch.tensor([[T]])
    close(process(logits, torch.tensor([[0]]), mask)[0], scalar(math.log(2)))
    assert process(logits, torch.tensor([[2]]), mask)[0].item() == INF


def test_process_says_what_it_refuses(refuses):
    logits, mask = torch.zeros(1, 2, 3), torch.tensor([[T, F]])
    with refuses("labels: got 3 at index (0, 0), wanted integers in 0 … 2"):
        process(logits, torch.tensor([[3, 0]]), mask)
    with refuses("labels: got torch.float32, wanted integers"):
        process(logits, torch.zeros(1, 2), mask)
    with refuses("logits: got shape (1, 2, 4), wanted shape (1, 2, 3)"):
        process(torch.zeros(1, 2, 4), torch.tensor([[0, 0]]), mask)
    bad = logits.clone()
    bad[0, 0, 1] = NAN
    with refuses(
        "logits: got NaN at index (0, 0, 1), wanted no NaN where the mask is True"
    ):
        process(bad, torch.tensor([[0, 0]]), mask)
    with refuses("labels: got shape (2,), wanted shape (1, 2)"):
        process(logits, torch.tensor([0, 0]), mask)


# ---------------------------------------------------------------- properties

scores = st.lists(
    st.tuples(st.floats(-800, 800), st.floats(-800, 800)), min_size=1, max_size=6
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(scores)
def test_swapping_every_pair_adds_the_gap_and_nothing_is_ever_infinite(pairs):
    chosen, rejected = (f64(*side) for side in zip(*pairs, strict=True))
    loss, metrics = bradley_terry(chosen, rejected)
    swapped, _ = bradley_terry(rejected, chosen)
    close(swapped - loss, (chosen - rejected).mean())  # log σ(x) - log σ(-x) = x
    assert loss.isfinite() and loss >= 0
    assert metrics["accuracy"] == sum(c > r for c, r in pairs) / len(pairs)
