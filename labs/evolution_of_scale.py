"""Chapter 14: one update of SFT, DPO and GRPO, timed for models of several sizes.

Untrained models with the architecture of the book's, of about 20 thousand to 5 million
weights, in single precision. Every round (a seed of the record) times every model at
every task once, so that a slow minute of the computer hurts all of them alike; seconds
are CPU seconds of one thread. FLOPs are those of matrix products, counted by torch as
they happen. About five minutes on one core, which should have nothing else to do.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from labs.record import Record
from lib import sft
from lib.algorithms import ALGORITHMS
from lib.evaluate import prompt_ids
from lib.losses.preference import dpo
from lib.models.transformer import Config, Transformer
from lib.on_policy import PolicyWithCritic, RLConfig, loss_of, make_batch
from lib.preference_data import PreferencePairs, frozen_logps, pair_logps
from lib.rollout import Rollout
from lib.sampling import complete
from lib.train import fit
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import tasks

SIZES = ((32, 1), (64, 2), (96, 3), (128, 4), (192, 5), (256, 8), (64, 16))
CROWD = (1, 2, 4, 8, 16, 32, 64, 128)  # answers that are sampled side by side
CROWDED = (128, 4)  # the size of the model that samples them
ROUNDS = 5
ROWS, GROUP, LONG = 32, 16, 24  # of a batch; answers to a prompt; tokens of an answer
Job = Callable[[], None]


def built(width: int, layers: int, seed: int = 0) -> Transformer:
    """An untrained model with the proportions of the book's."""
    sizes = {"width": width, "layers": layers, "hidden": 2 * width}
    config = Config(vocabulary=len(TOKENIZER), **sizes)
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


def questions(count: int) -> list[Task]:
    """The same questions for every model."""
    return tasks("facts", count=count, seed=0)


def sampled(policy: Transformer, asked: list[Task], group: int) -> Rollout:
    """Answers of LONG tokens (an untrained model hardly ever ends one)."""
    draw = torch.Generator().manual_seed(0)
    room = {"end": TOKENIZER.end, "max_tokens": LONG, "pad": TOKENIZER.pad}
    prompts = [prompt_ids(task) for task in asked]
    return complete(policy, prompts, group=group, generator=draw, **room)


def places(rollout: Rollout, group: int = 1) -> int:
    """Tokens that are read: each answer's own, and each prompt once."""
    answers, before = rollout.lengths, rollout.mask.long().argmax(1)
    return int(answers.sum() + before[::group].sum())


# --- the jobs -------------------------------------------------------------------------


def jobs(policy: Transformer) -> dict[str, tuple[Job, int]]:
    """What is timed, and the tokens that it reads or writes."""
    reference = built(policy.config.width, policy.config.layers, seed=1)
    shown = sampled(policy, questions(ROWS), 1)  # as long as all the others
    asked = questions(ROWS // GROUP * 4)
    rollout = sampled(policy, asked, GROUP)
    couples, nobody = questions(ROWS), torch.zeros(ROWS)
    few = sampled(policy, couples, 2)
    one, other = (few.rows(torch.arange(side, 2 * ROWS, 2)) for side in (0, 1))
    pairs = PreferencePairs(couples, one, other, nobody, nobody)
    draw = torch.Generator().manual_seed(0)
    rewards = torch.randn(len(asked), GROUP, generator=draw)
    knobs, grpo = RLConfig(group=GROUP, beta=0.1, max_tokens=LONG), ALGORITHMS["GRPO"]
    learner = PolicyWithCritic(policy)

    def preferring(model: Transformer, batch: PreferencePairs) -> tuple[Any, dict]:
        return dpo(*pair_logps(model, batch), *frozen_logps(reference, batch))

    def learn() -> None:
        seen = make_batch(learner, grpo, rollout, rewards, reference, knobs)
        fit(learner, [seen], loss_of(grpo), lr=1e-5)

    tokens = places(rollout, GROUP)
    imitate = partial(fit, policy, [shown], sft.sft_loss, lr=1e-5)
    return {
        "SFT": (imitate, places(shown)),
        "DPO": (partial(fit, policy, [pairs], preferring, lr=1e-5), places(few, 2)),
        "GRPO, sampling": (partial(sampled, policy, asked, GROUP), tokens),
        "GRPO, learning": (learn, tokens),
    }


def seconds(job: Job) -> float:
    """CPU seconds that the job takes."""
    began = time.process_time()
    job()
    return time.process_time() - began


def flops(job: Job) -> int:
    """Floating-point operations of its matrix products; a product and a sum are two."""
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


@cache
def prepared(width: int, layers: int) -> dict[str, tuple[Job, dict[str, int]]]:
    """A model's jobs, each done once to warm up, with its tokens and FLOPs."""
    found = {}
    for task, (job, tokens) in jobs(built(width, layers)).items():
        job()
        found[task] = (job, {"tokens": tokens, "flops": flops(job)})
    return found


def timed(width: int, layers: int) -> dict[str, Any]:
    """The seconds of every job of a model, once."""
    every = prepared(width, layers).items()
    found = {task: {**counts, "seconds": seconds(job)} for task, (job, counts) in every}
    weights = sum(p.numel() for p in built(width, layers).parameters())
    return {"width": width, "layers": layers, "weights": weights, **found}


def crowded(width: int, layers: int) -> dict[str, Any]:
    """The seconds that a model takes for so many answers side by side, once."""
    model, found = built(width, layers), {}
    for count in CROWD:
        found[str(count)] = seconds(partial(sampled, model, questions(1) * count, 1))
    return {"model": f"{width} x {layers}", "seconds": found}


RECORD = Record(
    "14_evolution_of_scale",
    lambda timing, round: timing(),
    runs={
        **{
            f"{width} x {layers}": partial(timed, width, layers)
            for width, layers in SIZES
        },
        "crowd": partial(crowded, *CROWDED),
    },
    seeds=range(ROUNDS),
    file=__file__,
)
