"""Chapter 15: small sums and short sentences, asked of a real model of 135 million weights.

A sum is one line behind a worked example; an answer ends with its line, so that a model
that was never told to be brief can be. A sentence is about a topic that it should name,
and a word list says how cheerful it is: a reward that one can please too much.
"""

import random
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lib import evaluate, rewards, sft
from lib.evaluate import Answer
from lib.kl import k1
from lib.logps import action_logps
from lib.models import pretrained
from lib.models.byte_pairs import BytePairTokenizer, ChatTokenizer
from lib.models.transformer import Transformer
from lib.ops import sequence_logps
from lib.preference_data import PreferencePairs
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.worlds.task import TaskSampler

EXAMPLE = "3 + 4 = 7"
TOKENS = 8  # of a sum's answer
SENTENCE = 20  # of a sentence
NUMBERS = range(10, 50)
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Asked:
    """What a real model is asked."""

    prompt: str
    answer: str  # a sum's result, or the word that a sentence must hold
    tokenizer: BytePairTokenizer = field(repr=False, compare=False)
    skill: str = "sum"


@cache
def ready() -> tuple[Transformer, BytePairTokenizer, ChatTokenizer]:
    """SmolLM2, its tokenizer with the line's end as the end of an answer, and its chat."""
    model, tokenizer = pretrained.load("smollm2")
    [line] = tokenizer.encode("\n")
    parts = (tokenizer.pieces, tokenizer.begin, tokenizer.end, tokenizer.pad)
    return model, replace(tokenizer, end=line), ChatTokenizer(*parts)


# --- sums -----------------------------------------------------------------------------


def split_of(a: int, b: int) -> Split:
    """A sum and its mirror image are on the same side; one in four is for testing."""
    return "test" if seed_of("sum", min(a, b), max(a, b)) % 4 == 0 else "train"


def sums(
    count: int,
    tokenizer: BytePairTokenizer,
    *,
    seed: int,
    split: Split = "train",
    example: str = EXAMPLE,
) -> list[Asked]:
    """`count` distinct sums of two numbers of two digits, 10 to 49, from a seed."""
    draw = random.Random(seed_of("sums", seed, split))
    every = [(a, b) for a in NUMBERS for b in NUMBERS if split_of(a, b) == split]
    start = f"{example}\n" if example else ""
    return [
        Asked(f"{start}{a} + {b} =", str(a + b), tokenizer)
        for a, b in draw.sample(every, count)
    ]


def sum_stream(count: int, tokenizer: BytePairTokenizer, *, seed: int) -> TaskSampler:
    """`count` sums for each update."""
    return lambda update: sums(count, tokenizer, seed=seed_of("ask", seed, update))


def is_right(task: Asked, answer: Answer) -> float:
    """1 for the result and nothing else on the line."""
    return float(answer.finished and answer.text.strip() == task.answer)


def right(asked: Sequence[Asked], rollout: Rollout) -> Tensor:
    """The reward of sums, (B,)."""
    return evaluate.grades(is_right, asked, rollout)


def begins_right(asked: Sequence[Asked], rollout: Rollout) -> Tensor:
    """1 where the answer's first number is the result, however it goes on."""

    def grade(task: Asked, answer: Answer) -> float:
        words = answer.text.replace(".", " ").split()
        return float(bool(words) and words[0] == task.answer)

    return evaluate.grades(grade, asked, rollout)


def examined(
    policy: nn.Module,
    reference: nn.Module,
    tokenizer: BytePairTokenizer,
    *,
    greedy: bool = True,
) -> dict[str, float]:
    """200 sums held out: sampled and greedy accuracy, what fails, KL(π ‖ reference)."""
    asked = sums(200, tokenizer, seed=0, split="test")
    draw, given = generator("exam of sums"), {"max_tokens": TOKENS}
    given |= {"tokenizer": tokenizer}
    sampled = evaluate.ask(policy, asked, generator=draw, **given)
    found = {"sampled": right(asked, sampled).mean().item()}
    if greedy:
        likeliest = evaluate.ask(policy, asked, generator=draw, top_k=1, **given)
        found["greedy"] = right(asked, likeliest).mean().item()
    return {
        **found,
        "begins right": begins_right(asked, sampled).mean().item(),
        "finished": sampled.terminated.double().mean().item(),
        "length": sampled.lengths.double().mean().item(),
        "kl": rewards.drift(reference)(asked, sampled).mean().item(),
    }


def shown(count: int, tokenizer: BytePairTokenizer, seed: int) -> list[Rollout]:
    """Somebody's right answers to the sums of `sum_stream`, 8 an update."""
    ask = sum_stream(8, tokenizer, seed=seed)
    asked = [ask(update) for update in range(count)]
    texts = [[task.answer for task in some] for some in asked]
    return [sft.written(some, each) for some, each in zip(asked, texts)]


# --- sentences ------------------------------------------------------------------------

KINDS = "old new small large red quiet distant broken empty famous".split()
THINGS = (
    "bridge train river garden winter letter kitchen market storm island engine school "
    "forest museum window harbour village mountain library desert camera bicycle lamp "
    "theatre castle airport farm lighthouse tunnel piano road hospital factory tower "
    "boat clock station orchard cellar ladder beach hotel canal valley church cave "
    "stadium fountain prison mill bakery temple office dentist tax traffic homework "
    "funeral exam"
).split()
HELD_OUT = THINGS[::3]  # these are for testing


def topics(
    count: int, tokenizer: BytePairTokenizer, *, seed: int, split: Split = "train"
) -> list[Asked]:
    """`count` distinct topics, such as "the old bridge"; a test topic's noun is new."""
    things = [x for x in THINGS if (x in HELD_OUT) == (split == "test")]
    every = [(kind, thing) for thing in things for kind in KINDS]
    draw = random.Random(seed_of("topics", seed, split))
    return [
        Asked(
            f"Write one short sentence about: the {kind} {thing}",
            thing,
            tokenizer,
            skill="sentence",
        )
        for kind, thing in draw.sample(every, count)
    ]


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def cheer(text: str) -> float:
    """VADER's compound score (Hutto & Gilbert 2014), from -1, sad, to 1, cheerful."""
    return _vader().polarity_scores(text)["compound"]


def cheerful(asked: Sequence[Asked], rollout: Rollout) -> Tensor:
    """The reward of sentences, (B,): how cheerful, whatever they are about."""
    return evaluate.grades(lambda _, answer: cheer(answer.text), asked, rollout)


def names_it(asked: Sequence[Asked], rollout: Rollout) -> Tensor:
    """1 where a sentence holds its topic's noun: what nobody rewards."""

    def grade(task: Asked, answer: Answer) -> float:
        return float(task.answer in answer.text.lower())

    return evaluate.grades(grade, asked, rollout)


def best_and_worst(
    policy: nn.Module,
    asked: Sequence[Asked],
    *,
    seed: int,
    group: int = 4,
    reward: rewards.Reward = cheerful,
) -> PreferencePairs:
    """The best and the worst of `group` samples to each topic, where these differ."""
    draw, tokenizer = generator("samples", seed), asked[0].tokenizer
    given = {"max_tokens": SENTENCE, "group": group, "tokenizer": tokenizer}
    rollout = evaluate.ask(policy, asked, generator=draw, **given)
    scores = reward(asked, rollout).reshape(-1, group)  # (P, G)
    first = torch.arange(len(asked)) * group
    best, worst = first + scores.argmax(1), first + scores.argmin(1)
    differ = scores.max(1).values > scores.min(1).values
    best, worst = best[differ], worst[differ]
    flat = scores.flatten()
    kept = [task for task, keep in zip(asked, differ.tolist()) if keep]
    pair = rollout.rows(best), rollout.rows(worst)
    return PreferencePairs(kept, *pair, flat[best], flat[worst])


@torch.no_grad()
def judged(
    policy: nn.Module,
    reference: nn.Module,
    tokenizer: BytePairTokenizer,
    *,
    count: int = 200,
) -> dict[str, Any]:
    """Held-out topics: cheer, the share that names its topic, KL(π ‖ reference), texts."""
    asked = topics(count, tokenizer, seed=0, split="test")
    given = {"max_tokens": SENTENCE, "tokenizer": tokenizer}
    rollout = evaluate.ask(policy, asked, generator=generator("judged"), **given)
    parts = torch.arange(len(rollout)).split(50)
    ref = [action_logps(reference, rollout.rows(rows)) for rows in parts]
    drift = k1(rollout.logps, torch.cat(ref))
    return {
        "cheer": cheerful(asked, rollout).mean().item(),
        "names it": names_it(asked, rollout).mean().item(),
        "kl": sequence_logps(drift, rollout.mask).mean().item(),
        "length": rollout.lengths.double().mean().item(),
        "finished": rollout.terminated.double().mean().item(),
        "texts": [a.text for a in evaluate.answers(rollout.rows(_few), tokenizer)],
    }


_few = torch.arange(8)


# --- costs ----------------------------------------------------------------------------


@contextmanager
def costs() -> Iterator[dict[str, float]]:
    """CPU minutes of a block, and the most memory that its process has held, in GB."""
    began, spent = time.process_time(), {}
    yield spent
    spent["cpu_minutes"] = (time.process_time() - began) / 60
    spent["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
