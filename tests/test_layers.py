"""The layers of lib, held by import-linter: pyproject.toml says which they are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import notebooks

ROOT = notebooks.ROOT
LINT = "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))"
pytestmark = pytest.mark.skipif(
    not (ROOT / "lib" / "show").is_dir(), reason="the files of lib have not moved yet"
)


def lint(root: Path) -> str:
    """What import-linter complains of; an empty text where every contract is kept."""
    command = [sys.executable, "-c", LINT]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert run.returncode in (0, 1) and "Contracts" in run.stdout, run.stderr
    return run.stdout if run.returncode else ""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of lib and labs to break."""
    for name in ("lib", "labs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_data_flows_down_and_lib_never_imports_labs():
    assert lint(ROOT) == ""


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("lib/ops.py", "import lib.train", "A file of lib imports only from"),
        ("lib/train.py", "import lib.show", "A file of lib imports only from"),
        ("lib/losses/pairs.py", "import labs", "lib never imports labs"),
        ("lib/worlds/mdp.py", "from lib.worlds import thermostat", "No circles"),
        ("lib/unplaced.py", "", "A file of lib imports only from"),
    ],
    ids=["upward", "of show", "of labs", "in a circle", "a file without a layer"],
)
def test_an_import_against_the_layers_is_noticed(copy, file, line, contract):
    with open(copy / file, "a", encoding="utf-8") as code:
        code.write(f"\n{line}\n")
    assert re.search(rf"{contract}.* BROKEN", lint(copy))
