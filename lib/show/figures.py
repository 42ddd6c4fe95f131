"""One style for every figure, and a way of showing them that is the same everywhere.

A colour means one thing all book long. Figures are SVG on a white panel, readable in
the light and the dark theme and on a phone; the same data give the same bytes, and with
the picture goes a digest of what was plotted, to be compared like a number.
"""

import sys
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from lib.show import picture

POLICY = "#0072B2"  # blue
REFERENCE = "#7f7f7f"  # grey
REWARD = "#009E73"  # green
KL = "#D55E00"  # vermilion
VALUE = "#E69F00"  # orange
OPTIMUM = "#222222"  # nearly black
OTHER = "#CC79A7"  # purple
SKY = "#56B4E9"

STYLE = {
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 11.5,
    "axes.prop_cycle": mpl.cycler(color=[POLICY, KL, REWARD, VALUE, OTHER, SKY]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11.5,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 11.5,
    "grid.alpha": 0.5,
    "grid.color": "#dddddd",
    "lines.linewidth": 2.0,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
}
_GAP = 5.0  # points between the end of a curve and its label


def use_style() -> None:
    """Make matplotlib draw in the book's style from here on."""
    mpl.rcParams.update(STYLE)


def axes(
    xlabel: str | Sequence[str],
    ylabel: str | Sequence[str],
    *,
    columns: int = 1,
    rows: int = 1,
    width: float | None = None,
    height: float | None = None,
    **subplots: Any,
) -> tuple[Figure, Any]:
    """Make a figure and its axes with their labels (units in them): one, or an array.

    A list of labels goes over the axes row by row. The default width in inches keeps
    letters readable on a phone: there, rows are kinder than columns.
    """
    size = (width or (5.4 if columns == 1 else 6.4), height or 3.2 * rows)
    fig = Figure(figsize=size, layout="constrained")
    grid = fig.subplots(rows, columns, squeeze=False, **subplots)
    for name, labels in (("xlabel", xlabel), ("ylabel", ylabel)):
        each = [labels] * grid.size if isinstance(labels, str) else list(labels)
        if len(each) != grid.size:
            got = f"got {len(each)} labels, wanted one text or {grid.size}"
            raise ValueError(f"{name}: {got}")
        for ax, label in zip(grid.flat, each, strict=True):
            ax.set(**{name: label})
    return fig, grid[0, 0] if grid.size == 1 else grid.squeeze()


def curve(ax: Axes, x: Any, y: Any, label: str, colour: str, **kw: Any) -> None:
    """Draw a line with its label at its right end; `show` moves labels that collide."""
    x, y = _array("x", x, 1), _array("y", y, 1)
    if len(x) != len(y):
        raise ValueError(f"y: got {len(y)} values, wanted {len(x)}, as many as x")
    ax.plot(x, y, color=colour, **kw)
    seen = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if label and len(seen):
        at = (x[seen[-1]], y[seen[-1]])
        text = ax.annotate(label, at, (_GAP, 0), textcoords="offset points")
        text.set(
            color=_ink(colour), va="center", annotation_clip=False, gid="end of a curve"
        )


def band(ax: Axes, x: Any, runs: Any, label: str, colour: str, **kw: Any) -> None:
    """Draw the mean of runs (n_runs, n) in a band from the lowest to the highest.

    The label says how many runs there are.
    """
    x, runs = _array("x", x, 1), _array("runs", runs, 2)
    if runs.shape[1] != len(x):
        raise ValueError(f"runs: got shape {runs.shape}, wanted (n_runs, {len(x)})")
    low, high = runs.min(0), runs.max(0)
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    curve(ax, x, runs.mean(0), f"{label}\n({len(runs)} runs)", colour, **kw)


def show(fig: Figure, *, digest: bool = True) -> None:
    """Display the figure once, as SVG and as a digest of its data, and close it.

    `digest=False` leaves the digest out: for what was trained in float32, whose last
    digits differ between processors and, after many updates, the others too.
    """
    _spread_labels(fig)
    said = picture.describe(fig, data=digest)
    shown = {"image/svg+xml": picture.svg(fig), "text/plain": said}
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(fig)
    display(shown, raw=True)


def _spread_labels(fig: Figure) -> None:
    """Move the labels at the ends of curves up and down until none covers another."""
    fig.draw_without_rendering()
    for ax in fig.axes:
        ends = [t for t in ax.texts if t.get_gid() == "end of a curve"]
        _push_apart(ends, 72 / fig.dpi)


def _push_apart(texts: list[Annotation], points: float) -> None:
    boxes = [text.get_window_extent() for text in texts]
    middle = np.array([(box.y0 + box.y1) / 2 for box in boxes])
    moved = middle.copy()
    order = sorted(range(len(boxes)), key=lambda k: (round(middle[k], 3), k))
    for _ in range(200):
        for j, low in enumerate(order):
            for high in order[j + 1 :]:
                a, b = boxes[low], boxes[high]
                overlap = (a.height + b.height) / 2 + 2 - (moved[high] - moved[low])
                if overlap > 1e-6 and a.x0 < b.x1 and b.x0 < a.x1:
                    moved[low] -= overlap / 2
                    moved[high] += overlap / 2
    for text, shift in zip(texts, moved - middle, strict=True):
        text.set_position((_GAP, shift * points))


def _ink(colour: str) -> str:
    """Return the colour, darker if it is too pale for letters on white (WCAG 4.5:1)."""
    rgb = np.array(to_rgb(colour))
    while 1.05 / (0.05 + rgb**2.2 @ [0.2126, 0.7152, 0.0722]) < 4.5:
        rgb = rgb * 0.95
    return to_hex(rgb)


def _array(name: str, x: Any, ndim: int) -> np.ndarray:
    """Numbers of any kind (a Tensor, a list) as an array of `ndim` axes."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    x = np.asarray(x, float)
    if x.ndim != ndim or not x.size:
        axes = f"{ndim} ax{'es' if ndim > 1 else 'is'}"
        wanted = axes if x.ndim != ndim else "at least one number"
        raise ValueError(f"{name}: got shape {x.shape}, wanted {wanted}")
    return x
