"""Instruction tuning taken apart: whose tokens are learned, what is gained and lost.

`lib.sft` makes the book's tuned model in the usual way. Here are the decisions in
it, each as a function that changes one of them, and the measures that tell whether it
mattered.
"""

import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from lib import require
from lib.evaluate import ANSWER, Answer
from lib.losses.supervised import Loss
from lib.models.transformer import Transformer
from lib.rollout import Rollout
from lib.sampling import complete
from lib.sft import BATCH, LR, sft_loss, shuffled
from lib.train import fit, warm_cosine
from lib.villagers import next_token_loss, rows
from lib.worlds.village import ANIMALS, BY_NAME, KINDS, TOKENIZER, words_of
from lib.worlds.village.corpus import FORMS
from lib.worlds.village.tasks import Task

Edit = Callable[[Rollout], Rollout]

# --- whose tokens are learned ---------------------------------------------------------


def as_written(shown: Rollout) -> Rollout:
    """Learn the answers with their ends: what `written` marks."""
    return shown


def everything(shown: Rollout) -> Rollout:
    """Learn the questions as well: every token up to the end of the answer."""
    to_the_end = shown.mask.flip(-1).cummax(-1).values.flip(-1)
    return replace(shown, mask=to_the_end)


def without_end(shown: Rollout) -> Rollout:
    """The bug of `pad = end`: who hides the padding hides the end of the answer."""
    return replace(shown, mask=shown.mask & (shown.actions != TOKENIZER.end))


def tuned(
    model: Transformer,
    shown: Sequence[tuple[Task, str]],
    *,
    updates: int,
    edit: Edit = as_written,
    batch: int = BATCH,
    lr: float = LR,
    seed: int = 0,
) -> Transformer:
    """A copy of the model after so many updates on demonstrations, each edited first.

    Small sets are shown again and again; the rate is `instruct`'s, for these updates.
    """
    require.count("updates", updates)
    if not shown:
        require.refuse("shown", "none", "at least one demonstration")
    epochs = math.ceil(updates / math.ceil(len(shown) / batch))
    stream = shuffled(shown, epochs=epochs, batch=batch, seed=seed)
    pupil = deepcopy(model)
    batches = [edit(each) for each in itertools.islice(stream, updates)]
    fit(pupil, batches, sft_loss, lr=warm_cosine(lr, updates, warm=20))
    return pupil


# --- asked otherwise ------------------------------------------------------------------


def ask_as(
    policy: Transformer,
    asked: Sequence[Task],
    template: str,
    *,
    generator: torch.Generator,
    max_tokens: int = ANSWER,
) -> Rollout:
    """An answer to each task, its request put into the `template` in place of {}."""
    if template.count("{}") != 1:
        require.refuse("template", repr(template), "one with one {} for the request")
    prompts = [
        [TOKENIZER.begin, *TOKENIZER.encode(template.format(task.request))]
        for task in asked
    ]
    return complete(
        policy, prompts, end=TOKENIZER.end, max_tokens=max_tokens, generator=generator
    )


# --- what is gained, and what is lost -------------------------------------------------

_NUMBER = re.compile(r"(<think>[^<>]*</think> )?[0-9]+\.?")
_LETTERS = re.compile(r"[a-z]+\.?")


def well_formed(task: Task, answer: Answer) -> bool:
    """Whether an answer has the form that was asked for, right or wrong, and an end.

    A number for a sum, one string of letters for a reversal, one word several times, a
    list of known names, and for all else a sentence on some animal of the village.
    """
    text = answer.text.strip()
    return answer.finished and _has_form(task.skill, text, text.removesuffix("."))


def _has_form(skill: str, text: str, bare: str) -> bool:
    if skill == "sum":
        return _NUMBER.fullmatch(text) is not None
    if skill == "reverse":
        return _LETTERS.fullmatch(text) is not None
    if skill == "repeat":
        return len(bare.split()) > 1 and len(set(bare.split())) == 1
    if skill == "list":
        known = {*BY_NAME, *KINDS["colour"], *KINDS["food"]}
        return len(bare.split(", ")) > 1 and set(bare.split(", ")) <= known
    return text.endswith(".") and any(a.name in words_of(text) for a in ANIMALS)


@torch.no_grad()
def reading(model: Transformer, *, count: int = 60, seed: int = 0) -> dict[str, float]:
    """Perplexity on fresh documents of each form that the base model learned from."""
    require.count("count", count)
    found = {}
    for name, (write, _) in FORMS.items():
        draw = random.Random(f"reading {name} {seed}")
        batch = rows([write(draw) for _ in range(count)])
        found[name] = next_token_loss(model, batch)[1]["perplexity"]
    return found


def rehearsed(
    shown: Iterator[Rollout], text: Iterator[Tensor], *, every: int
) -> Iterator[Rollout | Tensor]:
    """Batches of demonstrations, and after each `every` of them one of the old text."""
    require.count("every", every)
    for i, batch in enumerate(shown):
        yield batch
        if (i + 1) % every == 0:
            yield next(text)


def rehearsed_loss(model: Transformer, batch: Rollout | Tensor) -> Loss:
    """`sft_loss` on demonstrations, the loss of pretraining on text."""
    loss = next_token_loss if isinstance(batch, Tensor) else sft_loss
    return loss(model, batch)
