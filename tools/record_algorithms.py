"""Train chapter 8's ten algorithms, turn their knobs, and keep what came out.

    python -m tools.record_algorithms           # half an hour on one core
    python -m tools.record_algorithms rates     # one sweep, put in place of the old one

Every run starts from the instruction-tuned model and learns to reverse words from a
verifier's reward. That is too long for a page that runs in a minute, so the page trains
once and reads the rest from notebooks/records/08_policy_gradients.json, which says what
made it and when.
"""

import datetime
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lib import cache, evaluate
from lib.algorithms import ALGORITHMS, Algorithm
from lib.instruct import instructed_model
from lib.models.transformer import Transformer
from lib.on_policy import Knobs, drills, train
from lib.rewards import total, verified
from lib.worlds.tasks import Task, tasks

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "notebooks" / "records" / "08_policy_gradients.json"
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


def code() -> str:
    """Twelve hex digits over this file and all of lib that it uses."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(cache.sources(ROOT / "lib" / "on_policy.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


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
    return rounded(found.mean(0).tolist())


def rounded(numbers: Sequence[float]) -> list[float]:
    """Four digits behind the point."""
    return [round(x, 4) for x in numbers]


def run(
    model: Transformer,
    name: str,
    seed: int,
    *,
    algorithm: Algorithm | None = None,
    updates: int = UPDATES,
    lr: float = LR,
    scale: float = 1.0,
    **knobs: Any,
) -> dict[str, Any]:
    """One training, rewards times `scale`: marks on the way, diagnostics, skills."""
    began, knobs = time.process_time(), {"group": GROUP, **knobs}
    looks, asked = [], []
    questions = drills("reverse", count=ANSWERS // knobs["group"], seed=seed)

    def ask(update: int) -> Sequence[Task]:
        asked.append(update)
        return questions(update)

    def watch(update: int, policy: Transformer) -> None:
        if update % LOOK == 0:
            looks.append(held_out(policy))

    policy, history = train(
        model,
        algorithm or ALGORITHMS[name],
        total([verified], weights=[scale]),
        ask,
        seed=seed,
        updates=updates,
        lr=lr,
        knobs=Knobs(max_tokens=ROOM, **knobs),
        watch=watch,
    )
    spent = round(time.process_time() - began, 1)
    curves = {
        what: rounded(torch.tensor(values).reshape(-1, BLOCK).mean(1).tolist())
        for what, values in history.items()
    }
    made = {"algorithm": name, "seed": seed, "lr": lr, "scale": scale, **knobs}
    found = {"held": rounded(looks), "sets": len(asked), "seconds": spent}
    skills = {k: round(v, 3) for k, v in evaluate.skills(policy, count=40).items()}
    return {**made, **found, "policy": policy, "skills": skills, "curves": curves}


def ladder(model: Transformer) -> Iterator[dict[str, Any]]:
    """All ten, one update from each set of answers."""
    for seed in MORE_SEEDS:
        for name in ALGORITHMS:
            if seed in SEEDS or name in LONGER:
                found = run(model, name, seed)
                yield {**found, "pass": passes(found["policy"])}


def resampled(model: Transformer) -> Iterator[dict[str, Any]]:
    """DAPO's dynamic sampling given to two others."""
    for seed in MORE_SEEDS:
        for name in LONGER:
            chosen = replace(ALGORITHMS[name], resample=True)
            yield run(model, name, seed, algorithm=chosen, updates=FEWER)


def epochs(model: Transformer) -> Iterator[dict[str, Any]]:
    """Several updates from each set, so that the ratio leaves 1."""
    for seed in SEEDS:
        for name in AGAIN:
            yield run(model, name, seed, updates=FEWER, epochs=EPOCHS)


def scales(model: Transformer) -> Iterator[dict[str, Any]]:
    """Dr. GRPO with rewards so much higher that its gradient is RLOO's."""
    for seed in SEEDS:
        yield run(model, "Dr. GRPO", seed, scale=SCALE)


def rates(model: Transformer) -> Iterator[dict[str, Any]]:
    """GRPO at other learning rates."""
    for seed in SEEDS:
        for lr in RATES:
            yield run(model, "GRPO", seed, updates=FEWER, lr=lr)


def betas(model: Transformer) -> Iterator[dict[str, Any]]:
    """GRPO on a leash, to the model it started from."""
    for seed in SEEDS:
        for beta in BETAS:
            yield run(model, "GRPO", seed, updates=FEWER, beta=beta)


def start(model: Transformer) -> Iterator[dict[str, Any]]:
    """The model that all of them start from."""
    skills = {k: round(v, 3) for k, v in evaluate.skills(model, count=40).items()}
    yield {"held": held_out(model), "pass": passes(model), "skills": skills}


SWEEPS = (start, ladder, resampled, epochs, scales, rates, betas)


def main(wanted: Sequence[str]) -> None:
    """Run the sweeps that are named, or all, and write the record after each run."""
    torch.set_num_threads(1)
    model = instructed_model()
    record = json.loads(PLACE.read_text("utf-8")) if PLACE.exists() else {}
    settings = {"updates": UPDATES, "lr": LR, "answers": ANSWERS, "group": GROUP}
    record["made"] = {"command": "python -m tools.record_algorithms", **settings}
    for sweep in SWEEPS:
        if wanted and sweep.__name__ not in wanted:
            continue
        today, began = datetime.date.today().isoformat(), time.time()
        found = {"date": today, "code": code(), "torch": torch.__version__}
        runs = []
        for each in sweep(model):
            runs.append({k: v for k, v in each.items() if k != "policy"})
            minutes = round((time.time() - began) / 60)
            record[sweep.__name__] = {**found, "minutes": minutes, "runs": runs}
            PLACE.parent.mkdir(parents=True, exist_ok=True)
            PLACE.write_text(json.dumps(record, separators=(",", ":")) + "\n", "utf-8")
            print(
                sweep.__name__, minutes, each.get("held"), file=sys.stderr, flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
