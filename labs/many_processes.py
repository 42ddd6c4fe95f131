"""Many processes: start some from a notebook, and count what they hold and send.

`Ranks` does what torchrun does on one computer: it starts the same program W times and
tells each process its rank, how many there are, and where to meet. What the ranks run
is a function's source, so that a notebook can show it; it imports all that it needs.
"""

import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib import require
from lib.rollout import Rollout
from lib.sft import written
from lib.worlds import cups, tasks

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """\
import json, os, queue, sys, threading
from datetime import timedelta

asked = queue.Queue()


def listen():  # where the notebook ends, this pipe does, and then so does this process
    for line in sys.stdin:
        asked.put(json.loads(line))
    os._exit(0)


threading.Thread(target=listen, daemon=True).start()
import torch
from lib import distributed

torch.set_num_threads(1)
distributed.start(patience=timedelta(seconds=float(sys.argv[1])))
while True:
    todo = asked.get()
    space = {}
    exec(todo["source"], space)
    found = space[todo["name"]](**todo["given"])
    with open(todo["out"] + ".part", "w") as file:
        json.dump(found, file)
    os.replace(todo["out"] + ".part", todo["out"])
"""

# --- start ----------------------------------------------------------------------------


class RankFailed(RuntimeError):
    """A process ended with an error, or was not ready in time."""


def surroundings(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a process, as variables of its environment."""
    return {
        "RANK": str(rank),  # which one it is
        "LOCAL_RANK": str(rank),  # which one on this computer: the number of its GPU
        "WORLD_SIZE": str(ranks),  # how many there are
        "MASTER_ADDR": "127.0.0.1",  # where rank 0 waits for the others
        "MASTER_PORT": str(port),
    }


class Ranks:
    """So many processes that see each other as ranks and do what `run` asks.

    They end with `close`, with the process that started them, and where one fails.
    """

    def __init__(self, count: int = 2, *, seconds: float = 240) -> None:
        """Start them; `seconds` is how long a `run` may take, the start included."""
        require.count("count", count)
        require.positive("seconds", seconds)
        self.seconds, self.runs = seconds, 0
        self.folder = tempfile.TemporaryDirectory(prefix="ranks-")
        self.place, port = Path(self.folder.name), _free_port()
        common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
        if loopback:
            common["GLOO_SOCKET_IFNAME"] = loopback  # nothing leaves this computer
        self.running: list[subprocess.Popen] = []
        for rank in range(count):
            with (self.place / f"{rank}.log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", SCRIPT, str(seconds)],
                    env=common | surroundings(rank, count, port),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            self.running.append(process)

    def run(self, work: Callable, **given: Any) -> list[Any]:
        """What `work(**given)` returns on each rank; arguments and results are JSON's.

        Where one fails, or time is up, all are ended and RankFailed says why.
        """
        if not self.running:
            require.refuse("ranks", "closed ones", "some that run")
        self.runs += 1
        outs = [self.place / f"{r}-{self.runs}.json" for r in range(len(self.running))]
        source = textwrap.dedent(inspect.getsource(work))
        todo = {"source": source, "name": work.__name__, "given": given}
        for process, out in zip(self.running, outs):
            try:
                process.stdin.write(json.dumps(todo | {"out": str(out)}) + "\n")
                process.stdin.flush()
            except OSError:
                pass  # it has ended; `_wait` says why
        try:
            self._wait(outs)
        except BaseException:
            self.close()
            raise
        return [json.loads(out.read_text("utf-8")) for out in outs]

    def _wait(self, outs: list[Path]) -> None:
        end = time.monotonic() + self.seconds
        while not all(out.exists() for out in outs):
            for rank, process in enumerate(self.running):
                if process.poll() is not None:
                    log = (self.place / f"{rank}.log").read_text(errors="replace")
                    why = (log.strip().splitlines() or ["nothing"])[-1]
                    said = f"rank {rank} ended with {process.returncode}"
                    raise RankFailed(f"{said} and said: {why}")
            if time.monotonic() > end:
                late = [rank for rank, out in enumerate(outs) if not out.exists()]
                said = f"ranks {late} were not ready after {self.seconds} seconds"
                raise RankFailed(said)
            time.sleep(0.02)

    def close(self) -> None:
        """End them all."""
        for process in self.running:
            process.kill()
            process.wait()
            process.stdin.close()
        self.running = []
        self.folder.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- what is read ---------------------------------------------------------------------

ALOUD = (True, False, True, True, False, True, False, False)  # who thinks aloud


def eight_answers() -> Rollout:
    """Eight right answers to games of three swaps: four thought aloud, four at once."""
    asked = tasks.tasks("cups", count=len(ALOUD), seed=16, levels=(3,))
    texts = [
        cups.worked(cups.game_of(task), "hill") if aloud else task.answer
        for task, aloud in zip(asked, ALOUD)
    ]
    return written(asked, texts)


# --- what is held and sent ------------------------------------------------------------

PARTS = {"weights": 2, "gradients": 2, "optimiser": 12}  # bytes a weight, as in ZeRO
STAGES = {  # of which each rank holds only its share
    0: (),
    1: ("optimiser",),
    2: ("optimiser", "gradients"),
    3: ("optimiser", "gradients", "weights"),
}


def held(stage: int, ranks: int) -> dict[str, float]:
    """Bytes a weight on each rank, part by part (Rajbhandari et al. 2020).

    Weights and gradients in 16 bits; the optimiser's are a copy of the weights and
    Adam's two moments in 32 bits. Activations come on top.
    """
    require.one_of("stage", stage, [*STAGES])
    require.count("ranks", ranks)
    shared = STAGES[stage]
    return {name: b / (ranks if name in shared else 1) for name, b in PARTS.items()}


def sent(stage: int, ranks: int, *, width: int = 2) -> float:
    """Bytes a weight that each rank sends in one update, in rings; `width` a number.

    Stages 0 to 2 send gradients round once (reduce-scatter) and then what belongs to
    all once more (all-gather). Stage 3 gathers weights twice, for the way forward and
    the way back, and reduces gradients once.
    """
    require.one_of("stage", stage, [*STAGES])
    require.count("ranks", ranks)
    rounds = 3 if stage == 3 else 2
    return rounds * (ranks - 1) / ranks * width
