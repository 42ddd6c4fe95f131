"""What lib may import, held by import-linter: pyproject.toml says it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import notebooks

ROOT = notebooks.ROOT
LINT = "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))"


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


def add(path: Path, line: str) -> None:
    """One more line at a file's end."""
    with open(path, "a", encoding="utf-8") as code:
        code.write(f"\n{line}\n")


def test_every_import_is_from_below_and_lib_never_imports_labs():
    assert lint(ROOT) == ""


def test_an_import_of_labs_in_lib_is_noticed(copy):
    add(copy / "lib" / "losses" / "pairs.py", "import labs")
    assert re.search("lib never imports labs.* BROKEN", lint(copy))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("ops.py", "import lib.train"),
        ("losses/pairs.py", "from lib.show import figures"),
        ("worlds/mdp.py", "from lib import evaluate"),
        ("rewards.py", "from lib.on_policy import train"),
    ],
)
def test_an_import_from_above_is_noticed(copy, file, line):
    add(copy / "lib" / file, line)
    assert re.search("a file of lib imports from below.* BROKEN", lint(copy))


def test_a_file_without_a_layer_is_noticed(copy):
    (copy / "lib" / "utils.py").write_text('"""New."""\n')
    assert re.search("a file of lib imports from below.* BROKEN", lint(copy))


def test_a_circle_is_noticed(copy):
    add(copy / "lib" / "evaluate.py", "import lib.sft")  # they share a layer
    assert re.search("through others.* BROKEN", lint(copy))
