"""Chapter 8's ladder: ten algorithms, each two choices apart from the next.

An algorithm is how it credits the answers of a group with their rewards, and which loss
turns that credit into a gradient. Everything else (ask, judge, update) is the same for
all, and stands in `lib.on_policy`. To be read from top to bottom.

Shapes: P prompts, G answers to each, B = P · G rows, T tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lib.advantages import (
    group_centred,
    group_normalised,
    group_relative_success,
    leave_one_out,
)
from lib.losses import policy_gradient as losses
from lib.losses.policy_gradient import Loss
from lib.rollout import Batch


@dataclass(frozen=True)
class Algorithm:
    """One rung of the ladder."""

    paper: str
    credit: Callable[[Tensor], Tensor]  # rewards (P, G) -> (P, G)
    loss: Callable[[Tensor, Batch], Loss]  # log-probabilities (B, T), with gradient
    critic: bool = False  # credit is GAE over the values of a critic instead
    resample: bool = False  # groups whose rewards are all equal are drawn anew
    penalty_in_loss: bool = False  # beta · KL is added to the loss, not to the reward


def as_they_are(rewards: Tensor) -> Tensor:
    """No comparison at all: (P, G) -> (P, G)."""
    return rewards


def one_each(lesson: Batch) -> Tensor:
    """The credit of each answer, where all its tokens have the same: (B,)."""
    return lesson.advantages[:, 0]


def reinforce(logps: Tensor, seen: Batch) -> Loss:
    """Make what was credited more probable."""
    return losses.reinforce(logps, seen.advantages, seen.rollout.mask)


def rloo(logps: Tensor, seen: Batch) -> Loss:
    """The same, with one clip for the whole answer."""
    return losses.rloo(logps, seen.rollout.logps, one_each(seen), seen.rollout.mask)


def ppo(logps: Tensor, seen: Batch) -> Loss:
    """A clip for each token."""
    return losses.ppo_clip(
        logps, seen.rollout.logps, seen.advantages, seen.rollout.mask
    )


def grpo(logps: Tensor, seen: Batch) -> Loss:
    """Every answer weighs the same, however long; the penalty stands in the loss."""
    old, mask = seen.rollout.logps, seen.rollout.mask
    return losses.grpo(
        logps, old, seen.ref_logps, seen.advantages, mask, beta=seen.beta
    )


def dr_grpo(logps: Tensor, seen: Batch) -> Loss:
    """Every token weighs the same, in this batch and in any other."""
    old, mask = seen.rollout.logps, seen.rollout.mask
    return losses.dr_grpo(logps, old, seen.advantages, mask, length=seen.room)


def dapo(logps: Tensor, seen: Batch) -> Loss:
    """Every token of this batch weighs the same; more room upwards."""
    return losses.dapo(logps, seen.rollout.logps, seen.advantages, seen.rollout.mask)


def gspo(logps: Tensor, seen: Batch) -> Loss:
    """One ratio an answer, per token of its length."""
    return losses.gspo(logps, seen.rollout.logps, one_each(seen), seen.rollout.mask)


def cispo(logps: Tensor, seen: Batch) -> Loss:
    """The ratio is a weight, clipped; the gradient goes on."""
    return losses.cispo(logps, seen.rollout.logps, seen.advantages, seen.rollout.mask)


def sapo(logps: Tensor, seen: Batch) -> Loss:
    """A gate that closes slowly instead of a clip."""
    return losses.sapo(logps, seen.rollout.logps, seen.advantages, seen.rollout.mask)


ALGORITHMS = {
    "REINFORCE": Algorithm("Williams 1992", as_they_are, reinforce),
    "RLOO": Algorithm("Ahmadian et al. 2024", leave_one_out, rloo),
    "PPO": Algorithm("Schulman et al. 2017", as_they_are, ppo, critic=True),
    "GRPO": Algorithm("Shao et al. 2024", group_normalised, grpo, penalty_in_loss=True),
    "Dr. GRPO": Algorithm("Liu et al. 2025", group_centred, dr_grpo),
    "DAPO": Algorithm("Yu et al. 2025", group_normalised, dapo, resample=True),
    "GSPO": Algorithm("Zheng et al. 2025", group_normalised, gspo),
    "CISPO": Algorithm("MiniMax 2025", group_normalised, cispo),
    "SAPO": Algorithm("Gao et al. 2025", group_normalised, sapo),
    "MaxRL": Algorithm("Tajwar et al. 2026", group_relative_success, reinforce),
}
