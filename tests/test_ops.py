"""Means under a mask, log-probabilities, entropy and sampling, on numbers small enough."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lib import ops

close = partial(assert_close, rtol=0, atol=1e-15)  # value, dtype and shape
T, F = True, False
NAN = math.nan
X = torch.tensor([[1.0, 2.0, 3.0], [10.0, NAN, NAN]], dtype=torch.float64)
MASK = torch.tensor([[T, T, F], [T, F, F]])
MEANS = {
    "masked_mean": ops.masked_mean,
    "sequence_mean": ops.sequence_mean,
    "token_mean": ops.token_mean,
    "fixed_length_mean": lambda x, mask: ops.fixed_length_mean(x, mask, length=4),
    "whiten": lambda x, mask: (ops.whiten(x, mask) * WEIGHTS).sum(),
    "whiten, mean kept": lambda x, mask: (
        ops.whiten(x, mask, shift_mean=False) * WEIGHTS
    ).sum(),
    "sequence_logps": ops.sequence_logps,
}
WEIGHTS = torch.tensor([[1.0, 2.0, 7.0], [4.0, 5.0, 6.0]], dtype=torch.float64)


# ---------------------------------------------------------------- means


def test_kept_fills_with_zero_and_names_what_it_refuses(refuses):
    assert ops.masked(X, MASK).tolist() == [[1, 2, 0], [10, 0, 0]]
    with refuses("x: got NaN at index (1, 1), wanted no NaN where the mask is True"):
        ops.masked(X, torch.ones_like(MASK))
    with refuses("logps: got shape (2, 3), wanted shape (2,)"):
        ops.masked(X, MASK[:, 0], "logps")


def test_several_are_filled_at_once_and_only_one_of_them_may_be_infinite(refuses):
    y = torch.tensor([[-math.inf, 5.0, NAN], [7.0, NAN, math.inf]])
    filled = ops.fill_masked(MASK, x=X, y=y, infinite="y")
    assert [f.tolist() for f in filled] == [
        [[1, 2, 0], [10, 0, 0]],
        [[-math.inf, 5, 0], [7, 0, 0]],
    ]
    with refuses("y: got -inf at index (0, 0), wanted finite numbers"):
        ops.fill_masked(MASK, x=X, y=y, infinite="x")
    with refuses("y: got NaN at index (0, 2), wanted no NaN where the mask is True"):
        ops.fill_masked(MASK | T, x=X.nan_to_num(), y=y, infinite="y")
    with refuses("y: got shape (3,), wanted shape (2, 3)"):
        ops.fill_masked(MASK, x=X, y=y[0])


def test_what_is_filled_wants_a_true_somewhere_or_in_every_row(refuses):
    mask = torch.tensor([[T, T, F], [F, F, F]])
    assert len(ops.fill_masked(mask, x=X)) == 1
    with refuses("mask: got no True in row 1, wanted a True in every row"):
        ops.fill_masked(mask, x=X, every_row=True)
    with refuses("mask: got no True at all, wanted at least one True to average"):
        ops.fill_masked(mask & F, x=X)
    with refuses("x: got NaN at index (1, 1), wanted no NaN where the mask is True"):
        ops.fill_masked(torch.tensor([[F, F, F], [F, T, F]]), x=X, every_row=True)


def test_metrics_become_floats_whatever_their_types():
    half, whole = torch.tensor(0.5), torch.tensor(1 / 3, dtype=torch.float64)
    assert ops.to_floats({"a": half, "b": whole}) == {"a": 0.5, "b": 1 / 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_of_many_halves_does_not_overflow_and_is_rounded_once(dtype):
    x = torch.full((2, 40_000), 3.0, dtype=dtype)  # the sum is beyond float16
    mask = torch.ones(2, 40_000).bool()
    means = (ops.masked_mean, ops.sequence_mean, ops.token_mean)
    for mean in means:
        assert mean(x, mask).item() == 3 and mean(x, mask).dtype == dtype
    got = ops.fixed_length_mean(x, mask, length=40_000)
    assert got.item() == 3 and got.dtype == dtype
    x[0] = 1
    white = ops.whiten(x, mask)  # each lies at 1 sample deviation from the mean
    assert white.dtype == dtype
    assert_close(white.double(), x.double() - 2, rtol=0, atol=1e-4)


def test_the_mean_of_verdicts_is_a_float():
    right = torch.tensor([[T, F, T], [F, T, T]])
    for name in ("masked_mean", "token_mean"):
        assert MEANS[name](right, MASK).item() == pytest.approx(1 / 3)
        assert MEANS[name](right.long(), MASK).item() == pytest.approx(1 / 3)


def test_a_mean_of_something_infinite_is_infinite():
    x = torch.tensor([[1.0, -math.inf, NAN], [2.0, NAN, NAN]])
    for name in ("masked_mean", "sequence_mean", "token_mean", "fixed_length_mean"):
        assert MEANS[name](x, MASK).item() == -math.inf


def test_masked_mean_over_everything_and_along_an_axis():
    assert ops.masked_mean(X, MASK).item() == 13 / 3  # (1 + 2 + 10) / 3
    assert ops.masked_mean(X, MASK, dim=1).tolist() == [1.5, 10]  # (1 + 2)/2, 10/1
    assert ops.masked_mean(X, MASK, dim=-1).tolist() == [1.5, 10]
    two = torch.tensor([[T, T, F], [T, F, F]])[:, :2] | torch.tensor([[F, F], [F, T]])
    x = torch.tensor([[1.0, 2.0], [10.0, 4.0]])
    assert ops.masked_mean(x, two, dim=0).tolist() == [5.5, 3]  # (1+10)/2, (2+4)/2


def test_masked_mean_refuses_an_average_of_nothing(refuses):
    with refuses("mask: got no True at all, wanted at least one True to average"):
        ops.masked_mean(X, torch.zeros_like(MASK))
    with refuses("mask: got no True along dim 0, wanted at least one True to average"):
        ops.masked_mean(X, MASK, dim=0)  # the last column has none


def test_the_three_means_weigh_the_same_tokens_differently(grad_of):
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 5.0, 6.0]], dtype=torch.float64)
    rows = {
        # value; weight of a token in the row of two, in the row of one
        ops.sequence_mean: (5.75, 1 / 4, 1 / 2),  # (1.5 + 10) / 2
        ops.token_mean: (13 / 3, 1 / 3, 1 / 3),
        MEANS["fixed_length_mean"]: (13 / 8, 1 / 8, 1 / 8),  # 2 rows × length 4
    }
    for mean, (value, long, short) in rows.items():
        assert mean(x, MASK).item() == value
        (slope,) = grad_of(lambda x, mean=mean: mean(x, MASK), x)
        want = torch.tensor([[long, long, 0], [short, 0, 0]], dtype=torch.float64)
        close(slope, want)


def test_one_row_without_its_batch_axis_has_its_mean():
    assert ops.sequence_mean(X[0], MASK[0]).item() == 1.5
    assert ops.token_mean(X[0], MASK[0]).item() == 1.5


def test_the_three_means_agree_where_all_rows_have_one_length():
    x, mask = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3).bool()
    assert ops.sequence_mean(x, mask).item() == 2.5  # (0 + … + 5) / 6
    assert ops.token_mean(x, mask).item() == 2.5
    assert ops.fixed_length_mean(x, mask, length=3).item() == 2.5


def test_a_row_without_true_is_refused_by_sequence_mean_and_by_no_other(refuses):
    mask = torch.tensor([[T, T, F], [F, F, F]])
    with refuses("mask: got no True in row 1, wanted a True in every row"):
        ops.sequence_mean(X, mask)
    assert ops.token_mean(X, mask).item() == 1.5
    assert ops.fixed_length_mean(X, mask, length=2).item() == 0.75  # 3 / (2 rows × 2)
    assert ops.sequence_logps(X, mask).tolist() == [3, 0]


def test_sequence_mean_names_a_wrong_mask_before_it_looks_for_empty_rows(refuses):
    with refuses("mask: got torch.int64, wanted torch.bool"):
        ops.sequence_mean(X, 0 * MASK)
    with refuses("mask: got list, wanted a Tensor"):
        ops.sequence_mean(X, [[T, T, F], [F, F, F]])


def test_a_batch_without_true_is_refused_by_every_mean(refuses):
    nothing = torch.zeros_like(MASK)
    with refuses("mask: got no True in row 0, wanted a True in every row"):
        ops.sequence_mean(X, nothing)
    with refuses("mask: got no True at all, wanted at least one True to average"):
        ops.token_mean(X, nothing)
    with refuses("mask: got no True at all, wanted at least one True to average"):
        ops.fixed_length_mean(X, nothing, length=3)


def test_fixed_length_mean_wants_a_length(refuses):
    with refuses("length: got 0, wanted an int of at least 1"):
        ops.fixed_length_mean(X, MASK, length=0)
    assert ops.fixed_length_mean(X, MASK, length=1).item() == 6.5  # 13 / (2 × 1)


@pytest.mark.parametrize("name", MEANS)
def test_garbage_behind_the_mask_reaches_no_value_and_no_gradient(name, unmoved):
    x = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.25, 7.0]], dtype=torch.float64)
    unmoved(lambda x: MEANS[name](x, MASK), x, MASK)


@pytest.mark.parametrize("name", MEANS)
def test_nan_where_the_mask_is_true_is_refused(name, refuses):
    what = "logps" if name == "sequence_logps" else "x"
    with refuses(
        f"{what}: got NaN at index (1, 2), wanted no NaN where the mask is True"
    ):
        MEANS[name](X, torch.tensor([[T, T, T], [T, F, T]]))


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_that_goes_in_comes_out(name, dtype):
    x = torch.arange(6.0, dtype=dtype).reshape(2, 3)
    function = {"whiten": ops.whiten}.get(name.split(",")[0], MEANS[name])
    assert function(x, MASK).dtype == dtype


# ---------------------------------------------------------------- whitening


def test_whiten_centres_and_scales_by_the_sample_deviation():
    x = torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN]], dtype=torch.float64)
    # mean 3, deviations -2, 0, 2, variance (4 + 0 + 4) / 2 = 4
    s = 2 / math.sqrt(4 + 1e-8)
    want = torch.tensor([[-s, 0, 0], [s, 0, 0]], dtype=torch.float64)
    close(ops.whiten(x, MASK), want)
    kept = torch.tensor([[3 - s, 3, 0], [3 + s, 0, 0]], dtype=torch.float64)
    got = ops.whiten(x, MASK, shift_mean=False)
    close(got, kept)


def test_whiten_removes_the_mean_unless_told_otherwise():
    x = torch.tensor([[3.0, 4.0, 8.0]], dtype=torch.float64)
    mask = torch.ones(1, 3).bool()
    assert abs(ops.whiten(x, mask).mean().item()) < 1e-15
    assert abs(ops.whiten(x, mask).std().item() - 1) < 1e-8
    assert abs(ops.whiten(x, mask, shift_mean=False).mean().item() - 5) < 1e-14


def test_whiten_keeps_its_epsilon_inside_the_root():
    x = torch.tensor([[1e-4, -1e-4]], dtype=torch.float64)  # variance 2e-8
    got = ops.whiten(x, torch.ones(1, 2).bool())
    close(got, x / math.sqrt(3e-8))
    same = ops.whiten(torch.full((1, 2), 7.0), torch.ones(1, 2).bool())
    assert same.tolist() == [[0, 0]]


def test_whiten_needs_two_true_entries(refuses):
    for trues in (0, 1):
        mask = torch.tensor([[trues == 1, F, F]])
        with refuses(
            f"mask: got {trues} True, wanted at least two for a sample variance"
        ):
            ops.whiten(X[:1], mask)
    assert ops.whiten(X[:1], torch.tensor([[T, T, F]])).isfinite().all()


# ---------------------------------------------------------------- log-probabilities


def test_token_logps_on_hand_worked_odds():
    logits = torch.tensor([[[1.0, 3.0], [2.0, 2.0]]], dtype=torch.float64).log()
    got = ops.token_logps(logits, torch.tensor([[0, 1]]))
    want = torch.tensor([[0.25, 0.5]], dtype=torch.float64).log()  # 1/(1+3), 2/(2+2)
    assert got.shape == (1, 2)
    close(got, want)


def test_token_logps_gradient_is_one_hot_minus_probability(grad_of):
    logits = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]], dtype=torch.float64)
    (slope,) = grad_of(lambda z: ops.token_logps(z, torch.tensor([[0, 1]])), logits)
    want = torch.tensor([[[0.5, -0.5], [-0.25, 0.25]]], dtype=torch.float64)
    close(slope, want)


def test_a_log_probability_moves_with_the_logits_of_its_own_step_only(grad_of):
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    actions = torch.tensor([[0, 2, 1, 1]])
    (slope,) = grad_of(lambda z: ops.token_logps(z, actions)[:, 2], logits)
    assert (slope[0, 2] != 0).all()
    assert (slope[0, [0, 1, 3]] == 0).all()


def test_temperature_divides_the_logits():
    logits = torch.tensor([[[1.0, 3.0, 0.5]]], dtype=torch.float64)
    action = torch.tensor([[1]])
    hot = ops.token_logps(logits, action, temperature=2.0)
    assert torch.equal(hot, ops.token_logps(logits / 2, action))
    assert hot.item() < ops.token_logps(logits, action).item()
    assert torch.equal(
        ops.token_logps(logits, action),
        ops.token_logps(logits, action, temperature=1.0),
    )


def test_a_logit_of_minus_infinity_is_a_probability_of_zero(grad_of):
    logits = torch.tensor([[[0.0, -math.inf, 0.0]]], dtype=torch.float64)
    assert ops.token_logps(logits, torch.tensor([[1]])).item() == -math.inf
    assert ops.token_logps(logits, torch.tensor([[0]])).item() == -math.log(2)
    (slope,) = grad_of(lambda z: ops.token_logps(z, torch.tensor([[0]])), logits)
    assert slope.flatten().tolist() == [0.5, 0, -0.5]


def test_huge_logits_give_finite_log_probabilities_and_gradients(grad_of):
    logits = torch.tensor([[[1e4, -1e4]]], dtype=torch.float64)
    assert ops.token_logps(logits, torch.tensor([[1]])).item() == -2e4
    (slope,) = grad_of(lambda z: ops.token_logps(z, torch.tensor([[1]])), logits)
    assert slope.flatten().tolist() == [-1, 1]


def test_token_logps_says_what_is_wrong(refuses):
    logits = torch.zeros(1, 2, 3)
    with refuses("actions: got 3 at index (0, 1), wanted integers in 0 … 2"):
        ops.token_logps(logits, torch.tensor([[0, 3]]))
    with refuses("actions: got -1 at index (0, 0), wanted integers in 0 … 2"):
        ops.token_logps(logits, torch.tensor([[-1, 0]]))
    with refuses("actions: got shape (2,), wanted shape (1, 2)"):
        ops.token_logps(logits, torch.tensor([0, 1]))
    with refuses("actions: got torch.float32, wanted integers"):
        ops.token_logps(logits, torch.zeros(1, 2))
    with refuses("logits: got list, wanted a Tensor"):
        ops.token_logps([[0.0]], torch.tensor([[0]]))
    with refuses("temperature: got 0, wanted a number above 0"):
        ops.token_logps(logits, torch.tensor([[0, 1]]), temperature=0)


def test_actions_of_any_integer_type_are_scored(seeded):
    logits = torch.randn(2, 3, 4, generator=seeded(1))
    actions = torch.tensor([[0, 1, 2], [3, 2, 1]])
    want = ops.token_logps(logits, actions)
    for dtype in (torch.int32, torch.uint8, torch.int8):
        assert torch.equal(ops.token_logps(logits, actions.to(dtype)), want)


def test_sequence_logps_adds_the_true_tokens_of_each_row(grad_of):
    assert ops.sequence_logps(X, MASK).tolist() == [3, 10]  # 1 + 2, 10
    (slope,) = grad_of(lambda x: ops.sequence_logps(x, MASK), X)
    assert slope.tolist() == [[1, 1, 0], [1, 0, 0]]
    assert (
        ops.sequence_logps(X[0], MASK[0]).item() == 3
    )  # one row without its batch axis


# ---------------------------------------------------------------- entropy


def test_entropy_on_hand_worked_distributions():
    rows = torch.tensor(
        [[1, 1, 1, 1], [1, 1, 0, 0], [3, 1, 0, 0], [1, 0, 0, 0]]
    ).double()
    want = [
        math.log(4),
        math.log(2),
        -0.75 * math.log(0.75) - 0.25 * math.log(0.25),
        0,
    ]
    got = ops.entropy(rows.log())
    assert got.shape == (4,)
    close(got, torch.tensor(want, dtype=torch.float64))


def test_entropy_has_a_finite_gradient_where_a_probability_is_zero(grad_of):
    logits = torch.tensor([math.log(3), 0.0, -math.inf], dtype=torch.float64)
    (slope,) = grad_of(ops.entropy, logits)
    h = ops.entropy(logits).item()
    p = torch.tensor([0.75, 0.25], dtype=torch.float64)
    want = -p * (p.log() + h)  # dH/dz_i = -p_i (log p_i + H)
    close(slope[:2], want)
    assert slope[2] == 0


def test_a_step_up_the_entropy_flattens_the_policy(grad_of):
    logits = torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64)
    (slope,) = grad_of(ops.entropy, logits)
    assert ops.entropy(logits + 0.1 * slope) > ops.entropy(logits)


def test_entropy_wants_a_tensor(refuses):
    with refuses("logits: got float, wanted a Tensor"):
        ops.entropy(1.0)


# ---------------------------------------------------------------- sampling


def test_a_sample_is_the_inverse_of_the_cumulative_distribution_at_one_uniform(seeded):
    logits = torch.randn(500, 3, dtype=torch.float64, generator=seeded(1))
    uniform = torch.rand(500, dtype=torch.float64, generator=seeded(2))
    got = ops.sample(logits, generator=seeded(2))
    cdf = torch.softmax(logits, -1).cumsum(-1)
    for action, u, c in zip(got.tolist(), uniform.tolist(), cdf.tolist(), strict=True):
        assert (c[action - 1] if action else 0) <= u < c[action] + 1e-15
    assert got.dtype == torch.int64


def test_sampled_frequencies_agree_with_the_probabilities(seeded):
    p = torch.tensor([0.5, 0.3, 0.0, 0.2], dtype=torch.float64)
    n = 40_000
    counts = ops.sample(p.log().expand(n, 4), generator=seeded()).bincount(minlength=4)
    error = (counts / n - p).abs()
    assert (error <= 4 * (p * (1 - p) / n).sqrt()).all()  # four standard errors
    assert counts[2] == 0


@pytest.mark.parametrize("only", [0, 1, 2])
def test_an_action_of_probability_zero_is_never_sampled(only, seeded):
    logits = torch.full((2000, 3), -math.inf)
    logits[:, only] = 5.0
    assert (ops.sample(logits, generator=seeded()) == only).all()


def test_sampling_keeps_the_leading_shape(seeded):
    assert ops.sample(torch.zeros(2, 3, 5), generator=seeded()).shape == (2, 3)
    assert ops.sample(torch.zeros(5), generator=seeded()).shape == ()
    assert ops.sample(torch.zeros(7, 1), generator=seeded()).tolist() == [0] * 7


def test_sampling_depends_on_its_generator_alone(seeded):
    logits = torch.zeros(64, 4)
    before = torch.random.get_rng_state()
    first = ops.sample(logits, generator=seeded(3))
    assert torch.equal(first, ops.sample(logits, generator=seeded(3)))
    assert not torch.equal(first, ops.sample(logits, generator=seeded(4)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_float32_logits_draw_the_actions_of_their_float64_copies(seeded):
    logits = torch.randn(2000, 3, generator=seeded(5))
    assert torch.equal(
        ops.sample(logits, generator=seeded(6)),
        ops.sample(logits.double(), generator=seeded(6)),
    )


def test_a_large_vocabulary_in_float32_is_drawn_without_its_rounding(seeded):
    size, seed = 99_991, 1717  # with this seed two draws lie within float32's rounding
    uniform = torch.rand(20, dtype=torch.float64, generator=seeded(seed))
    got = ops.sample(torch.zeros(20, size), generator=seeded(seed))
    assert torch.equal(got, (uniform * size).long())


def test_sampling_wants_logits_that_are_a_distribution(seeded, refuses):
    with refuses("logits: got list, wanted a Tensor"):
        ops.sample([0.0], generator=seeded())
    wanted = "wanted at least one finite logit a row, no NaN, no +inf"
    for bad in ([NAN, 0.0], [-math.inf, -math.inf], [math.inf, 0.0]):
        logits = torch.tensor([[0.0, 0.0], bad])
        with refuses(f"logits: got no distribution in row (1,), {wanted}"):
            ops.sample(logits, generator=seeded())


def test_the_first_row_without_a_distribution_is_named_by_all_its_indices(
    refuses, seeded
):
    logits = torch.zeros(2, 3, 2)
    logits[0, 2], logits[1, 0] = NAN, NAN
    wanted = "wanted at least one finite logit a row, no NaN, no +inf"
    with refuses(f"logits: got no distribution in row (0, 2), {wanted}"):
        ops.sample(logits, generator=seeded())


# ---------------------------------------------------------------- properties


rows = st.integers(1, 4).flatmap(
    lambda b: st.integers(1, 5).flatmap(
        lambda t: st.tuples(
            st.lists(
                st.lists(st.floats(-50, 50), min_size=t, max_size=t),
                min_size=b,
                max_size=b,
            ),
            st.lists(
                st.lists(st.booleans(), min_size=t, max_size=t), min_size=b, max_size=b
            ),
        )
    )
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(rows)
def test_the_means_agree_with_loops_over_any_rows(drawn):
    x, mask = drawn
    mask[0][0] = True
    xs, ms = torch.tensor(x, dtype=torch.float64), torch.tensor(mask)
    kept = [
        [v for v, m in zip(xr, mr, strict=True) if m] for xr, mr in drawn_rows(x, mask)
    ]
    flat = [v for row in kept for v in row]
    assert ops.token_mean(xs, ms).item() == pytest.approx(
        sum(flat) / len(flat), abs=1e-9
    )
    fixed = sum(flat) / (len(x) * 3)
    assert ops.fixed_length_mean(xs, ms, length=3).item() == pytest.approx(
        fixed, abs=1e-9
    )
    if all(kept):
        mean = sum(sum(row) / len(row) for row in kept) / len(kept)
        assert ops.sequence_mean(xs, ms).item() == pytest.approx(mean, abs=1e-9)
    with_garbage = xs.masked_fill(~ms, NAN)
    assert torch.equal(ops.token_mean(with_garbage, ms), ops.token_mean(xs, ms))


def drawn_rows(x, mask):
    """Pairs of a row of numbers and a row of flags."""
    return list(zip(x, mask, strict=True))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.floats(-300, 300), min_size=1, max_size=6), st.floats(0.1, 10))
def test_probabilities_of_all_actions_sum_to_one_and_entropy_is_bounded(
    logits, temperature
):
    z = torch.tensor(logits, dtype=torch.float64)
    n = len(logits)
    every = ops.token_logps(z.expand(n, n), torch.arange(n), temperature=temperature)
    assert every.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert -1e-12 <= ops.entropy(z).item() <= math.log(n) + 1e-12
