"""Two answers to one request, and which of them somebody preferred.

The raw material of reward models, and of everything that learns from preferences
directly. The answers are samples of a policy, written into Rollouts; the annotators are
the village's (`lib.worlds.taste`), who follow a gold score with noise.

Shapes: N comparisons, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lib import require
from lib.evaluate import ask, scores
from lib.rollout import Rollout
from lib.worlds import taste
from lib.worlds.tasks import Task
from lib.worlds.taste import Annotators
from lib.worlds.village import Split

PEOPLE = Annotators()  # who answers unless told otherwise


@dataclass(frozen=True)
class Comparisons:
    """Two answers to each of N requests, the preferred one first.

    The gold scores are there to measure with; no model sees them.
    """

    asked: Sequence[Task]  # N
    chosen: Rollout  # (N, T)
    rejected: Rollout  # (N, T)
    chosen_gold: Tensor  # (N,) float64
    rejected_gold: Tensor  # (N,) float64

    def __post_init__(self) -> None:
        for name in ("chosen", "rejected", "chosen_gold", "rejected_gold"):
            found = len(getattr(self, name))
            if found != len(self.asked):
                require.refuse(name, f"{found} rows", f"{len(self.asked)}, as in asked")

    @property
    def identical(self) -> Tensor:
        """(N,) bool: both answers are the same, token for token."""
        width = max(self.chosen.mask.shape[1], self.rejected.mask.shape[1])
        both = (self.chosen, self.rejected)
        one, other = (_wide(r.actions.masked_fill(~r.mask, -1), width) for r in both)
        return (one == other).all(1)

    def rows(self, index: Tensor) -> "Comparisons":
        """These comparisons only (a minibatch)."""
        return Comparisons(
            [self.asked[i] for i in index.tolist()],
            self.chosen.rows(index),
            self.rejected.rows(index),
            self.chosen_gold[index],
            self.rejected_gold[index],
        )

    def __add__(self, more: "Comparisons") -> "Comparisons":
        """These comparisons and then those."""
        return Comparisons(
            [*self.asked, *more.asked],
            together(self.chosen, more.chosen),
            together(self.rejected, more.rejected),
            torch.cat((self.chosen_gold, more.chosen_gold)),
            torch.cat((self.rejected_gold, more.rejected_gold)),
        )

    def __len__(self) -> int:
        return len(self.asked)


def together(*parts: Rollout) -> Rollout:
    """Rollouts of texts as one, row below row, padded to the longest."""
    width = max(part.mask.shape[1] for part in parts)

    def joined(name: str) -> Tensor:
        each = [getattr(part, name) for part in parts]
        return torch.cat([_wide(x, width, 0) if x.ndim > 1 else x for x in each])

    return Rollout(**{f.name: joined(f.name) for f in fields(Rollout)})


def _wide(x: Tensor, width: int, fill: int = -1) -> Tensor:
    return F.pad(x, (0, width - x.shape[1]), value=fill)


def annotated(
    asked: Sequence[Task],
    answers: Rollout,
    *,
    generator: torch.Generator,
    annotators: Annotators = PEOPLE,
    seen: Tensor | None = None,
) -> Comparisons:
    """Two answers to each request (rows 2k and 2k + 1), put before the annotators.

    They follow the gold scores, or `seen`, (2N,): what they take for the gold score, if
    their taste is another.
    """
    if len(answers) != 2 * len(asked):
        require.refuse("answers", f"{len(answers)} rows", f"{2 * len(asked)}, two each")
    gold = scores(asked, answers)
    seen = gold if seen is None else seen
    require.tensor("seen", seen, gold.shape)
    first = torch.arange(0, len(answers), 2)
    won = annotators.prefer(seen[first], seen[first + 1], generator=generator)
    chosen = torch.where(won, first, first + 1)
    rejected = torch.where(won, first + 1, first)
    texts = answers.rows(chosen), answers.rows(rejected)
    return Comparisons(asked, *texts, gold[chosen], gold[rejected])


def compare(
    policy: nn.Module,
    *,
    count: int,
    seed: int,
    annotators: Annotators = PEOPLE,
    split: Split = "train",
    progress: str | None = None,
) -> Comparisons:
    """`count` open requests, two samples of the policy for each, annotated.

    Where both samples are the same there is nothing to prefer: another request is drawn.
    `progress` names a progress bar.
    """
    require.count("count", count)
    require.count("seed", seed, least=0)
    draw = torch.Generator().manual_seed(seed)
    found, blocks, in_vain = None, 0, 0
    bar = tqdm(total=count, desc=progress, disable=progress is None)
    while found is None or len(found) < count:
        number = 1000 * seed + blocks
        asked = taste.requests(count=min(count, 512), seed=number, split=split)
        answers = ask(policy, asked, group=2, generator=draw)
        new = annotated(asked, answers, generator=draw, annotators=annotators)
        different = (~new.identical).nonzero().squeeze(1)
        blocks, in_vain = blocks + 1, 0 if len(different) else in_vain + 1
        if in_vain == 9:
            require.refuse("policy", "the same answer twice, always", "one that varies")
        if len(different):
            new = new.rows(different)
            found = new if found is None else found + new
            bar.update(min(len(found), count) - bar.n)
    bar.close()
    return found.rows(torch.arange(count))


def ceiling(
    first: Tensor, second: Tensor, annotators: Annotators = PEOPLE
) -> tuple[float, float]:
    """How far the annotators let anyone come, exactly: gold scores (N,), (N,).

    The accuracy of the gold taste itself against their answers, which no model can
    exceed but by luck; and how often two of them agree on a pair.
    """
    p = annotators.probabilities(first, second)
    best, each_other = torch.maximum(p, 1 - p), p.square() + (1 - p).square()
    return best.mean().item(), each_other.mean().item()
