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

from labs import instruction_tuning
from labs.record import of_sweeps
from lib import evaluate, sft, train, villagers
from lib.models.transformer import Transformer
from lib.rollout import Rollout
from lib.train import fit
from lib.worlds.village.corpus import FORMS, documents
from lib.worlds.village.tasks import SKILLS, Task

UPDATES = 131  # of 32 demonstrations: the largest set, once
SIZES = (1, 5, 20, 100, 600)  # demonstrations of each of six skills, and of talk
LOOKS = (1, 2, 3, 4, 6, 8, 12, 16)  # epochs after which a model is measured
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
REHEARSALS = (0, 4, 1)  # a batch of old text after so many of demonstrations; 0: none
Shown = Sequence[tuple[Task, str]]


def measured(model: Transformer, *, long: bool = False) -> dict[str, Any]:
    """What a model can do, how it says it, and what it remembers of its old text."""
    asked = villagers.exam()
    put = longer(asked, seed=99) if long else asked
    draw = torch.Generator().manual_seed(0)
    rollout = evaluate.ask(model, put, generator=draw)
    scores = evaluate.scores(asked, rollout).reshape(7, -1).mean(1).tolist()
    said = villagers.answers(rollout)
    form = [instruction_tuning.well_formed(*pair) for pair in zip(asked, said)]
    shown = villagers.demonstrations(count=30, seed=77, split="test")
    with torch.no_grad():
        loss, _ = sft.sft_loss(model, sft.written(*zip(*shown)))
    return {
        **dict(zip((*SKILLS, "talk"), scores)),
        "right": sum(scores[:6]) / 6,
        "form": sum(form) / len(form),
        "finished": rollout.terminated.double().mean(),
        "length": rollout.lengths.double().mean(),
        "loss": loss,
        **{
            f"text: {name}": value
            for name, value in instruction_tuning.reading(model).items()
        },
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
        shown = villagers.demonstrations(count=count, seed=seed)
        pupil = instruction_tuning.tuned(model, shown, updates=UPDATES, seed=seed)
        yield {"shown": len(shown), **measured(pupil)}


def rates(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """The same demonstrations at other learning rates."""
    shown = villagers.demonstrations(count=200, seed=seed)
    for lr in RATES:
        pupil = instruction_tuning.tuned(
            model, shown, updates=UPDATES, lr=lr, seed=seed
        )
        yield {"lr": lr, **measured(pupil)}


def masks(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Whose tokens are learned, with short and with long questions."""
    shown = villagers.demonstrations(count=200, seed=seed)
    tasks, texts = zip(*shown)
    for long in (False, True):
        put = list(zip(longer(tasks, seed=seed), texts)) if long else shown
        for edit in (
            instruction_tuning.as_written,
            instruction_tuning.everything,
            instruction_tuning.without_end,
        ):
            if long and edit is instruction_tuning.without_end:
                continue
            pupil = instruction_tuning.tuned(
                model, put, updates=UPDATES, edit=edit, seed=seed
            )
            found = measured(pupil, long=long)
            yield {"learned": edit.__name__, "long": long, **found}


def epochs(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """A small set sixteen times over, measured on the way."""
    shown, pupil = villagers.demonstrations(count=100, seed=seed), deepcopy(model)
    each = -(-len(shown) // sft.BATCH)
    stream = sft.shuffled(shown, epochs=16, batch=sft.BATCH, seed=seed)
    found: list[dict[str, Any]] = [{"epoch": 0, **measured(pupil)}]

    def watched() -> Iterator[Rollout]:
        for update, batch in enumerate(stream):
            epoch, rest = divmod(update, each)
            if rest == 0 and epoch in LOOKS:
                found.append({"epoch": epoch, **measured(pupil)})
            yield batch

    rate = train.warm_cosine(sft.LR, 16 * each, warm=20)
    fit(pupil, watched(), sft.sft_loss, lr=rate)
    yield from [*found, {"epoch": 16, **measured(pupil)}]


def rehearsals(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """The same demonstrations with and without some of the old text in between."""
    shown = villagers.demonstrations(count=200, seed=seed)
    old = villagers.rows(documents(count=4000, seed=1000 + seed)).split(villagers.BATCH)
    for every in REHEARSALS:
        pupil = deepcopy(model)
        stream = sft.shuffled(shown, epochs=3, batch=sft.BATCH, seed=seed)
        stream = itertools.islice(stream, UPDATES)
        if every:
            stream = instruction_tuning.rehearsed(stream, iter(old), every=every)
        batches = list(stream)
        rate = train.warm_cosine(sft.LR, len(batches), warm=20)
        fit(pupil, batches, instruction_tuning.rehearsed_loss, lr=rate)
        yield {"every": every, **measured(pupil)}


def alone(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Demonstrations of one skill only, and what becomes of the others."""
    shown = villagers.demonstrations(count=200, seed=seed)
    for skill in ("know", "sum"):
        some = [(task, text) for task, text in shown if task.skill == skill]
        pupil = instruction_tuning.tuned(model, some, updates=UPDATES // 3, seed=seed)
        yield {"skill": skill, **measured(pupil)}


SEEDS = {sweep: range(3) for sweep in (sizes, masks, epochs, rates, rehearsals, alone)}
SEEDS[before] = range(1)
RECORD = of_sweeps("07_instruction_tuning", villagers.base_model, SEEDS, file=__file__)
