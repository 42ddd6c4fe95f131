"""Direct alignment: a policy learns from preferences, with no reward model in between.

A loss of `lib.losses.preference` wants one number for each answer, its log-probability
under the policy, and most want another under the reference. Here is the way from pairs
of answers to these numbers, and on to a trained policy. A loss's knobs are bound with
`functools.partial`:

    policy, history = align(model, pairs, partial(dpo, beta=0.3), lr=1e-3, seed=0)

The reference never changes, so it is asked once, before training. An
objective is a loss on some of N rows, and how many rows there are: `with_reference`,
`without_reference` and `unpaired_objective` make the three kinds; `train` takes any.

Shapes: N pairs or answers, B of them in a batch, T tokens. Log-probabilities in nats.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib import require
from lib.logps import answer_logps, context_of
from lib.losses.preference import Loss, kto
from lib.preference_data import (
    PreferencePairs,
    check_answers,
    check_pairs,
    frozen_logps,
    mismatched,
    pair_logps,
)
from lib.rollout import Rollout
from lib.train import History, fit, minibatches, warm_cosine

EPOCHS, BATCH, WARM = 1, 32, 10
PairLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Loss]  # as `preference.dpo`
FreePairLoss = Callable[[Tensor, Tensor], Loss]  # as `preference.simpo`
AnswerLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Loss]  # as `preference.kto`


@dataclass(frozen=True)
class PreferenceObjective:
    """What is to be learned: a loss on some rows, and how many rows there are."""

    count: int  # N
    loss: Callable[[nn.Module, Tensor], Loss]  # policy, row numbers (B,) -> loss
    over: str | None = "rows"  # which the loss is a mean over; None: no mean over parts


# --- three kinds of objective ---------------------------------------------------------


def with_reference(
    pairs: PreferencePairs, loss: PairLoss, reference: nn.Module, *, per_token: bool
) -> PreferenceObjective:
    """Pairs, and a loss that compares the policy with a reference: `dpo` and its kin."""
    check_pairs(pairs, context_of(reference))
    ref = frozen_logps(reference, pairs, per_token=per_token)  # (2, N)

    def loss_fn(policy: nn.Module, rows: Tensor) -> Loss:
        logps = pair_logps(policy, pairs.rows(rows), per_token=per_token)
        return loss(*logps, *ref[:, rows])

    return PreferenceObjective(len(pairs), loss_fn)


def without_reference(
    pairs: PreferencePairs, loss: FreePairLoss, *, context: int | None
) -> PreferenceObjective:
    """Pairs, and a loss on means per token without a reference: `simpo`, `orpo`."""
    check_pairs(pairs, context)

    def loss_fn(policy: nn.Module, rows: Tensor) -> Loss:
        return loss(*pair_logps(policy, pairs.rows(rows), per_token=True))

    return PreferenceObjective(len(pairs), loss_fn)


def unpaired_objective(
    answers: Rollout,
    desirable: Tensor,
    reference: nn.Module,
    loss: AnswerLoss = kto,
) -> PreferenceObjective:
    """Single answers, each good or bad, `desirable` (N,) bool: `kto`.

    The loss's zero, kl, is the policy's mean log-ratio on *mismatched* answers, which it
    scores anew for every batch. Those of the reference are known beforehand. That zero
    belongs to the batch as a whole, so one process must read it at once.
    """
    require.tensor("desirable", desirable, answers.mask.shape[:1])
    desirable = desirable.to(answers.mask.device)
    strangers = mismatched(answers)
    ref = []
    for name, rows in (("answers", answers), ("mismatched answers", strangers)):
        check_answers(name, rows, context_of(reference))
        with torch.no_grad():
            parts = torch.arange(len(rows), device=rows.mask.device).split(128)
            found = [answer_logps(reference, rows.rows(part)) for part in parts]
        ref.append(torch.cat(found))  # (N,)

    def loss_fn(policy: nn.Module, rows: Tensor) -> Loss:
        with torch.no_grad():
            drift = answer_logps(policy, strangers.rows(rows)) - ref[1][rows]
        logps = answer_logps(policy, answers.rows(rows))
        return loss(logps, ref[0][rows], desirable[rows], drift.mean())

    return PreferenceObjective(len(answers), loss_fn, over=None)


# --- training -------------------------------------------------------------------------


def train(
    model: nn.Module,
    objective: PreferenceObjective,
    *,
    epochs: int = EPOCHS,
    lr: float,
    batch: int = BATCH,
    seed: int,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
    every: int = 100,
) -> tuple[nn.Module, History]:
    """A copy of the model after `epochs` passes over the rows, in an order from the seed.

    The rate is `warm_cosine`'s with its peak at `lr`. `watch(update, policy)` sees the
    policy before each update and after the last. Also returns the history of `fit`,
    which keeps a checkpoint `every` so many updates.
    """
    require.count("epochs", epochs)
    require.count("batch", batch)
    policy, updates = copy.deepcopy(model), epochs * math.ceil(objective.count / batch)

    def stream(start: int) -> Iterator[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        parts = minibatches(objective.count, epochs=epochs, batch=batch, generator=draw)
        for update, rows in enumerate(itertools.islice(parts, start, None), start):
            if watch is not None:
                watch(update, policy)
            yield rows

    rate = warm_cosine(lr, updates, warm=WARM)
    kept = {"progress": progress, "checkpoint": checkpoint, "every": every}
    kept["over"] = objective.over
    told_apart = (seed, epochs, batch, lr, objective.count)
    history = fit(policy, stream, objective.loss, lr=rate, run=told_apart, **kept)
    if watch is not None:
        watch(updates, policy)
    return policy, history


def align(
    model: nn.Module,
    pairs: PreferencePairs,
    objective: PairLoss,
    *,
    epochs: int = EPOCHS,
    lr: float,
    batch: int = BATCH,
    seed: int,
    reference: nn.Module | None = None,
    per_token: bool = False,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
    every: int = 100,
) -> tuple[nn.Module, History]:
    """`train` on pairs with a loss like `dpo`; the model itself is the reference.

    `per_token` hands the loss means per token instead of sums: length-normalised DPO,
    IPO as libraries have it. Equal, empty and too long answers are refused by name.
    """
    reference = model if reference is None else reference
    whole = with_reference(pairs, objective, reference, per_token=per_token)
    knobs = {"epochs": epochs, "lr": lr, "batch": batch, "seed": seed, "watch": watch}
    kept = {"progress": progress, "checkpoint": checkpoint, "every": every}
    return train(model, whole, **knobs, **kept)
