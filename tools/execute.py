"""Run notebooks and store what they really output.

    python -m tools.execute            every notebook
    python -m tools.execute --stale    those whose cells, lib or outputs changed
    python -m tools.execute PATH …     these

Two notebooks run at a time, each in a kernel of its own with one thread. A notebook
whose cell raises keeps its file untouched, and so does one that was saved by somebody
while it ran; the others are still written. Cells stay as they are, outputs are stored
anew. Exercises that somebody wrote into are left alone, unless named as PATH.
"""

import argparse
import asyncio
import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from tqdm import tqdm

from tools import keep, notebooks

AT_ONCE = 2
SECONDS_PER_CELL = 400
THREADS = os.environ.get("RLHF_EXECUTED_THREADS", "1")  # 2: does it hold on two, too?
ENVIRONMENT = {  # what a kernel sees here, under nbval and in CI alike
    "OMP_NUM_THREADS": THREADS,
    "MKL_NUM_THREADS": THREADS,
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
PACKAGES = ("torch", "numpy", "gymnasium", "matplotlib", "ipywidgets")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(Exception):
    """A notebook that did not run to its end: which cell, and what it said."""


def versions() -> dict[str, str]:
    """What executed the notebook; for the reader's eyes, no test compares it."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Drop what differs from run to run and what a page cannot use: widgets, timings."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
            for metadata in output.get("metadata", {}).values():
                if isinstance(metadata, dict):
                    metadata.pop("needs_background", None)
    return notebook


async def run(
    path: Path, bar: tqdm, root: Path = notebooks.ROOT
) -> tuple[float, float]:
    """Execute one notebook and write it; (seconds, the kernel's peak memory in MB)."""
    before = path.read_bytes()
    notebook = notebooks.read(path)
    notebook.metadata.kernelspec = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        startup_timeout=120,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=True,  # an interact cell needs it; tidy drops it
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        on_cell_executed=lambda **_: bar.update(),
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    began = time.perf_counter()
    try:
        async with client.async_setup_kernel():
            for place, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, place)
            peak = await peak_memory(client)
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
        raise NotebookError(f"{path.relative_to(root)}: {_said(error)}") from error
    seconds = time.perf_counter() - began
    if not path.exists() or path.read_bytes() != before:
        raise NotebookError(
            f"{path.relative_to(root)}: somebody saved it while it ran; left as it is"
        )
    tidy(notebook)
    recorded = {**notebooks.fingerprints(notebook, root), "with": versions()}
    notebook.metadata["executed"] = recorded
    notebooks.write(path, notebook)
    return seconds, peak


def _said(error: Exception) -> str:
    """The cell, where it broke and why, in a few lines."""
    message = COLOURS.sub("", str(error)).strip()
    if not isinstance(error, CellExecutionError):
        return message
    _, cell, rest = message.split("\n------------------\n", 2)
    where = re.findall(r"^(?:File|Cell) .*(?:line |:)\d+.*", rest, re.MULTILINE)
    indented = "\n".join(f"    {line}" for line in cell.splitlines())
    why = f"{error.ename}: {COLOURS.sub('', error.evalue)}"
    return "\n".join(["this cell raised", indented, *where[:4], why])


async def peak_memory(client: NotebookClient) -> float:
    """The kernel's highest resident memory in MB; 0 where the system does not say."""
    status = Path(f"/proc/{getattr(client.km.provisioner, 'pid', None)}/status")
    if not status.exists():
        return 0.0
    line = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(line[1]) / 1024 if line else 0.0


async def run_all(paths: Sequence[Path]) -> list[str]:
    """Execute these notebooks, a few at a time; the messages of those that failed."""
    gate = asyncio.Semaphore(AT_ONCE)
    failures: list[str] = []
    cells = sum(c.cell_type == "code" for p in paths for c in notebooks.read(p).cells)
    with tqdm(total=cells, unit="cell", desc=f"0/{len(paths)} notebooks") as bar:
        finished = 0

        async def one(path: Path) -> None:
            nonlocal finished
            async with gate:
                try:
                    seconds, peak = await run(path, bar)
                except NotebookError as error:
                    failures.append(str(error))
                    return
            finished += 1
            bar.set_description(f"{finished}/{len(paths)} notebooks")
            name = path.relative_to(notebooks.ROOT)
            bar.write(f"{name}: {seconds:.1f} s, peak {peak:.0f} MB")

        await asyncio.gather(*(one(path) for path in paths))
    return failures


def untouched() -> list[Path]:
    """All notebooks, less the exercises that hold the reader's edits; a line for each."""
    edited = [path for path in notebooks.exercises() if keep.edited(path)]
    for path in edited:
        print(keep.left(path))
    return [path for path in notebooks.everything() if path not in edited]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: all ran; 1: some raised; 2: called wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tools.execute")
    parser.add_argument("--stale", action="store_true", help="only what changed")
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: all)")
    options = parser.parse_args(arguments)
    paths = [p.resolve() for p in options.paths] or untouched()
    known = set(notebooks.everything())
    for path in paths:
        if path not in known:
            print(f"tools.execute: no notebook of the book: {path}", file=sys.stderr)
            return 2
    if options.stale:
        paths = [p for p in paths if notebooks.stale(notebooks.read(p))]
    if not paths:
        print("Every notebook's outputs are up to date.")
        return 0
    os.environ.update(ENVIRONMENT)
    from tools import models  # it imports torch, which must see the environment

    models.main()  # no notebook makes one, so no progress bar is stored
    if sys.platform == "win32":  # zmq cannot wait on that system's usual event loop
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    failures = asyncio.run(run_all(paths))
    for failure in failures:
        print(f"\n{failure}\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
