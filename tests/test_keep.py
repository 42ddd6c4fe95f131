"""A reader's work survives every command of the book, and the next version of it.

The Makefile's own recipes run on a small book. Of what they call, the commands in REAL run;
the others are only noted, and each must be one that writes nowhere but where ELSEWHERE says.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from tqdm import tqdm

from tools import course, execute, extras, keep, lab, mend, notebooks

ROOT = notebooks.ROOT
TOOLS = ("mend", "student", "execute", "lab", "course")
REAL = [f"-m tools.{name}" for name in TOOLS]
ELSEWHERE = {
    "-c from jupyter_book": "_build",
    "-c from pathlib": "nothing",
    "-m ruff check": ".ruff_cache",
    "-m pytest": "caches, and _build/look",
    "-m http.server": "nothing",
    "-m tools.models": "lib/weights",
    "-m tools.extras": ".venv",
    "-m tools.pdf": "_build",
    "-m mutmut": "mutants",
    "-m labs.record": "notebooks/records",
    "-c import json": "nothing",
}
PYTHON = """#!{python}
import os, sys
words = " ".join(sys.argv[1:])
if words.startswith({real}):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with open("noted", "a") as file:
    print(words.splitlines()[0], file=file)
"""
SOLVED = "def one():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
MINE = "def one():\n    return 2 - 1  # mine"


def exercise(text: str = "Write one().") -> NotebookNode:
    marks = {"grade_id": "one", "grade": False, "solution": True, "locked": False}
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(text, id="a"),
            nbformat.v4.new_code_cell("", id="f", metadata={"tags": ["hide-input"]}),
            nbformat.v4.new_code_cell(SOLVED, id="b", metadata={"nbgrader": marks}),
        ]
    )


def make(book: Path, target: str) -> str:
    """Run a target in a book; what it printed."""
    command = ["make", "-o", "environment", f"PY={book / 'python'}", target]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    run = subprocess.run(
        [*command, "LAB_FLAGS=--copy-only"],
        cwd=book,
        env={**environment, "PYTHONPATH": str(book)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, f"make {target}\n{run.stdout}"
    return run.stdout


def targets() -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^\.PHONY:(.*)", text, re.MULTILINE)
    return [name for line in found for name in line.split() if name != "environment"]


def type_into(path: Path, source: str = MINE) -> bytes:
    """What an editor does: change a cell and save in its own layout; the file's bytes."""
    notebook = notebooks.read(path)
    notebook.cells[-1].source = source
    path.write_text(nbformat.writes(notebook, indent=4), encoding="utf-8")
    return path.read_bytes()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book of one chapter, in a folder of its own."""
    book = tmp_path / "book"
    for name in ("tools", "lib", "labs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, book / name, ignore=ignore)
    for name in ("Makefile", "_config.yml", *course.REQUIREMENTS):
        shutil.copy(ROOT / name, book)
    chapter = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("print(1)", id="a")]
    )
    notebooks.write(book / "notebooks" / "01_a.ipynb", chapter)
    notebooks.write(book / "notebooks" / "solutions" / "01_a.ipynb", exercise())
    python = book / "python"
    python.write_text(PYTHON.format(python=sys.executable, real=tuple(REAL)))
    python.chmod(0o755)
    return book


def test_what_a_reader_typed_survives_every_target_byte_for_byte(book):
    for target in ("book", "lab", "course"):
        make(book, target)
    wrote = {
        path: type_into(book / path)
        for path in (
            "notebooks/exercises/01_a.ipynb",
            "my/exercises/01_a.ipynb",
            "my/01_a.ipynb",
            "_course/source/01_a/01_a.ipynb",
        )
    }
    type_into(book / "notebooks" / "01_a.ipynb", "print(2)  # mine")
    assert {"book", "serve", "execute", "test", "lab", "course"} <= set(targets())
    for target in targets():
        said = make(book, target)
        for path, data in wrote.items():
            assert (book / path).read_bytes() == data, f"make {target}: {path}\n{said}"
        chapter = notebooks.read(book / "notebooks" / "01_a.ipynb")
        assert chapter.cells[0].source == "print(2)  # mine", f"make {target}"
        if target in ("book", "execute"):
            assert "exercises/01_a.ipynb holds your edits: left as it is" in said
            assert chapter.cells[0].outputs[0].text == "2\n"
        if target == "course":
            assert "source/01_a/01_a.ipynb: not as this command wrote it" in said
    noted = (book / "noted").read_text().splitlines()
    unknown = [line for line in noted if not line.startswith(tuple(ELSEWHERE))]
    assert noted and not unknown, f"to REAL or ELSEWHERE with {unknown}"


def test_the_next_version_lies_beside_what_the_reader_wrote(book):
    make(book, "book")
    make(book, "lab")
    theirs = [book / "notebooks/exercises/01_a.ipynb", book / "my/exercises/01_a.ipynb"]
    wrote = [type_into(theirs[0]), type_into(theirs[1], MINE + "!")]
    source = book / "notebooks" / "solutions" / "01_a.ipynb"
    notebooks.write(source, exercise("Write one() in one line."))
    make(book, "book")
    said = make(book, "lab")
    assert [path.read_bytes() for path in theirs] == wrote
    assert "another version lies beside it: 01_a.2.ipynb" in said
    assert (book / "my/exercises/01_a.2.ipynb").read_bytes() == wrote[0]

    theirs[0].unlink()  # as the house's complaint says
    make(book, "book")
    make(book, "lab")
    newest = notebooks.read(book / "my/exercises/01_a.3.ipynb")
    assert newest.cells[0].source == "Write one() in one line."
    before = sorted((book / "my").rglob("*"))
    assert "beside" not in make(book, "lab")
    assert sorted((book / "my").rglob("*")) == before
    assert theirs[1].read_bytes() == wrote[1]


def test_a_copy_in_the_reader_s_folder_that_was_deleted_is_laid_there_again(book):
    make(book, "lab")
    (book / "my" / "01_a.ipynb").unlink()
    make(book, "lab")
    assert (book / "my" / "01_a.ipynb").exists()
    assert not (book / "my" / "01_a.2.ipynb").exists()


def test_a_file_that_is_no_notebook_any_more_is_left_too(book):
    make(book, "book")
    path = book / "notebooks" / "exercises" / "01_a.ipynb"
    path.write_text("<<<<<<< mine")
    assert "holds your edits" in make(book, "book")
    assert path.read_text() == "<<<<<<< mine"


def test_a_notebook_saved_while_it_runs_is_left_as_it_was_saved(tmp_path):
    path = tmp_path / "01_a.ipynb"
    save = (
        "import pathlib; _ = pathlib.Path('01_a.ipynb').write_text('saved meanwhile')"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(save)])
    notebooks.write(path, notebook)
    with pytest.raises(execute.NotebookError, match="saved it while it ran; left"):
        asyncio.run(execute.run(path, tqdm(disable=True), tmp_path))
    assert path.read_text() == "saved meanwhile"


def test_an_address_is_not_carried_over_edits_without_a_copy(book, capsys):
    chapter = book / "notebooks" / "01_a.ipynb"
    cell = notebooks.setup_cell(book)
    cell.source = cell.source + "\nmine = 1"
    notebooks.write(chapter, nbformat.v4.new_notebook(cells=[cell]))
    wrote = chapter.read_bytes()
    mend.mend(book, check=False)
    assert notebooks.read(chapter).cells[0].source == notebooks.setup_source(book)
    kept = book / "my" / "aside" / "notebooks" / "01_a.ipynb"
    assert kept.read_bytes() == wrote
    assert "my/aside/notebooks/01_a.ipynb" in capsys.readouterr().out


def test_what_git_holds_needs_no_copy(book):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "notebooks"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], cwd=book, check=True)
    path = book / "notebooks" / "01_a.ipynb"
    assert keep.committed(path, book)
    path.write_text("mine")
    assert not keep.committed(path, book)
    assert not keep.committed(book / "Makefile", book)  # not added


def test_a_course_is_renewed_where_nobody_changed_it_and_left_where_somebody_did(book):
    folder = book / "elsewhere"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "ops.py").write_text("theirs from before")
    assert course.write(folder, book) == ["lib/ops.py"]
    (book / "lib" / "kl.py").write_text("new = 1\n")
    (folder / "grading.py").write_text("mine")
    assert course.write(folder, book) == ["grading.py", "lib/ops.py"]
    assert course.write(folder, book) == ["grading.py", "lib/ops.py"]
    assert (folder / "lib" / "kl.py").read_text() == "new = 1\n"
    assert (folder / "grading.py").read_text() == "mine"
    assert (folder / "lib" / "ops.py").read_text() == "theirs from before"


def test_a_course_brings_all_the_code_that_a_notebook_imports(tmp_path):
    assert course.write(tmp_path) == []
    (tmp_path / "sheet").mkdir()
    names = [f"labs.{path.stem}" for path in (ROOT / "labs").glob("*.py")]
    code = notebooks.setup_source().partition("\nimport torch")[0]
    code += f"\nimport importlib\nfor name in {names}: importlib.import_module(name)"
    code += "\nimport lib, labs.record\nprint(lib.__file__, labs.record.__file__)"
    code += "\nassert labs.record.records()[0].read()"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "sheet",
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    found = [f"{tmp_path}/{name}.py" for name in ("lib/__init__", "labs/record")]
    assert (run.returncode, run.stdout.split()) == (0, found), run.stderr


def test_a_course_leads_students_to_their_own_version_and_to_the_repository():
    made = course.source_notebook(notebooks.read(notebooks.solutions()[0]))
    text = notebooks.text_of(made)
    url, branch = notebooks.address()
    assert "/notebooks/exercises/01_thermostat.ipynb" in text
    assert "/notebooks/solutions/" not in text and "](../" not in text
    assert f"]({url}/blob/{branch}/notebooks/01_thermostat.ipynb)" in text
    assert text.count("### BEGIN SOLUTION") == text.count("### END SOLUTION") > 0


def test_names_that_are_taken_are_passed_over(tmp_path):
    path = tmp_path / "a.ipynb"
    assert keep.free(path) == path
    for name in ("a.ipynb", "a.2.ipynb"):
        (tmp_path / name).touch()
    assert keep.free(path).name == "a.3.ipynb"


def test_extras_are_installed_only_where_they_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    here = extras._has("pytest")
    (tmp_path / "r.txt").write_text(f"-c x.txt\npytest=={here}\nno-such==1\ntqdm==0\n")
    assert extras.missing("r.txt") == ["no-such==1", "tqdm==0"]
    (tmp_path / "r.txt").write_text(f"pytest=={here}\n")
    extras.need("r.txt")  # no network is needed


def test_the_lab_s_folder_has_every_chapter_and_exercise(book):
    assert lab.copy(book) == []
    notebooks.write(book / "notebooks" / "exercises" / "01_a.ipynb", exercise())
    assert lab.copy(book) == []
    found = sorted(
        p.relative_to(book / "my").as_posix() for p in book.glob("my/**/*.ipynb")
    )
    assert found == ["01_a.ipynb", "exercises/01_a.ipynb"]
