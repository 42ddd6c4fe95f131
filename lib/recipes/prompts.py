"""What a recipe asks, and who judges the answers."""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from lib import require, villagers
from lib.recipes.decontaminate import decontaminator
from lib.reward_model import RewardModel
from lib.rewards import Reward, judge, learned, verified
from lib.rollout import Rollout
from lib.seeds import seed_of
from lib.villagers import reasoned
from lib.worlds.task import Task, TaskSampler, TaskSource
from lib.worlds.village import taste
from lib.worlds.village.tasks import SKILLS, tasks

EXAM = 128  # held-out tasks of each skill: what is measured after every stage
TRIES = 20  # to find as many clean tasks as were asked for


def talk(count: int, seed: int) -> Sequence[Task]:
    """Open requests only."""
    return taste.requests(count=count, seed=seed)


def skill(name: str, *levels: int) -> TaskSource:
    """Tasks of one skill."""
    return lambda count, seed: tasks(
        name, count=count, seed=seed, levels=levels or None
    )


def mixed(*parts: tuple[float, TaskSource]) -> TaskSource:
    """Tasks of several kinds, in these shares, shuffled; the first takes what is over."""

    def asks(count: int, seed: int) -> Sequence[Task]:
        counts = [math.floor(share * count) for share, _ in parts]
        counts[0] += count - sum(counts)
        found = [ask(n, seed) for n, (_, ask) in zip(counts, parts) if n]
        together = sum(map(list, found), [])
        return random.Random(f"mixed {seed}").sample(together, count)

    return asks


def skills() -> TaskSource:
    """Tasks of every skill, equally many."""
    return mixed(*((1 / len(SKILLS), skill(name)) for name in SKILLS))


def clean(asks: TaskSource, held_out: Sequence[Task] | None = None) -> TaskSource:
    """The same without what is too near to a held-out task, as many as asked for.

    By default to those on which recipes are measured.
    """
    held_out = villagers.exam(count=EXAM) if held_out is None else held_out
    near = decontaminator(held_out)

    def found(count: int, seed: int) -> Sequence[Task]:
        kept: list[Task] = []
        for attempt in range(TRIES):
            luck = seed_of("clean", seed, attempt) if attempt else seed
            kept += [t for t in asks(count, luck) if not near(t)]
            if len(kept) >= count:
                return kept[:count]
        require.refuse("asks", f"{len(kept)} clean tasks", f"{count} in {TRIES} tries")

    return found


def from_pool(pool: Sequence[Task], count: int, seed: int) -> TaskSampler:
    """`count` tasks of a pool for each update, none twice in an update if it can be."""

    def ask(update: int) -> Sequence[Task]:
        draw = random.Random(f"pool {seed} {update}")
        if count <= len(pool):
            return draw.sample(pool, count)
        return draw.choices(pool, k=count)

    return ask


def right_and_reasoned(asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """1 for a right answer that was reached in true steps inside <think>, else 0."""
    return verified(asked, rollout) * reasoned(asked, rollout)


def by_kind(model: RewardModel, *, weight: float = 1.0) -> Reward:
    """A verifier where there is one; for open requests `weight` times a reward model."""

    def reward(asked: Sequence[Task], rollout: Rollout) -> Tensor:
        group = len(rollout) // len(asked)
        open_ended = torch.tensor([t.skill == "talk" for t in asked])
        rows = open_ended.repeat_interleave(group)
        found = torch.zeros(len(rollout), dtype=torch.float64)
        for which, rule in ((rows, learned(model)), (~rows, verified)):
            if which.any():
                some = [t for t in asked if (t.skill == "talk") == (which is rows)]
                found[which] = judge(rule, some, rollout.rows(which))
        found[rows] *= weight
        return found

    return reward
