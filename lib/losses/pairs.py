"""What the losses on pairs share: log-ratios, what is refused, what is told.

Shapes: log-probabilities of whole completions, (B,) each, in nats. The reference's
carry no gradient, whether or not the caller detached them.
"""

import torch
from torch import Tensor

from lib import require


def log_ratio(name: str, logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log(π / ref) of each completion, (B,), (B,) -> (B,), gradient to π alone.

    `name` is what the pair's side is called in an error: `chosen` or `rejected`; "" for
    a completion without a partner.
    """
    names = [f"{side}{name}_logps" if name else f"{side}logps" for side in ("", "ref_")]
    per_completion(names[0], logps, "sum over tokens first")
    require.tensor(names[1], ref_logps, logps.shape)
    require.finite(names[1], ref_logps)
    return logps - ref_logps.detach()


def per_completion(name: str, logps: Tensor, advice: str) -> None:
    """Finite numbers, one a completion; `advice` tells who brings one a token."""
    require.tensor(name, logps)
    if logps.ndim != 1 or len(logps) == 0:
        got = f"shape {tuple(logps.shape)}"
        require.refuse(name, got, f"shape (B,), not empty: {advice}")
    require.finite(name, logps)


def pair(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """beta times the two log-ratios, and their difference beta · h: (B,) each."""
    require.positive("beta", beta)
    won = beta * log_ratio("chosen", chosen_logps, ref_chosen_logps)
    lost = beta * log_ratio("rejected", rejected_logps, ref_rejected_logps)
    require.tensor("rejected_logps", rejected_logps, chosen_logps.shape)
    return won, lost, won - lost


def free_pair(chosen_logps: Tensor, rejected_logps: Tensor) -> tuple[Tensor, Tensor]:
    """The two sides of a loss without a reference: (B,) each, at most 0."""
    for name, logps in (
        ("chosen_logps", chosen_logps),
        ("rejected_logps", rejected_logps),
    ):
        per_completion(name, logps, "mean over tokens first")
        if (logps > 1e-4).any():
            got = f"{logps.max().item():.6g}"
            require.refuse(name, got, "log-probabilities, at most 0")
    require.tensor("rejected_logps", rejected_logps, chosen_logps.shape)
    return chosen_logps, rejected_logps


def log_rest(logps: Tensor) -> Tensor:
    """log(1 - p), with 1 - p held at what the dtype can tell from 0."""
    return (-torch.expm1(logps)).clamp(min=torch.finfo(logps.dtype).eps).log()


def share_wrong(label_smoothing: float) -> float:
    """The share of wrong labels, at least 0 and less than a half."""
    require.non_negative("label_smoothing", label_smoothing)
    if label_smoothing >= 0.5:
        wanted = "less than 0.5: half of the labels wrong say nothing"
        require.refuse("label_smoothing", label_smoothing, wanted)
    return label_smoothing


@torch.no_grad()
def pair_metrics(won: Tensor, lost: Tensor) -> dict[str, float]:
    """What the policy would pay for the two sides, as a reward model."""
    chosen, rejected = won.mean().item(), lost.mean().item()
    return {
        "accuracy": (won > lost).to(won.dtype).mean().item(),
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "margin": chosen - rejected,
    }
