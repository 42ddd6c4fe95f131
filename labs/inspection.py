"""Take a reward model apart: is its probability one, what does it pay for length?

And who judges: how far annotators let anyone come, and what they do in a hurry.
"""

import torch
from torch import Tensor

from lib import evaluate, require
from lib.losses.reward import bradley_terry
from lib.preference_data import PreferencePairs
from lib.rollout import Rollout
from lib.seeds import generator
from lib.worlds.annotators import Annotators

PANEL = Annotators()


def probabilities(pairs: PreferencePairs) -> Tensor:
    """(N,) the chance that the panel of five prefers the answer that was chosen."""
    both = evaluate.answers(pairs.chosen), evaluate.answers(pairs.rejected)
    said = [
        PANEL.probability(t, a.text, b.text, finished=(a.finished, b.finished))
        for t, a, b in zip(pairs.asked, *both)
    ]
    return torch.tensor(said, dtype=torch.float64)


def limits(pairs: PreferencePairs) -> dict[str, float]:
    """How often three judges agree with the panel's choices, in expectation.

    The best there can be; gold itself (half right where it sees no difference); and
    another member of the panel, drawn at random.
    """
    p, gap = probabilities(pairs), pairs.chosen_gold - pairs.rejected_gold
    gold = torch.where(gap > 0, p, torch.where(gap < 0, 1 - p, 0.5))
    found = torch.maximum(p, 1 - p), gold, p.square() + (1 - p).square()
    return dict(
        zip(("best", "gold", "another"), (x.mean().item() for x in found), strict=True)
    )


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
    claimed, order = torch.sigmoid(gap.abs()).sort(stable=True)
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


def hurried(pairs: PreferencePairs, *, share: float, seed: int) -> PreferencePairs:
    """The same answers before people in a hurry: in so many cases the longer one wins."""
    require.unit_interval("share", share)
    draw = torch.rand(
        len(pairs), dtype=torch.float64, generator=generator("hurry", seed)
    )
    longer = pairs.rejected.lengths > pairs.chosen.lengths
    return swapped(pairs, (draw < share) & longer)


def swapped(pairs: PreferencePairs, where: Tensor) -> PreferencePairs:
    """These comparisons with the choice turned round in some of them: (N,) bool."""
    both = pairs + PreferencePairs(
        pairs.asked,
        pairs.rejected,
        pairs.chosen,
        pairs.rejected_gold,
        pairs.chosen_gold,
    )
    return both.rows(torch.arange(len(pairs)) + len(pairs) * where)


def answers_of(pairs: PreferencePairs) -> tuple[Rollout, Tensor]:
    """All answers of some comparisons, (2N, T), and their gold scores, (2N,)."""
    both = pairs + swapped(pairs, torch.ones(len(pairs), dtype=torch.bool))
    return both.chosen, both.chosen_gold
