"""Reinforcement learning on answers: ask, judge, credit, update, for any algorithm.

The loop is that of CartPole. What is new is that there is no world to play in, that
somebody else judges, and that the same question is asked several times, so that answers
can be compared. The policy may be any causal model, a task anything with a prompt. All
luck of an update comes from the seed and the update's number, so training can stop
anywhere and go on from a checkpoint as if nothing had happened.

Shapes: P prompts, G answers to each, B = P · G rows, T tokens.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib import distributed, evaluate, require
from lib.advantages import gae
from lib.algorithms import Algorithm
from lib.kl import AdaptiveKL, k1, penalised_rewards
from lib.logps import action_logps
from lib.losses.policy_gradient import Loss, clipped_value
from lib.models.tokenizer import Tokenizer
from lib.models.transformer import Transformer
from lib.ops import sequence_logps, whiten
from lib.reward_model import RewardModel
from lib.rewards import Reward, judge
from lib.rollout import Batch, Rollout, concat, rollout_metrics, zero_variance
from lib.seeds import generator, seed_of
from lib.train import History, LossFn, fit
from lib.worlds.task import Task, TaskSampler
from lib.worlds.tasks import tasks

LAM = 0.95  # of GAE
TRIES = 4  # times that an update asks, at most, for groups that differ
EVERY = 20  # updates, or a little more, between two writes of a checkpoint


@dataclass(frozen=True)
class RLConfig:
    """How much of everything; what an update is made of."""

    group: int = 8  # answers to each prompt
    epochs: int = 1  # updates from one set of answers
    beta: float = 0.0  # times KL(π ‖ reference), off the reward or in the loss
    max_tokens: int = evaluate.ANSWER
    temperature: float = 1.0  # at which answers are drawn, and scored again

    def __post_init__(self) -> None:
        require.count("group", self.group, least=2)
        require.count("epochs", self.epochs)
        require.non_negative("beta", self.beta)
        require.count("max_tokens", self.max_tokens)
        require.positive("temperature", self.temperature)


DEFAULT = RLConfig()


class PolicyWithCritic(nn.Module):
    """A policy and, where the algorithm has one, a critic that shares no weights.

    The critic is a reward model read at every token: V of the state in which it stands.
    """

    def __init__(self, policy: nn.Module, critic: nn.Module | None = None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


# --- ask and judge --------------------------------------------------------------------


def task_stream(
    skill: str, *, count: int, seed: int, levels: Sequence[int] | None = None
) -> TaskSampler:
    """`count` training tasks of one skill for each update, always new ones."""

    def ask(update: int) -> Sequence[Task]:
        number = seed_of("tasks", skill, seed, update)
        return tasks(skill, count=count, seed=number, levels=levels)

    return ask


def collect(
    policy: nn.Module,
    reward: Reward,
    ask: TaskSampler,
    update: int,
    *,
    seed: int,
    config: RLConfig = DEFAULT,
    tokenizer: Tokenizer | None = None,
    resample: bool = False,
    measures: Mapping[str, Reward] | None = None,
) -> tuple[Rollout, Tensor, dict[str, float]]:
    """Answers to the tasks of an update, their rewards (P, G), and metrics.

    With `resample` only groups whose rewards differ are learnt from, and more tasks are
    asked until there are P of them, or TRIES times (dynamic sampling; Yu et al. 2025).
    Where not one was found, all groups of the last try are returned: they teach nothing.

    The metrics tell of *all* answers, dropped ones too: those of `rollout_metrics`,
    their number, and the mean of each reward in `measures`.
    """
    luck = generator("answers", seed, update)
    settings = {"group": config.group, "temperature": config.temperature}
    settings |= {"max_tokens": config.max_tokens, "tokenizer": tokenizer}
    everything: list[tuple[Sequence[Task], Rollout, Tensor]] = []
    differ: list[Tensor] = []  # (P,) bool, a try each: not all rewards are equal
    wanted = kept = 0
    for attempt in range(TRIES if resample else 1):
        number = seed_of("try", update, attempt) if attempt else update
        asked = ask(number)
        rollout = _answers(policy, asked, generator=luck, **settings)
        scores = judge(reward, asked, rollout).reshape(-1, config.group)
        everything.append((asked, rollout, scores))
        differ.append(~zero_variance(scores))
        wanted, kept = len(asked), kept + int(differ[-1].sum())
        if kept >= wanted:
            break
    metrics = _metrics(everything, measures or {})
    if not resample or not kept:
        return rollout, scores, metrics
    rollout, scores = concat(*(r for _, r, _ in everything)), _stacked(everything)
    chosen = torch.cat(differ).nonzero()[:wanted, 0]  # (P,) groups
    each = torch.arange(config.group, device=chosen.device)  # (G,)
    rows = (chosen.unsqueeze(1) * config.group + each).flatten()
    return rollout.rows(rows), scores[chosen], metrics


def _answers(policy: nn.Module, asked: Sequence[Task], **settings: Any) -> Rollout:
    """Answers to all tasks, each rank its own, with the luck of one process.

    Ranks may write for longer or shorter. One without a task answers the first all the
    same, so that its generator goes on with the others', and nobody reads that.
    """
    own = distributed.share(len(asked)).tolist() or [0]
    of = slice(own[0], own[-1] + 1)
    with distributed.whole(policy) as writer:
        written = evaluate.ask(writer, asked, of=of, **settings)
    if distributed.size() == 1:
        return written
    parts = distributed.gathered(written)[: len(asked)]
    return concat(*parts).to(written.mask.device)


def _stacked(everything: Sequence[tuple[Sequence[Task], Rollout, Tensor]]) -> Tensor:
    return torch.cat([scores for *_, scores in everything])


def _metrics(
    everything: Sequence[tuple[Sequence[Task], Rollout, Tensor]],
    measures: Mapping[str, Reward],
) -> dict[str, float]:
    rollout = concat(*(rollout for _, rollout, _ in everything))
    asked = [task for some, *_ in everything for task in some]
    found = {name: judge(by, asked, rollout) for name, by in measures.items()}
    return {
        **rollout_metrics(rollout, _stacked(everything)),
        "answers": float(len(rollout)),
        **{name: scores.mean().item() for name, scores in found.items()},
    }


# --- credit ---------------------------------------------------------------------------


@torch.no_grad()
def make_batch(
    learner: PolicyWithCritic,
    algorithm: Algorithm,
    rollout: Rollout,
    rewards: Tensor,
    reference: nn.Module | None = None,
    config: RLConfig = DEFAULT,
    metrics: Mapping[str, float] | None = None,
) -> Batch:
    """Credit where it is due: rewards (P, G) of answers that the policy just wrote.

    `metrics` tell of these answers: those of `rollout_metrics`, if none are given.
    Where beta is not 0, kl joins them: KL(π ‖ reference) in nats an answer, by k1.
    """
    mask, group, inside = rollout.mask, config.group, algorithm.penalty_in_loss
    require.tensor("rewards", rewards, (len(rollout) // group, group))
    require.every_row_true(mask)
    if config.beta and reference is None:
        require.refuse("reference", None, "a model to stay near to, since beta > 0")
    if algorithm.critic and learner.critic is None:
        require.refuse("learner", "no critic", "one that says what to expect")
    told = dict(rollout_metrics(rollout, rewards) if metrics is None else metrics)
    ref = None
    if config.beta:
        settings = {"group": group, "temperature": config.temperature}
        with distributed.whole(reference) as reader:
            read = partial(action_logps, reader, **settings)
            ref = distributed.read_by_all(read, rollout, multiple=group)
        ref = ref.to(mask.device)
        told["kl"] = sequence_logps(k1(rollout.logps, ref), mask).mean().item()
    paid = penalised_rewards(
        rewards.flatten().to(rollout.logps),
        rollout.logps,
        rollout.logps if ref is None else ref,
        mask,
        beta=0.0 if inside else config.beta,
    )  # (B, T)
    values = returns = None
    if algorithm.critic:
        credit, values, returns = gae_advantages(learner.critic, rollout, paid)
    else:
        each = algorithm.credit(paid.sum(1).reshape(-1, group))  # (P, G)
        credit = each.reshape(-1, 1).expand(mask.shape)
    return Batch(
        rollout=rollout,
        advantages=credit,
        values=values,
        returns=returns,
        group=group,
        ref_logps=ref if inside else None,
        beta=config.beta if inside else 0.0,
        length=config.max_tokens,
        metrics=told,
    )


def gae_advantages(
    critic: nn.Module, rollout: Rollout, paid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """GAE of rewards (B, T), whitened; the critic's values, and what they should be.

    An answer that was cut off has ended, too: it was judged as it stood. gamma is 1.
    """
    mask, ends = rollout.mask, rollout.ends
    with distributed.whole(critic) as reader:
        read = distributed.read_by_all(lambda some: reader(some.states), rollout)
    values = read.to(mask.device).masked_fill(~mask, 0)  # (B, T)
    after = nn.functional.pad(values[:, 1:], (0, 1))  # V of the next state, or 0
    never = torch.zeros_like(ends)
    credit, returns = gae(paid, values, after, ends, never, gamma=1.0, lam=LAM)
    return whiten(credit, mask), values, returns


# --- update ---------------------------------------------------------------------------


def loss_of(algorithm: Algorithm, temperature: float = 1.0) -> LossFn:
    """(learner, batch) -> loss and metrics, with the critic's where there is one."""

    def loss_fn(learner: PolicyWithCritic, batch: Batch) -> Loss:
        rollout, settings = batch.rollout, {"temperature": temperature}
        logps = action_logps(learner.policy, rollout, group=batch.group, **settings)
        loss, metrics = algorithm.policy_loss(logps, batch)
        metrics = {**metrics, **batch.metrics}
        if algorithm.critic:
            values = learner.critic(rollout.states)
            error, _ = clipped_value(values, batch.values, batch.returns, rollout.mask)
            metrics["value_loss"] = error.item()
            loss = loss + error
        return loss, metrics

    return loss_fn


def training_batches(
    learner: PolicyWithCritic,
    algorithm: Algorithm,
    reward: Reward,
    ask: TaskSampler,
    *,
    seed: int,
    updates: int,
    reference: nn.Module | None = None,
    config: RLConfig = DEFAULT,
    tokenizer: Tokenizer | None = None,
    controller: AdaptiveKL | None = None,
    measures: Mapping[str, Reward] | None = None,
) -> Callable[[int], Iterator[Batch]]:
    """What `fit` learns from: a function of the update to begin with.

    Each set of answers serves `config.epochs` updates; begin with a multiple of that.
    See `train` for the rest.
    """
    require.count("updates", updates)
    told = {"seed": seed, "tokenizer": tokenizer, "measures": measures}
    told["resample"] = algorithm.resample

    def stream(start: int) -> Iterator[Batch]:
        if start % config.epochs and start < updates:
            require.refuse("start", start, f"a multiple of {config.epochs} epochs")
        for update in range(start, updates, config.epochs):
            beta = config.beta if controller is None else controller.beta
            now = replace(config, beta=beta)
            found = collect(learner.policy, reward, ask, update, config=now, **told)
            batch = make_batch(learner, algorithm, *found[:2], reference, now, found[2])
            batch.metrics["beta"] = beta
            if controller is not None:
                controller.update(batch.metrics["kl"], len(batch.rollout))
            yield batch
            again = replace(batch, metrics={**batch.metrics, "answers": 0.0})
            for _ in range(min(config.epochs, updates - update) - 1):
                yield again

    return stream


def train(
    model: nn.Module,
    algorithm: Algorithm,
    reward: Reward,
    ask: TaskSampler,
    *,
    seed: int,
    updates: int,
    lr: float,
    reference: nn.Module | None = None,
    critic: nn.Module | None = None,
    config: RLConfig = DEFAULT,
    tokenizer: Tokenizer | None = None,
    controller: AdaptiveKL | None = None,
    measures: Mapping[str, Reward] | None = None,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
    sharded: bool = False,
) -> tuple[nn.Module, History]:
    """A copy of the model after so many updates; the model is the reference by default.

    `model` is any module of tokens (B, T) -> logits (B, T, A) that is causal; `ask`
    gives the tasks of an update, `tokenizer` turns their prompts into tokens, and
    `reward` judges the answers. `critic` starts the value model of an algorithm that
    has one (a fresh one on the same trunk, if it is not given). A `controller` sets beta
    anew after each set of answers. `watch(update, policy)` sees the policy before each
    update and after the last. The history holds the metrics of the loss and of
    `collect`, an update each; `measures` are rewards that are measured and not learnt.
    `sharded`: each rank keeps a piece of the policy and of the critic (FSDP2), and all
    of the reference; what is returned is in pieces, too.
    """
    if controller is not None and checkpoint is not None:
        require.refuse("checkpoint", checkpoint, "none beside a controller")
    pieces = distributed.shard if sharded else lambda some: some
    policy, value = pieces(copy.deepcopy(model)), _critic(algorithm, model, critic)
    learner = PolicyWithCritic(policy, None if value is None else pieces(value))
    stream = training_batches(
        learner,
        algorithm,
        reward,
        ask,
        seed=seed,
        updates=updates,
        reference=model if reference is None else reference,
        config=config,
        tokenizer=tokenizer,
        controller=controller,
        measures=measures,
    )

    def watched(start: int) -> Iterator[Batch]:
        for update, batch in enumerate(stream(start), start):
            if watch is not None:
                watch(update, policy)
            yield batch

    history = fit(
        learner,
        watched,
        loss_of(algorithm, config.temperature),
        lr=lr,
        progress=progress,
        checkpoint=checkpoint,
        every=config.epochs * -(-EVERY // config.epochs),
        run=(seed, lr, config),
        over=algorithm.over,
    )
    if watch is not None:
        watch(updates, policy)
    return policy, history


def _critic(
    algorithm: Algorithm, model: nn.Module, critic: nn.Module | None
) -> nn.Module | None:
    if not algorithm.critic:
        return None
    if critic is not None:
        return copy.deepcopy(critic)
    if not isinstance(model, Transformer):
        wanted = "one of states (B, T) -> values (B, T), since PPO needs it"
        require.refuse("critic", None, wanted)
    return RewardModel(model)
