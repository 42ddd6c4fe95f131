"""The rules for notebooks, and for each a broken copy in which it must find a fault.

A rule takes a notebook and its path and returns what breaks it, each with its cell; its
name completes the sentence "a notebook …".
"""

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tools import mend, notebooks

Rule = Callable[[NotebookNode, Path], list[str]]

ROOT = notebooks.ROOT
CHAPTERS, SOLUTIONS = notebooks.chapters(), notebooks.solutions()
EVERY = notebooks.everything()
PAGES = [*CHAPTERS, *SOLUTIONS]
OLD = notebooks.address()[0].removeprefix(notebooks.GITHUB)

IMAGES = ("image/svg+xml", "image/png", "image/jpeg")
IGNORES = {"nbval-ignore-output", "nbval-skip"}
IGNORED_SHARE = 0.05
MYST = {
    "a directive": re.compile(r"^ *(```+|~~~+|:::+) *\{", re.MULTILINE),
    "a role": re.compile(r"\{[a-z][\w:-]*\}`"),
    "a target": re.compile(r"^\([\w-]+\)= *$", re.MULTILINE),
}
LOCAL = re.compile(r"/(?:home|root|Users|tmp|content)/\w|ipykernel_\d|0x[0-9a-f]{6,}")


def prose(cells: list[NotebookNode]) -> str:
    return "\n".join(c.source for c in cells if c.cell_type == "markdown")


# ----------------------------------------------------------------------- the rules


def follows_the_address_and_its_tags(nb: NotebookNode, path: Path):
    """Set-up cell, links, the line below the title and folds are what tools.mend writes."""
    said = mend.mend_notebook(copy.deepcopy(nb), path, OLD, ROOT)
    return [f"{cell}: python -m tools.mend" for cell in said]


def begins_with_its_title_its_colab_link_and_the_setup_cell(
    nb: NotebookNode, path: Path
):
    found = [place for place, cell in enumerate(nb.cells) if notebooks.is_setup(cell)]
    if found != [1]:
        return [f"set-up cells at {found}, wanted one at [1]"]
    first, cell = nb.cells[:2]
    wanted = notebooks.setup_cell().metadata.tags
    faults = {
        "no title": first.cell_type != "markdown" or not first.source.startswith("# "),
        "no link to itself in Colab": notebooks.colab_link(path) not in first.source,
        "the set-up cell's tags": sorted(notebooks.tags(cell)) != sorted(wanted),
        "an output of the set-up cell": bool(cell.outputs),
    }
    return [what for what, is_so in faults.items() if is_so]


def says_how_long_it_takes(nb: NotebookNode, path: Path):
    timed = re.search(r"\b(second|minute|hour)s?\b", prose(nb.cells[:4]))
    return [] if timed else ["the opening does not say how long it takes"]


def closes_with_summary_real_systems_exercises_and_reading(
    nb: NotebookNode, path: Path
):
    headings = " | ".join(
        re.findall(r"^#+ (.*)$", prose(nb.cells), re.MULTILINE)
    ).lower()
    wanted = ("summary", "real systems", "exercises", "reading")
    return [f"no heading says “{word}”" for word in wanted if word not in headings]


def is_plain_markdown(nb: NotebookNode, path: Path):
    """No MyST in a notebook: Colab and GitHub would show it raw."""
    return [
        f"cell {cell.id}: {what} of MyST ({found[0].strip()})"
        for cell in nb.cells
        if cell.cell_type == "markdown"
        for what, pattern in MYST.items()
        if (found := pattern.search(cell.source))
    ]


def has_prose_before_every_code_cell(nb: NotebookNode, path: Path):
    """A graded cell follows its task, or the solution that it checks."""
    cells = [cell for cell in nb.cells if not notebooks.is_setup(cell)]
    return [
        f"cell {cell.id}: no prose before it"
        for before, cell in zip([None, *cells], cells)
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata
        if before is None or before.cell_type != "markdown"
    ]


def gives_every_figure_alt_text_a_caption_and_a_name(nb: NotebookNode, path: Path):
    """What moves has a label instead."""
    said = []
    for cell in nb.cells:
        if {"remove-cell", "remove-output"} & set(notebooks.tags(cell)):
            continue
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        if any(kind in each for each in data for kind in IMAGES):
            said += [f"cell {cell.id}: {what}" for what in undescribed(cell)]
        for html in ("".join(each.get("text/html", "")) for each in data):
            labelled = re.search(r"""(aria-label|alt)=["'][^"']{20,}""", html)
            if re.search(r"<(svg|canvas|img)\b", html) and not labelled:
                said.append(f"cell {cell.id}: no aria-label in its HTML")
    return said


def undescribed(cell: NotebookNode) -> Iterator[str]:
    marks = cell.metadata.get("mystnb", {})
    figure = marks.get("figure", {})
    if len(marks.get("image", {}).get("alt", "")) < 30:
        yield "no alt text of 30 characters"
    if len(figure.get("caption", "")) < 20:
        yield "no caption of 20 characters"
    if not figure.get("name", "").startswith("fig-"):
        yield "no name that begins with fig-"


def ran_from_top_to_bottom_without_errors_and_warnings(nb: NotebookNode, path: Path):
    said = []
    cells = [c for c in nb.cells if c.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        said.append(f"execution counts {counts}: not run from top to bottom")
    for cell in cells:
        may_raise = "raises-exception" in notebooks.tags(cell)
        if may_raise and path.parent.name != "exercises":
            said.append(f"cell {cell.id}: only a student's check cell may raise")
        kinds = {output.output_type for output in cell.outputs}
        if "error" in kinds and not may_raise:
            said.append(f"cell {cell.id}: an error is stored")
        if any(output.get("name") == "stderr" for output in cell.outputs):
            said.append(f"cell {cell.id}: output on stderr")
    return said


def shows_what_its_present_cells_and_the_present_lib_output(
    nb: NotebookNode, path: Path
):
    return [f"its {what} changed: make execute" for what in notebooks.stale(nb)]


def names_no_machine_and_hides_no_output_behind_a_semicolon(
    nb: NotebookNode, path: Path
):
    said = []
    for cell in notebooks.code_cells(nb):
        if any(line.rstrip().endswith(";") for line in cell.source.splitlines()):
            said.append(f"cell {cell.id}: a line ends in a semicolon (say _ = …)")
        found = [LOCAL.search(compared(output)) for output in cell.outputs]
        said += [f"cell {cell.id}: {hit[0]!r} in its output" for hit in found if hit]
    return said


def compared(output: NotebookNode) -> str:
    """What nbval compares of an output: its text, not its pictures."""
    data = output.get("data", {}).items()
    words = [v for kind, v in data if kind not in (*IMAGES, "text/html")]
    words += [output.get("text", ""), *output.get("traceback", [])]
    return " ".join(map(str, words))


def stores_no_widget(nb: NotebookNode, path: Path):
    """It is dead on a page, and large."""
    stored = "widgets" in nb.metadata or "widget-view+json" in str(nb.cells)
    return ["holds widget state"] if stored else []


def says_why_an_output_is_not_compared(nb: NotebookNode, path: Path):
    return [
        f"cell {cell.id}: ignored without an ignore_reason"
        for cell in ignored(nb)
        if len(cell.metadata.get("ignore_reason", "")) < 10
    ]


def ignored(nb: NotebookNode) -> list[NotebookNode]:
    return [c for c in notebooks.code_cells(nb) if IGNORES & set(notebooks.tags(c))]


def describes_folds_and_checks_at_least_three_exercises(nb: NotebookNode, path: Path):
    graded = [cell for cell in nb.cells if "nbgrader" in cell.metadata]
    ids = [cell.metadata.nbgrader.grade_id for cell in graded]
    said = [f"grade_id {each} twice" for each in {i for i in ids if ids.count(i) > 1}]
    answers = [cell for cell in graded if cell.metadata.nbgrader.solution]
    if len(answers) < 3:
        said.append(f"{len(answers)} exercises, fewer than 3")
    for cell in answers:
        wrong = [*untold(nb, cell), *unsound(cell, ids)]
        said += [f"{cell.metadata.nbgrader.grade_id}: {what}" for what in wrong]
    return said


def untold(nb: NotebookNode, answer: NotebookNode) -> Iterator[str]:
    """What the text since an exercise's heading does not say."""
    before = prose(nb.cells[: nb.cells.index(answer)])
    task = re.split(r"^#+ ", before, flags=re.MULTILINE)[-1].lower()
    signs = {"★": "difficulty", "minute": "minutes", "see": "what to see"}
    yield from (
        f"does not say its {what}" for sign, what in signs.items() if sign not in task
    )


def unsound(answer: NotebookNode, ids: list[str]) -> Iterator[str]:
    if answer.cell_type == "markdown":
        if not re.search(r"<details>\s*<summary>", answer.source):
            yield "its written solution is not folded in <details><summary>"
        return
    marked = r"(?s)def .*### BEGIN SOLUTION.*### END SOLUTION"
    prompt = answer.metadata.get("mystnb", {}).get("code_prompt_show")
    if f"{answer.metadata.nbgrader.grade_id}_check" not in ids:
        yield "no check cell"
    if not re.search(marked, answer.source):
        yield "no solution between marker lines below a signature"
    if "hide-input" not in notebooks.tags(answer) or prompt != "Show solution":
        yield "its solution is not folded (hide-input, code_prompt_show)"


RULES: dict[Rule, list[Path]] = {
    follows_the_address_and_its_tags: EVERY,
    begins_with_its_title_its_colab_link_and_the_setup_cell: EVERY,
    is_plain_markdown: EVERY,
    gives_every_figure_alt_text_a_caption_and_a_name: PAGES,
    ran_from_top_to_bottom_without_errors_and_warnings: EVERY,
    shows_what_its_present_cells_and_the_present_lib_output: EVERY,
    names_no_machine_and_hides_no_output_behind_a_semicolon: EVERY,
    stores_no_widget: EVERY,
    says_why_an_output_is_not_compared: EVERY,
    says_how_long_it_takes: PAGES,
    has_prose_before_every_code_cell: PAGES,
    closes_with_summary_real_systems_exercises_and_reading: CHAPTERS,
    describes_folds_and_checks_at_least_three_exercises: SOLUTIONS,
}


def sentence(rule: Callable) -> str:
    return rule.__name__.strip("_").replace("_", " ")


@cache
def read(path: Path) -> NotebookNode:
    """A notebook of the book, which no rule changes."""
    return notebooks.read(path)


@pytest.mark.parametrize("rule", RULES, ids=sentence)
def test_a_notebook(rule):
    said = [
        f"{path.parent.name}/{path.name}: {what}"
        for path in RULES[rule]
        for what in rule(read(path), path)
    ]
    assert RULES[rule] and not said, "\n".join(["", *said])


def test_at_most_one_code_cell_in_twenty_is_not_compared():
    cells = [len(notebooks.code_cells(read(path))) for path in EVERY]
    assert sum(len(ignored(read(path))) for path in EVERY) <= IGNORED_SHARE * sum(cells)


def shared_names(books: list[NotebookNode]) -> set[str]:
    marks = [cell.metadata.get("mystnb", {}) for book in books for cell in book.cells]
    names = [
        mark["figure"]["name"] for mark in marks if "name" in mark.get("figure", {})
    ]
    return {name for name in names if names.count(name) > 1}


def test_no_two_figures_share_a_name():
    assert shared_names([read(path) for path in PAGES]) == set()
    chapter = read(CHAPTERS[0])
    assert len(shared_names([chapter, chapter])) > 1


# ------------------------------------------- each rule notices what it forbids


def cell_with(nb: NotebookNode, what: str) -> NotebookNode:
    """The first cell that has an output or a tag of this kind, or is of this type."""
    for cell in nb.cells:
        if notebooks.is_setup(cell):
            continue
        kinds = {kind for o in cell.get("outputs", []) for kind in o.get("data", {})}
        if what in kinds or what == cell.cell_type or what in cell.metadata:
            return cell
    raise LookupError(what)


def code_tagged(nb: NotebookNode, *tags: str) -> None:
    cell_with(nb, "code").metadata["tags"] = list(tags)


def replaced(nb: NotebookNode, old: str, new: str) -> None:
    for cell in nb.cells:
        cell.source = re.sub(old, new, cell.source)


def prints(nb: NotebookNode, text: str, name: str = "stdout") -> None:
    output = {"output_type": "stream", "name": name, "text": text}
    cell_with(nb, "code").outputs.append(NotebookNode(output))


def adds(nb: NotebookNode, text: str) -> None:
    nb.cells[2].source += f"\n\n{text}"


def ungraded(nb: NotebookNode) -> None:
    nb.cells = [c for c in nb.cells if not c.metadata.get("nbgrader", {}).get("grade")]


def without(nb: NotebookNode, tag: str) -> None:
    for cell in nb.cells:
        cell.metadata["tags"] = [t for t in notebooks.tags(cell) if t != tag]


FOLLOWS, BEGINS, MARKDOWN, FIGURES, RAN, PRESENT, MACHINE, WIDGETS, WHY = list(RULES)[
    :9
]
TIME, BEFORE, CLOSES, EXERCISES = list(RULES)[9:]
IMAGE = "image/svg+xml"
DAMAGES: list[tuple[Rule, str, Callable[[NotebookNode], object]]] = [
    (FOLLOWS, "two threads", lambda nb: replaced(nb, "threads.1.", "threads(2)")),
    (FOLLOWS, "another's link", lambda nb: replaced(nb, "b/rlhf-ex", "b/other-ex")),
    (FOLLOWS, "an open set-up cell", lambda nb: nb.cells[1].metadata.pop("cellView")),
    (
        FOLLOWS,
        "a shut cell",
        lambda nb: cell_with(nb, "code").metadata.update(cellView="form"),
    ),
    (BEGINS, "no title", lambda nb: nb.cells[0].update(source=nb.cells[0].source[2:])),
    (BEGINS, "no link", lambda nb: replaced(nb, r"\[Open in Colab\]\S*", "")),
    (BEGINS, "no set-up cell", lambda nb: nb.cells.pop(1)),
    (BEGINS, "two set-up cells", lambda nb: nb.cells.append(notebooks.setup_cell())),
    (BEGINS, "a set-up cell in view", lambda nb: nb.cells[1].metadata.tags.pop()),
    (MARKDOWN, "a role", lambda nb: adds(nb, "See {numref}`fig-one`.")),
    (MARKDOWN, "a directive", lambda nb: adds(nb, "```{note}\nhello\n```")),
    (MARKDOWN, "a target", lambda nb: adds(nb, "(here)=\n")),
    (FIGURES, "no marks", lambda nb: cell_with(nb, IMAGE).metadata.pop("mystnb")),
    (FIGURES, "no alt", lambda nb: cell_with(nb, IMAGE).metadata.mystnb.pop("image")),
    (RAN, "not run", lambda nb: cell_with(nb, "code").update(execution_count=None)),
    (RAN, "a warning", lambda nb: prints(nb, "UserWarning: …", "stderr")),
    (RAN, "a cell that may raise", lambda nb: code_tagged(nb, "raises-exception")),
    (PRESENT, "a false output", lambda nb: prints(nb, "all is well\n")),
    (PRESENT, "a new line", lambda nb: cell_with(nb, "code").update(source="seed = 7")),
    (PRESENT, "a new tag", lambda nb: code_tagged(nb, "nbval-skip")),
    (MACHINE, "an address", lambda nb: prints(nb, "<f at 0x7f3b2c1d0e80>")),
    (MACHINE, "a folder", lambda nb: prints(nb, "/home/me/book")),
    (MACHINE, "a semicolon", lambda nb: cell_with(nb, "code").update(source="f();")),
    (WIDGETS, "a widget", lambda nb: nb.metadata.update(widgets={"state": {}})),
    (WHY, "no reason", lambda nb: code_tagged(nb, "nbval-skip")),
    (TIME, "no time", lambda nb: replaced(nb, "second|minute|hour", "while")),
    (
        BEFORE,
        "no prose",
        lambda nb: nb.cells.insert(-1, nbformat.v4.new_code_cell("1")),
    ),
    (CLOSES, "no summary", lambda nb: replaced(nb, "(?i)summary", "end")),
    (EXERCISES, "no check", ungraded),
    (EXERCISES, "an open solution", lambda nb: without(nb, "hide-input")),
    (EXERCISES, "no stars", lambda nb: replaced(nb, "★", "*")),
    (EXERCISES, "no markers", lambda nb: replaced(nb, "### (BEGIN|END) SOLUTION", "#")),
    (EXERCISES, "none", lambda nb: [c.metadata.pop("nbgrader", 0) for c in nb.cells]),
]


def tried(rule: Rule) -> list[Path]:
    """Two of the notebooks for which a rule is."""
    pages = [path for path in RULES[rule] if path in PAGES]
    drawn = [path for path in pages if "image/svg+xml" in path.read_text("utf-8")]
    pages = drawn if rule is FIGURES else pages
    return [pages[0], pages[-1]]


@pytest.mark.parametrize(
    ("rule", "damage"),
    [(rule, damage) for rule, _, damage in DAMAGES],
    ids=[f"{what} where it {sentence(rule)}" for rule, what, _ in DAMAGES],
)
def test_a_rule_notices(rule, damage):
    for path in tried(rule):
        notebook = copy.deepcopy(read(path))
        if rule is PRESENT:  # be it stale or not
            notebook.metadata["executed"] = notebooks.fingerprints(notebook)
        before = rule(notebook, path)
        damage(notebook)
        assert len(rule(notebook, path)) > len(before)


def test_every_rule_has_a_damage_that_it_notices():
    assert {rule for rule, *_ in DAMAGES} == set(RULES)
