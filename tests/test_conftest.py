"""What conftest.py promises: how many threads there are, and that no test changes it."""

import os
import shutil
import subprocess
import sys

import pytest

from tools import notebooks

TESTS = """
import os
import matplotlib, torch

def test_good(monkeypatch, tmp_path):
    monkeypatch.setenv("HERE", "1")
    monkeypatch.chdir(tmp_path)
    with matplotlib.rc_context({"font.size": 5}), torch.no_grad():
        assert matplotlib.rcParams["font.size"] == 5

def test_font():
    matplotlib.rcParams["font.size"] = 5

def test_environment():
    os.environ["HERE"] = "1"

def test_folder():
    os.chdir("/")

def test_threads():
    torch.set_num_threads(torch.get_num_threads() + 1)

def test_type():
    torch.set_default_dtype(torch.float64)

def test_gradients():
    torch.set_grad_enabled(False)
"""
CHANGED = {
    "font": "matplotlib's font.size",
    "environment": "$HERE",
    "folder": "the working folder",
    "threads": "torch's threads",
    "type": "torch's default type",
    "gradients": "whether torch takes gradients",
}


def test_a_test_that_changes_what_others_share_fails(tmp_path):
    shutil.copy(notebooks.ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_tiny.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no"]
    command += ["-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    wide = {**os.environ, "COLUMNS": "200"}  # or pytest cuts its summary short
    run = subprocess.run(
        command, cwd=tmp_path, env=wide, capture_output=True, text=True
    )
    assert "7 passed, 6 errors" in run.stdout, run.stdout + run.stderr
    for name, what in CHANGED.items():
        assert (
            f"test_{name} - AssertionError: the test changed for those after it: {what}"
            in (run.stdout)
        )


@pytest.mark.parametrize(
    ("asked", "got"), [({}, "1"), ({"RLHF_EXECUTED_THREADS": "2"}, "2")]
)
def test_tests_run_on_one_thread_unless_asked_for_more(asked, got):
    code = "import conftest, torch; print(torch.get_num_threads())"
    clean = {k: v for k, v in os.environ.items() if k != "RLHF_EXECUTED_THREADS"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=notebooks.ROOT,
        env={**clean, "OMP_NUM_THREADS": "7", **asked},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout.strip()) == (0, got), run.stderr
