"""From judged answers to a lesson: what each token is to be credited with.

The rewards of a group, less the price of having moved away from the reference, become
credit: by comparison within the group, or with what a critic expected. What is worth
knowing of the answers is written down on the way.

Shapes: P prompts, G answers to each, B = P · G rows, T tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import evaluate, require
from lib.advantages import gae
from lib.algorithms import Algorithm, Lesson
from lib.kl import k1, penalised_rewards
from lib.losses.policy_gradient import Loss, clipped_value
from lib.models.transformer import Transformer
from lib.ops import masked_mean, sequence_logps, whiten
from lib.reward_model import RewardModel
from lib.rollout import Rollout
from lib.shared import action_logps
from lib.train import LossFn

LAM = 0.95  # of GAE


@dataclass(frozen=True)
class Knobs:
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


class Learner(nn.Module):
    """A policy and, where the algorithm has one, a critic that shares no weights.

    The critic is a reward model read at every token: V of the state in which it stands.
    """

    def __init__(self, policy: Transformer, critic: RewardModel | None = None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


def silent(rewards: Tensor) -> Tensor:
    """Groups whose rewards are all equal, and so teach nothing: (P, G) -> (P,) bool."""
    return (rewards == rewards[:, :1]).all(1)


@torch.no_grad()
def lesson(
    learner: Learner,
    algorithm: Algorithm,
    rollout: Rollout,
    rewards: Tensor,
    reference: Transformer | None = None,
    knobs: Knobs = Knobs(),  # noqa: B008
) -> Lesson:
    """Credit where it is due: rewards (P, G) of answers that the policy just wrote."""
    mask, group, inside = rollout.mask, knobs.group, algorithm.penalty_in_loss
    require.tensor("rewards", rewards, (len(rollout) // group, group))
    require.every_row_true(mask)
    if knobs.beta and reference is None:
        require.refuse("reference", None, "a model to stay near to, since beta > 0")
    if algorithm.critic and learner.critic is None:
        require.refuse("learner", "no critic", "one that says what to expect")
    notes, ref = noted(rollout, rewards), None
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
        credit, values, returns = valued(learner.critic, rollout, paid)
    else:
        each = algorithm.credit(paid.sum(1).reshape(-1, group))  # (P, G)
        credit = each.reshape(-1, 1).expand(mask.shape)
    return Lesson(
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


def valued(
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


def noted(rollout: Rollout, rewards: Tensor) -> dict[str, float]:
    """Diagnostics of a set of answers, before anything is learnt from it.

    reward: their mean. silent: share of groups whose rewards are all equal. length:
    tokens. entropy: nats a token, estimated by -log π of what was drawn. finished:
    share that came to an end.
    """
    return {
        "reward": rewards.mean().item(),
        "silent": silent(rewards).double().mean().item(),
        "length": rollout.lengths.double().mean().item(),
        "entropy": -masked_mean(rollout.logps, rollout.mask).item(),
        "finished": rollout.terminated.double().mean().item(),
    }


def loss_of(algorithm: Algorithm) -> LossFn:
    """(learner, lesson) -> loss and metrics, with the critic's where there is one."""

    def loss_fn(learner: Learner, seen: Lesson) -> Loss:
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
