"""Two ranks learn, one is killed (kill -9), torchrun starts both again: the same weights?

    torchrun --standalone --nproc-per-node=2 --max-restarts=1 \
        -m labs.many_processes_runs FOLDER 0 10:1

trains 24 updates of chapter 16 with seed 0 and kills rank 1 at update 10; what each
attempt saw, and how far its weights end from those of one process, lies in FOLDER.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labs.record import Record
from lib import distributed, pretrain
from lib.rollout import Rollout
from lib.sft import sft_loss, written
from lib.train import fit
from lib.worlds import cups, tasks

ROOT = Path(__file__).resolve().parents[1]
UPDATES, EVERY, ROWS, LR = 24, 4, 6, 1e-3
DEATHS = {  # run: the update at which an attempt is killed, and which rank
    "once": [(10, 1)],
    "five times": [(3, 1), (6, 0), (7, 1), (13, 0), (22, 1)],
}
SECONDS = 600  # nobody waits for ever


def shown(update: int, seed: int) -> Rollout:
    """Games with their answers, every other one thought aloud: a batch of six rows."""
    asked = tasks.tasks("cups", count=ROWS, seed=1000 * seed + update, levels=(2, 3))
    texts = [
        cups.worked(cups.game_of(task), "hill") if k % 2 else task.answer
        for k, task in enumerate(asked)
    ]
    return written(asked, texts)


def learn(
    seed: int, before: Callable[[int], None], checkpoint: Path | None = None
) -> Tensor:
    """The weights (N,) after all updates; `before` is called before each."""
    model = pretrain.base_model(seed=0)

    def batches(start: int) -> Iterator[Rollout]:
        for update in range(start, UPDATES):
            before(update)
            yield shown(update, seed)

    fit(
        model,
        batches,
        sft_loss,
        lr=LR,
        over="tokens",
        checkpoint=checkpoint,
        every=EVERY,
    )
    return nn.utils.parameters_to_vector(model.parameters()).detach()


# --- on each rank ---------------------------------------------------------------------


def main(folder: Path, seed: int, deaths: Sequence[tuple[int, int]]) -> None:
    """Learn with the others, and die where it is said that this attempt does."""
    signal.alarm(SECONDS)
    torch.set_num_threads(1)
    distributed.start(patience=timedelta(seconds=60))
    rank, attempt = distributed.rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])

    def before(update: int) -> None:
        with (folder / f"rank-{rank}.txt").open("a") as log:
            log.write(f"{attempt} {update}\n")
        if attempt < len(deaths) and deaths[attempt] == (update, rank):
            os.kill(os.getpid(), signal.SIGKILL)

    weights = learn(seed, before, folder / "run.pt")
    if rank == 0:
        with distributed.alone():
            alone = learn(seed, lambda update: None)
        apart = (weights - alone).abs().max().item()
        moved = (alone - nn.utils.parameters_to_vector(
            pretrain.base_model(seed=0).parameters()
        )).abs().max().item()  # fmt: skip
        (folder / "found.json").write_text(json.dumps({"apart": apart, "moved": moved}))
    distributed.meet()
    distributed.stop()


# --- the record -----------------------------------------------------------------------


def run(deaths: Sequence[tuple[int, int]], seed: int) -> dict[str, Any]:
    """Start two ranks, kill as told: each attempt's first update and end."""
    ranks = "--standalone", "--nproc-per-node=2", "--monitor-interval=0.1"
    restarts = f"--max-restarts={len(deaths)}"
    kills = ",".join(f"{update}:{rank}" for update, rank in deaths)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", *ranks, restarts]
        command += ["-m", "labs.many_processes_runs", folder, str(seed), kills]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
        found = json.loads(Path(folder, "found.json").read_text())
        lines = Path(folder, "rank-0.txt").read_text().splitlines()
    began: dict[int, int] = {}
    for attempt, update in (map(int, line.split()) for line in lines):
        began.setdefault(attempt, update)
    attempts = [
        {"from": began[attempt], "killed at": end[0], "rank": end[1]}
        for attempt, end in enumerate([*deaths, (None, None)])
    ]
    return {"attempts": attempts, **found}


RECORD = Record(
    "16_many_processes",
    run,
    runs=DEATHS,
    seeds={"once": range(3), "five times": range(1)},
    file=__file__,
)

if __name__ == "__main__":
    place, number, kills = sys.argv[1:]
    ends = [tuple(map(int, kill.split(":"))) for kill in kills.split(",")]
    main(Path(place), int(number), ends)
