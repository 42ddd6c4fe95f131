"""Bring notebooks and pages to what _config.yml and their own tags say.

    python -m tools.mend    rewrite what does not follow; a test holds that all does

- The repository's address (`repository.url` and `branch` in _config.yml; a fork changes them):
  set-up cells, links, README, pages. In text the old address is recognised because
  CITATION.cff (`repository-code`) still says it.
- Folds: what hide-input, hide-output and hide-cell fold on the page (the set-up cell is not
  shown at all) is folded in JupyterLab and Colab too, and nothing else.

Exercises that somebody wrote into are left alone; of any other file that git does not hold
as it is, a copy is set aside before it is changed.
"""

import copy
import re
from pathlib import Path

from nbformat import NotebookNode

from tools import keep, notebooks

NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "_config.yml")
CITED = re.compile(r"^repository-code: *[\"']?https://github\.com/([^\s\"']+)", re.M)
COLAB = re.compile(r"\[Open in Colab\]\(https://colab\.research\.google\.com/[^)\s]*\)")
HIDDEN = {  # what JupyterLab calls it: the tags that fold it
    "source_hidden": {"hide-input", "hide-cell", "setup"},
    "outputs_hidden": {"hide-output", "hide-cell"},
}


def mend(root: Path, *, check: bool) -> list[str]:
    """Rewrite (or, with `check`, only name) everything that does not follow."""
    old = _remembered(root)  # before CITATION.cff is rewritten
    changed = []
    for path in notebooks.everything(root):
        generated = path.parent.name == "exercises"
        if generated and not check and keep.edited(path):
            print(keep.left(path, root))
            continue
        notebook = notebooks.read(path)
        what = mend_notebook(notebook, path, old, root)
        if what and not check:
            keep.aside(path, root)
            notebooks.write(path, keep.stamp(notebook) if generated else notebook)
        changed += [f"{path.relative_to(root)}: {', '.join(what)}"] if what else []
    pages = [*sorted((root / "book").glob("*.md")), *(root / name for name in NAMED)]
    for path in filter(Path.exists, pages):
        text = path.read_text(encoding="utf-8")
        mended = mend_text(text, old, root)
        if mended != text and not check:
            keep.aside(path, root)
            path.write_text(mended, encoding="utf-8", newline="\n")
        changed += [str(path.relative_to(root))] if mended != text else []
    return changed


def mend_notebook(
    notebook: NotebookNode, path: Path, old: str, root: Path
) -> list[str]:
    """Bring a notebook to the present address and tags; the cells that changed."""
    link, changed = notebooks.colab_link(path, root), set(fold(notebook))
    for cell in notebook.cells:
        source = cell.source
        if notebooks.is_setup(cell):
            source = notebooks.setup_source(root)
        elif cell.cell_type == "markdown":
            source = mend_text(COLAB.sub(lambda _: link, source), old, root)
        if source != cell.source:
            cell.source = source
            changed.add(cell.id)
    return [f"cell {cell.id}" for cell in notebook.cells if cell.id in changed]


def mend_text(text: str, old: str, root: Path) -> str:
    """Replace owner/name `old` by the present one in links to GitHub, Colab and Pages."""
    url, branch = notebooks.address(root)
    now, end = url.removeprefix(notebooks.GITHUB), r"(?![\w-])"
    here = rf"(github\.com/|/github/){re.escape(old)}{end}"
    text = re.sub(here, rf"\g<1>{now}", text)
    file = rf"((?:github\.com|/github)/{re.escape(now)}/(?:blob|tree|raw)/)[^/\s)]+"
    text = re.sub(file, rf"\g<1>{branch}", text)
    return re.sub(re.escape(_pages(old)) + end, _pages(now), text)


def fold(notebook: NotebookNode) -> list[str]:
    """Fold the cells that their tags fold, unfold all others; the ids of those changed."""
    return [c.id for c in notebook.cells if c.cell_type == "code" and _fold(c)]


def _fold(cell: NotebookNode) -> bool:
    found, before = set(notebooks.tags(cell)), copy.deepcopy(cell.metadata)
    lab = {k: v for k, v in cell.metadata.pop("jupyter", {}).items() if k not in HIDDEN}
    lab |= {name: True for name, signs in HIDDEN.items() if found & signs}
    cell.metadata.pop("cellView", None)
    if lab:
        cell.metadata["jupyter"] = lab
    if lab.get("source_hidden"):
        cell.metadata["cellView"] = "form"  # Colab's word
    return cell.metadata != before


def _remembered(root: Path) -> str:
    """owner/name as CITATION.cff says it; the present one where there is no such file."""
    file = root / "CITATION.cff"
    cited = CITED.search(file.read_text(encoding="utf-8")) if file.exists() else None
    now = notebooks.address(root)[0].removeprefix(notebooks.GITHUB)
    return cited[1].rstrip("/") if cited else now


def _pages(name: str) -> str:
    owner, _, repository = name.partition("/")
    return f"https://{owner.lower()}.github.io/{repository}"


if __name__ == "__main__":
    for each in mend(notebooks.ROOT, check=False):
        print(f"mended: {each}")
