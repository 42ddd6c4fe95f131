"""What a digest is taken over: the files that a file of lib really needs, and no other."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.digest import code_digest, sources

ROOT = Path(__file__).resolve().parents[1]
ABOVE = "on_policy.py"  # it needs much of lib


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """lib in another place, where it may be changed."""
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=ignored)
    return tmp_path / "lib"


def test_imports_that_lead_in_a_circle_or_to_one_s_own_package_are_followed(tmp_path):
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "top.py").write_text("def late():\n    from . import a, z\n")
    (lib / "a.py").write_text("from lib.b import *\nfrom lib import top")
    (lib / "b.py").write_text("from .a import x")
    (lib / "unused.py").write_text("")
    found = {file.name for file in sources(lib / "top.py")}
    assert found == {"top.py", "a.py", "b.py"}


def test_what_goes_into_it_is_what_python_imports():
    code = (
        "import sys, lib.on_policy\n"
        "ours = [m for n, m in sys.modules.items() if n.split('.')[0] == 'lib']\n"
        "print(*[m.__file__ for m in ours if m.__file__], sep='\\n')"
    )
    run = [sys.executable, "-c", code]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {Path(line) for line in said.stdout.splitlines()}
    assert sources(ROOT / "lib" / ABOVE) == imported
    assert len(imported) > 25


def test_it_does_not_depend_on_where_the_book_lies(copied):
    assert code_digest(copied / ABOVE) == code_digest(ROOT / "lib" / ABOVE)


def test_a_change_in_any_source_that_goes_into_it_changes_it(copied):
    top = copied / "logps.py"
    digests, used = {code_digest(top)}, sorted(sources(top))
    for file in used:
        text = file.read_text("utf-8")
        file.write_text(f"{text}\nANOTHER = 1\n", "utf-8")
        digests.add(code_digest(top))
        file.write_text(text, "utf-8")
    assert len(digests) == len(used) + 1 > 5


def test_a_change_elsewhere_does_not(copied):
    before = code_digest(copied / ABOVE)
    for name in ("direct.py", "show/figures.py", "worlds/cartpole.py", "rejection.py"):
        assert (copied / name).exists()
        (copied / name).write_text("")
    assert code_digest(copied / ABOVE) == before
