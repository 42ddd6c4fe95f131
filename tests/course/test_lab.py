"""`make lab` opens a real JupyterLab on the reader's folder; the set-up cell works there."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import notebooks

FLAGS = ["--no-browser", "--allow-root", "--port=8890", "--ServerApp.port_retries=99"]


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=30):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(the root of a copy of the book, the address of a JupyterLab that runs there)."""
    root = tmp_path_factory.mktemp("book")
    for name in ("lib", "labs", "notebooks", "tools"):
        shutil.copytree(notebooks.ROOT / name, root / name)
    for path in [*notebooks.ROOT.glob("*.txt"), notebooks.ROOT / "_config.yml"]:
        shutil.copy(path, root)
    command = [sys.executable, "-m", "tools.lab", *FLAGS]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    server = subprocess.Popen(command, cwd=root, **pipes)
    alarm = threading.Timer(120, server.kill)
    alarm.start()
    said = []
    try:
        for line in server.stdout:
            said.append(line)
            found = re.search(r"http://(?:localhost|127\.0\.0\.1):\S+token=\S+", line)
            if found:
                break
        assert said and found, "".join(said)
        while server.poll() is None and not answers(
            found[0]
        ):  # it speaks, then listens
            time.sleep(0.2)
        yield root, found[0]
    finally:
        alarm.cancel()
        server.kill()
        server.communicate()


def test_jupyterlab_opens_on_the_reader_s_own_folder(lab):
    address = lab[1]
    assert "/lab/tree/my?token=" in address
    with urllib.request.urlopen(address, timeout=30) as page:
        assert "JupyterLab" in page.read().decode()


def test_the_reader_s_folder_holds_chapters_and_exercises(lab):
    address = lab[1].replace("/lab/tree/my?", "/api/contents/my/exercises?")
    with urllib.request.urlopen(address, timeout=30) as answer:
        names = {entry["name"] for entry in json.load(answer)["content"]}
    assert names == {path.name for path in notebooks.exercises()}


def test_the_set_up_cell_finds_the_library_from_there(lab):
    root = lab[0]
    (cell,) = filter(
        notebooks.is_setup,
        notebooks.read(root / "my/exercises/01_thermostat.ipynb").cells,
    )
    code = f"{cell.source}\nimport labs.record, lib; print(lib.__file__)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=root / "my" / "exercises",
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()) == root / "lib" / "__init__.py"
