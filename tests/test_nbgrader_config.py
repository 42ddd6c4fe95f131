"""What the course tells nbgrader, read without nbgrader."""

import re
import runpy
import shutil
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from tools import course, notebooks

NAMES = [path.stem for path in notebooks.solutions()]


@pytest.fixture
def collected(tmp_path, monkeypatch):
    """(student, assignment) that zip_collect reads from the name of a file."""
    for name in NAMES:
        (tmp_path / "source" / name).mkdir(parents=True)
    shutil.copy(course.FILES / "nbgrader_config.py", tmp_path)
    exporters = SimpleNamespace(default_args=[[None]])
    autograde = SimpleNamespace(autograde_preprocessors=exporters)
    for module in ("grading", "nbgrader", "nbgrader.converters"):
        found = SimpleNamespace(Execute=None, Autograde=autograde)
        monkeypatch.setitem(sys.modules, module, found)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PATH", "")
    told, place = MagicMock(), str(tmp_path / "nbgrader_config.py")
    runpy.run_path(place, init_globals={"get_config": lambda: told})
    pattern = re.compile(told.FileNameCollectorPlugin.named_regexp)

    def read(file: str) -> tuple[str, str] | None:
        match = pattern.match(f"/course/downloaded/{file}")
        return match and match.group("student_id", "file_id")

    return read


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("student", ["ann", "ann_lee", "a.lee-2"])
def test_a_file_is_collected_as_its_student_s_and_of_its_whole_assignment(
    collected, student, name
):
    assert collected(f"{student}_{name}.ipynb") == (student, name)


def test_a_file_of_no_assignment_is_not_collected(collected):
    assert collected("ann_homework.ipynb") is None
    assert collected("01_thermostat.ipynb") is None
