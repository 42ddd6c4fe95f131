"""Chapter 8's ladder: ten algorithms, each two choices apart from the next.

An algorithm is how it credits the answers of a group with their rewards, and which loss
of `lib.losses.policy_gradient` turns that credit into a gradient. Everything else (ask,
judge, update) is the same for all, and stands in `lib.on_policy`.

Shapes: P prompts, G answers to each, B = P · G rows, T tokens.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from lib.advantages import (
    group_centred,
    group_normalised,
    group_relative_success,
    leave_one_out,
)
from lib.losses.policy_gradient import (
    Loss,
    cispo,
    dapo,
    dr_grpo,
    grpo,
    gspo,
    ppo_clip,
    reinforce,
    rloo,
    sapo,
)
from lib.rollout import Batch


@dataclass(frozen=True)
class Algorithm:
    """One rung of the ladder."""

    paper: str
    credit: Callable[[Tensor], Tensor]  # rewards (P, G) -> (P, G)
    loss: Callable[..., Loss]  # of lib.losses.policy_gradient, or like one
    critic: bool = False  # credit is GAE over the values of a critic instead
    resample: bool = False  # groups whose rewards are all equal are drawn anew
    penalty_in_loss: bool = False  # beta · KL is added to the loss, not to the reward
    per_answer: bool = False  # the loss takes one advantage an answer, (B,)
    over: str = "rows"  # what the loss is a mean over: "rows" or "tokens"
    takes: frozenset[str] = field(init=False, repr=False, compare=False)  # by the loss

    def __post_init__(self) -> None:
        names = frozenset(inspect.signature(self.loss).parameters)
        object.__setattr__(self, "takes", names)  # read once; the record is frozen

    def policy_loss(self, logps: Tensor, batch: Batch) -> Loss:
        """The loss of a batch, log-probabilities (B, T) in: it gets what it names."""
        credit = batch.advantages[:, 0] if self.per_answer else batch.advantages
        given = {
            "logps": logps,
            "old_logps": batch.rollout.logps,
            "ref_logps": batch.ref_logps,
            "advantages": credit,
            "mask": batch.rollout.mask,
            "beta": batch.beta,
            "length": batch.length,
        }
        return self.loss(**{name: x for name, x in given.items() if name in self.takes})


def as_they_are(rewards: Tensor) -> Tensor:
    """No comparison at all: (P, G) -> (P, G)."""
    return rewards


ALGORITHMS = {
    "REINFORCE": Algorithm("Williams 1992", as_they_are, reinforce),
    "RLOO": Algorithm("Ahmadian et al. 2024", leave_one_out, rloo, per_answer=True),
    "PPO": Algorithm(
        "Schulman et al. 2017", as_they_are, ppo_clip, critic=True, over="tokens"
    ),
    "GRPO": Algorithm("Shao et al. 2024", group_normalised, grpo, penalty_in_loss=True),
    "Dr. GRPO": Algorithm("Liu et al. 2025", group_centred, dr_grpo),
    "DAPO": Algorithm(
        "Yu et al. 2025", group_normalised, dapo, resample=True, over="tokens"
    ),
    "GSPO": Algorithm("Zheng et al. 2025", group_normalised, gspo, per_answer=True),
    "CISPO": Algorithm("MiniMax 2025", group_normalised, cispo, over="tokens"),
    "SAPO": Algorithm("Gao et al. 2025", group_normalised, sapo),
    "MaxRL": Algorithm("Tajwar et al. 2026", group_relative_success, reinforce),
}
