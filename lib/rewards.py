"""Who judges: every reward of the book is a function of what was asked and answered.

    reward(asked, rollout) -> (B,) float64, one number for each row

`asked` are the tasks, `rollout` the same number of answers to each, side by side; B is
tasks × answers. A verifier, a learned model, the gold taste, fines and sums of these:
whoever trains a policy cannot tell them apart.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lib import require
from lib.evaluate import Answer, grades, scores
from lib.kl import k1
from lib.logps import action_logps
from lib.ops import masked, sequence_logps
from lib.reward_model import score
from lib.rollout import Rollout
from lib.worlds.task import Task

Estimator = Callable[[Tensor, Tensor], Tensor]  # of a KL, see lib.kl
Reward = Callable[[Sequence[Task], Rollout], Tensor]  # tasks, (B, T) -> (B,)


def judge(reward: Reward, asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """What the reward says, (B,) float64 without gradient, or a refusal.

    One finite number for each row: a NaN or an infinity that got into a policy's
    gradient would be all that is left of its weights.
    """
    if not asked or len(rollout) % len(asked):
        require.refuse("asked", f"{len(asked)} tasks", f"a divisor of {len(rollout)}")
    found = reward(asked, rollout)
    require.tensor("reward", found, (len(rollout),))
    require.finite("reward", found)
    return found.detach().double()


# --- judges ---------------------------------------------------------------------------


def verified(asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """1 for an answer that the task's verifier accepts, else 0.

    Right and wrong by rule: nothing is learnt, nothing can be argued with. An open
    request has no verifier and is refused.
    """
    for task in asked:
        if task.skill == "talk":
            wanted = "tasks that can be verified; taste is for a reward model"
            require.refuse("asked", f"{task.request!r}", wanted)
    return scores(asked, rollout)


def gold(asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """The truth: the gold taste in talk, the verifier elsewhere.

    For measuring, and for showing what training on the truth would do. In life nobody
    has it.
    """
    return scores(asked, rollout)


def learned(model: nn.Module) -> Reward:
    """What a reward model says at the last token of each answer."""
    return lambda asked, rollout: score(model, rollout)


def drift(
    reference: nn.Module, *, estimator: Estimator = k1, temperature: float = 1.0
) -> Reward:
    """An estimate of KL(π ‖ reference) for each answer, in nats: to measure with.

    The answers are from π and carry its log-probabilities. In the mean over them every
    unbiased estimator gives the same; one answer may say anything, k1 also less than 0.
    """

    @torch.no_grad()
    def measured(asked: Sequence[Task], rollout: Rollout) -> Tensor:
        ref = action_logps(reference, rollout, temperature=temperature)  # (B, T)
        logps = masked(rollout.logps, rollout.mask)
        return sequence_logps(estimator(logps, ref), rollout.mask)

    return measured


def of_text(grade: Callable[[Task, Answer], float]) -> Reward:
    """A number for each answer that is read as text: any rule that a few lines can say.

    An example: `of_text(lambda task, answer: float("<think>" in answer.text))`.
    """
    return partial(grades, grade)


# --- fines, favours and sums ----------------------------------------------------------


def with_end(reward: Reward, *, penalty: float) -> Reward:
    """`penalty` off for an answer that was cut off before it came to its end.

    Without it a policy may talk until it is stopped: what is never finished can be
    scored by a model that saw mostly finished answers (the missing-EOS penalty of TRL).
    """
    require.non_negative("penalty", penalty)

    def fined(asked: Sequence[Task], rollout: Rollout) -> Tensor:
        cut_off = (~rollout.terminated).double()
        return judge(reward, asked, rollout) - penalty * cut_off

    return fined


def with_overlong(reward: Reward, *, length: int, buffer: int) -> Reward:
    """A soft fine for the overlong (Yu et al. 2025, Eq. 13): 0 … 1 is taken off.

    Nothing for answers of up to length - buffer tokens, then in proportion to what goes
    beyond that, and the whole of 1 from `length` on. An answer that is cut off is then
    not suddenly bad: the fine has announced itself.
    """
    require.count("buffer", buffer)
    require.count("length", length, least=buffer)

    def fined(asked: Sequence[Task], rollout: Rollout) -> Tensor:
        beyond = rollout.lengths.double() - (length - buffer)
        return judge(reward, asked, rollout) - (beyond / buffer).clamp(0, 1)

    return fined


def total(rewards: Sequence[Reward], *, weights: Sequence[float]) -> Reward:
    """Several judges: Σ weight · reward."""
    if not rewards or len(rewards) != len(weights):
        got = f"{len(weights)} for {len(rewards)} rewards"
        require.refuse("weights", got, "one for each reward, at least one")
    for weight in weights:
        require.number("weights", weight)

    def summed(asked: Sequence[Task], rollout: Rollout) -> Tensor:
        said = [judge(reward, asked, rollout) for reward in rewards]
        return sum(w * r for w, r in zip(weights, said))

    return summed
