"""What the policy-gradient losses share: ρ = π / π_old, its clip, and what is told of it.

Shapes: logps, old_logps, mask (B, T); one number a completion (B,). What lies behind
the mask reaches nothing.
"""

import math

import torch
from torch import Tensor

from lib import require
from lib.ops import masked, token_mean


def per_token(advantages: Tensor, mask: Tensor) -> Tensor:
    """(B,) or (B, T) -> (B, T), without gradient, 0 behind the mask."""
    require.tensor("advantages", advantages)
    require.tensor("mask", mask)
    if advantages.ndim == 1 and mask.ndim == 2 and len(advantages) == len(mask):
        advantages = advantages.unsqueeze(-1).expand(mask.shape)
    return finite(advantages, mask, "advantages").detach()


def per_row(advantages: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) advantages, without gradient, and which rows have a True at all."""
    require.tensor("advantages", advantages)
    require.tensor("mask", mask)
    if mask.ndim != 2 or advantages.shape != mask.shape[:1]:
        wanted = f"shape {tuple(mask.shape[:1])}, one number a completion"
        require.refuse("advantages", f"shape {tuple(advantages.shape)}", wanted)
    rows = mask.any(-1)
    return finite(advantages, rows, "advantages").detach(), rows


def pessimistic(log_ratio: Tensor, weights: Tensor, low: float, high: float) -> Tensor:
    """PPO's surrogate: the smaller of ρA and clip(ρ)A."""
    ratio = log_ratio.exp()
    return torch.minimum(ratio * weights, ratio.clamp(low, high) * weights)


def clipped(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    bounds: tuple[float, float],
) -> tuple[Tensor, dict[str, float]]:
    """PPO's surrogate at every token, (B, T), and its metrics: what is left is a mean."""
    weights = per_token(advantages, mask)
    log_ratio = log_ratio_of(logps, old_logps, mask)
    surrogate = pessimistic(log_ratio, weights, *bounds)
    return surrogate, ratio_metrics(log_ratio, mask, *bounds)


def finite(x: Tensor, mask: Tensor, name: str) -> Tensor:
    """`ops.masked`, and what is kept must be finite."""
    filled = masked(x, mask, name)
    require.finite(name, x, mask)
    return filled


def log_ratio_of(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    """log π - log π_old, (B, T), 0 behind the mask; held where `exp` stays finite."""
    old = finite(old_logps, mask, "old_logps").detach()
    return clamped(masked(logps, mask, "logps") - old)


def clamped(log_ratio: Tensor) -> Tensor:
    """Held within ± half of what `exp` can take: ρA and its gradient stay finite."""
    limit = math.log(torch.finfo(log_ratio.dtype).max) / 2
    return log_ratio.clamp(-limit, limit)


def ratio_metrics(
    log_ratio: Tensor, mask: Tensor, low: float, high: float
) -> dict[str, float]:
    """clip_fraction and approx_kl (the mean of ρ - 1 - log ρ) over the True tokens."""
    log_ratio = log_ratio.detach()
    ratio = log_ratio.exp()
    outside = ((ratio < low) | (ratio > high)).to(ratio.dtype)
    return {
        "clip_fraction": token_mean(outside, mask).item(),
        "approx_kl": token_mean(torch.expm1(log_ratio) - log_ratio, mask).item(),
    }
