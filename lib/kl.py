"""How far has the policy moved? KL divergences, exact and estimated, and what they buy.

KL(π ‖ ref) = Σ π (log π - log ref) in nats: the mean log-ratio over what π samples. It
holds a policy back in RLHF: maximise reward - beta · KL, and the best policy is known in closed
form. Reference log-probabilities are data: no gradient flows into them.

The estimators see one token at a time and take no mask: fill what is masked *before*
(`ops.masked`), since a NaN that is masked afterwards still leaves a NaN in the gradient.
"""

import math

import torch
from torch import Tensor

from lib import require
from lib.ops import fill_masked, narrow, wide

NEAR = 0.01  # |d| below which k3 is summed as a series


def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """d = log π - log ref per token: KL(π ‖ ref) in the mean over actions from π.

    Unbiased, of either sign, noisy (Schulman 2020). As a *loss* its expected gradient is
    0; inside the *reward* it is that of KL(π ‖ ref). logps, ref_logps: (...) -> (...).
    """
    return _log_ratio(logps, ref_logps)


def k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """d²/2 per token, actions from π: a biased estimate of KL(π ‖ ref), never negative.

    As a loss its expected gradient is exactly that of KL(π ‖ ref). (...) -> (...).
    """
    return _log_ratio(logps, ref_logps).square() / 2


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """exp(-d) - 1 + d per token, actions from π: unbiased for KL(π ‖ ref), never
    negative.

    As a loss its expected gradient is that of the *other* direction, KL(ref ‖ π). Near
    d = 0 the formula would cancel (1 - 1), so there its series is summed. Below
    -`exp_limit` d is held fixed, so that value and gradient stay finite.
    """
    d = wide(_log_ratio(logps, ref_logps))
    d = d.clamp(min=-exp_limit(logps.dtype))
    near = d.clamp(-NEAR, NEAR)
    series = torch.ones_like(d)  # 2 (exp(-d) - 1 + d) / d², innermost term first
    for k in (6, 5, 4, 3):
        series = 1 - near / k * series
    each = torch.where(d.abs() < NEAR, near**2 / 2 * series, torch.expm1(-d) + d)
    return narrow(each, logps)


def exp_limit(dtype: torch.dtype) -> float:
    """How far from 0 a log-ratio may be: half of what `exp` can hold, so that products
    stay finite; all of it (11.09) in float16, where half of it does occur.
    """
    limit = math.log(torch.finfo(dtype).max)
    return limit if dtype == torch.float16 else limit / 2


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL(π ‖ ref) in nats, summed over every action: (..., A), (..., A) -> (...).

    Where π is 0 it contributes 0; where π > 0 = ref it is infinite. Gradient to
    `logits` only.
    """
    logps = _log_softmax("logits", logits)
    ref_logps = _log_softmax("ref_logits", ref_logits).detach()
    require.tensor("ref_logits", ref_logits, logits.shape)
    log_ratio = (logps - ref_logps).masked_fill(logps == -torch.inf, 0)
    return (logps.exp() * log_ratio).sum(-1)


def penalised_rewards(
    scores: Tensor,
    logps: Tensor,
    ref_logps: Tensor | None,
    mask: Tensor,
    *,
    beta: float,
) -> Tensor:
    """-beta · (log π - log ref) on each token, the score on the last (InstructGPT).

    Ouyang et al. 2022, Eq. 2, spread over tokens; a row sums to score - beta · k1 of the
    whole completion. scores (B,); logps, ref_logps, mask (B, T) -> (B, T), without
    gradient, 0 behind the mask. `ref_logps` may be None when beta is 0.
    """
    require.non_negative("beta", beta)
    data = {"ref_logps": ref_logps} if beta else {}
    now, *ref = fill_masked(
        mask, logps=logps, **data, infinite="ref_logps", every_row=True
    )
    require.tensor("scores", scores, mask.shape[:-1])
    require.finite("scores", scores)
    last = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)  # no True comes after it
    given = scores.detach().to(now.dtype).unsqueeze(-1)  # (B, 1)
    rewards = torch.where(last, given, 0)  # (B, T)
    return rewards + beta * (ref[0] - now).detach() if ref else rewards


def optimal_policy(ref_logps: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """log π*, π* ∝ ref · exp(r / beta): what maximises E r - beta · KL(π ‖ ref).

    ref_logps, rewards: (..., K) over all K completions -> (..., K) (Rafailov et al.
    2023, Eq. 4). The gradient flows to the rewards.
    """
    return torch.log_softmax(_tilted(ref_logps, rewards, beta), dim=-1)


def optimal_value(ref_logps: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """J* = beta · log Z, Z = Σ ref · exp(r / beta): the best that any policy reaches.

    ref_logps, rewards: (..., K) -> (...), in units of reward. dJ*/dr = π*.
    """
    return beta * torch.logsumexp(_tilted(ref_logps, rewards, beta), dim=-1)


def best_of_n_kl_bound(n: int) -> float:
    """log n - (n - 1)/n nats: KL(best of n ‖ ref) is at most this.

    An equality where no two completions tie and none has a probability of its own
    (Beirami et al. 2024), so on few completions the truth is far below.
    """
    require.count("n", n)
    return math.log(n) - (n - 1) / n


@torch.no_grad()
def best_of_n_policy(ref_logps: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Log-probabilities of "draw n from ref, keep the best", exactly: (K,), (K,) -> (K,).

    The best reward is at most r with probability F(r)ⁿ, so it is r with F(r)ⁿ - F(<r)ⁿ;
    completions that tie share this in proportion to ref. Computed in float64, by logs.
    """
    require.count("n", n)
    normalised("ref_logps", ref_logps)
    require.tensor("rewards", rewards, (ref_logps.numel(),))
    require.tensor("ref_logps", ref_logps, rewards.shape)
    require.finite("rewards", rewards)
    levels, level = rewards.unique(return_inverse=True)  # (L,) ascending, (K,)
    exact = ref_logps.double()
    most = exact.new_full(levels.shape, -torch.inf)
    most = most.scatter_reduce(0, level, exact, "amax").nan_to_num(neginf=0)
    mass = torch.zeros_like(most).index_add(0, level, (exact - most[level]).exp())
    mass = mass.log() + most  # (L,) log of a level's probability,
    total = mass.logcumsumexp(0)  # of F at each level,
    share = mass - total  # and of the former in the latter
    here = torch.log(-torch.expm1(n * torch.log1p(-share.exp())))  # 1 - (F(<r) / F(r))ⁿ
    here = torch.where(share < -80, share + math.log(n), here)  # n · share, if tiny
    best = n * (total - total[-1]) + here
    logps = exact + (best - mass)[level]
    return logps.masked_fill(exact == -torch.inf, -torch.inf).to(ref_logps.dtype)


class AdaptiveKL:
    """A thermostat for beta that steers the KL towards a target (Ziegler et al. 2019).

    `target` in nats; `horizon` in the units of `steps`: the number over which a KL that
    is far off moves beta by 20 %.
    """

    def __init__(self, beta: float, target: float, horizon: float) -> None:
        require.positive("beta", beta)
        require.positive("target", target)
        require.positive("horizon", horizon)
        self.beta, self.target, self.horizon = beta, target, horizon

    def update(self, observed_kl: float, steps: float) -> None:
        """Multiply beta by 1 + clip(observed / target - 1, ±0.2) · steps / horizon."""
        require.number("observed_kl", observed_kl)
        require.positive("steps", steps)
        if steps >= 5 * self.horizon:
            wanted = (
                f"fewer than 5 horizons ({5 * self.horizon}), or beta turns negative"
            )
            require.refuse("steps", steps, wanted)
        error = min(max(observed_kl / self.target - 1, -0.2), 0.2)
        self.beta *= 1 + error * steps / self.horizon


def normalised(name: str, logps: Tensor) -> None:
    """Refuse log-probabilities (..., K) whose probabilities do not sum to 1 (1e-4)."""
    require.tensor(name, logps)
    if logps.ndim == 0 or logps.shape[-1] == 0:
        require.refuse(name, f"shape {tuple(logps.shape)}", "shape (..., K)")
    total = logps.exp().sum(-1)
    wrong = ~((total - 1).abs() <= 1e-4)  # NaN is wrong too
    if wrong.any():
        got = f"probabilities that sum to {total[wrong][0].item():.6g}"
        require.refuse(name, got, "all the completions there are, summing to 1")


def _log_ratio(logps: Tensor, ref_logps: Tensor) -> Tensor:
    require.tensor("logps", logps)
    require.tensor("ref_logps", ref_logps, logps.shape)
    return logps - ref_logps.detach()


def _log_softmax(name: str, logits: Tensor) -> Tensor:
    require.tensor(name, logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        require.refuse(name, f"shape {tuple(logits.shape)}", "shape (..., A)")
    logps = torch.log_softmax(logits, dim=-1)
    if logps.isnan().any():
        wanted = "at least one finite logit a row, no NaN, no +inf"
        require.refuse(name, "no distribution", wanted)
    return logps


def _tilted(ref_logps: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Log ref + r / beta: π* before it is normalised, (..., K)."""
    require.positive("beta", beta)
    normalised("ref_logps", ref_logps)
    require.tensor("rewards", rewards, ref_logps.shape)
    require.finite("rewards", rewards)
    return ref_logps.detach() + rewards / beta
