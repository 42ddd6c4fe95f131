"""A matplotlib figure as text that can be compared: as SVG and as a digest of its data.

The same data give the same bytes, in another process and on another day too.
"""

import hashlib
import io
import re
from collections import Counter
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import collections, image, lines, patches
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.spines import Spine

SETTINGS = {
    "savefig.facecolor": "white",  # reads on a dark page too
    "svg.fonttype": "path",  # letters look the same where the font is missing
    "svg.hashsalt": "rlhf",
}


def svg(fig: Figure) -> str:
    """Return the figure as SVG text: the same data give the same bytes."""
    for artist in fig.findobj(lambda artist: isinstance(artist, ScalarMappable)):
        if (data := artist.get_array()) is not None:
            artist.set_array(np.round(data, 9))  # a half is a tie between two colours
    file = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with mpl.rc_context(SETTINGS):
        fig.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.S)
    join = "stroke-linejoin:round;stroke-linecap:butt"  # of this, not of the page
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    text = text.replace("<svg", f'<svg style="{join}"', 1)
    text = re.sub(r"scale\([^)]*\)|-?\d+\.\d+(?:e-?\d+)?", _shorter, text)
    return _own_ids(re.sub(r"\n\s*", "\n", text))


def _shorter(number: re.Match) -> str:
    if number[0].startswith("scale"):
        return number[0]
    # first to 4: noise in the last digits does not tip a half over; + 0.0: never -0
    return f"{round(round(float(number[0]), 4), 2) + 0.0:.7g}"


def _own_ids(text: str) -> str:
    """Give ids that are referred to names of this figure's own, and drop the rest.

    Several figures share one page, where an id may stand only once.
    """
    used = list(dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', text)))
    names = {name: f"@{k}" for k, name in enumerate(used)}
    text = re.sub(
        r' id="([^"]+)"',
        lambda m: f' id="{names[m[1]]}"' if m[1] in names else "",
        text,
    )
    text = re.sub(r'(href="|url\()#([^")]+)', lambda m: f"{m[1]}#{names[m[2]]}", text)
    own = "f" + hashlib.sha1(text.encode()).hexdigest()[:6] + "-"
    return re.sub(r'(id="|#)@(?=\d)', rf"\g<1>{own}", text)


def describe(fig: Figure, *, data: bool = True) -> str:
    """Return e.g. `figure: 3 curves, data 9f3a12c4`, a digest of what was plotted.

    Numbers count to 3 significant digits, and nothing below a millionth of the largest
    beside it, so that another machine's rounding errors do not change the digest.
    Without `data` it says `figure: 3 curves`.
    """
    kinds: Counter[str] = Counter()
    digest = hashlib.sha256()
    for ax in fig.axes:
        for artist in ax.get_children():
            kind, plotted = _plotted(artist)
            if plotted is not None and artist is not ax.patch:
                kinds[kind] += 1
                digest.update(f"{kind}{plotted.shape}".encode())
                digest.update(" ".join(_rounded(plotted)).encode())
    said = [f"{n} {kind}{'s' * (n > 1)}" for kind, n in kinds.items()]
    said += [f"data {digest.hexdigest()[:8]}"] * data
    return f"figure: {', '.join(said)}"


def _plotted(artist: Any) -> tuple[str, np.ndarray | None]:
    """Say what an artist shows, and its data (None: it shows none)."""
    if isinstance(artist, lines.Line2D):
        return "curve", np.asarray(artist.get_xydata(), float)
    if isinstance(artist, collections.QuadMesh):
        return "map", np.ma.filled(artist.get_array().astype(float), np.nan)
    if isinstance(artist, (collections.PolyCollection, collections.LineCollection)):
        paths = [path.vertices for path in artist.get_paths()]
        return "band", np.concatenate(paths) if paths else np.zeros(0)
    if isinstance(artist, collections.PathCollection):
        return "cloud", np.ma.filled(artist.get_offsets().astype(float), np.nan)
    if isinstance(artist, image.AxesImage):
        return "map", np.ma.filled(artist.get_array().astype(float), np.nan)
    if isinstance(artist, patches.Rectangle):
        size = artist.get_width(), artist.get_height()
        return "bar", np.array([*artist.get_xy(), *size])
    if isinstance(artist, patches.Patch) and not isinstance(artist, Spine):
        return "shape", np.asarray(artist.get_path().vertices, float)
    return "", None


def _rounded(data: np.ndarray) -> list[str]:
    """Each number to 3 significant digits; the ties lie where decimals seldom do."""
    data = np.where(np.isfinite(data), data, np.nan).ravel()
    largest = np.nanmax(np.abs(data), initial=0.0)
    with np.errstate(divide="ignore"):
        unit = 10.0 ** (np.floor(np.log10(np.abs(data))) - 2)
    unit = np.maximum(unit, max(1e-6 * largest, 1e-8))
    return [f"{x:.2e}" for x in np.floor(data / unit + 0.6372) * unit + 0.0]
