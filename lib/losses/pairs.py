"""What the losses on pairs share: log-ratios, what is refused, what is told.

Shapes: log-probabilities of whole completions, (B,) each, in nats. The reference's
carry no gradient, whether or not the caller detached them.
"""

import torch
from torch import Tensor

from lib import require
from lib.ops import to_floats

SUMS = "shape (B,), not empty: sum over tokens first"
MEANS = "shape (B,), not empty: mean over tokens first"


def log_ratio(name: str, logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log(π / ref) of each completion, (B,), (B,) -> (B,), gradient to π alone.

    `name` is what the pair's side is called in an error: `chosen` or `rejected`; "" for
    a completion without a partner.
    """
    own = f"{name}_logps" if name else "logps"
    require.alike(SUMS, 1, **{own: logps, f"ref_{own}": ref_logps})
    return logps - ref_logps.detach()


def pair(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """beta times the two log-ratios, and their difference beta · h: (B,) each."""
    require.positive("beta", beta)
    require.alike(
        SUMS,
        1,
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        ref_chosen_logps=ref_chosen_logps,
        ref_rejected_logps=ref_rejected_logps,
    )
    won = beta * (chosen_logps - ref_chosen_logps.detach())
    lost = beta * (rejected_logps - ref_rejected_logps.detach())
    return won, lost, won - lost


def free_pair(chosen_logps: Tensor, rejected_logps: Tensor) -> tuple[Tensor, Tensor]:
    """The two sides of a loss without a reference: (B,) each, at most 0."""
    sides = {"chosen_logps": chosen_logps, "rejected_logps": rejected_logps}
    require.alike(MEANS, 1, **sides)
    largest = to_floats({name: x.detach().max() for name, x in sides.items()})
    for name, most in largest.items():
        if most > 1e-4:
            require.refuse(name, f"{most:.6g}", "log-probabilities, at most 0")
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


def pair_metrics(won: Tensor, lost: Tensor) -> dict[str, float]:
    """What the policy would pay for the two sides, as a reward model."""
    won, lost = won.detach(), lost.detach()
    metrics = to_floats({
        "accuracy": (won > lost).to(won.dtype).mean(),
        "chosen_reward": won.mean(),
        "rejected_reward": lost.mean(),
    })  # fmt: skip
    margin = metrics["chosen_reward"] - metrics["rejected_reward"]
    return metrics | {"margin": margin}
