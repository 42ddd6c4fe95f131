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
    clamped,
    clipped,
    finite,
    log_ratio_of,
    per_row,
    per_token,
    pessimistic,
    ratio_metrics,
)
from lib.ops import fixed_length_mean, masked, masked_mean, sequence_mean, token_mean

Loss = tuple[Tensor, dict[str, float]]


def reinforce(logps: Tensor, advantages: Tensor, mask: Tensor) -> Loss:
    """-(Σ_t logps · A), mean over rows: expected gradient -∇J (Williams 1992)."""
    weights = per_token(advantages, mask)
    total = (masked(logps, mask, "logps") * weights).sum(-1)  # (B,)
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
    weights = per_token(advantages, mask)
    log_ratio = log_ratio_of(logps, old_logps, mask)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * weights, clipped * weights)
    metrics = ratio_metrics(log_ratio, mask, 1 - clip, 1 + clip)
    return -token_mean(surrogate, mask), metrics


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
    weights, rows = per_row(advantages, mask)
    log_ratio = clamped(log_ratio_of(logps, old_logps, mask).sum(-1))  # (B,)
    surrogate = pessimistic(log_ratio, weights, 1 - clip, 1 + clip)
    return -surrogate.mean(), ratio_metrics(log_ratio, rows, 1 - clip, 1 + clip)


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
    bounds = 1 - clip, 1 + clip
    surrogate, metrics = clipped(logps, old_logps, advantages, mask, bounds)
    if beta == 0:
        return -sequence_mean(surrogate, mask), metrics
    if ref_logps is None:
        require.refuse("ref_logps", None, "a tensor, since beta is above 0")
    ref = finite(ref_logps, mask, "ref_logps")
    penalty = k3(masked(logps, mask, "logps"), ref)  # (B, T)
    metrics["kl"] = token_mean(penalty.detach(), mask).item()
    return sequence_mean(beta * penalty - surrogate, mask), metrics


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
    bounds = 1 - clip, 1 + clip
    surrogate, metrics = clipped(logps, old_logps, advantages, mask, bounds)
    return -fixed_length_mean(surrogate, mask, length=length), metrics


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
    bounds = _bounds(clip_low, clip_high)
    surrogate, metrics = clipped(logps, old_logps, advantages, mask, bounds)
    return -token_mean(surrogate, mask), metrics


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
    weights, rows = per_row(advantages, mask)
    require.every_row_true(mask)
    each = log_ratio_of(logps, old_logps, mask)
    log_ratio = masked_mean(each, mask, dim=-1)  # (B,)
    surrogate = pessimistic(log_ratio, weights, low, high)
    return -surrogate.mean(), ratio_metrics(log_ratio, rows, low, high)


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
    weights = per_token(advantages, mask)
    log_ratio = log_ratio_of(logps, old_logps, mask).detach()
    weight = log_ratio.exp().clamp(max=clip_high) * weights
    metrics = ratio_metrics(log_ratio, mask, -math.inf, clip_high)
    return -token_mean(weight * masked(logps, mask, "logps"), mask), metrics


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
    weights = per_token(advantages, mask)
    log_ratio = log_ratio_of(logps, old_logps, mask)
    tau = torch.full_like(weights, tau_negative)
    tau = tau.masked_fill(weights > 0, tau_positive)
    gate = torch.sigmoid(tau * (log_ratio.exp() - 1)) * 4 / tau
    metrics = {"approx_kl": ratio_metrics(log_ratio, mask, 0, math.inf)["approx_kl"]}
    return -sequence_mean(gate * weights, mask), metrics


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
    new = finite(values, mask, "values")
    old = finite(old_values, mask, "old_values").detach()
    target = finite(returns, mask, "returns").detach()
    near = old + (new - old).clamp(-clip, clip)
    error = torch.maximum((new - target).square(), (near - target).square())
    outside = ((new - old).abs() > clip).to(new.dtype)
    return 0.5 * token_mean(error, mask), {
        "clip_fraction": token_mean(outside, mask).item()
    }


def _bounds(clip_low: float, clip_high: float) -> tuple[float, float]:
    require.positive("clip_low", clip_low)
    require.positive("clip_high", clip_high)
    return 1 - clip_low, 1 + clip_high
