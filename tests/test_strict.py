"""What nbval finds in a notebook, by the real conftest.py."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import notebooks

ROOT = notebooks.ROOT
RAN = re.compile(r"^notebooks/(\S+)::ipynb::Cell \d+ ([A-Z]+)", re.MULTILINE)
Outcomes = dict[str, list[str]]


def stored(*cells: tuple[str, str]) -> nbformat.NotebookNode:
    """A notebook of these sources and what they are said to have printed."""
    made = nbformat.v4.new_notebook()
    for count, (source, printed) in enumerate(cells, 1):
        output = nbformat.v4.new_output("stream", text=printed)
        cell = nbformat.v4.new_code_cell(source, execution_count=count)
        cell.outputs = [output] if printed else []
        made.cells.append(cell)
    return made


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book of the real conftest.py, and no notebook yet."""
    for name in ("conftest.py", "tests/nbval.cfg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("lib", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    return tmp_path


def nbval(book: Path, *flags: str, **cells: list[tuple[str, str]]) -> Outcomes:
    """Run nbval over these notebooks; the outcomes of the cells, as they ran."""
    for name, content in cells.items():
        path = book / "notebooks" / f"{name.replace('__', '/')}.ipynb"
        notebooks.write(path, stored(*content))
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-v"]
    command += ["-p", "no:cacheprovider", "--color=no", *flags, "notebooks"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        command, cwd=book, env=environment, capture_output=True, text=True
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found: dict[str, list[str]] = {}
    for name, outcome in RAN.findall(run.stdout):
        found.setdefault(name, []).append(outcome)
    return found


def test_a_changed_output_fails_and_so_does_a_cell_that_raises(book):
    good, false = ("print(1)", "1\n"), ("print(1)", "2\n")
    found = nbval(
        book,
        chapter=[good, false, ("1 / 0", "")],
        solutions__chapter=[false],
        solutions__right=[good],
    )
    assert found == {
        "chapter": ["PASSED", "FAILED", "FAILED"],
        "solutions/chapter": ["FAILED"],
        "solutions/right": ["PASSED"],
    }


def test_the_cells_of_a_notebook_keep_their_order_when_tests_are_shuffled(book):
    counting = [("n = 0", "")] + [("n += 1; print(n)", f"{k}\n") for k in range(1, 9)]
    others = {f"n{k}": [("print(1)", "1\n")] for k in range(4)}
    found = nbval(book, "--random-order-seed=3", counting=counting, **others)
    assert found == {"counting": ["PASSED"] * 9, **{n: ["PASSED"] for n in others}}
    assert list(found) != sorted(found)  # the notebooks do change places
