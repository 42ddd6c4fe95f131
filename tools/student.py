"""Cut the student's notebooks from the sources that carry the solutions.

    python -m tools.student    notebooks/solutions/* -> notebooks/exercises/*

The rules are nbgrader's (0.9): in a cell marked `solution`, what stands between
`### BEGIN SOLUTION` and `### END SOLUTION` becomes a stub; without such lines the whole
cell does; hidden tests go. Check cells may raise: an untouched stub is no error.
A student notebook that somebody wrote into is left as it is, and one line says so. A test
holds that the committed ones are what their sources yield.
"""

import copy
import re
import sys
from pathlib import Path

from nbformat import NotebookNode

from tools import keep, notebooks

CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXT_STUB = "YOUR ANSWER HERE"
LINKS = ("/notebooks/solutions/", "/notebooks/exercises/")  # to the student's version
SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION[^\n]*\n.*?^[ \t]*### END SOLUTION[^\n]*(?=\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
HIDDEN = re.compile(
    r"^[ \t]*### BEGIN HIDDEN TESTS[^\n]*\n.*?^[ \t]*### END HIDDEN TESTS[^\n]*(?:\n|\Z)",
    re.DOTALL | re.MULTILINE,
)


def student_path(source: Path) -> Path:
    """Where the student's version of a source lies."""
    return source.parents[1] / "exercises" / source.name


def student_notebook(source: NotebookNode) -> NotebookNode:
    """The student's version: same cells, no answers, nothing executed yet."""
    notebook = copy.deepcopy(source)
    for name in ("executed", "widgets"):
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        _clear(cell)
    return keep.stamp(notebook)


def _clear(cell: NotebookNode) -> None:
    marks = cell.metadata.get("nbgrader", {})
    code = cell.cell_type == "code"
    if code:
        cell.outputs, cell.execution_count = [], None
    else:
        cell.source = cell.source.replace(*LINKS)
    if marks.get("solution"):
        cell.source = _without_solution(cell.source, CODE_STUB if code else TEXT_STUB)
        unfold(cell)
    if marks.get("grade"):
        cell.source = HIDDEN.sub("", cell.source).rstrip("\n")
        if code and not marks.get("solution"):
            cell.metadata["tags"] = [*notebooks.tags(cell), "raises-exception"]
    left = re.search(r"### (BEGIN|END) (SOLUTION|HIDDEN TESTS)", cell.source)
    if left:
        raise ValueError(f"cell {cell.id}: a stray {left[0]!r}")


def _without_solution(source: str, stub: str) -> str:
    def stubbed(found: re.Match[str]) -> str:
        return "\n".join(found[1] + line for line in stub.splitlines())

    cleared, count = SOLUTION.subn(stubbed, source)
    marked = count or "### BEGIN" in source or "### END" in source
    return cleared if marked else stub


def unfold(cell: NotebookNode) -> None:
    """The stub is to be seen: undo what folds the solution on the page."""
    kept = [tag for tag in notebooks.tags(cell) if not tag.startswith("hide-")]
    cell.metadata.pop("tags", None)
    if kept:
        cell.metadata["tags"] = kept
    for fold in ("mystnb", "jupyter", "cellView"):  # see tools/mend.py
        cell.metadata.pop(fold, None)


def sources_of(notebook: NotebookNode) -> list[tuple[str, str, str, str]]:
    """What a student notebook consists of, without its outputs."""
    return [
        (c.id, c.cell_type, c.source, repr(sorted(c.metadata.items())))
        for c in notebook.cells
    ]


def matches(source: Path) -> bool:
    """Whether the committed student notebook is what its source yields."""
    target = student_path(source)
    if not target.exists() or keep.edited(target):
        return False
    wanted = student_notebook(notebooks.read(source))
    return sources_of(notebooks.read(target)) == sources_of(wanted)


def renew(source: Path, root: Path = notebooks.ROOT) -> str:
    """Write the student's version unless theirs is in the way; the line that says what."""
    target = student_path(source)
    wanted = student_notebook(notebooks.read(source))
    if target.exists() and keep.edited(target) and not _says(target, wanted):
        return keep.left(target, root)
    notebooks.write(target, wanted)
    return f"written: {target.relative_to(root)}"


def _says(target: Path, wanted: NotebookNode) -> bool:
    """Whether a file's cells are those wanted, though its stamp is another's."""
    there = keep.readable(target)
    return there is not None and keep.version(there) == keep.version(wanted)


def main() -> None:
    """Renew what differs; say what was written, what was left, and what has no source."""
    sources = notebooks.solutions()
    for source in sources:
        if not matches(source):
            print(renew(source))
    expected = {student_path(source) for source in sources}
    for path in notebooks.exercises():
        if path not in expected:
            print(f"{path}: has no source in notebooks/solutions", file=sys.stderr)


if __name__ == "__main__":
    main()
