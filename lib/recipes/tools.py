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

from lib import direct, evaluate, rejection, require, sft, villagers
from lib.algorithms import ALGORITHMS
from lib.losses.preference import dpo
from lib.on_policy import RLConfig, train
from lib.preference_data import PEOPLE, ranked_pairs
from lib.recipes.decontaminate import decontaminator
from lib.recipes.prompts import EXAM, from_pool, right_and_reasoned
from lib.recipes.stages import Outcome, Run, Work
from lib.reward_model import RewardModel
from lib.rewards import Reward
from lib.rollout import Rollout
from lib.train import fit, warm_cosine
from lib.worlds.task import TaskSource
from lib.worlds.village.tasks import SKILLS
from lib.worlds.village.taste import Annotators

KINDS = len(SKILLS) + 1  # of demonstrations: every skill, and talk

# --- instruction tuning ---------------------------------------------------------------


def sft_stage(*, epochs: int, lr: float, batch: int = 32, clean: bool = False) -> Run:
    """Supervised fine-tuning on people's answers to tasks of all kinds.

    With `clean`, those that are too near to a held-out task are left out of `amount`.
    """

    def run(work: Work) -> Outcome:
        each = math.ceil(work.amount / KINDS)
        shown = villagers.demonstrations(count=each, seed=work.seed)
        shown = random.Random(work.seed).sample(shown, work.amount)
        if clean:
            near = decontaminator(villagers.exam(count=EXAM))
            shown = [(task, answer) for task, answer in shown if not near(task)]
        stream = sft.shuffled(shown, epochs=epochs, batch=batch, seed=work.seed)
        outcome = _tuned(work, list(stream), lr)
        notes = {"kept": len(shown) / work.amount} if clean else {}
        return replace(outcome, notes=notes)

    return run


def _tuned(work: Work, batches: Sequence[Rollout], lr: float) -> Outcome:
    """A copy of the stage's start after these batches."""
    model = copy.deepcopy(work.start)
    history = fit(
        model,
        batches,
        sft.sft_loss,
        lr=warm_cosine(lr, len(batches), warm=min(20, len(batches))),
        progress=work.progress,
        checkpoint=work.checkpoint,
        every=10,
        run=(work.seed, work.amount),
        over="tokens",
    )
    return Outcome(model, history)


# --- reinforcement learning -----------------------------------------------------------


def rl_stage(
    asks: TaskSource,
    reward: Reward | Callable[[RewardModel], Reward],
    *,
    judged: bool = False,
    algorithm: str = "GRPO",
    updates: int | None = None,
    prompts: int = 16,
    group: int = 16,
    lr: float = 2e-3,
    beta: float = 0.0,
    max_tokens: int = evaluate.ANSWER,
) -> Run:
    """Policy gradients on a pool of `amount` tasks; the stage's start is the reference.

    As many updates as the stage says, or these `updates` whatever it says; if neither
    does, as many as ask each task once. If it is `judged`, the reward is made from the
    reward model that the stage uses.
    """

    def run(work: Work) -> Outcome:
        pool = asks(work.amount, work.seed)
        rule = reward(work.used) if judged else reward
        config = RLConfig(group=group, beta=beta, max_tokens=max_tokens)
        count = work.count_updates(updates, prompts)
        model, history = train(
            work.start,
            ALGORITHMS[algorithm],
            rule,
            from_pool(pool, prompts, work.seed),
            seed=work.seed,
            updates=count,
            lr=lr,
            config=config,
            progress=work.progress,
            checkpoint=work.checkpoint,
        )
        return Outcome(model, history, int(sum(history["answers"])))

    return run


# --- rejection sampling ---------------------------------------------------------------


def rejection_stage(
    asks: TaskSource,
    *,
    group: int = 4,
    general: float = 0.0,
    epochs: int = 2,
    lr: float = 3e-3,
    batch: int = 32,
) -> Run:
    """Right, well-reasoned answers of the model that the stage uses, imitated.

    One a task, of `amount` tasks; what nobody answered well is left out. A model that
    answers no task well is refused: there is nothing of its own to imitate. `general`
    is the share of people's answers to tasks of all kinds that is mixed in.
    """

    def run(work: Work) -> Outcome:
        asked = asks(round(work.amount * (1 - general)), work.seed)
        config = rejection.RejectionConfig(group=group)
        rollout, rewards = rejection.sample_and_score(
            work.used, right_and_reasoned, asked, seed=work.seed, config=config
        )
        best = rejection.passing(rejection.top_per_prompt(rewards), rewards)
        if not len(best):
            got = f"a model with none of {len(rollout)} answers right and well reasoned"
            require.refuse("used", got, "at least one answer to imitate")
        kept = rejection.selected(rollout, best, group=group)
        shown = [
            (asked[prompt], answer.text)
            for prompt, answer in zip(best[:, 0].tolist(), villagers.answers(kept))
        ]
        notes = {"kept": len(shown) / len(asked)}
        if general:
            count = math.ceil(work.amount * general / KINDS)
            shown += villagers.demonstrations(count=count, seed=work.seed)
        stream = sft.shuffled(shown, epochs=epochs, batch=batch, seed=work.seed)
        outcome = _tuned(work, list(stream), lr)
        return replace(outcome, answers=len(rollout), notes=notes)

    return run


# --- preferences --------------------------------------------------------------------


def dpo_stage(
    asks: TaskSource,
    *,
    beta: float,
    lr: float,
    group: int = 4,
    epochs: int = 1,
    batch: int = 32,
    annotators: Annotators = PEOPLE,
) -> Run:
    """Length-normalised DPO on preferences between answers of the model itself.

    If the stage uses another model, the answers are that one's (off-policy).
    """

    def run(work: Work) -> Outcome:
        pairs, answers = ranked_pairs(
            work.start if work.used is None else work.used,
            asks,
            count=work.amount,
            seed=work.seed,
            group=group,
            annotators=annotators,
        )
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
            every=10,
        )
        fallen = pairs.chosen_gold < pairs.rejected_gold
        return Outcome(
            model, history, answers, {"erred": fallen.double().mean().item()}
        )

    return run
