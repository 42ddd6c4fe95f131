"""Reward models: learn a number from what people prefer, or from what came out right.

A comparison says which of two is better and nothing about by how much or from which
zero: only differences of scores enter the Bradley–Terry losses. An outcome or process
label says right or wrong by itself, so there the score is a logit.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lib import require
from lib.ops import fill_masked, filled_mean, narrow, to_floats

Loss = tuple[Tensor, dict[str, float]]


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    margin: Tensor | float | None = None,
    centre: float = 0.0,
) -> Loss:
    """-log σ(chosen - rejected - margin), mean over pairs (Bradley and Terry 1952).

    chosen, rejected: (B,) scores. `margin`, (B,) or one number, asks for a wider gap
    (Llama 2; Touvron et al. 2023, Eq. 2). `centre` · mean (chosen + rejected)² pulls
    the scores towards 0, which no comparison does (Eisenstein et al. 2023).

    Metrics: `accuracy` (a tie counts as wrong), `margin` = mean chosen - rejected.
    """
    require.non_negative("centre", centre)
    require.alike("shape (B,), not empty", 1, chosen=chosen, rejected=rejected)
    gap = _real(chosen) - _real(rejected)  # (B,)
    loss = -logsigmoid(gap - _margin(margin, gap)).mean()
    loss = loss + centre * (_real(chosen) + rejected).square().mean()
    return loss, _agreement(gap)


def k_wise(scores: Tensor) -> Loss:
    """Bradley–Terry over all pairs of a ranking (InstructGPT; Ouyang et al. 2022, Eq. 1).

    scores: (P, K), each row listed from the best to the worst. Mean over the C(K, 2)
    pairs of a prompt, then over prompts: K answers are read once each, and a prompt
    weighs the same however many pairs it yields. Metrics as in `bradley_terry`.
    """
    require.alike("shape (P, K), not empty", 2, scores=scores)
    size = scores.shape[1]
    if size < 2:
        require.refuse("scores", f"K = {size}", "at least two answers to compare")
    better, worse = torch.triu_indices(size, size, 1, device=scores.device)
    gap = _real(scores[:, better]) - _real(scores[:, worse])  # (P, C(K, 2))
    return -logsigmoid(gap).mean(), _agreement(gap)


def outcome(logits: Tensor, labels: Tensor, mask: Tensor) -> Loss:
    """Was the final answer right? Binary cross-entropy at every token, `token_mean`.

    logits, labels, mask: (B, T); labels 0 or 1 (int, bool or float), each completion's
    verdict repeated over its tokens (ORM; Cobbe et al. 2021). Metric: `accuracy`, the
    share of tokens with the logit on the label's side of 0.
    """
    require.mask_of(labels, mask, "labels")
    good = labels.masked_fill(~mask, 0)
    if ((good != 0) & (good != 1)).any():
        require.refuse("labels", "a value other than 0 and 1", "labels of 0 or 1")
    (filled,) = fill_masked(mask, logits=logits, infinite="logits")
    for_label = torch.where(good == 1, filled, -filled)  # (B, T)
    nll = -logsigmoid(for_label).masked_fill(~mask, 0)
    accuracy = filled_mean(for_label > 0, mask).item()
    return narrow(filled_mean(nll, mask), logits), {"accuracy": accuracy}


def process(logits: Tensor, labels: Tensor, mask: Tensor) -> Loss:
    """Was this step right? Cross-entropy over three classes, `token_mean`.

    logits: (B, T, 3); labels (B, T): 0 bad, 1 neutral, 2 good; mask (B, T): True where
    a step ends (PRM; Lightman et al. 2024). Metric: `accuracy`, the share of steps
    whose label has the largest logit, alone.
    """
    require.mask_of(labels, mask, "labels")
    require.tensor("logits", logits, (*mask.shape, 3))
    known = labels.masked_fill(~mask, 0)
    require.integers("labels", known, 3)
    every = mask.unsqueeze(-1).expand(logits.shape)  # (B, T, 3)
    (filled,) = fill_masked(every, logits=logits, infinite="logits")
    label = known.long().unsqueeze(-1)  # (B, T, 1)
    right = (filled >= filled.gather(-1, label)).sum(-1) == 1  # (B, T)
    logps = filled.log_softmax(-1).gather(-1, label).squeeze(-1)
    accuracy = filled_mean(right, mask).item()
    nll = -filled_mean(logps.masked_fill(~mask, 0), mask)
    return narrow(nll, logits), {"accuracy": accuracy}


def _real(scores: Tensor) -> Tensor:
    """Integers become floats."""
    return scores.to(torch.result_type(scores, 1.0))


def _margin(margin: Tensor | float | None, gap: Tensor) -> Tensor | float:
    if margin is None:
        return 0.0
    if not isinstance(margin, Tensor):
        require.number("margin", margin)
        return margin
    require.tensor("margin", margin, gap.shape)
    require.finite("margin", margin)
    return margin.detach()


def _agreement(gap: Tensor) -> dict[str, float]:
    gap = gap.detach()
    right = (gap > 0).to(gap.dtype)
    return to_floats({"accuracy": right.mean(), "margin": gap.mean()})
