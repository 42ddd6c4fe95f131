"""Folds say what they hold: on the page only, the notebooks stay as they are.

A prompt of the notebook's own is kept; the general ones ("Show the code") are replaced by
what the cell brings: a figure, a table, lines of print, functions, an exercise's solution.
"""

import ast
import json
import re

from sphinx.application import Sphinx

GENERAL = {None, "Show the code", "Show the plotting code", "Show solution"}
EXERCISE = re.compile(r"^#+ *Exercise +([\w.]*\w)", re.MULTILINE)
SUMMARY = "<summary>Solution</summary>"


def held(cell: dict, exercise: str) -> str:
    """What a folded code cell holds, as the rest of a sentence that begins with Show."""
    if cell["metadata"].get("nbgrader", {}).get("solution"):
        return f"the solution of exercise {exercise}" if exercise else "the solution"
    outputs = cell.get("outputs", [])
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    if "text/html" in kinds and "figure" not in cell["metadata"].get("mystnb", {}):
        return "the code of this interactive figure"
    if {"image/svg+xml", "image/png"} & kinds:
        return "the code of this figure"
    if {"text/markdown", "text/html"} & kinds:
        return "the code of this table"
    if outputs:
        return "the code that prints this"
    made = _defined("".join(cell["source"]))
    return f"the code of {made}" if made else "the preparations"


def _defined(source: str) -> str:
    """The functions that a cell defines, as a list in words."""
    body = ast.parse(source).body
    names = [f"{node.name}()" for node in body if isinstance(node, ast.FunctionDef)]
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def name_folds(notebook: dict) -> None:
    """Give every fold of a notebook its prompts."""
    exercise = ""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            exercise = (EXERCISE.findall(source) or [exercise])[-1]
            if exercise and SUMMARY in source:
                named = f"<summary>Solution of exercise {exercise}</summary>"
                cell["source"] = source.replace(SUMMARY, named)
        elif "hide-input" in cell["metadata"].get("tags", []):
            settings = cell["metadata"].setdefault("mystnb", {})
            if cell["metadata"].get("nbgrader", {}).get("solution"):
                cell["metadata"]["tags"].append("solution")  # printed open
            if settings.get("code_prompt_show") in GENERAL:
                what = held(cell, exercise)
                settings["code_prompt_show"] = f"Show {what}"
                settings["code_prompt_hide"] = f"Hide {what}"


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if str(app.env.doc2path(docname)).endswith(".ipynb"):
        notebook = json.loads(source[0])
        name_folds(notebook)
        source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read, priority=600)  # after bookext
    return {"parallel_read_safe": True, "parallel_write_safe": True}
