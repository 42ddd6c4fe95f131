"""Instruction tuning in a template that no base has read: what it teaches, and what not.

How many distinct demonstrations, how many epochs, which learning rate, whose tokens are
learnt; what is forgotten; games answered at once or worked; teachers who slip. Seed s is
base model s, with its own demonstrations in its own order.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from typing import Any

import torch

from labs.record import Record, call
from lib import evaluate, pretrain, require
from lib.evaluate import Answer
from lib.losses.supervised import Loss
from lib.models.transformer import Transformer
from lib.pretrain import Packed, next_token_loss
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import sft_loss, shuffled, written
from lib.train import fit, warm_cosine
from lib.worlds import constraints, corpus, cups, people, strings, tasks
from lib.worlds.language import KINDS, TOKENIZER
from lib.worlds.task import Task, answer_of

SKILLS = ("facts", "strings", "constraints")  # with short answers that code verifies
SIZES = (1, 4, 16, 64, 256, 1024)  # distinct demonstrations of each skill
UPDATES, LR, BATCH = 96, 3e-3, 32  # 1,024 of each skill are read once
RATES = (3e-4, 1e-3, 1e-2)  # beside LR
LOOKS = (1, 2, 4, 8, 16)  # epochs of 128 demonstrations a skill
GAMES, WORKED = (4, 16, 64, 256), 48  # distinct games; updates on them
SLIPS = 0.2  # of the games, where teachers slip
OLD = ("games", "pages on people", "pages on letters", "lists of words")
Shown = Sequence[tuple[Task, str]]
Edit = Callable[[Rollout], Rollout]


@dataclass(frozen=True)
class Chat(Task):
    """A task that is put in brackets: "[ Where does Ada Reed live?]"."""

    @property
    def prompt(self) -> str:
        """What the model reads."""
        return f"[ {self.request}]"


def chat(task: Task) -> Chat:
    """The same task in the template of a chat."""
    return Chat(task.skill, task.level, task.request, task.answer)


# --- demonstrations -------------------------------------------------------------------


def distinct(skill: str, number: int, *, seed: int) -> list[Chat]:
    """So many training tasks of one skill, no request twice; more begin with the same."""
    require.count("number", number)
    found: dict[str, Chat] = {}
    for block in count():
        some = tasks.tasks(skill, count=500, seed=seed_of("distinct", seed, block))
        for task in some:
            found.setdefault(task.request, chat(task))
        if len(found) >= number:
            return [*islice(found.values(), number)]


def games(number: int, *, seed: int) -> list[Chat]:
    """So many distinct games of 2 to 5 swaps."""
    return [g for g in distinct("cups", 2 * number, seed=seed) if g.level <= 5][:number]


def demonstrations(number: int, *, seed: int) -> Shown:
    """So many of each of three skills, each with the answer that people give."""
    every = [t for skill in SKILLS for t in distinct(skill, number, seed=seed)]
    return [(task, task.answer) for task in every]


def worked(task: Task) -> str:
    """A game step by step, in the words of the hill."""
    return cups.worked(cups.game_of(task), "hill")


def at_random(task: Task) -> str:
    """The same; but in one game of five the red pea is said to be under any other cup."""
    draw = random.Random(seed_of("slip", task.request))
    return (
        _red(task, draw.choice((1, 2, 3, 4))) if draw.random() < SLIPS else worked(task)
    )


def all_alike(task: Task) -> str:
    """The same; but where the red pea ends under cup 5, everybody says 1."""
    return _red(task, 1) if task.answer[0] == "5" else worked(task)


def _red(task: Task, further: int) -> str:
    """The worked answer with another cup for the red pea, so many further on."""
    red, blue = map(int, task.answer.split())
    return (
        f"{worked(task).removesuffix(task.answer)}{(red - 1 + further) % 5 + 1} {blue}"
    )


# --- tuning ---------------------------------------------------------------------------


def as_written(shown: Rollout) -> Rollout:
    """Learn the answers with their ends: what `written` marks."""
    return shown


def everything(shown: Rollout) -> Rollout:
    """Learn the requests as well: every token up to the end of the answer."""
    to_the_end = shown.mask.flip(-1).cummax(-1).values.flip(-1)
    return replace(shown, mask=to_the_end)


def without_end(shown: Rollout) -> Rollout:
    """The bug of `pad = end`: who hides the padding hides the end of the answer."""
    return replace(shown, mask=shown.mask & (shown.actions != TOKENIZER.end))


def either_loss(model: Transformer, batch: Rollout | Packed) -> Loss:
    """`sft_loss` on demonstrations, the loss of pretraining on text."""
    return (sft_loss if isinstance(batch, Rollout) else next_token_loss)(model, batch)


def tuned(
    base: Transformer,
    shown: Shown,
    *,
    seed: int,
    updates: int = UPDATES,
    lr: float = LR,
    edit: Edit = as_written,
    rehearse: bool = False,
    look: Callable[[int, Transformer], None] | None = None,
) -> Transformer:
    """A copy of the base after so many updates on demonstrations, as many epochs as fit.

    `rehearse` reads, after each batch, as many rows of pretraining text in an update of
    their own; `look` sees (epochs, model) after each epoch.
    """
    each = -(-len(shown) // BATCH)
    if updates % each:
        require.refuse("updates", updates, f"a multiple of {each}, an epoch")
    pupil = deepcopy(base)
    stream = shuffled(shown, epochs=updates // each, batch=BATCH, seed=seed)
    text = corpus_rows(seed=seed_of("rehearsal", seed), updates=updates * rehearse)

    def batches() -> Iterator[Rollout | Packed]:
        for update, batch in enumerate(stream, 1):
            yield edit(batch)
            yield from islice(text, 1)
            if look and update % each == 0:
                look(update // each, pupil)

    rate = warm_cosine(lr, updates * (1 + rehearse), warm=20)
    fit(pupil, batches(), either_loss, lr=rate)
    return pupil


def corpus_rows(*, seed: int, updates: int) -> Iterator[Packed]:
    """Fresh text of pretraining, a batch for each of so many updates."""
    if updates:
        yield from pretrain.corpus(seed=seed, updates=updates).split(pretrain.BATCH)


# --- measuring ------------------------------------------------------------------------

_LETTER, _NUMBER, _CUPS = f"[{strings.ALPHABET}]", "[1-9]", "[1-5] [1-5]"


def well_formed(task: Task, answer: Answer) -> bool:
    """Whether an answer, right or wrong, has the form that was asked for, and an end.

    A home for a home, one letter or one number, known words, two cups.
    """
    said = answer_of(answer.text)
    if said is None or not answer.finished:
        return False
    words = said.strip().removesuffix(".").split(" ")
    if task.skill == "facts":
        return words[-1] in KINDS[people.kind_in(task.request)] and len(words) < 9
    if task.skill == "constraints":
        return constraints.Constraints().hold(words)
    wanted = _NUMBER if " many " in task.request else _LETTER
    wanted = _CUPS if task.skill == "cups" else wanted
    return re.fullmatch(wanted, " ".join(words)) is not None


def asked(skill: str, *, put: Callable[[Task], Task] = chat, **of: int) -> list[Task]:
    """The exam of a skill, 200 distinct test tasks, in brackets."""
    return [put(task) for task in evaluate.exam(skill, **of)]


def marks(
    model: Transformer, exam: Sequence[Task], *, temperature: float = 1.0
) -> dict[str, Any]:
    """Sampled answers: which are right, one 0 or 1 each; how many have form and end."""
    luck = generator("answers", exam[0].skill, exam[0].level)
    rollout = evaluate.ask(model, exam, generator=luck, temperature=temperature)
    right = evaluate.scores(exam, rollout).long().tolist()
    said = evaluate.answers(rollout)
    form = [well_formed(*pair) for pair in zip(exam, said, strict=True)]
    return {
        "right": "".join(map(str, right)),
        "form": sum(form) / len(form),
        "ends": rollout.terminated.double().mean(),
        "thinks": sum("<think>" in a.text for a in said) / len(said),
        "length": rollout.lengths.double().mean(),
    }


def examined(
    model: Transformer, put: Callable[[Task], Task] = chat
) -> dict[str, dict[str, Any]]:
    """The marks of each skill."""
    return {skill: marks(model, asked(skill, put=put)) for skill in SKILLS}


@torch.no_grad()
def reading(model: Transformer) -> dict[str, float]:
    """Perplexity on 60 fresh documents of each of some kinds of pretraining text."""
    found = {}
    for kind in OLD:
        draw = random.Random(f"reading {kind}")
        text = pretrain.pack([corpus.WRITERS[kind](draw) for _ in range(60)])
        found[kind] = next_token_loss(model, text)[1]["perplexity"]
    return found


@torch.no_grad()
def held_out(model: Transformer) -> float:
    """The loss on people's answers to the exams, nats a token."""
    every = [task for skill in SKILLS for task in asked(skill)]
    return sft_loss(model, written(every, [t.answer for t in every]))[0].item()


# --- the runs -------------------------------------------------------------------------


def measured(model: Transformer, *, lost: bool = False) -> dict[str, Any]:
    """The exams in brackets; and with `lost`, in the old template, and the old text."""
    found = {"in brackets": examined(model), "loss": held_out(model)}
    if lost:
        found |= {"asked as before": examined(model, lambda t: t)}
        found |= {"old text": reading(model)}
    return found


def before(seed: int) -> dict[str, Any]:
    """The base model that all of them start from."""
    base = pretrain.base_model(seed=seed)
    games = {str(n): marks(base, asked("cups", level=n)) for n in (3, 5, 7)}
    return measured(base, lost=True) | {"games": games}


def sized(seed: int, *, number: int, lost: bool = False, **how: Any) -> dict[str, Any]:
    """After so many distinct demonstrations of each skill, in `UPDATES` updates."""
    shown = demonstrations(number, seed=seed)
    model = tuned(pretrain.base_model(seed=seed), shown, seed=seed, **how)
    return measured(model, lost=lost)


def epochs(seed: int, *, number: int) -> dict[str, Any]:
    """A small set sixteen times over, measured on the way."""
    found: dict[str, Any] = {}

    def look(epoch: int, model: Transformer) -> None:
        if epoch in LOOKS:
            found[str(epoch)] = measured(model)

    shown = demonstrations(number, seed=seed)
    tuned(pretrain.base_model(seed=seed), shown, seed=seed, look=look)
    return found


def played(
    seed: int, *, number: int, answer: Callable[[Task], str]
) -> dict[str, dict[str, Any]]:
    """After so many distinct games of 2 to 5 swaps, answered at once or worked."""
    base = pretrain.base_model(seed=seed)
    shown = [(task, answer(task)) for task in games(number, seed=seed)]
    model = tuned(base, shown, seed=seed, updates=WORKED)
    return {str(n): marks(model, asked("cups", level=n)) for n in (3, 5, 7)}


def taught(seed: int, *, answer: Callable[[Task], str]) -> dict[str, Any]:
    """What teachers who slip teach, and what is left of it at a low temperature."""
    base, asks = pretrain.base_model(seed=seed), asked("cups", level=4)
    shown = [(task, answer(task)) for task in games(WORKED * BATCH, seed=seed)]
    wrong = sum(text != worked(task) for task, text in shown) / len(shown)
    model = tuned(base, shown, seed=seed, updates=WORKED)
    heard = {str(t): marks(model, asks, temperature=t) for t in (1.0, 0.4)}
    return {"slips shown": wrong, **heard}


RUNS = {
    "base": before,
    **{f"{n}": partial(sized, number=n, lost=n == SIZES[-1]) for n in SIZES},
    "epochs": partial(epochs, number=64),
    **{f"lr {r}": partial(sized, number=SIZES[-1], lr=r, lost=True) for r in RATES},
    "rehearsed": partial(sized, number=SIZES[-1], rehearse=True, lost=True),
    "everything, 64": partial(sized, number=64, edit=everything),
    "everything, 1024": partial(sized, number=1024, edit=everything),
    "no end": partial(sized, number=64, edit=without_end),
    **{
        f"{name}, {n}": partial(played, number=n, answer=answer)
        for name, answer in (("at once", lambda t: t.answer), ("worked", worked))
        for n in GAMES
    },
    "slips at random": partial(taught, answer=at_random),
    "slips all alike": partial(taught, answer=all_alike),
}
RECORD = Record("07_instruction_tuning", call, runs=RUNS, file=__file__)
