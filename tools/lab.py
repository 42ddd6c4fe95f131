"""Open JupyterLab on the reader's own folder, my/, which the book's other commands leave alone.

    python -m tools.lab                  copy what is missing, then open JupyterLab there
    python -m tools.lab --copy-only      only copy
    python -m tools.lab --no-browser …   what else is said goes to JupyterLab

my/ has the chapters and, in my/exercises, the students' notebooks. What lies there is never
written over: where the book has a newer version, a copy of it is laid beside.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools import execute, extras, keep, notebooks

GIVEN = ".given.json"  # the versions of each notebook that were copied so far


def copy(root: Path = notebooks.ROOT) -> list[str]:
    """Copy notebooks that are missing or newer into my/; a line for each that is beside."""
    home = root / keep.HOME
    home.mkdir(exist_ok=True)
    given = _given(home)
    said = []
    for source in [*notebooks.chapters(root), *notebooks.exercises(root)]:
        name = source.relative_to(root / "notebooks").as_posix()
        line = _copy(source, home / name, given.setdefault(name, []))
        said += [line] if line else []
    text = json.dumps(given, indent=1, sort_keys=True) + "\n"
    (home / GIVEN).write_text(text, encoding="utf-8")
    return said


def _copy(source: Path, target: Path, given: list[str]) -> str:
    """Copy one notebook, under a name that is free, unless this version was given before."""
    notebook = keep.readable(source)
    if notebook is None:
        return f"{source}: no notebook, not copied"
    now = keep.version(notebook)
    there = list(_versions(target))
    if there and (now in given or now in there):
        return ""
    place = keep.free(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as file:  # never over another file
        file.write(source.read_bytes())
    given.extend({now, notebook.metadata.get("generated", now)} - set(given))
    newer = f"{target} stays as it is; another version lies beside it: {place.name}"
    return newer if place != target else ""


def _versions(target: Path) -> Iterator[str]:
    """Of the reader's file, and of those laid beside it."""
    for path in [target, *target.parent.glob(f"{target.stem}.*{target.suffix}")]:
        if path.exists():
            notebook = keep.readable(path)
            yield keep.version(notebook) if notebook else ""


def _given(home: Path) -> dict[str, list[str]]:
    try:
        return json.loads((home / GIVEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """JupyterLab's exit code."""
    flags = list(sys.argv[1:] if arguments is None else arguments)
    for line in copy():
        print(line)
    print(f"Your own folder: {notebooks.ROOT / keep.HOME}", flush=True)
    if "--copy-only" in flags:
        return 0
    extras.need("requirements-lab.txt")
    os.environ.update(execute.ENVIRONMENT)
    from jupyterlab.labapp import LabApp  # installed a moment ago

    where = [f"--ServerApp.root_dir={notebooks.ROOT}"]
    where += [f"--LabApp.default_url=/lab/tree/{keep.HOME}"]
    LabApp.launch_instance([*where, *flags])
    return 0


if __name__ == "__main__":
    sys.exit(main())
