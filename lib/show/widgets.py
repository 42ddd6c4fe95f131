"""Figures to drag: computed in Python, moved by a little script, alive with no kernel.

Each is one HTML output that holds all it needs: a first frame drawn as SVG, the
numbers of the others and one slider. It works in the static page, in Jupyter and in
Colab, by mouse, finger and keyboard. Labels are plain text (write γ, no TeX). Whoever
sees no picture reads `alt`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from lib.show.frames import Frames, Plot, Widget, assemble, key, pixels, text


@dataclass(frozen=True, eq=False)
class Series:
    """One thing drawn in a panel."""

    kind: str  # "line", "dots" or "bars"
    xs: np.ndarray  # (1, n); for dots (n_values, n)
    ys: np.ndarray  # (n_values, n), or (1, n): does not move
    label: str
    colour: str
    dash: bool = False
    names: tuple[str, ...] = ()  # of bars

    @property
    def pitch(self) -> float:
        """The distance from one bar to the next."""
        return float(np.diff(np.unique(self.xs)).min()) if self.xs.size > 1 else 1.0


@dataclass(frozen=True, eq=False)
class Panel:
    """A pair of axes and what is drawn in it."""

    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    xlim: tuple[float, float]
    ylim: tuple[float, float]


def line(x: Any, ys: Any, label: str, colour: str, dash: bool = False) -> Series:
    """Make a curve over x (n,): ys (n_values, n), or (n,) if at rest."""
    xs, ys = _rows("x", x), _rows("ys", ys)
    if len(xs) != 1 or ys.shape[1] != xs.shape[1]:
        raise ValueError(f"ys: got shape {ys.shape}, wanted (…, {xs.size}), as x")
    return Series("line", xs, ys, label, colour, dash)


def dots(xs: Any, ys: Any, label: str, colour: str) -> Series:
    """Make one point (n_values,), or several (n_values, n), for each value."""
    xs, ys = _rows("xs", xs, upright=True), _rows("ys", ys, upright=True)
    if xs.shape != ys.shape:
        raise ValueError(f"ys: got shape {ys.shape}, wanted {xs.shape}, as xs")
    return Series("dots", xs, ys, label, colour)


def bars(names_or_x: Sequence, ys: Any, label: str, colour: str) -> Series:
    """Make bars at names or numbers (n,): ys (n_values, n), or (n,) if at rest."""
    names = tuple(x for x in names_or_x if isinstance(x, str))
    xs, ys = _rows("x", np.arange(len(names)) if names else names_or_x), _rows("ys", ys)
    if len(xs) != 1 or ys.shape[1] != len(names_or_x):
        raise ValueError(f"ys: got shape {ys.shape}, wanted (…, {len(names_or_x)})")
    return Series("bars", xs, ys, label, colour, names=names)


def panel(
    xlabel: str,
    ylabel: str,
    *series: Series,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
) -> Panel:
    """Put series into one pair of axes whose limits, unless given, hold every frame."""
    if not series:
        raise ValueError("series: got none, wanted at least one")
    xs, ys = [s.xs for s in series], [s.ys for s in series]
    for s in series:
        if s.kind == "bars":  # they have a width and stand on 0
            xs += [s.xs - s.pitch / 2, s.xs + s.pitch / 2]
            ys.append(np.zeros((1, 1)))
    loose = 0.0 if any(s.kind == "bars" for s in series) else 0.03
    xlim, ylim = xlim or _hold(xs, loose), ylim or _hold(ys, 0.06)
    return Panel(xlabel, ylabel, series, xlim, ylim)


def drag(
    label: str,
    values: Sequence,
    panels: Panel | Sequence[Panel],
    *,
    alt: str,
    readout: Sequence[str] | None = None,
    start: int = 0,
    unit: str = "",
) -> Widget:
    """Make one slider over `values` that moves everything in one or two panels.

    `readout` is a line of text for each value; `alt` says in words what is to be seen.
    """
    panels = [panels] if isinstance(panels, Panel) else list(panels)
    said = [v if isinstance(v, str) else f"{float(v):.4g}" for v in values]
    if not 0 <= start < len(said):
        raise ValueError(f"start: got {start}, wanted 0 to {len(said) - 1}")
    for name, found in [("readout", len(said if readout is None else readout))] + [
        ("ys", len(s.ys)) for p in panels for s in p.series if len(s.ys) > 1
    ]:
        if found != len(said):
            raise ValueError(f"{name}: got {found}, wanted {len(said)} (one a value)")
    frames = Frames([f"{value} {unit}".strip() for value in said])
    width = 420 if len(panels) == 1 else 350
    drawn = [_draw(p, width, frames, start) for p in panels]
    more = {} if readout is None else {"readout": list(readout)}
    return assemble("drag", label, drawn, frames, alt, start, **more)


def cartpole(
    runs: Mapping[str, Any],
    *,
    alt: str,
    fps: float = 25,
    dt: float = 0.02,
    horizon: int = 500,
) -> Widget:
    """Make an animation of carts side by side: name -> states (T, 4) of one episode.

    States are (x m, ẋ m/s, θ rad, θ̇ rad/s), `dt` seconds apart. A run shorter than
    `horizon` ended by itself: it stays where it ended and a label says after how long.
    """
    if not runs:
        raise ValueError("runs: got none, wanted at least one")
    states = {name: _rows(name, run)[:horizon] for name, run in runs.items()}
    for name, run in states.items():
        if run.shape[1] != 4:
            raise ValueError(f"{name}: got shape {run.shape}, wanted (T, 4)")
    stride = max(1, round(1 / (dt * fps)))
    count = 1 + max(math.ceil(len(run) / stride) for run in states.values())
    frames = Frames([f"{k * stride * dt:.2f} s" for k in range(count)])
    drawn = [
        _cart(name, run, frames, stride, dt, len(run) < horizon)
        for name, run in states.items()
    ]
    return assemble("cartpole", "time", drawn, frames, alt, 0, fps=1 / (stride * dt))


def _cart(
    name: str, run: np.ndarray, frames: Frames, stride: int, dt: float, fell: bool
) -> str:
    """One cart on its track, 65 pixels to the metre, and what became of it."""
    seen = np.concatenate([run[::stride], run[-1:]])
    x, theta = pixels(seen[:, 0] * 1000), pixels(seen[:, 2] * 1000)  # mm, mrad
    after = (np.arange(len(frames.values)) >= len(seen) - 1).astype(int)
    left_track = abs(run[-1, 0] + dt * run[-1, 1]) > 2.4
    how = ("left the track" if left_track else "fell") if fell else "still up"
    ink = "#B34700" if fell else "#00704F"
    turn = frames.move("transform", theta, 0, p="rotate(", f=0.0573, s=")")
    pole = '<path d="M0 0V-65" stroke="#D55E00" stroke-width="6"/>'
    pole = frames.part("g", turn, pole)
    go = frames.move("transform", x, 0, p="translate(", f=0.065, s=" 0)")
    cart = f'<rect x="-20" y="0" width="40" height="20" rx="3" fill="#0072B2"/>{pole}'
    cart = frames.part("g", go, cart + '<circle r="4" fill="#222"/>')
    shown = frames.move("opacity", after, 0)
    style = f'y="-84" text-anchor="middle" fill="{ink}"'
    say = frames.part("text", f"{shown} {style}", f"{how} after {len(run) * dt:.1f} s")
    marks = "".join(
        f'<path d="M{m * 65} 20v6" stroke="#555"/>'
        + text(m * 65, 42, f"{m} m" if m == 2 else f"{m}")
        for m in (-2, -1, 0, 1, 2)
    )
    track = f'<path d="M-156 12v8H156v-8" fill="none" stroke="#555"/>{marks}'
    box = 'viewBox="-175 -102 350 150" aria-hidden="true"'
    svg = f"<svg {box}>{track}{cart}{say}</svg>"
    return f'<div class="w-panel"><strong>{escape(name)}</strong>{svg}</div>'


def _draw(p: Panel, width: int, frames: Frames, start: int) -> str:
    """One panel: its key, its axes, then every series as it is at `start`."""
    plot = Plot(width, p.xlim, p.ylim)
    named = next((s for s in p.series if s.names), None)
    names = zip(named.xs[0], named.names, strict=True) if named else ()
    out = [plot.axes(p.xlabel, p.ylabel, names)]
    groups = [s for s in p.series if s.kind == "bars"]
    for s in p.series:
        if s.kind == "line":
            out.append(_line(s, plot, frames, start))
        elif s.kind == "dots":
            out += _dots(s, plot, frames, start)
        else:
            out += _bars(s, groups.index(s), len(groups), plot, frames, start)
    said = key([(s.label, s.colour, _MARK[s.kind, s.dash]) for s in p.series])
    return f'<div class="w-panel">{said}{plot.svg("".join(out))}</div>'


_MARK = {
    ("line", False): "solid",
    ("line", True): "dashed",
    ("dots", False): "dot",
    ("bars", False): "bar",
}


def _line(s: Series, plot: Plot, frames: Frames, start: int) -> str:
    x, y = plot.across(s.xs[0], 4).tolist(), plot.down(s.ys, 4)  # in quarter pixels
    points = frames.move("points", y, start, x=x)
    dash = ' stroke-dasharray="24 20"' if s.dash else ""
    style = f'fill="none" stroke="{s.colour}" stroke-width="10"{dash}'
    return frames.part("polyline", f'{points} {style} transform="scale(.25)"')


def _dots(s: Series, plot: Plot, frames: Frames, start: int) -> Iterator[str]:
    style = f'r="6" fill="{s.colour}" stroke="#fff"'
    for x, y in zip(plot.across(s.xs).T, plot.down(s.ys).T, strict=True):
        at = frames.move("cx", x, start) + " " + frames.move("cy", y, start)
        yield frames.part("circle", f"{at} {style}")


def _bars(
    s: Series, place: int, places: int, plot: Plot, frames: Frames, start: int
) -> Iterator[str]:
    share = 0.8 * s.pitch / places
    edge = s.xs[0] - 0.4 * s.pitch + place * share
    base = plot.down(np.zeros(()))
    columns = plot.across(edge), plot.across(edge + share), plot.down(s.ys).T
    for left, right, top in zip(*columns, strict=True):
        d = frames.move("d", top, start, p=f"M{left} {base}V", s=f"H{right}V{base}Z")
        yield frames.part("path", f'{d} fill="{s.colour}"')


def _hold(parts: Sequence[np.ndarray], loose: float) -> tuple[float, float]:
    """Limits that hold all numbers, a little looser, but not beyond a bound of 0."""
    low, high = min(p.min() for p in parts), max(p.max() for p in parts)
    nearly = 1e-9 * max(abs(low), abs(high))
    if high - low <= nearly:
        return float(low - 0.5), float(high + 0.5)
    low, high = (0.0 if abs(bound) <= nearly else bound for bound in (low, high))
    more = (high - low) * loose
    return float(low - more if low else low), float(high + more if high else high)


def _rows(name: str, x: Any, *, upright: bool = False) -> np.ndarray:
    """Finite numbers as (rows, n); a list is one row or, upright, n rows of one."""
    x = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, float)
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(f"{name}: got shape {x.shape}, wanted 1 or 2 axes, not empty")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: got a NaN or an infinity, wanted finite numbers")
    return x if x.ndim == 2 else x[:, None] if upright else x[None]
