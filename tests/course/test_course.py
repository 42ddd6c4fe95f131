"""nbgrader releases, collects and grades the first chapter's exercises as a course does.

Five students hand in at once. All commands are those of the course's README.
"""

import importlib.util
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from nbformat import NotebookNode

from tools import course, notebooks

NAME = "01_thermostat"
CODE = ("ex1_2", "ex1_3", "ex1_5", "ex1_6", "ex1_7")  # the tasks graded by machine
SECONDS = 20  # that a cell may take here
ENDS = "\n\ndef {name}(*given):\n    import os\n    os._exit(0)\n"
LOOPS = "\n\ndef {name}(*given):\n    while True:\n        pass\n"
STUBBORN = """

import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    pass
"""
Points = dict[str, float | None]  # by task; None: a person grades it


def nbgrader(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "nbgrader", *words]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def answers() -> dict[str, str]:
    """The solutions, by task."""
    solved = notebooks.read(
        notebooks.ROOT / "notebooks" / "solutions" / f"{NAME}.ipynb"
    )
    return {grade_id(cell): cell.source for cell in solved.cells if grade_id(cell)}


def wrong() -> dict[str, str]:
    """A wrong answer to each task."""
    file = notebooks.ROOT / "tests" / "wrong_answers" / f"{NAME}.py"
    spec = importlib.util.spec_from_file_location("wrong", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: module.WRONG[name][0] for name in CODE}


def grade_id(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def submissions() -> dict[str, dict[str, str]]:
    """What each student wrote into which task."""
    right = {name: answers()[name] for name in CODE}
    exits = right["ex1_3"] + ENDS.format(name="forecast")
    loops = right["ex1_2"] + LOOPS.format(name="policy_evaluation")
    stubborn = right["ex1_5"] + STUBBORN
    return {
        "honest": right,
        "blank": {},
        "wrong": wrong(),
        "exit": right | {"ex1_3": exits},
        "endless": right | {"ex1_2": loops, "ex1_5": stubborn},
    }


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course outside the repository, with five submissions collected and graded."""
    folder = tmp_path_factory.mktemp("course")
    assert course.write(folder) == []
    nbgrader(folder, "generate_assignment", NAME)
    released = folder / "release" / NAME / f"{NAME}.ipynb"
    archive = folder / "downloaded" / NAME / "archive"
    archive.mkdir(parents=True)
    for student, written in submissions().items():
        notebook = notebooks.read(released)
        for cell in notebook.cells:
            cell.source = written.get(grade_id(cell), cell.source)
        notebooks.write(archive / f"{student}_{NAME}.ipynb", notebook)
    nbgrader(folder, "zip_collect", NAME)
    nbgrader(folder, "autograde", NAME, f"--Execute.timeout={SECONDS}")
    return folder


def points(folder: Path, student: str) -> Points:
    """What the gradebook says of a student's tasks."""
    question = """
        SELECT base_cell.name, grade.auto_score FROM grade
        JOIN base_cell ON base_cell.id = grade.cell_id
        JOIN submitted_notebook ON submitted_notebook.id = grade.notebook_id
        JOIN submitted_assignment
          ON submitted_assignment.id = submitted_notebook.assignment_id
        WHERE submitted_assignment.student_id = ?"""
    with closing(sqlite3.connect(folder / "gradebook.db")) as book:
        rows = book.execute(question, [student]).fetchall()
    found = {name.removesuffix("_check"): score for name, score in rows}
    return {name: found[name] for name in CODE}


FULL = {"ex1_2": 2, "ex1_3": 2, "ex1_5": 3, "ex1_6": 2, "ex1_7": 2}
NOTHING = dict.fromkeys(CODE, 0)


def test_what_is_released_has_no_answers_and_leads_to_the_student_s_notebook(graded):
    released = graded / "release" / NAME / f"{NAME}.ipynb"
    text = released.read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in text and "on += (line" not in text
    assert f"/notebooks/exercises/{NAME}.ipynb" in text
    assert "/notebooks/solutions/" not in text
    assert "](../" not in text
    stubs = [c for c in notebooks.read(released).cells if grade_id(c) in CODE]
    assert len(stubs) == len(CODE)
    assert all("YOUR CODE HERE" in c.source for c in stubs)
    assert not any("hide-input" in notebooks.tags(c) for c in stubs)


def test_an_honest_submission_gets_every_automatic_point(graded):
    assert points(graded, "honest") == FULL


def test_a_blank_submission_gets_none(graded):
    assert points(graded, "blank") == NOTHING


def test_wrong_answers_get_none(graded):
    assert points(graded, "wrong") == NOTHING


def test_an_answer_that_ends_the_kernel_costs_its_own_task_only(graded):
    assert points(graded, "exit") == FULL | {"ex1_3": 0}


def test_endless_loops_cost_their_own_tasks_only_even_where_they_ignore_interrupts(
    graded,
):
    assert points(graded, "endless") == FULL | {"ex1_2": 0, "ex1_5": 0}


def test_every_submission_gets_feedback(graded):
    nbgrader(graded, "generate_feedback", NAME)
    pages = sorted(path.parts[-3] for path in graded.glob("feedback/*/*/*.html"))
    assert pages == sorted(submissions())
