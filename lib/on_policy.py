"""Reinforcement learning on answers: ask, judge, credit, update, for any algorithm.

The loop is that of CartPole. What is new is that there is no world to play in, that
somebody else judges, and that the same question is asked several times, so that answers
can be compared. All luck of an update comes from the seed and the update's number, so
training can stop anywhere and go on from a checkpoint as if nothing had happened.

Shapes: P prompts, G answers to each, B = P · G rows, T tokens.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lib import evaluate, require
from lib.algorithms import Algorithm, Lesson
from lib.comparisons import together
from lib.lessons import Knobs, Learner, lesson, loss_of, silent
from lib.models.transformer import Transformer
from lib.reward_model import RewardModel
from lib.rewards import Reward, judge
from lib.rollout import Rollout
from lib.train import History, fit
from lib.worlds.tasks import Task, tasks

Ask = Callable[[int], Sequence[Task]]  # number of the update -> P tasks
TRIES = 4  # times that an update asks, at most, for groups that differ
ELSEWHERE = 1_000_000  # what a further try adds to the update's number, for other tasks


def drills(
    skill: str, *, count: int, seed: int, levels: Sequence[int] | None = None
) -> Ask:
    """`count` training tasks of one skill for each update, always new ones."""

    def ask(update: int) -> Sequence[Task]:
        number = 10_000 * (seed + 1) + update
        return tasks(skill, count=count, seed=number, levels=levels)

    return ask


def lessons(
    learner: Learner,
    algorithm: Algorithm,
    reward: Reward,
    ask: Ask,
    *,
    seed: int,
    updates: int,
    reference: Transformer | None = None,
    knobs: Knobs = Knobs(),  # noqa: B008
) -> Callable[[int], Iterator[Lesson]]:
    """What `fit` learns from: a function of the update to begin with.

    Each set of answers serves `knobs.epochs` updates; begin with a multiple of that.
    """
    require.count("updates", updates)

    def stream(start: int) -> Iterator[Lesson]:
        if start % knobs.epochs and start < updates:
            require.refuse("start", start, f"a multiple of {knobs.epochs} epochs")
        for update in range(start, updates, knobs.epochs):
            draw = torch.Generator().manual_seed(1_000_003 * (seed + 1) + update)
            answers = answered(
                learner.policy, reward, ask, update, draw, knobs, algorithm.resample
            )
            seen = lesson(learner, algorithm, *answers, reference, knobs)
            for _ in range(min(knobs.epochs, updates - update)):
                yield seen

    return stream


def answered(
    policy: Transformer,
    reward: Reward,
    ask: Ask,
    update: int,
    draw: torch.Generator,
    knobs: Knobs,
    resample: bool = False,
) -> tuple[Rollout, Tensor]:
    """Answers to the tasks of an update, and their rewards (P, G).

    With `resample` only groups whose rewards differ are kept, and more tasks are asked
    until there are P of them, or TRIES times (dynamic sampling; Yu et al. 2025). Where
    not one was found, all groups of the last try are returned: they teach nothing.
    """
    rollouts, rewards = [], []
    for attempt in range(TRIES if resample else 1):
        asked = ask(update + attempt * ELSEWHERE)
        rollout = evaluate.ask(
            policy,
            asked,
            generator=draw,
            group=knobs.group,
            max_tokens=knobs.max_tokens,
        )
        scores = judge(reward, asked, rollout).reshape(-1, knobs.group)
        if not resample:
            return rollout, scores
        telling = ~silent(scores)
        if telling.any():
            rollouts.append(rollout.rows(telling.repeat_interleave(knobs.group)))
            rewards.append(scores[telling])
        if sum(map(len, rewards)) >= len(asked):
            break
    if not rewards:
        return rollout, scores
    kept_rewards = torch.cat(rewards)[: len(asked)]
    rows = torch.arange(kept_rewards.numel())
    return together(*rollouts).rows(rows), kept_rewards


def train(
    model: Transformer,
    algorithm: Algorithm,
    reward: Reward,
    ask: Ask,
    *,
    seed: int,
    updates: int,
    lr: float,
    reference: Transformer | None = None,
    critic: RewardModel | None = None,
    knobs: Knobs = Knobs(),  # noqa: B008
    watch: Callable[[int, Transformer], None] | None = None,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
) -> tuple[Transformer, History]:
    """A copy of the model after so many updates; the model is the reference by default.

    `critic` starts the value model (a fresh one on the same trunk, if it is needed and
    not given). `watch(update, policy)` sees the policy before each update and after the
    last. The history holds the metrics of the loss and of `noted`, an update each.
    """
    policy = copy.deepcopy(model)
    if algorithm.critic:
        critic = RewardModel(model) if critic is None else copy.deepcopy(critic)
    learner = Learner(policy, critic if algorithm.critic else None)
    reference = model if reference is None else reference
    stream = lessons(
        learner,
        algorithm,
        reward,
        ask,
        seed=seed,
        updates=updates,
        reference=reference,
        knobs=knobs,
    )

    def watched(start: int) -> Iterator[Lesson]:
        for update, seen in enumerate(stream(start), start):
            if watch is not None:
                watch(update, policy)
            yield seen

    history = fit(
        learner,
        watched,
        loss_of(algorithm),
        lr=lr,
        progress=progress,
        checkpoint=checkpoint,
        every=knobs.epochs,
        run=(seed, lr, knobs),
    )
    if watch is not None:
        watch(updates, policy)
    return policy, history
