"""Every check passes its solution, says "not yet" to its stub, and refuses wrong answers.

Wrong answers lie in tests/wrong_answers/NN_name.py, by the grade_id of the solution cell:

    WRONG = {"ex1_2": ["def f(x):\\n    return x", "…"]}

Each is put in the solution's place; the exercise's check must raise checks.Wrong.
"""

import contextlib
import copy
import functools
import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from nbformat import NotebookNode

from lib.show import checks
from tools import notebooks, student

ANSWERS = notebooks.ROOT / "tests" / "wrong_answers"
Outcomes = dict[tuple[str, str], BaseException | None]


def grade_id(cell: NotebookNode) -> str:
    """The nbgrader name of a cell, or nothing."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def implementing(path: Path) -> list[str]:
    """The exercises of a notebook whose answer is code."""
    return [
        grade_id(cell)
        for cell in notebooks.code_cells(notebooks.read(path))
        if cell.metadata.get("nbgrader", {}).get("solution")
    ]


def wrong_answers(path: Path) -> dict[str, list[str]]:
    """The wrong answers to a notebook's exercises."""
    file = ANSWERS / f"{path.stem}.py"
    if not file.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"wrong_{path.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WRONG


def variants(path: Path) -> dict[str, dict[str, str]]:
    """What is tried in place of each solution: its stub, and every wrong answer."""
    wrong = wrong_answers(path)
    made = {}
    for cell in student.student_notebook(notebooks.read(path)).cells:
        name = grade_id(cell)
        if name in implementing(path):
            answers = {f"wrong {i}": a for i, a in enumerate(wrong.get(name, []), 1)}
            made[name] = {"the stub": cell.source, **answers}
    return made


@functools.cache
def outcomes(path: Path) -> Outcomes:
    """Run a notebook once, trying all variants on the way; what each check said."""
    cells = notebooks.read(path).cells
    cells = [cell for cell in cells if cell.cell_type == "code"]
    tried = variants(path)
    said: Outcomes = {}
    space: dict[str, Any] = {"__name__": "__main__"}
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(path.parent)  # as a kernel does
    try:
        with mpl.rc_context(), contextlib.redirect_stdout(io.StringIO()):
            mpl.use("agg")
            for place, cell in enumerate(cells):
                name = grade_id(cell)
                for variant, source in tried.get(name, {}).items():
                    rest = cells[place + 1 : _check_of(cells, name) + 1]
                    sources = [source, *(c.source for c in rest)]
                    said[name, variant] = _attempt(sources, copy.copy(space), space)
                if name.endswith("_check"):
                    solved = name.removesuffix("_check")
                    said[solved, "the solution"] = _attempt([cell.source], None, space)
                else:
                    exec(cell.source, space)
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)  # the set-up cell has changed them
    return said


def _check_of(cells: list[NotebookNode], name: str) -> int:
    return next(i for i, cell in enumerate(cells) if grade_id(cell) == f"{name}_check")


def _attempt(
    sources: list[str], backup: dict[str, Any] | None, space: dict[str, Any]
) -> BaseException | None:
    """Run these cells; what they raised. With a backup, nothing of it stays."""
    try:
        for source in sources:
            exec(source, space)
    except Exception as error:
        return error
    finally:
        if backup is not None:
            space.clear()
            space.update(backup)
    return None


EXERCISES = [
    (path, name) for path in notebooks.solutions() for name in implementing(path)
]
TRIED = [
    (path, name, variant)
    for path, name in EXERCISES
    for variant in variants(path)[name]
    if variant != "the stub"
]


def names(rows: list[tuple]) -> list[str]:
    return [" ".join([path.stem, *rest]) for path, *rest in rows]


@pytest.mark.parametrize(("path", "name"), EXERCISES, ids=names(EXERCISES))
def test_the_check_passes_the_committed_solution(path, name):
    error = outcomes(path)[name, "the solution"]
    assert error is None, repr(error)


@pytest.mark.parametrize(("path", "name"), EXERCISES, ids=names(EXERCISES))
def test_the_check_says_not_yet_to_the_untouched_stub(path, name):
    error = outcomes(path)[name, "the stub"]
    assert isinstance(error, checks.NotYet), repr(error)


@pytest.mark.parametrize(("path", "name", "variant"), TRIED, ids=names(TRIED))
def test_the_check_refuses_a_wrong_answer(path, name, variant):
    error = outcomes(path)[name, variant]
    assert isinstance(error, checks.Wrong), repr(error)


@pytest.mark.parametrize(("path", "name"), EXERCISES, ids=names(EXERCISES))
def test_every_implementing_exercise_has_two_wrong_answers(path, name):
    assert len(set(wrong_answers(path).get(name, []))) >= 2


@pytest.mark.parametrize("path", notebooks.solutions(), ids=lambda path: path.stem)
def test_no_wrong_answer_belongs_to_no_exercise(path):
    assert set(wrong_answers(path)) <= set(implementing(path))


def test_there_are_exercises():
    assert EXERCISES
