"""The toolkit as stages: each function here returns what a Stage runs.

Everything they do is explained in the chapters on the tools and done by the functions
shown there; here it is only wired up: where the data comes from, who judges, what is
left unfinished when the lights go out.
"""

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lib import base, direct, evaluate, instruct, rejection, rounds
from lib.algorithms import ALGORITHMS
from lib.comparisons import compare
from lib.lessons import Knobs
from lib.losses.preference import dpo
from lib.on_policy import train
from lib.recipes.prompts import Asks, from_pool, right_and_reasoned
from lib.recipes.stages import Outcome, Run, Work
from lib.reward_model import RewardModel
from lib.rewards import Reward
from lib.rollout import Rollout
from lib.train import fit
from lib.worlds.tasks import SKILLS

KINDS = len(SKILLS) + 1  # of demonstrations: every skill, and talk

# --- instruction tuning ---------------------------------------------------------------


def demonstrated(*, epochs: int, lr: float, batch: int = 32) -> Run:
    """Supervised fine-tuning on people's answers to tasks of all kinds."""

    def run(work: Work) -> Outcome:
        each = math.ceil(work.amount / KINDS)
        shown = instruct.demonstrations(count=each, seed=work.seed)
        shown = random.Random(work.seed).sample(shown, work.amount)
        stream = instruct.shuffled(shown, epochs=epochs, batch=batch, seed=work.seed)
        return _tuned(work, list(stream), lr)

    return run


def _tuned(work: Work, batches: Sequence[Rollout], lr: float) -> Outcome:
    """A copy of the stage's start after these batches."""
    model = copy.deepcopy(work.start)
    history = fit(
        model,
        batches,
        instruct.sft_loss,
        lr=base.warm_cosine(lr, len(batches), warm=min(20, len(batches))),
        progress=work.progress,
        checkpoint=work.checkpoint,
        every=10,
    )
    return Outcome(model, history)


# --- direct alignment -----------------------------------------------------------------


def preferred(*, beta: float, lr: float, epochs: int = 1, batch: int = 32) -> Run:
    """Length-normalised DPO on preferences between answers of the model itself."""

    def run(work: Work) -> Outcome:
        pairs = compare(work.start, count=work.amount, seed=work.seed)
        model, history = direct.align(
            work.start,
            pairs,
            partial(dpo, beta=beta),
            epochs=epochs,
            lr=lr,
            batch=batch,
            seed=work.seed,
            per_token=True,
            progress=work.progress,
            checkpoint=work.checkpoint,
        )
        return Outcome(model, history, 2 * work.amount)

    return run


# --- reinforcement learning -----------------------------------------------------------


def practised(
    asks: Asks,
    reward: Reward | Callable[[RewardModel], Reward],
    *,
    algorithm: str = "GRPO",
    updates: int | None = None,
    prompts: int = 16,
    group: int = 16,
    lr: float = 2e-3,
    beta: float = 0.0,
    max_tokens: int = evaluate.ANSWER,
    needs: str | None = None,
) -> Run:
    """Policy gradients on a pool of `amount` tasks; the stage's start is the reference.

    Without `updates`, as many as ask each task once. With `needs`, the reward is made
    from the reward model of that stage.
    """

    def run(work: Work) -> Outcome:
        pool = asks(work.amount, work.seed)
        judged = reward if needs is None else reward(work.models[needs])
        knobs = Knobs(group=group, beta=beta, max_tokens=max_tokens)
        count = max(1, work.amount // prompts) if updates is None else updates
        model, history = train(
            work.start,
            ALGORITHMS[algorithm],
            judged,
            from_pool(pool, prompts, work.seed),
            seed=work.seed,
            updates=count,
            lr=lr,
            knobs=knobs,
            progress=work.progress,
            checkpoint=work.checkpoint,
        )
        return Outcome(model, history, count * prompts * group)

    return run


# --- rejection sampling ---------------------------------------------------------------


def harvested(
    asks: Asks,
    *,
    source: str,
    group: int = 4,
    general: float = 0.0,
    epochs: int = 2,
    lr: float = 3e-3,
    batch: int = 32,
) -> Run:
    """Right, well-reasoned answers of `source`'s model, imitated by the stage's start.

    One a task, of `amount` tasks; what nobody answered well is left out. `general` is
    the share of people's answers to tasks of all kinds that is mixed in.
    """

    def run(work: Work) -> Outcome:
        asked = asks(round(work.amount * (1 - general)), work.seed)
        plan = rounds.Plan(group=group)
        rollout, rewards = rounds.harvest(
            work.models[source], right_and_reasoned, asked, seed=work.seed, plan=plan
        )
        best = rounds.passing(rejection.top_per_prompt(rewards), rewards)
        kept = rounds.selected(rollout, best, group=group)
        shown = [
            (asked[prompt], answer.text)
            for prompt, answer in zip(best[:, 0].tolist(), evaluate.answers(kept))
        ]
        notes = {"kept": len(shown) / len(asked)}
        if general:
            count = math.ceil(work.amount * general / KINDS)
            shown += instruct.demonstrations(count=count, seed=work.seed)
        stream = instruct.shuffled(shown, epochs=epochs, batch=batch, seed=work.seed)
        outcome = _tuned(work, list(stream), lr)
        return replace(outcome, answers=len(rollout), notes=notes)

    return run
