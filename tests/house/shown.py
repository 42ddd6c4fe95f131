"""Whether a notebook shows the numbers that its prose tells.

A number is shown by a stored output (not by one that is not compared, for it may differ
elsewhere), by code in view (a setting, a bound), by the notebook's record, or by the file
of published figures where the paragraph names a paper. Against finding one by chance:

- an output's number must have at least the digits that the prose writes;
- a whole number is rounded to its last digit, and to its zeros only after "about" and
  the like, by 5 % at most;
- the numbers of "7 of 8", "3 ± 1" and "[1, 2]" must stand in one line of an output;
- a number of fewer than three digits must stand in an output or the code of its own
  section (from the summary on: of the notebook), and never in the record alone.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from tests.house.numbers import Number, all_in, numbers, shows
from tests.house.prose import CLOSING, Claim, claims, sections
from tools import notebooks

HIDDEN = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
ELSEWHERE = -1
UNCOMPARED = {"nbval-ignore-output", "nbval-skip"}
NAMES_A_PAPER = re.compile(r"et al\.|\b(?:19|20)\d\d\b")


@dataclass(frozen=True)
class Evidence:
    """What may show a number."""

    lines: list[tuple[int, list[Number]]]  # of outputs, each with its section
    settings: list[tuple[int, Decimal]]  # likewise, without their signs
    record: list[Number]
    published: list[Number]

    def shows(self, claim: Claim) -> bool:
        """Whether the numbers of a claim are found, together."""
        said = claim.numbers
        near = len(said) == 1 and said[0].digits < 3

        def seen(section: int) -> bool:
            return not near or claim.section in (CLOSING, section)

        settings = {value for section, value in self.settings if seen(section)}
        if all(_is_set(number, settings) for number in said):
            return True
        if any(seen(section) and all_in(line, said) for section, line in self.lines):
            return True
        if not near and _each_in(self.record, said):
            return True
        paper = NAMES_A_PAPER.search(claim.paragraph)
        return paper is not None and _each_in(self.published, said)


def _is_set(said: Number, settings: set[Decimal]) -> bool:
    value = abs(said.value)
    return value in settings or said.percent and value / 100 in settings


def _each_in(seen: list[Number], said: tuple[Number, ...]) -> bool:
    return all(any(shows(one, number) for one in seen) for number in said)


def evidence(path: Path, root: Path = notebooks.ROOT) -> Evidence:
    """All that may show a number of this notebook: its own, its record, the published.

    Exercises may quote their chapter, in numbers of three digits or more.
    """
    here = of(notebooks.read(path))
    record = root / "notebooks" / "records" / f"{path.stem}.json"
    facts = json.loads((root / "labs" / "published.json").read_text("utf-8"))
    far: list[tuple[int, list[Number]]] = []
    if path.parent.name == "solutions":
        chapter = of(notebooks.read(path.parents[1] / path.name))
        far = [(ELSEWHERE, line) for _, line in chapter.lines]
    return replace(
        here,
        lines=here.lines + far,
        record=leaves(json.loads(record.read_text("utf-8"))) if record.exists() else [],
        published=leaves([fact["value"] for fact in facts]),
    )


def of(notebook: NotebookNode) -> Evidence:
    """All that a notebook prints and sets."""
    lines: list[tuple[int, list[Number]]] = []
    settings: list[tuple[int, Decimal]] = []
    for section, cell in zip(sections(notebook), notebook.cells):
        tags = set(notebooks.tags(cell))
        if cell.cell_type == "code" and not tags & UNCOMPARED:
            text = "\n".join(_printed(cell))
            found = ([n for *_, n in numbers(line)] for line in text.splitlines())
            lines += [(section, line) for line in found if line]
        answer = cell.metadata.get("nbgrader", {}).get("solution")
        if cell.cell_type == "code" and (answer or not tags & HIDDEN):
            settings += [(section, value) for value in _constants(cell.source)]
    return Evidence(lines, settings, [], [])


def _printed(cell: NotebookNode) -> Iterator[str]:
    """What is read in a cell's outputs; of a widget, the words that go with its dial."""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        page = data.get("text/html", "")
        for words in re.findall(r'"readout": ?(\[.*?\])[,}]', page):
            yield from json.loads(words)
        page = re.sub(r"<(style|script|svg).*?</\1>", "", page, flags=re.DOTALL)
        yield re.sub(r"<[^>]+>", " ", re.sub(r"</tr>|<br ?/?>", "\n", page))
        yield output.get("text", "") + data.get("text/markdown", "")
        if set(data) == {"text/plain"}:  # beside a picture it is the picture's digest
            yield data["text/plain"]


def _constants(source: str) -> Iterator[Decimal]:
    """The numbers that a cell's code writes down, and what 2**16 or 1 / 3 makes of them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant | ast.BinOp):
            value = _value(node)
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield abs(Decimal(str(value)))


def _value(node: ast.expr) -> Any:
    """The value of an expression of numbers alone, else None."""
    operators = {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.Pow: lambda a, b: a**b if abs(b) < 64 else None,
    }
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in operators:
        left, right = _value(node.left), _value(node.right)
        if left is not None and right is not None:
            return operators[type(node.op)](left, right)
    return None


def leaves(data: Any) -> list[Number]:
    """The numbers of a record, at whatever depth, and those within its words."""
    if isinstance(data, dict):
        return [number for value in data.values() for number in leaves(value)]
    if isinstance(data, list):
        return [number for value in data for number in leaves(value)]
    return [] if isinstance(data, bool) else [n for *_, n in numbers(str(data))]


def unshown(
    notebook: NotebookNode, shown: Evidence, excused: dict[str, str]
) -> tuple[list[Claim], set[str]]:
    """The claims that nothing shows, and which excuses were needed.

    An excuse is a piece of the prose, with its number, and the reason why it is literal.
    """
    missing, needed = [], set()
    for claim in claims(notebook):
        if shown.shows(claim):
            continue
        spoken = {
            words
            for words in excused
            if words in claim.sentence
            and all(number.text in words for number in claim.numbers)
        }
        needed |= spoken
        if not spoken:
            missing.append(claim)
    return missing, needed
