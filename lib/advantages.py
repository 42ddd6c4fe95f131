"""Compared with what? Rewards in, advantages out.

A policy gradient multiplies log-probabilities by *some* number per action. The choices
here leave its expectation alone (or nearly so) and change its variance, which is what
decides whether learning takes a minute or a month.
"""

import torch
from torch import Tensor

from lib import require
from lib.ops import masked


def reward_to_go(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """G_t = r_t + gamma · G_{t+1} inside the mask, 0 outside: (B, T) -> (B, T).

    An action cannot change a reward that came before it, so those rewards are noise.
    The True entries of a row must be contiguous.
    """
    require.unit_interval("gamma", gamma)
    filled = masked(rewards, mask, "rewards")
    require.finite("rewards", rewards, mask)
    begins = mask[..., 1:] & ~mask[..., :-1]
    if (mask[..., 0].long() + begins.sum(-1) > 1).any():
        require.refuse("mask", "a row with a gap", "contiguous True in each row")
    returns, later = [], torch.zeros_like(filled[..., 0])
    for now in filled.unbind(-1)[::-1]:
        later = now + gamma * later
        returns.append(later)
    return torch.stack(returns[::-1], -1).masked_fill(~mask, 0)


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, Eq. 16): (B, T) each.

    delta_t = r_t + gamma · V(s_{t+1}) - V(s_t); A_t = delta_t + gamma · lam · A_{t+1}.
    `next_values[t]` is V of the true successor, before any reset. A terminated step has
    no future: nothing is bootstrapped. A truncated one has a future that the clock hid:
    it bootstraps, but no advantage flows back across it. Both set: termination wins.

    Returns (advantages, returns = advantages + values), the latter V's regression
    target.
    """
    require.unit_interval("gamma", gamma)
    require.unit_interval("lam", lam)
    require.tensor("rewards", rewards)
    if rewards.numel() == 0:
        require.refuse("rewards", f"shape {tuple(rewards.shape)}", "at least one step")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        require.tensor(name, flag, rewards.shape)
        if flag.dtype != torch.bool:
            require.refuse(name, flag.dtype, "torch.bool")
    require.tensor("values", values, rewards.shape)
    require.tensor("next_values", next_values, rewards.shape)
    require.finite("rewards", rewards)
    require.finite("values", values)
    require.finite("next_values", next_values, ~terminated)

    future = next_values.masked_fill(terminated, 0)
    deltas = rewards + gamma * future - values  # (B, T)
    carries = gamma * lam * (~(terminated | truncated)).to(deltas.dtype)  # (B, T)
    advantages, later = [], torch.zeros_like(deltas[..., 0])
    for delta, carry in zip(deltas.unbind(-1)[::-1], carries.unbind(-1)[::-1]):
        later = delta + carry * later
        advantages.append(later)
    stacked = torch.stack(advantages[::-1], -1)
    return stacked, stacked + values


def leave_one_out(rewards: Tensor) -> Tensor:
    """r - mean of the *others* (RLOO; Ahmadian et al. 2024): (P, G) -> (P, G).

    The baseline of a completion does not contain its own reward, so it stays unbiased.
    """
    rewards = _group(rewards)
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return (rewards - others).masked_fill(_equal(rewards), 0)


def group_centred(rewards: Tensor) -> Tensor:
    """r - mean of the group (Dr. GRPO; Liu et al. 2025): (P, G) -> (P, G)."""
    return _centred(_group(rewards))


def group_normalised(rewards: Tensor, *, eps: float = 1e-4) -> Tensor:
    """(r - mean) / (std + eps), ddof 1 (GRPO; Shao et al. 2024): (P, G) -> (P, G).

    A group of equal rewards says nothing about what to do: exactly 0.
    """
    require.non_negative("eps", eps)
    rewards = _group(rewards)
    centred = _centred(rewards)
    spread = rewards.std(1, keepdim=True) + eps
    return centred / spread.masked_fill(_equal(rewards), 1)  # 0 / 1 whatever eps


def group_relative_success(rewards: Tensor) -> Tensor:
    """(r - mean) / mean on rewards of 0 or 1, 0 where the mean is 0 (MaxRL): (P, G)."""
    rewards = _group(rewards)
    if ((rewards != 0) & (rewards != 1)).any():
        require.refuse("rewards", "a value other than 0 and 1", "rewards of 0 or 1")
    mean = rewards.mean(1, keepdim=True)
    return (rewards - mean) / torch.where(mean == 0, 1, mean)


def _group(rewards: Tensor) -> Tensor:
    """Rewards (P, G), finite; a verifier's ints and bools become floats."""
    require.tensor("rewards", rewards)
    if rewards.ndim != 2 or len(rewards) == 0 or rewards.shape[1] < 2:
        require.refuse(
            "rewards", f"shape {tuple(rewards.shape)}", "shape (P, G) with G >= 2"
        )
    require.finite("rewards", rewards)
    return rewards.to(torch.result_type(rewards, 1.0))


def _centred(rewards: Tensor) -> Tensor:
    """r - mean; a mean of equal numbers can miss them by a rounding, so theirs is 0."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred.masked_fill(_equal(rewards), 0)


def _equal(rewards: Tensor) -> Tensor:
    """(P, 1): a group of equal rewards."""
    return (rewards == rewards[:, :1]).all(1, keepdim=True)
