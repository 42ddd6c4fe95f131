"""A digest of code that changes when what the code does may change, and only then.

It is taken over the syntax tree of a file and of everything of lib and labs that it
imports, directly or not; comments, docstrings and line ends leave it as it is. All
Pythons from 3.11 on, on every system, find the same one.
"""

import ast
import hashlib
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("lib", "labs")


def code_digest(file: str | Path, *, without: Collection[str | Path] = ()) -> str:
    """Twelve hex digits over a file of lib or labs and all that it imports.

    without: files that do not count, nor what only they import. What lies beside a module
    under its name (published.json beside published.py) belongs to it.
    """
    place = Path(file).resolve()
    root, found = _root(place), sources(place, without=without)
    names = {each.relative_to(root).as_posix(): each for each in found}
    digest = hashlib.sha256()
    for name in sorted(names):
        content = names[name].read_bytes().replace(b"\r\n", b"\n")
        said = plain(content.decode()).encode() if name.endswith(".py") else content
        digest.update(f"{name} {len(said)}\n".encode() + said)
    return digest.hexdigest()[:12]


def sources(
    file: str | Path, *, without: Collection[str | Path] = ()
) -> frozenset[Path]:
    """A file of lib or labs and every file of these that it imports, directly or not."""
    place = Path(file).resolve()
    root, waiting, found = _root(place), [place], {place}
    skipped = {Path(each).resolve() for each in without}
    while waiting:
        file = waiting.pop()
        here = file.relative_to(root).parts[:-1]
        for name in imported(file.read_text("utf-8"), here):
            new = {*files_of(name, root)} - found - skipped
            found |= new
            waiting += [each for each in new if each.suffix == ".py"]
    return frozenset(found)


@cache
def plain(code: str) -> str:
    """A program's syntax tree as text, without what is only said about it."""
    return _told(ast.parse(code))


def _told(node: object) -> str:
    """A node with its fields, or a field's value.

    Empty fields are left out, since newer Pythons have more of them, and the constants
    within an f-string are joined, since older ones may cut them up.
    """
    if isinstance(node, list):
        return "[" + ",".join(_told(each) for each in node if not _idle(each)) + "]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = {k: v for k, v in ast.iter_fields(node) if v not in (None, [])}
    fields.pop("kind", None)  # the u of u"text"
    if isinstance(node, ast.JoinedStr):
        fields = {"values": _joined(node.values)}
    inside = ",".join(f"{name}={_told(value)}" for name, value in fields.items())
    return f"{type(node).__name__}({inside})"


def _idle(node: object) -> bool:
    """Whether a statement is a text alone: a docstring."""
    said = node.value if isinstance(node, ast.Expr) else None
    return isinstance(said, ast.Constant) and isinstance(said.value, str)


def _joined(values: list[ast.expr]) -> list[object]:
    """An f-string's parts: text as text, neighbours joined, none empty."""
    parts: list[object] = []
    for value in values:
        if not isinstance(value, ast.Constant):
            parts.append(value)
        elif parts and isinstance(parts[-1], str):
            parts[-1] += value.value
        elif value.value:
            parts.append(value.value)
    return parts


def _root(file: Path) -> Path:
    """The folder that holds the package which holds this file."""
    return next(folder.parent for folder in file.parents if folder.name in PACKAGES)


def imported(code: str, here: tuple[str, ...] = ()) -> Iterator[str]:
    """Every dotted name that a program's imports may mean; `here`: its own package."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def files_of(name: str, root: Path) -> Iterator[Path]:
    """The module a.b of lib or labs: a/b.py, or a/b/__init__.py; and a/__init__.py too."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        beside = place.parent.glob(f"{place.name}.*") if depth > 1 else ()
        for file in (*beside, place / "__init__.py"):
            if file.suffix[1:].isalnum() and file.is_file():
                yield file
