"""Weights for answers of another policy: by hand, against enumeration, and at the edges."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lib.losses import policy_gradient as pg
from lib.losses.off_policy import (
    dropped,
    effective_sample_size,
    geometric_weights,
    importance_weights,
    mismatch,
    sequence_weights,
    truncated,
    weighted,
    within,
)
from lib.ops import token_logps
from lib.sampling import filter_logits
from lib.seeds import generator
from lib.worlds import exact

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
T, F = True, False
NAN, INF = math.nan, math.inf
LOG2 = math.log(2)
MASK = torch.tensor([[F, T, T], [T, T, F]])
# two completions of two tokens: ratios 4 and 1/2, then 1 and 1/4
SAMPLER = torch.tensor([[NAN, -3, -1], [-1, -2, NAN]], dtype=torch.float64)
LOGPS = SAMPLER + LOG2 * torch.tensor([[7, 2, -1], [0, -2, INF]], dtype=torch.float64)
WEIGHTS = {
    "token": importance_weights,
    "sequence": sequence_weights,
    "geometric": geometric_weights,
}


def refuses(name, call):
    """`call` raises the house's error about this argument."""
    with pytest.raises(ValueError, match=f"^{name}: got .*, wanted "):
        call()


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


# ---------------------------------------------------------------- by hand


def test_a_tokens_weight_is_its_ratio():
    close(importance_weights(LOGPS, SAMPLER, MASK), f64([0, 4, 0.5], [1, 0.25, 0]))


def test_a_completions_weight_is_the_product_of_its_tokens():
    close(sequence_weights(LOGPS, SAMPLER, MASK), f64(2, 0.25))


def test_the_geometric_weight_is_its_root():
    close(geometric_weights(LOGPS, SAMPLER, MASK), f64(2**0.5, 0.5))


def test_a_truncated_weight_is_at_most_the_cap():
    close(truncated(f64(0, 0.5, 2, 4), cap=2), f64(0, 0.5, 2, 2))
    close(truncated(f64(0.5, 3)), f64(0.5, 2))


def test_a_dropped_weight_is_zero_outside_the_band_and_the_ends_are_inside():
    close(dropped(f64(0.49, 0.5, 1, 2, 2.01)), f64(0, 0.5, 1, 2, 0))
    close(dropped(f64(0.1, 9), low=0, high=INF), f64(0.1, 9))
    assert within(f64(0.5, 3, 2), low=1, high=2).tolist() == [F, F, T]


def test_the_four_modes_of_trl_on_hand_worked_numbers():
    # TRL: exp of the (summed) difference, then clamp(max=cap), or 0 where it is above
    tokens, rows = (
        f(LOGPS, SAMPLER, MASK) for f in (importance_weights, sequence_weights)
    )
    close(truncated(tokens, cap=3), f64([0, 3, 0.5], [1, 0.25, 0]))  # token_truncate
    close(dropped(tokens, low=0, high=3), f64([0, 0, 0.5], [1, 0.25, 0]))  # token_mask
    close(truncated(rows, cap=1.5), f64(1.5, 0.25))  # sequence_truncate
    close(dropped(rows, low=0, high=1.5), f64(0, 0.25))  # sequence_mask


def test_a_weight_multiplies_the_advantage_of_a_token_or_of_a_completion():
    credit = f64([NAN, 1, 2], [3, -4, NAN])
    tokens = importance_weights(LOGPS, SAMPLER, MASK)
    close(weighted(credit, tokens, MASK), f64([0, 4, 1], [3, -1, 0]))
    close(weighted(f64(3, -1), tokens, MASK), f64([0, 12, 1.5], [-1, -0.25, 0]))
    close(weighted(credit, f64(2, 0.25), MASK), f64([0, 2, 4], [0.75, -1, 0]))
    close(weighted(f64(3, -1), f64(2, 0.25), MASK), f64([0, 6, 6], [-0.25, -0.25, 0]))


def test_the_effective_sample_size_of_hand_worked_weights():
    every = torch.ones(4, dtype=torch.bool)
    for weights, share in [
        (f64(3, 3, 3, 3), 1),
        (f64(0, 7, 0, 0), 0.25),
        (f64(1, 3, 0, 0), 16 / 10 / 4),
        (f64(0, 0, 0, 0), 0),
        (f64(1e300, 1e300, 0, 0), 0.5),
    ]:
        close(effective_sample_size(weights, every), f64(share)[0])
    some = torch.tensor([T, T, F, F])
    close(effective_sample_size(f64(1, 3, NAN, 9), some), f64(0.8)[0])


def test_mismatch_on_hand_worked_numbers():
    got = mismatch(LOGPS, SAMPLER, MASK, low=0.4, high=2.5)
    want = {  # log-ratios 2, -1, 0, -2 in units of log 2
        "log_ratio": 5 / 4 * LOG2,
        "kl": (4 + 0.5 + 1 + 0.25 - 4 + LOG2) / 4,  # ρ - 1 - log ρ
        "outside": 0.5,  # 4 and 1/4
        "ess_token": 5.75**2 / (16 + 0.25 + 1 + 0.0625) / 4,
        "ess_sequence": 2.25**2 / (4 + 0.0625) / 2,
    }
    assert got == pytest.approx(want, abs=1e-12)


def test_a_policy_that_samples_for_itself_has_weights_of_one_and_no_mismatch():
    own = mismatch(SAMPLER, SAMPLER, MASK)
    same = {"log_ratio": 0, "kl": 0, "outside": 0, "ess_token": 1, "ess_sequence": 1}
    assert own == pytest.approx(same, abs=1e-15)


# ---------------------------------------------------------------- what carries a gradient


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_is_data(name):
    logps, sampler = LOGPS.clone().requires_grad_(), SAMPLER.clone().requires_grad_()
    weights = WEIGHTS[name](logps, sampler, MASK)
    assert not weights.requires_grad
    credit = f64(1, 2).requires_grad_()
    assert not weighted(credit, weights, MASK).requires_grad


def test_a_weighted_loss_has_the_weighted_gradient():
    logps = LOGPS.clone().requires_grad_()
    weights = importance_weights(logps, SAMPLER, MASK)
    loss, _ = pg.reinforce(logps, weighted(f64(1, -1), weights, MASK), MASK)
    (slope,) = torch.autograd.grad(loss, logps)
    close(slope, f64([0, -2, -0.25], [0.5, 0.125, 0]))  # -w · A / 2 rows


# ---------------------------------------------------------------- against enumeration

VOCABULARY, END = 3, 2
WORDS = exact.every_completion([END], tokens=range(3), end=END, max_tokens=3)


def table(name, scale=1.0):
    """A policy over short strings with random logits."""
    policy = exact.PrefixTable(VOCABULARY, 3)
    draw = torch.randn(
        policy.logits.shape,
        dtype=torch.float64,
        generator=generator("off-policy", name),
    )
    policy.logits.data.copy_(scale * draw)
    return policy


def each_token(policy, *, top_p=None):
    """log-probabilities of every token of every completion: (K, T)."""
    logits = filter_logits(policy(WORDS.states), top_p=top_p)
    return token_logps(logits, WORDS.actions).masked_fill(~WORDS.mask, 0)


def expected_gradient(policy, sampler_logps, weights, credit):
    """E over μ of the gradient that reinforce gives with these weights: (N,)."""
    chance = sampler_logps.sum(-1).exp()  # (K,)
    advantages = weighted(credit, weights, WORDS.mask) * chance.unsqueeze(-1)
    loss, _ = pg.reinforce(each_token(policy), advantages, WORDS.mask)
    return exact.gradient(-loss * len(WORDS), policy)


REWARDS = torch.randn(len(WORDS), dtype=torch.float64, generator=generator("pay"))


def truth(policy):
    """The gradient of J: (N,)."""
    logps = exact.completion_logps(policy, WORDS)
    return exact.gradient(exact.expected(REWARDS, logps), policy)


def test_the_whole_completions_weight_makes_the_expected_gradient_exact():
    policy, sampler = table("learner"), each_token(table("sampler")).detach()
    weights = sequence_weights(each_token(policy), sampler, WORDS.mask)
    for baseline in (0.0, 5.0):  # a constant changes nothing
        got = expected_gradient(policy, sampler, weights, REWARDS - baseline)
        close(got, truth(policy))


def test_without_weights_or_with_those_of_tokens_it_is_another_gradient():
    policy, sampler = table("learner"), each_token(table("sampler")).detach()
    tokens = importance_weights(each_token(policy), sampler, WORDS.mask)
    gaps = []
    for weights in (torch.ones_like(tokens), tokens):
        got = expected_gradient(policy, sampler, weights, REWARDS)
        gaps.append((got - truth(policy)).norm() / truth(policy).norm())
    assert gaps[0] > gaps[1] > 0.05


def test_weights_of_whole_completions_sum_to_one_and_cannot_mend_what_is_never_drawn():
    policy = table("learner")
    mine = each_token(policy)
    for sampler, total in [
        (each_token(table("sampler")).detach(), 1.0),
        (each_token(policy, top_p=0.7).detach(), None),
    ]:
        drawn = (sampler > -INF).all(-1)
        rows = sequence_weights(mine[drawn], sampler[drawn], WORDS.mask[drawn])
        mean = (sampler[drawn].sum(-1).exp() * rows).sum()
        if total is None:  # the learner's own mass on what the sampler may write
            total = mine[drawn].sum(-1).exp().sum().item()
            assert total < 0.7
        close(mean, f64(total)[0])


# ---------------------------------------------------------------- properties and edges


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 4), st.floats(1, 5))
def test_truncating_and_dropping_only_ever_lower_a_weight(seed, cap, high):
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn(7, dtype=torch.float64, generator=draw).exp()
    cut, left = truncated(weights, cap=cap), dropped(weights, low=0, high=high)
    assert (cut <= weights).all() and (cut <= cap).all()
    assert ((left == weights) | (left == 0)).all() and (left <= high).all()
    every = torch.ones(7, dtype=torch.bool)
    share = effective_sample_size(weights, every)
    assert 1 / 7 - 1e-12 <= share <= 1 + 1e-12
    assert effective_sample_size(cut, every) >= share - 1e-12


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_gives_finite_weights(name, dtype):
    logps = torch.tensor([[0.0, 0.0], [-1.0, 0.0]], dtype=dtype)
    sampler = torch.tensor([[-300.0, -300.0], [-1.0, -2.0]], dtype=dtype)
    mask = torch.tensor([[T, T], [T, F]])
    weights = WEIGHTS[name](logps, sampler, mask)
    assert weights.dtype == torch.float32 and weights.isfinite().all()
    assert weights[1].flatten()[0] == 1


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_the_learner_never_writes_weighs_nothing(name):
    weights = WEIGHTS[name](f64([-INF, 0]), f64([-1, -1]), torch.tensor([[T, T]]))
    assert weights.flatten()[0] == 0 and weights.isfinite().all()


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_row_without_a_token_weighs_nothing(name):
    mask = torch.tensor([[T, F, T], [F, F, F]])
    assert not WEIGHTS[name](LOGPS.nan_to_num(0), SAMPLER.nan_to_num(0), mask)[1].any()


@pytest.mark.parametrize("name", [*WEIGHTS, "mismatch"])
def test_what_is_no_log_probability_is_refused(name):
    call = {**WEIGHTS, "mismatch": mismatch}[name]
    refuses("sampler_logps", lambda: call(LOGPS, SAMPLER[:1], MASK))
    never = SAMPLER.masked_fill(MASK, -INF)  # drawn, though it has no probability
    refuses("sampler_logps", lambda: call(LOGPS, never, MASK))
    refuses("logps", lambda: call(LOGPS * NAN, SAMPLER, MASK))
    refuses("mask", lambda: call(LOGPS, SAMPLER, MASK.long()))
    refuses("mask", lambda: call(LOGPS, SAMPLER, MASK & False))


def test_bad_weights_caps_and_bands_are_refused():
    every = torch.ones(2, dtype=torch.bool)
    for bad in (f64(1, -0.1), f64(NAN, 1)):
        refuses("weights", lambda bad=bad: truncated(bad))
        refuses("weights", lambda bad=bad: dropped(bad))
        refuses("weights", lambda bad=bad: effective_sample_size(bad, every))
        refuses("weights", lambda bad=bad: weighted(f64(1, 1), bad, MASK))
    refuses("cap", lambda: truncated(f64(1, 1), cap=0))
    refuses("low", lambda: dropped(f64(1, 1), low=-1))
    refuses("high", lambda: dropped(f64(1, 1), low=2, high=1))
    refuses("high", lambda: within(f64(1, 1), high=NAN))
    refuses("weights", lambda: weighted(f64(1, 1), f64(1, 1, 1), MASK))
    refuses("advantages", lambda: weighted(f64(1, 1, 1), f64(1, 1), MASK))
