"""One runner for what takes longer than a page may: it runs it, and keeps what came out.

    python -m labs.record                          make what is stale, cheapest first
    python -m labs.record 02_cartpole              this one, if it is stale
    python -m labs.record --restart 02_cartpole    this one, and from the start
    python -m labs.record --recheck r1_zero        run a part of a stale one again
    python -m labs.record --list                   say how each record stands

A file of labs declares what is run, each name of `runs` on each of `seeds`:

    def run(settings: dict[str, Any], seed: int) -> dict[str, Any]:
        policy, history = train(seed=seed, **settings)
        return {"reward": history["reward"], "length": mean_length(policy)}

    RECORD = Record(
        "02_cartpole",    # notebooks/records/02_cartpole.json
        run,
        runs={"REINFORCE": {"lr": 0.01}, "PPO": {"lr": 0.003, "clip": 0.2}},
        seeds=range(5),   # or of each: {"REINFORCE": range(3), "PPO": range(5)}
        file=__file__,
    )

A page reads `RECORD.read()["runs"]["PPO"]["3"]["reward"]`: the run, the seed as text, and
what `run` returned: numbers (rounded to `digits` significant ones), text, tensors, lists
and dicts of these. All runs of a seed come before those of the next.

A run that was stopped goes on where it was: after each, all that is there is written,
whole. It does not go on with other code, seeds or torch: it says so, until --restart.

A record is stale when other code made it than today's: that of the lab and of all of lib
and labs that it imports, without comments and docstrings (`lib.digest`) and without this
file, which computes nothing.

Code may change and its results stay. --recheck runs the first run's first seed again (or
that of `--run NAME`): where today's code finds every figure of it as the record has it, the
record counts as today's, and says under "rechecked" what was run and which code had made
the rest; what it cost (COSTS) may differ. Where a figure differs, the record stays stale.
It may be the processor: what is in float32, and a policy that has been through many stages,
can end otherwise under other kernels. A record names its own; ATEN_CPU_CAPABILITY=avx2 with
MKL_ENABLE_INSTRUCTIONS=AVX2 brings those of AVX2 back.
"""

import argparse
import ast
import importlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lib import require
from lib.checkpoint import write_text
from lib.digest import code_digest

COSTS = (
    "cpu_minutes",
    "peak_gb",
    "seconds",
)  # of a run: they differ from one to the next
LABS = Path(__file__).resolve().parent
RECORDS = LABS.parent / "notebooks" / "records"


class OtherRun(Exception):
    """What was begun is not what would go on; says in what they differ."""


@dataclass(frozen=True)
class Record:
    """A long run: how it is made, and where its results are kept."""

    name: str  # of its file
    run: Callable[[Any, int], Any]  # (settings, seed) -> what is kept
    runs: Mapping[str, Any]  # each run's name, and its settings
    file: str  # the lab's __file__, whose docstring begins with what is run
    seeds: Sequence[int] | Mapping[str, Sequence[int]] = range(5)
    digits: int = 4  # significant ones
    folder: Path = RECORDS

    def __post_init__(self) -> None:
        require.count("digits", self.digits)
        if not self.runs:
            require.refuse("runs", "none", "a name and its settings, or more")
        if isinstance(self.seeds, Mapping) and set(self.seeds) != set(self.runs):
            wanted = f"some for each of {sorted(self.runs)}"
            require.refuse("seeds", sorted(self.seeds), wanted)

    @property
    def path(self) -> Path:
        """Where the record is."""
        return self.folder / f"{self.name}.json"

    @property
    def partial(self) -> Path:
        """Where it is while it is made."""
        return self.folder / f"{self.name}.part"

    def read(self) -> dict[str, Any]:
        """The record, whatever code made it."""
        return json.loads(self.path.read_text("utf-8"))

    def seeds_of(self) -> dict[str, list[int]]:
        """Every run's seeds."""
        of, each = self.seeds, isinstance(self.seeds, Mapping)
        return {name: [*(of[name] if each else of)] for name in self.runs}

    def pairs(self) -> list[tuple[str, int]]:
        """(run, seed) of everything, in the order in which it is run: seed by seed."""
        every = self.seeds_of()
        order = dict.fromkeys(itertools.chain.from_iterable(every.values()))
        return [(name, s) for s in order for name, seeds in every.items() if s in seeds]

    def head(self) -> dict[str, Any]:
        """How it is made today."""
        about = ast.get_docstring(ast.parse(Path(self.file).read_text("utf-8"))) or ""
        return {
            "what": about.partition("\n")[0],
            "command": f"python -m labs.record {self.name}",
            "seeds": self.seeds_of(),
            "digits": self.digits,
            "code": code_digest(self.file, without=[__file__]),
            "torch": torch.__version__,
            "kernel": torch.backends.cpu.get_cpu_capability(),
        }

    def state(self) -> str:
        """Fresh, missing, or stale and why."""
        if not self.path.exists():
            return "missing"
        found, code = self.read(), code_digest(self.file, without=[__file__])
        if (made := found.get("code", found.get("made", {}).get("code"))) != code:
            return f"stale: code {made} made it, today's is {code}"
        runs = found["runs"].items()
        held = {(name, int(seed)) for name, seeds in runs for seed in seeds}
        return "fresh" if held == {*self.pairs()} else "stale: not all runs and seeds"

    def make(self, *, restart: bool = False) -> None:
        """Run what is not there yet, and put the whole in the record's place."""
        record = self._begun(restart=restart)
        bar = tqdm(self.pairs(), desc=self.name, unit="run")
        for name, seed in bar:
            bar.set_postfix_str(f"{name}, seed {seed}")
            runs = record["runs"].setdefault(name, {})
            if str(seed) not in runs:
                began = time.process_time()
                runs[str(seed)] = rounded(self.run(self.runs[name], seed), self.digits)
                spent = (time.process_time() - began) / 60
                record["cpu_minutes"] = round(record["cpu_minutes"] + spent, 3)
                text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
                write_text(self.partial, text + "\n")
        self.partial.replace(self.path)

    def recheck(self, name: str | None = None) -> None:
        """Run one run's first seed again; the record is today's if nothing differs."""
        name = next(iter(self.runs)) if name is None else name
        require.one_of("run", name, [*self.runs])
        found, seed = self.read(), self.seeds_of()[name][0]
        again = rounded(self.run(self.runs[name], seed), self.digits)
        again = json.loads(json.dumps(again))
        if _figures(again) != _figures(found["runs"][name][str(seed)]):
            said = f"{self.path}: today's code finds other figures for {name!r}, seed {seed}"
            here = torch.backends.cpu.get_cpu_capability()
            kernels = f"made with {found.get('kernel')} kernels, here {here}"
            raise OtherRun(f"{said} ({kernels}); make it anew, or recheck with those")
        checks = [*found.get("rechecked", ()), {"run": name, "seed": seed}]
        checks[-1]["made by"] = found["code"]
        about = {k: v for k, v in self.head().items() if k != "kernel"}
        text = found | about | {"rechecked": checks}
        shown = json.dumps(text, separators=(",", ":"), ensure_ascii=False)
        write_text(self.path, shown + "\n")

    def _begun(self, *, restart: bool) -> dict[str, Any]:
        """What is there of a run that was stopped; or a new record's head."""
        head = self.head()
        if restart or not self.partial.exists():
            return {**head, "cpu_minutes": 0.0, "runs": {}}
        begun = json.loads(self.partial.read_text("utf-8"))
        other = [
            f"{k} {begun.get(k)}, not {v}" for k, v in head.items() if begun.get(k) != v
        ]
        if other:
            message = f"{self.partial}: begun with {'; '.join(other)}"
            raise OtherRun(f"{message} (--restart begins anew)")
        return begun


def call(what: Callable[[int], Any], seed: int) -> Any:
    """The `run` of settings that are functions of the seed."""
    return what(seed)


def rounded(found: Any, digits: int) -> Any:
    """Numbers to so many significant digits, wherever they are; tensors become lists."""
    if isinstance(found, Tensor):
        found = found.tolist()
    if isinstance(found, Mapping):
        return {str(name): rounded(value, digits) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [rounded(value, digits) for value in found]
    if isinstance(found, float):
        if not math.isfinite(found):
            require.refuse("run", f"{found} among its results", "finite numbers")
        return float(f"{round(found, 12):.{digits}g}") + 0.0  # no -0.0, no 1e-17
    return found


def _figures(found: Any) -> Any:
    """What a run found, without what it cost."""
    if isinstance(found, list):
        return [_figures(each) for each in found]
    if not isinstance(found, dict):
        return found
    return {name: _figures(x) for name, x in found.items() if name not in COSTS}


def records() -> list[Record]:
    """Every record that a file of labs declares, cheapest first."""
    found = []
    for file in sorted(LABS.glob("*.py")):
        named = vars(importlib.import_module(f"labs.{file.stem}")).values()
        declared = {r.name: r for r in named if isinstance(r, Record)}.values()
        found += [r for r in declared if Path(r.file).resolve() == file]
    return sorted(found, key=_minutes)


def _minutes(record: Record) -> float:
    """What it took when it was last made; none is known of a new one."""
    return record.read().get("cpu_minutes", math.inf) if record.path.exists() else 0.0


def main(arguments: Iterable[str] | None = None) -> None:
    """Make records, or say how they stand."""
    every = {record.name: record for record in records()}
    parser = argparse.ArgumentParser(prog="python -m labs.record")
    parser.add_argument("name", nargs="*", help=f"of {', '.join(every)}")
    parser.add_argument("--list", action="store_true", help="say how each one stands")
    parser.add_argument("--restart", action="store_true", help="begin anew")
    parser.add_argument("--recheck", action="store_true", help="run a part again")
    parser.add_argument("--run", help="which run --recheck takes")
    asked = parser.parse_args(arguments)
    for name in {*asked.name} - {*every}:
        parser.error(f"name: got {name}, wanted one of {', '.join(every)}")
    torch.set_num_threads(1)
    for name in asked.name or every:
        state = every[name].state()
        stale = state != "fresh"
        if asked.list:
            print(name, state)
        elif asked.recheck:
            if stale:
                every[name].recheck(asked.run)
        elif stale or (name in asked.name and asked.restart):
            every[name].make(restart=asked.restart)


if __name__ == "__main__":
    from labs import record  # not this file a second time, with a Record of its own

    try:
        record.main()
    except record.OtherRun as error:
        sys.exit(str(error))
