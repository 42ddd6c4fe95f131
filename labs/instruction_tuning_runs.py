"""Chapter 7's sweeps on the village's language model.

How many demonstrations, how many epochs, which learning rate, whose tokens: each setting
on three seeds, from the same base model, about twenty minutes on one core.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from labs.record import of_sweeps
from lib import base, evaluate, instruct, tuning
from lib.models.transformer import Transformer
from lib.rollout import Rollout
from lib.train import fit
from lib.worlds.corpus import FORMS, documents
from lib.worlds.tasks import SKILLS, Task

UPDATES = 131  # of 32 demonstrations: the largest set, once
SIZES = (1, 5, 20, 100, 600)  # demonstrations of each of six skills, and of talk
LOOKS = (1, 2, 3, 4, 6, 8, 12, 16)  # epochs after which a model is measured
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
REHEARSALS = (0, 4, 1)  # a batch of old text after so many of demonstrations; 0: none
Shown = Sequence[tuple[Task, str]]


def measured(model: Transformer, *, long: bool = False) -> dict[str, Any]:
    """What a model can do, how it says it, and what it remembers of its old text."""
    asked = evaluate.exam()
    put = longer(asked, seed=99) if long else asked
    draw = torch.Generator().manual_seed(0)
    rollout = evaluate.ask(model, put, generator=draw)
    scores = evaluate.scores(asked, rollout).reshape(7, -1).mean(1).tolist()
    said = evaluate.answers(rollout)
    form = [tuning.well_formed(*pair) for pair in zip(asked, said)]
    shown = instruct.demonstrations(count=30, seed=77, split="test")
    with torch.no_grad():
        loss, _ = instruct.sft_loss(model, instruct.written(*zip(*shown)))
    return {
        **dict(zip((*SKILLS, "talk"), scores)),
        "right": sum(scores[:6]) / 6,
        "form": sum(form) / len(form),
        "finished": rollout.terminated.double().mean(),
        "length": rollout.lengths.double().mean(),
        "loss": loss,
        **{f"text: {name}": value for name, value in tuning.reading(model).items()},
    }


def longer(asked: Sequence[Task], *, seed: int) -> list[Task]:
    """The same tasks, each after two stories, letters or pages on something else."""
    draw = random.Random(f"longer {seed}")
    put = []
    for task in asked:
        forms = draw.choices(("page", "story", "letter"), k=2)
        before = " ".join(FORMS[form][0](draw) for form in forms)
        put.append(replace(task, request=f"{before} {task.request}"))
    return put


def before(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """The base model that all of them start from."""
    yield measured(model)


def sizes(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """More demonstrations, the same number of updates."""
    for count in SIZES:
        shown = instruct.demonstrations(count=count, seed=seed)
        pupil = tuning.tuned(model, shown, updates=UPDATES, seed=seed)
        yield {"shown": len(shown), **measured(pupil)}


def rates(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """The same demonstrations at other learning rates."""
    shown = instruct.demonstrations(count=200, seed=seed)
    for lr in RATES:
        pupil = tuning.tuned(model, shown, updates=UPDATES, lr=lr, seed=seed)
        yield {"lr": lr, **measured(pupil)}


def masks(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Whose tokens are learned, with short and with long questions."""
    shown = instruct.demonstrations(count=200, seed=seed)
    tasks, texts = zip(*shown)
    for long in (False, True):
        put = list(zip(longer(tasks, seed=seed), texts)) if long else shown
        for edit in (tuning.as_written, tuning.everything, tuning.without_end):
            if long and edit is tuning.without_end:
                continue
            pupil = tuning.tuned(model, put, updates=UPDATES, edit=edit, seed=seed)
            found = measured(pupil, long=long)
            yield {"learned": edit.__name__, "long": long, **found}


def epochs(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """A small set sixteen times over, measured on the way."""
    shown, pupil = instruct.demonstrations(count=100, seed=seed), deepcopy(model)
    each = -(-len(shown) // instruct.BATCH)
    stream = instruct.shuffled(shown, epochs=16, batch=instruct.BATCH, seed=seed)
    found: list[dict[str, Any]] = [{"epoch": 0, **measured(pupil)}]

    def watched() -> Iterator[Rollout]:
        for update, batch in enumerate(stream):
            epoch, rest = divmod(update, each)
            if rest == 0 and epoch in LOOKS:
                found.append({"epoch": epoch, **measured(pupil)})
            yield batch

    rate = base.warm_cosine(instruct.LR, 16 * each, warm=20)
    fit(pupil, watched(), instruct.sft_loss, lr=rate)
    yield from [*found, {"epoch": 16, **measured(pupil)}]


def rehearsals(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """The same demonstrations with and without some of the old text in between."""
    shown = instruct.demonstrations(count=200, seed=seed)
    old = base.rows(documents(count=4000, seed=1000 + seed)).split(base.BATCH)
    for every in REHEARSALS:
        pupil = deepcopy(model)
        stream = instruct.shuffled(shown, epochs=3, batch=instruct.BATCH, seed=seed)
        stream = itertools.islice(stream, UPDATES)
        if every:
            stream = tuning.rehearsed(stream, iter(old), every=every)
        batches = list(stream)
        rate = base.warm_cosine(instruct.LR, len(batches), warm=20)
        fit(pupil, batches, tuning.rehearsed_loss, lr=rate)
        yield {"every": every, **measured(pupil)}


def alone(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Demonstrations of one skill only, and what becomes of the others."""
    shown = instruct.demonstrations(count=200, seed=seed)
    for skill in ("know", "sum"):
        some = [(task, text) for task, text in shown if task.skill == skill]
        pupil = tuning.tuned(model, some, updates=UPDATES // 3, seed=seed)
        yield {"skill": skill, **measured(pupil)}


SEEDS = {sweep: range(3) for sweep in (sizes, masks, epochs, rates, rehearsals, alone)}
SEEDS[before] = range(1)
RECORD = of_sweeps("07_instruction_tuning", base.base_model, SEEDS, file=__file__)
