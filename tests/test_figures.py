"""The style of the book's figures: labels at the curves, one display, nothing left open."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lib.show import figures

COLOURS = [
    figures.POLICY,
    figures.REFERENCE,
    figures.REWARD,
    figures.KL,
    figures.VALUE,
    figures.OPTIMUM,
    figures.OTHER,
    figures.SKY,
]


@pytest.fixture
def shown(monkeypatch):
    """What `show` displays."""
    kept = []
    monkeypatch.setattr(figures, "display", lambda data, raw: kept.append(data))
    return kept


def test_importing_changes_no_style_and_loads_no_pyplot():
    code = (
        "import matplotlib as m, sys; before = m.rcParams.copy(); import lib.show.figures;"
        "assert m.rcParams.copy() == before and 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0


def test_the_style_is_on_once_asked_for():
    with mpl.rc_context():
        figures.use_style()
        assert mpl.rcParams["axes.spines.top"] is False
        assert mpl.rcParams["font.size"] == 11.5


def test_every_meaning_has_its_own_colour():
    assert len(set(COLOURS)) == len(COLOURS)


def test_one_pair_of_axes_comes_alone_and_several_in_an_array():
    _, ax = figures.axes("update", "return (steps)")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("update", "return (steps)")
    _, row = figures.axes("x", ["a", "b"], columns=2)
    assert [ax.get_ylabel() for ax in row] == ["a", "b"]
    _, grid = figures.axes(["a", "b", "c", "d"], "y", columns=2, rows=2)
    assert [ax.get_xlabel() for ax in grid.flat] == ["a", "b", "c", "d"]


def test_too_few_labels_are_refused(refuses):
    with refuses("xlabel: got 1 labels, wanted one text or 2"):
        figures.axes(["a"], "y", columns=2)


def test_show_displays_once_as_picture_and_digest_and_returns_nothing(shown):
    fig, ax = figures.axes("x", "y")
    figures.curve(ax, [0, 1], torch.tensor([1.0, 2.0], requires_grad=True), "π", "k")
    assert figures.show(fig) is None
    (data,) = shown
    assert re.fullmatch(r"figure: 1 curve, data [0-9a-f]{8}", data["text/plain"])
    assert data["image/svg+xml"].startswith("<svg")
    assert set(data) == {"text/plain", "image/svg+xml"}


def test_show_leaves_the_digest_out_where_it_is_told_to(shown):
    fig, ax = figures.axes("x", "y")
    figures.curve(ax, [0, 1], [1.0, 2.0], "loss", "k")
    figures.show(fig, digest=False)
    assert shown[0]["text/plain"] == "figure: 1 curve"
    assert shown[0]["image/svg+xml"].startswith("<svg")


def test_show_closes_a_figure_of_pyplot_too(shown):
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    figures.show(fig)
    assert not plt.get_fignums() and len(shown) == 1


def test_showing_the_same_data_twice_gives_the_same_bytes(shown):
    for _ in range(2):
        fig, ax = figures.axes("x", "y")
        figures.band(ax, [0, 1, 2], [[1, 2, 3], [2, 3, 5]], "PPO", figures.POLICY)
        figures.show(fig)
    assert shown[0] == shown[1]


def test_a_curve_carries_its_label_at_its_last_finite_point():
    _, ax = figures.axes("x", "y")
    figures.curve(ax, [0, 1, 2], [3.0, 4.0, np.nan], "policy", figures.POLICY)
    (text,) = ax.texts
    assert text.get_text() == "policy" and text.xy == (1, 4.0)


def test_a_band_spans_all_runs_around_their_mean_and_says_how_many():
    _, ax = figures.axes("x", "y")
    figures.band(
        ax, [0, 1], [[1.0, 2.0], [2.0, 4.0], [6.0, 3.0]], "PPO", figures.POLICY
    )
    assert ax.lines[0].get_ydata().tolist() == [3.0, 3.0]
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == 1.0 and corners[:, 1].max() == 6.0
    assert {tuple(c) for c in corners} >= {(0, 1.0), (0, 6.0), (1, 2.0), (1, 4.0)}
    assert "3 runs" in ax.texts[0].get_text()


@pytest.mark.parametrize(
    "ends", [[1, 1, 1], [1, 1.01, 0.99, 1.02], [5, 0, 5.01], [2, 2]]
)
def test_labels_do_not_cover_each_other(ends, shown):
    fig, ax = figures.axes("x", "y")
    for k, end in enumerate(ends):
        figures.curve(ax, [0, 1], [0, end], f"curve {k}", figures.POLICY)
    figures.show(fig)
    fig.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: box.y0)
    for low, high in zip(boxes, boxes[1:], strict=False):
        assert high.y0 >= low.y1 - 0.01


def test_labels_stay_inside_the_figure(shown):
    fig, ax = figures.axes("x", "y")
    for k in range(3):
        figures.curve(ax, [0, 1], [0, 1 + k / 100], "a rather long label", figures.KL)
    figures.show(fig)
    fig.draw_without_rendering()
    for text in ax.texts:
        assert text.get_window_extent().x1 <= fig.bbox.x1 + 0.01


def test_a_label_alone_is_not_moved(shown):
    fig, ax = figures.axes("x", "y")
    figures.curve(ax, [0, 1], [0, 1], "alone", figures.POLICY)
    figures.curve(ax, [0, 1], [0, 9], "", figures.POLICY)
    figures.show(fig)
    assert [t.xyann[1] for t in ax.texts] == [0]


@pytest.mark.parametrize("colour", COLOURS)
def test_letters_are_dark_enough_to_read_on_white(colour):
    _, ax = figures.axes("x", "y")
    figures.curve(ax, [0, 1], [0, 1], "label", colour)
    rgb = np.array(to_rgb(ax.texts[0].get_color()))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (0.05 + linear @ [0.2126, 0.7152, 0.0722]) >= 4.4


def test_a_curve_of_the_wrong_length_is_refused(refuses):
    _, ax = figures.axes("x", "y")
    with refuses("y: got 2 values, wanted 3, as many as x"):
        figures.curve(ax, [0, 1, 2], [0, 1], "", "k")
    with refuses("x: got shape (1, 2), wanted 1 axis"):
        figures.curve(ax, [[0, 1]], [0, 1], "", "k")
    with refuses("x: got shape (0,), wanted at least one number"):
        figures.curve(ax, [], [], "", "k")
    with refuses("runs: got shape (1, 2), wanted (n_runs, 3)"):
        figures.band(ax, [0, 1, 2], [[0, 1]], "", "k")
    with refuses("runs: got shape (2,), wanted 2 axes"):
        figures.band(ax, [0, 1], [0, 1], "", "k")


def test_letters_are_at_least_ten_pixels_on_a_phone():
    fig = Figure()
    width, _ = figures.axes("x", "y")[0].get_size_inches()
    smallest = min(v for k, v in figures.STYLE.items() if k.endswith("size"))
    assert fig and smallest / 72 / width * 342 >= 10  # inches to pixels
