"""Rejection sampling: answer many times, keep what the reward likes best, imitate it.

A selection turns rewards (P, G), of G completions to each of P prompts, into the pairs
(prompt, completion) that are kept: an int64 Tensor (N, 2). Each has a control that keeps
as many at random: what the control gains as well is not the reward model's doing.

A round asks every prompt several times, selects, and imitates what was kept as if
somebody had written it. Nobody is ever told what was bad: what is not kept is not
mentioned. Row p · G + g of a rollout is answer g to prompt p; N are kept, T tokens.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib import evaluate, require
from lib.rewards import Reward, judge
from lib.rollout import Rollout, concat, rollout_metrics
from lib.seeds import seed_of
from lib.sft import sft_loss
from lib.train import History, fit, minibatches, warm_cosine
from lib.worlds.task import Task, TaskSampler


def top_per_prompt(rewards: Tensor) -> Tensor:
    """The best completion of every prompt, (P, 2), prompts in order.

    Of equals the first. Every prompt stays in the data, however badly it was answered.
    """
    _matrix(rewards)
    return _pairs(torch.arange(len(rewards), device="cpu"), rewards.argmax(1).cpu())


def top_k_overall(rewards: Tensor, k: int) -> Tensor:
    """The k best completions of all, (k, 2), best first; ties in index order.

    An easy prompt may take many places and a hard one none.
    """
    _matrix(rewards)
    _at_most(k, rewards)
    order = rewards.flatten().sort(descending=True, stable=True).indices[:k].cpu()
    return _pairs(order // rewards.shape[1], order % rewards.shape[1])


def random_per_prompt(rewards: Tensor, *, generator: torch.Generator) -> Tensor:
    """The control of `top_per_prompt`: any completion of every prompt, (P, 2)."""
    _matrix(rewards)
    prompts, group = rewards.shape
    picked = torch.randint(group, (prompts,), generator=generator, device="cpu")
    return _pairs(torch.arange(prompts, device="cpu"), picked)


def random_k_overall(rewards: Tensor, k: int, *, generator: torch.Generator) -> Tensor:
    """The control of `top_k_overall`: any k completions, each at most once, (k, 2)."""
    _matrix(rewards)
    _at_most(k, rewards)
    order = torch.randperm(rewards.numel(), generator=generator, device="cpu")[:k]
    return _pairs(order // rewards.shape[1], order % rewards.shape[1])


def _pairs(prompts: Tensor, completions: Tensor) -> Tensor:
    return torch.stack((prompts, completions), 1)


def _matrix(rewards: Tensor) -> None:
    require.tensor("rewards", rewards)
    if rewards.ndim != 2 or rewards.numel() == 0:
        got = f"shape {tuple(rewards.shape)}"
        require.refuse("rewards", got, "shape (P, G), not empty")
    require.finite("rewards", rewards)


def _at_most(k: int, rewards: Tensor) -> None:
    require.count("k", k)
    if k > rewards.numel():
        require.refuse("k", k, f"at most {rewards.numel()}, all completions there are")


Select = Callable[[Tensor], Tensor]  # rewards (P, G) -> pairs (N, 2), as lib.rejection
ROWS = 1024  # answers that are written at a time


@dataclass(frozen=True)
class RejectionConfig:
    """What a round is made of."""

    group: int = 8  # answers to each prompt
    temperature: float = 1.0  # at which they are sampled
    max_tokens: int = evaluate.ANSWER
    epochs: int = 2  # over what is kept
    batch: int = 32
    lr: float = 1e-3  # at its peak

    def __post_init__(self) -> None:
        for name in ("group", "max_tokens", "epochs", "batch"):
            require.count(name, getattr(self, name))
        require.positive("temperature", self.temperature)
        require.positive("lr", self.lr)


# --- the steps of a round -------------------------------------------------------------


def sample_and_score(
    policy: nn.Module,
    reward: Reward,
    asked: Sequence[Task],
    *,
    seed: int,
    config: RejectionConfig = RejectionConfig(),  # noqa: B008
) -> tuple[Rollout, Tensor]:
    """`config.group` answers to every task, P · G rows, and their rewards (P, G)."""
    require.count("seed", seed, least=0)
    if not asked:
        require.refuse("asked", "none", "at least one task")
    draw, rollouts = torch.Generator().manual_seed(seed), []
    at_once = max(1, ROWS // config.group)  # prompts
    for first in range(0, len(asked), at_once):
        rollout = evaluate.ask(
            policy,
            asked[first : first + at_once],
            generator=draw,
            group=config.group,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
        )
        rollouts.append(rollout)
    rollout = concat(*rollouts)
    return rollout, judge(reward, asked, rollout).reshape(-1, config.group)


def passing(pairs: Tensor, rewards: Tensor, *, above: float = 0.0) -> Tensor:
    """Of the selected pairs (N, 2), those whose reward (P, G) exceeds `above`.

    The best answer to a prompt that nobody could answer is a wrong answer.
    """
    require.number("above", above)
    _inside(pairs, rewards.shape)
    return pairs[(rewards[pairs[:, 0], pairs[:, 1]] > above).cpu()]


def every_passing(rewards: Tensor, *, above: float = 0.0) -> Tensor:
    """All pairs whose reward (P, G) exceeds `above`, prompt by prompt: (N, 2).

    With a verifier: all right answers, as in STaR (Zelikman et al. 2022) and ReST-EM
    (Singh et al. 2024). An easy prompt has more of them than a hard one.
    """
    require.tensor("rewards", rewards)
    return passing(torch.ones_like(rewards).nonzero().cpu(), rewards, above=above)


def selected(rollout: Rollout, pairs: Tensor, *, group: int) -> Rollout:
    """The rows of these (prompt, completion) pairs, at least one: (N, T)."""
    require.count("group", group)
    if len(rollout) % group:
        require.refuse("group", group, f"a divisor of {len(rollout)} rows")
    _inside(pairs, (len(rollout) // group, group))
    if len(pairs) == 0:
        require.refuse("pairs", "none", "at least one answer to learn from")
    return rollout.rows(pairs[:, 0] * group + pairs[:, 1])


def finetune_on(
    model: nn.Module,
    shown: Rollout,
    *,
    seed: int,
    config: RejectionConfig = RejectionConfig(),  # noqa: B008
    progress: str | None = None,
    checkpoint: str | Path | None = None,
) -> tuple[nn.Module, History]:
    """A copy of the model that has learnt to say what was shown: `sft_loss`, no more.

    `config.epochs` times through, in an order from the seed; the learning rate climbs
    over the first fifth (20 updates at most) and falls to a tenth of `config.lr`. With a
    checkpoint, a call that was interrupted goes on bit for bit.
    """
    require.count("seed", seed, least=0)
    updates = config.epochs * math.ceil(len(shown) / config.batch)

    def batches(start: int) -> Iterator[Rollout]:
        order = minibatches(
            len(shown),
            epochs=config.epochs,
            batch=config.batch,
            generator=torch.Generator().manual_seed(seed),
        )
        return (shown.rows(some) for some in itertools.islice(order, start, None))

    pupil = copy.deepcopy(model)
    history = fit(
        pupil,
        batches,
        sft_loss,
        lr=warm_cosine(config.lr, updates, warm=min(20, math.ceil(updates / 5))),
        progress=progress,
        checkpoint=checkpoint,
        run=(seed, config, len(shown)),
        over="tokens",
    )
    return pupil, history


# --- rounds ---------------------------------------------------------------------------


def rejection_round(
    policy: nn.Module,
    reward: Reward,
    asked: Sequence[Task],
    select: Select,
    *,
    seed: int,
    config: RejectionConfig = RejectionConfig(),  # noqa: B008
    pupil: nn.Module | None = None,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    """Harvest from the policy, select, imitate; the policy after it, and notes.

    `pupil` is who learns: the policy itself, if it is None. The notes are those of
    `rollout_metrics` on all answers, and of what was kept its number, its mean reward
    and the share of prompts that it covers.
    """
    rollout, rewards = sample_and_score(policy, reward, asked, seed=seed, config=config)
    pairs = select(rewards)
    if len(pairs) == 0:
        got = f"none of {rewards.numel()} answers, rewards {_span(rewards)}"
        wanted = "at least one to learn from: easier tasks, or more answers to each"
        require.refuse("select", got, wanted)
    learnt, _ = finetune_on(
        policy if pupil is None else pupil,
        selected(rollout, pairs, group=config.group),
        seed=seed,
        config=config,
        progress=progress,
        checkpoint=checkpoint,
    )
    kept = {
        "kept": float(len(pairs)),
        "kept_reward": rewards[pairs[:, 0], pairs[:, 1]].mean().item(),
        "covered": len(pairs[:, 0].unique()) / len(rewards),
    }
    return learnt, {**rollout_metrics(rollout, rewards), **kept}


def rejection_rounds(
    model: nn.Module,
    reward: Reward,
    ask: TaskSampler,
    select: Select,
    *,
    seed: int,
    count: int,
    config: RejectionConfig = RejectionConfig(),  # noqa: B008
    afresh: bool = False,
    watch: Callable[[int, nn.Module], None] | None = None,
) -> tuple[nn.Module, History]:
    """`count` rounds, each harvested from the policy that the last one made.

    With `afresh` every round teaches the first model anew (STaR, ReST-EM); without, the
    policy goes on learning (RAFT; Dong et al. 2023). `watch(round, policy)` sees the
    policy before each round and after the last. The history holds the notes of
    `rejection_round`, a round each. All luck comes from the seed and the round's number.
    """
    require.count("count", count)
    require.count("seed", seed, least=0)
    policy, history = model, {}
    for number in range(count):
        if watch is not None:
            watch(number, policy)
        policy, notes = rejection_round(
            policy,
            reward,
            ask(number),
            select,
            seed=seed_of("round", seed, number),
            config=config,
            pupil=model if afresh else None,
        )
        for name, value in notes.items():
            history.setdefault(name, []).append(value)
    if watch is not None:
        watch(count, policy)
    return policy, history


# --- what is refused ------------------------------------------------------------------


def _inside(pairs: Tensor, shape: Sequence[int]) -> None:
    """Pairs (N, 2) of whole numbers, each the place of an answer in `shape` (P, G)."""
    require.tensor("pairs", pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        got = f"{pairs.dtype}, shape {tuple(pairs.shape)}"
        require.refuse("pairs", got, "int64, shape (N, 2)")
    wrong = (pairs < 0) | (pairs >= torch.tensor(shape, device=pairs.device))
    if wrong.any():
        got = f"{tuple(pairs[wrong.any(1)][0].tolist())}"
        require.refuse("pairs", got, f"places in {tuple(shape)}, (prompt, completion)")


def _span(rewards: Tensor) -> str:
    return f"{rewards.min().item():.3g} to {rewards.max().item():.3g}"
