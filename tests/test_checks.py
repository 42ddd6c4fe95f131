"""Checks that teach: what passes, what is said, and how it looks in a notebook."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from lib.show import checks

ROOT = Path(__file__).parents[1]
NAN, INF = float("nan"), float("inf")


def said(kind, block):
    """The message of the error that `block(check)` raises inside an exercise."""
    with pytest.raises(kind) as caught, checks.exercise("1.2", "reward-to-go") as check:
        block(check)
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_right_answer_prints_one_line(capsys):
    with checks.exercise("1.2", "reward-to-go") as check:
        check.close([1.0, 2.0], torch.tensor([1.0, 2.0]), "sum from t on")
        check.that(torch.tensor(True), "true")
    assert capsys.readouterr().out == "✓ Exercise 1.2 (reward-to-go): passed\n"


def test_a_stub_is_not_done_yet_and_not_wrong():
    def stub(check):
        raise NotImplementedError

    message = said(checks.NotYet, stub)
    assert (
        message
        == "… Exercise 1.2 (reward-to-go): not done yet. Complete the cell above."
    )
    assert not issubclass(checks.NotYet, AssertionError)


def test_a_wrong_number_is_shown_with_the_wanted_one_where_it_is_and_the_hint():
    got, want = torch.tensor([[1.0, 2.0], [3.0, 4.5]]), [[1, 2], [3, 4]]
    message = said(checks.Wrong, lambda check: check.close(got, want, "Sum from t on."))
    assert message == (
        "✗ Exercise 1.2 (reward-to-go): got 4.5, wanted 4 at [1, 1]. Sum from t on."
    )


def test_a_wrong_scalar_needs_no_place():
    message = said(checks.Wrong, lambda check: check.close(0.123456, 0.2, "H"))
    assert message.endswith(": got 0.1235, wanted 0.2. H")


@pytest.mark.parametrize(
    "got, want",
    [
        (1, 1.0),
        (1.0 + 1e-10, 1.0),
        (1e6 + 1e-4, 1e6),  # relative where numbers are large
        (1e-10, 0.0),  # absolute near 0
        ([NAN, INF, -INF], [NAN, INF, -INF]),
        (np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])),
        ([torch.tensor(1.0), 2], (1, 2)),
        (True, 1),
        ([], []),
        (torch.tensor(1.0, requires_grad=True), 1.0),
        (torch.tensor([1.0], dtype=torch.float32), [1.0]),
    ],
)
def test_what_is_close_passes(got, want, capsys):
    with checks.exercise("1.1", "x") as check:
        check.close(got, want, "")


@pytest.mark.parametrize(
    "got, want",
    [
        (1.0 + 1e-8, 1.0),
        (1e6 + 1e-2, 1e6),
        (1e-8, 0.0),
        (NAN, 1.0),
        (1.0, NAN),
        (INF, -INF),
        (INF, 1.0),
        (1.0, INF),
        (0.0, 1e-8),
    ],
)
def test_what_is_not_close_is_wrong(got, want):
    assert "got" in said(checks.Wrong, lambda check: check.close(got, want, "H"))
    assert "at [1]" in said(
        checks.Wrong, lambda check: check.close([2, got], [2, want], "H")
    )


def test_the_tolerance_can_be_chosen(capsys):
    with checks.exercise("1.1", "x") as check:
        check.close(1.04, 1.0, "", tol=0.05)
    assert "1.06" in said(checks.Wrong, lambda c: c.close(1.06, 1.0, "", tol=0.05))


@pytest.mark.parametrize(
    "got, what",
    [
        ([1.0, 2.0, 3.0], "got shape (3,), wanted shape (2,). H"),
        ([[1.0, 2.0]], "got shape (1, 2), wanted shape (2,). H"),
        (1.0, "got one number, wanted shape (2,). H"),
        (None, "got nothing (is a return missing?), wanted shape (2,). H"),
        ("12", "got a str, wanted shape (2,). H"),
        ([[1], [2, 3]], "got a list, wanted shape (2,). H"),
    ],
)
def test_another_shape_or_kind_is_wrong_and_never_broadcast(got, what):
    message = said(checks.Wrong, lambda check: check.close(got, [1.0, 2.0], "H"))
    assert message == f"✗ Exercise 1.2 (reward-to-go): {what}"


def test_a_false_condition_shows_its_hint():
    message = said(checks.Wrong, lambda check: check.that(False, "γ = 1 forgets none"))
    assert message == "✗ Exercise 1.2 (reward-to-go): γ = 1 forgets none"


def test_a_refusal_must_be_a_value_error_that_names_the_argument(capsys):
    def refuse(text):
        raise ValueError(text)

    with checks.exercise("1.2", "x") as check:
        check.refuses(lambda: refuse("gamma: got 2, wanted [0, 1]"), "gamma", "H")
    accepted = said(checks.Wrong, lambda c: c.refuses(lambda: 1, "gamma", "H"))
    assert accepted.endswith("a bad gamma was accepted; a ValueError was wanted. H")
    nameless = said(
        checks.Wrong, lambda c: c.refuses(lambda: refuse("no"), "gamma", "H")
    )
    assert nameless.endswith("the ValueError says “no” and does not name gamma. H")


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), checks.exercise("1.2", "x") as check:
        check.close(1 / 0, 1, "H")


def test_an_exercise_that_asks_nothing_does_not_pass():
    with (
        pytest.raises(RuntimeError, match="no check was made"),
        checks.exercise("1", "x"),
    ):
        pass


def test_a_notebook_shows_one_line_and_no_path():
    cells = [
        "from lib.show import checks",
        'with checks.exercise("1.1", "a") as check:\n    check.that(True, "")',
        'with checks.exercise("1.2", "b") as check:\n    check.close(1, 2, "H")',
        'with checks.exercise("1.3", "c") as check:\n    raise NotImplementedError',
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c) for c in cells]
    )
    place = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=60, allow_errors=True, resources=place).execute()
    passed, wrong, not_yet = (cell.outputs[0] for cell in notebook.cells[1:])
    assert passed.text == "✓ Exercise 1.1 (a): passed\n"
    assert wrong.traceback == ["✗ Exercise 1.2 (b): got 1, wanted 2. H"]
    assert not_yet.traceback == [
        "… Exercise 1.3 (c): not done yet. Complete the cell above."
    ]
    assert (wrong.ename, not_yet.ename) == ("Wrong", "NotYet")
