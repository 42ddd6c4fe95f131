"""Reinforcement learning on answers: ask, judge, credit, update, for any algorithm.

The loop is that of CartPole. What is new is that there is no world to play in, that
somebody else judges, and that the same question is asked several times, so that answers
can be compared. All luck of an update comes from the seed and the update's number, so
training can stop anywhere and go on from a checkpoint as if nothing had happened.

Shapes: P prompts, G answers to each, B = P · G rows, T tokens.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib import evaluate, require
from lib.advantages import gae
from lib.algorithms import Algorithm
from lib.kl import k1, penalised_rewards
from lib.logps import action_logps
from lib.losses.policy_gradient import Loss, clipped_value
from lib.models.transformer import Transformer
from lib.ops import sequence_logps, whiten
from lib.reward_model import RewardModel
from lib.rewards import Reward, judge
from lib.rollout import Batch, Rollout, concat, rollout_metrics, zero_variance
from lib.train import History, LossFn, fit
from lib.worlds.tasks import Task, TaskSampler, tasks

LAM = 0.95  # of GAE


@dataclass(frozen=True)
class RLConfig:
    """How much of everything; what an update is made of."""

    group: int = 8  # answers to each prompt
    epochs: int = 1  # updates from one set of answers
    beta: float = 0.0  # times KL(π ‖ reference), off the reward or in the loss
    max_tokens: int = evaluate.ANSWER

    def __post_init__(self) -> None:
        require.count("group", self.group, least=2)
        require.count("epochs", self.epochs)
        require.non_negative("beta", self.beta)
        require.count("max_tokens", self.max_tokens)


class PolicyWithCritic(nn.Module):
    """A policy and, where the algorithm has one, a critic that shares no weights.

    The critic is a reward model read at every token: V of the state in which it stands.
    """

    def __init__(self, policy: Transformer, critic: RewardModel | None = None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


@torch.no_grad()
def make_batch(
    learner: PolicyWithCritic,
    algorithm: Algorithm,
    rollout: Rollout,
    rewards: Tensor,
    reference: Transformer | None = None,
    knobs: RLConfig = RLConfig(),  # noqa: B008
) -> Batch:
    """Credit where it is due: rewards (P, G) of answers that the policy just wrote."""
    mask, group, inside = rollout.mask, knobs.group, algorithm.penalty_in_loss
    require.tensor("rewards", rewards, (len(rollout) // group, group))
    require.every_row_true(mask)
    if knobs.beta and reference is None:
        require.refuse("reference", None, "a model to stay near to, since beta > 0")
    if algorithm.critic and learner.critic is None:
        require.refuse("learner", "no critic", "one that says what to expect")
    notes, ref = rollout_metrics(rollout, rewards), None
    if knobs.beta:
        ref = action_logps(reference, rollout, group=group)
        notes["kl"] = sequence_logps(k1(rollout.logps, ref), mask).mean().item()
    paid = penalised_rewards(
        rewards.flatten().to(rollout.logps),
        rollout.logps,
        rollout.logps if ref is None else ref,
        mask,
        beta=0.0 if inside else knobs.beta,
    )  # (B, T)
    values = returns = None
    if algorithm.critic:
        credit, values, returns = gae_advantages(learner.critic, rollout, paid)
    else:
        each = algorithm.credit(paid.sum(1).reshape(-1, group))  # (P, G)
        credit = each.reshape(-1, 1).expand(mask.shape)
    return Batch(
        rollout=rollout,
        group=group,
        advantages=credit,
        room=knobs.max_tokens,
        beta=knobs.beta if inside else 0.0,
        ref_logps=ref if inside else None,
        values=values,
        returns=returns,
        notes=notes,
    )


def gae_advantages(
    critic: RewardModel, rollout: Rollout, paid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """GAE of rewards (B, T), whitened; the critic's values, and what they should be.

    An answer that was cut off has ended, too: it was judged as it stood. gamma is 1.
    """
    mask, ends = rollout.mask, rollout.ends
    values = critic(rollout.states).masked_fill(~mask, 0)  # (B, T)
    after = nn.functional.pad(values[:, 1:], (0, 1))  # V of the next state, or 0
    never = torch.zeros_like(ends)
    credit, returns = gae(paid, values, after, ends, never, gamma=1.0, lam=LAM)
    return whiten(credit, mask), values, returns


def loss_of(algorithm: Algorithm) -> LossFn:
    """(learner, lesson) -> loss and metrics, with the critic's where there is one."""

    def loss_fn(learner: PolicyWithCritic, seen: Batch) -> Loss:
        rollout = seen.rollout
        logps = action_logps(learner.policy, rollout, group=seen.group)
        loss, metrics = algorithm.loss(logps, seen)
        metrics = {**metrics, **seen.notes}
        if algorithm.critic:
            values = learner.critic(rollout.states)
            error, _ = clipped_value(values, seen.values, seen.returns, rollout.mask)
            metrics["value_loss"] = error.item()
            loss = loss + error
        return loss, metrics

    return loss_fn


TRIES = 4  # times that an update asks, at most, for groups that differ
ELSEWHERE = 1_000_000  # what a further try adds to the update's number, for other tasks


def task_stream(
    skill: str, *, count: int, seed: int, levels: Sequence[int] | None = None
) -> TaskSampler:
    """`count` training tasks of one skill for each update, always new ones."""

    def ask(update: int) -> Sequence[Task]:
        number = 10_000 * (seed + 1) + update
        return tasks(skill, count=count, seed=number, levels=levels)

    return ask


def training_batches(
    learner: PolicyWithCritic,
    algorithm: Algorithm,
    reward: Reward,
    ask: TaskSampler,
    *,
    seed: int,
    updates: int,
    reference: Transformer | None = None,
    knobs: RLConfig = RLConfig(),  # noqa: B008
) -> Callable[[int], Iterator[Batch]]:
    """What `fit` learns from: a function of the update to begin with.

    Each set of answers serves `knobs.epochs` updates; begin with a multiple of that.
    """
    require.count("updates", updates)

    def stream(start: int) -> Iterator[Batch]:
        if start % knobs.epochs and start < updates:
            require.refuse("start", start, f"a multiple of {knobs.epochs} epochs")
        for update in range(start, updates, knobs.epochs):
            draw = torch.Generator().manual_seed(1_000_003 * (seed + 1) + update)
            answers = collect(
                learner.policy, reward, ask, update, draw, knobs, algorithm.resample
            )
            seen = make_batch(learner, algorithm, *answers, reference, knobs)
            for _ in range(min(knobs.epochs, updates - update)):
                yield seen

    return stream


def collect(
    policy: Transformer,
    reward: Reward,
    ask: TaskSampler,
    update: int,
    draw: torch.Generator,
    knobs: RLConfig,
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
        telling = ~zero_variance(scores)
        if telling.any():
            rollouts.append(rollout.rows(telling.repeat_interleave(knobs.group)))
            rewards.append(scores[telling])
        if sum(map(len, rewards)) >= len(asked):
            break
    if not rewards:
        return rollout, scores
    kept_rewards = torch.cat(rewards)[: len(asked)]
    rows = torch.arange(kept_rewards.numel())
    return concat(*rollouts).rows(rows), kept_rewards


def train(
    model: Transformer,
    algorithm: Algorithm,
    reward: Reward,
    ask: TaskSampler,
    *,
    seed: int,
    updates: int,
    lr: float,
    reference: Transformer | None = None,
    critic: RewardModel | None = None,
    knobs: RLConfig = RLConfig(),  # noqa: B008
    watch: Callable[[int, Transformer], None] | None = None,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
) -> tuple[Transformer, History]:
    """A copy of the model after so many updates; the model is the reference by default.

    `critic` starts the value model (a fresh one on the same trunk, if it is needed and
    not given). `watch(update, policy)` sees the policy before each update and after the
    last. The history holds the metrics of the loss and of `rollout_metrics`, an update each.
    """
    policy = copy.deepcopy(model)
    if algorithm.critic:
        critic = RewardModel(model) if critic is None else copy.deepcopy(critic)
    learner = PolicyWithCritic(policy, critic if algorithm.critic else None)
    reference = model if reference is None else reference
    stream = training_batches(
        learner,
        algorithm,
        reward,
        ask,
        seed=seed,
        updates=updates,
        reference=reference,
        knobs=knobs,
    )

    def watched(start: int) -> Iterator[Batch]:
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
