"""What is folded on a page is folded in JupyterLab and Colab too.

    python -m tools.folds            write it into every notebook that carries a fold
    python -m tools.folds --check    exit 1 if a notebook differs

On the page the tags hide-input, hide-output and hide-cell fold (the set-up cell is not
shown at all). JupyterLab reads `jupyter.source_hidden` and `jupyter.outputs_hidden`, Colab
`cellView: form`. Only the metadata of cells change, which no fingerprint covers.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode

from tools import keep, notebooks

CODE = {"hide-input", "hide-cell", "setup"}
OUTPUTS = {"hide-output", "hide-cell"}


def fold(notebook: NotebookNode) -> list[str]:
    """Fold the cells that their tags fold, unfold all others; the ids of those changed."""
    changed = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and _fold(cell):
            changed.append(cell.id)
    return changed


def _fold(cell: NotebookNode) -> bool:
    found, before = set(notebooks.tags(cell)), copy.deepcopy(cell.metadata)
    lab = dict(cell.metadata.pop("jupyter", {}))
    for name, signs in (("source_hidden", CODE), ("outputs_hidden", OUTPUTS)):
        lab.pop(name, None)
        if found & signs:
            lab[name] = True
    cell.metadata.pop("cellView", None)
    if lab:
        cell.metadata["jupyter"] = lab
    if found & CODE:
        cell.metadata["cellView"] = "form"
    return cell.metadata != before


def mend(root: Path, *, check: bool) -> list[str]:
    """Fold (or, with `check`, only name) what is not folded as its tags say."""
    changed = []
    for path in notebooks.everything(root):
        if not check and path.parent.name == "exercises" and keep.edited(path):
            print(keep.left(path, root))
            continue
        notebook = notebooks.read(path)
        if fold(notebook):
            changed.append(path.relative_to(root).as_posix())
            if not check:
                notebooks.write(path, notebook)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: all are folded; 1: `--check` found one that is not."""
    parser = argparse.ArgumentParser(prog="python -m tools.folds")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    changed = mend(notebooks.ROOT, check=options.check)
    for name in changed:
        print(f"{'not folded' if options.check else 'folded'} as on the page: {name}")
    return 1 if changed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
