"""Write a folder that nbgrader releases, collects and grades: an assignment a chapter.

    python -m tools.course [DIR]      (default: _course)

Said again, it renews what it wrote itself; a file that was changed since, or that it did not
write, is left as it is, and one line names it.
"""

import copy
import hashlib
import json
import posixpath
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nbformat import NotebookNode

from tools import notebooks, student

FILES = Path(__file__).parent / "course_files"
WRITTEN = ".written.json"  # sha256 of each file as it was written here
LINK = re.compile(r"\]\((\.\./[^)\s]*)\)")
CODE = ("lib", "labs", "notebooks/records")  # what a notebook imports, what labs read
REQUIREMENTS = (
    "requirements.txt",
    "requirements-course.txt",
    "constraints.txt",
    "constraints-extra.txt",
)


def source_notebook(source: NotebookNode, root: Path = notebooks.ROOT) -> NotebookNode:
    """The instructor's version: solutions in it, links that lead a student elsewhere."""
    notebook = copy.deepcopy(source)
    notebook.metadata.pop("executed", None)
    url, branch = notebooks.address(root)

    def absolute(link: re.Match[str]) -> str:
        path = posixpath.normpath(f"notebooks/solutions/{link[1]}")
        return f"]({url}/blob/{branch}/{path})"

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = cell.source.replace(*student.LINKS)
            cell.source = LINK.sub(absolute, cell.source)
        if cell.metadata.get("nbgrader", {}).get("solution"):
            student.unfold(cell)
    return notebook


def files(root: Path = notebooks.ROOT) -> Iterator[tuple[str, bytes]]:
    """Everything in a course by its name there."""
    for path in sorted(FILES.iterdir()):
        if path.is_file():
            yield path.name, path.read_bytes()
    for name in REQUIREMENTS:
        yield name, (root / name).read_bytes()
    for part in CODE:
        for path in sorted((root / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root).as_posix(), path.read_bytes()
    for path in notebooks.solutions(root):
        made = source_notebook(notebooks.read(path), root)
        yield f"source/{path.stem}/{path.name}", notebooks.text_of(made).encode()


def write(folder: Path, root: Path = notebooks.ROOT) -> list[str]:
    """Write the course; the names of the files that were left because they differ."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / WRITTEN
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    now, left = {}, []
    for name, data in files(root):
        path = folder / name
        there = _digest(path.read_bytes()) if path.exists() else None
        if there in (None, before.get(name), _digest(data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            now[name] = _digest(data)
        else:
            left.append(name)
            now[name] = before.get(name, "")
    record.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    return left


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: written, or left as it is."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    folder = Path(given[0] if given else notebooks.ROOT / "_course").resolve()
    for name in write(folder):
        print(f"{folder / name}: not as this command wrote it, left as it is")
    print(f"The course lies in {folder}; README.md there says how to go on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
