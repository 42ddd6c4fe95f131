"""What a page changes of a notebook on its way to the reader; files stay as they are.

- nbgrader's marker lines and hidden tests are dropped;
- chapters link to `exercises/NN.ipynb`, the student's notebook; on the page this leads
  to the page with the folded solutions;
- whoever opens an exercise in Colab, or downloads it, gets the student's notebook, without
  the answers;
- links to files of lib and labs lead to the repository;
- links to a term of the glossary lead to the term.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HIDDEN = re.compile(
    r"(?ms)^[ \t]*### BEGIN HIDDEN TESTS.*?^[ \t]*### END HIDDEN TESTS[^\n]*\n?"
)
MARKER = re.compile(r"(?m)^[ \t]*### (?:BEGIN|END) SOLUTION[^\n]*\n?")
OTHER_FILE = re.compile(r"\]\((?:\.\./)+((?:lib|labs|tests|tools|benchmarks)/[^)\s]*)\)")
STUDENT_FILE = re.compile(r"\]\(\.\./exercises/([^)\s]*\.ipynb)\)")
COLAB = "colab.research.google.com"


def page_source(cell_type: str, source: str, repository: str) -> str:
    """One cell's source as the page shows it."""
    if cell_type == "code":
        return MARKER.sub("", HIDDEN.sub("", source)).rstrip("\n")
    source = source.replace("](exercises/", "](solutions/")
    source = STUDENT_FILE.sub(rf"]({repository}/notebooks/exercises/\1)", source)
    source = OTHER_FILE.sub(rf"]({repository}/\1)", source)
    return student_link(source)


def student_link(text: str) -> str:
    """Colab links to a solution lead to the student's notebook instead."""
    pattern = rf"({re.escape(COLAB)}/\S*/notebooks/)solutions/"
    return re.sub(pattern, r"\1exercises/", text)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    options = app.config.html_theme_options
    branch = options.get("repository_branch") or "main"
    repository = f"{options.get('repository_url', '').rstrip('/')}/blob/{branch}"
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        cell["source"] = page_source(cell["cell_type"], text, repository)
    source[0] = json.dumps(notebook)


def _buttons(
    app: Sphinx, page: str, template: str, context: dict, doctree: Any
) -> None:
    _rewrite(context.get("header_buttons", []))


def _rewrite(buttons: list[dict]) -> None:
    for button in buttons:
        _rewrite(button.get("buttons", []))
        if COLAB in str(button.get("url", "")):
            button["url"] = student_link(button["url"])


def student_downloads(source: Path, output: Path) -> list[Path]:
    """Behind an exercise page's download button: the student's notebook of the same name."""
    folder = output / "_sources" / "notebooks" / "solutions"
    changed = sorted(folder.glob("*.ipynb"))
    for file in changed:
        shutil.copyfile(source / "notebooks" / "exercises" / file.name, file)
    return changed


def _downloads(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        student_downloads(Path(app.srcdir), Path(app.outdir))


def _terms(app: Sphinx, env: Any) -> None:
    """Let a plain link, `[policy](../book/glossary.md#term-policy)`, lead to a term."""
    for _, title, kind, docname, anchor, _ in env.get_domain("std").get_objects():
        if kind == "term":
            slugs = env.metadata[docname].setdefault("myst_slugs", {})
            slugs[anchor] = (0, anchor, title)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("env-updated", _terms)
    app.connect("html-page-context", _buttons, priority=900)  # after the theme's own
    app.connect("build-finished", _downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
