"""Show lib's own source in a chapter, so that no line is ever retyped and can drift.

`source` shows a function; `diff` shows how one algorithm becomes the next. Docstrings
are left out, as the chapter's prose says the same; comments stay: they are the shapes.
"""

import ast
import difflib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from IPython.display import display


@dataclass(frozen=True)
class Listing:
    """Code that knows how to be shown: Markdown in a page, text elsewhere."""

    code: str
    language: str

    def _repr_markdown_(self) -> str:
        return f"```{self.language}\n{self.code}\n```"

    def __repr__(self) -> str:
        """Return the code itself."""
        return self.code


def source(*things: Callable, docstring: bool = False) -> None:
    """Display the source of functions or classes, one below the other."""
    display(Listing(code(*things, docstring=docstring), "python"))


def diff(old: Callable, new: Callable, *, context: int = 1000) -> None:
    """Display what turns `old` into `new`: lines gone (-), come (+) and, around, kept.

    `context` is how many kept lines are shown around a change: as a rule, all.
    """
    display(Listing(changes(old, new, context=context), "diff"))


def code(*things: Callable, docstring: bool = False) -> str:
    """Return the source as text, dedented, without docstrings unless asked for."""
    if not things:
        raise ValueError("things: got nothing, wanted at least one function or class")
    texts = [textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things]
    return "\n\n\n".join(text if docstring else undocumented(text) for text in texts)


def changes(old: Callable, new: Callable, *, context: int = 1000) -> str:
    """Return the unified diff of two docstring-free sources, without headers."""
    before, after = (code(thing).splitlines() for thing in (old, new))
    lines = list(difflib.unified_diff(before, after, lineterm="", n=context))[2:]
    return "\n".join(line.rstrip() for line in lines if not line.startswith("@@"))


def undocumented(text: str) -> str:
    """Cut every docstring out of a source text and leave the rest, comments too."""
    lines = text.splitlines()
    owners = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, owners)]
    for node in sorted(nodes, key=lambda node: -node.lineno):  # from below: lines keep
        if ast.get_docstring(node, clean=False) is None:
            continue
        first = node.body[0]
        start, end = first.lineno - 1, first.end_lineno
        head = lines[start].encode()[: first.col_offset].decode()
        tail = lines[end - 1].encode()[first.end_col_offset :].decode().lstrip(" ;")
        if len(node.body) == 1:
            tail = "..." + (tail and "  " + tail)
        if head.strip() or tail:  # the docstring shares its line with code
            lines[start:end] = [(head + tail).rstrip()]
            continue
        while end < len(lines) and not lines[end].strip():
            end += 1
        del lines[start:end]
    return "\n".join(lines)
