"""Chapter 10's sweeps on the village's language model.

Rounds of rejection sampling beside reinforcement learning on the same number of answers;
what imitation keeps of best-of-n; rounds on open requests; best-of-n by better and worse
reward models: about twenty minutes on one core.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from labs.record import of_sweeps
from lib import evaluate, rejection, rewards, villagers
from lib.algorithms import ALGORITHMS
from lib.evaluate import best_of
from lib.models.transformer import Transformer
from lib.on_policy import RLConfig, train
from lib.preference_data import sample_pairs
from lib.rejection import RejectionConfig
from lib.reward_model import (
    RewardModel,
    SurprisalRewardModel,
    accuracy,
    fit_reward_model,
)
from lib.rollout import Rollout, concat, rollout_metrics
from lib.seeds import seed_of
from lib.villagers import instructed_model, proxy_model, task_stream
from lib.worlds.village import taste
from lib.worlds.village.tasks import SKILLS, Task, tasks

SKILL, SEEDS = "reverse", range(5)  # the skill that is verified, and its seeds
ROUNDS, PROMPTS = 6, 160  # of 16 answers each: 15,360 in all
REVERSE = RejectionConfig(group=16, max_tokens=10, epochs=2, lr=2e-3)
REST, OTHER = 32, RejectionConfig(group=4)  # tasks of each other skill, to keep it
GRPO_LR, GRPO_PROMPTS = 2e-3, 16  # an update: 16 prompts, 16 answers
TALK = RejectionConfig(group=16, epochs=4, lr=2e-3)
TALK_SEEDS, TALK_ROUNDS, REQUESTS = range(3), 5, 96
SIZES = (1, 2, 4, 8, 16, 32)  # n of what is imitated
NUMBERS, ASKED = (48, 192, 768), 192  # requests to learn from
JUDGED = (1, 2, 4, 8, 16, 32, 64)  # n at inference
TAUGHT = ((256, 8), (1024, 4), (4096, 2))  # comparisons and epochs


# --- a skill that can be verified -----------------------------------------------------


def best_right(scores: Tensor) -> Tensor:
    """One right answer to each prompt that has one."""
    return rejection.passing(rejection.top_per_prompt(scores), scores)


def as_many_overall(scores: Tensor) -> Tensor:
    """As many right answers as there are prompts, wherever they come first."""
    return rejection.passing(rejection.top_k_overall(scores, len(scores)), scores)


def examined(policy: Transformer) -> dict[str, Any]:
    """100 unseen tasks, 16 answers each: the share that is right, by level, pass@16."""
    asked = tasks(SKILL, count=100, seed=77, split="test")
    draw = torch.Generator().manual_seed(1)
    rollout = evaluate.ask(policy, asked, generator=draw, group=16, max_tokens=10)
    scores = evaluate.scores(asked, rollout).reshape(-1, 16)
    level = torch.tensor([task.level for task in asked])
    reached = evaluate.pass_at_k(16, scores.sum(1).long(), 16)
    return {
        "right": scores.mean(),
        "pass16": reached.mean(),
        "levels": [scores[level == each].mean() for each in (1, 2, 3)],
        "entropy": rollout_metrics(rollout, scores)["entropy"],
    }


def others(policy: Transformer) -> dict[str, float]:
    """The skills that nobody paid for."""
    column = villagers.skills(policy, count=40)
    rest = [column[name] for name in SKILLS if name != SKILL]
    return {"others": sum(rest) / len(rest), "talk": column["talk"]}


def before(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """The model that all of them start from."""
    yield others(model)


def verified(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Rounds of three selections, and afresh, and GRPO on as many answers."""
    arms = {
        "every": (rejection.every_passing, False),
        "afresh": (rejection.every_passing, True),
        "top": (best_right, False),
        "overall": (as_many_overall, False),
    }
    for arm, (select, afresh) in arms.items():
        looks: list[dict[str, Any]] = []
        began = time.process_time()
        policy, history = rejection.rejection_rounds(
            model,
            rewards.verified,
            task_stream(SKILL, count=PROMPTS, seed=seed),
            select,
            seed=seed,
            count=ROUNDS,
            config=REVERSE,
            afresh=afresh,
            watch=lambda _, policy: looks.append(examined(policy)),  # noqa: B023
        )
        took = time.process_time() - began
        found = {"kept": history["kept"], "covered": history["covered"]}
        yield {"arm": arm, "took": took, "looks": looks, **found, **others(policy)}
    yield with_grpo(model, seed)


def with_grpo(model: Transformer, seed: int) -> dict[str, Any]:
    """The same number of answers, an update for each 256 of them."""
    answers = PROMPTS * REVERSE.group  # between two looks
    every = answers // (GRPO_PROMPTS * REVERSE.group)
    looks: list[dict[str, Any]] = []

    def watch(update: int, policy: Transformer) -> None:
        if update % every == 0:
            looks.append(examined(policy))

    began = time.process_time()
    policy, _ = train(
        model,
        ALGORITHMS["GRPO"],
        rewards.verified,
        task_stream(SKILL, count=GRPO_PROMPTS, seed=seed),
        seed=seed,
        updates=ROUNDS * every,
        lr=GRPO_LR,
        config=RLConfig(group=REVERSE.group, max_tokens=REVERSE.max_tokens),
        watch=watch,
    )
    took = time.process_time() - began
    return {"arm": "grpo", "took": took, "looks": looks, **others(policy)}


def mixed(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """As "every", and with it the policy's own good answers to everything else."""
    judge, policy = judges()["informed"], model
    rest = [skill for skill in SKILLS if skill != SKILL]
    looks = [{**examined(model), **others(model)}]
    for number in range(ROUNDS):
        round_seed = seed_of("round", seed, number)
        good = partial(kept, policy, seed=round_seed)
        asked = task_stream(SKILL, count=PROMPTS, seed=seed)(number)
        parts = [good(rewards.verified, asked, rejection.every_passing, REVERSE)]
        for skill in rest:
            asked = task_stream(skill, count=REST, seed=seed)(number)
            parts.append(good(rewards.verified, asked, best_right, OTHER))
        asked = task_stream("talk", count=2 * REST, seed=seed)(number)
        parts.append(good(judge, asked, rejection.top_per_prompt, OTHER))
        policy, _ = rejection.finetune_on(
            policy, concat(*parts), seed=round_seed, config=REVERSE
        )
        looks.append({**examined(policy), **others(policy)})
    yield {"looks": looks}


def kept(
    policy: Transformer,
    reward: rewards.Reward,
    asked: Sequence[Task],
    select: rejection.Select,
    config: RejectionConfig,
    *,
    seed: int,
) -> Rollout:
    """The answers of a harvest that a selection keeps."""
    rollout, scores = rejection.sample_and_score(
        policy, reward, asked, seed=seed, config=config
    )
    return rejection.selected(rollout, select(scores), group=config.group)


# --- open requests --------------------------------------------------------------------


def heard(policy: Transformer, judge: rewards.Reward) -> dict[str, float]:
    """64 unseen requests, 16 answers each: what they are worth, and how they differ."""
    asked = taste.requests(count=64, seed=9, split="test")
    config = RejectionConfig(group=16)
    rollout, gold = rejection.sample_and_score(
        policy, rewards.gold, asked, seed=1, config=config
    )
    texts = [answer.text for answer in villagers.answers(rollout)]
    groups = [texts[i : i + 16] for i in range(0, len(texts), 16)]
    different = [len(set(group)) / 16 for group in groups]
    notes = rollout_metrics(rollout, gold)
    return {
        "gold": gold.mean(),
        "gold_best": gold.max(1).values.mean(),
        "judge": rewards.judge(judge, asked, rollout).mean(),
        "different": sum(different) / len(different),
        **{name: notes[name] for name in ("entropy", "length", "finished")},
    }


def judges() -> dict[str, rewards.Reward]:
    """The book's two reward models, and the truth."""
    plain, informed = (
        proxy_model(kind=kind) for kind in (RewardModel, SurprisalRewardModel)
    )
    learned = {"plain": rewards.learned(plain), "informed": rewards.learned(informed)}
    return {**learned, "gold": rewards.gold}


def distilled(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Imitation of the best of n: by n, and by how many requests were asked."""
    by = {name: judges()[name] for name in ("informed", "gold")}
    most = taste.requests(count=max(NUMBERS), seed=10_000 + seed)
    config = RejectionConfig(group=max(SIZES), epochs=TALK.epochs, lr=TALK.lr)
    asked = most[:ASKED]
    rollout, _ = rejection.sample_and_score(
        model, rewards.gold, asked, seed=seed, config=config
    )
    for name, judge in by.items():
        scores = rewards.judge(judge, asked, rollout).reshape(ASKED, -1)
        for n in SIZES:
            pairs = rejection.top_per_prompt(scores[:, :n])
            shown = rejection.selected(rollout, pairs, group=config.group)
            pupil, _ = rejection.finetune_on(model, shown, seed=seed, config=config)
            found = {"by": "n", "judge_name": name, "n": n, "requests": ASKED}
            yield {**found, "shown_gold": worth(asked, shown), **heard(pupil, judge)}
    rollout, scores = rejection.sample_and_score(
        model, rewards.gold, most, seed=seed, config=TALK
    )
    for count in NUMBERS:
        pairs = rejection.top_per_prompt(scores[:count])
        shown = rejection.selected(rollout, pairs, group=TALK.group)
        pupil, _ = rejection.finetune_on(model, shown, seed=seed, config=TALK)
        found = {"by": "requests", "judge_name": "gold", "n": TALK.group}
        found |= {"requests": count, "shown_gold": worth(most[:count], shown)}
        yield {**found, **heard(pupil, by["gold"])}


def worth(asked: Sequence[Task], shown: Rollout) -> float:
    """The mean gold score of what was shown."""
    return rewards.gold(asked, shown).mean().item()


def iterated(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Rounds of best-of-16 by each judge."""
    ask = task_stream("talk", count=REQUESTS, seed=seed)
    for name, judge in judges().items():
        looks: list[dict[str, float]] = []
        policy, _ = rejection.rejection_rounds(
            model,
            judge,
            ask,
            rejection.top_per_prompt,
            seed=seed,
            count=TALK_ROUNDS,
            config=TALK,
            watch=lambda _, policy: looks.append(heard(policy, judge)),  # noqa: B023
        )
        yield {"judge_name": name, "looks": looks, "right": others(policy)["others"]}


def judged(model: Transformer, seed: int) -> Iterator[dict[str, Any]]:
    """Best of n at inference by reward models of several educations, and by gold."""
    asked = taste.requests(count=64, seed=100 + seed, split="test")
    config = RejectionConfig(group=max(JUDGED))
    rollout, gold = rejection.sample_and_score(
        model, rewards.gold, asked, seed=seed, config=config
    )
    fresh = sample_pairs(model, count=512, seed=50 + seed, split="test")
    told = sample_pairs(model, count=max(count for count, _ in TAUGHT), seed=70 + seed)

    def curve(scores: Tensor) -> dict[str, Any]:
        liked = scores.reshape(gold.shape)
        return {"gold": best_of(liked, gold, JUDGED).mean(0)}

    truth = (fresh.chosen_gold > fresh.rejected_gold).double().mean()
    yield {"kind": "gold", "comparisons": 0, "accuracy": truth, **curve(gold)}
    kinds = [
        *((SurprisalRewardModel, each) for each in TAUGHT),
        (RewardModel, TAUGHT[-1]),
    ]
    for kind, (count, epochs) in kinds:
        some = told.rows(torch.arange(count))
        judge, _ = fit_reward_model(model, some, kind=kind, epochs=epochs, seed=seed)
        name = {"kind": kind.__name__, "comparisons": count}
        scores = rewards.learned(judge)(asked, rollout)
        yield {**name, "accuracy": accuracy(judge, fresh), **curve(scores)}


SWEEPS = dict.fromkeys((distilled, iterated, judged, mixed), TALK_SEEDS)
SWEEPS |= {before: range(1), verified: SEEDS}
RECORD = of_sweeps("10_rejection_sampling", instructed_model, SWEEPS, file=__file__)
