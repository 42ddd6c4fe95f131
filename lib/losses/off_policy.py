"""Learning from answers that another policy wrote: importance weights, and their limits.

The sampler μ wrote the answers, the learner π learns from them. Its weights of an older
update, a lower precision or another temperature make μ differ from π. A weight π / μ
turns a mean over what μ writes into one over what π would write. A product of many
ratios varies wildly, so practice truncates weights, or drops what lies too far off:
less variance for some bias.

A weight is data and carries no gradient. `weighted` multiplies it into advantages, and
so into any loss of `lib.losses.policy_gradient`. Shapes: logps (of π), sampler_logps (of
μ, as the sampler normalised them) and mask (B, T); a weight is (B, T), one a token, or
(B,), one a completion; 0 behind the mask. Half precision is weighed in float32.
"""

import math

from torch import Tensor

from lib import require
from lib.kl import exp_limit, k3
from lib.losses.ratio import spread
from lib.ops import fill_masked, filled_mean, to_floats, wide

# --- weights --------------------------------------------------------------------------


def importance_weights(logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Tensor:
    """ρ_t = π / μ of each token, given its prefix: (B, T), without gradient.

    Actions from μ. It corrects how a token was chosen, not how often μ arrives at the
    prefix: with μ ≠ π the gradient stays biased, if less so.
    """
    each = _log_ratio(logps, sampler_logps, mask)
    return _exp(each).masked_fill(~mask, 0)


def sequence_weights(logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Tensor:
    """π(y) / μ(y) = Π_t ρ_t of each completion: (B,), without gradient.

    Actions from μ. Unbiased wherever μ > 0 if π > 0. Its variance may grow exponentially
    with the length (Precup et al. 2000).
    """
    total = _log_ratio(logps, sampler_logps, mask).sum(-1)
    return _exp(total).masked_fill(~mask.any(-1), 0)


def geometric_weights(logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Tensor:
    """(Π_t ρ_t)^(1 / length), the geometric mean of the ratios: (B,), without gradient.

    Actions from μ. The ratio of GSPO (Zheng et al. 2025): on one scale at every length,
    good for saying how far off a completion is. As a weight it is biased.
    """
    each = _log_ratio(logps, sampler_logps, mask)
    mean = each.sum(-1) / mask.sum(-1).clamp(min=1)
    return _exp(mean).masked_fill(~mask.any(-1), 0)


# --- what is done with a weight that is too large, or too far off ---------------------


def truncated(weights: Tensor, *, cap: float = 2.0) -> Tensor:
    """min(weight, cap), of tokens or of completions: any shape, unchanged.

    Truncated importance sampling (Ionides 2008; TIS, Yao et al. 2025); IMPALA's ρ-bar
    (Espeholt et al. 2018). No token is lost, and no weight exceeds the cap.
    """
    _weights(weights)
    require.positive("cap", cap)
    return weights.clamp(max=cap)


def dropped(weights: Tensor, *, low: float = 0.5, high: float = 2.0) -> Tensor:
    """The weight where low <= weight <= high, 0 elsewhere: any shape, unchanged.

    Masked importance sampling: of tokens IcePop (Ling team 2025), of completions the
    sequence masks of TRL and verl. What lies outside teaches nothing.
    """
    kept = within(weights, low=low, high=high)
    return weights.masked_fill(~kept, 0)


def within(weights: Tensor, *, low: float = 0.5, high: float = 2.0) -> Tensor:
    """Which weights lie in [low, high], both ends included: bool, the same shape.

    To judge by one weight and weigh by another: completions by their geometric mean,
    their tokens by ρ_t.
    """
    _weights(weights)
    require.non_negative("low", low)
    if high != math.inf:
        require.number("high", high)
    if high < low:
        require.refuse("high", high, f"at least low = {low}")
    return (weights >= low) & (weights <= high)


# --- into a loss, and what to watch ---------------------------------------------------


def weighted(advantages: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Weight · advantage of each token: (B, T), 0 behind the mask, without gradient.

    Either may be (B, T), or (B,) for one number a completion. Give the result to any
    loss of `lib.losses.policy_gradient` as its advantages; where the loss has a ratio
    of its own, that is π / π_old, and μ is not π_old.
    """
    each, credit = fill_masked(
        mask, weights=spread(weights, mask), advantages=spread(advantages, mask)
    )
    _weights(each)
    return (each * credit).detach()


def effective_sample_size(weights: Tensor, mask: Tensor) -> Tensor:
    """(Σ w)² / (N Σ w²) over the N True entries, in (0, 1]: a share, of no axes.

    Equal weights give 1, one weight among zeros 1 / N (Kong 1992). All zero: 0. weights
    and mask of one shape; of completions the mask is `mask.any(-1)`.
    """
    (each,) = fill_masked(mask, weights=weights)
    _weights(each)
    each = wide(each)
    each = each / each.max().clamp(min=1e-30)  # squares neither overflow nor vanish
    squares = each.square().sum() * mask.sum()
    return (each.sum().square() / squares.clamp(min=1e-30)).detach()


def mismatch(
    logps: Tensor,
    sampler_logps: Tensor,
    mask: Tensor,
    *,
    low: float = 0.5,
    high: float = 2.0,
) -> dict[str, float]:
    """How far the learner is from the sampler, by tokens that the sampler drew.

    log_ratio: mean |log π - log μ|, nats a token. kl: mean of k3, an estimate of
    KL(μ ‖ π) a token. outside: share of tokens with ρ outside [low, high]. ess_token,
    ess_sequence: effective sample size, as a share, of ρ_t and of Π_t ρ_t.
    """
    each = _log_ratio(logps, sampler_logps, mask)
    tokens = importance_weights(logps, sampler_logps, mask)
    rows = sequence_weights(logps, sampler_logps, mask)
    outside = ~within(tokens, low=low, high=high) & mask
    now, sampler = (
        wide(x.detach()).masked_fill(~mask, 0) for x in (logps, sampler_logps)
    )
    return to_floats(
        {
            "log_ratio": filled_mean(each.abs(), mask),
            "kl": filled_mean(k3(sampler, now), mask),
            "outside": filled_mean(outside.to(each.dtype), mask),
            "ess_token": effective_sample_size(tokens, mask),
            "ess_sequence": effective_sample_size(rows, mask.any(-1)),
        }
    )


def _log_ratio(logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Tensor:
    """log π - log μ under the mask, 0 elsewhere; π may be 0 where μ drew, μ not."""
    now, sampler = fill_masked(
        mask, logps=logps, sampler_logps=sampler_logps, infinite="logps"
    )
    return (wide(now) - wide(sampler)).detach()


def _exp(log_ratio: Tensor) -> Tensor:
    """Finite, and so is its product with another; π = 0 weighs 0."""
    return log_ratio.clamp(max=exp_limit(log_ratio.dtype)).exp()


def _weights(weights: Tensor) -> None:
    """Refuse negative weights and NaN."""
    require.tensor("weights", weights)
    bad = ~(weights >= 0)
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        got = f"{weights[at].item()} at index {at}"
        require.refuse("weights", got, "weights of at least 0")
