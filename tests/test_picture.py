"""A figure's digest follows its data, and its SVG is the same wherever it is drawn."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lib.show import figures, picture

ROOT = Path(__file__).parents[1]
X = np.linspace(0.0, 1.0, 30)


def drawn(y=None, *, noise=0.0, scale=1.0):
    """A figure with a bit of everything: curve, band, points, bars, image, shape."""
    rng = np.random.default_rng(0)

    def around(data):
        return scale * (
            np.asarray(data, float) + noise * rng.standard_normal(np.shape(data))
        )

    fig = Figure()
    a, b = fig.subplots(1, 2)
    a.plot(X, around(np.sin(6 * X)))
    a.fill_between(X, around(X - 0.125), around(X + 0.125))
    b.scatter(X, around(0 * X))
    b.bar([1, 2, 3], around([0.5, 0.125, -0.0]))
    b.imshow(around([[0.0, 1.0], [0.5, 0.25]]))
    return fig


def test_the_digest_says_what_there_is():
    want = r"figure: 1 curve, 1 band, 1 cloud, 3 bars, 1 map, data [0-9a-f]{8}"
    assert re.fullmatch(want, picture.describe(drawn()))


def test_the_digest_is_left_out_where_it_is_not_wanted():
    want = "figure: 1 curve, 1 band, 1 cloud, 3 bars, 1 map"
    assert picture.describe(drawn(), data=False) == want


def test_the_digest_does_not_see_rounding_errors():
    want = picture.describe(drawn())
    for noise in (1e-10, -1e-10, 1e-9, 1e-16):
        assert picture.describe(drawn(noise=noise)) == want


def test_the_digest_sees_one_percent():
    assert picture.describe(drawn(scale=1.01)) != picture.describe(drawn())


@pytest.mark.parametrize("at", [0, 7, 29])
def test_the_digest_sees_one_percent_of_one_number(at):
    def digest(y):
        fig = Figure()
        fig.subplots().plot(X, y)
        return picture.describe(fig)

    y = 1.0 + X
    assert digest(y * (1 + 0.01 * (np.arange(30) == at))) != digest(y)


def test_the_digest_sees_small_numbers_beside_large_ones():
    def digest(y):
        fig = Figure()
        fig.subplots().semilogy(y)
        return picture.describe(fig)

    assert digest([1.0, 1e-3]) != digest([1.0, 1.01e-3])
    assert digest([3e-4, 1e-4]) != digest([3.03e-4, 1e-4])


def test_minus_zero_is_zero_and_not_a_number_is_no_obstacle():
    def digest(y):
        fig = Figure()
        fig.subplots().plot(y)
        return picture.describe(fig)

    assert digest([0.0, 1.0]) == digest([-0.0, 1.0])
    assert digest([np.nan, 1.0]) == digest([np.nan, 1.0]) != digest([0.0, 1.0])


def test_the_digest_follows_the_order_of_drawing():
    def digest(*ys):
        fig = Figure()
        ax = fig.subplots()
        for y in ys:
            ax.plot(y)
        return picture.describe(fig)

    assert digest([1, 2], [3, 4]) != digest([3, 4], [1, 2])


def test_an_empty_figure_has_a_digest_too():
    fig = Figure()
    fig.subplots()
    assert re.fullmatch(r"figure: data [0-9a-f]{8}", picture.describe(fig))


def test_the_same_data_give_the_same_bytes_in_this_and_in_a_fresh_process():
    code = (
        "from tests.test_picture import drawn; from lib.show import picture; import sys;"
        "sys.stdout.buffer.write(picture.svg(drawn()).encode())"
    )
    fresh = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert fresh.returncode == 0, fresh.stderr.decode()
    first, second = picture.svg(drawn()), picture.svg(drawn())
    assert first == second == fresh.stdout.decode()


def test_the_bytes_do_not_see_rounding_errors():
    assert picture.svg(drawn(noise=1e-12)) == picture.svg(drawn())


def test_coordinates_have_two_decimals_and_letters_keep_their_scale():
    text = picture.svg(drawn())
    plain = re.sub(r"scale\([^)]*\)|data:image[^\"]*", "", text)
    assert not re.findall(r"\d\.\d{3,}", plain)
    assert "scale(0.1 -0.1)" in text and "-0 " not in plain
    assert not re.search(r"<!--|<\?xml|<metadata|<style|DOCTYPE", text)


def test_every_id_is_used_belongs_to_this_figure_and_stands_once():
    def ids(fig):
        text = picture.svg(fig)
        found = re.findall(r' id="([^"]+)"', text)
        used = re.findall(r'(?:href="|url\()#([^")]+)', text)
        assert len(found) == len(set(found)) and set(found) == set(used)
        return set(found)

    other = figures.axes("x", "y")[0]
    assert ids(drawn()) and not ids(drawn()) & ids(other)


def test_the_panel_is_white_on_every_page():
    assert 'style="fill: #ffffff"' in picture.svg(drawn())
