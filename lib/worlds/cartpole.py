"""CartPole: a pole on a cart, pushed left or right 50 times a second, in batches.

The equations of Barto, Sutton & Anderson (1983) as gymnasium's `CartPole-v1` integrates
them (Euler). gymnasium stays the environment of record and the judge; this copy steps a
whole batch at once. Tensors in, tensors out; the arithmetic between is numpy's, which
on a handful of carts takes a quarter of the time that torch spends on calling its
kernels.
"""

import math

import numpy as np
import torch
from torch import Tensor

from lib import require
from lib.worlds.environment import World

GRAVITY = 9.8  # m/s²
CART, POLE = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # m, from the hinge to the pole's centre of mass
FORCE = 10.0  # N
DT = 0.02  # s
X_LIMIT = 2.4  # m
THETA_LIMIT = 12 * math.pi / 180  # rad
UNITS = (1.0, 1.0, 0.1, 1.0)  # m, m/s, rad, rad/s: makes the four numbers comparable
HORIZON = 500  # steps: the time limit of CartPole-v1


def step(states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One push: (..., 4), (...) in {0 left, 1 right} -> next, rewards, terminated.

    A state is (x m, ẋ m/s, θ rad, θ̇ rad/s); each push is rewarded with 1. Equal to
    gymnasium's step to 1e-12 in float64.
    """
    require.tensor("states", states)
    if states.ndim == 0 or states.shape[-1] != 4:
        require.refuse("states", f"shape {tuple(states.shape)}", "shape (..., 4)")
    require.tensor("actions", actions, states.shape[:-1])
    require.integers("actions", actions, 2)
    require.finite("states", states)
    return _push(states, actions)


def _push(states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`step` without its questions, for a world that made states and actions itself."""
    now = states.numpy(force=True)  # (..., 4)
    force = FORCE * (2 * actions.numpy(force=True).astype(now.dtype) - 1)
    theta_acc, x_acc = accelerations(now[..., 2], now[..., 3], force)
    change = np.stack((now[..., 1], x_acc, now[..., 3], theta_acc), -1)
    after = now + DT * change  # Euler: all four move by the old derivatives
    fallen = (abs(after[..., 0]) > X_LIMIT) | (abs(after[..., 2]) > THETA_LIMIT)
    terminated = torch.from_numpy(np.asarray(fallen)).to(states.device)
    following = torch.from_numpy(after).to(states.device)
    return following, states.new_ones(states.shape[:-1]), terminated


def accelerations(
    theta: np.ndarray, theta_dot: np.ndarray, force: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(θ̈ rad/s², ẍ m/s²) of the pole and of the cart under a force in newtons.

    `temp` is what the cart's acceleration would be if the pole did not push back.
    """
    sin, cos = np.sin(theta), np.cos(theta)
    total = CART + POLE
    temp = (force + POLE * HALF_LENGTH * theta_dot**2 * sin) / total
    inertia = HALF_LENGTH * (4 / 3 - POLE * cos**2 / total)
    theta_acc = (GRAVITY * sin - cos * temp) / inertia
    return theta_acc, temp - POLE * HALF_LENGTH * theta_acc * cos / total


def reset(batch: int, generator: torch.Generator) -> Tensor:
    """(B, 4) starts, each number uniform in ±0.05."""
    require.count("batch", batch)
    return torch.rand(batch, 4, dtype=torch.float64, generator=generator) * 0.1 - 0.05


def world(*, horizon: int = HORIZON) -> World:
    """CartPole to be played, cut off after `horizon` steps."""
    return World(
        reset, lambda states, actions, generator: _push(states, actions), horizon
    )
