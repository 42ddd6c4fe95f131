"""What the policy-gradient losses share: ρ = π / π_old, its clip, and what is told of it.

Arguments are checked here, where they enter, and nowhere below. Shapes: logps,
old_logps, mask (B, T); one number a completion (B,). What lies behind the mask is 0.
"""

import torch
from torch import Tensor

from lib import require
from lib.kl import exp_limit
from lib.ops import fill_masked, filled_mean, narrow, to_floats, wide

Loss = tuple[Tensor, dict[str, float]]


def spread(advantages: Tensor, mask: Tensor) -> Tensor:
    """(B,) or (B, T) -> (B, T): one number a completion is one for each of its tokens."""
    require.tensor("advantages", advantages)
    require.tensor("mask", mask)
    if advantages.ndim == 1 and mask.ndim == 2 and len(advantages) == len(mask):
        return advantages.unsqueeze(-1).expand(mask.shape)
    return advantages


def per_token(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    every_row: bool = False,
    **data: Tensor,
) -> list[Tensor]:
    """[logps, log π - log π_old, advantages, *data] under the mask, (B, T) each.

    The first two carry a gradient. `every_row` wants a True in each.
    """
    data = {"old_logps": old_logps, "advantages": spread(advantages, mask)} | data
    now, old, *rest = fill_masked(
        mask, logps=logps, **data, infinite="logps", every_row=every_row
    )
    log_ratio = clamped(wide(now) - wide(old).detach(), logps.dtype)
    return [now, log_ratio, *(x.detach() for x in rest)]


def per_row(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    every_row: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """log π - log π_old (B, T), advantages (B,), and which rows have a True (B,)."""
    require.tensor("advantages", advantages)
    require.tensor("mask", mask)
    if mask.ndim != 2 or advantages.shape != mask.shape[:1]:
        wanted = f"shape {tuple(mask.shape[:1])}, one number a completion"
        require.refuse("advantages", f"shape {tuple(advantages.shape)}", wanted)
    _, log_ratio, _ = per_token(logps, old_logps, advantages, mask, every_row=every_row)
    rows = mask.any(-1)
    return log_ratio, advantages.detach().masked_fill(~rows, 0), rows


def clamped(log_ratio: Tensor, dtype: torch.dtype) -> Tensor:
    """Held within ± `exp_limit`: ρA and its gradient stay finite in this dtype."""
    limit = exp_limit(dtype)
    return log_ratio.clamp(-limit, limit)


def clipped(
    log_ratio: Tensor, weights: Tensor, mask: Tensor, low: float, high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's surrogate, the smaller of ρA and clip(ρ)A, and its metrics."""
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * weights, ratio.clamp(low, high) * weights)
    return surrogate, ratio_metrics(log_ratio, mask, low, high)


def ratio_metrics(
    log_ratio: Tensor, mask: Tensor, low: float, high: float
) -> dict[str, Tensor]:
    """clip_fraction and approx_kl (the mean of ρ - 1 - log ρ) over the True entries."""
    log_ratio = log_ratio.detach()
    ratio = log_ratio.exp()
    outside = ((ratio < low) | (ratio > high)) & mask
    return {
        "clip_fraction": filled_mean(outside.to(ratio.dtype), mask),
        "approx_kl": filled_mean(torch.expm1(log_ratio) - log_ratio, mask),
    }


def as_loss(loss: Tensor, logps: Tensor, metrics: dict[str, Tensor]) -> Loss:
    """A loss in the dtype of the log-probabilities, and its metrics as floats."""
    return narrow(loss, logps), to_floats(metrics)
