"""What a world is, and a policy in it: `play` writes what happened into a Rollout.

Its twin for language, `lib.sampling.complete`, meets prompts instead.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import require
from lib.ops import sample, token_logps
from lib.rollout import Rollout


@dataclass(frozen=True)
class World:
    """Two functions and a clock: all that an agent may touch of its environment."""

    reset: Callable[[int, torch.Generator], Tensor]  # (B, generator) -> states (B, ...)
    step: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]
    # ^ states (B, ...), actions (B,) -> next states, rewards (B,), terminated (B,) bool
    horizon: int  # steps until the clock cuts an episode off: truncation

    def __post_init__(self) -> None:
        require.count("horizon", self.horizon)


@torch.no_grad()
def play(
    policy: nn.Module,
    world: World,
    *,
    batch: int,
    generator: torch.Generator,
    start: Tensor | None = None,
    horizon: int | None = None,
) -> Rollout:
    """`batch` episodes side by side, each until it terminates or the clock cuts it off.

    The loop of reinforcement learning: observe, act, be rewarded. An episode that has
    ended stays where it ended; its mask is False from there on. `start` (B, ...)
    replaces the world's own first states and `horizon` its clock. All randomness comes
    from `generator`.
    """
    require.count("batch", batch)
    horizon = world.horizon if horizon is None else horizon
    require.count("horizon", horizon)
    states = world.reset(batch, generator) if start is None else start  # (B, ...)
    require.tensor("start", states, (batch, *states.shape[1:]))
    alive = torch.ones(batch, dtype=torch.bool, device=states.device)
    seen, logits, actions, rewards, mask = [], [], [], [], []
    for _ in range(horizon):
        seen.append(states)
        mask.append(alive)
        logits.append(policy(states.unsqueeze(1)).squeeze(1))  # observe (B, A)
        actions.append(sample(logits[-1], generator=generator))  # act (B,)
        after, reward, ended = world.step(states, actions[-1], generator)
        rewards.append(reward.masked_fill(~alive, 0))  # be rewarded (B,)
        states = torch.where(_like(alive, states), after, states)
        alive = alive & ~ended
        if not alive.any():
            break
    taken = torch.stack(actions, 1)  # (B, T)
    return Rollout(
        states=torch.stack(seen, 1),
        actions=taken,
        logps=token_logps(torch.stack(logits, 1), taken),
        rewards=torch.stack(rewards, 1),
        mask=torch.stack(mask, 1),
        last_states=states,
        terminated=~alive,
    )


def episodes(
    policy: nn.Module, world: World, *, batch: int, generator: torch.Generator
) -> Iterator[Rollout]:
    """For ever: `batch` whole episodes from the world's own start."""
    while True:
        yield play(policy, world, batch=batch, generator=generator)


def clips(
    policy: nn.Module,
    world: World,
    *,
    batch: int,
    length: int,
    generator: torch.Generator,
) -> Iterator[Rollout]:
    """For ever: the next `length` steps of the same `batch` episodes.

    A clip goes on where the last one stopped; only an episode that terminated, or is at
    least `world.horizon` steps old, begins anew.
    """
    states = world.reset(batch, generator)
    age = torch.zeros(batch, dtype=torch.int64, device=states.device)
    while True:
        clip = play(
            policy,
            world,
            batch=batch,
            generator=generator,
            start=states,
            horizon=length,
        )
        yield clip
        age = age + clip.lengths
        over = clip.terminated | (age >= world.horizon)
        fresh = world.reset(batch, generator)
        states = torch.where(_like(over, fresh), fresh, clip.last_states)
        age = age.masked_fill(over, 0)


def _like(flags: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, …) so that it selects rows of x."""
    return flags.reshape(-1, *[1] * (x.ndim - 1))
