"""Chapter 2's agents on CartPole: a sweep over learning rates, then the best on fresh seeds.

Each agent takes 20,000 actions at each of RATES on five seeds. At its best rate it then
learns from twenty other seeds: about ten minutes on one core.
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

from labs import agents
from labs.record import Record, call
from lib.losses.policy_gradient import Loss, clipped_value, ppo_clip
from lib.models.mlp import ActorCritic
from lib.ops import token_logps, whiten
from lib.rollout import Batch, Rollout
from lib.worlds import cartpole

ACTIONS = 20_000  # that an agent may take; its learning rate falls to 0 over them
MARKS = (4_000, 8_000, 12_000, 16_000, 20_000)  # when it is tested
EPISODES = 32  # of a test, sampled
RATES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
SWEPT, FRESH = range(5), range(5, 25)  # seeds of the sweep; of the comparison
FAR = 1e6  # a clip that is never reached


def ppo_without(
    model: ActorCritic,
    seen: Batch,
    *,
    clip: float = 0.2,
    whitened: bool = True,
) -> Loss:
    """`agents.ppo_loss` with a part of it taken away."""
    rollout, mask, scale = seen.rollout, seen.rollout.mask, model.scale
    logps = token_logps(model(rollout.states), rollout.actions)
    credit = whiten(seen.advantages, mask) if whitened else seen.advantages
    loss, metrics = ppo_clip(logps, rollout.logps, credit, mask, clip=clip)
    three = (model.values(rollout.states), seen.values, seen.returns)
    value_loss, _ = clipped_value(*(v / scale for v in three), mask)
    return loss + value_loss, metrics


def confused(model: ActorCritic, rollout: Rollout, gamma: float) -> Batch:
    """GAE that takes every cut for a fall: nothing is worth anything after it."""
    ended = rollout.mask.any(-1)
    return agents.generalised(model, replace(rollout, terminated=ended), gamma)


CRITIC, PPO = agents.LADDER["actor–critic"], agents.LADDER["PPO"]
APART = {
    "actor–critic, whole episodes": replace(CRITIC, clip_length=None),
    "PPO, 1 epoch": replace(PPO, epochs=1),
    "PPO, no clip": replace(PPO, loss=partial(ppo_without, clip=FAR)),
    "PPO, not whitened": replace(PPO, loss=partial(ppo_without, whitened=False)),
    "PPO, cut taken for a fall": replace(PPO, credit=confused),
}
AGENTS = {**agents.LADDER, **APART}


class Tests:
    """A `watch`: at each of MARKS, how well the agent does that was there before it.

    A rollout that crosses a mark does not count: the mark's test is of the agent that
    has learnt from no more actions than that.
    """

    def __init__(self, untrained: nn.Module) -> None:
        """No test yet."""
        self.steps: list[int] = []
        self.before = untrained

    def __call__(self, model: ActorCritic, taken: int, rollout: Rollout) -> bool:
        """Test for every mark that was crossed; True after the last."""
        while not self.done and taken > MARKS[len(self.steps)]:
            self.test()
        self.before = copy.deepcopy(model)
        return self.done

    @property
    def done(self) -> bool:
        """Whether every mark has its test."""
        return len(self.steps) == len(MARKS)

    def test(self) -> None:
        """One more test, on the starts of its own mark: steps of all its episodes."""
        world, seed = cartpole.world(), 1_000_000 + len(self.steps)
        mean = agents.evaluate(self.before, world, batch=EPISODES, seed=seed)
        self.steps.append(round(mean * EPISODES))


def learn(seed: int, *, name: str, lr: float) -> dict[str, Any]:
    """One training: steps of the tests at each of MARKS, and how many updates it made."""
    untrained = agents.actor_critic(torch.Generator().manual_seed(seed), gamma=0.99)
    tests, agent = Tests(untrained), replace(AGENTS[name], lr=lr)
    world = cartpole.world()
    _, history = agents.train(agent, world, seed=seed, steps=ACTIONS, watch=tests)
    if not tests.done:  # the budget was met to the very action
        tests.test()
    return {"steps": tests.steps, "updates": len(history["loss"])}


def best_rate(name: str, runs: Mapping[str, Any]) -> float:
    """The rate at which an agent's tests were best, on average over marks and SWEPT."""

    def score(lr: float) -> float:
        found = runs[f"{name}, lr {lr}"]
        return mean(mean(found[str(seed)]["steps"]) for seed in SWEPT)

    return max(RATES, key=score)


def compared(seed: int, *, name: str) -> dict[str, Any]:
    """One training at the best rate of the sweep, which has been run before."""
    runs = json.loads(RECORD.partial.read_text("utf-8"))["runs"]
    lr = best_rate(name, runs)
    return {"lr": lr, **learn(seed, name=name, lr=lr)}


SWEEP = {
    f"{name}, lr {lr}": partial(learn, name=name, lr=lr)
    for name in AGENTS
    for lr in RATES
}
COMPARED = {name: partial(compared, name=name) for name in AGENTS}
RECORD = Record(
    "02_cartpole",
    call,
    runs={**SWEEP, **COMPARED},
    seeds={**dict.fromkeys(SWEEP, SWEPT), **dict.fromkeys(COMPARED, FRESH)},
    file=__file__,
)
