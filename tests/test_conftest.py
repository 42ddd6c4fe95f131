"""A test that changes what all tests share is noticed, and one that does not is left alone."""

import os
import shutil
import subprocess
import sys

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
