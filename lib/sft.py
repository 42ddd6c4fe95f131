"""Instruction tuning: a base model learns to answer, from people's answers.

Answers that somebody wrote are a `Rollout` like those that a model sampled: states are
the text so far, actions the tokens that followed, and the mask is True on the answer.
So what reads one reads the other, and supervised fine-tuning is policy learning with
somebody else's actions.
"""

import math
import random
from collections.abc import Iterator, Sequence

from torch import nn

from lib import require
from lib.evaluate import prompt_ids
from lib.logps import action_logps
from lib.losses.supervised import Loss, sft
from lib.ops import device_of
from lib.rollout import Rollout, of_tokens
from lib.train import History, fit, warm_cosine
from lib.worlds.task import Task

EPOCHS = 3
BATCH = 32
LR = 3e-3


def written(
    asked: Sequence[Task],
    texts: Sequence[str],
    *,
    finished: Sequence[bool] | None = None,
) -> Rollout:
    """Somebody's answers as a Rollout: prompt, a space, the text, end-of-text.

    The end is written where `finished` (everywhere, if it is None). A text that begins
    with a space gets no second one, so that what was sampled can be written again.
    Log-probabilities and rewards are 0. A row has at least one token of an answer.
    """
    for name, given in (("texts", texts), ("finished", finished)):
        if given is not None and len(given) != len(asked):
            require.refuse(name, f"{len(given)}", f"{len(asked)}, one for each task")
    if not asked:
        require.refuse("asked", "none", "at least one task")
    tokenizer = asked[0].tokenizer
    spaced = [text if text.startswith(" ") else f" {text}" for text in texts]
    ends = [[tokenizer.end] * done for done in finished or [True] * len(asked)]
    said = [[*tokenizer.encode(text), *end] for text, end in zip(spaced, ends)]
    prompts = [prompt_ids(task) for task in asked]
    return of_tokens(prompts, said, end=tokenizer.end, pad=tokenizer.pad)


def sft_loss(model: nn.Module, shown: Rollout) -> Loss:
    """Predict the answers, not the questions: `sft` on the tokens of the mask.

    A row without an answer has no part in it.
    """
    shown = shown.to(device_of(model))
    some = shown.mask.any(1)
    shown = shown if some.all() else shown.rows(some.nonzero()[:, 0])
    return sft(action_logps(model, shown), shown.mask)


def shuffled(
    shown: Sequence[tuple[Task, str]], *, epochs: int, batch: int, seed: int
) -> Iterator[Rollout]:
    """Batches of demonstrations, each once an epoch, in an order from the seed."""
    draw = random.Random(seed)
    for _ in range(epochs):
        order = draw.sample(range(len(shown)), len(shown))
        for first in range(0, len(order), batch):
            yield written(*zip(*(shown[i] for i in order[first : first + batch])))


def instruct(
    model: nn.Module,
    shown: Sequence[tuple[Task, str]],
    *,
    epochs: int = EPOCHS,
    batch: int = BATCH,
    lr: float = LR,
    seed: int = 0,
    progress: str | None = None,
) -> History:
    """Fine-tune a model in place on demonstrations; returns the history of `fit`."""
    require.count("epochs", epochs)
    require.count("batch", batch)
    if not shown:
        require.refuse("shown", "none", "at least one demonstration")
    updates = epochs * math.ceil(len(shown) / batch)
    rate = warm_cosine(lr, updates, warm=20)
    batches = list(shuffled(shown, epochs=epochs, batch=batch, seed=seed))
    return fit(model, batches, sft_loss, lr=rate, progress=progress, over="tokens")
