"""Time one update of SFT, DPO and GRPO for models of several sizes; keep what came out.

    python -m tools.record_scale            # about five minutes on one core

Untrained models with the architecture of the book's, of about 20 thousand to 5 million
weights. Every round times every model at every task once, so that a slow minute of the
computer hurts all of them alike; seconds are CPU seconds of one thread. FLOPs are those
of matrix products, counted by torch as they happen. The chapter reads
notebooks/records/14_evolution_of_scale.json.
"""

import datetime
import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from lib import cache, instruct
from lib.algorithms import ALGORITHMS
from lib.comparisons import Comparisons
from lib.completion import complete
from lib.evaluate import prompt_ids
from lib.lessons import Knobs, Learner, lesson, loss_of
from lib.losses.preference import dpo
from lib.models.transformer import Config, Transformer
from lib.paired import frozen_logps, pair_logps
from lib.recipes.folder import written
from lib.rollout import Rollout
from lib.train import fit
from lib.worlds.tasks import tasks
from lib.worlds.village import TOKENIZER

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "notebooks" / "records" / "14_evolution_of_scale.json"
SIZES = ((32, 1), (64, 2), (96, 3), (128, 4), (192, 5), (256, 8), (64, 16))
CROWD = (1, 2, 4, 8, 16, 32, 64, 128)  # answers that are sampled side by side
CROWDED = (128, 4)  # the size of the model that samples them
ROUNDS = 5
ROWS, GROUP, LONG = 32, 16, 24  # of a batch; answers to a prompt; tokens of an answer
MODULES = ("lessons", "paired", "completion", "instruct", "train")
Job = Callable[[], None]


def code() -> str:
    """Twelve hex digits over this file and all of lib that it uses."""
    digest, files = hashlib.sha256(Path(__file__).read_bytes()), set()
    for module in MODULES:
        files |= cache.sources(ROOT / "lib" / f"{module}.py")
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def built(width: int, layers: int, seed: int = 0) -> Transformer:
    """An untrained model with the proportions of the book's."""
    sizes = {"width": width, "layers": layers, "hidden": 2 * width}
    config = Config(vocabulary=len(TOKENIZER), **sizes)
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


def questions(count: int) -> list[list[int]]:
    """The same questions for every model."""
    return [prompt_ids(task) for task in tasks("sum", count=count, seed=0)]


def sampled(policy: Transformer, prompts: list[list[int]], group: int) -> Rollout:
    """Answers of LONG tokens (an untrained model hardly ever ends one)."""
    draw = torch.Generator().manual_seed(0)
    room = {"end": TOKENIZER.end, "max_tokens": LONG, "pad": TOKENIZER.pad}
    return complete(policy, prompts, group=group, generator=draw, **room)


def places(rollout: Rollout, group: int = 1) -> int:
    """Tokens that are read: each answer's own, and each prompt once."""
    answers, before = rollout.lengths, rollout.mask.long().argmax(1)
    return int(answers.sum() + before[::group].sum())


# --- the jobs -------------------------------------------------------------------------


def jobs(policy: Transformer) -> dict[str, tuple[Job, int]]:
    """What is timed, and the tokens that it reads or writes."""
    reference = built(policy.config.width, policy.config.layers, seed=1)
    shown = [
        *instruct.shuffled(
            instruct.demonstrations(count=8, seed=0), epochs=1, batch=ROWS, seed=0
        )
    ][0]
    asked = questions(ROWS // GROUP * 4)
    rollout = sampled(policy, asked, GROUP)
    couples = tasks("sum", count=ROWS, seed=0)
    few, nobody = sampled(policy, questions(ROWS), 2), torch.zeros(ROWS)
    one, other = (few.rows(torch.arange(side, 2 * ROWS, 2)) for side in (0, 1))
    pairs = Comparisons(couples, one, other, nobody, nobody)
    draw = torch.Generator().manual_seed(0)
    rewards = torch.randn(len(asked), GROUP, generator=draw)
    knobs, grpo = Knobs(group=GROUP, beta=0.1, max_tokens=LONG), ALGORITHMS["GRPO"]
    learner = Learner(policy)

    def preferring(model: Transformer, batch: Comparisons) -> tuple[Any, dict]:
        return dpo(*pair_logps(model, batch), *frozen_logps(reference, batch))

    def learn() -> None:
        seen = lesson(learner, grpo, rollout, rewards, reference, knobs)
        fit(learner, [seen], loss_of(grpo), lr=1e-5)

    tokens = places(rollout, GROUP)
    return {
        "SFT": (
            partial(fit, policy, [shown], instruct.sft_loss, lr=1e-5),
            shown.states.numel(),
        ),
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


def record() -> dict[str, Any]:
    """Everything, ROUNDS times, interleaved."""
    models = {f"{width} x {layers}": built(width, layers) for width, layers in SIZES}
    every = {name: jobs(model) for name, model in models.items()}
    crowd = models["{} x {}".format(*CROWDED)]
    found: dict[str, Any] = {
        "made by": "python -m tools.record_scale",
        "with": f"Python {platform.python_version()}, torch {torch.__version__}",
        "code": code(),
        "date": datetime.date.today().isoformat(),
        "models": {},
        "crowd": {"model": "{} x {}".format(*CROWDED), "seconds": {}},
    }
    for (width, layers), (name, model) in zip(SIZES, models.items()):
        weights = sum(p.numel() for p in model.parameters())
        found["models"][name] = {"width": width, "layers": layers, "weights": weights}
        for task, (job, tokens) in every[name].items():
            job()  # once to warm up
            kept = {"tokens": tokens, "flops": flops(job), "seconds": []}
            found["models"][name][task] = kept
    for _ in tqdm(range(ROUNDS), desc=str(PLACE.name)):
        for name, here in every.items():
            for task, (job, _) in here.items():
                took = found["models"][name][task]["seconds"]
                took.append(round(seconds(job), 5))
        for count in CROWD:
            took = found["crowd"]["seconds"].setdefault(str(count), [])
            asked = questions(1) * count
            took.append(round(seconds(partial(sampled, crowd, asked, 1)), 5))
    return found


def main() -> int:
    """Record, and write the file when all is done."""
    torch.set_num_threads(1)
    written(PLACE, json.dumps(record()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
