"""Chapter 3: RLHF from five bases, with a KL penalty and without; and its CartPole runs.

Seed s is base model s, and all of the luck. The base is shown people's answers to open
requests and becomes the writer; annotators compare what it writes; a reward model learns
from that; and the writer is trained on the reward model's scores.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import nn

from labs import agents, cartpole_preferences, deepseek_r1
from labs.cartpole_preferences import judged
from labs.record import Record, call
from lib import evaluate, on_policy, pretrain, rewards
from lib.advantages import leave_one_out
from lib.algorithms import ALGORITHMS
from lib.models.transformer import Transformer
from lib.on_policy import RLConfig
from lib.reward_model import (
    RewardModel,
    SurprisalRewardModel,
    accuracy,
    fit_reward_model,
    score,
)
from lib.rewards import Reward
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import instruct
from lib.train import History
from lib.worlds import cartpole, tasks
from lib.worlds.annotators import PANEL, believed
from lib.worlds.talk import features

REINFORCE = replace(ALGORITHMS["REINFORCE"], credit=leave_one_out)
BETA, UPDATES = 0.1, 40
PROMPTS, GROUP, TOKENS = 12, 8, 32  # of an update; longest answer
RATES = (3e-4, 1e-3, 3e-3)  # of the sweep
SHOWN, COMPARED = 1_500, 2_000  # people's answers, comparisons
COUNTED = ("true", "false", "false_pets", "kind", "words")  # in an answer
SHIFTS = (-1.5, -1.0, -0.5, 0.0)  # constants added to a learned reward

# --- the parts ------------------------------------------------------------------------


def writer(seed: int) -> Transformer:
    """Base model `seed` after SHOWN answers of people to open requests."""
    pupil = copy.deepcopy(pretrain.base_model(seed=seed))
    asked = tasks.tasks("talk", count=SHOWN, seed=seed_of("shown", seed))
    instruct(pupil, [(t, t.answer) for t in asked], epochs=1, lr=1e-3, seed=seed)
    return pupil


def judge(model: Transformer, seed: int) -> RewardModel:
    """A reward model from COMPARED comparisons of what this model writes.

    Its scores have mean 0 and standard deviation 1 on them.
    """
    pairs = deepseek_r1.compared(model, count=COMPARED, seed=seed)
    settings = {"kind": SurprisalRewardModel, "batch": 16, "lr": 3e-3, "seed": seed}
    liked, _ = fit_reward_model(model, pairs, epochs=2, **settings)
    said = torch.cat([score(liked, some) for some in (pairs.chosen, pairs.rejected)])
    with torch.no_grad():
        liked.head.weight.div_(said.std())
        liked.head.bias.sub_(said.mean()).div_(said.std())
    return liked


def rlhf(
    policy: nn.Module,
    liked: Reward,
    *,
    seed: int,
    lr: float,
    beta: float = BETA,
    updates: int = UPDATES,
) -> tuple[nn.Module, History]:
    """REINFORCE, each answer against the others to its request, less the KL penalty.

    "gold" in the history is measured on the same answers, and never learnt from.
    """
    return on_policy.train(
        policy,
        REINFORCE,
        liked,
        on_policy.task_stream("talk", count=PROMPTS, seed=seed),
        seed=seed,
        updates=updates,
        lr=lr,
        config=RLConfig(group=GROUP, beta=beta, max_tokens=TOKENS),
        measures={"gold": rewards.gold},
    )


# --- what is measured -----------------------------------------------------------------


def exam(policy: nn.Module, reference: nn.Module, liked: Reward) -> dict[str, Any]:
    """One answer to each of 200 distinct test requests.

    "gold" lists all 200 scores; the rest are means: what the reward model and what the
    annotators make of them, KL(policy ‖ reference) in nats an answer, and counts.
    """
    asked, luck = evaluate.exam("talk"), generator("rlhf exam")
    rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
    said = zip(asked, evaluate.answers(rollout))
    seen = [features(task, each.text, finished=each.finished) for task, each in said]
    panel = [a.weights.score(believed(s)) for s in seen for a in PANEL]
    return {
        "gold": evaluate.scores(asked, rollout).tolist(),
        "reward": liked(asked, rollout).mean().item(),
        "annotators": mean(panel),
        "kl": rewards.drift(reference)(asked, rollout).mean().item(),
        **{name: mean(getattr(s, name) for s in seen) for name in COUNTED},
    }


def swept(seed: int, *, lr: float) -> dict[str, float]:
    """The ready writer and reward model at one rate: means of the last 10 updates."""
    liked = rewards.learned(deepseek_r1.ready_reward_model())
    _, history = rlhf(deepseek_r1.ready_assistant(), liked, seed=seed, lr=lr)
    return {name: mean(history[name][-10:]) for name in ("reward", "kl", "gold")}


def best_rate(runs: Mapping[str, Any]) -> float:
    """The rate of the sweep with the highest reward less BETA times KL."""

    def objective(lr: float) -> float:
        (found,) = runs[f"lr {lr}"].values()
        return found["reward"] - BETA * found["kl"]

    return max(RATES, key=objective)


def from_base(seed: int) -> dict[str, Any]:
    """Everything from base model `seed`: before, after, and after with beta = 0."""
    lr = best_rate(json.loads(RECORD.partial.read_text("utf-8"))["runs"])
    start = writer(seed)
    model = judge(start, seed)
    liked = rewards.learned(model)
    fresh = deepseek_r1.compared(start, count=500, seed=seed, split="test")
    sign = (fresh.chosen_gold - fresh.rejected_gold).sign()
    found: dict[str, Any] = {
        "lr": lr,
        "accuracy": accuracy(model, fresh),
        "gold's accuracy": (0.5 + 0.5 * sign).mean().item(),
        "before": exam(start, start, liked),
    }
    for name, beta in (("with penalty", BETA), ("without", 0.0)):
        policy, history = rlhf(start, liked, seed=seed, lr=lr, beta=beta)
        curves = {n: history[n][::2] for n in ("reward", "gold")}
        found[name] = {"curves": curves, **exam(policy, start, liked)}
    return found


def pole(seed: int) -> dict[str, Any]:
    """CartPole from comparisons, the learned reward, and what a constant in it does."""
    model, teacher = cartpole_preferences.from_preferences(seed)
    lean = torch.zeros(41, 4, dtype=torch.float64)
    lean[:, 2] = torch.linspace(-0.2, 0.2, 41, dtype=torch.float64)
    return {
        "comparisons": [note.comparisons for note in teacher.notes],
        "truth": [note.truth for note in teacher.notes],
        "judge": mean(agents.gymnasium_returns(model.policy, seed=1000 + seed)),
        "leaning": teacher.reward(lean),
        "shifted": {c: shifted(teacher.reward, c, seed=seed) for c in SHIFTS},
        "true rewards": true_rewards(seed),
    }


def shifted(reward: nn.Module, constant: float, *, seed: int) -> float:
    """True return of an agent that 3,000 actions with `reward` + constant have taught."""
    place = judged(cartpole.world(), lambda states: reward(states) + constant)
    agent, _ = agents.train(agents.LADDER["PPO"], place, seed=seed, steps=3_000)
    return agents.evaluate(agent, cartpole.world(), batch=16)


def true_rewards(seed: int) -> int:
    """Actions, each truly rewarded, until PPO's films last as long as annotators ask."""
    films = cartpole.world(horizon=cartpole_preferences.LENGTH)

    def watch(model: nn.Module, taken: int, rollout: Rollout) -> bool:
        if rollout.terminated.any():  # a pole fell just now: no need to look further
            return False
        lasted = agents.evaluate(model, films, batch=16, seed=taken)
        return lasted >= cartpole_preferences.CONTENT

    settings = {"seed": seed, "steps": 25_000, "watch": watch}
    _, history = agents.train(agents.LADDER["PPO"], cartpole.world(), **settings)
    return history["steps"][-1]


SWEEP = {f"lr {lr}": partial(swept, lr=lr) for lr in RATES}
RUNS = {"RLHF": from_base, "pole": pole}
RECORD = Record(
    "03_from_rl_to_rlhf",
    call,
    runs={**SWEEP, **RUNS},
    seeds={**dict.fromkeys(SWEEP, (10,)), **dict.fromkeys(RUNS, range(5))},
    file=__file__,
)
