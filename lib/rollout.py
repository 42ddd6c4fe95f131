"""The record that both worlds write into, and what a world is.

A row of a `Rollout` is one episode: a pole kept up, a room heated, a completion
written. After this record nothing in the book can tell a pole from a sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lib import require


@dataclass(frozen=True)
class World:
    """Two functions and a clock: all that an agent may touch of its environment."""

    reset: Callable[[int, torch.Generator], Tensor]  # (B, generator) -> states (B, ...)
    step: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]
    # ^ states (B, ...), actions (B,) -> next states, rewards (B,), terminated (B,) bool
    horizon: int  # steps until the clock cuts an episode off: truncation

    def __post_init__(self) -> None:
        require.count("horizon", self.horizon)


@dataclass(frozen=True)
class Rollout:
    """A batch of episodes, one a row, padded on the right."""

    states: Tensor  # (B, T, ...)  what the policy saw
    actions: Tensor  # (B, T)       what it did
    logps: Tensor  # (B, T)       log π_old(action | state), nats
    rewards: Tensor  # (B, T)
    mask: Tensor  # (B, T) bool  True where the policy chose
    last_states: Tensor  # (B, ...)     the state after the last action
    terminated: Tensor  # (B,) bool    it ended by itself; False: the clock cut it off

    def __post_init__(self) -> None:
        for name in ("actions", "logps", "rewards"):
            require.mask_of(getattr(self, name), self.mask, name)
        require.tensor("terminated", self.terminated, self.mask.shape[:1])
        require.tensor("last_states", self.last_states)
        shape = (*self.mask.shape, *self.last_states.shape[1:])
        require.tensor("states", self.states, shape)
        require.tensor("last_states", self.last_states, (len(self.mask), *shape[2:]))

    @property
    def lengths(self) -> Tensor:
        """(B,) steps in each episode."""
        return self.mask.sum(-1)

    @property
    def returns(self) -> Tensor:
        """(B,) undiscounted sum of each episode's rewards."""
        return self.rewards.masked_fill(~self.mask, 0).sum(-1)

    @property
    def ends(self) -> Tensor:
        """(B, T) bool: True on the last step of each episode."""
        after = torch.zeros_like(self.mask)
        after[:, :-1] = self.mask[:, 1:]
        return self.mask & ~after

    def rows(self, index: Tensor) -> "Rollout":
        """The rollout of these rows only (a minibatch)."""
        return Rollout(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def __len__(self) -> int:
        return len(self.mask)
