"""Over-optimisation: what becomes of the truth while a stand-in for it is maximised.

A proxy agrees with gold where the reference writes. Any optimiser then moves answers to
where the proxy is high, and there nobody has compared. Two optimisers, best-of-n and
policy gradient, are followed by how far they went, in d = √KL from the reference (Gao,
Schulman and Hilton 2023).

`best_of`, `gao_fit` and `turnover` work for any answers, text too; the rest is at home
in `labs.toy_answers`.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labs import toy_answers
from lib import require
from lib.advantages import leave_one_out
from lib.evaluate import best_of
from lib.losses.policy_gradient import Loss, reinforce
from lib.train import fit

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


# --- policy gradient ------------------------------------------------------------------


class Writer(nn.Module):
    """A policy that writes x ~ N(μ, 1), |μ|²/2 nats from the reference N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(toy_answers.DIM, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Log π(x) - log ref(x), the log-ratio: (..., 8) -> (...)."""
        return (x * self.mean).sum(-1) - self.mean.square().sum() / 2


def writer_loss(policy: Writer, batch: tuple[Tensor, Tensor]) -> Loss:
    """`reinforce` on answers of one step: x (B, 8) and their advantages (B,)."""
    x, advantages = batch
    logps = policy(x).unsqueeze(-1)  # (B, 1); log ref(x) has no gradient
    return reinforce(logps, advantages, torch.ones_like(logps, dtype=torch.bool))


def climb(
    reward: Score,
    *,
    beta: float = 0.0,
    seed: int,
    updates: int = 200,
    batch: int = 256,
    lr: float = 0.02,
) -> Tensor:
    """Policy gradient on E reward - beta · KL from N(0, 1): every μ, (updates + 1, 8).

    The KL is in the reward (k1, one log-ratio an answer), the baseline the mean of the
    others; `fit` does the rest. Rewards that are not finite are refused.
    """
    require.non_negative("beta", beta)
    policy, path = Writer(), []
    generator = torch.Generator().manual_seed(seed)

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(updates):
            path.append(policy.mean.detach().clone())
            x = path[-1] + toy_answers.draw(batch, generator=generator)
            with torch.no_grad():
                paid = reward(x) - beta * policy(x)
            yield x, leave_one_out(paid.unsqueeze(0)).squeeze(0)

    fit(policy, stream(), writer_loss, lr=lr)
    return torch.stack([*path, policy.mean.detach()])


def distance(path: Tensor) -> Tensor:
    """d = √KL = |μ|/√2 of each policy N(μ, 1): (..., 8) -> (...)."""
    return path.square().sum(-1).div(2).sqrt()


# --- curves ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """R(d) = d · (alpha - beta · g(d)), g(d) = d for best-of-n and log d for RL."""

    alpha: float  # the slope at the start
    beta: float  # how fast it wears off
    r2: float  # the share of the curve's variance that it explains
    peak: float  # d*, where the form has its maximum
    curve: Tensor  # (n,) the form at the d's that it was fitted to


def gao_fit(d: Tensor, gain: Tensor, *, log: bool) -> Fit:
    """Least squares of Gao et al.'s form: d(α - βd), or with `log` d(α - β log d).

    d > 0, gain (n,): gold less that of the reference. d* = α/2β, or exp(α/β - 1); it is
    infinite where the form has no maximum at all.
    """
    require.tensor("gain", gain, d.shape)
    require.finite("gain", gain)
    if not (d > 0).all():
        require.refuse("d", d.min().item(), "distances above 0")
    columns = torch.stack((d, -d * (d.log() if log else d)), 1)
    solved = torch.linalg.lstsq(columns, gain.unsqueeze(1)).solution
    alpha, beta = solved.flatten().tolist()
    curve = (columns @ solved).squeeze(1)
    r2 = (
        1 - ((gain - curve).square().sum() / (gain - gain.mean()).square().sum()).item()
    )
    peak = math.inf
    if beta > 0:
        peak = math.exp(alpha / beta - 1) if log else alpha / (2 * beta)
    return Fit(alpha, beta, r2, peak, curve)


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


# --- what took too long for a page -----------------------------------------------------

RECORD = "notebooks/records/06_over_optimisation.json"  # made by labs


def recorded() -> dict[str, Any]:
    """The runs on the village's language model, with what made them and when."""
    book = Path(__file__).resolve().parents[1]
    return json.loads((book / RECORD).read_text("utf-8"))


def windows(
    record: dict[str, Any], name: str, *, beta: float, kind: str = "RewardModel"
) -> Tensor:
    """A column of the recorded runs in means of five updates: (seeds, updates / 5)."""
    runs = [r for r in record["runs"] if (r["kind"], r["beta"]) == (kind, beta)]
    if not runs:
        require.refuse("beta", beta, f"one that was recorded for {kind}")
    rows = torch.tensor([run[name] for run in runs], dtype=torch.float64)
    return rows.unfold(1, 5, 5).mean(-1)
