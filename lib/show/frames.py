"""Frames of a figure to drag: one is drawn as SVG, the others are lists of numbers.

While a panel is drawn, `Frames` notes which attribute of which part takes which value
in each frame. `assemble` puts drawing, numbers, `widgets.css` and `widgets.js` into one
HTML output whose id is a digest of its content: same numbers, same bytes.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Widget:
    """A finished figure; a notebook shows it."""

    html: str
    summary: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        """Say what it is, with a digest of all it shows."""
        return self.summary


@dataclass
class Frames:
    """What changes from one value of the slider to the next."""

    values: list[str]  # as printed, one for each frame
    moves: list[dict[str, Any]] = field(default_factory=list)
    parts: int = 0  # elements that move, so far

    def move(self, name: str, v: np.ndarray, start: int, **how: Any) -> str:
        """Let attribute `name` of the next part be v[i] in frame i; say it at `start`.

        After the last of v it stays. A number is said as p, v·f, s; a row of numbers,
        given x, as points "x,v x,v …".
        """
        rows = v.tolist()
        if len(rows) > 1:
            self.moves.append({"k": self.parts, "a": name, "v": rows} | how)
        now = rows[min(start, len(rows) - 1)]
        if "x" in how:
            said = " ".join(f"{x},{y}" for x, y in zip(how["x"], now, strict=True))
        else:
            said = f"{how.get('p', '')}{now * how.get('f', 1):g}{how.get('s', '')}"
        return f'{name}="{said}"'

    def part(self, tag: str, attributes: str, inside: str = "") -> str:
        """Return the part: an element whose attributes came from `move`."""
        self.parts += 1
        return f'<{tag} data-m="{self.parts - 1}" {attributes}>{inside}</{tag}>'


def assemble(
    kind: str,
    label: str,
    panels: Sequence[str],
    frames: Frames,
    alt: str,
    start: int,
    **more: Any,  # readout, fps: to the script
) -> Widget:
    """Put panels and a slider into one self-contained output."""
    if not alt.strip():
        raise ValueError("alt: got nothing, wanted what is to be seen, in words")
    data = {"values": frames.values, "moves": frames.moves} | more
    script = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    now, name = escape(frames.values[start]), escape(label)
    line = escape(more["readout"][start]) if "readout" in more else ""
    button = '<button type="button">▶ Play</button>' if "fps" in more else ""
    body = (
        f'<div class="w-panels" role="img" aria-label="{escape(alt)}">{"".join(panels)}'
        f'</div><div class="w-row">{button}<label class="w-row"><span>{name}</span>'
        f'<input type="range" min="0" max="{len(frames.values) - 1}" value="{start}" '
        f'step="1" aria-label="{name}" aria-valuetext="{now}">'
        f'<span class="w-value">{now}</span></label></div>'
        f'<output aria-live="polite">{line}</output>'
        f"<noscript>{escape(alt)}</noscript>"
    )
    style, code = (HERE / "widgets.css", HERE / "widgets.js")
    code = code.read_text("utf-8").replace("__DATA__", script.replace("<", "\\u003c"))
    html = f"<style>{style.read_text('utf-8')}</style>"
    html += f'<figure id="__UID__">{body}</figure><script>{code}</script>'
    digest = hashlib.sha1(html.encode()).hexdigest()[:8]
    many = f"{len(panels)} panel{'s' * (len(panels) > 1)}, {len(frames.values)} frames"
    html = html.replace("__UID__", f"{kind}-{digest}")
    return Widget(html, f"{kind}: {many} over {label}, data {digest}")


def key(entries: Sequence[tuple[str, str, str]]) -> str:
    """Say above a panel what its colours are: (label, colour, mark)."""
    said = "".join(
        f'<span><i class="w-{mark}" style="color:{colour}"></i>{escape(label)}</span>'
        for label, colour, mark in dict.fromkeys(entries)
        if label
    )
    return f'<div class="w-key">{said}</div>'


@dataclass(frozen=True)
class Plot:
    """Where numbers lie in a drawing `width` wide: pixels from left and from top."""

    width: int
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    height: int = 260
    top: int = 12
    floor: int = 208

    @property
    def left(self) -> int:
        """Where the y axis stands: its numbers need room."""
        return 30 + 8 * max(len(signed(y)) for y in ticks(*self.ylim))

    @property
    def right(self) -> int:
        """Where the x axis ends."""
        return self.width - 14

    def across(self, x: np.ndarray, fine: int = 1) -> np.ndarray:
        """Pixels (or, finer, parts of one) of numbers on the x axis."""
        low, high = self.xlim
        return pixels(
            fine * (self.left + (self.right - self.left) * (x - low) / (high - low))
        )

    def down(self, y: np.ndarray, fine: int = 1) -> np.ndarray:
        """Pixels (or, finer, parts of one) of numbers on the y axis, kept inside it."""
        low, high = self.ylim
        y = np.clip(y, low, high)
        return pixels(
            fine * (self.floor + (self.top - self.floor) * (y - low) / (high - low))
        )

    def axes(self, xlabel: str, ylabel: str, names: Iterable[tuple[float, str]]) -> str:
        """Both axes with their numbers, or names (at, name) below, and their labels."""
        below = list(names) or [(x, signed(x)) for x in ticks(*self.xlim)]
        room = (self.right - self.left) / len(below)
        every = math.ceil(8 * max(len(said) for _, said in below) / room)
        middle = (self.top + self.floor) // 2
        out = [text((self.left + self.right) // 2, self.height - 6, xlabel)]
        out.append(text(0, 0, ylabel, f"translate(14 {middle})rotate(-90)"))
        for x, said in below[:: max(1, every)]:
            out.append(text(int(self.across(np.array(x))), self.floor + 20, said))
        for y in ticks(*self.ylim):
            v = int(self.down(np.array(y)))
            out.append(f'<path d="M{self.left} {v}H{self.right}" stroke="#ddd"/>')
            out.append(text(self.left - 6, v + 5, signed(y), anchor="end"))
        frame = f"M{self.left} {self.top}V{self.floor}H{self.right}"
        return "".join(out) + f'<path d="{frame}" fill="none" stroke="#555"/>'

    def svg(self, inside: str) -> str:
        """Return the whole drawing."""
        box = f'viewBox="0 0 {self.width} {self.height}" aria-hidden="true"'
        return f"<svg {box}>{inside}</svg>"


def text(x: int, y: int, said: str, turn: str = "", anchor: str = "middle") -> str:
    """Letters in a drawing."""
    turn = f' transform="{turn}"' if turn else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{turn}>{escape(said)}</text>'


def signed(x: float) -> str:
    """Print a number with a true minus sign."""
    return f"{x:.4g}".replace("-", "−")


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between low and high, at most `most` + 1 of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    unit = next(u * power for u in (1, 2, 2.5, 5, 10) if u * power >= rough * 0.999999)
    first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
    return [k * unit for k in range(first, last + 1)]


def pixels(x: np.ndarray) -> np.ndarray:
    """To the nearest integer; noise in the last digits does not tip a half over."""
    return np.floor(np.round(x, 6) + 0.5).astype(int)
