"""Chapter 10: rounds of rejection sampling by verifiers and by reward models.

Games beside reinforcement learning, facts that are hard to get into the data, and open
requests. Seed s is base model s, its tasks and luck; the sweep is base 0, other luck.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from labs import deepseek_r1, r1_zero
from labs.record import Record, call
from lib import evaluate, on_policy, pretrain, rejection, reward_model, rewards
from lib.algorithms import ALGORITHMS
from lib.rejection import RejectionConfig
from lib.rewards import Reward
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import instruct
from lib.worlds import tasks
from lib.worlds.task import Task

# --- the shell game -------------------------------------------------------------------

GAMES, GROUP, ROUNDS = 48, 16, 4  # 768 answers a round, 3,072 in all
UPDATES = ROUNDS * GAMES // r1_zero.PROMPTS  # of reinforcement learning, on as many
RATES = (3e-4, 1e-3, 3e-3)
LR = 1e-3  # the best of these, for both
SWEEP = 100  # the seed of the sweep


CUPS = RejectionConfig(group=GROUP, max_tokens=r1_zero.TOKENS, lr=LR)


def one_right(scores: Tensor) -> Tensor:
    """One right answer to each prompt that has one."""
    return rejection.passing(rejection.top_per_prompt(scores), scores)


def at_random(scores: Tensor) -> Tensor:
    """As many answers as are right, any of them: the control."""
    count = int(scores.sum())
    draw = generator("at random", count)
    return rejection.random_k_overall(scores, count, generator=draw)


SELECTIONS = {  # how to select, and whether each round teaches the first model anew
    "every right": (rejection.every_passing, False),
    "afresh": (rejection.every_passing, True),
    "one right": (one_right, False),
    "at random": (at_random, False),
}


def examined(policy: nn.Module) -> dict[str, Any]:
    """240 test games of 3, 4 and 5 swaps: right (0 or 1 a game), and shares."""
    asked = [t for n in (3, 4, 5) for t in evaluate.exam("cups", level=n, count=80)]
    luck = generator("games exam")
    rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=r1_zero.TOKENS)
    right = rewards.verified(asked, rollout).long()
    found = {n: r1_zero.MEASURES[n](asked, rollout) for n in ("thinks", "faithful")}
    shares = {name: by.mean().item() for name, by in found.items()}
    return {"right": right.double().mean().item(), "each": right, **shares}


def others(policy: nn.Module) -> dict[str, float]:
    """200 test tasks of each skill that is no game: the share right, gold's score."""
    found = {}
    for skill in deepseek_r1.GENERAL:
        asked, luck = evaluate.exam(skill), generator("others", skill)
        rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=32)
        found[skill] = evaluate.scores(asked, rollout).mean().item()
    return found


def by_rejection(
    base: nn.Module, name: str, *, seed: int, lr: float = LR
) -> dict[str, Any]:
    """Rounds with one of SELECTIONS, examined before each and after the last."""
    (select, afresh), looks = SELECTIONS[name], []
    ask = on_policy.task_stream("cups", count=GAMES, seed=seed, levels=r1_zero.LEVELS)
    policy, history = rejection.rejection_rounds(
        base,
        rewards.verified,
        ask,
        select,
        seed=seed,
        count=ROUNDS,
        config=replace(CUPS, lr=lr),
        afresh=afresh,
        watch=lambda _, policy: looks.append(examined(policy)),
    )
    return {"looks": looks, "kept": history["kept"], "others": others(policy)}


def by_rl(base: nn.Module, *, seed: int, lr: float = LR) -> dict[str, Any]:
    """Dr. GRPO, examined as often, that is after as many answers."""
    looks: list[dict[str, Any]] = []

    def watch(update: int, policy: nn.Module) -> None:
        if update % (UPDATES // ROUNDS) == 0:
            looks.append(examined(policy))

    ask = on_policy.task_stream(
        "cups", count=r1_zero.PROMPTS, seed=seed, levels=r1_zero.LEVELS
    )
    policy, _ = on_policy.train(
        base,
        ALGORITHMS["Dr. GRPO"],
        rewards.verified,
        ask,
        seed=seed,
        updates=UPDATES,
        lr=lr,
        config=r1_zero.CONFIG,
        watch=watch,
    )
    return {"looks": looks, "others": others(policy)}


def games(seed: int) -> dict[str, Any]:
    """Every selection and reinforcement learning, from base model `seed`."""
    base = pretrain.base_model(seed=seed)
    found = {name: by_rejection(base, name, seed=seed) for name in SELECTIONS}
    return {"before": others(base), **found, "RL": by_rl(base, seed=seed)}


def sweep(seed: int) -> dict[str, Any]:
    """Learning rates for every right answer, and for reinforcement learning."""
    base, found = pretrain.base_model(seed=0), {}
    for lr in RATES:
        ours = by_rejection(base, "every right", seed=seed, lr=lr)
        found[lr] = {"every right": ours, "RL": by_rl(base, seed=seed, lr=lr)}
    return found


# --- questions that are hard ----------------------------------------------------------

QUESTIONS = 200  # distinct, on people of training
FACTS = RejectionConfig(group=GROUP, max_tokens=8, lr=2e-3)


def overall(scores: Tensor) -> Tensor:
    """As many right answers as there are prompts, the first that come."""
    return rejection.passing(rejection.top_k_overall(scores, len(scores)), scores)


def overall_shuffled(scores: Tensor) -> Tensor:
    """The same, but of what ties it takes any."""
    pairs = rejection.every_passing(scores)
    order = torch.randperm(len(pairs), generator=generator("ties", len(pairs)))
    return pairs[order[: len(scores)]]


def facts(seed: int) -> dict[str, Any]:
    """Rounds on the same questions: who gets into the data, and who is right after."""
    base = pretrain.base_model(seed=seed)
    asked = distinct("facts", QUESTIONS, seed=seed)
    found: dict[str, Any] = {"before": _right_of_16(base, asked)}
    ways = {"one right": one_right, "overall": overall, "any": overall_shuffled}
    for name, select in ways.items():
        policy, history = rejection.rejection_rounds(
            base,
            rewards.verified,
            lambda _: asked,
            select,
            seed=seed,
            count=ROUNDS,
            config=FACTS,
        )
        told = {n: history[n] for n in ("reward", "kept", "covered")}
        found[name] = {**told, "after": _right_of_16(policy, asked)}
    return found


def distinct(skill: str, count: int, *, seed: int) -> list[Task]:
    """So many training tasks, no two of them with the same request."""
    many = tasks.tasks(skill, count=4 * count, seed=seed_of("distinct", seed))
    return [*{task.request: task for task in many}.values()][:count]


def _right_of_16(policy: nn.Module, asked: Sequence[Task]) -> list[int]:
    """How many of 16 answers to each question are right."""
    _, scores = rejection.sample_and_score(
        policy, rewards.verified, asked, seed=seed_of("right of 16"), config=FACTS
    )
    return scores.sum(1).long().tolist()


# --- open requests --------------------------------------------------------------------

COMPARED = (300, 1_200)  # comparisons that taught a judge
SIZES = (1, 2, 4, 8, 16)  # n at inference
REQUESTS = 200  # to learn from
IMITATED = (1, 200), (4, 200), (16, 200), (16, 50)  # the best of n, to how many
TALK = RejectionConfig(group=16, max_tokens=32, epochs=4, lr=1e-3)
ASKED = 64  # requests of a round


def writer(seed: int) -> nn.Module:
    """Base model `seed`, tuned on 1,000 of people's answers to open requests."""
    model = copy.deepcopy(pretrain.base_model(seed=seed))
    asked = tasks.tasks("talk", count=1_000, seed=seed_of("writer", seed))
    instruct(model, [(task, task.answer) for task in asked], epochs=2, lr=1e-3)
    return model


def judges(model: nn.Module, seed: int) -> dict[str, Reward]:
    """Reward models taught by some comparisons of this model's answers, and by more."""
    told = deepseek_r1.compared(model, count=max(COMPARED), seed=seed)
    found = {}
    for count in COMPARED:
        judge, _ = reward_model.fit_reward_model(
            model,
            told.first(count),
            kind=reward_model.SurprisalRewardModel,
            epochs=2,
            batch=16,
            lr=3e-3,
            seed=seed,
        )
        found[f"{count:,}"] = rewards.learned(judge)
    return found


def heard(policy: nn.Module, asked: Sequence[Task]) -> tuple[Rollout, Tensor]:
    """Two answers to each of these requests, and gold's mean of them (P,)."""
    rollout = evaluate.ask(
        policy, asked, generator=generator("heard"), group=2, max_tokens=32
    )
    return rollout, evaluate.scores(asked, rollout).reshape(-1, 2).mean(1)


def imitation(model: nn.Module, judge: Reward, *, seed: int) -> dict[str, Any]:
    """Gold's scores of the best of n by a judge, and of the model that imitated them."""
    asked, new = distinct("talk", REQUESTS, seed=seed), evaluate.exam("talk")
    rollout, gold = rejection.sample_and_score(
        model, rewards.gold, asked, seed=seed, config=TALK
    )
    liked, found = judge(asked, rollout).reshape(gold.shape), {}
    for n, count in IMITATED:
        pairs = rejection.top_per_prompt(liked[:count, :n])
        shown = rejection.selected(rollout, pairs, group=TALK.group)
        pupil, _ = rejection.finetune_on(model, shown, seed=seed, config=TALK)
        found[f"best of {n}, {count} requests"] = {
            "data": gold[pairs[:, 0], pairs[:, 1]].mean(),
            "practised": heard(pupil, asked)[1].mean(),
            "new": (100 * heard(pupil, new)[1]).round().long(),
        }
    return found


def obeying(model: nn.Module, judge: Reward, *, seed: int) -> list[dict[str, float]]:
    """Rounds by a learned judge: before each and after the last, what is said of it."""
    new, looks = evaluate.exam("talk"), []

    def watch(_: int, policy: nn.Module) -> None:
        rollout, gold = heard(policy, new)
        told = {"judge": judge(new, rollout), "gold": gold}
        told |= {"length": rollout.lengths.double()}
        looks.append({name: x.mean().item() for name, x in told.items()})

    rejection.rejection_rounds(
        model,
        judge,
        on_policy.task_stream("talk", count=ASKED, seed=seed),
        rejection.top_per_prompt,
        seed=seed,
        count=ROUNDS,
        config=replace(TALK, group=8),
        watch=watch,
    )
    return looks


def talk(seed: int) -> dict[str, Any]:
    """Best of n by each judge, what imitation keeps, and rounds."""
    model, new = writer(seed), evaluate.exam("talk")
    learned = judges(model, seed)
    fresh = deepseek_r1.compared(model, count=500, seed=seed + 1_000, split="test")
    rollout, gold = rejection.sample_and_score(
        model, rewards.gold, new, seed=seed, config=TALK
    )
    found: dict[str, Any] = {"before": (100 * heard(model, new)[1]).round().long()}
    for name, judge in {"gold": rewards.gold, **learned}.items():
        liked = judge(new, rollout).reshape(gold.shape)
        better, worse = (judge(fresh.asked, r) for r in (fresh.chosen, fresh.rejected))
        right = (better > worse).double() + 0.5 * (better == worse).double()
        found[name] = {
            "accuracy": right.mean(),
            "best of": evaluate.best_of(liked, gold, SIZES).mean(0),
        }
    for name in ("gold", "1,200"):
        judge = learned.get(name, rewards.gold)
        found[name]["imitated"] = imitation(model, judge, seed=seed)
    for name, judge in learned.items():
        found[name]["rounds"] = obeying(model, judge, seed=seed)
    return found


RECORD = Record(
    "10_rejection_sampling",
    call,
    runs={"sweep": sweep, "games": games, "facts": facts, "talk": talk},
    seeds={"sweep": [SWEEP], **dict.fromkeys(("games", "facts", "talk"), range(5))},
    file=__file__,
)
