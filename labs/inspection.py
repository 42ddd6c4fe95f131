"""Take a reward model apart: is its probability one, what does it pay for length?

And what a ranking is worth to it. Nothing here trains anything.
"""

import torch
from torch import Tensor

from lib import require
from lib.evaluate import scores
from lib.losses.reward import bradley_terry
from lib.preference_data import PreferencePairs, annotated
from lib.rollout import concat
from lib.worlds.village.taste import Annotators

EXACT = Annotators(error_rate=0.0)
SPREAD = 1.1  # standard deviation of the gold scores of a model's answers


def information(K: int, *, generator: torch.Generator, rankings: int = 40_000) -> float:
    """What a ranking of K answers tells `k_wise` about the scale of the scores.

    (mean curvature)² / mean slope² of the loss at the true scores: one over the
    variance of an estimate from a single ranking (the "sandwich"; Godambe 1960).
    """
    require.count("K", K, least=2)
    gold = SPREAD * torch.randn(rankings, K, dtype=torch.float64, generator=generator)
    order = EXACT.rank(gold, generator=generator)
    ranked = gold.gather(1, order) / EXACT.temperature  # best first
    better, worse = torch.triu_indices(K, K, 1)
    gap = ranked[:, better] - ranked[:, worse]  # (rankings, C(K, 2))
    slope = (-torch.sigmoid(-gap) * gap).mean(1)
    curve = (torch.sigmoid(gap) * torch.sigmoid(-gap) * gap.square()).mean()
    return (curve.square() / slope.square().mean()).item()


def calibration(gap: Tensor, *, bins: int = 6) -> tuple[Tensor, Tensor]:
    """What a model claimed of its favourites, and what came true: (bins,) each.

    gap: (N,) score of the chosen answer minus that of the rejected one. The pairs are
    sorted by the claim, σ|gap|, and cut into `bins` groups of equal size.
    """
    require.tensor("gap", gap)
    require.finite("gap", gap)
    require.count("bins", bins)
    if gap.ndim != 1 or len(gap) < bins:
        require.refuse("gap", f"shape {tuple(gap.shape)}", f"(N,), N ≥ {bins}")
    claimed, order = torch.sigmoid(gap.abs()).sort()
    right = (gap > 0).to(gap.dtype)[order]
    groups = (x.tensor_split(bins) for x in (claimed, right))
    claims, shares = (torch.stack([g.mean() for g in each]) for each in groups)
    return claims, shares


def temperature(gap: Tensor) -> float:
    """What to divide the scores by to be calibrated (Guo et al. 2017), from 0.1 to 30.

    The best of a fine grid on the likelihood of comparisons that were not trained on.
    """
    grid = torch.logspace(-1, 1.5, 101, dtype=torch.float64)
    losses = [bradley_terry(gap / heat, 0 * gap)[0] for heat in grid]
    return grid[torch.stack(losses).argmin()].item()


def token_price(score: Tensor, gold: Tensor, lengths: Tensor) -> float:
    """c / b of score ≈ a + b·gold + c·length: a token's worth in gold, at equal gold.

    Least squares; all (B,).
    """
    require.tensor("gold", gold, score.shape)
    require.tensor("lengths", lengths, score.shape)
    columns = torch.stack((torch.ones_like(gold), gold, lengths.double()), 1)
    fitted = torch.linalg.lstsq(columns, score.double().unsqueeze(1)).solution
    return (fitted[2] / fitted[1]).item()


def asked_again(
    pairs: PreferencePairs, *, favour: float, generator: torch.Generator
) -> PreferencePairs:
    """The same answers, before annotators to whom a token more is worth `favour` gold."""
    require.number("favour", favour)
    each = torch.arange(2 * len(pairs)).reshape(2, -1).T.flatten()  # 0, N, 1, N + 1, …
    texts = concat(pairs.chosen, pairs.rejected).rows(each)
    seen = scores(pairs.asked, texts) + favour * texts.lengths
    return annotated(pairs.asked, texts, generator=generator, seen=seen)
