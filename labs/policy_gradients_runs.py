"""Chapter 8's ten algorithms, and what turning their knobs does.

Every run starts from the instruction-tuned model and learns to reverse words from a
verifier's reward: more than an hour on one core.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from labs.record import Record, call
from lib import evaluate, villagers
from lib.algorithms import ALGORITHMS
from lib.models.transformer import Transformer
from lib.on_policy import RLConfig, train
from lib.rewards import total, verified
from lib.villagers import instructed_model, task_stream
from lib.worlds.village.tasks import Task, tasks

SEEDS, MORE_SEEDS = range(3), range(5)
LONGER = ("GRPO", "RLOO")  # on more seeds: the book promises something of these two
UPDATES, FEWER, LR = 200, 100, 2e-3  # fewer where a knob is turned
ANSWERS, GROUP, ROOM = 256, 16, 10  # answers of an update, of a group; tokens of one
LOOK = 25  # updates between two exams
TEST = tasks("reverse", count=200, seed=77, split="test")
TRIES = (1, 2, 4, 8, 16, 32, 64)  # k of pass@k
RATES = (4e-3,)  # besides LR
BETAS = (0.1,)  # besides 0
EPOCHS = 4  # besides 1
AGAIN = ("REINFORCE", "GRPO", "GSPO")  # with several epochs
SCALE = ROOM * GROUP / (GROUP - 1)  # RLOO's gradient over Dr. GRPO's, on-policy
BLOCK = 10  # updates of which the diagnostics are a mean


def held_out(policy: Transformer) -> float:
    """Share of the unseen words that are reversed, one sampled answer each."""
    draw = torch.Generator().manual_seed(1)
    rollout = evaluate.ask(policy, TEST, generator=draw, max_tokens=ROOM)
    return evaluate.scores(TEST, rollout).mean().item()


def passes(policy: Transformer) -> list[float]:
    """pass@k on the unseen words, for k of TRIES, from as many answers as the last."""
    draw, n = torch.Generator().manual_seed(2), TRIES[-1]
    rollout = evaluate.ask(policy, TEST, generator=draw, group=n, max_tokens=ROOM)
    right = evaluate.scores(TEST, rollout).reshape(-1, n).sum(1).long()  # (tasks,)
    found = evaluate.pass_at_k(n, right.unsqueeze(1), torch.tensor(TRIES))
    return found.mean(0).tolist()


def start(seed: int) -> dict[str, Any]:
    """The model that all of them start from."""
    model = instructed_model()
    skills = villagers.skills(model, count=40)
    return {"held": held_out(model), "pass": passes(model), "skills": skills}


def trained(
    seed: int,
    *,
    name: str,
    model: Transformer | None = None,
    updates: int = UPDATES,
    lr: float = LR,
    scale: float = 1.0,
    resample: bool = False,
    **knobs: Any,
) -> dict[str, Any]:
    """One training, rewards times `scale`: marks on the way, diagnostics, skills."""
    algorithm = ALGORITHMS[name]
    algorithm = replace(algorithm, resample=resample or algorithm.resample)
    began, knobs = time.process_time(), {"group": GROUP, **knobs}
    looks, asked = [], []
    questions = task_stream("reverse", count=ANSWERS // knobs["group"], seed=seed)

    def ask(update: int) -> Sequence[Task]:
        asked.append(update)
        return questions(update)

    def watch(update: int, policy: Transformer) -> None:
        if update % LOOK == 0:
            looks.append(held_out(policy))

    policy, history = train(
        model or instructed_model(),
        algorithm,
        total([verified], weights=[scale]),
        ask,
        seed=seed,
        updates=updates,
        lr=lr,
        config=RLConfig(max_tokens=ROOM, **knobs),
        watch=watch,
    )
    spent = time.process_time() - began
    curves = {
        what: torch.tensor(values).reshape(-1, BLOCK).mean(1)
        for what, values in history.items()
    }
    made = {"algorithm": name, "lr": lr, "scale": scale, **knobs}
    found = {"held": looks, "sets": len(asked), "seconds": spent}
    skills = villagers.skills(policy, count=40)
    return {**made, **found, "skills": skills, "pass": passes(policy), "curves": curves}


def with_knobs(name: str, **knobs: Any) -> Callable[[int], dict[str, Any]]:
    """A training of half as many updates, for `run`."""
    return partial(trained, name=name, updates=FEWER, **knobs)


ONCE = {"start": start}
LADDER = {name: partial(trained, name=name) for name in ALGORITHMS}
RESAMPLED = {f"{n}, resampled": with_knobs(n, resample=True) for n in LONGER}
TURNED = {
    **{f"{n}, {EPOCHS} epochs": with_knobs(n, epochs=EPOCHS) for n in AGAIN},
    "Dr. GRPO, scaled": partial(trained, name="Dr. GRPO", scale=SCALE),
    **{f"GRPO, lr {lr}": with_knobs("GRPO", lr=lr) for lr in RATES},
    **{f"GRPO, beta {beta}": with_knobs("GRPO", beta=beta) for beta in BETAS},
}
RECORD = Record(
    "08_policy_gradients",
    call,
    runs={**ONCE, **LADDER, **RESAMPLED, **TURNED},
    seeds={
        **dict.fromkeys(ONCE, range(1)),
        **dict.fromkeys([*LADDER, *TURNED], SEEDS),
        **dict.fromkeys([*LONGER, *RESAMPLED], MORE_SEEDS),
    },
    file=__file__,
)
