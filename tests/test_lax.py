"""The list of notebooks whose outputs are not compared: what it does, and who is on it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import mend, notebooks

ROOT = notebooks.ROOT
SECOND_EDITION = ("01", "02")  # chapters that are equal on every processor: never lax
LIST = 'listed = "trains in float32; second edition under way"\n'
RAN = re.compile(r"^notebooks/(\S+)::ipynb::Cell \d+ ([A-Z]+)", re.MULTILINE)
Outcomes = dict[str, list[str]]
LINK = "[Open in Colab](https://colab.research.google.com/x)"


def stored(*cells: tuple[str, str]) -> nbformat.NotebookNode:
    """A notebook of these sources and what they are said to have printed."""
    made = nbformat.v4.new_notebook()
    for count, (source, printed) in enumerate(cells, 1):
        output = nbformat.v4.new_output("stream", text=printed)
        cell = nbformat.v4.new_code_cell(source, execution_count=count)
        cell.outputs = [output] if printed else []
        made.cells.append(cell)
    return made


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book of the real conftest.py, one name on its list and no notebook yet."""
    for name in ("conftest.py", "tests/nbval.cfg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("lib", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    (tmp_path / "notebooks" / "lax.toml").write_text(LIST)
    return tmp_path


def nbval(book: Path, *flags: str, **cells: list[tuple[str, str]]) -> Outcomes:
    """Run nbval over these notebooks; the outcomes of the cells, as they ran."""
    for name, content in cells.items():
        path = book / "notebooks" / f"{name.replace('__', '/')}.ipynb"
        notebooks.write(path, stored(*content))
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-v"]
    command += ["-p", "no:cacheprovider", "--color=no", *flags, "notebooks"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        command, cwd=book, env=environment, capture_output=True, text=True
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found: dict[str, list[str]] = {}
    for name, outcome in RAN.findall(run.stdout):
        found.setdefault(name, []).append(outcome)
    return found


def test_a_changed_output_fails_unless_listed_and_a_raising_cell_always(book):
    good, false = ("print(1)", "1\n"), ("print(1)", "2\n")
    found = nbval(
        book,
        strict=[good, false],
        listed=[false, ("1 / 0", ""), false],
        solutions__listed=[false],
        solutions__strict=[false],
    )
    assert found == {
        "strict": ["PASSED", "FAILED"],
        "listed": ["PASSED", "FAILED", "PASSED"],
        "solutions/strict": ["FAILED"],
        "solutions/listed": ["PASSED"],
    }


def test_the_cells_of_a_notebook_keep_their_order_when_tests_are_shuffled(book):
    counting = [("n = 0", "")] + [("n += 1; print(n)", f"{k}\n") for k in range(1, 9)]
    others = {f"n{k}": [("print(1)", "1\n")] for k in range(4)}
    found = nbval(book, "--random-order-seed=3", counting=counting, **others)
    assert found == {"counting": ["PASSED"] * 9, **{n: ["PASSED"] for n in others}}
    assert list(found) != sorted(found)  # the notebooks do change places


def test_a_list_that_is_not_there_lists_nothing(book):
    (book / "notebooks" / "lax.toml").unlink()
    assert notebooks.lax(book) == {}
    assert not notebooks.is_lax(book / "notebooks" / "listed.ipynb", book)


def test_a_notebook_elsewhere_of_a_listed_name_is_strict(book):
    assert notebooks.is_lax(book / "notebooks" / "solutions" / "listed.ipynb", book)
    assert not notebooks.is_lax(book / "elsewhere" / "listed.ipynb", book)


def test_the_line_stands_below_the_link_once_and_goes_with_the_list():
    title = f"# 3 · Title\n\n{LINK}\n\nText about digits."
    once = mend.noted(title, lax=True)
    assert once == f"# 3 · Title\n\n{LINK}\n\n{mend.NOTE}\n\nText about digits."
    assert mend.noted(once, lax=True) == once
    assert mend.noted(once, lax=False) == title
    assert mend.noted(once.replace("your machine", "yours"), lax=True) == once
    bare = f"# Title\n\n{LINK}"
    assert mend.noted(bare, lax=True) == f"{bare}\n\n{mend.NOTE}"
    assert mend.noted(mend.noted(bare, lax=True), lax=False) == bare


def test_the_tool_that_mends_writes_the_line_and_takes_it_away(book):
    shutil.copy(ROOT / "_config.yml", book)
    paths = [book / "notebooks" / f"{name}.ipynb" for name in ("listed", "strict")]
    for path in paths:
        title = f"# Title\n\n{notebooks.colab_link(path, book)}"
        cells = [nbformat.v4.new_markdown_cell(title)]
        notebooks.write(path, nbformat.v4.new_notebook(cells=cells))

    def noted() -> list[bool]:
        return [mend.NOTE in notebooks.read(path).cells[0].source for path in paths]

    assert len(mend.mend(book, check=True)) == 1 and noted() == [False, False]
    mend.mend(book, check=False)
    assert noted() == [True, False] and mend.mend(book, check=True) == []
    (book / "notebooks" / "lax.toml").write_text(LIST.replace("listed", "strict"))
    mend.mend(book, check=False)
    assert noted() == [False, True]


def faults(root: Path) -> list[str]:
    """What is wrong with the list: it holds chapters that await their second edition."""
    said = []
    for name, reason in notebooks.lax(root).items():
        if not (root / "notebooks" / f"{name}.ipynb").is_file():
            said.append(f"{name}: no such notebook")
        if name[:2] in SECOND_EDITION:
            said.append(f"{name}: is ready, and strict")
        if "second edition" not in str(reason):
            said.append(f"{name}: its reason does not name the second edition")
    return said


def test_the_list_names_chapters_that_await_their_second_edition():
    assert faults(ROOT) == []
    assert notebooks.lax()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('99_gone = "second edition under way"', "99_gone: no such notebook"),
        (
            'listed = "it differs"',
            "listed: its reason does not name the second edition",
        ),
        ("listed = 3", "listed: its reason does not name the second edition"),
        ('01_ready = "second edition under way"', "01_ready: is ready, and strict"),
    ],
)
def test_a_bad_line_of_the_list_is_noticed(book, line, complaint):
    for name in ("listed", "01_ready"):
        notebooks.write(book / "notebooks" / f"{name}.ipynb", stored())
    assert faults(book) == []
    (book / "notebooks" / "lax.toml").write_text(line + "\n")
    assert faults(book) == [complaint]
