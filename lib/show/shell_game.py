"""The shell game to drag: a thought grows word by word, and the peas follow it.

Above, five cups in a row, the peas under them, and the swap that is being made. Below,
the same thought in each dialect, a row a swap. One step of the slider says one word more.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from lib.show.frames import Frames, Widget, assemble, text

RED, BLUE = "#B3261E", "#0072B2"  # the peas, and the words that place them
_WIDTH, _ROW, _BELOW = 440, 24, 184  # pixels
Rows = Sequence[Sequence[str]]  # of words: the start, one row a swap, the answer
Places = Sequence[tuple[int, int]]  # cups of the red and the blue pea: start, each swap


def drag(
    thoughts: Mapping[str, Rows], places: Places, swaps: Sequence[str], *, alt: str
) -> Widget:
    """Make one slider over the words of a thought.

    thoughts: heading -> ("<think>", red, blue), then for each swap (animal, swap, red,
    blue), then ("</think>", red, blue). swaps: "1-5", one for each animal. `alt` says in
    words what is to be seen.
    """
    if len(places) != len(swaps) + 1:
        wanted = f"{len(swaps) + 1}: the start, and one a swap"
        raise ValueError(f"places: got {len(places)}, wanted {wanted}")
    lengths = [3, *[4] * len(swaps), 3]
    for name, rows in thoughts.items():
        if (got := [len(row) for row in rows]) != lengths:
            raise ValueError(
                f"thoughts: got {got} words for {name!r}, wanted {lengths}"
            )
    first = np.cumsum([0, *lengths])  # words said before each row
    frames = Frames([f"{n} words" for n in range(first[-1] + 1)])
    drawn = _cups(places, swaps, first, frames) + _thoughts(thoughts, first, frames)
    box = f'viewBox="0 0 {_WIDTH} {_BELOW + _ROW * len(lengths) + 12}"'
    svg = f'<svg {box} aria-hidden="true">{drawn}</svg>'
    panel = f'<div class="w-panel" style="max-width:560px">{svg}</div>'
    said = _readout(next(iter(thoughts.values())), places, swaps)
    return assemble("cups", "said", [panel], frames, alt, 0, readout=said)


def _cups(
    places: Places, swaps: Sequence[str], first: np.ndarray, frames: Frames
) -> str:
    """The cups, an arc over the two that are being swapped, and the two peas."""
    now, out = np.arange(len(frames.values)), []
    for cup in range(1, 6):
        x = _across(cup)
        shape = f"M{x - 27} 130L{x - 18} 70H{x + 18}L{x + 27} 130Z"
        out.append(f'<path d="{shape}" fill="#f3e9d8" stroke="#555" stroke-width="2"/>')
        out.append(text(x, 150, str(cup)))
    for row, swap in enumerate(swaps, 1):
        one, other = (_across(int(cup)) for cup in swap.split("-"))
        heads = "".join(f"M{x - 6} 55L{x} 64L{x + 6} 55" for x in (one, other))
        arc = f'<path d="M{one} 64C{one} 14 {other} 14 {other} 64{heads}"'
        arc += ' fill="none" stroke="#222" stroke-width="2.5"/>'
        seen = (now > first[row]) & (now <= first[row + 1])
        out.append(frames.part("g", frames.move("opacity", seen.astype(int), 0), arc))
    for pea, (colour, off) in enumerate(((RED, -9), (BLUE, 9))):
        at = [f + (1 if row == 0 else 2) + pea for row, f in enumerate(first[:-2])]
        state = np.maximum((now[:, None] > at).sum(1) - 1, 0)  # the last one said
        x = np.array([_across(cups[pea]) + off for cups in places])[state]
        style = f'cy="118" r="8" fill="{colour}" stroke="#fff"'
        out.append(frames.part("circle", f"{frames.move('cx', x, 0)} {style}"))
    return "".join(out)


def _across(cup: int) -> int:
    return 60 + 80 * (cup - 1)


def _thoughts(thoughts: Mapping[str, Rows], first: np.ndarray, frames: Frames) -> str:
    """The words of each dialect in a column of its own, each seen once it is said."""
    now, out = np.arange(len(frames.values)), []
    for column, (heading, rows) in enumerate(thoughts.items()):
        left = 8 + column * (_WIDTH // len(thoughts))
        out.append(text(left, _BELOW, heading, anchor="start"))
        for row, words in enumerate(rows):
            inks = [*["#222"] * (len(words) - 2), RED, BLUE]
            parts = []
            for place, (word, ink) in enumerate(zip(words, inks)):
                said = (now > first[row] + place).astype(int)
                seen = frames.move("fill-opacity", said, 0)
                parts.append(
                    frames.part("tspan", f'{seen} fill="{ink}"', escape(f"{word} "))
                )
            place = f'x="{left}" y="{_BELOW + _ROW * (row + 1)}"'
            style = 'xml:space="preserve" font-family="monospace"'
            out.append(f"<text {place} {style}>{''.join(parts)}</text>")
    return "".join(out)


def _readout(rows: Rows, places: Places, swaps: Sequence[str]) -> list[str]:
    """What each word does, in a sentence."""
    said = ["Nothing is said yet."]
    for row, words in enumerate(rows):
        red, blue = places[min(row, len(swaps))]
        if row == 0:
            said += ["The thought opens.", f"The red pea is under cup {red}."]
            said += [f"The blue pea is under cup {blue}."]
        elif row <= len(swaps):
            one, other = swaps[row - 1].split("-")
            said += [
                f"The {words[0]} comes by …",
                f"… and swaps cups {one} and {other}.",
            ]
            said += [f"Red is under {red} now …", f"… and blue under {blue}."]
        else:
            answer = f"The answer: red under {red}"
            said += [
                "The thought closes.",
                f"{answer} …",
                f"{answer}, blue under {blue}.",
            ]
    return said
