"""Over-optimisation in the valley: five base models, each with its own reward model.

Base model s learns to answer open requests, annotators compare its answers, a reward model
learns from them, and policies are trained against it with RLOO, one for each beta. The
annotators believe every pet; `see=knows_pets` is the same people with the same luck who do
not. `sweep` is on the assistant and reward model of chapter 13.
"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from labs.deepseek_r1 import ready_assistant, ready_reward_model
from labs.record import Record, call
from lib import (
    evaluate,
    on_policy,
    preference_data,
    pretrain,
    reward_model,
    rewards,
)
from lib.algorithms import ALGORITHMS
from lib.evaluate import Answer, best_of
from lib.models.transformer import Transformer
from lib.preference_data import PreferencePairs
from lib.reward_model import RewardModel, SurprisalRewardModel, score
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import instruct
from lib.worlds import tasks
from lib.worlds.annotators import PANEL, believed
from lib.worlds.people import person_in
from lib.worlds.talk import Judgement, features
from lib.worlds.task import Task

SHOWN = {"talk": 1_000, "facts": 400}  # demonstrations
COMPARED, FRESH = 1_600, 500  # comparisons; held out
BETAS = (0.0, 0.1, 0.3, 1.0)
RATES = (3e-4, 1e-3, 3e-3)
LR, UPDATES, PROMPTS, GROUP = 1e-3, 60, 8, 8
LOOKS = (0, 5, 10, 20, 40, 60)  # updates after which the exam is taken
SIZES = (1, 2, 4, 8, 16, 32)  # of best-of-n
COUNTS = (
    "true",
    "false pets",
    "other false",
    "kind",
    "repeated",
    "astray",
    "cut",
    "words",
)
See = Callable[[Judgement], Judgement]  # what an annotator sees of an answer's counts


def knows_pets(seen: Judgement) -> Judgement:
    """All of it: the control."""
    return seen


# --- an assistant, comparisons, a reward model ----------------------------------------


@lru_cache(maxsize=1)
def assistant(seed: int) -> Transformer:
    """Base model `seed`, shown twice how people answer SHOWN requests."""
    model, number = pretrain.base_model(seed=seed), seed_of("shown", seed)
    every = [tasks.tasks(s, count=n, seed=number) for s, n in SHOWN.items()]
    shown = [(task, task.answer) for some in every for task in some]
    instruct(model, shown, epochs=2, lr=1e-3, seed=seed)
    return model


def two_answers(
    writer: nn.Module, *, count: int, name: str, seed: int
) -> tuple[list[Task], Rollout]:
    """`count` open requests, and two answers to each that differ: rows 2k and 2k + 1."""
    split = "test" if name == "fresh" else "train"
    number = seed_of("two answers", name, seed)
    asked = tasks.tasks("talk", count=count + count // 10, seed=number, split=split)
    rollout = evaluate.ask(writer, asked, generator=generator(name, seed), group=2)
    said = [a.text for a in evaluate.answers(rollout)]
    differ = [i for i in range(len(asked)) if said[2 * i] != said[2 * i + 1]][:count]
    rows = torch.tensor([row for i in differ for row in (2 * i, 2 * i + 1)])
    return [asked[i] for i in differ], rollout.rows(rows)


def annotated(
    asked: Sequence[Task], rollout: Rollout, *, see: See, seed: int
) -> tuple[PreferencePairs, float]:
    """What the panel prefers, an annotator for each pair; the same luck for every `see`.

    Also how often the best possible judge of these pairs agrees, in expectation.
    """
    draw, best = random.Random(seed_of("panel", seed)), []

    def prefer(task: Task, *both: Answer) -> bool:
        pair = [see(features(task, a.text, finished=a.finished)) for a in both]
        who, luck = draw.choice(PANEL), draw.random()
        mean = sum(each.probability_of(*pair) for each in PANEL) / len(PANEL)
        best.append(max(mean, 1 - mean) / len(asked))
        return luck < who.probability_of(*pair)

    return preference_data.compared(asked, rollout, prefer), sum(best)


def judge(
    writer: Transformer, *, see: See, seed: int
) -> tuple[RewardModel, dict[str, float]]:
    """A reward model from COMPARED comparisons, and its accuracy on FRESH held-out ones.

    Its scores have mean 0 and standard deviation 1 on what it learned from.
    """
    some = two_answers(writer, count=COMPARED, name="compared", seed=seed)
    pairs, _ = annotated(*some, see=see, seed=seed)
    kind, settings = SurprisalRewardModel, {"epochs": 2, "batch": 32, "lr": 3e-3}
    model, _ = reward_model.fit_reward_model(
        writer, pairs, kind=kind, seed=seed, **settings
    )
    said = torch.cat([score(model, each) for each in (pairs.chosen, pairs.rejected)])
    with torch.no_grad():
        model.head.weight.div_(said.std())
        model.head.bias.sub_(said.mean()).div_(said.std())
    fresh = two_answers(writer, count=FRESH, name="fresh", seed=seed)
    held_out, best = annotated(*fresh, see=see, seed=seed + 1_000)
    right = reward_model.accuracy(model, held_out)
    return model, {"accuracy": right, "ceiling": best}


@lru_cache(maxsize=2)
def ready(seed: int, see: See) -> tuple[Transformer, RewardModel, dict[str, float]]:
    """The assistant of base model `seed`, its judge, and how often that one is right."""
    writer = assistant(seed)
    return writer, *judge(writer, see=see, seed=seed)


# --- what is measured ------------------------------------------------------------------


def counted(asked: Sequence[Task], rollout: Rollout) -> list[Judgement]:
    """What can be counted in each row's answer."""
    each = [task for task in asked for _ in range(len(rollout) // len(asked))]
    said = evaluate.answers(rollout)
    return [features(t, a.text, finished=a.finished) for t, a in zip(each, said)]


def table(seen: Sequence[Judgement]) -> Tensor:
    """COUNTS of each answer: (N, 8) float64."""
    rows = [
        (s.true, s.false_pets, s.false - s.false_pets, s.kind, s.repeated, s.astray,
         s.cut, s.words)
        for s in seen
    ]  # fmt: skip
    return torch.tensor(rows, dtype=torch.float64)


def wording(task: Task, text: str) -> str:
    """An answer without the names: two that differ in names alone are one."""
    person = person_in(task.request)
    return text.replace(person.name, "N").replace(person.first, "N")


def examined(
    policy: nn.Module, start: nn.Module, liked: rewards.Reward
) -> dict[str, Any]:
    """Answers to 200 test requests: gold of each, means of all else, two to read."""
    asked = evaluate.exam("talk")
    rollout = evaluate.ask(policy, asked, generator=generator("six, exam"))
    said = [a.text.strip() for a in evaluate.answers(rollout)]
    counts = table(counted(asked, rollout)).mean(0).tolist()
    return {
        "gold": evaluate.scores(asked, rollout),
        "proxy": liked(asked, rollout).mean().item(),
        "kl": rewards.drift(start)(asked, rollout).mean().item(),
        "wordings": len({wording(t, text) for t, text in zip(asked, said)}),
        **dict(zip(COUNTS, counts)),
        "said": dict(zip([t.request for t in asked[:2]], said)),
    }


def facts(policy: nn.Module) -> float:
    """Right answers to 200 test questions on homes, jobs and pets, as a share."""
    asked = evaluate.exam("facts")
    rollout = evaluate.ask(policy, asked, generator=generator("six, facts"))
    return evaluate.scores(asked, rollout).mean().item()


# --- the runs --------------------------------------------------------------------------


def climb(
    start: Transformer, model: RewardModel, *, seed: int, beta: float, lr: float = LR
) -> dict[str, Any]:
    """RLOO against a reward model, and the exam on the way."""
    liked, looks = rewards.learned(model), {}

    def watch(update: int, policy: nn.Module) -> None:
        if update in LOOKS:
            looks[str(update)] = examined(policy, start, liked)

    policy, _ = on_policy.train(
        start,
        ALGORITHMS["RLOO"],
        liked,
        on_policy.task_stream("talk", count=PROMPTS, seed=seed),
        seed=seed,
        updates=UPDATES,
        lr=lr,
        config=on_policy.RLConfig(group=GROUP, beta=beta),
        watch=watch,
    )
    return {"looks": looks, "facts": facts(policy)}


def climbed(seed: int, *, beta: float, see: See = believed) -> dict[str, Any]:
    """From base model `seed`, against its own judge."""
    start, model, right = ready(seed, see)
    found = climb(start, model, seed=seed, beta=beta)
    return {**found, "facts before": facts(start), **right}


def chosen(seed: int) -> dict[str, Any]:
    """Best of n of the assistant's answers to the 200 test requests."""
    start, model, _ = ready(seed, believed)
    asked, luck = evaluate.exam("talk"), generator("best of n")
    rollout = evaluate.ask(start, asked, generator=luck, group=SIZES[-1])
    shape = len(asked), SIZES[-1]
    proxy = score(model, rollout).reshape(shape)
    gold = evaluate.scores(asked, rollout).reshape(shape)
    counts = table(counted(asked, rollout)).reshape(*shape, -1)
    of = dict(zip(COUNTS, counts.unbind(-1)))
    means = {name: best_of(proxy, x, SIZES).mean(0) for name, x in of.items()}
    return {
        "gold": best_of(proxy, gold, SIZES),
        "proxy": best_of(proxy, proxy, SIZES).mean(0),
        **means,
    }


def rate(seed: int, *, lr: float) -> dict[str, Any]:
    """One learning rate, without a penalty, on chapter 13's models."""
    return climb(ready_assistant(), ready_reward_model(), seed=seed, beta=0.0, lr=lr)


RUNS: dict[str, Callable[[int], dict[str, Any]]] = {
    **{f"beta {beta}": partial(climbed, beta=beta) for beta in BETAS},
    "best of n": chosen,
    "knows pets": partial(climbed, beta=0.0, see=knows_pets),
    **{f"rate {lr}": partial(rate, lr=lr) for lr in RATES},
}
SEEDS = {name: range(5, 6) if name.startswith("rate") else range(5) for name in RUNS}
RECORD = Record("06_over_optimisation", call, runs=RUNS, seeds=SEEDS, file=__file__)
