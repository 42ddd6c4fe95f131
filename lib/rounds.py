"""Rejection sampling as training: ask, judge, select, imitate, and begin again.

A round asks every prompt several times, keeps the answers that a selection picks by
their rewards, and imitates these as if somebody had written them. Nobody is ever told
what was bad: what is not kept is not mentioned. `round_of` is one such round, `rounds`
several; every step is a function of its own, for a recipe may want only some of them.

Shapes: P prompts, G answers to each, N kept, T tokens. Row p · G + g of a rollout is
answer g to prompt p.
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
from lib.base import warm_cosine
from lib.comparisons import together
from lib.instruct import sft_loss
from lib.lessons import noted
from lib.models.transformer import Transformer
from lib.rewards import Reward, judge
from lib.rollout import Rollout
from lib.train import History, fit, minibatches
from lib.worlds.tasks import Task

Select = Callable[[Tensor], Tensor]  # rewards (P, G) -> pairs (N, 2), as lib.rejection
Ask = Callable[[int], Sequence[Task]]  # number of the round -> P tasks
ROWS = 1024  # answers that are written at a time


@dataclass(frozen=True)
class Plan:
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


def harvest(
    policy: nn.Module,
    reward: Reward,
    asked: Sequence[Task],
    *,
    seed: int,
    plan: Plan = Plan(),  # noqa: B008
) -> tuple[Rollout, Tensor]:
    """`plan.group` answers to every task, P · G rows, and their rewards (P, G)."""
    require.count("seed", seed, least=0)
    if not asked:
        require.refuse("asked", "none", "at least one task")
    draw, rollouts = torch.Generator().manual_seed(seed), []
    at_once = max(1, ROWS // plan.group)  # prompts
    for first in range(0, len(asked), at_once):
        rollout = evaluate.ask(
            policy,
            asked[first : first + at_once],
            generator=draw,
            group=plan.group,
            temperature=plan.temperature,
            max_tokens=plan.max_tokens,
        )
        rollouts.append(rollout)
    rollout = together(*rollouts)
    return rollout, judge(reward, asked, rollout).reshape(-1, plan.group)


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


def imitate(
    model: Transformer,
    shown: Rollout,
    *,
    seed: int,
    plan: Plan = Plan(),  # noqa: B008
    progress: str | None = None,
    checkpoint: str | Path | None = None,
) -> tuple[Transformer, History]:
    """A copy of the model that has learnt to say what was shown: `sft_loss`, no more.

    `plan.epochs` times through, in an order from the seed; the learning rate climbs
    over the first fifth (20 updates at most) and falls to a tenth of `plan.lr`. With a
    checkpoint, a call that was interrupted goes on bit for bit.
    """
    require.count("seed", seed, least=0)
    updates = plan.epochs * math.ceil(len(shown) / plan.batch)

    def batches(start: int) -> Iterator[Rollout]:
        order = minibatches(
            len(shown),
            epochs=plan.epochs,
            batch=plan.batch,
            generator=torch.Generator().manual_seed(seed),
        )
        return (shown.rows(some) for some in itertools.islice(order, start, None))

    pupil = copy.deepcopy(model)
    history = fit(
        pupil,
        batches,
        sft_loss,
        lr=warm_cosine(plan.lr, updates, warm=min(20, math.ceil(updates / 5))),
        progress=progress,
        checkpoint=checkpoint,
        run=(seed, plan, len(shown)),
    )
    return pupil, history


# --- rounds ---------------------------------------------------------------------------


def round_of(
    policy: Transformer,
    reward: Reward,
    asked: Sequence[Task],
    select: Select,
    *,
    seed: int,
    plan: Plan = Plan(),  # noqa: B008
    pupil: Transformer | None = None,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
) -> tuple[Transformer, dict[str, float]]:
    """Harvest from the policy, select, imitate; the policy after it, and notes.

    `pupil` is who learns: the policy itself, if it is None. The notes are those of
    `lessons.noted` on all answers, and of what was kept its number, its mean reward and
    the share of prompts that it covers.
    """
    rollout, rewards = harvest(policy, reward, asked, seed=seed, plan=plan)
    pairs = select(rewards)
    if len(pairs) == 0:
        got = f"none of {rewards.numel()} answers, rewards {_span(rewards)}"
        wanted = "at least one to learn from: easier tasks, or more answers to each"
        require.refuse("select", got, wanted)
    learnt, _ = imitate(
        policy if pupil is None else pupil,
        selected(rollout, pairs, group=plan.group),
        seed=seed,
        plan=plan,
        progress=progress,
        checkpoint=checkpoint,
    )
    kept = {
        "kept": float(len(pairs)),
        "kept_reward": rewards[pairs[:, 0], pairs[:, 1]].mean().item(),
        "covered": len(pairs[:, 0].unique()) / len(rewards),
    }
    return learnt, {**noted(rollout, rewards), **kept}


def rounds(
    model: Transformer,
    reward: Reward,
    ask: Ask,
    select: Select,
    *,
    seed: int,
    count: int,
    plan: Plan = Plan(),  # noqa: B008
    afresh: bool = False,
    watch: Callable[[int, Transformer], None] | None = None,
) -> tuple[Transformer, History]:
    """`count` rounds, each harvested from the policy that the last one made.

    With `afresh` every round teaches the first model anew (STaR, ReST-EM); without, the
    policy goes on learning (RAFT; Dong et al. 2023). `watch(round, policy)` sees the
    policy before each round and after the last. The history holds the notes of
    `round_of`, a round each. All luck comes from the seed and the round's number.
    """
    require.count("count", count)
    require.count("seed", seed, least=0)
    policy, history = model, {}
    for number in range(count):
        if watch is not None:
            watch(number, policy)
        policy, notes = round_of(
            policy,
            reward,
            ask(number),
            select,
            seed=1_000_003 * (seed + 1) + number,
            plan=plan,
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
    wrong = (pairs < 0) | (pairs >= torch.tensor(shape))
    if wrong.any():
        got = f"{tuple(pairs[wrong.any(1)][0].tolist())}"
        require.refuse("pairs", got, f"places in {tuple(shape)}, (prompt, completion)")


def _span(rewards: Tensor) -> str:
    return f"{rewards.min().item():.3g} to {rewards.max().item():.3g}"
