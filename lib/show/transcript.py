"""Answers to scrub through: one slider, and below it the same questions answered anew.

A picture of words, not of numbers: at each value of the slider every question has one
answer, in pieces, and each piece may be marked true or false. It is one HTML output
like those of `lib.show.widgets`: alive in the static page, in Jupyter and in Colab.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from lib.show.frames import Frames, Widget, assemble

Piece = tuple[str, bool | None]  # words, and whether they are true; None: no claim

_STYLE = """<style>
#__UID__ .w-panel{flex:1 1 100%;max-width:none}
#__UID__ dl{margin:0}#__UID__ dt{font-weight:600;margin:.5em 0 0}
#__UID__ dd{margin:0;min-height:3em;font:14px/1.5 ui-monospace,monospace}
#__UID__ .w-said0{display:none}
#__UID__ .w-true{color:#00704F;margin-right:.6em}
#__UID__ .w-false{color:#B34700;margin-right:.6em;text-decoration:underline wavy}
</style>"""


def transcript(
    label: str,
    values: Sequence[object],
    questions: Sequence[str],
    said: Sequence[Sequence[Sequence[Piece]]],
    *,
    alt: str,
    readout: Sequence[str],
    start: int = 0,
) -> Widget:
    """Answers to the same questions at each value of a slider.

    `said[v][q]` are the pieces of the answer to question q at value v; a true piece is
    green, a false one vermilion and underlined. `readout` is a line for each value, and
    `alt` says in words what is to be seen.
    """
    for name, found in (("said", len(said)), ("readout", len(readout))):
        if found != len(values):
            raise ValueError(f"{name}: got {found}, wanted {len(values)} (one a value)")
    if any(len(page) != len(questions) for page in said):
        counts = sorted({len(page) for page in said})
        wanted = f"{len(questions)} (one a question)"
        raise ValueError(f"said: got {counts} answers at a value, wanted {wanted}")
    frames = Frames([str(value) for value in values])
    rows = []
    for place, question in enumerate(questions):
        answers = _answers([page[place] for page in said], frames, start)
        rows.append(f"<dt>{escape(question)}</dt><dd>{answers}</dd>")
    panel = f'<div class="w-panel">{_STYLE}<dl>{"".join(rows)}</dl></div>'
    return assemble(
        "transcript", label, [panel], frames, alt, start, readout=list(readout)
    )


def _answers(said: Sequence[Sequence[Piece]], frames: Frames, start: int) -> str:
    """All answers to one question, each once, shown at the values where it was given."""
    texts = ["".join(_piece(*piece) for piece in answer) for answer in said]
    out = []
    for text in dict.fromkeys(texts):
        here = np.array([int(text == each) for each in texts])
        shown = frames.move("class", here, start, p="w-said")
        out.append(frames.part("span", shown, text))
    return "".join(out)


def _piece(words: str, verdict: bool | None) -> str:
    kind = {True: "true", False: "false"}.get(verdict)
    said = escape(words)
    return f'<span class="w-{kind}">{said}</span> ' if kind else f"{said} "
