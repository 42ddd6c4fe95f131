"""The tools themselves, tried on notebooks of a few lines."""

import ast
import asyncio
import importlib.util
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from tqdm import tqdm

from tools import execute, mend, notebooks, preflight, student

SOLVED = '''\
def double(x: float) -> float:
    """Twice x."""
    ### BEGIN SOLUTION
    y = 2 * x
    return y
    ### END SOLUTION'''
STUB = '''\
def double(x: float) -> float:
    """Twice x."""
    # YOUR CODE HERE
    raise NotImplementedError()'''
CHECKED = """\
assert double(2) == 4
### BEGIN HIDDEN TESTS
assert double(3) == 6
### END HIDDEN TESTS
assert double(0) == 0"""


def marks(name: str, **more: object) -> dict[str, object]:
    flags = {"grade": False, "solution": False, "locked": False, "task": False}
    return {"nbgrader": {"schema_version": 3, "grade_id": name, **flags, **more}}


def code(source: str, name: str, **metadata: object) -> NotebookNode:
    return nbformat.v4.new_code_cell(source, id=name, metadata=metadata)


def text(source: str, name: str, **metadata: object) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(source, id=name, metadata=metadata)


def changed(cell: NotebookNode, **fields: object) -> NotebookNode:
    return NotebookNode({**cell, **fields})


def notebook_of(*cells: NotebookNode) -> NotebookNode:
    return nbformat.v4.new_notebook(cells=list(cells))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book of one address, two files of lib and no notebook yet."""
    shutil.copy(notebooks.ROOT / "_config.yml", tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    (tmp_path / "lib" / "low.py").write_text("one = 1\n")
    (tmp_path / "lib" / "high.py").write_text("from lib import low\n")
    (tmp_path / "lib" / "high.js").write_text("let one = 1\n")
    (tmp_path / "lib" / "apart.py").write_text("two = 2\n")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


# ------------------------------------------------------------------ student


def exercise() -> NotebookNode:
    fold = {
        "tags": ["hide-input", "kept"],
        "mystnb": {"code_prompt_show": "Show solution"},
        "jupyter": {"source_hidden": True},
        "cellView": "form",
    }
    return notebook_of(
        code(SOLVED, "a", **marks("ex1_1", solution=True), **fold),
        code(CHECKED, "b", **marks("ex1_1_check", grade=True, locked=True, points=2)),
        text("Because.", "c", **marks("ex1_2", grade=True, solution=True, points=1)),
        text("[Open in Colab](…/blob/main/notebooks/solutions/01.ipynb)", "d"),
    )


def test_a_student_notebook_holds_stubs_and_no_answers():
    stub, check, answer, link = student.student_notebook(exercise()).cells
    assert stub.source == STUB
    assert answer.source == "YOUR ANSWER HERE"
    assert check.source == "assert double(2) == 4\nassert double(0) == 0"
    assert link.source.endswith("/notebooks/exercises/01.ipynb)")


def test_a_student_notebook_keeps_nbgrader_s_marks_and_unfolds_the_stub():
    source = exercise()
    made = student.student_notebook(source)
    for before, after in zip(source.cells, made.cells, strict=True):
        assert after.metadata.get("nbgrader") == before.metadata.get("nbgrader")
    assert made.cells[0].metadata.get("tags") == ["kept"]
    assert not {"mystnb", "jupyter", "cellView"} & set(made.cells[0].metadata)
    assert made.cells[1].metadata["tags"] == ["raises-exception"]


def test_making_a_student_notebook_leaves_its_source_alone():
    source = exercise()
    before = notebooks.text_of(source)
    student.student_notebook(source)
    assert notebooks.text_of(source) == before


def test_a_stray_marker_is_refused():
    for source in (SOLVED.replace("    ### END SOLUTION", ""), "### END SOLUTION"):
        cell = code(source, "a", **marks("x", solution=True))
        with pytest.raises(ValueError, match="stray"):
            student.student_notebook(notebook_of(cell))


def test_two_solutions_in_one_cell_become_two_stubs():
    cell = code(f"{SOLVED}\n\n{SOLVED}", "a", **marks("x", solution=True))
    made = student.student_notebook(notebook_of(cell)).cells[0].source
    assert made == f"{STUB}\n\n{STUB}"


# ------------------------------------------------------------- fingerprints


def test_lib_files_are_found_through_one_another(book):
    found = notebooks.lib_files(["from lib.high import low"], book)
    assert [f.name for f in found] == ["__init__.py", "high.js", "high.py", "low.py"]
    assert notebooks.lib_files(["import torch"], book) == []


def test_the_fingerprint_of_lib_changes_with_what_is_imported_and_nothing_else(book):
    notebook = notebook_of(code("from lib import high", "a"))
    before = notebooks.fingerprints(notebook, book)
    (book / "lib" / "apart.py").write_text("two = 3\n")
    assert notebooks.fingerprints(notebook, book) == before
    for name in ("low.py", "high.js"):
        now = notebooks.fingerprints(notebook, book)
        (book / "lib" / name).write_text("one = 2\n")
        after = notebooks.fingerprints(notebook, book)
        assert {k for k in after if after[k] != now[k]} == {"lib"}


def test_the_fingerprints_tell_cells_from_outputs():
    cell = code("print(1)", "a")
    before = notebooks.fingerprints(notebook_of(cell))
    output = nbformat.v4.new_output("stream", text="1\n")
    shown = notebooks.fingerprints(notebook_of(changed(cell, outputs=[output])))
    assert {k for k in shown if shown[k] != before[k]} == {"outputs"}
    edited = notebooks.fingerprints(notebook_of(changed(cell, source="print(2)")))
    assert {k for k in edited if edited[k] != before[k]} == {"cells"}


def test_prose_and_the_setup_cell_are_not_part_of_the_fingerprint(book):
    cell = code("print(1)", "a")
    before = notebooks.fingerprints(notebook_of(notebooks.setup_cell(book), cell), book)
    other = changed(notebooks.setup_cell(book), source="import lib")
    after = notebooks.fingerprints(notebook_of(text("Hm.", "t"), other, cell), book)
    assert before["cells"] == after["cells"]


def test_a_notebook_is_written_the_same_way_twice_and_whole(tmp_path):
    path = tmp_path / "01.ipynb"
    assert notebooks.write(path, exercise())
    first = path.read_bytes()
    assert not notebooks.write(path, notebooks.read(path))
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["01.ipynb"]


# --------------------------------------------------------------------- mend


def test_tags_fold_cells_in_jupyterlab_and_colab_and_their_absence_opens_them():
    shut = {"jupyter": {"source_hidden": True, "kept": 1}, "cellView": "form"}
    cells = [
        code("1", "input", tags=["hide-input"]),
        code("1", "output", tags=["hide-output"]),
        code("1", "cell", tags=["hide-cell"]),
        code("1", "open", **shut),
        text("Hm.", "text", tags=["hide-cell"]),
    ]
    notebook = notebook_of(*cells)
    before = notebooks.fingerprints(notebook)
    assert mend.fold(notebook) == ["input", "output", "cell", "open"]
    found = [
        (c.metadata.get("jupyter"), c.metadata.get("cellView")) for c in notebook.cells
    ]
    assert found == [
        ({"source_hidden": True}, "form"),
        ({"outputs_hidden": True}, None),
        ({"source_hidden": True, "outputs_hidden": True}, "form"),
        ({"kept": 1}, None),
        (None, None),
    ]
    nbformat.validate(notebook)
    assert mend.fold(notebook) == []
    assert notebooks.fingerprints(notebook) == before


def test_the_setup_cell_is_folded_as_its_tag_says():
    assert mend.fold(notebook_of(notebooks.setup_cell())) == []


def test_folds_are_written_once_and_a_check_only_names_them(book):
    path = book / "notebooks" / "01_a.ipynb"
    notebooks.write(path, notebook_of(code("1", "a", tags=["hide-input"])))
    first = path.read_bytes()
    assert mend.mend(book, check=True) == ["notebooks/01_a.ipynb: cell a"]
    assert path.read_bytes() == first
    assert mend.mend(book, check=False) == ["notebooks/01_a.ipynb: cell a"]
    assert mend.mend(book, check=True) == []


# ------------------------------------------------------------------ execute


def run(path: Path, book: Path) -> None:
    with tqdm(disable=True) as bar:
        asyncio.run(execute.run(path, bar, book))


def test_execute_stores_outputs_twice_the_same_and_knows_them_as_fresh(book):
    path = book / "notebooks" / "01_a.ipynb"
    source = "import sys\nprint('a')\nprint('b')\nsys.stdout.flush()\nprint('c')"
    notebooks.write(path, notebook_of(code(source, "a"), text("Hm.", "t")))
    assert notebooks.stale(notebooks.read(path), book) == ["cells", "lib", "outputs"]
    run(path, book)
    first = path.read_bytes()
    notebook = notebooks.read(path)
    assert notebooks.stale(notebook, book) == []
    assert [o.text for o in notebook.cells[0].outputs] == ["a\nb\nc\n"]
    assert "execution" not in notebook.cells[0].metadata
    run(path, book)
    assert path.read_bytes() == first


def test_execute_leaves_the_file_alone_when_a_cell_raises_and_names_the_cell(book):
    path = book / "notebooks" / "01_a.ipynb"
    cells = [code("print('fine')", "a"), code("wrong = 1 / 0", "b")]
    notebooks.write(path, notebook_of(*cells))
    before = path.read_bytes()
    with pytest.raises(
        execute.NotebookError, match=r"wrong = 1 / 0\n(.*\n)*ZeroDivision"
    ):
        run(path, book)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["01_a.ipynb"]


def test_execute_refuses_what_is_no_notebook_of_the_book(capsys):
    assert execute.main(["nowhere.ipynb"]) == 2
    assert "no notebook of the book" in capsys.readouterr().err


def test_a_fork_changes_one_line_and_everything_follows(book):
    old = notebooks.address(book)[0].removeprefix("https://github.com/")
    path = book / "notebooks" / "01_a.ipynb"
    cells = [
        text(f"# A\n\n{notebooks.colab_link(path, book)}", "a"),
        notebooks.setup_cell(book),
    ]
    notebooks.write(path, notebook_of(*cells))
    cited = f'repository-code: "https://github.com/{old}"\n'
    (book / "CITATION.cff").write_text(cited)
    other = (
        "https://github.com/rlhf-executed/rlhf-executed-data, https://github.com/a/b"
    )
    page = f"https://github.com/{old}/blob/main/x and https://github.com/{old}.git, {other}"
    (book / "README.md").write_text(page)
    assert mend.mend(book, check=True) == []

    config = (book / "_config.yml").read_text().replace(old, "someone/fork")
    (book / "_config.yml").write_text(config.replace("branch: main", "branch: trunk"))
    assert len(mend.mend(book, check=True)) == 4
    assert mend.mend(book, check=False)
    assert mend.mend(book, check=True) == []
    assert notebooks.book_address(book) == "https://someone.github.io/fork/"
    mended = notebooks.read(path)
    assert "/someone/fork/blob/trunk/notebooks/01_a.ipynb" in mended.cells[0].source
    told = 'URL, BRANCH = "https://github.com/someone/fork", "trunk"'
    assert told in mended.cells[1].source
    assert 'NAMES = ["fork", "fork-trunk"]' in mended.cells[1].source
    said = (book / "README.md").read_text()
    base = "https://github.com/someone/fork"
    assert said == f"{base}/blob/trunk/x and {base}.git, {other}"


# ---------------------------------------------------------------- preflight


def test_preflight_parses_under_old_pythons():
    source = (notebooks.ROOT / "tools" / "preflight.py").read_text()
    ast.parse(source, feature_version=(3, 7))
    assert not any(isinstance(n, ast.JoinedStr) for n in ast.walk(ast.parse(source)))


def test_preflight_says_in_one_line_that_python_is_too_old(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 8, 1))
    with pytest.raises(SystemExit) as stopped:
        preflight.check_python()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "3.8" in said and "3.11" in said and said.count("\n") == 1


def test_preflight_says_in_one_line_that_the_disk_is_too_small(monkeypatch, capsys):
    nearly_full = shutil.disk_usage("/")._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    with pytest.raises(SystemExit):
        preflight.check_disk()
    said = capsys.readouterr().err
    assert "0.1 GB free" in said and said.count("\n") == 1


def test_preflight_knows_where_an_environment_s_python_lies_on_windows(monkeypatch):
    with monkeypatch.context() as windows:
        windows.setattr(preflight.os, "name", "nt")
        found = preflight.venv_python()
    assert Path(found).parts[-3:] == (".venv", "Scripts", "python.exe")
    assert Path(preflight.venv_python()).parts[-3:] == (".venv", "bin", "python")


def test_preflight_knows_what_pip_means():
    assert "No network" in preflight.why(
        "… NewConnectionError(…) …\nERROR: No matching …"
    )
    assert "disk is full" in preflight.why(
        "OSError: [Errno 28] No space left on device"
    )
    assert "no build" in preflight.why(
        "ERROR: No matching distribution found for torch"
    )
    assert "something else" in preflight.why("ERROR: something else")


# ---------------------------------------------------------------- the pages


def test_a_page_shows_no_marker_lines_and_no_hidden_tests(pages):
    assert "###" not in pages.page_source("code", f"{SOLVED}\n{CHECKED}", "…")
    assert "double(3)" not in pages.page_source("code", CHECKED, "…")
    assert "return y" in pages.page_source("code", SOLVED, "…")


def test_a_page_leads_to_folded_solutions_and_colab_to_the_student_s_notebook(pages):
    def shown(source: str) -> str:
        return pages.page_source("markdown", source, "https://repo")

    assert shown("[e](exercises/01_a.ipynb)") == "[e](solutions/01_a.ipynb)"
    base = "https://colab.research.google.com/github/a/b/blob/main/notebooks"
    assert shown(f"[c]({base}/solutions/01.ipynb)") == f"[c]({base}/exercises/01.ipynb)"
    for file in ("lib/ops.py", "labs/record.py"):
        assert shown(f"[l](../{file})") == f"[l](https://repo/{file})"
    assert shown("[n](../01_a.ipynb)") == "[n](../01_a.ipynb)"


def test_the_download_button_of_an_exercise_gives_the_student_s_notebook(
    pages, tmp_path
):
    source, output = tmp_path / "source", tmp_path / "html"
    folders = [source / "notebooks" / "exercises", output / "_sources" / "notebooks"]
    for folder in (*folders, folders[1] / "solutions"):
        folder.mkdir(parents=True)
    solved = notebooks.text_of(exercise())
    stubs = notebooks.text_of(student.student_notebook(exercise()))
    (folders[0] / "01_a.ipynb").write_text(stubs, "utf-8")
    for place in ("01_a.ipynb", "solutions/01_a.ipynb"):
        (folders[1] / place).write_text(solved, "utf-8")
    changed = folders[1] / "solutions" / "01_a.ipynb"
    assert pages.student_downloads(source, output) == [changed]
    assert changed.read_text("utf-8") == stubs
    assert (folders[1] / "01_a.ipynb").read_text("utf-8") == solved  # a chapter's page


@pytest.fixture(scope="module")
def pages():
    file = notebooks.ROOT / "book" / "_ext" / "bookext.py"
    spec = importlib.util.spec_from_file_location("bookext", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
