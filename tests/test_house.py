"""The rules of the house: one test each, and for each a broken copy that it must notice."""

import copy as copying
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tools import house, mend, notebooks

ROOT = notebooks.ROOT
CHAPTERS, SOLUTIONS = notebooks.chapters(), notebooks.solutions()
EVERY = notebooks.everything()
PAGES = [*CHAPTERS, *SOLUTIONS]
STRICT = notebooks.strict()


def holds(said: list[str]) -> None:
    assert not said, "\n" + "\n".join(said)


# ------------------------------------------------------------------------ lib


def test_a_file_of_lib_imports_only_from_lower_floors():
    holds(house.floors(ROOT))


def test_public_names_of_lib_have_docstrings_and_types():
    holds(house.documented(ROOT))


def test_files_and_functions_of_lib_are_short():
    holds(house.short(ROOT))


def test_lib_prints_nothing_and_does_nothing_at_import():
    holds(house.quiet(ROOT))


def test_importing_lib_leaves_the_random_state_and_the_terminal_alone():
    names = [f"lib.{name}" for name in house.modules(ROOT)]
    code = (
        "import importlib, torch; before = torch.get_rng_state()\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "assert torch.equal(before, torch.get_rng_state())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_every_file_of_lib_has_tests():
    holds(house.tested(ROOT))


# ------------------------------------------------------------------ notebooks


def test_there_are_chapters_and_each_has_its_exercises():
    assert CHAPTERS
    holds(house.in_pairs(ROOT))


def test_the_setup_cell_is_the_same_in_every_notebook():
    holds(house.complaints(house.has_the_setup_cell, EVERY))


def test_every_notebook_opens_itself_in_colab():
    holds(house.complaints(house.opens_in_colab, EVERY))


def test_every_page_says_how_long_it_takes():
    holds(house.complaints(house.says_how_long, PAGES))


def test_every_chapter_closes_with_summary_real_systems_exercises_and_reading():
    holds(house.complaints(house.closes_well, CHAPTERS))


def test_notebooks_are_plain_markdown():
    holds(house.complaints(house.plain_markdown, EVERY))


def test_prose_comes_before_every_code_cell():
    holds(house.complaints(house.prose_before_code, PAGES))


def test_every_figure_has_alt_text_a_caption_and_a_name():
    holds(house.complaints(house.described_figures, PAGES))
    holds(house.unique_names(ROOT))


def test_every_code_cell_was_executed_in_order():
    holds(house.complaints(house.executed, EVERY))


def test_stored_outputs_come_from_the_present_cells_and_the_present_lib():
    holds(house.complaints(house.outputs_are_true, EVERY))


def test_outputs_name_no_machine():
    holds(house.complaints(house.same_everywhere, EVERY))


def test_no_widget_state_is_stored():
    holds(house.complaints(house.no_stored_widgets, EVERY))


def test_a_listed_notebook_says_that_its_digits_may_differ_and_no_other_does():
    holds(house.complaints(house.digits_may_differ, EVERY))


def test_ignored_outputs_are_one_in_twenty_at_most_each_with_its_reason():
    holds(house.complaints(house.reasons_to_ignore, EVERY))
    holds(house.ignored_share(ROOT))


def test_what_is_folded_on_the_page_is_folded_in_jupyterlab_and_colab_too():
    holds(house.complaints(house.folded_everywhere, EVERY))


def test_every_exercise_has_a_description_a_folded_solution_and_a_check():
    holds(house.complaints(house.sound_exercises, SOLUTIONS))


def test_student_notebooks_are_what_their_sources_yield():
    holds(house.student_versions(ROOT))


# ------------------------------------------------------------------ the whole


def test_everything_follows_the_one_address():
    holds(house.one_address(ROOT))


def test_the_contents_list_every_chapter_solution_and_page():
    holds(house.contents(ROOT))


def test_requirements_are_pinned():
    holds(house.pinned(ROOT))


def test_the_tree_in_contributing_is_the_tree():
    holds(house.tree(ROOT))


def test_the_readme_leads_to_every_chapter_and_exercise():
    holds(house.readme_contents(ROOT))


@pytest.fixture(scope="module")
def files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    return house.tracked(ROOT)


def test_git_ignores_nothing_of_lib(files):
    holds(house.ignored_library(ROOT))


def test_the_repository_is_light(files):
    holds(house.light(files))


def test_nothing_is_unpickled_as_code(files):
    holds(house.safe_loading(files))


# ----------------------------------------------- each rule notices what it forbids


def cell_with(notebook: NotebookNode, what: str) -> NotebookNode:
    """The first cell that has an output or a tag of this kind, or is of this type."""
    for cell in notebook.cells:
        if notebooks.is_setup(cell):
            continue
        kinds = {kind for o in cell.get("outputs", []) for kind in o.get("data", {})}
        if what in kinds or what == cell.cell_type or what in cell.metadata:
            return cell
    raise LookupError(what)


def fresh(path: Path, root: Path = ROOT) -> NotebookNode:
    """A notebook of the book, taken as freshly executed."""
    notebook = notebooks.read(path)
    notebook.metadata["executed"] = notebooks.fingerprints(notebook, root)
    return notebook


def _setup(nb: NotebookNode) -> None:
    nb.cells[1].source = nb.cells[1].source.replace(
        "set_num_threads(1)", "set_num_threads(2)"
    )


def _link(nb: NotebookNode) -> None:
    nb.cells[0].source = nb.cells[0].source.replace("github/", "github/someone-")


def _silence(nb: NotebookNode) -> None:
    for cell in nb.cells[:4]:
        cell.source = re.sub("second|minute|hour", "while", cell.source)


def _no_summary(nb: NotebookNode) -> None:
    for cell in nb.cells:
        cell.source = cell.source.replace("Summary", "End").replace("summary", "end")


def _role(nb: NotebookNode) -> None:
    nb.cells[2].source += "\n\nSee {numref}`fig-one`."


def _directive(nb: NotebookNode) -> None:
    nb.cells[2].source += "\n\n```{note}\nhello\n```"


def _no_prose(nb: NotebookNode) -> None:
    place = nb.cells.index(cell_with(nb, "code"))
    nb.cells.insert(place, nbformat.v4.new_code_cell("x = 1"))
    nb.cells.insert(place, nbformat.v4.new_code_cell("x = 1"))


def _no_alt(nb: NotebookNode) -> None:
    cell_with(nb, "image/svg+xml").metadata["mystnb"]["image"]["alt"] = ""


def _no_caption(nb: NotebookNode) -> None:
    del cell_with(nb, "image/svg+xml").metadata["mystnb"]["figure"]["caption"]


def _not_run(nb: NotebookNode) -> None:
    cell_with(nb, "code").execution_count = None


def _warning(nb: NotebookNode) -> None:
    output = {"output_type": "stream", "name": "stderr", "text": "UserWarning: …"}
    cell_with(nb, "code").outputs.append(NotebookNode(output))


def _false_output(nb: NotebookNode) -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "all is well\n"}
    cell_with(nb, "code").outputs = [NotebookNode(output)]


def _changed_cell(nb: NotebookNode) -> None:
    cell_with(nb, "code").source += "\nseed = 7"


def _changed_tag(nb: NotebookNode) -> None:
    cell_with(nb, "code").metadata["tags"] = ["nbval-skip"]


def _address(nb: NotebookNode) -> None:
    output = {
        "output_type": "stream",
        "name": "stdout",
        "text": "<object at 0x7f01ab23>",
    }
    cell_with(nb, "code").outputs.append(NotebookNode(output))


def _semicolon(nb: NotebookNode) -> None:
    cell_with(nb, "code").source += "\nfigures.use_style();"


def _widget_state(nb: NotebookNode) -> None:
    nb.metadata["widgets"] = {"state": {}}


def _open_setup(nb: NotebookNode) -> None:
    nb.cells[1].metadata.update(jupyter={}, cellView="code")


def _shut_cell(nb: NotebookNode) -> None:
    shown = [c for c in nb.cells if c.cell_type == "code" and not notebooks.tags(c)]
    shown[0].metadata["jupyter"] = {"source_hidden": True}


def _no_check(nb: NotebookNode) -> None:
    marks = [c.metadata.get("nbgrader", {}) for c in nb.cells]
    name = next(
        m["grade_id"] for m in marks if str(m.get("grade_id")).endswith("_check")
    )
    nb.cells = [
        c for c, m in zip(nb.cells, marks, strict=True) if m.get("grade_id") != name
    ]


def _unfolded(nb: NotebookNode) -> None:
    for cell in nb.cells:
        if "hide-input" in notebooks.tags(cell):
            cell.metadata["tags"] = []


def _no_stars(nb: NotebookNode) -> None:
    for cell in nb.cells:
        cell.source = cell.source.replace("★", "*")


def _the_note(nb: NotebookNode) -> None:
    nb.cells[0].source += f"\n\n{mend.NOTE}"


DAMAGES: list[tuple[house.Rule, Callable[[NotebookNode], None], list[Path]]] = [
    (house.has_the_setup_cell, _setup, EVERY),
    (house.opens_in_colab, _link, EVERY),
    (house.says_how_long, _silence, CHAPTERS),
    (house.closes_well, _no_summary, CHAPTERS),
    (house.plain_markdown, _role, EVERY),
    (house.plain_markdown, _directive, EVERY),
    (house.prose_before_code, _no_prose, CHAPTERS),
    (house.described_figures, _no_alt, CHAPTERS),
    (house.described_figures, _no_caption, CHAPTERS),
    (house.executed, _not_run, EVERY),
    (house.executed, _warning, EVERY),
    (house.outputs_are_true, _false_output, EVERY),
    (house.outputs_are_true, _changed_cell, EVERY),
    (house.outputs_are_true, _changed_tag, EVERY),
    (house.same_everywhere, _address, EVERY),
    (house.same_everywhere, _semicolon, EVERY),
    (house.no_stored_widgets, _widget_state, EVERY),
    (house.folded_everywhere, _open_setup, EVERY),
    (house.folded_everywhere, _shut_cell, EVERY),
    (house.reasons_to_ignore, _changed_tag, EVERY),
    (house.digits_may_differ, _the_note, STRICT),
    (house.sound_exercises, _no_check, SOLUTIONS),
    (house.sound_exercises, _unfolded, SOLUTIONS),
    (house.sound_exercises, _no_stars, SOLUTIONS),
]


@pytest.mark.parametrize(
    ("rule", "damage", "paths"),
    DAMAGES,
    ids=[f"{rule.__name__} notices {damage.__name__}" for rule, damage, _ in DAMAGES],
)
def test_each_notebook_rule_notices_a_broken_copy(rule, damage, paths):
    for path in paths[:1] + paths[-1:]:
        notebook = fresh(path)
        before = rule(notebook, path)
        damage(notebook)
        assert len(rule(notebook, path)) > len(before)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the book to break."""
    for folder in ("lib", "notebooks", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / "book").mkdir()
    for file in [*ROOT.glob("*.*"), *ROOT.glob("book/*.md")]:
        if file.is_file():
            shutil.copy(file, tmp_path / file.relative_to(ROOT))
    return tmp_path


def add(text: str, name: str) -> Callable[[Path], None]:
    """Append to a file."""

    def damage(root: Path) -> None:
        with open(root / name, "a", encoding="utf-8") as file:
            file.write(text)

    return damage


def replace(old: str, new: str, name: str) -> Callable[[Path], None]:
    """Replace text in a file, which must hold it."""

    def damage(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        assert old in text
        (root / name).write_text(text.replace(old, new), encoding="utf-8")

    return damage


def _edited_exercise(root: Path) -> None:
    path = notebooks.exercises(root)[0]
    notebook = notebooks.read(path)
    notebook.cells[-1].source += "\n\nAn edit by hand."
    notebooks.write(path, notebook)


def _new_chapter(root: Path) -> None:
    path = notebooks.chapters(root)[0]
    shutil.copy(path, path.with_name("99_unlisted.ipynb"))


def _same_name_twice(root: Path) -> None:
    path = notebooks.chapters(root)[0]
    notebook = notebooks.read(path)
    again = copying.deepcopy(cell_with(notebook, "image/svg+xml"))
    again["id"] = "again"
    notebook.cells.append(again)
    notebooks.write(path, notebook)


def _ignore_everything(root: Path) -> None:
    for path in notebooks.everything(root):
        notebook = notebooks.read(path)
        _changed_tag(notebook)
        notebooks.write(path, notebook)


CONFIG = notebooks.address()[0].removeprefix("https://github.com/")
ROOT_DAMAGES = [
    (house.floors, "an import from above", add("\nimport lib.train\n", "lib/ops.py")),
    (
        house.floors,
        "an import on one floor",
        add("\nfrom lib.worlds import mdp\n", "lib/worlds/cartpole.py"),
    ),
    (
        house.floors,
        "an import of the annex",
        add("\nfrom lib import checks\n", "lib/ops.py"),
    ),
    (house.floors, "a file without a floor", add('"""New."""\n', "lib/utils.py")),
    (
        house.documented,
        "a function without types",
        add('\ndef f(x):\n    """F."""\n', "lib/ops.py"),
    ),
    (
        house.documented,
        "a function without a docstring",
        add("\ndef f() -> None:\n    pass\n", "lib/ops.py"),
    ),
    (house.short, "a long file", add("\n# long" * 300, "lib/ops.py")),
    (
        house.short,
        "a long function",
        add("\ndef f() -> None:\n" + "    x = 1\n" * 60, "lib/ops.py"),
    ),
    (house.quiet, "a print", add("\ndef f() -> None:\n    print()\n", "lib/ops.py")),
    (house.quiet, "a deed at import", add("\ntorch.manual_seed(0)\n", "lib/ops.py")),
    (house.tested, "a file without tests", add('"""New."""\n', "lib/untested.py")),
    (house.one_address, "a fork", replace(CONFIG, "someone/fork", "_config.yml")),
    (house.contents, "an unlisted page", add("# New\n", "book/new.md")),
    (house.contents, "an unlisted chapter", _new_chapter),
    (house.in_pairs, "a chapter without exercises", _new_chapter),
    (house.pinned, "a loose requirement", add("\nscipy>=1\n", "requirements.txt")),
    (
        house.pinned,
        "Jupyter Book 2",
        replace("jupyter-book==1.0.4.post1", "jupyter-book==2.1.7", "requirements.txt"),
    ),
    (
        house.tree,
        "a path that is gone",
        lambda root: (root / "lib/ops.py").unlink(),
    ),
    (house.tree, "a file not in the tree", add('"""New."""\n', "lib/new.py")),
    (
        house.readme_contents,
        "exercises that no link leads to",
        replace("exercises/02_cartpole.ipynb", "02_cartpole.ipynb", "README.md"),
    ),
    (house.student_versions, "a student notebook edited by hand", _edited_exercise),
    (house.unique_names, "a figure's name used twice", _same_name_twice),
    (house.ignored_share, "too many ignored cells", _ignore_everything),
]


@pytest.mark.parametrize(
    ("rule", "damage"),
    [(rule, damage) for rule, _, damage in ROOT_DAMAGES],
    ids=[f"{rule.__name__} notices {what}" for rule, what, _ in ROOT_DAMAGES],
)
def test_each_rule_for_the_whole_notices_a_broken_copy(rule, damage, copy):
    before = rule(copy)
    damage(copy)
    assert len(rule(copy)) > len(before)


def test_a_changed_file_of_lib_makes_the_notebooks_that_import_it_stale(copy):
    books = [fresh(path, copy) for path in notebooks.everything(copy)]
    add("\n# a comment\n", "lib/figures.py")(copy)  # the set-up cell imports it
    assert [notebooks.stale(book, copy) for book in books] == [["lib"]] * len(books)


def test_a_gitignore_with_lib_in_it_is_noticed(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("lib/\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "ops.py").write_text("")
    assert house.ignored_library(tmp_path)


def test_a_heavy_file_and_an_unsafe_load_are_noticed(tmp_path):
    heavy, unsafe = tmp_path / "heavy.svg", tmp_path / "unsafe.py"
    heavy.write_bytes(b"0" * 1_600_000)
    unsafe.write_text("torch.load(path, weights_only=" + "False)")
    assert house.light([heavy]) and house.safe_loading([unsafe])
