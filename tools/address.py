"""Carry the repository's address from _config.yml to everything that names it.

    python -m tools.address            rewrite set-up cells, links, README, the book's address
                                       and the line of the notebooks in notebooks/lax.toml
    python -m tools.address --check    exit 1 if something does not follow

A fork changes `repository.url` (and `branch`) in _config.yml and runs the first. In text
the old address is recognised because CITATION.cff (`repository-code`) still says it.
Exercises that somebody wrote into are left alone; of any other file that git does not hold
as it is, a copy is set aside before it is changed.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode

from tools import keep, lax, notebooks

GITHUB = "https://github.com/"
NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "_config.yml")
COLAB = re.compile(r"\[Open in Colab\]\(https://colab\.research\.google\.com/[^)\s]*\)")
CITED = re.compile(
    r"^repository-code: *[\"']?https://github\.com/([^\s\"']+)", re.MULTILINE
)


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
        if what:
            changed.append(f"{path.relative_to(root)}: {', '.join(what)}")
            if not check:
                keep.aside(path, root)
                notebooks.write(path, keep.stamp(notebook) if generated else notebook)
    for path in texts(root):
        text = path.read_text(encoding="utf-8")
        mended = mend_text(text, old, root)
        if mended != text:
            changed.append(str(path.relative_to(root)))
            if not check:
                keep.aside(path, root)
                path.write_text(mended, encoding="utf-8", newline="\n")
    return changed


def mend_notebook(
    notebook: NotebookNode, path: Path, old: str, root: Path
) -> list[str]:
    """Bring set-up cell and links to the present address; what had to change."""
    changed = []
    link = notebooks.colab_link(path, root)
    for cell in notebook.cells:
        source = cell.source
        if notebooks.is_setup(cell):
            source = notebooks.setup_source(root)
        elif cell.cell_type == "markdown":
            source = mend_text(COLAB.sub(lambda _: link, source), old, root)
        if source != cell.source:
            cell.source = source
            changed.append(f"cell {cell.id}")
    if lax.mend(notebook, path, root):
        changed.append("the line below its title")
    return changed


def mend_text(text: str, old: str, root: Path) -> str:
    """Replace owner/name `old` by the present one in links to GitHub, Colab and Pages."""
    url, branch = notebooks.address(root)
    now = url.removeprefix(GITHUB)
    end = r"(?![\w-])"
    text = re.sub(
        rf"(github\.com/|/github/){re.escape(old)}{end}", rf"\g<1>{now}", text
    )
    text = re.sub(
        rf"((?:github\.com|/github)/{re.escape(now)}/(?:blob|tree|raw)/)[^/\s)]+",
        rf"\g<1>{branch}",
        text,
    )
    return re.sub(re.escape(_pages(old)) + end, _pages(now), text)


def texts(root: Path) -> list[Path]:
    """Files of text that may name the address."""
    named = [root / name for name in NAMED]
    pages = sorted((root / "book").glob("*.md"))
    return [path for path in [*pages, *named] if path.exists()]


def _remembered(root: Path) -> str:
    """owner/name as CITATION.cff says it; the present one where there is no such file."""
    now = notebooks.address(root)[0].removeprefix(GITHUB)
    file = root / "CITATION.cff"
    cited = CITED.search(file.read_text(encoding="utf-8")) if file.exists() else None
    return cited[1].rstrip("/") if cited else now


def _pages(name: str) -> str:
    owner, _, repository = name.partition("/")
    return f"https://{owner.lower()}.github.io/{repository}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: all follows; 1: `--check` found what does not."""
    parser = argparse.ArgumentParser(prog="python -m tools.address")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    changed = mend(notebooks.ROOT, check=options.check)
    for line in changed:
        print(f"{'does not follow' if options.check else 'mended'}: {line}")
    return 1 if changed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
