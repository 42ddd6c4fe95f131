"""What keeps the book from running on one kind of machine only."""

import importlib.metadata
import re
import subprocess
import sys

import yaml
from packaging.specifiers import SpecifierSet

from tests.house.library import modules
from tools import notebooks

ROOT = notebooks.ROOT
UNIX = "fcntl resource pwd grp termios tty pty syslog crypt spwd nis readline".split()
PROMISED = ("3.11.0", "3.11.2", "3.12.0", "3.13.0")  # the oldest micro of each Python

WITHOUT_UNIX = f"""
import importlib, sys
import torch, gymnasium, matplotlib.pyplot, ipywidgets, tqdm  # what is not ours

class Blocked:
    def find_spec(self, name, *rest):
        if name in {UNIX}:
            raise ImportError(f"no {{name}} on this machine")

for name in {UNIX}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocked())
"""


def without_unix(code: str) -> str:
    """Run code in a process that has none of Unix's modules; what it prints."""
    command = [sys.executable, "-c", WITHOUT_UNIX + code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_file_of_lib_is_imported_where_there_are_no_unix_modules():
    names = [f"lib.{name}" for name in modules(ROOT)]
    said = without_unix(
        f"for name in {names}: importlib.import_module(name)\n"
        "print(sum(name.startswith('lib.') for name in sys.modules))\n"
        "try: import fcntl\n"
        "except ImportError as error: print(error)"
    )
    count, refused = said.splitlines()
    assert int(count) >= len(names) > 50
    assert refused == "no fcntl on this machine"


def refusing(requires: str) -> list[str]:
    """The promised Pythons that a package's Requires-Python does not admit."""
    return [python for python in PROMISED if python not in SpecifierSet(requires)]


def pins() -> list[tuple[str, str]]:
    """(package, version) of every line that pins one."""
    names = ("requirements.txt", "requirements-dev.txt", "constraints.txt")
    lines = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)
    return re.findall(r"^([\w.-]+)==([\w.]+)$", lines, re.MULTILINE)


def test_every_pin_admits_the_oldest_of_each_python_that_is_promised():
    said = []
    for name, version in pins():
        found = importlib.metadata.distribution(name)
        assert found.version.partition("+")[0] == version, (
            f"{name} is not the pinned one"
        )
        refused = refusing(found.metadata.get("Requires-Python") or "")
        said += [f"{name} {version}: not for Python {python}" for python in refused]
    assert not said, said
    assert refusing(">=3.11.5") == ["3.11.0", "3.11.2"]


def test_the_workflow_runs_everything_on_each_promised_python_and_on_arm64():
    file = ROOT / ".github" / "workflows" / "book.yml"
    jobs = yaml.safe_load(file.read_text("utf-8"))["jobs"]
    found = set()
    for job in jobs.values():
        if {"run": ".ci/run"} not in job["steps"]:
            continue
        matrix = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
        given = [s.get("with", {}).get("python-version") for s in job["steps"]]
        for row in matrix:
            where = job.get("container") or row.get("runner") or job["runs-on"]
            found.add((where, row.get("python") or next(filter(None, given), None)))
    assert found == {
        ("ubuntu-latest", "3.12"),
        ("ubuntu-latest", "3.13"),
        ("ubuntu-24.04-arm", "3.12"),
        ("debian:12", None),  # its own, 3.11.2
    }
    assert set(jobs["publish"]["needs"]) == {"build", "debian", "others"}
