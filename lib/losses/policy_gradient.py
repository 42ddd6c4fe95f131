"""Policy-gradient losses: (logps, …, advantages, mask) in, (loss, metrics) out.

A loss here is a device for `backward()`: its *gradient* is the algorithm, its value
means nothing. Advantages, old log-probabilities, old values and returns are data: they
carry no gradient, whether or not the caller detached them.

Shapes: logps, old_logps, values, mask (B, T); advantages (B, T), or (B,) for one number
a completion. Log-probabilities in nats.
"""

import math

import torch
from torch import Tensor

from lib import require
from lib.ops import kept, token_mean

Loss = tuple[Tensor, dict[str, float]]


def reinforce(logps: Tensor, advantages: Tensor, mask: Tensor) -> Loss:
    """-(Σ_t logps · A), mean over rows: expected gradient -∇J (Williams 1992)."""
    weights = _per_token(advantages, mask)
    total = (kept(logps, mask, "logps") * weights).sum(-1)  # (B,)
    nll = -token_mean(logps.detach(), mask)
    return -total.mean(), {"nll": nll.item()}


def ppo_clip(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
) -> Loss:
    """-min(ρA, clip(ρ, 1 ± clip)A), `token_mean` (PPO; Schulman et al. 2017, Eq. 7).

    ρ = π / π_old. The minimum is pessimistic: the gradient vanishes only where the
    ratio has already moved past the clip in the direction that the advantage asked for.
    """
    require.positive("clip", clip)
    weights = _per_token(advantages, mask)
    log_ratio = _log_ratio(logps, old_logps, mask)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * weights, clipped * weights)
    metrics = _ratio_metrics(log_ratio, mask, 1 - clip, 1 + clip)
    return -token_mean(surrogate, mask), metrics


def clipped_value(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
) -> Loss:
    """½ max((V - R)², (V_clip - R)²), `token_mean` (as in OpenAI's `baselines` PPO).

    V_clip = V_old + clamp(V - V_old, ± clip): never smaller than the plain squared
    error.
    """
    require.positive("clip", clip)
    new = _finite(values, mask, "values")
    old = _finite(old_values, mask, "old_values").detach()
    target = _finite(returns, mask, "returns").detach()
    near = old + (new - old).clamp(-clip, clip)
    error = torch.maximum((new - target).square(), (near - target).square())
    outside = ((new - old).abs() > clip).to(new.dtype)
    return 0.5 * token_mean(error, mask), {
        "clip_fraction": token_mean(outside, mask).item()
    }


def _per_token(advantages: Tensor, mask: Tensor) -> Tensor:
    """(B,) or (B, T) -> (B, T), without gradient, 0 behind the mask."""
    require.tensor("advantages", advantages)
    require.tensor("mask", mask)
    if advantages.ndim == 1 and mask.ndim == 2 and len(advantages) == len(mask):
        advantages = advantages.unsqueeze(-1).expand(mask.shape)
    return _finite(advantages, mask, "advantages").detach()


def _finite(x: Tensor, mask: Tensor, name: str) -> Tensor:
    filled = kept(x, mask, name)
    require.finite(name, x, mask)
    return filled


def _log_ratio(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    """log π - log π_old, (B, T), 0 behind the mask; held where `exp` stays finite."""
    old = _finite(old_logps, mask, "old_logps").detach()
    log_ratio = kept(logps, mask, "logps") - old
    limit = math.log(torch.finfo(log_ratio.dtype).max) / 2
    return log_ratio.clamp(-limit, limit)


def _ratio_metrics(
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
