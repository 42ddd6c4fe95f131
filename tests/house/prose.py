"""The prose of a notebook, and those of its numbers that somebody measured.

Literal, and so left out: code, links, further reading, dates and years (2017; a count has
its comma: 2,017), references (chapter 3, step 2), times in a title cell and at a ★, and
whole numbers up to 10 that stand alone. "7 of 8", "3 ± 1" and "[1, 2]" are one claim.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from tests.house.numbers import Number, numbers

HIGH = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
CLOSING = 0  # the section from the summary on, which speaks of them all
SMALL = 10  # a whole number up to here is a count that the reader checks by eye
TOGETHER = re.compile(r"\s+(?:out )?of\s+(?:the |its |all )?|\s*±\s*")

PLACE = r"(?:chapter|section|exercise|equation|eq\.|figure|fig\.|table|appendix|part)"
INDEX = r"(?:step|rung|seed|stage|epoch|level|rule|slide|page|question|python|version)"
NUM, INT = (
    r"\(?[A-Z]?\d{1,2}(?:\.\d{1,2})?(?!\d|\.\d)\)?",
    r"\d{1,2}(?![\d%]|[.,]\d|\s%)",
)
JOIN = r"(?:\s*[,–-]\s*|,?\s+(?:and|or|to)\s+)"
MONTH = r"(?:Jan|Febr)uary|March|April|May|June|July|August|\w+(?:tem|o|em)ber"
LITERAL = [
    re.compile(rf"\b{PLACE}s?\s+{NUM}(?:{JOIN}{NUM})*", re.IGNORECASE),
    re.compile(rf"\b{INDEX}\s+{INT}|\b{INDEX}s\s+{INT}(?:{JOIN}{INT})+", re.IGNORECASE),
    re.compile(rf"\b\d{{1,2}} (?:{MONTH})\b"),
    re.compile(r"(?<![\d,.\u2212-])(?:19|20)\d\d(?![\d,]\d|\.\d|\s?%)"),
    re.compile(r"\b\d+(?:st|nd|rd|th)\b"),
]
DURATION = re.compile(r"\d[\d.]*\s(?:seconds?|minutes?|hours?)\b")


@dataclass(frozen=True)
class Claim:
    """Numbers of prose that stand or fall together, their sentence and its paragraph."""

    cell: int
    section: int
    numbers: tuple[Number, ...]
    sentence: str
    paragraph: str

    def __str__(self) -> str:
        said = " and ".join(number.text for number in self.numbers)
        return f"cell {self.cell}: {said} in {self.sentence!r}"


def claims(notebook: NotebookNode) -> Iterator[Claim]:
    """The numbers in prose that are not literal."""
    for place, section, paragraph in paragraphs(notebook):
        for sentence in re.split(r"(?<=[.!?:;]) +(?=\D)", paragraph):
            for group in _groups(sentence):
                yield Claim(place, section, group, sentence, paragraph)


def paragraphs(notebook: NotebookNode) -> Iterator[tuple[int, int, str]]:
    """(cell, section, paragraph) of all that is read: text, captions, alternatives."""
    for place, section in enumerate(sections(notebook)):
        cell = notebook.cells[place]
        if cell.cell_type == "markdown":
            source = DURATION.sub("", cell.source) if place == 0 else cell.source
            for each in plain(source):
                section = _after(section, each)
                yield place, section, each
        else:
            shown = cell.metadata.get("mystnb", {})
            yield place, section, shown.get("figure", {}).get("caption", "")
            yield place, section, shown.get("image", {}).get("alt", "")


def sections(notebook: NotebookNode) -> list[int]:
    """The section in which each cell begins, counted from 1; CLOSING from the summary on."""
    now, begins = 1, []
    for cell in notebook.cells:
        begins.append(now)
        if cell.cell_type == "markdown":
            for each in plain(cell.source):
                now = _after(now, each)
    return begins


def _after(section: int, paragraph: str) -> int:
    """The section from this paragraph on, which may be a heading."""
    if section == CLOSING or not paragraph.startswith("## "):
        return section
    return CLOSING if "summary" in paragraph.lower() else section + 1


def plain(source: str) -> Iterator[str]:
    """The paragraphs of a cell without what is not prose; a list item or a row is one."""
    text = re.sub(r"^## Further reading.*?(?=^## |\Z)", "", source, flags=re.M | re.S)
    text = re.sub(r"^( *)(```|~~~).*?^\1\2 *$", "", text, flags=re.M | re.S)
    text = re.sub(r"``.+?``|`[^`]*`", " … ", text)
    text = re.sub(r"\$\$(.+?)\$\$(?: \([\w-]+\))?", _formula, text, flags=re.S)
    text = re.sub(r"\$([^$]+)\$", _formula, text)
    text = re.sub(r"\]\([^)]*\)|<[^>]+>|https?://\S+|\{[\w-]+\}", " ", text)
    text = re.sub(r"^(#+) (?:Exercises? )?[\d.]+", r"\1 ", text, flags=re.M)
    text = re.sub(r"^ *\d+\. |^ *(?=[-|>#] ?)", "\n", text, flags=re.M)
    exercises = False
    for block in re.split(r"\n\s*\n", text):
        row = block.lstrip().startswith("|")
        exercises = row and (exercises or "exercise" in block and "minutes" in block)
        if not exercises and "★" not in block:
            yield " ".join(block.replace("*", "").split())


def _formula(hit: re.Match[str]) -> str:
    """A formula's numbers, without its indices and powers, but for powers of ten."""
    text = hit[1].replace("{,}", ",").replace(r"\%", "%").replace(r"\pm", "±")
    text = re.sub(r"\\(?:cdot|times)\b", "·", text)
    text = re.sub(r"frac *(\d) *(\d)", r"frac \1/\2", text)
    text = re.sub(r"\b10\^(?:\{(-?\d+)\}|(\d))", _power_of_ten, text)
    text = re.sub(r"[_^](?:\{[^{}]*\}|\w)", " ", text)
    text = re.sub(r"\\[a-zA-Z]+|\\.", " ", text)
    return f" {text} "


def _power_of_ten(hit: re.Match[str]) -> str:
    return "10" + (hit[1] or hit[2]).translate(str.maketrans("-0123456789", HIGH))


def _groups(sentence: str) -> Iterator[tuple[Number, ...]]:
    """The numbers of a sentence, those that belong together as one group."""
    for literal in LITERAL:
        sentence = literal.sub(lambda hit: "…" * len(hit[0]), sentence)
    here = numbers(sentence)
    while here:
        start, end, first = here.pop(0)
        group = [first]
        while here and _belong(sentence, start, end, *here[0][:2]):
            _, end, following = here.pop(0)
            group.append(following)
        if len(group) > 1 or not (first.whole and abs(first.value) <= SMALL):
            yield tuple(group)


def _belong(text: str, start: int, end: int, after: int, last: int) -> bool:
    between = text[end:after]
    if text[:start].endswith("[") and between == ", ":
        return text[last:].startswith("]")
    return TOGETHER.fullmatch(between) is not None
