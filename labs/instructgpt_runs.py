"""InstructGPT's three steps on five bases, and without one or another of their parts.

And on base 0 alone a sweep over PPO's learning rate, its KL penalty and the weight of old
text. Seed s is base model s, its demonstrations, its annotators and its luck.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from torch import nn

from labs import deepseek_r1 as r1
from labs import instructgpt as ig
from labs.deepseek_r1_runs import agreed
from labs.record import Record, call
from lib import pretrain, reward_model, rewards
from lib.models.transformer import Transformer
from lib.reward_model import RewardModel
from lib.rollout import Rollout

SKILLS = ("cups", "faithful", "facts", "strings", "constraints", "talk")
CURVES = ("reward", "kl", "length", "value_loss", "entropy", "old text")
HALF = 0.5  # of gold, whose spread is about twice that of a reward model's scores


@lru_cache(maxsize=1)
def tuned(seed: int) -> tuple[Transformer, Rollout]:
    """The SFT model of this base, and its answers, against which others are held."""
    model = ig.sft(pretrain.base_model(seed=seed), seed=seed)
    return model, ig.said_by(model, name="against")


@lru_cache(maxsize=1)
def judge(seed: int) -> tuple[RewardModel, dict[str, Any]]:
    """The reward model of this base's SFT model, and how good it is.

    And one that learnt from the same answers, one pair of each ranking alone.
    """
    writer, _ = tuned(seed)
    rankings = ig.ranked(writer, seed=seed)
    model, history = ig.reward_model(writer, rankings, seed=seed)
    few, _ = ig.reward_model(writer, ig.one_pair(rankings, seed=seed), seed=seed)
    fresh = r1.compared(writer, count=1_000, seed=seed + 1_000, split="test")
    found = {
        "accuracy": reward_model.accuracy(model, fresh),
        "one pair": reward_model.accuracy(few, fresh),
        **agreed(fresh),
        "requests": len({task.request for task in rankings.asked}),
        "curve": history["accuracy"],
    }
    return model, found


def measured(policy: nn.Module, judged_by: RewardModel, seed: int) -> dict[str, Any]:
    """Skills, old text, talk, and how often people prefer it to SFT."""
    model, against = tuned(seed)
    said, skills = ig.said_by(policy), r1.report(policy)
    return {
        "skills": {name: skills[name] for name in SKILLS},
        "old text": ig.surprise(policy),
        "wins": ig.preferred(said, against),
        **ig.judged(said, judged_by, model),
    }


def recipe(seed: int) -> dict[str, Any]:
    """The three steps: what there is to tell after each."""
    model, about = judge(seed)
    return {
        "shown": ig.distinct(ig.shown_by_people(seed)),
        "judge": about,
        "base": measured(pretrain.base_model(seed=seed), model, seed),
        "SFT": measured(tuned(seed)[0], model, seed),
        **ppo(seed),
    }


def ppo(seed: int, *, shown: bool = True, **settings: Any) -> dict[str, Any]:
    """PPO with these settings, from SFT or from the base, with the same judge."""
    start = tuned(seed)[0] if shown else pretrain.base_model(seed=seed)
    model, _ = judge(seed)
    policy, history = ig.ppo(start, model, seed=seed, **settings)
    curves = {name: history[name] for name in CURVES if name in history}
    found = {**measured(policy, model, seed), "curves": curves}
    return {"PPO": found, "said": r1.samples(policy)}


def on_gold(seed: int) -> dict[str, Any]:
    """PPO paid in gold, which no real recipe has."""
    return ppo(seed, reward=rewards.total([rewards.gold], weights=[HALF]))


FIVE: dict[str, Callable[[int], dict[str, Any]]] = {
    "the recipe": recipe,
    "no SFT": partial(ppo, shown=False),
    "no KL penalty": partial(ppo, beta=0.0),
    "no old text": partial(ppo, ptx=0.0),
    "gold for the reward model": on_gold,
}
SWEEP: dict[str, dict[str, float]] = {
    f"{name} {value}": {name: value}
    for name, values in (
        ("lr", (3e-4, 3e-3)),
        ("beta", (0.02, 0.3)),
        ("ptx", (0.2, 1.0)),
    )
    for value in values
}
ONE = {name: partial(ppo, **settings) for name, settings in SWEEP.items()}
RECORD = Record(
    "instructgpt",
    call,
    runs={**FIVE, **ONE},
    seeds={**dict.fromkeys(FIVE, range(5)), **dict.fromkeys(ONE, [0])},
    file=__file__,
)
