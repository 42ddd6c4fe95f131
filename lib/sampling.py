"""A policy meets a world: `play` writes what happened into a Rollout."""

import torch
from torch import Tensor, nn

from lib import require
from lib.ops import sample, token_logps
from lib.rollout import Rollout, World


@torch.no_grad()
def play(policy: nn.Module, world: World, *, batch: int, generator: torch.Generator) -> Rollout:
    """`batch` episodes side by side, each until it terminates or the clock cuts it off.

    The loop of reinforcement learning: observe, act, be rewarded. An episode that has
    ended stays where it ended; its mask is False from there on. All randomness comes from
    `generator`.
    """
    require.count("batch", batch)
    states = world.reset(batch, generator)  # (B, ...)
    alive = torch.ones(batch, dtype=torch.bool)
    seen, logits, actions, rewards, mask = [], [], [], [], []
    for _ in range(world.horizon):
        seen.append(states)
        mask.append(alive)
        logits.append(policy(states.unsqueeze(1)).squeeze(1))  # observe     (B, A)
        actions.append(sample(logits[-1], generator=generator))  # act         (B,)
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


def _like(flags: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, …) so that it selects rows of x."""
    return flags.reshape(-1, *[1] * (x.ndim - 1))
