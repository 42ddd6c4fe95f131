"""The rules of the house, as functions that say what breaks them.

A rule for a notebook takes the notebook and its path, a rule for the whole takes the
repository's root; each returns complaints, an empty list where all is well. The tests in
tests/test_house.py apply every rule to the book, and to a broken copy that it must notice.
"""

import ast
import copy
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import yaml
from nbformat import NotebookNode

from lib import digest
from tools import mend, notebooks, student

Rule = Callable[[NotebookNode, Path], list[str]]

# A file of lib imports only from floors above it in this list: data flows down.
FLOORS = [
    ["require"],
    ["ops"],
    ["rollout", "rejection"],
    ["advantages", "checkpoint", "digest", "kl", "models.mlp", "models.tokenizer"],
    ["models.attention", "worlds.mdp", "worlds.cartpole", "worlds.verifiers"],
    ["models.transformer", "worlds.thermostat", "worlds.village"],
    ["worlds.answers", "worlds.tasks", "worlds.exact"],
    ["worlds.taste"],
    ["worlds.corpus"],
    ["completion"],
    ["sampling"],
    ["losses.pairs", "losses.ratio"],
    ["losses.*"],
    ["train"],
    ["agents", "cache", "shared", "algorithms"],
    ["base", "evaluate"],
    ["comparisons", "instruct"],
    [
        "preferences",
        "rlhf",
        "reward_model",
        "tuning",
        "minimal_pairs",
        "inspection",
        "paired",
    ],
    ["estimators", "objective", "proxies", "overoptimisation", "direct"],
    ["packing", "rewards", "worked", "lessons"],
    ["regularised", "on_policy", "rounds"],
    ["ladder"],
    ["recipes.stages", "recipes.decontaminate"],
    ["recipes.prompts", "recipes.folder", "recipes.published"],
    ["recipes.tools", "recipes.preferences"],
    ["recipes.feedback"],
    ["recipes.instructgpt", "recipes.tulu3", "recipes.deepseek_r1"],
    ["recipes.engine"],
    ["recipes.report"],
]
ANNEX = [
    "checks",
    "figures",
    "frames",
    "listing",
    "picture",
    "recipes.__main__",
    "recipes.drawing",
    "widgets",
]  # for notebooks

FILE_LINES, FUNCTION_LINES = 270, 40
LINE_WIDTH = 88
IGNORED_SHARE = 0.05
SECOND_EDITION = ("01", "02")  # chapters that are equal on every processor: never lax
MEGABYTE = 1_000_000

IMAGES = ("image/svg+xml", "image/png", "image/jpeg")
IGNORES = ("nbval-ignore-output", "nbval-skip")
MYST = {
    "a directive": re.compile(r"^ *(```+|~~~+|:::+) *\{", re.MULTILINE),
    "a role": re.compile(r"\{[a-z][\w:-]*\}`"),
    "a target": re.compile(r"^\([\w-]+\)= *$", re.MULTILINE),
}
LOCAL = re.compile(r"/(?:home|root|Users|tmp|content)/\w|ipykernel_\d|0x[0-9a-f]{6,}")


# ------------------------------------------------------------------------ lib


def modules(root: Path) -> dict[str, Path]:
    """lib's files by their dotted name below lib, packages' __init__ left out."""
    files = sorted((root / "lib").rglob("*.py"))
    names = {f.relative_to(root / "lib").with_suffix("").as_posix(): f for f in files}
    return {n.replace("/", "."): f for n, f in names.items() if f.stem != "__init__"}


def imports(file: Path, root: Path) -> Iterator[str]:
    """The modules of lib that a file imports."""
    known = modules(root)
    for name in digest.imported(file.read_text(encoding="utf-8")):
        package, _, inner = name.partition(".")
        if package == "lib" and inner in known:
            yield inner


def floor(name: str) -> int | None:
    """The floor that a module stands on."""
    wild = f"{name.split('.')[0]}.*"
    for height, names in enumerate(FLOORS):
        if name in names or wild in names:
            return height
    return None


def floors(root: Path) -> list[str]:
    """Every file imports only from lower floors; nothing but notebooks uses the annex."""
    said = []
    for name, file in modules(root).items():
        here = floor(name)
        if here is None and name not in ANNEX:
            said.append(f"lib.{name} stands on no floor: give it one in tools/house.py")
            continue
        for other in imports(file, root):
            there = floor(other)
            if here is None:
                continue  # the annex may look at everything
            if there is None:
                said.append(
                    f"lib.{name} imports lib.{other}, which is for notebooks only"
                )
            elif there >= here:
                said.append(f"lib.{name} imports lib.{other}, which is no lower floor")
    return said


def documented(root: Path) -> list[str]:
    """Public functions and classes have a docstring, public functions full type hints."""
    said = []
    for name, file in modules(root).items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            said.append(f"lib.{name}: no docstring")
        for node in _public(tree):
            where = f"lib.{name}.{node.name}"
            if not ast.get_docstring(node):
                said.append(f"{where}: no docstring")
            if isinstance(node, ast.FunctionDef):
                said += [f"{where}: no type for {what}" for what in _untyped(node)]
    return said


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
            yield from (m for m in methods if not m.name.startswith("_"))


def _untyped(function: ast.FunctionDef) -> Iterator[str]:
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    arguments += [a for a in (given.vararg, given.kwarg) if a]
    for argument in arguments:
        if argument.annotation is None and argument.arg not in ("self", "cls"):
            yield argument.arg
    if function.returns is None:
        yield "what it returns"


def short(root: Path) -> list[str]:
    """One idea a file, and functions that fit on a screen."""
    said = []
    for name, file in modules(root).items():
        text = file.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > FILE_LINES:
            said.append(f"lib.{name}: {lines} lines, more than {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                long = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if long > FUNCTION_LINES:
                    said.append(f"lib.{name}.{node.name}: {long} lines of body")
    return said


def quiet(root: Path) -> list[str]:
    """lib prints nothing (the annex may) and does nothing when it is imported.

    A `__main__` is a command: it is run, not imported, and is there to say something.
    """
    said = []
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    for name, file in modules(root).items():
        if file.stem == "__main__":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for place, node in enumerate(tree.body):
            docstring = place == 0 and isinstance(node, ast.Expr)
            definition = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if not (docstring or definition or isinstance(node, allowed)):
                said.append(f"lib.{name}, line {node.lineno}: done at import")
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            if (
                isinstance(called, ast.Name)
                and called.id == "print"
                and name not in ANNEX
            ):
                said.append(f"lib.{name}, line {node.lineno}: prints")
    return said


def tested(root: Path) -> list[str]:
    """Every file of lib has tests: tests/test_<its name>.py, or a test that imports it."""
    tests = sorted((root / "tests").glob("test_*.py"))
    seen = {name for test in tests for name in imports(test, root)}
    stems = {test.stem.removeprefix("test_") for test in tests}
    return [
        f"lib.{name}: no tests/test_{name.split('.')[-1]}.py"
        for name in modules(root)
        if name.split(".")[-1] not in stems and name not in seen
    ]


# ----------------------------------------------------------- rules for a notebook


def has_the_setup_cell(notebook: NotebookNode, path: Path) -> list[str]:
    """The second cell is the set-up cell, to the letter, and the only one."""
    wanted = notebooks.setup_cell()
    found = [i for i, cell in enumerate(notebook.cells) if notebooks.is_setup(cell)]
    if found != [1]:
        return [f"set-up cells at {found}, wanted one at [1]"]
    cell = notebook.cells[1]
    said = []
    if cell.source != wanted.source:
        said.append("the set-up cell is not the template's (python -m tools.mend)")
    if sorted(notebooks.tags(cell)) != sorted(wanted.metadata.tags):
        said.append(f"the set-up cell's tags are {notebooks.tags(cell)}")
    if cell.outputs:
        said.append("the set-up cell has an output")
    return said


def opens_in_colab(notebook: NotebookNode, path: Path) -> list[str]:
    """The first cell is a title and the link that opens this very notebook in Colab."""
    first = notebook.cells[0]
    said = []
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        said.append("the first cell is no title")
    if notebooks.colab_link(path) not in first.source:
        said.append(f"the first cell lacks {notebooks.colab_link(path)}")
    return said


def says_how_long(notebook: NotebookNode, path: Path) -> list[str]:
    """The opening says how long the notebook takes."""
    opening = " ".join(
        c.source for c in notebook.cells[:4] if c.cell_type == "markdown"
    )
    timed = re.search(r"\b(second|minute|hour)s?\b", opening)
    return [] if timed else ["the opening does not say how long it takes"]


def closes_well(notebook: NotebookNode, path: Path) -> list[str]:
    """A chapter ends with a summary, where real systems differ, exercises, reading."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    headings = " | ".join(re.findall(r"^#+ (.*)$", text, re.MULTILINE)).lower()
    wanted = ("summary", "real systems", "exercises", "reading")
    return [f"no heading says “{word}”" for word in wanted if word not in headings]


def plain_markdown(notebook: NotebookNode, path: Path) -> list[str]:
    """No MyST in a notebook: Colab and GitHub would show it raw."""
    return [
        f"cell {cell.id}: {what} of MyST ({found[0].strip()})"
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for what, pattern in MYST.items()
        if (found := pattern.search(cell.source))
    ]


def _unseen(cell: NotebookNode) -> bool:
    """Folded or removed on the page, as the code that draws a figure may be."""
    return any(tag.startswith(("hide-", "remove-")) for tag in notebooks.tags(cell))


def prose_before_code(notebook: NotebookNode, path: Path) -> list[str]:
    """A sentence before every code cell says what to expect (graded cells come in pairs)."""
    said = []
    cells = [c for c in notebook.cells if not notebooks.is_setup(c)]
    for before, cell in zip([None, *cells], cells, strict=False):
        graded = "nbgrader" in cell.metadata
        if cell.cell_type == "code" and not graded:
            if before is None or before.cell_type != "markdown":
                said.append(f"cell {cell.id}: no prose before it")
    return said


def described_figures(notebook: NotebookNode, path: Path) -> list[str]:
    """Each image has alt text, a caption and a name; what moves has a label."""
    said = []
    for cell in notebook.cells:
        kinds = {kind for o in cell.get("outputs", []) for kind in o.get("data", {})}
        if {"remove-cell", "remove-output"} & set(notebooks.tags(cell)):
            continue
        if kinds & set(IMAGES):
            said += [f"cell {cell.id}: {what}" for what in _undescribed(cell)]
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if re.search(r"<(svg|canvas|img)\b", html):
                if not re.search(r"""(aria-label|alt)=["'][^"']{20,}""", html):
                    said.append(f"cell {cell.id}: no aria-label in its HTML")
    return said


def _undescribed(cell: NotebookNode) -> Iterator[str]:
    marks = cell.metadata.get("mystnb", {})
    alt = marks.get("image", {}).get("alt", "")
    figure = marks.get("figure", {})
    if len(alt) < 30:
        yield f"alt text of {len(alt)} characters"
    if len(figure.get("caption", "")) < 20:
        yield "no caption"
    if not figure.get("name", "").startswith("fig-"):
        yield "no name that begins with fig-"


def executed(notebook: NotebookNode, path: Path) -> list[str]:
    """Every code cell ran, in order, without an error or a warning."""
    said = []
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        said.append(f"execution counts {counts}: not run from top to bottom")
    for cell in cells:
        may_raise = "raises-exception" in notebooks.tags(cell)
        if may_raise and path.parent.name != "exercises":
            said.append(f"cell {cell.id}: only a student's check cell may raise")
        for output in cell.outputs:
            if output.output_type == "error" and not may_raise:
                said.append(f"cell {cell.id}: an error is stored")
            if output.get("name") == "stderr":
                said.append(f"cell {cell.id}: output on stderr")
    return said


def outputs_are_true(notebook: NotebookNode, path: Path) -> list[str]:
    """Stored outputs come from the present cells and the present lib, untouched."""
    return [
        f"its {what} changed since it was executed (make execute)"
        for what in notebooks.stale(notebook)
    ]


def same_everywhere(notebook: NotebookNode, path: Path) -> list[str]:
    """Nothing in the outputs names a machine, and nothing is suppressed by a semicolon."""
    said = []
    for cell in notebooks.code_cells(notebook):
        if any(line.rstrip().endswith(";") for line in _lines(cell)):
            said.append(f"cell {cell.id}: a line ends in a semicolon (say _ = …)")
        for output in cell.outputs:
            text = _text(output)
            if found := LOCAL.search(text):
                said.append(f"cell {cell.id}: {found[0]!r} in its output")
    return said


def no_stored_widgets(notebook: NotebookNode, path: Path) -> list[str]:
    """No widget state: it is dead on a page, and large."""
    if "widgets" in notebook.metadata or "widget-view+json" in str(notebook.cells):
        return ["holds widget state"]
    return []


def reasons_to_ignore(notebook: NotebookNode, path: Path) -> list[str]:
    """A cell whose output is not compared says why in its metadata."""
    return [
        f"cell {cell.id}: ignored without an ignore_reason"
        for cell in notebook.cells
        if set(IGNORES) & set(notebooks.tags(cell))
        and len(cell.metadata.get("ignore_reason", "")) < 10
    ]


def digits_may_differ(notebook: NotebookNode, path: Path) -> list[str]:
    """A notebook on the list says so below its title, and no other does."""
    listed, said = notebooks.is_lax(path), notebook.cells[0].source.count(mend.NOTE)
    if said == listed:
        return []
    return [f"says {said} times that its digits may differ (python -m tools.mend)"]


def sound_exercises(notebook: NotebookNode, path: Path) -> list[str]:
    """At least three exercises; each described, each solution folded and checked."""
    graded = [c for c in notebook.cells if "nbgrader" in c.metadata]
    ids = [cell.metadata.nbgrader.grade_id for cell in graded]
    said = [f"grade_id {each} twice" for each in {i for i in ids if ids.count(i) > 1}]
    answers = [c for c in graded if c.metadata.nbgrader.solution]
    if len(answers) < 3:
        said.append(f"{len(answers)} exercises, fewer than 3")
    for cell in answers:
        code = cell.cell_type == "code"
        name = cell.metadata.nbgrader.grade_id
        wrong = _unsound_code(cell, ids) if code else _unsound_text(cell)
        said += [f"{name}: {what}" for what in wrong]
        said += [f"{name}: {what}" for what in _undescribed_task(notebook, cell)]
    return said


def _unsound_code(cell: NotebookNode, ids: list[str]) -> Iterator[str]:
    name = cell.metadata.nbgrader.grade_id
    if f"{name}_check" not in ids:
        yield f"no check cell {name}_check"
    if not re.search(
        r"def .*### BEGIN SOLUTION.*### END SOLUTION", cell.source, re.DOTALL
    ):
        yield "no solution between marker lines below a signature"
    prompt = cell.metadata.get("mystnb", {}).get("code_prompt_show")
    if "hide-input" not in notebooks.tags(cell) or prompt != "Show solution":
        yield "its solution is not folded (hide-input, code_prompt_show)"


def _unsound_text(cell: NotebookNode) -> Iterator[str]:
    if not re.search(r"<details>\s*<summary>", cell.source):
        yield "its written solution is not folded in <details><summary>"


def _undescribed_task(notebook: NotebookNode, cell: NotebookNode) -> Iterator[str]:
    """The text since the exercise's heading: difficulty, minutes, what to see."""
    before = notebook.cells[: notebook.cells.index(cell)]
    text = "\n".join(c.source for c in before if c.cell_type == "markdown")
    task = re.split(r"^#+ ", text, flags=re.MULTILINE)[-1].lower()
    for sign, what in (
        ("★", "difficulty"),
        ("minute", "minutes"),
        ("see", "what to see"),
    ):
        if sign not in task:
            yield f"its description does not say its {what}"


def folded_everywhere(notebook: NotebookNode, path: Path) -> list[str]:
    """What is folded on the page is folded in JupyterLab and Colab too, and nothing else."""
    return [
        f"cell {name}: not folded as its tags say (python -m tools.mend)"
        for name in mend.fold(copy.deepcopy(notebook))
    ]


EVERY: list[Rule] = [
    folded_everywhere,
    has_the_setup_cell,
    opens_in_colab,
    plain_markdown,
    described_figures,
    executed,
    outputs_are_true,
    same_everywhere,
    no_stored_widgets,
    reasons_to_ignore,
    digits_may_differ,
]
CHAPTER: list[Rule] = [
    says_how_long,
    closes_well,
    prose_before_code,
]
SOLUTION: list[Rule] = [says_how_long, prose_before_code, sound_exercises]


def complaints(rule: Rule, paths: Iterable[Path]) -> list[str]:
    """What a rule says of these notebooks, each complaint with the notebook's name."""
    return [
        f"{path.parent.name}/{path.name}: {what}"
        for path in paths
        for what in rule(notebooks.read(path), path)
    ]


def _lines(cell: NotebookNode) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


def _text(output: NotebookNode) -> str:
    """What nbval compares of an output: its text, not its pictures."""
    data = {k: v for k, v in output.get("data", {}).items() if k not in IMAGES}
    data.pop("text/html", None)
    said = [output.get("text", ""), *data.values(), *output.get("traceback", [])]
    return " ".join(map(str, said))


# ------------------------------------------------------------ rules for the whole


def ignored_share(root: Path) -> list[str]:
    """At most one code cell in twenty is not compared by nbval."""
    cells = [
        cell
        for path in notebooks.everything(root)
        for cell in notebooks.code_cells(notebooks.read(path))
    ]
    ignored = sum(bool(set(IGNORES) & set(notebooks.tags(cell))) for cell in cells)
    if ignored > IGNORED_SHARE * len(cells):
        return [f"{ignored} of {len(cells)} code cells are ignored"]
    return []


def lax_list(root: Path) -> list[str]:
    """The list of lax notebooks holds chapters that await their second edition."""
    said = []
    for name, reason in notebooks.lax(root).items():
        if not (root / "notebooks" / f"{name}.ipynb").is_file():
            said.append(f"{name}: no such notebook")
        if name[:2] in SECOND_EDITION:
            said.append(f"{name}: is ready, and strict")
        if "second edition" not in str(reason):
            said.append(f"{name}: its reason does not name the second edition")
    return [f"notebooks/lax.toml, {what}" for what in said]


def unique_names(root: Path) -> list[str]:
    """No two figures of the book share a name."""
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in [*notebooks.chapters(root), *notebooks.solutions(root)]
        for cell in notebooks.read(path).cells
        if "name" in cell.metadata.get("mystnb", {}).get("figure", {})
    ]
    return [
        f"{name} names two figures"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]


def student_versions(root: Path) -> list[str]:
    """Every student notebook is what its source yields, and none is without a source."""
    sources = notebooks.solutions(root)
    said = [
        f"{source.name}: its student version differs (python -m tools.student), or holds"
        " edits (make lab copies them to my/; then delete the file, python -m tools.student)"
        for source in sources
        if not student.matches(source)
    ]
    expected = {student.student_path(source) for source in sources}
    orphans = [path for path in notebooks.exercises(root) if path not in expected]
    return said + [
        f"{path.name}: a student version without a source" for path in orphans
    ]


def one_address(root: Path) -> list[str]:
    """Set-up cells, Colab links, README, CITATION and pages follow _config.yml."""
    return [
        f"does not follow _config.yml: {what}"
        for what in mend.mend(root, check=True)
    ]


def contents(root: Path) -> list[str]:
    """_toc.yml lists every chapter, every solutions page and every page of book/."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    listed = [toc["root"]]
    for part in toc.get("parts", []):
        listed += [entry["file"] for entry in part["chapters"]]
    pages = [*notebooks.chapters(root), *notebooks.solutions(root)]
    pages += sorted((root / "book").glob("*.md"))
    names = [p.relative_to(root).with_suffix("").as_posix() for p in pages]
    missing = [f"_toc.yml does not list {name}" for name in names if name not in listed]
    extra = [
        f"_toc.yml lists {n}, which is not there" for n in listed if n not in names
    ]
    return missing + extra


def in_pairs(root: Path) -> list[str]:
    """Every chapter has a notebook of exercises and solutions of the same name."""
    chapters = {path.name for path in notebooks.chapters(root)}
    solved = {path.name for path in notebooks.solutions(root)}
    return [
        f"{name}: a chapter or its solutions is missing" for name in chapters ^ solved
    ]


def pinned(root: Path) -> list[str]:
    """What is installed is pinned to one version each."""
    said = []
    for path in sorted([*root.glob("requirements*.txt"), *root.glob("constraints*.txt")]):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not re.match(r"#|-[rc] |[\w.-]+==[\w.]+$", line):
                said.append(f"{path.name}: {line!r} pins no version")
    said += _not_two(root)
    return said


def pins(root: Path) -> list[tuple[str, str]]:
    """(package, version) of every line that pins one."""
    names = ("requirements.txt", "requirements-dev.txt", "constraints.txt")
    lines = "\n".join((root / name).read_text(encoding="utf-8") for name in names)
    return re.findall(r"^([\w.-]+)==([\w.]+)$", lines, re.MULTILINE)


def _not_two(root: Path) -> list[str]:
    """_config.yml and _toc.yml mean Jupyter Book 1."""
    text = (root / "requirements.txt").read_text(encoding="utf-8")
    one = re.search(r"^jupyter-book==1\.", text, re.MULTILINE)
    return [] if one else ["requirements.txt: jupyter-book is not version 1"]


def tracked(root: Path) -> list[Path]:
    """The files of the repository: what git holds, or would, not what it ignores."""
    command = ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    files = (root / name for name in listed.split("\0") if name)
    return sorted({file for file in files if file.is_file()})


def ignored_library(root: Path) -> list[str]:
    """Git ignores nothing of lib/, as the usual Python .gitignore would."""
    files = [str(f) for f in modules(root).values()]
    command = ["git", "-C", str(root), "check-ignore", "--no-index", *files]
    found = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return [f"git ignores {name}" for name in found]


def light(files: Iterable[Path]) -> list[str]:
    """No file over 1.5 MB, all together under 25 MB."""
    sizes = {file: file.stat().st_size / MEGABYTE for file in files}
    said = [f"{file.name}: {size:.1f} MB" for file, size in sizes.items() if size > 1.5]
    total = sum(sizes.values())
    return said + ([f"all files: {total:.1f} MB"] if total > 25 else [])


def safe_loading(files: Iterable[Path]) -> list[str]:
    """A checkpoint is data: nothing but a test unpickles it as code."""
    forbidden = re.compile(r"weights_only *= *False")
    texts = [f for f in files if f.suffix in (".py", ".ipynb", ".md")]
    texts = [f for f in texts if f.parent.name != "tests"]
    return [
        f"{f}: weights_only=…" for f in texts if forbidden.search(f.read_text("utf-8"))
    ]


def readme_contents(root: Path) -> list[str]:
    """README leads to every chapter and every student's notebook, on the site and in Colab."""
    text = (root / "README.md").read_text(encoding="utf-8")
    links = [notebooks.colab_link(p, root) for p in notebooks.exercises(root)]
    links += [notebooks.colab_link(p, root) for p in notebooks.chapters(root)]
    links += [f"](/notebooks/{p.stem}.html)" for p in notebooks.chapters(root)]
    wanted = [re.search(r"(/notebooks/.*)\)$", link)[1] for link in links]
    return [f"README.md has no link to {w}" for w in wanted if f"{w})" not in text]


def tree(root: Path) -> list[str]:
    """Every path in CONTRIBUTING's tree is there, and every file of lib is in it."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    trees = [b for b in blocks if re.search(r"^[\s│├└─]*lib/", b, re.MULTILINE)]
    if not trees:
        return ["CONTRIBUTING.md holds no tree"]
    paths = list(_tree_paths(trees[0]))
    said = [
        f"CONTRIBUTING.md: {path} is not there"
        for path in paths
        if not (root / path).exists()
    ]
    named = {Path(path).name for path in paths}
    said += [
        f"CONTRIBUTING.md's tree does not name {file.relative_to(root)}"
        for file in modules(root).values()
        if file.name not in named
    ]
    return said


def _tree_paths(tree: str) -> Iterator[str]:
    """The paths of an indented tree: `lib/` and, further right, `ops.py   caption`."""
    above: list[tuple[int, str]] = []
    path_like = re.compile(r"\S+/|[\w./-]+\.\w+|Makefile|LICENSE\S*")
    for line in tree.splitlines():
        indent = len(re.match(r"[\s│├└─]*", line)[0])
        above = [(i, folder) for i, folder in above if i < indent]
        for name in line[indent:].split():
            if not path_like.fullmatch(name):
                break  # the caption begins
            yield "".join(folder for _, folder in above) + name
            if name.endswith("/"):
                above.append((indent, name))
