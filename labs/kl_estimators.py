"""KL estimators: exact gradients in worlds whose answers can all be listed.

Log-probabilities of K answers are (K,), in nats; gradients are by their K logits. The
page builds the rest in view; what is here its exercises use as well.
"""

from dataclasses import replace

import torch
from torch import Tensor

from lib.kl import exact_kl
from lib.ops import token_logps
from lib.rollout import Rollout
from lib.worlds.exact import PrefixTable, every_completion


def slope(weights: Tensor, logps: Tensor, sampler: Tensor | None = None) -> Tensor:
    """E[w(y) ∇ log π(y)] over answers of `sampler` (log-probabilities; else π): (K,).

    ∇ log π(y) = e_y - π, so the sum over y is law · w - π · Σ law · w.
    """
    drawn = (logps if sampler is None else sampler).exp() * weights
    return drawn - logps.exp() * drawn.sum()


def kl_slope(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """∇ KL(π ‖ ref), by automatic differentiation of the sum: (K,)."""
    logits = logps.detach().requires_grad_()
    return torch.autograd.grad(exact_kl(logits, ref_logps), logits)[0]


def texts(max_tokens: int) -> tuple[Rollout, Tensor]:
    """All strings of three tokens, 2 being the end, and 1 for those that begin with 1.

    Their `logps` are those of the reference, which is uniform at every prefix.
    """
    rows = every_completion([0], tokens=range(3), end=2, max_tokens=max_tokens)
    table = PrefixTable(3, max_tokens)
    logps = token_logps(table(rows.states), rows.actions).detach()
    return replace(rows, logps=logps), (rows.actions[:, 0] == 1).double()
