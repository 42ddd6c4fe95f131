"""lib as files: what they are called, what they import."""

from collections.abc import Iterator
from pathlib import Path

from lib import digest


def modules(root: Path) -> dict[str, Path]:
    """lib's files by their dotted name below lib, packages' __init__ left out."""
    files = sorted((root / "lib").rglob("*.py"))
    names = {f.relative_to(root / "lib").with_suffix("").as_posix(): f for f in files}
    return {n.replace("/", "."): f for n, f in names.items() if f.stem != "__init__"}


def imports(file: Path, root: Path) -> Iterator[str]:
    """The modules of lib that a file imports."""
    known = modules(root)
    for name in digest.imported(file.read_text(encoding="utf-8")):
        package, _, inner = name.partition(".")
        if package == "lib" and inner in known:
            yield inner
