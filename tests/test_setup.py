"""The set-up cell, run for real in folders of its own; a repository on disk is GitHub."""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nbclient import NotebookClient

from tools import notebooks

ROOT = notebooks.ROOT
URL, BRANCH = notebooks.address()
NAME = URL.rsplit("/", 1)[1]
WHERE = """
import labs, lib
assert labs.__file__ == lib.__file__.replace("lib/__init__", "labs/__init__"), labs
print('uses', lib.__file__)"""
IN_IPYTHON = """
import sys
from IPython.core.interactiveshell import InteractiveShell
ran = InteractiveShell(colors="nocolor").run_cell(sys.stdin.read())
sys.exit(not ran.success)
"""


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a bare repository that holds what a reader's clone would."""
    folder = tmp_path_factory.mktemp("remote")
    work, bare = folder / "work", folder / "bare.git"
    for part in ("lib", "labs", "notebooks/records"):
        shutil.copytree(ROOT / part, work / part)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (
        ["init", "-q", "-b", BRANCH],
        ["add", "."],
        ["commit", "-qm", "a"],
    ):
        subprocess.run([*git, *arguments], cwd=work, check=True)
    subprocess.run([*git, "clone", "-q", "--bare", str(work), str(bare)], check=True)
    return bare.as_uri()


Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run(remote: str, tmp_path: Path) -> Run:
    """Run the cell up to its imports in a folder that knows nothing of this repository."""

    def start(folder: Path, *, before: str = "", url: str = remote, **environment: str):
        source = cell(url, tmp_path).partition("\nimport torch")[0]  # the rest is slow
        return subprocess.run(
            [sys.executable, "-c", f"{before}{source}{WHERE}"],
            cwd=folder,
            capture_output=True,
            text=True,
            env=bare_environment(tmp_path, **environment),
        )

    return start


def cell(url: str, tmp_path: Path) -> str:
    """The cell with another address, and with Colab's and Kaggle's folders in tmp_path."""
    source = notebooks.setup_source().replace(URL, url)
    for place in ("/content", "/kaggle/working"):
        source = source.replace(f'"{place}"', f'"{tmp_path}{place}"')
    return source


def bare_environment(tmp_path: Path, **more: str) -> dict[str, str]:
    keep = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MPLBACKEND": "agg"}
    return {**keep, "OMP_NUM_THREADS": "1", **more}


def used(ran: subprocess.CompletedProcess) -> Path:
    """The folder whose lib a successful run uses."""
    assert ran.returncode == 0, ran.stderr
    line = ran.stdout.splitlines()[-1]
    return Path(line.removeprefix("uses ")).parents[1]


def book_in(folder: Path) -> Path:
    """A copy of the book's code."""
    for part in ("lib", "labs"):
        shutil.copytree(ROOT / part, folder / part)
    return folder


def foreign(folder: Path) -> Path:
    """Somebody else's packages of the same names, with files that ours have too."""
    for name in ("lib/__init__", "lib/require", "lib/show/figures", "labs/__init__"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text("raise SystemError('not ours')")
    return folder


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ------------------------------------------------------------------ where it works


def test_it_is_plain_python_and_installs_nothing():
    source = notebooks.setup_source()
    ast.parse(source, feature_version=(3, 8))  # an old kernel is told so, not tripped
    assert "check_call" not in source and source.count("subprocess.run(") == 1
    assert max(map(len, source.splitlines())) <= 96


@pytest.mark.parametrize("place", ["", "notebooks", "notebooks/deep/deeper"])
def test_in_the_repository_it_uses_the_repository(run, tmp_path, place):
    book = book_in(tmp_path / "my book")
    assert used(run(made(book / place), url="file:///nowhere")) == book


@pytest.mark.parametrize("name", [NAME, f"{NAME}-{BRANCH}"])
def test_in_a_folder_beside_the_repository_it_uses_that(run, tmp_path, name):
    book = book_in(tmp_path / name)
    for place in ("work", "work/week 1"):
        assert used(run(made(tmp_path / place), url="file:///nowhere")) == book


def test_what_can_be_imported_already_is_used_before_anything_else(run, tmp_path):
    course = book_in(tmp_path / "course")
    elsewhere = made(tmp_path / "elsewhere")
    more = {"PYTHONPATH": str(course), "url": "file:///nowhere"}
    assert used(run(elsewhere, **more)) == course
    assert [*elsewhere.iterdir()] == []


def test_in_a_course_folder_it_uses_the_lib_above_the_assignment(run, tmp_path):
    course = book_in(tmp_path / "course")
    sheet = made(course / "source" / "ps1")
    assert used(run(sheet, url="file:///nowhere")) == course


def test_in_an_empty_folder_it_clones_once_into_that_folder(run, tmp_path):
    empty = made(tmp_path / "empty")
    first = run(empty)
    assert used(first) == empty / NAME
    assert [p.name for p in empty.iterdir()] == [NAME]
    assert first.stdout.startswith("Fetching the book's code into ")
    assert first.stdout.count("\n") == 2 and first.stderr == ""
    again = run(empty, url="file:///nowhere")
    assert used(again) == empty / NAME and again.stdout.count("\n") == 1


def test_running_the_cell_twice_in_one_kernel_is_harmless(run, tmp_path, remote):
    empty = made(tmp_path / "empty")
    ran = run(empty, before=cell(remote, tmp_path) + "\n")
    assert used(ran) == empty / NAME
    assert ran.stdout.count("Fetching") == 1


FAKE_COLAB = """import sys, types
sys.modules['google.colab'] = types.ModuleType('google.colab')
"""


def test_in_colab_it_clones_into_content_and_finds_it_from_everywhere(run, tmp_path):
    elsewhere, _ = made(tmp_path / "drive"), made(tmp_path / "content")
    for url in (None, "file:///nowhere"):
        more = {"url": url} if url else {}
        ran = run(elsewhere, before=FAKE_COLAB, **more)
        assert used(ran) == tmp_path / "content" / NAME
    assert [*elsewhere.iterdir()] == []


def test_on_kaggle_it_clones_into_working(run, tmp_path):
    elsewhere, _ = made(tmp_path / "src"), made(tmp_path / "kaggle" / "working")
    ran = run(elsewhere, KAGGLE_KERNEL_RUN_TYPE="Interactive")
    assert used(ran) == tmp_path / "kaggle" / "working" / NAME
    assert [*elsewhere.iterdir()] == []


def test_a_foreign_package_called_lib_is_not_taken_for_ours(run, tmp_path):
    here, path = foreign(tmp_path / "here"), foreign(tmp_path / "path")
    ran = run(here, PYTHONPATH=str(path))
    assert used(ran) == here / NAME


def test_a_folder_of_that_name_without_the_code_is_left_as_it_is(run, tmp_path):
    half = made(tmp_path / "here" / NAME / ".git")
    (half / "HEAD").write_text("ref: refs/heads/main")
    foreign(half.parent)
    ran = run(tmp_path / "here")
    assert used(ran) == tmp_path / "here" / f"{NAME}-{BRANCH}"
    assert (half / "HEAD").read_text() == "ref: refs/heads/main"


def test_a_clone_that_was_killed_half_way_does_not_stand_in_the_way(
    run, tmp_path, remote
):
    here, tools = made(tmp_path / "here"), made(tmp_path / "tools")
    slow = tools / "git"
    slow.write_text(
        "#!/bin/sh\nmkdir -p book/lib/worlds && touch book/lib/worlds/cups.py\nsleep 99\n"
    )
    slow.chmod(0o755)
    environment = bare_environment(tmp_path, PATH=f"{tools}:{os.environ['PATH']}")
    command = [sys.executable, "-c", cell(remote, tmp_path)]
    process = subprocess.Popen(
        command, cwd=here, env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while (
        not list(here.glob(".*/book/lib/worlds/cups.py"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    os.killpg(process.pid, 9)
    assert process.wait() == -9, "it was to be killed inside the clone"
    assert list(here.glob(".*/book/lib/worlds/cups.py")) and not (here / NAME).exists()
    assert used(run(here)) == here / NAME


# ------------------------------------------------------------- where it says what to do


def told(source: str, folder: Path, environment: dict[str, str]) -> str:
    """What a student sees of a set-up cell that cannot go on: all of it."""
    ran = subprocess.run(
        [sys.executable, "-c", IN_IPYTHON],
        input=source,
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert ran.returncode == 1, "the cell was to fail"
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
    *before, sentence = lines
    assert all(line.startswith("Fetching the book's code into") for line in before)
    return sentence


REMEDY = "unpack file:///nowhere/archive/main.zip in {here}, then run this cell again."


def test_an_address_that_cannot_be_reached_costs_one_sentence(tmp_path):
    here = made(tmp_path / "here")
    said = told(cell("file:///nowhere", tmp_path), here, bare_environment(tmp_path))
    assert said.startswith("Could not fetch the book's code (fatal: ")
    assert said.endswith(REMEDY.format(here=here)) and "Internet" in said
    assert [*here.iterdir()] == []


def test_a_machine_without_git_costs_one_sentence(tmp_path):
    here = made(tmp_path / "here")
    environment = bare_environment(tmp_path, PATH=str(made(tmp_path / "nothing")))
    said = told(cell("file:///nowhere", tmp_path), here, environment)
    assert "'git'" in said and said.endswith(REMEDY.format(here=here))


def test_a_folder_that_cannot_be_written_to_costs_one_sentence(tmp_path, remote):
    nowhere = tmp_path / "content"  # Colab's, which is not there
    said = told(
        FAKE_COLAB + cell("file:///nowhere", tmp_path),
        tmp_path,
        bare_environment(tmp_path),
    )
    assert str(nowhere) in said and said.endswith(REMEDY.format(here=nowhere))


def test_missing_packages_cost_one_sentence_that_names_them(tmp_path):
    bare = [sys.executable, "-S", "-E", "-c", cell("file:///nowhere", tmp_path)]
    ran = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1
    names = "torch numpy gymnasium matplotlib ipywidgets tqdm safetensors"
    sentence = f"Run  %pip install {names}  in a new cell, then this cell again."
    assert ran.stderr.splitlines()[-1].endswith(f"Stop: {sentence}")


# --------------------------------------------------------------- a downloaded chapter


def test_a_chapter_downloaded_into_an_empty_folder_runs(tmp_path, remote, monkeypatch):
    chapter = notebooks.read(ROOT / "notebooks" / "01_thermostat.ipynb")
    setup = next(c for c in chapter.cells if notebooks.is_setup(c))
    setup.source = cell(remote, tmp_path)
    chapter.cells.append(notebooks.setup_cell().copy())
    chapter.cells[-1].update(id="last", source=WHERE)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    empty = made(tmp_path / "Downloads")
    resources = {"metadata": {"path": str(empty)}}
    ran = NotebookClient(chapter, timeout=400, resources=resources).execute()
    assert (
        json.dumps(ran.cells[-1].outputs).count(f"{empty}/{NAME}/lib/__init__.py") == 1
    )
    assert [p.name for p in empty.iterdir()] == [NAME]
