"""Figures to drag: what is in the page before and after any script has run."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.show import widgets
from lib.show.frames import ticks

ROOT = Path(__file__).parents[1]
X = np.linspace(0.0, 1.0, 20)
VALUES = [0.5, 1.0, 2.0]


def dragged(*, alt="A curve rises faster as k grows.", noise=0.0, start=1, **how):
    """Two panels with every kind of series."""
    rng = np.random.default_rng(0)

    def about(x):
        return np.asarray(x, float) + noise * rng.standard_normal(np.shape(x))

    rising = about([X**k for k in VALUES])
    left = widgets.panel(
        "x (m)",
        "y (s)",
        widgets.line(X, rising, "xᵏ", "#0072B2"),
        widgets.line(X, about(X), "x", "#7f7f7f", dash=True),
        widgets.dots([0.5] * 3, about([0.5**k for k in VALUES]), "at ½", "#D55E00"),
    )
    bars = widgets.bars(
        ["<a>", "b"], about([[1, -0.5], [0.5, 0], [0, 1]]), "", "#009E73"
    )
    right = widgets.panel("name", "p", bars)
    return widgets.drag("power k", VALUES, [left, right], alt=alt, start=start, **how)


def data(widget):
    """The numbers that the script reads."""
    return json.loads(re.search(r"var D = (\{.*\});\n", widget.html)[1])


def run(steps, theta=0.0, x=0.0, v=0.0, omega=0.0):
    """One episode's states (T, 4), all alike."""
    return torch.tensor([[x, v, theta, omega]], dtype=torch.float64).expand(steps, 4)


def carts(runs=None, **how):
    runs = runs or {"before": run(20, theta=0.2, omega=1.0), "after": run(500)}
    return widgets.cartpole(runs, alt="The trained cart keeps its pole up.", **how)


@pytest.mark.parametrize("make", [dragged, carts])
def test_the_same_numbers_give_the_same_bytes_in_this_and_in_a_fresh_process(make):
    code = (
        "import sys; from tests import test_widgets as t;"
        f"sys.stdout.buffer.write(t.{make.__name__}().html.encode())"
    )
    fresh = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert fresh.returncode == 0, fresh.stderr.decode()
    assert make().html == make().html == fresh.stdout.decode("utf-8")


def test_rounding_errors_change_nothing_and_one_percent_changes_the_digest():
    assert dragged(noise=1e-12).html == dragged().html
    assert repr(dragged(noise=1e-2)) != repr(dragged())


def test_it_says_what_it_is_in_text():
    want = r"drag: 2 panels, 3 frames over power k, data [0-9a-f]{8}"
    assert re.fullmatch(want, repr(dragged()))
    want = r"cartpole: 2 panels, 251 frames over time, data [0-9a-f]{8}"
    assert re.fullmatch(want, repr(carts()))


def test_a_notebook_shows_its_html():
    assert dragged()._repr_html_() == dragged().html


@pytest.mark.parametrize("make", [dragged, carts])
def test_all_is_in_one_output_of_a_few_kilobytes_that_loads_nothing(make):
    html = make().html
    assert not re.search(r"https?://|src=|import |url\(", html)
    assert len(html.encode()) < 15_000


@pytest.mark.parametrize("make", [dragged, carts])
def test_every_tag_is_closed_and_the_id_stands_once(make):
    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            self.ids += [v for k, v in attributes if k == "id"]
            if tag != "input":
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    tags = Tags()
    tags.ids, tags.open = [], []
    tags.feed(make().html)
    assert tags.open == [] and len(tags.ids) == 1
    assert tags.ids[0] == repr(make()).split()[0][:-1] + "-" + repr(make())[-8:]


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_an_empty_alt_text_is_refused(alt, refuses):
    with refuses("alt: got nothing, wanted what is to be seen, in words"):
        dragged(alt=alt)
    with refuses("alt: got nothing, wanted what is to be seen, in words"):
        widgets.cartpole({"a": run(3)}, alt=alt)


def test_who_cannot_see_or_run_scripts_reads_the_alt_text():
    html = dragged(alt='5 < 6 & "so on"').html
    assert 'role="img" aria-label="5 &lt; 6 &amp; &quot;so on&quot;"' in html
    assert "<noscript>5 &lt; 6 &amp; &quot;so on&quot;</noscript>" in html


def test_the_slider_has_a_name_a_value_and_hands_its_keys_to_nobody_else():
    html = dragged(unit="m").html
    assert 'aria-label="power k" aria-valuetext="1 m"' in html
    assert '<span class="w-value">1 m</span>' in html
    assert 'min="0" max="2" value="1"' in html
    assert data(dragged(unit="m"))["values"] == ["0.5 m", "1 m", "2 m"]
    assert 'addEventListener("keydown", function (e) { e.stopPropagation(); })' in html


def test_the_readout_is_spoken_and_starts_at_the_start():
    widget = dragged(readout=["a", "b < c", "d"])
    assert '<output aria-live="polite">b &lt; c</output>' in widget.html
    assert data(widget)["readout"] == ["a", "b < c", "d"]


def test_text_cannot_end_the_script():
    widget = dragged(readout=["</script>", "", ""])
    assert widget.html.count("</script>") == 1
    assert data(widget)["readout"][0] == "</script>"


def test_the_first_frame_is_drawn_without_a_script():
    for start in range(3):
        widget = dragged(start=start)
        move = next(m for m in data(widget)["moves"] if m["a"] == "points")
        points = " ".join(
            f"{x},{y}" for x, y in zip(move["x"], move["v"][start], strict=True)
        )
        assert f'<polyline data-m="{move["k"]}" points="{points}"' in widget.html


def test_what_does_not_move_is_drawn_and_not_sent():
    widget = dragged()
    assert widget.html.count("<polyline") == 2 and "stroke-dasharray" in widget.html
    assert sum(m["a"] == "points" for m in data(widget)["moves"]) == 1


def test_points_lie_where_the_axes_say():
    limits = {"xlim": (0, 10), "ylim": (0, 100)}
    panel = widgets.panel(
        "x", "y", widgets.dots([0, 5, 10], [0, 50, 100], "", "k"), **limits
    )
    widget = widgets.drag("k", VALUES, panel, alt="a")
    (cx, cy) = (m["v"] for m in data(widget)["moves"])
    left, top, floor, right = (
        int(n)
        for n in re.search(r"M(\d+) (\d+)V(\d+)H(\d+)", widget.html).group(1, 2, 3, 4)
    )
    assert cx == [[left], [(left + right + 1) // 2], [right]] or cx == [
        left,
        (left + right + 1) // 2,
        right,
    ]
    assert cy == [floor, (floor + top) // 2, top]


def test_bars_stand_on_zero_and_hang_below_it():
    widget = dragged()
    first = [m for m in data(widget)["moves"] if m["a"] == "d"]
    base = int(re.search(r" (\d+)V", first[0]["p"])[1])
    assert first[0]["v"][0] < base and first[0]["v"][2] == base
    assert first[1]["v"][0] > base
    assert "&lt;a&gt;" in widget.html


def test_limits_hold_every_frame():
    panel = widgets.panel("x", "y", widgets.line([1, 2], [[1, 2], [9, 3]], "", "k"))
    assert panel.xlim[0] <= 1 and panel.xlim[1] >= 2
    assert panel.ylim[0] <= 1 and panel.ylim[1] >= 9
    for height in (3.0, 0.0):
        flat = widgets.panel("x", "y", widgets.line([1, 2], [height] * 2, "", "k"))
        assert flat.ylim[0] < height < flat.ylim[1]


@pytest.mark.parametrize(
    "low, high, want",
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 107, [0, 25, 50, 75, 100]),
        (-2.2, 2.2, [-2, -1, 0, 1, 2]),
        (58, 82, [60, 65, 70, 75, 80]),
        (0, 0.003, [0, 0.001, 0.002, 0.003]),
    ],
)
def test_ticks_are_round_numbers_within_the_limits(low, high, want):
    assert ticks(low, high) == pytest.approx(want)


def test_lengths_that_do_not_match_are_refused(refuses):
    with refuses("ys: got shape (1, 2), wanted (…, 3), as x"):
        widgets.line([0, 1, 2], [0, 1], "", "k")
    with refuses("ys: got shape (2, 1), wanted (3, 1), as xs"):
        widgets.dots([0, 1, 2], [0, 1], "", "k")
    with refuses("ys: got shape (1, 3), wanted (…, 2)"):
        widgets.bars(["a", "b"], [1, 2, 3], "", "k")
    with refuses("readout: got 2, wanted 3 (one a value)"):
        dragged(readout=["a", "b"])
    with refuses("start: got 3, wanted 0 to 2"):
        dragged(start=3)
    panel = widgets.panel("x", "y", widgets.line([0, 1], [[0, 1], [1, 1]], "", "k"))
    with refuses("ys: got 2, wanted 3 (one a value)"):
        widgets.drag("k", VALUES, panel, alt="a")
    with refuses("series: got none, wanted at least one"):
        widgets.panel("x", "y")


def test_what_is_not_a_number_is_refused(refuses):
    with refuses("ys: got a NaN or an infinity, wanted finite numbers"):
        widgets.line([0, 1], [0, math.nan], "", "k")
    with refuses("before: got a NaN or an infinity, wanted finite numbers"):
        widgets.cartpole({"before": run(3, theta=math.inf)}, alt="a")


def test_a_fallen_pole_stays_where_it_fell_and_says_when():
    widget = carts()
    moves = data(widget)["moves"]
    turn, _, shown = moves[:3]
    assert shown["v"] == [0] * 10 + [1] * 241  # 20 steps, every other one is a frame
    assert turn["p"] == "rotate(" and turn["v"][-1] == 200  # mrad
    assert "fell after 0.4 s" in widget.html
    assert "still up after 10.0 s" in widget.html


def test_a_cart_that_left_the_track_did_not_fall():
    assert "left the track after 0.2 s" in carts({"a": run(10, x=2.39, v=1.0)}).html
    assert "left the track after 0.2 s" in carts({"a": run(10, x=-2.39, v=-1.0)}).html
    assert "fell after 0.2 s" in carts({"a": run(10, x=2.0)}).html


def test_frames_follow_the_clock():
    assert data(carts())["values"][:3] == ["0.00 s", "0.04 s", "0.08 s"]
    assert data(carts())["fps"] == pytest.approx(25)
    assert data(carts(fps=50))["values"][1] == "0.02 s"
    assert len(data(carts({"a": run(50)}, horizon=50))["values"]) == 26


def test_carts_are_sent_as_whole_millimetres_and_milliradians():
    widget = carts({"a": torch.cat([run(2, x=0.1234, theta=-0.05), run(2, x=-1.0)])})
    turn, go, _ = data(widget)["moves"]
    assert go["v"] == [123, -1000, -1000] and turn["v"] == [-50, 0, 0]
    assert go["f"] == 0.065 and go["s"] == " 0)"  # 65 pixels to the metre


def test_nothing_plays_by_itself_for_who_wants_less_motion():
    html = carts().html
    asked = html.index('matchMedia("(prefers-reduced-motion: reduce)").matches) return')
    assert asked < html.index("new IntersectionObserver")
    assert '<button type="button">▶ Play</button>' in html
    assert "<button" not in dragged().html


def test_states_of_another_shape_are_refused(refuses):
    with refuses("before: got shape (5, 3), wanted (T, 4)"):
        widgets.cartpole({"before": torch.zeros(5, 3)}, alt="a")
    with refuses("runs: got none, wanted at least one"):
        widgets.cartpole({}, alt="a")


def test_words_in_capitals_stay_words():
    widget = dragged(alt="UID DATA", readout=["UID", "DATA", "D"])
    assert "<noscript>UID DATA</noscript>" in widget.html
    assert data(widget)["readout"] == ["UID", "DATA", "D"]
