"""Losses that learn a policy from pairs directly, without a reward model in between.

If a policy is optimal for some reward, its log-ratio to the reference *is* that reward,
over beta and up to a constant per prompt: r = beta · log(π / ref) + beta · log Z. So a
model of comparisons can be fitted through the policy itself, and the constant cancels.

Shapes: log-probabilities of whole completions, (B,) each, in nats, summed over tokens.
The reference's carry no gradient, whether or not the caller detached them.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lib import require
from lib.losses.pairs import (
    free_pair,
    log_ratio,
    log_rest,
    pair,
    pair_metrics,
    share_wrong,
)

Loss = tuple[Tensor, dict[str, float]]


def dpo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Loss:
    """-log σ(beta · h), mean over pairs (DPO; Rafailov et al. 2023, Eq. 7).

    h = (chosen - ref_chosen) - (rejected - ref_rejected), all (B,). At the reference
    the loss is log 2. Metrics: `accuracy`, the share of pairs with h > 0 (a tie counts
    as wrong), `chosen_reward` and `rejected_reward`, the means of beta · log-ratio, and
    `margin`, their difference.
    """
    won, lost, h = pair(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    return -logsigmoid(h).mean(), pair_metrics(won, lost)


def cdpo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> Loss:
    """DPO for labels of which a share e is wrong (conservative; Mitchell 2023).

    -(1 - e) · log σ(beta · h) - e · log σ(-beta · h): least where σ(beta · h) = 1 - e,
    so that no margin grows for ever.
    """
    won, lost, h = pair(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    wrong = share_wrong(label_smoothing)
    loss = -(1 - wrong) * logsigmoid(h) - wrong * logsigmoid(-h)
    return loss.mean(), pair_metrics(won, lost)


def robust_dpo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> Loss:
    """DPO whose mean over wrong labels is DPO's on right ones (Chowdhury et al. 2024).

    (-(1 - e) · log σ(beta · h) + e · log σ(-beta · h)) / (1 - 2e), e the share of
    flipped labels.
    """
    won, lost, h = pair(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    wrong = share_wrong(label_smoothing)
    loss = -(1 - wrong) * logsigmoid(h) + wrong * logsigmoid(-h)
    return loss.mean() / (1 - 2 * wrong), pair_metrics(won, lost)


def ipo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Loss:
    """(h - 1 / (2 · beta))²: a margin to be met, not outgrown (Azar et al. 2024, Eq. 17).

    The paper's log-probabilities are sums over tokens, many libraries give it means.
    """
    won, lost, h = pair(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    return (h / beta - 0.5 / beta).square().mean(), pair_metrics(won, lost)


def slic_hinge(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Loss:
    """max(0, 1 - beta · h): nothing more to learn beyond a margin.

    SLiC's hinge (Zhao et al. 2023) on DPO's log-ratios (Liu et al. 2024).
    """
    won, lost, h = pair(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    return (1 - h).clamp(min=0).mean(), pair_metrics(won, lost)


def apo_zero(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Loss:
    """(1 - σ(beta · r_w)) + σ(beta · r_l): the chosen up *and* the rejected down.

    For chosen completions better than what the model writes (D'Oosterlinck et al. 2024).
    """
    won, lost, _ = pair(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    return (torch.sigmoid(-won) + torch.sigmoid(lost)).mean(), pair_metrics(won, lost)


def apo_down(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Loss:
    """σ(beta · r_w) + (1 - σ(beta · h)): both down, the rejected further.

    For chosen completions worse than what the model writes (D'Oosterlinck et al. 2024).
    """
    won, lost, h = pair(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    return (torch.sigmoid(won) + torch.sigmoid(-h)).mean(), pair_metrics(won, lost)


def simpo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
) -> Loss:
    """-log σ(beta · (chosen - rejected) - gamma), no reference (Meng et al. 2024, Eq. 6).

    Log-probabilities are *means per token* here; gamma is the paper's: a margin in
    units of reward, outside beta.
    """
    require.positive("beta", beta)
    require.non_negative("gamma", gamma)
    won, lost = free_pair(chosen_logps, rejected_logps)
    loss = -logsigmoid(beta * (won - lost) - gamma)
    return loss.mean(), pair_metrics(beta * won, beta * lost)


def orpo(chosen_logps: Tensor, rejected_logps: Tensor, *, weight: float = 0.1) -> Loss:
    """Imitation and a log-odds ratio, no reference (Hong et al. 2024, Eq. 6 and 7).

    -chosen - weight · log σ(log odds(chosen) - log odds(rejected)), on *means per
    token*; 1 - p is held at the smallest that the dtype can tell from 0.
    """
    require.positive("weight", weight)
    won, lost = free_pair(chosen_logps, rejected_logps)
    ratio = (won - log_rest(won)) - (lost - log_rest(lost))
    loss = -won - weight * logsigmoid(ratio)
    return loss.mean(), pair_metrics(weight * won, weight * lost)


def kto(
    logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    *,
    beta: float = 0.1,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
) -> Loss:
    """Single completions, good or bad: no pairs (KTO; Ethayarajh et al. 2024, Eq. 7).

    A good one costs w · (1 - σ(beta · (r - z))), a bad one w · (1 - σ(beta · (z - r)));
    r = logps - ref_logps (B,), desirable (B,) bool. z = max(0, kl) without gradient: kl
    is the mean log-ratio of *mismatched* pairs, other prompts' completions. Metrics:
    `accuracy`, the share of r on its side of z; the others as for pairs, over the good
    and the bad rows, absent where there are none.
    """
    require.positive("beta", beta)
    require.non_negative("weight_desirable", weight_desirable)
    require.non_negative("weight_undesirable", weight_undesirable)
    reward = log_ratio("", logps, ref_logps)
    require.tensor("desirable", desirable, logps.shape)
    if desirable.dtype != torch.bool:
        require.refuse("desirable", desirable.dtype, "torch.bool")
    level = torch.as_tensor(kl, dtype=reward.dtype, device=reward.device).detach()
    require.tensor("kl", level, ())
    require.finite("kl", level)
    above = beta * (reward - level.clamp(min=0))  # (B,)
    side = torch.where(desirable, above, -above)
    weight = torch.full_like(side, weight_undesirable)
    weight = weight.masked_fill(desirable, weight_desirable)
    metrics = {"accuracy": (side > 0).to(side.dtype).mean().item()}
    good, bad = beta * reward.detach()[desirable], beta * reward.detach()[~desirable]
    if len(good):
        metrics["chosen_reward"] = good.mean().item()
    if len(bad):
        metrics["rejected_reward"] = bad.mean().item()
    if len(good) and len(bad):
        metrics["margin"] = metrics["chosen_reward"] - metrics["rejected_reward"]
    return (weight * torch.sigmoid(-side)).mean(), metrics
