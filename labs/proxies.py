"""Stand-ins for a gold score, fitted to comparisons: what an optimiser will see of it.

A proxy is as good as three things let it be: what it can express (its features), what
it was shown (comparisons of the reference's answers), and how often (their number). The
first is bias and the last variance; accuracy on fresh comparisons sees both, but only
where the reference writes. The world is `labs.toy_answers`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from labs import toy_answers
from lib import require
from lib.losses.reward import Loss, bradley_terry
from lib.models.mlp import MLP
from lib.train import History, fit

Score = Callable[[Tensor], Tensor]  # answers (..., 8) -> (...)
Pairs = tuple[Tensor, Tensor]  # the better and the worse answers, (N, 8) each


def linear(x: Tensor) -> Tensor:
    """The answer itself: more is better, or less is. (..., 8) -> (..., 8)."""
    return x


def squares(x: Tensor) -> Tensor:
    """And each coordinate's square, which can bend: (..., 8) -> (..., 16)."""
    return torch.cat((x, x.square()), -1)


def products(x: Tensor) -> Tensor:
    """And the products of any two coordinates: (..., 8) -> (..., 44)."""
    i, j = torch.triu_indices(toy_answers.DIM, toy_answers.DIM)
    return torch.cat((x, x[..., i] * x[..., j]), -1)


class Proxy(nn.Module):
    """A score that is linear in some features of an answer; it starts at 0."""

    def __init__(self, features: Callable[[Tensor], Tensor] = linear) -> None:
        super().__init__()
        self.features = features
        size = features(torch.zeros(toy_answers.DIM)).shape[-1]
        self.weight = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """(..., 8) -> (...)."""
        return self.features(x) @ self.weight


def compare(
    count: int, *, generator: torch.Generator, gold: Score = toy_answers.gold
) -> Pairs:
    """`count` pairs of the reference's answers, judged by gold without an error."""
    require.count("count", count)
    first, second = toy_answers.draw(2 * count, generator=generator).chunk(2)
    wins = (gold(first) > gold(second)).unsqueeze(-1)  # (N, 1)
    return torch.where(wins, first, second), torch.where(wins, second, first)


def comparison_loss(proxy: nn.Module, pairs: Pairs) -> Loss:
    """Bradley–Terry on the proxy's scores of both answers of each pair."""
    better, worse = pairs
    if torch.equal(better, worse):
        require.refuse("pairs", "identical answers", "pairs that differ")
    return bradley_terry(proxy(better), proxy(worse))


def fit_proxy(
    proxy: nn.Module, pairs: Pairs, *, updates: int = 200, lr: float = 0.1
) -> History:
    """Fit a proxy to comparisons, all of them in each update; `lr` falls to 0."""
    require.positive("lr", lr)
    require.count("updates", updates)

    def rate(update: int) -> float:
        return lr * (1 - update / updates)

    batches = [pairs] * updates
    return fit(proxy, batches, comparison_loss, lr=rate)


def taught(
    features: Callable[[Tensor], Tensor],
    count: int,
    *,
    seed: int,
    gold: Score = toy_answers.gold,
) -> Proxy:
    """A proxy in these features that has learnt from `count` comparisons."""
    proxy, draw = Proxy(features), torch.Generator().manual_seed(seed)
    fit_proxy(proxy, compare(count, generator=draw, gold=gold), updates=100)
    return proxy


@torch.no_grad()
def accuracy(score: Score, pairs: Pairs) -> float:
    """The share of pairs in which the better answer scores higher; a tie is wrong."""
    better, worse = pairs
    return (score(better) > score(worse)).double().mean().item()


def ensemble(scores: Sequence[Score], *, worst: bool = False) -> Score:
    """The mean of several scores, or the worst of them, each in its own σ over N(0, 1).

    Scores are learnt up to a constant and on a scale of their own, so each is first
    brought to mean 0 and standard deviation 1 over the same 4,096 reference answers.
    """
    if not scores:
        require.refuse("scores", "none", "at least one")
    sample = toy_answers.draw(4096, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        spread = [torch.std_mean(score(sample)) for score in scores]

    def together(x: Tensor) -> Tensor:
        each = [(f(x) - mean) / std for f, (std, mean) in zip(scores, spread)]
        stacked = torch.stack(each)  # (k, ...)
        return stacked.amin(0) if worst else stacked.mean(0)

    return together


def network(*, generator: torch.Generator) -> nn.Module:
    """A small tanh network as a score, (N, 8) -> (N,): smooth, and no feature given."""
    units = (4.0,) * toy_answers.DIM  # answers reach to 4, where tanh bends
    return nn.Sequential(
        MLP(toy_answers.DIM, 8, 1, generator=generator, units=units), nn.Flatten(-2)
    )


def smooth_gold(*, generator: torch.Generator) -> Score:
    """Another gold score, which a `network` can learn: one itself, in its own σ."""
    return ensemble([network(generator=generator).requires_grad_(False)])


def control(seed: int) -> tuple[nn.Module, Score]:
    """A proxy that can express its gold, and that gold: nothing here need turn over."""
    draw = torch.Generator().manual_seed(seed)
    gold, proxy = smooth_gold(generator=draw), network(generator=draw)
    fit_proxy(proxy, compare(2000, generator=draw, gold=gold), lr=0.03)
    return proxy, gold
