"""Over-optimisation in the toy: what becomes of gold while a proxy is maximised.

A proxy agrees with gold where the reference writes. Any optimiser then moves answers to
where the proxy is high, and there nobody has compared. How far it went is measured in
d = √KL from the reference (Gao, Schulman and Hilton 2023). The policy gradient and the
fit of Gao et al.'s forms are built on the page of chapter 6, and tested there.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from labs import toy_answers
from lib import require
from lib.evaluate import best_of

Score = Callable[[Tensor], Tensor]  # answers (..., 8) -> (...)


@torch.no_grad()
def best_of_curves(
    score: Score,
    sizes: Sequence[int],
    *,
    seed: int,
    gold: Score = toy_answers.gold,
    count: int = 2**18,
    blocks: int = 16,
) -> tuple[Tensor, Tensor]:
    """Score and gold of the best of n by score: two (blocks, len(sizes)) tensors.

    `count` answers of the reference are drawn and judged in `blocks` separate blocks, so
    that the spread over blocks gives a standard error. The score is in its own σ over
    them all, and 0 in the mean.
    """
    drawn = toy_answers.draw(count, generator=torch.Generator().manual_seed(seed))
    proxy = score(drawn)
    proxy = ((proxy - proxy.mean()) / proxy.std()).reshape(blocks, -1)
    truth = gold(drawn).reshape(blocks, -1)
    return best_of(proxy, proxy, sizes), best_of(proxy, truth, sizes)


def worth(score: Score, *, n: int = 1024, seed: int) -> float:
    """What gold makes of the best of n by score, from 65,536 answers."""
    _, gold = best_of_curves(score, [n], seed=seed, count=2**16)
    return gold.mean().item()


def distance(path: Tensor) -> Tensor:
    """d = √KL = |μ|/√2 of each policy N(μ, 1): (..., 8) -> (...)."""
    return path.square().sum(-1).div(2).sqrt()


def turnover(blocks: Tensor) -> tuple[int, float]:
    """Where the mean curve peaks, and by how many standard errors it ends below that.

    blocks: (R, n) the same curve from R independent samples. The error is that of the
    difference between peak and end, from its spread over the blocks.
    """
    if blocks.ndim != 2 or len(blocks) < 2:
        got = f"shape {tuple(blocks.shape)}"
        require.refuse("blocks", got, "(R, n) with R ≥ 2")
    peak = blocks.mean(0).argmax().item()
    drop = blocks[:, peak] - blocks[:, -1]  # (R,)
    error = drop.std() / math.sqrt(len(drop))
    return peak, (drop.mean() / error).item() if error > 0 else 0.0
