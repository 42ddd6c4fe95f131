"""Rejection sampling: answer many times, keep what the reward likes best, imitate it.

A selection turns rewards (P, G), of G completions to each of P prompts, into the pairs
(prompt, completion) that are kept: an int64 Tensor (N, 2). Each has a control that keeps
as many at random: what the control gains as well is not the reward model's doing.
"""

import torch
from torch import Tensor

from lib import require


def top_per_prompt(rewards: Tensor) -> Tensor:
    """The best completion of every prompt, (P, 2), prompts in order.

    Of equals the first. Every prompt stays in the data, however badly it was answered.
    """
    _matrix(rewards)
    return _pairs(torch.arange(len(rewards)), rewards.argmax(1).cpu())


def top_k_overall(rewards: Tensor, k: int) -> Tensor:
    """The k best completions of all, (k, 2), best first; ties in index order.

    An easy prompt may take many places and a hard one none.
    """
    _matrix(rewards)
    _at_most(k, rewards)
    order = rewards.flatten().sort(descending=True, stable=True).indices[:k].cpu()
    return _pairs(order // rewards.shape[1], order % rewards.shape[1])


def random_per_prompt(rewards: Tensor, *, generator: torch.Generator) -> Tensor:
    """The control of `top_per_prompt`: any completion of every prompt, (P, 2)."""
    _matrix(rewards)
    prompts, group = rewards.shape
    picked = torch.randint(group, (prompts,), generator=generator)
    return _pairs(torch.arange(prompts), picked)


def random_k_overall(rewards: Tensor, k: int, *, generator: torch.Generator) -> Tensor:
    """The control of `top_k_overall`: any k completions, each at most once, (k, 2)."""
    _matrix(rewards)
    _at_most(k, rewards)
    order = torch.randperm(rewards.numel(), generator=generator)[:k]
    return _pairs(order // rewards.shape[1], order % rewards.shape[1])


def _pairs(prompts: Tensor, completions: Tensor) -> Tensor:
    return torch.stack((prompts, completions), 1)


def _matrix(rewards: Tensor) -> None:
    require.tensor("rewards", rewards)
    if rewards.ndim != 2 or rewards.numel() == 0:
        got = f"shape {tuple(rewards.shape)}"
        require.refuse("rewards", got, "shape (P, G), not empty")
    require.finite("rewards", rewards)


def _at_most(k: int, rewards: Tensor) -> None:
    require.count("k", k)
    if k > rewards.numel():
        require.refuse("k", k, f"at most {rewards.numel()}, all completions there are")
