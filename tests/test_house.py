"""The rules for the whole of the book, and for each a broken copy that it must notice.

Those for notebooks are in test_notebooks.py; what lib may import is in test_layers.py.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.house.library import imports, modules
from tools import mend, notebooks, student

ROOT = notebooks.ROOT
FILE_LINES, FUNCTION_LINES = 400, 40
MEGABYTE = 1_000_000


def holds(said: list[str]) -> None:
    assert not said, "\n".join(["", *said])


# ------------------------------------------------------------------------ lib


def short(root: Path) -> Iterator[str]:
    """One idea a file, and functions that fit on a screen."""
    for name, file in modules(root).items():
        text = file.read_text(encoding="utf-8")
        if len(text.splitlines()) > FILE_LINES:
            yield f"lib.{name}: more than {FILE_LINES} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if lines > FUNCTION_LINES:
                    yield f"lib.{name}.{node.name}: {lines} lines of body"


def quiet(root: Path) -> Iterator[str]:
    """lib does nothing when it is imported; a `__main__` is run, not imported."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    allowed += (ast.FunctionDef, ast.ClassDef)
    for name, file in modules(root).items():
        docstring, *body = ast.parse(file.read_text(encoding="utf-8")).body
        for node in body:
            if not isinstance(node, allowed) and file.stem != "__main__":
                yield f"lib.{name}, line {node.lineno}: done at import"


def has_tests(root: Path) -> Iterator[str]:
    """Every file of lib has tests: tests/test_<its name>.py, or a test that imports it."""
    tests = sorted((root / "tests").glob("test_*.py"))
    seen = {name for test in tests for name in imports(test, root)}
    stems = {test.stem.removeprefix("test_") for test in tests}
    for name in modules(root):
        if name.split(".")[-1] not in stems and name not in seen:
            yield f"lib.{name}: no tests/test_{name.split('.')[-1]}.py"


def test_files_and_functions_of_lib_are_short():
    holds([*short(ROOT)])


def test_lib_does_nothing_at_import():
    holds([*quiet(ROOT)])


def test_every_file_of_lib_has_tests():
    holds([*has_tests(ROOT)])


def test_importing_lib_leaves_the_random_state_and_the_terminal_alone():
    names = [f"lib.{name}" for name in modules(ROOT)]
    code = (
        "import importlib, torch; before = torch.get_rng_state()\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "assert torch.equal(before, torch.get_rng_state())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("def f(x: int) -> int:\n    return x\n", "D103"),
        ('class A:\n    """A."""\n\n    def f(self) -> None:\n        pass\n', "D102"),
        ('def f(x) -> int:\n    """F."""\n    return x\n', "ANN001"),
        ('def f(x: int):\n    """F."""\n    return x\n', "ANN201"),
        ("print(1)\n", "T201"),
        ('def f() -> None:\n    """F."""\n' + "    f()\n" * 40, "PLR0915"),
    ],
)
def test_ruff_notices_in_lib_what_has_no_docstring_or_type_prints_or_is_long(
    code, rule
):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "-"]
    command += ["--stdin-filename", "lib/ops.py", "--output-format", "concise"]
    text = f'"""A file."""\n\n{code}'
    run = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
    assert re.findall(r"lib/ops.py:\d+:\d+: (\w+)", run.stdout) == [rule]


# ------------------------------------------------------------------ the whole


def contents(root: Path) -> Iterator[str]:
    """_toc.yml lists every chapter, every solutions page and every page of book/."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    listed = {toc["root"], *(e["file"] for p in toc["parts"] for e in p["chapters"])}
    pages = [*notebooks.chapters(root), *notebooks.solutions(root)]
    pages += (root / "book").glob("*.md")
    names = {page.relative_to(root).with_suffix("").as_posix() for page in pages}
    yield from (f"_toc.yml or a folder lacks {name}" for name in sorted(names ^ listed))


def in_pairs(root: Path) -> Iterator[str]:
    """Every chapter has a notebook of exercises and solutions of the same name."""
    chapters = {path.name for path in notebooks.chapters(root)}
    solved = {path.name for path in notebooks.solutions(root)}
    yield from (f"{n}: its chapter or solutions are missing" for n in chapters ^ solved)


def student_versions(root: Path) -> Iterator[str]:
    """Every student notebook is what its source yields, and none is without a source."""
    sources = notebooks.solutions(root)
    for source in sources:
        if not student.matches(source):
            yield (
                f"{source.name}: its student version differs (python -m tools.student), or"
                " holds edits (make lab copies them to my/; then delete the file, python -m"
                " tools.student)"
            )
    names = {source.name for source in sources}
    orphans = [path for path in notebooks.exercises(root) if path.name not in names]
    yield from (f"{path.name}: a student version without a source" for path in orphans)


def pinned(root: Path) -> Iterator[str]:
    """What is installed is pinned to one version each; Jupyter Book 1, as _toc.yml means."""
    for path in [*root.glob("requirements*.txt"), *root.glob("constraints*.txt")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not re.match(r"#|-[rc] |[\w.-]+==[\w.]+$", line):
                yield f"{path.name}: {line!r} pins no version"
            if re.match(r"jupyter-book==(?!1\.)", line):
                yield f"{path.name}: jupyter-book is not version 1"


def readme_contents(root: Path) -> Iterator[str]:
    """README leads to every chapter and every student's notebook, on the site and in Colab."""
    text = (root / "README.md").read_text(encoding="utf-8")
    links = [notebooks.colab_link(path, root) for path in notebooks.exercises(root)]
    links += [notebooks.colab_link(path, root) for path in notebooks.chapters(root)]
    links += [f"](/notebooks/{path.stem}.html)" for path in notebooks.chapters(root)]
    wanted = [re.search(r"/notebooks/.*\)$", link)[0] for link in links]
    yield from (
        f"README.md has no link to {each}" for each in wanted if each not in text
    )


def tree(root: Path) -> Iterator[str]:
    """Every path in CONTRIBUTING's tree is there, and every file of lib is in it."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = re.search(r"^```\n(lib/\n.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    paths = list(tree_paths(drawn))
    gone = [path for path in paths if not (root / path).exists()]
    yield from (f"CONTRIBUTING.md: {path} is not there" for path in gone)
    files = {file.relative_to(root).as_posix() for file in modules(root).values()}
    yield from (f"CONTRIBUTING.md's tree lacks {file}" for file in files - set(paths))


def tree_paths(drawn: str) -> Iterator[str]:
    """The paths of a tree of two floors: `lib/` and, further right, `ops.py   caption`."""
    folder = ""
    for line in drawn.splitlines():
        if not line.startswith(" "):
            folder = ""
        for name in line.split():
            if not re.fullmatch(r"\S+/|[\w./-]+\.\w+", name):
                break  # the caption begins
            yield folder + name
        if not line.startswith(" "):
            folder = line.split()[0]


def test_every_chapter_has_its_exercises():
    assert notebooks.chapters()
    holds([*in_pairs(ROOT)])


def test_student_notebooks_are_what_their_sources_yield():
    holds([*student_versions(ROOT)])


def test_everything_follows_the_one_address():
    holds(mend.mend(ROOT, check=True))


def test_the_contents_list_every_chapter_solution_and_page():
    holds([*contents(ROOT)])


def test_requirements_are_pinned():
    holds([*pinned(ROOT)])


def test_the_tree_in_contributing_is_the_tree():
    holds([*tree(ROOT)])


def test_the_readme_leads_to_every_chapter_and_exercise():
    holds([*readme_contents(ROOT)])


# ------------------------------------------------------------- what git holds


def ignored(root: Path) -> list[str]:
    """What git ignores of lib/ and labs/, as the usual Python .gitignore would."""
    files = [
        str(file) for part in ("lib", "labs") for file in (root / part).rglob("*.py")
    ]
    command = ["git", "-C", str(root), "check-ignore", "--no-index", *files]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


def heavy(files: Iterable[Path]) -> list[str]:
    """No file over 1.5 MB, all together under 25 MB."""
    sizes = {file.name: file.stat().st_size / MEGABYTE for file in files}
    said = [f"{name}: {size:.1f} MB" for name, size in sizes.items() if size > 1.5]
    total = sum(sizes.values())
    return said + ([f"all files: {total:.1f} MB"] if total > 25 else [])


def unsafe(files: Iterable[Path]) -> list[Path]:
    """A checkpoint is data: nothing but a test unpickles it as code."""
    forbidden = re.compile(r"weights_only *= *False")
    read = [f for f in files if f.suffix in (".py", ".ipynb", ".md")]
    read = [f for f in read if f.parent.name != "tests"]
    return [f for f in read if forbidden.search(f.read_text("utf-8"))]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """The files of the repository: what git holds, or would, not what it ignores."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {ROOT / name for name in listed.split("\0") if name}
    return sorted(file for file in found if file.is_file())


def test_git_ignores_nothing_of_lib_and_labs(files):
    assert ignored(ROOT) == []


def test_the_repository_is_light(files):
    assert heavy(files) == []


def test_nothing_is_unpickled_as_code(files):
    assert unsafe(files) == []


def test_a_gitignore_with_lib_in_it_is_noticed(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("lib/\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "ops.py").touch()
    assert ignored(tmp_path)


def test_a_heavy_file_and_an_unsafe_load_are_noticed(tmp_path):
    big, code = tmp_path / "big.svg", tmp_path / "code.py"
    big.write_bytes(b"0" * 1_600_000)
    code.write_text("torch.load(path, weights_only=" + "False)")
    assert heavy([big]) and unsafe([code])


# ----------------------------------------------- each rule notices what it forbids


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the book to break."""
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for folder in ("lib", "labs", "notebooks", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for name in ("tools", "benchmarks", "book"):  # enough for the tree
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
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


def edited_exercise(root: Path) -> None:
    path = notebooks.exercises(root)[0]
    notebook = notebooks.read(path)
    notebook.cells[-1].source += "\n\nAn edit by hand."
    notebooks.write(path, notebook)


def new_chapter(root: Path) -> None:
    path = notebooks.chapters(root)[0]
    shutil.copy(path, path.with_name("99_unlisted.ipynb"))


NEW = '"""New."""\n'
LONG = "\ndef f() -> None:\n" + "    x = 1\n" * 60
DAMAGES = [
    (short, "a long file", add("\n# long" * 300, "lib/ops.py")),
    (short, "a long function", add(LONG, "lib/ops.py")),
    (quiet, "a deed at import", add("\ntorch.manual_seed(0)\n", "lib/ops.py")),
    (has_tests, "a file without tests", add(NEW, "lib/untested.py")),
    (contents, "an unlisted page", add("# New\n", "book/new.md")),
    (contents, "an unlisted chapter", new_chapter),
    (in_pairs, "a chapter without exercises", new_chapter),
    (pinned, "a loose requirement", add("\nscipy>=1\n", "requirements.txt")),
    (pinned, "Jupyter Book 2", replace("book==1.", "book==2.", "requirements.txt")),
    (tree, "a path that is gone", lambda root: (root / "lib/ops.py").unlink()),
    (tree, "a file not in the tree", add(NEW, "lib/new.py")),
    (
        readme_contents,
        "exercises that no link leads to",
        replace("exercises/02_cartpole.ipynb", "02_cartpole.ipynb", "README.md"),
    ),
    (student_versions, "a student notebook edited by hand", edited_exercise),
    (
        student_versions,
        "a student notebook without a source",
        lambda root: notebooks.solutions(root)[0].unlink(),
    ),
]


@pytest.mark.parametrize(
    ("rule", "damage"),
    [(rule, damage) for rule, _, damage in DAMAGES],
    ids=[f"{rule.__name__} notices {what}" for rule, what, _ in DAMAGES],
)
def test_each_rule_for_the_whole_notices_a_broken_copy(rule, damage, copy):
    assert [*rule(copy)] == []
    damage(copy)
    assert [*rule(copy)]


def test_a_changed_file_of_lib_makes_the_notebooks_that_import_it_stale(copy):
    kinds = (notebooks.chapters, notebooks.solutions, notebooks.exercises)
    books = [notebooks.read(kind(copy)[0]) for kind in kinds]
    for book in books:
        book.metadata["executed"] = notebooks.fingerprints(book, copy)
    add("\n# a comment\n", "lib/show/figures.py")(copy)  # the set-up cell imports it
    assert [notebooks.stale(book, copy) for book in books] == [["lib"]] * 3
