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


def test_lib_never_imports_labs():
    assert lint(ROOT) == ""


def test_an_import_of_labs_in_lib_is_noticed(copy):
    with open(copy / "lib" / "losses" / "pairs.py", "a", encoding="utf-8") as code:
        code.write("\nimport labs\n")
    assert re.search("lib never imports labs.* BROKEN", lint(copy))
