"""Rewards in, advantages out: hand-worked rows, slow definitions, and the famous bugs."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lib.advantages import (
    gae,
    group_centred,
    group_normalised,
    group_relative_success,
    leave_one_out,
    reward_to_go,
)

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
T, F = True, False
NAN = math.nan


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


# ---------------------------------------------------------------- reward-to-go


def test_reward_to_go_on_a_hand_worked_row():
    rewards = f64([1, 2, 4, NAN], [8, NAN, NAN, NAN])
    mask = torch.tensor([[T, T, T, F], [T, F, F, F]])
    # 4; 2 + 4/2 = 4; 1 + 4/2 = 3
    close(reward_to_go(rewards, mask, gamma=0.5), f64([3, 4, 4, 0], [8, 0, 0, 0]))
    close(reward_to_go(rewards, mask), f64([7, 6, 4, 0], [8, 0, 0, 0]))
    close(reward_to_go(rewards, mask, gamma=0), f64([1, 2, 4, 0], [8, 0, 0, 0]))


def test_reward_to_go_of_a_single_step_is_its_reward():
    rewards, mask = f64([3], [8]), torch.ones(2, 1, dtype=torch.bool)
    close(reward_to_go(rewards, mask, gamma=0.5), rewards)


def test_reward_to_go_starts_where_the_mask_starts():
    mask = torch.tensor([[F, F, T, T], [F, T, T, F], [F, F, F, F]])
    got = reward_to_go(torch.ones(3, 4).double(), mask, gamma=0.5)
    close(got, f64([0, 0, 1.5, 1], [0, 1.5, 1, 0], [0, 0, 0, 0]))


def test_one_row_without_its_batch_axis_and_a_batch_of_batches_are_welcome():
    rewards, mask = f64([1, 2, 4], [8, 1, 1]), torch.tensor([[T, T, T], [T, F, F]])
    want = reward_to_go(rewards, mask, gamma=0.5)
    close(reward_to_go(rewards[0], mask[0], gamma=0.5), want[0])
    close(reward_to_go(rewards[None], mask[None], gamma=0.5), want[None])
    end = torch.zeros_like(mask)
    flat = gae(rewards, rewards, rewards, end, end, gamma=0.5, lam=0.5)
    for axes in (lambda x: x[0], lambda x: x[None]):
        x, none = axes(rewards), axes(end)
        got = gae(x, x, x, none, none, gamma=0.5, lam=0.5)
        close(got[0], axes(flat[0]))
        close(got[1], axes(flat[1]))


def test_with_one_reward_at_the_end_reward_to_go_is_the_bandit_view():
    rewards = f64([0, 0, 3, NAN], [0, -1, NAN, NAN])
    mask = torch.tensor([[T, T, T, F], [T, T, F, F]])
    close(reward_to_go(rewards, mask), f64([3, 3, 3, 0], [-1, -1, 0, 0]))


def test_garbage_behind_the_mask_reaches_no_return(unmoved):
    mask = torch.tensor([[T, T, F, F], [F, F, T, F]])
    weights = f64([1, 2, 3, 4], [5, 6, 7, 8])
    rewards = torch.ones(2, 4).double()
    unmoved(lambda r: reward_to_go(r, mask, gamma=0.9) * weights, rewards, mask)


def test_the_gradient_of_reward_to_go_is_the_discount(grad_of):
    mask = torch.ones(1, 3).bool()
    (slope,) = grad_of(
        lambda r: reward_to_go(r, mask, gamma=0.5), torch.ones(1, 3).double()
    )
    close(slope, f64([1, 1.5, 1.75]))  # each reward counts once per earlier step


def test_a_gap_in_the_mask_is_refused(refuses):
    for row in ([T, F, T], [T, F, T], [T, F, T]):
        with refuses("mask: got a row with a gap, wanted contiguous True in each row"):
            reward_to_go(torch.ones(2, 3), torch.tensor([[T, T, T], row]))


def test_reward_to_go_says_what_is_wrong(refuses):
    ones, mask = torch.ones(1, 2), torch.ones(1, 2).bool()
    with refuses("gamma: got 1.1, wanted a number in [0, 1]"):
        reward_to_go(ones, mask, gamma=1.1)
    with refuses("rewards: got shape (1, 2), wanted shape (2,)"):
        reward_to_go(ones, mask[0])
    with refuses(
        "rewards: got NaN at index (0, 1), wanted no NaN where the mask is True"
    ):
        reward_to_go(torch.tensor([[1.0, NAN]]), mask)
    with refuses("rewards: got inf at index (0, 0), wanted finite numbers"):
        reward_to_go(torch.tensor([[math.inf, 1.0]]), mask)
    with refuses("mask: got an empty mask of shape (1, 0), wanted at least one entry"):
        reward_to_go(torch.ones(1, 0), torch.ones(1, 0).bool())


# ---------------------------------------------------------------- GAE


def slow_gae(rewards, values, next_values, terminated, truncated, gamma, lam):
    """A_t = Σ_k (gamma·lam)^k delta_{t+k} up to the end of the episode that t lies in."""
    batch, time = rewards.shape
    advantages = torch.zeros_like(rewards)
    for b in range(batch):
        for t in range(time):
            for k in range(t, time):
                future = 0.0 if terminated[b, k] else next_values[b, k].item()
                delta = rewards[b, k].item() + gamma * future - values[b, k].item()
                advantages[b, t] += (gamma * lam) ** (k - t) * delta
                if terminated[b, k] or truncated[b, k]:
                    break
    return advantages


@pytest.fixture
def played(seeded):
    """Numbers of 4 rows × 7 steps with every kind of ending, next_values unlike values."""
    draw = partial(torch.randn, 4, 7, dtype=torch.float64, generator=seeded(1))
    terminated = torch.rand(4, 7, generator=seeded(2)) < 0.25
    truncated = torch.rand(4, 7, generator=seeded(3)) < 0.25
    terminated[0, 2] = truncated[0, 2] = True  # both at once
    assert (terminated & ~truncated).any() and (truncated & ~terminated).any()
    return draw(), draw(), draw(), terminated, truncated


@pytest.mark.parametrize("gamma", [0, 0.9, 1])
@pytest.mark.parametrize("lam", [0, 0.5, 1])
def test_gae_agrees_with_its_definition_step_by_step(played, gamma, lam):
    advantages, returns = gae(*played, gamma=gamma, lam=lam)
    close(advantages, slow_gae(*played, gamma, lam))
    close(returns, advantages + played[1])


def test_gae_on_a_hand_worked_row():
    rewards, values, after = f64([1, 2, 4]), f64([1, 0, 2]), f64([2, 4, 8])
    none = torch.tensor([[F, F, F]])
    # deltas 1 + 2/2 - 1 = 1; 2 + 4/2 - 0 = 4; 4 + 8/2 - 2 = 6; gamma·lam = 1/4
    advantages, returns = gae(rewards, values, after, none, none, gamma=0.5, lam=0.5)
    close(advantages, f64([1 + (4 + 6 / 4) / 4, 4 + 6 / 4, 6]))
    close(returns, f64([2.375 + 1, 5.5, 8]))
    end = torch.tensor([[F, T, F]])
    # terminated: delta_1 = 2 - 0 = 2 and nothing flows back into it
    advantages, _ = gae(rewards, values, after, end, none, gamma=0.5, lam=0.5)
    close(advantages, f64([1 + 2 / 4, 2, 6]))
    # truncated: delta_1 = 4 as if it went on, and nothing flows back into it
    advantages, _ = gae(rewards, values, after, none, end, gamma=0.5, lam=0.5)
    close(advantages, f64([1 + 4 / 4, 4, 6]))


def test_lambda_zero_is_the_one_step_error(played):
    rewards, values, after, terminated, _ = played
    advantages, _ = gae(*played, gamma=0.9, lam=0)
    close(advantages, rewards + 0.9 * after.masked_fill(terminated, 0) - values)


def test_lambda_one_is_reward_to_go_minus_the_value():
    rewards, values = f64([1, 2, 4], [3, 0, 5]), f64([7, 8, 9], [1, 1, 2])
    after = f64([8, 9, NAN], [1, 2, NAN])  # V of the true successor
    end, none = torch.tensor([[F, F, T]] * 2), torch.zeros(2, 3).bool()
    advantages, returns = gae(rewards, values, after, end, none, gamma=0.9, lam=1)
    want = reward_to_go(rewards, torch.ones(2, 3).bool(), gamma=0.9)
    close(returns, want)
    close(advantages, want - values)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("lam", [0, 0.95, 1])
def test_a_clock_surprises_no_value_that_is_right(gamma, lam):
    # reward 1 for ever is worth 1/(1 - gamma), wherever the clock cuts
    value = torch.full((2, 8), 1 / (1 - gamma), dtype=torch.float64)
    cut = torch.zeros(2, 8).bool()
    cut[0, 3] = cut[0, 7] = cut[1, 0] = True
    none = torch.zeros_like(cut)
    ones = torch.ones_like(value)
    advantages, returns = gae(ones, value, value, none, cut, gamma=gamma, lam=lam)
    close(advantages, torch.zeros_like(value))
    close(returns, value)
    mistaken, _ = gae(ones, value, value, cut, none, gamma=gamma, lam=lam)
    assert mistaken[0, 3].item() == pytest.approx(-gamma / (1 - gamma))


def test_truncation_reads_the_true_successor_and_not_the_reset(played):
    rewards, values, after, _, truncated = played
    none = torch.zeros_like(truncated)
    before, _ = gae(rewards, values, after, none, truncated, gamma=0.9, lam=0.9)
    other = torch.where(truncated, after + 1, after)
    moved, _ = gae(rewards, values, other, none, truncated, gamma=0.9, lam=0.9)
    close((moved - before)[truncated], torch.full_like(before[truncated], 0.9))


def test_where_both_ends_are_set_termination_wins(played):
    both = torch.ones(4, 7).bool()
    rewards, values, after, *_ = played
    advantages, _ = gae(rewards, values, after, both, both, gamma=0.9, lam=0.9)
    close(advantages, rewards - values)


@pytest.mark.parametrize("ended", ["terminated", "truncated"])
def test_a_second_episode_changes_no_bit_of_the_first(played, ended):
    rewards, values, after, *_ = played
    end, none = torch.zeros(4, 7).bool(), torch.zeros(4, 7).bool()
    end[:, 3] = True
    flags = (end, none) if ended == "terminated" else (none, end)
    first, _ = gae(rewards, values, after, *flags, gamma=0.9, lam=0.9)
    others = [x.clone() for x in (rewards, values, after)]
    for x in others:
        x[:, 4:] += 17
    second, _ = gae(*others, *flags, gamma=0.9, lam=0.9)
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


def test_the_value_behind_a_termination_may_be_garbage(played, grad_of):
    rewards, values, after, terminated, truncated = played

    def advantages(after):
        return gae(rewards, values, after, terminated, truncated, gamma=0.9, lam=0.9)[0]

    clean = advantages(after)
    dirty = after.masked_fill(terminated, NAN)
    assert torch.equal(advantages(dirty), clean)
    (slope,) = grad_of(advantages, dirty)
    assert (slope[terminated] == 0).all() and (slope[~terminated] > 0).all()


def test_gae_of_one_step_and_of_float32():
    one = torch.ones(1, 1)
    flag = torch.zeros(1, 1).bool()
    advantages, returns = gae(one, one, one, flag, flag, gamma=0.5, lam=0.9)
    close(advantages, torch.tensor([[0.5]]))  # 1 + 1/2 - 1, and float32 stays float32
    close(returns, torch.tensor([[1.5]]))


def test_gae_says_what_is_wrong(refuses):
    x, flag = torch.ones(1, 2), torch.zeros(1, 2).bool()
    good = {"rewards": x, "values": x, "next_values": x, "terminated": flag}
    good |= {"truncated": flag, "gamma": 0.9, "lam": 0.9}
    bad = {
        "gamma": (-0.1, "got -0.1, wanted a number in [0, 1]"),
        "lam": (2, "got 2, wanted a number in [0, 1]"),
        "rewards": ([1.0], "got list, wanted a Tensor"),
        "values": (torch.ones(2), "got shape (2,), wanted shape (1, 2)"),
        "next_values": (torch.ones(2), "got shape (2,), wanted shape (1, 2)"),
        "terminated": (flag[0], "got shape (2,), wanted shape (1, 2)"),
        "truncated": (flag.long(), "got torch.int64, wanted torch.bool"),
    }
    for name, (value, message) in bad.items():
        with refuses(f"{name}: {message}"):
            gae(**{**good, name: value})
    with refuses("terminated: got torch.float32, wanted torch.bool"):
        gae(**{**good, "terminated": flag.float()})
    with refuses("truncated: got shape (1, 3), wanted shape (1, 2)"):
        gae(**{**good, "truncated": torch.zeros(1, 3).bool()})
    for name in ("rewards", "values", "next_values"):
        with refuses(f"{name}: got nan at index (0, 1), wanted finite numbers"):
            gae(**{**good, name: torch.tensor([[1.0, NAN]])})
    empty = {n: v[:, :0] if isinstance(v, torch.Tensor) else v for n, v in good.items()}
    with refuses("rewards: got shape (1, 0), wanted at least one step"):
        gae(**empty)


# ---------------------------------------------------------------- groups

GROUPS = f64([1, 2, 6], [4, 4, 4], [0, 0, 1])
ALL = (leave_one_out, group_centred, group_normalised, group_relative_success)


def test_leave_one_out_compares_with_the_mean_of_the_others():
    # 1 - (2+6)/2, 2 - (1+6)/2, 6 - (1+2)/2; 0 - 1/2, 0 - 1/2, 1 - 0
    want = f64([-3, -1.5, 4.5], [0, 0, 0], [-0.5, -0.5, 1])
    close(leave_one_out(GROUPS), want)


def test_the_baseline_of_a_completion_does_not_contain_its_own_reward():
    jacobian = torch.autograd.functional.jacobian(leave_one_out, GROUPS[:1])[0, :, 0]
    close(jacobian, torch.eye(3).double() * 1.5 - 0.5)  # 1 on the diagonal, -1/2 beside


def test_group_centred_subtracts_the_mean():
    want = f64([-2, -1, 3], [0, 0, 0], [-1 / 3, -1 / 3, 2 / 3])
    close(group_centred(GROUPS), want)


def test_leave_one_out_is_a_stretched_centring():
    close(leave_one_out(GROUPS), group_centred(GROUPS) * 3 / 2)  # G / (G - 1)


def test_group_normalised_divides_by_the_sample_deviation_plus_eps():
    s = math.sqrt(7) + 1e-4  # (4 + 1 + 9) / 2 = 7
    t = math.sqrt(1 / 3) + 1e-4  # (1/9 + 1/9 + 4/9) / 2 = 1/3
    want = f64([-2 / s, -1 / s, 3 / s], [0, 0, 0], [-1 / 3 / t, -1 / 3 / t, 2 / 3 / t])
    close(group_normalised(GROUPS), want)
    r = math.sqrt(7)
    close(group_normalised(GROUPS[:1], eps=0), f64([-2 / r, -1 / r, 3 / r]))
    close(group_normalised(GROUPS[:1], eps=1), f64([-2, -1, 3]) / (r + 1))


def test_group_relative_success_divides_by_the_success_rate():
    groups = f64([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1])
    want = f64([3, -1, -1, -1], [1, 1, -1, -1], [0, 0, 0, 0], [0, 0, 0, 0])
    close(group_relative_success(groups), want)  # (1 - 1/4)/(1/4) = 3


@pytest.mark.parametrize("function", [leave_one_out, group_centred, group_normalised])
@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.3, 1e8, 0.0])
def test_equal_rewards_give_exactly_zero(function, value):
    for size in (2, 3, 7, 10):
        rewards = torch.full((2, size), value)
        rewards[1, 0] += 1 + abs(value)  # another group does differ
        got = function(rewards)
        assert (got[0] == 0).all()
        assert (got[1] != 0).all()


def test_equal_rewards_give_exactly_zero_without_eps():
    got = group_normalised(torch.tensor([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0]]), eps=0)
    assert got.tolist() == [[0, 0, 0], [-1, 0, 1]]


@pytest.mark.parametrize("function", ALL)
def test_a_group_needs_two(function, refuses):
    for shape in ((3, 1), (3, 0), (4,), (0, 4), (2, 2, 2), ()):
        with refuses(f"rewards: got shape {shape}, wanted shape (P, G) with G >= 2"):
            function(torch.zeros(shape))
    assert function(torch.tensor([[1.0, 0.0]])).shape == (1, 2)


@pytest.mark.parametrize("function", ALL)
def test_a_group_of_rewards_is_finite(function, refuses):
    with refuses("rewards: got list, wanted a Tensor"):
        function([[1.0, 2.0]])
    with refuses("rewards: got nan at index (0, 1), wanted finite numbers"):
        function(torch.tensor([[1.0, NAN]]))
    with refuses("rewards: got -inf at index (0, 0), wanted finite numbers"):
        function(torch.tensor([[-math.inf, 1.0]]))


@pytest.mark.parametrize("function", ALL)
def test_rewards_of_a_verifier_may_be_ints_or_bools(function):
    want = function(torch.tensor([[1.0, 0.0, 0.0]]))
    close(function(torch.tensor([[1, 0, 0]])), want)
    close(function(torch.tensor([[T, F, F]])), want)


def test_success_is_zero_or_one(refuses):
    for bad in (0.5, 2.0, -1.0):
        with refuses(
            "rewards: got a value other than 0 and 1, wanted rewards of 0 or 1"
        ):
            group_relative_success(torch.tensor([[1.0, bad]]))


def test_eps_is_no_negative_number(refuses):
    with refuses("eps: got -1e-09, wanted a number of at least 0"):
        group_normalised(GROUPS, eps=-1e-9)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8),
    st.floats(-100, 100),
    st.floats(0.1, 10),
)
def test_advantages_ignore_a_shift_and_sum_to_zero(rewards, shift, scale):
    r = f64(rewards)
    for function in (leave_one_out, group_centred):
        advantages = function(r)
        assert abs(advantages.sum().item()) < 1e-9 * (1 + r.abs().sum().item())
        assert_close(function(r + shift), advantages, rtol=0, atol=1e-9)
        assert_close(function(r * scale), advantages * scale, rtol=0, atol=1e-8)
