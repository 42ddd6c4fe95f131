"""The notebooks whose outputs are not compared, and the line that says so on their pages.

    python -m tools.lax                the notebooks that are strict, a path a line

notebooks/lax.toml lists them by name, each with its reason. pytest runs every cell of
theirs and compares no output (conftest.py); `python -m tools.address` writes the line.
"""

import re
import tomllib
from pathlib import Path

from nbformat import NotebookNode

from tools import notebooks

NOTE = (
    "*Digits on this page may differ on your machine; its second edition is under way.*"
)
NOTED = re.compile(r"\n\n\*Digits on this page may differ[^\n]*(?=\n|\Z)")
LINK = re.compile(r"^\[Open in Colab\]\([^)\s]*\).*$", re.MULTILINE)
FOLDERS = ("notebooks", "notebooks/solutions", "notebooks/exercises")


def listed(root: Path = notebooks.ROOT) -> dict[str, str]:
    """The names on the list, each with its reason; none where there is no list."""
    file = root / "notebooks" / "lax.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def is_lax(path: Path, root: Path = notebooks.ROOT) -> bool:
    """Whether this is a notebook of the book whose name is on the list."""
    folders = [(root / folder).resolve() for folder in FOLDERS]
    return path.resolve().parent in folders and path.stem in listed(root)


def noted(title: str, *, lax: bool) -> str:
    """The text of a title cell, with the line below the Colab link or without it."""
    plain = NOTED.sub("", title)
    return (
        LINK.sub(lambda link: f"{link[0]}\n\n{NOTE}", plain, count=1) if lax else plain
    )


def mend(notebook: NotebookNode, path: Path, root: Path) -> bool:
    """Write the line into a listed notebook, take it from another; True if it changed."""
    first = notebook.cells[0]
    before = first.source
    if first.cell_type == "markdown":
        first.source = noted(before, lax=is_lax(path, root))
    return first.source != before


def strict(root: Path = notebooks.ROOT) -> list[Path]:
    """The notebooks whose outputs are compared."""
    return [path for path in notebooks.everything(root) if not is_lax(path, root)]


if __name__ == "__main__":
    for each in strict():
        print(each.relative_to(notebooks.ROOT))
