"""The book's notebooks as data: where they lie, how they are written, what they claim.

A notebook carries in its metadata what produced its outputs:

    "executed": {"cells": sha256, "lib": sha256, "outputs": sha256, "with": {...}}

`cells` covers the sources and tags of its code cells (without the set-up cell, which a
test holds against the template below), `lib` the files of lib that it imports, directly
or not, `outputs` what is stored. `stale` recomputes all three and says what differs.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from lib import digest

ROOT = Path(__file__).resolve().parents[1]
GITHUB = "https://github.com/"

SETUP = '''\
# Set-up, the same in every notebook: finds the book's code, or fetches a copy of it beside
# this notebook (in Colab into /content, on Kaggle into /kaggle/working). Installs nothing.
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

URL, BRANCH = "{url}", "{branch}"
NAMES = ["{name}", "{name}-{branch}"]  # a clone's folder, and that of GitHub's ZIP
HERE = Path.cwd()
if "google.colab" in sys.modules:
    HERE = Path("/content")
elif "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
    HERE = Path("/kaggle/working")


class Stop(Exception):
    """One sentence that says what to do; Jupyter shows it without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


def find_book():
    """The folder that holds the book's lib: known already, above this one, or beside."""
    near = [Path.cwd(), *Path.cwd().parents, HERE]
    places = [*sys.path, *near, *(folder / name for folder in near for name in NAMES)]
    return next((p for p in places if os.path.isfile(f"{p}/lib/worlds/cups.py")), None)


def fetch_book():
    """Clone, then move in one step: an interrupted clone leaves no half copy."""
    book = next((HERE / name for name in NAMES if not (HERE / name).exists()), HERE)
    print(f"Fetching the book's code into {book} (only the first time)", flush=True)
    git = ["git", "clone", "-q", "--depth", "1", "-b", BRANCH, URL, "book"]
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        with tempfile.TemporaryDirectory(dir=HERE, prefix=".fetching-") as part:
            subprocess.run(git, cwd=part, env=quiet, check=True, capture_output=True)
            os.rename(f"{part}/book", book)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode(errors="replace").strip()
        why = said.splitlines()[0] if said else error
        remedy = (
            "check the network (on Kaggle, switch Internet on), or unpack "
            f"{URL}/archive/{BRANCH}.zip in {HERE}, then run this cell again"
        )
        if find_book() is None:  # no other notebook fetched it meanwhile
            raise Stop(f"Could not fetch the book's code ({why}): {remedy}.") from None


if sys.version_info < (3, 11):
    raise Stop("The book needs Python 3.11 or newer: choose or install another kernel.")
NEEDED = ["torch", "numpy", "gymnasium", "matplotlib", "ipywidgets", "tqdm", "safetensors"]
if MISSING := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    MISSING = " ".join(MISSING)
    raise Stop(f"Run  %pip install {MISSING}  in a new cell, then this cell again.")
if find_book() is None:
    fetch_book()
sys.path.insert(0, str(find_book()))
import torch
from lib.show import figures
torch.set_num_threads(1)
figures.use_style()'''


def address(root: Path = ROOT) -> tuple[str, str]:
    """(repository address, branch), from the one place that holds them: _config.yml."""
    return _configured(root, "url", r"https://github\.com/\S+?"), _configured(
        root, "branch"
    )


def book_address(root: Path = ROOT) -> str:
    """Where the book is published, with a slash at the end: `baseurl` of _config.yml."""
    return _configured(root, "baseurl", r"https?://\S+?") + "/"


def _configured(root: Path, key: str, value: str = r"\S+") -> str:
    """A value of _config.yml, without a slash at its end."""
    text = (root / "_config.yml").read_text(encoding="utf-8")
    found = re.search(rf"^ +{key}: *({value})/? *$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"_config.yml: got no {key}, wanted a line {key}: {value}")
    return found[1]


def setup_source(root: Path = ROOT) -> str:
    """The text of the set-up cell, with the repository's address filled in."""
    url, branch = address(root)
    source = SETUP.replace("{name}", url.rsplit("/", 1)[1])
    return source.replace("{branch}", branch).replace("{url}", url)


def setup_cell(root: Path = ROOT) -> NotebookNode:
    """The set-up cell itself: hidden on the page, equal in every notebook."""
    folded = {"jupyter": {"source_hidden": True}, "cellView": "form"}
    metadata = {"tags": ["setup", "remove-cell"], **folded}
    source = setup_source(root)
    return nbformat.v4.new_code_cell(source, id="setup", metadata=metadata)


def colab_link(path: Path, root: Path = ROOT) -> str:
    """The visible line below a notebook's title that opens it in Colab."""
    url, branch = address(root)
    short = url.removeprefix(GITHUB)
    inside = path.resolve().relative_to(root.resolve()).as_posix()
    base = "https://colab.research.google.com/github"
    return f"[Open in Colab]({base}/{short}/blob/{branch}/{inside})"


def chapters(root: Path = ROOT) -> list[Path]:
    """notebooks/NN_name.ipynb in order, then those without a number."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def solutions(root: Path = ROOT) -> list[Path]:
    """notebooks/solutions/name.ipynb: the exercises with their solutions."""
    return sorted((root / "notebooks" / "solutions").glob("*.ipynb"))


def exercises(root: Path = ROOT) -> list[Path]:
    """notebooks/exercises/name.ipynb: what the student gets, generated."""
    return sorted((root / "notebooks" / "exercises").glob("*.ipynb"))


def everything(root: Path = ROOT) -> list[Path]:
    """All notebooks of the book."""
    return [*chapters(root), *solutions(root), *exercises(root)]


def read(path: Path) -> NotebookNode:
    """A notebook; a cell without an id gets one that depends on its place only."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    for place, cell in enumerate(raw["cells"]):
        cell.setdefault("id", f"cell-{place:02d}")
    raw["nbformat"], raw["nbformat_minor"] = 4, 5
    return nbformat.reads(json.dumps(raw), as_version=4)


def text_of(notebook: NotebookNode) -> str:
    """The file's text: sorted keys, one space of indent, one newline at the end."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def write(path: Path, notebook: NotebookNode) -> bool:
    """Write the whole file or nothing; True if its bytes changed."""
    data = text_of(notebook).encode()
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return True


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def is_setup(cell: NotebookNode) -> bool:
    """Whether this is the set-up cell."""
    return "setup" in tags(cell)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's code cells without the set-up cell."""
    return [c for c in notebook.cells if c.cell_type == "code" and not is_setup(c)]


def lib_files(sources: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The files of lib and labs that these sources import, directly or through others."""
    names = {name for source in sources for name in digest.imported(source)}
    found = {file.resolve() for name in names for file in digest.files_of(name, root)}
    through: set[Path] = set()
    for file in found:
        if file.suffix == ".py" and file not in through:
            through |= digest.sources(file)
    return sorted(found | through)


def fingerprints(notebook: NotebookNode, root: Path = ROOT) -> dict[str, str]:
    """What a notebook's stored outputs depend on, and the outputs themselves, as sha256."""
    cells = code_cells(notebook)
    every = [c for c in notebook.cells if c.cell_type == "code"]
    files, here = lib_files((c.source for c in every), root), root.resolve()
    stored = [[c.get("execution_count"), c.get("outputs", [])] for c in every]
    return {
        "cells": _digest([[c.source, sorted(tags(c))] for c in cells]),
        "lib": _digest([[f.relative_to(here).as_posix(), _text(f)] for f in files]),
        "outputs": _digest(stored),
    }


def stale(notebook: NotebookNode, root: Path = ROOT) -> list[str]:
    """Which of cells, lib, outputs are not those of the recorded execution."""
    recorded = notebook.metadata.get("executed", {})
    now = fingerprints(notebook, root)
    return [name for name, value in now.items() if recorded.get(name) != value]


def _text(file: Path) -> str:
    """A file's text; line ends of any machine count as the same."""
    return file.read_text(encoding="utf-8")


def _digest(content: Any) -> str:
    plain = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(plain.encode()).hexdigest()
