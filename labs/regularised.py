"""Reinforcement learning on a language model, on a leash: reward - beta · KL.

Ask for several answers, score each, take off beta times how far the policy has moved
for it, compare with the other answers to the same request (RLOO; Ahmadian et al. 2024),
and hand the credit to the loss that trained CartPole. What gold thinks of the answers
is written down beside it, and no gradient ever sees that.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labs.agents import Experience, policy_loss
from lib import evaluate, require
from lib.advantages import leave_one_out
from lib.kl import AdaptiveKL, k1, k3, penalised_rewards
from lib.losses.policy_gradient import Loss, reinforce
from lib.ops import masked, sequence_logps, token_logps
from lib.rewards import Reward, judge
from lib.rollout import Rollout
from lib.train import fit
from lib.worlds import taste
from lib.worlds.tasks import Task

Estimator = Callable[[Tensor, Tensor], Tensor]  # of KL(π ‖ ref), see lib.kl


@dataclass(frozen=True)
class Note:
    """Means over the answers of one update, before it."""

    proxy: float  # the reward that is maximised, without the penalty
    gold: float  # what the answers are worth: measured, not learnt from
    k1: float  # nats an answer: two estimates of KL(π ‖ ref),
    k3: float  # the second of which is never negative
    length: float  # tokens
    beta: float


@torch.no_grad()
def ref_logps(reference: nn.Module, rollout: Rollout) -> Tensor:
    """Log-probabilities of a rollout's actions under another model: (B, T)."""
    return token_logps(reference(rollout.states), rollout.actions)


def sequence_kl(rollout: Rollout, ref: Tensor, *, estimator: Estimator = k1) -> Tensor:
    """An estimate of KL(π ‖ ref) for each answer, summed over its tokens: (B,) nats.

    The answers are from π and carry its log-probabilities. In the mean over them every
    unbiased estimator gives the same; one answer may say anything, k1 also less than 0.
    """
    logps, ref = (masked(x, rollout.mask) for x in (rollout.logps, ref))
    return sequence_logps(estimator(logps, ref), rollout.mask)


def rloo(
    policy: nn.Module,
    reference: nn.Module,
    reward: Reward,
    *,
    seed: int,
    beta: float | AdaptiveKL = 0.0,
    updates: int = 60,
    requests: int = 16,
    group: int = 4,
    notes: list[Note] | None = None,
) -> Iterator[Experience]:
    """Ask, score, penalise, compare: batches for `fit(policy, …, policy_loss)`.

    Each answer earns reward - beta · k1, all tokens of it the same: credit is that less
    the mean of the other `group - 1` answers to its request, so equal earnings teach
    nothing. `beta` is a number, or a controller that looks at the KL after each update.
    A reward that is not finite is refused before it reaches a weight.
    """
    adaptive = isinstance(beta, AdaptiveKL)
    if not adaptive:
        require.non_negative("beta", beta)
    require.count("updates", updates)
    require.count("requests", requests)
    require.count("group", group, least=2)
    draw = torch.Generator().manual_seed(seed)
    for update in range(updates):
        asked = taste.requests(count=requests, seed=10_000 * (seed + 1) + update)
        rollout = evaluate.ask(policy, asked, generator=draw, group=group)
        scores = judge(reward, asked, rollout)  # (B,)
        ref = ref_logps(reference, rollout)
        now = beta.beta if adaptive else beta
        paid = penalised_rewards(scores, rollout.logps, ref, rollout.mask, beta=now)
        note = _note(asked, rollout, scores, ref, now)
        if notes is not None:
            notes.append(note)
        if adaptive:
            beta.update(note.k1, len(rollout))
        credit = leave_one_out(paid.sum(1).reshape(requests, group)).reshape(-1, 1)
        credit = credit.expand(rollout.mask.shape)  # (B, T)
        yield Experience(rollout, credit, torch.zeros_like(credit), credit)


def kl_in_loss(
    reference: nn.Module, *, beta: float, estimator: Estimator
) -> Callable[[nn.Module, Experience], Loss]:
    """`policy_loss` + beta · KL, the penalty in the *loss* instead of in the reward.

    Use it with `rloo(…, beta=0)`. Its mean gradient is that of KL(π ‖ ref) for k2, that
    of KL(ref ‖ π) for k3, and 0 for k1, which only adds noise.
    """
    require.non_negative("beta", beta)

    def loss_fn(model: nn.Module, seen: Experience) -> Loss:
        rollout = seen.rollout
        logps = token_logps(model(rollout.states), rollout.actions)
        loss, metrics = reinforce(logps, seen.advantages, rollout.mask)
        ref = masked(ref_logps(reference, rollout), rollout.mask)
        each = estimator(masked(logps, rollout.mask), ref)  # (B, T)
        kl = sequence_logps(each, rollout.mask).mean()
        return loss + beta * kl, {**metrics, "kl": kl.item()}

    return loss_fn


def optimise(
    model: nn.Module,
    reward: Reward,
    *,
    seed: int,
    beta: float | AdaptiveKL = 0.0,
    updates: int = 60,
    requests: int = 16,
    group: int = 4,
    lr: float = 1e-3,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
) -> tuple[nn.Module, list[Note]]:
    """A copy of `model` after RLOO on the reward, with `model` as the reference.

    `watch(update, policy)` is called before each update, and once after the last.
    """
    policy, notes = copy.deepcopy(model), []
    stream = rloo(
        policy,
        model,
        reward,
        seed=seed,
        beta=beta,
        updates=updates,
        requests=requests,
        group=group,
        notes=notes,
    )

    def watched() -> Iterator[Experience]:
        for update, seen in enumerate(stream):
            if watch is not None:
                watch(update, policy)
            yield seen

    fit(policy, watched(), policy_loss, lr=lr, progress=progress)
    if watch is not None:
        watch(updates, policy)
    return policy, notes


def _note(
    asked: Sequence[Task], rollout: Rollout, scores: Tensor, ref: Tensor, beta: float
) -> Note:
    return Note(
        proxy=scores.mean().item(),
        gold=evaluate.scores(asked, rollout).mean().item(),
        k1=sequence_kl(rollout, ref).mean().item(),
        k3=sequence_kl(rollout, ref, estimator=k3).mean().item(),
        length=rollout.lengths.double().mean().item(),
        beta=beta,
    )
