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
from lib.kl import k3
from lib.losses.ratio import (
    Loss,
    as_loss,
    clamped,
    clipped,
    per_row,
    per_token,
    ratio_metrics,
    spread,
)
from lib.ops import fill_masked, filled_mean, wide


def reinforce(logps: Tensor, advantages: Tensor, mask: Tensor) -> Loss:
    """-(Σ_t logps · A), mean over rows: expected gradient -∇J (Williams 1992)."""
    each = spread(advantages, mask)
    now, weights = fill_masked(mask, logps=logps, advantages=each, infinite="logps")
    total = (wide(now) * weights.detach()).sum(-1)  # (B,)
    return as_loss(-total.mean(), logps, {"nll": -filled_mean(now.detach(), mask)})


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
    _, log_ratio, weights = per_token(logps, old_logps, advantages, mask)
    surrogate, metrics = clipped(log_ratio, weights, mask, 1 - clip, 1 + clip)
    return as_loss(-filled_mean(surrogate, mask), logps, metrics)


def rloo(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
) -> Loss:
    """PPO's clip on one ratio a completion, mean over rows (Ahmadian et al. 2024).

    ρ = exp(Σ_t log π - log π_old): the completion is the action. advantages (B,), of
    `advantages.leave_one_out` for instance. On-policy the gradient is REINFORCE's.
    """
    require.positive("clip", clip)
    each, weights, rows = per_row(logps, old_logps, advantages, mask)
    log_ratio = clamped(each.sum(-1), logps.dtype)  # (B,)
    surrogate, metrics = clipped(log_ratio, weights, rows, 1 - clip, 1 + clip)
    return as_loss(-surrogate.mean(), logps, metrics)


def grpo(
    logps: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    beta: float = 0.0,
) -> Loss:
    """PPO's clip and beta · k3 per token, `sequence_mean` (Shao et al. 2024, Eq. 3).

    `ref_logps` may be None when beta is 0. Metric `kl`: the `token_mean` of k3.
    """
    require.positive("clip", clip)
    require.non_negative("beta", beta)
    if beta and ref_logps is None:
        require.refuse("ref_logps", None, "a tensor, since beta is above 0")
    data = {"ref_logps": ref_logps} if beta else {}
    now, log_ratio, weights, *ref = per_token(
        logps, old_logps, advantages, mask, every_row=True, **data
    )
    gain, metrics = clipped(log_ratio, weights, mask, 1 - clip, 1 + clip)  # (B, T)
    if beta:
        penalty = k3(now, *ref)
        metrics["kl"] = filled_mean(penalty.detach(), mask)
        gain = gain - beta * penalty
    return as_loss(-filled_mean(gain, mask, -1).mean(), logps, metrics)


def dr_grpo(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    length: int,
    clip: float = 0.2,
) -> Loss:
    """PPO's clip, `fixed_length_mean` (Dr. GRPO; Liu et al. 2025).

    `length` is a constant such as the longest completion allowed: a token's weight then
    depends on nobody's length. Its other half, advantages without division by the
    standard deviation, is `advantages.group_centred`.
    """
    require.positive("clip", clip)
    require.count("length", length)
    _, log_ratio, weights = per_token(logps, old_logps, advantages, mask)
    surrogate, metrics = clipped(log_ratio, weights, mask, 1 - clip, 1 + clip)
    rows = mask[..., 0].numel()
    return as_loss(-surrogate.sum() / (rows * length), logps, metrics)


def dapo(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
) -> Loss:
    """A clip with more room upwards, `token_mean` (DAPO; Yu et al. 2025, Eq. 8).

    A rare token can only become likely if its ratio may grow: "clip-higher".
    """
    low, high = _bounds(clip_low, clip_high)
    _, log_ratio, weights = per_token(logps, old_logps, advantages, mask)
    surrogate, metrics = clipped(log_ratio, weights, mask, low, high)
    return as_loss(-filled_mean(surrogate, mask), logps, metrics)


def gspo(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Loss:
    """One ratio a completion, its length-th root, clipped (Zheng et al. 2025, Eq. 5).

    ρ = exp(mean_t log π - log π_old), mean over rows. advantages (B,).
    """
    low, high = _bounds(clip_low, clip_high)
    each, weights, rows = per_row(logps, old_logps, advantages, mask, every_row=True)
    log_ratio = filled_mean(each, mask, -1)  # (B,)
    surrogate, metrics = clipped(log_ratio, weights, rows, low, high)
    return as_loss(-surrogate.mean(), logps, metrics)


def cispo(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_high: float = 5.0,
) -> Loss:
    """-sg(min(ρ, clip_high)) · A · log π, `token_mean` (CISPO; MiniMax 2025, Eq. 4).

    REINFORCE, weighed by how much likelier the token has become. The weight is clipped,
    so that no token's gradient is dropped. Its gradient stops at the weight.
    """
    require.positive("clip_high", clip_high)
    now, log_ratio, weights = per_token(logps, old_logps, advantages, mask)
    weight = log_ratio.detach().exp().clamp(max=clip_high) * weights
    metrics = ratio_metrics(log_ratio, mask, -math.inf, clip_high)
    return as_loss(-filled_mean(weight * now, mask), logps, metrics)


def sapo(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
) -> Loss:
    """-σ(τ(ρ - 1)) · 4/τ · A, `sequence_mean` (SAPO; Gao et al. 2025): a soft clip.

    The gate's slope is 1 at ρ = 1 and falls off on both sides, sooner for tokens with
    A < 0 (`tau_negative`; A = 0 counts as negative and adds nothing).
    """
    require.positive("tau_positive", tau_positive)
    require.positive("tau_negative", tau_negative)
    _, log_ratio, weights = per_token(
        logps, old_logps, advantages, mask, every_row=True
    )
    tau = torch.full_like(log_ratio, tau_negative)
    tau = tau.masked_fill(weights > 0, tau_positive)
    gate = torch.sigmoid(tau * (log_ratio.exp() - 1)) * 4 / tau
    metrics = ratio_metrics(log_ratio, mask, 0, math.inf)
    del metrics["clip_fraction"]  # nothing is clipped
    return as_loss(-filled_mean(gate * weights, mask, -1).mean(), logps, metrics)


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
    filled = fill_masked(mask, values=values, old_values=old_values, returns=returns)
    new, old, target = map(wide, filled)
    old, target = old.detach(), target.detach()
    near = old + (new - old).clamp(-clip, clip)
    error = torch.maximum((new - target).square(), (near - target).square())
    outside = ((new - old).abs() > clip).to(new.dtype)
    metrics = {"clip_fraction": filled_mean(outside, mask)}
    return as_loss(0.5 * filled_mean(error, mask), values, metrics)


def _bounds(clip_low: float, clip_high: float) -> tuple[float, float]:
    require.positive("clip_low", clip_low)
    require.positive("clip_high", clip_high)
    return 1 - clip_low, 1 + clip_high
