"""Sums worked step by step, right and wrong, and the two ways to mark them.

An outcome reward model learns whether the answer came out right; a process reward model
whether each step is. Mistakes are made here by code, so every mark is the truth.

Shapes: B solutions, T tokens.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import require
from lib.losses.reward import Loss, outcome, process
from lib.models.transformer import Transformer
from lib.reward_model import SurprisalRewardModel
from lib.rollout import Rollout
from lib.sft import written
from lib.train import LossFn, fit, minibatches, warm_cosine
from lib.worlds.village import TOKENIZER, Split
from lib.worlds.village.tasks import Task, tasks, verify

BAD, NEUTRAL, GOOD = range(3)
UNMARKED = -1  # what follows a mistake is not judged (Lightman et al. 2024)
STOP = TOKENIZER.encode(".")[0]  # every step ends with it, and nothing else does


@dataclass(frozen=True)
class Worked:
    """A sum, somebody's steps, and what each is worth."""

    task: Task
    steps: tuple[str, ...]  # "3 + 4 = 7."
    marks: tuple[int, ...]  # GOOD, NEUTRAL or BAD; UNMARKED after a BAD one
    answer: int

    @property
    def text(self) -> str:
        """The solution as a model writes it."""
        return f"<think> {' '.join(self.steps)} </think> {self.answer}"

    @property
    def right(self) -> bool:
        """The verdict on the answer."""
        return verify(self.task, self.text)


def work(task: Task, draw: random.Random, *, wrong: bool, idle: bool = False) -> Worked:
    """A sum worked out; `wrong`: one step is miscalculated, and the rest follows from it.

    `idle` puts in a step that is true and leads nowhere, "7 + 0 = 7.": NEUTRAL.
    """
    if task.skill != "sum":
        require.refuse("task", f"skill {task.skill!r}", "a sum")
    total, *terms = map(int, re.findall(r"[0-9]+", task.request))
    slip = draw.randrange(len(terms)) if wrong else None
    if idle:
        terms.insert(draw.randint(1, len(terms)), 0)
        slip = slip if slip is None or terms[slip] else slip + 1
    steps, marks = [], []
    for place, term in enumerate(terms):
        said = total + term
        if place == slip:
            said += draw.choice((-2, -1, 1, 2))
        after = slip is not None and place > slip
        mark = BAD if place == slip else GOOD if term else NEUTRAL
        steps.append(f"{total} + {term} = {said}.")
        marks.append(UNMARKED if after else mark)
        total = said
    return Worked(task, tuple(steps), tuple(marks), total)


def solutions(
    *, count: int, seed: int, split: Split = "train", levels: Sequence[int] = (2, 3, 4)
) -> list[Worked]:
    """`count` sums worked out: half of them wrong, a quarter with an idle step."""
    draw = random.Random(f"worked {seed}")
    asked = tasks("sum", count=count, seed=seed, split=split, levels=levels)
    return [
        work(task, draw, wrong=i % 2 == 1, idle=draw.random() < 0.25)
        for i, task in enumerate(asked)
    ]


@dataclass(frozen=True)
class Marked:
    """Solutions as text, with both kinds of marks."""

    rollout: Rollout
    right: Tensor  # (B,) bool: the answer came out right
    ends: Tensor  # (B, T) bool: True on the last token of each step
    marks: Tensor  # (B, T) int: BAD, NEUTRAL, GOOD on ends; UNMARKED elsewhere

    def rows(self, index: Tensor) -> "Marked":
        """These solutions only (a minibatch)."""
        rest = self.right[index], self.ends[index], self.marks[index]
        return Marked(self.rollout.rows(index), *rest)

    def __len__(self) -> int:
        return len(self.right)


def marked(found: Sequence[Worked]) -> Marked:
    """Solutions put before both markers."""
    rollout = written([one.task for one in found], [one.text for one in found])
    ends = rollout.mask & (rollout.actions == STOP)
    marks = torch.full(ends.shape, UNMARKED)
    marks[ends] = torch.tensor([mark for one in found for mark in one.marks])
    return Marked(rollout, torch.tensor([one.right for one in found]), ends, marks)


def at_actions(model: nn.Module, rollout: Rollout) -> Tensor:
    """What a reward model says when it has read each action: (B, T) or (B, T, 3)."""
    tokens = torch.cat((rollout.states[:, :1], rollout.actions), 1)  # (B, T + 1)
    return model(tokens)[:, 1:]


def outcome_loss(model: nn.Module, seen: Marked) -> Loss:
    """Will the answer be right? Asked at every token (ORM)."""
    labels = seen.right.unsqueeze(1).expand(seen.ends.shape)
    return outcome(at_actions(model, seen.rollout), labels, seen.rollout.mask)


def process_loss(model: nn.Module, seen: Marked) -> Loss:
    """Is this step good? Asked at the end of each, up to the first bad one (PRM)."""
    judged = seen.marks != UNMARKED
    return process(at_actions(model, seen.rollout), seen.marks, judged)


def fit_marks(
    trunk: Transformer,
    seen: Marked,
    loss: LossFn,
    *,
    outputs: int,
    seed: int,
    epochs: int = 2,
    lr: float = 5e-3,
    batch: int = 32,
) -> SurprisalRewardModel:
    """An ORM (`outcome_loss`, one output) or a PRM (`process_loss`, three)."""
    model = SurprisalRewardModel(trunk, outputs=outputs)
    draw = torch.Generator().manual_seed(seed)
    parts = minibatches(len(seen), epochs=epochs, batch=batch, generator=draw)
    batches = [seen.rows(some) for some in parts]
    fit(model, batches, loss, lr=warm_cosine(lr, len(batches), warm=10))
    return model


def true_first_bad(seen: Marked) -> Tensor:
    """(B,) the number of the miscalculated step, from 0; -1: none."""
    number = seen.ends.cumsum(1) - 1  # of the step that ends here
    return torch.where(seen.marks == BAD, number, -1).max(1).values


@torch.no_grad()
def first_bad(model: nn.Module, seen: Marked) -> Tensor:
    """(B,) the number of the first step that a PRM calls bad, from 0; -1: none."""
    bad = at_actions(model, seen.rollout).argmax(-1) == BAD  # (B, T)
    number = seen.ends.cumsum(1) - 1  # of the step that ends here
    found = torch.where(bad & seen.ends, number, len(seen.ends[0])).min(1).values
    return found.masked_fill(found == len(seen.ends[0]), -1)


@torch.no_grad()
def reading(orm: nn.Module, prm: nn.Module, one: Worked) -> tuple[list[str], Tensor]:
    """One solution as both read it: its tokens, and (2, T) probabilities.

    That the answer will be right (ORM), and that a step that ends here is bad (PRM; NaN
    where none ends).
    """
    seen = marked([one])
    inside, ends = seen.rollout.mask[0], seen.ends[0]
    right = torch.sigmoid(at_actions(orm, seen.rollout))[0]
    bad = at_actions(prm, seen.rollout).softmax(-1)[0, :, BAD]
    tokens = [TOKENIZER.decode([t]) for t in seen.rollout.actions[0, inside].tolist()]
    return tokens, torch.stack((right, bad.masked_fill(~ends, torch.nan)))[:, inside]
