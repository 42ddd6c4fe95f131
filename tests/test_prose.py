"""Words that the second edition does without, in the pages that it has reached.

One vocabulary: KL penalty (not leash, price or distance), predict (not foretell), groups
with zero variance (not silent). No riddles, and no tale of a run that nobody can see.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

from tools import notebooks

ROOT = notebooks.ROOT
SOURCES = [path for path in notebooks.everything() if path.parent.name != "exercises"]
PAGES = ["README.md"]
PAGES += [f"book/{name}.md" for name in ("intro", "howto", "notation", "glossary")]
KL = r"(?:\bkl\b|penalty|penalties|budget|divergence|\\beta|β)"
UNWELCOME = {
    "leash": r"\bleash",
    "price of the KL penalty": rf"\bprices?\b.*{KL}|{KL}.*\bprices?\b",
    "KL distance": r"\bkl[- ]distance|distance from the reference",
    "foresee, foretell": r"\bfore(?:see|saw|tell|told)",
    "silent groups": r"\bsilent (?:group|prompt|question|cell)|\bcells? of silence",
    "hangs on": r"\bh(?:ang|angs|anging|ung) (?:up)?on\b",
    "alone in minding": r"\balone in minding|where zero is\b",
    "with the crime": r"\bwith the crime\b",
    "a hair's breadth": r"\bhair['’]s breadth",
    "a gulf": r"\bgulfs?\b",
    "learnt by running it": r"\blearn(?:t|ed) by running\b",
    "takes the incentive away": r"\btakes? the incentive .*\baway\b",
    "expect no surprise": r"\bexpect no surprise",
    "who is right, and who": r"\bwho is right, and who\b",
    "when we tried": r"\bwhen we (?:tried|looked)\b",
    "a run of ours": r"\b(?:in|on) (?:a|one|some) runs? of ours\b|\bin our runs\b",
}
LEFT: set[tuple[str, str]] = set()  # known, and not yet mended


def unwelcome(text: str) -> Iterator[str]:
    """The names of what a text should not say; "price" is looked for a paragraph at a time."""
    paragraphs = [" ".join(each.split()) for each in re.split(r"\n\s*\n", text.lower())]
    for name, pattern in UNWELCOME.items():
        if any(re.search(pattern, each) for each in paragraphs):
            yield name


def spoken(cell: NotebookNode) -> str:
    """What a cell says: its text or its code's comments, its caption, its alternative."""
    shown = cell.metadata.get("mystnb", {})
    caption = shown.get("figure", {}).get("caption", "")
    code = cell.cell_type == "code"
    words = "\n".join(re.findall("#.*", cell.source)) if code else cell.source
    return "\n\n".join([words, caption, shown.get("image", {}).get("alt", "")])


def faults(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """(cell, what it should not say)."""
    for cell in notebook.cells:
        yield from ((cell.id, name) for name in unwelcome(spoken(cell)))
        if cell.cell_type == "markdown" and re.match(r"\W*Expect\b", cell.source):
            yield cell.id, "a cell that opens with Expect"


def name(path: Path) -> str:
    return path.relative_to(ROOT / "notebooks").with_suffix("").as_posix()


def test_the_prose_of_notebooks_has_no_unwelcome_words():
    assert SOURCES
    found = {(name(p), *fault) for p in SOURCES for fault in faults(notebooks.read(p))}
    said = {each for each in found if (each[0], each[2]) not in LEFT}
    assert not said, "\n".join(["", *(f"{p}, cell {c}: {what}" for p, c, what in said)])
    assert {(p, what) for p, _, what in found} >= LEFT, "mended: take it from LEFT"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_second_edition_has_no_unwelcome_words(page):
    assert [*unwelcome((ROOT / page).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("The leash is short.", "leash"),
        ("Name the price, and\nthe KL follows.", "price of the KL penalty"),
        ("A KL-distance of two.", "KL distance"),
        ("A judge foretells the answer.", "foresee, foretell"),
        ("Half of the silent groups", "silent groups"),
        ("Two cells of silence.", "silent groups"),
        ("Does the next state hang on the action?", "hangs on"),
        ("REINFORCE is alone in minding where it is.", "alone in minding"),
        ("An experiment, for once with the crime.", "with the crime"),
        ("A hair’s breadth is as loud.", "a hair's breadth"),
        ("It is as loud as a gulf.", "a gulf"),
        ("This is learnt by running it.", "learnt by running it"),
        ("PPO takes the incentive to leave away.", "takes the incentive away"),
        ("Expect no surprise below.", "expect no surprise"),
        ("Who is right, and who runs out of what?", "who is right, and who"),
        ("It rose when we\ntried.", "when we tried"),
        ("In a run of ours it fell.", "a run of ours"),
    ],
)
def test_a_planted_word_is_named(text, named):
    assert [*unwelcome(f"All is well.\n\n{text}")] == [named]


@pytest.mark.parametrize(
    "text",
    [
        "The price of bread.\n\nThe KL penalty is small.",
        "A silent change of the unit; the engulfed room; they expect a reward.",
        "Predict before you look. The result depends on the seed. We hang a picture.",
    ],
)
def test_plain_words_are_welcome(text):
    assert [*unwelcome(text)] == []


def test_a_word_planted_in_a_chapter_is_named_with_its_cell():
    chapter = notebooks.read(SOURCES[0])
    assert [*faults(chapter)] == []
    prose = [cell for cell in chapter.cells if cell.cell_type == "markdown"]
    drawn = next(
        c for c in chapter.cells if "figure" in c.get("metadata", {}).get("mystnb", {})
    )
    for cell, change, named in (
        (prose[3], lambda c: c.update(source=f"{c.source}\n\nA leash."), "leash"),
        (
            prose[4],
            lambda c: c.update(source="**Expect** it."),
            "a cell that opens with Expect",
        ),
        (drawn, lambda c: c.metadata.mystnb.figure.update(caption="A gulf."), "a gulf"),
    ):
        before = copy.deepcopy(dict(cell))
        change(cell)
        assert [*faults(chapter)] == [(cell.id, named)]
        cell.update(before)
