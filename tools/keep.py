"""What is the reader's stays the reader's: how a tool tells, and where it sets things aside.

A generated notebook carries in its metadata what was generated: `generated`, a digest of
its cells. One whose cells say otherwise was edited, and no tool writes over it.
"""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from nbformat import NotebookNode

from tools import notebooks

HOME = "my"  # the reader's own folder; git ignores it, and only tools.lab adds to it


def version(notebook: NotebookNode) -> str:
    """What the cells say, as sha256: not their outputs, nor how they are shown."""
    said = json.dumps([[c.cell_type, c.source] for c in notebook.cells])
    return hashlib.sha256(said.encode()).hexdigest()


def stamp(notebook: NotebookNode) -> NotebookNode:
    """Mark a notebook as generated, with the cells it has now."""
    notebook.metadata["generated"] = version(notebook)
    return notebook


def edited(path: Path) -> bool:
    """Whether somebody wrote into a generated notebook, or it cannot even be read."""
    notebook = readable(path)
    return notebook is None or notebook.metadata.get("generated") != version(notebook)


def readable(path: Path) -> NotebookNode | None:
    """The notebook, or None where a file holds none."""
    try:
        return notebooks.read(path)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def left(path: Path, root: Path = notebooks.ROOT) -> str:
    """The line that says that an edited exercise was not touched."""
    where = path.relative_to(root).as_posix()
    return f"{where} holds your edits: left as it is (your own folder is {HOME}/: make lab)"


def committed(path: Path, root: Path = notebooks.ROOT) -> bool:
    """Whether git holds this file just as it is; no without git."""
    name = path.relative_to(root).as_posix()
    command = ["git", "-C", str(root), "status", "--porcelain", "--ignored", "--", name]
    try:
        asked = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return False
    return asked.returncode == 0 and not asked.stdout


def free(path: Path) -> Path:
    """`path` itself, or with .2, .3, … before its suffix: a name that nothing has yet."""
    found, number = path, 1
    while found.exists() or found.is_symlink():
        number += 1
        found = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return found


def aside(path: Path, root: Path = notebooks.ROOT) -> None:
    """Before a file is changed: keep a copy of what git does not hold, and say where."""
    if committed(path, root):
        return
    copy = free(root / HOME / "aside" / path.relative_to(root))
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    print(f"{path.relative_to(root)} as it was: {copy.relative_to(root)}")
