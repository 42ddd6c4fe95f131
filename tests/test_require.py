"""What every public function asks of its arguments, and the words it says no in."""

import math

import pytest
import torch

from lib import require

T, F = True, False


def test_a_refusal_says_name_what_it_got_and_what_it_wanted(refuses):
    with refuses("gamma: got 3, wanted less"):
        require.refuse("gamma", 3, "less")


@pytest.mark.parametrize("value", [0, 1, -2.5, 1e300])
def test_a_finite_number_is_a_number(value):
    assert require.number("x", value) is None


@pytest.mark.parametrize(
    ("value", "got"), [(True, "True"), ("1", "'1'"), (None, "None"), ([1], "[1]")]
)
def test_what_is_no_number_is_refused(value, got, refuses):
    with refuses(f"x: got {got}, wanted a number"):
        require.number("x", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_must_be_finite(value, refuses):
    with refuses(f"x: got {value}, wanted a finite number"):
        require.number("x", value)


@pytest.mark.parametrize(
    "check", [require.positive, require.non_negative, require.unit_interval]
)
def test_the_ranges_refuse_what_is_no_finite_number(check, refuses):
    with refuses("x: got '1', wanted a number"):
        check("x", "1")
    with refuses("x: got nan, wanted a finite number"):
        check("x", math.nan)


def test_positive_excludes_zero(refuses):
    assert require.positive("x", 1e-300) is None
    assert require.positive("x", 0.5) is None
    with refuses("x: got 0, wanted a number above 0"):
        require.positive("x", 0)


def test_non_negative_includes_zero(refuses):
    assert require.non_negative("x", 0) is None
    assert require.non_negative("x", 0.5) is None
    with refuses("x: got -1e-300, wanted a number of at least 0"):
        require.non_negative("x", -1e-300)


def test_the_unit_interval_includes_both_ends(refuses):
    assert [require.unit_interval("x", v) for v in (0, 0.5, 1)] == [None] * 3
    for value in (-1e-9, 1.0000001, 2):
        with refuses(f"x: got {value}, wanted a number in [0, 1]"):
            require.unit_interval("x", value)


def test_a_count_is_an_int_of_at_least_one(refuses):
    assert require.count("n", 1) is None
    for value, got in (
        (0, "0"),
        (-1, "-1"),
        (1.0, "1.0"),
        (True, "True"),
        ("2", "'2'"),
    ):
        with refuses(f"n: got {got}, wanted an int of at least 1"):
            require.count("n", value)


def test_a_count_may_start_elsewhere(refuses):
    assert require.count("n", 0, least=0) is None
    with refuses("n: got 2, wanted an int of at least 3"):
        require.count("n", 2, least=3)


def test_a_name_is_one_of_those_that_are_known(refuses):
    for known in ("train", "test"), ["train", "test"]:
        assert [require.one_of("split", each, known) for each in known] == [None] * 2
        for value, got in (("dev", "'dev'"), ("", "''"), (None, "None"), (1, "1")):
            with refuses(f"split: got {got}, wanted one of 'train', 'test'"):
                require.one_of("split", value, known)
    with refuses("x: got 'b', wanted one of 'a'"):
        require.one_of("x", "b", ("a",))


def test_a_tensor_is_a_tensor_of_the_shape_that_is_asked_for(refuses):
    assert require.tensor("x", torch.ones(2, 3)) is None
    assert require.tensor("x", torch.ones(2, 3), (2, 3)) is None
    assert require.tensor("x", torch.ones(()), ()) is None
    with refuses("x: got list, wanted a Tensor"):
        require.tensor("x", [1.0])
    with refuses("x: got shape (2, 3), wanted shape (3, 2)"):
        require.tensor("x", torch.ones(2, 3), (3, 2))
    with refuses("x: got shape (1,), wanted shape ()"):
        require.tensor("x", torch.ones(1), ())


def test_a_mask_is_a_bool_tensor_of_the_shape_of_what_it_masks(refuses):
    x = torch.ones(2, 3)
    assert require.mask_of(x, torch.ones(2, 3).bool()) is None
    with refuses("x: got float, wanted a Tensor"):
        require.mask_of(1.0, torch.ones(2, 3).bool())
    with refuses("mask: got list, wanted a Tensor"):
        require.mask_of(x, [True])
    with refuses("mask: got torch.int64, wanted torch.bool"):
        require.mask_of(x, torch.ones(2, 3).long())
    with refuses("x: got shape (2, 3), wanted shape (2,)"):
        require.mask_of(x, torch.ones(2).bool())
    with refuses("logps: got shape (2, 3), wanted shape (3,)"):
        require.mask_of(x, torch.ones(3).bool(), "logps")
    with refuses("mask: got an empty mask of shape (0, 3), wanted at least one entry"):
        require.mask_of(torch.ones(0, 3), torch.ones(0, 3).bool())


def test_a_mask_without_any_true_is_refused_where_a_mean_is_taken(refuses):
    assert require.some_true(torch.tensor([[F, F], [F, T]])) is None
    wanted = "wanted at least one True to average"
    with refuses(f"mask: got no True at all, {wanted}"):
        require.some_true(torch.tensor([[F, F]]))
    columns = torch.tensor([[F, T], [F, T]])
    assert require.some_true(columns, 1) is None
    with refuses(f"mask: got no True along dim 0, {wanted}"):
        require.some_true(columns, 0)


def test_a_row_without_true_is_named(refuses):
    assert require.every_row_true(torch.tensor([[F, T], [T, F]])) is None
    with refuses("mask: got no True in row 1, wanted a True in every row"):
        require.every_row_true(torch.tensor([[T, F], [F, F], [F, F]]))
    with refuses("mask: got no True in row 2, wanted a True in every row"):
        require.every_row_true(torch.tensor([[[T, F], [T, T]], [[F, F], [T, T]]]))


def test_a_nan_is_named_by_its_index_and_allowed_behind_the_mask(refuses):
    x = torch.tensor([[1.0, math.nan], [math.inf, 1.0]])
    assert require.no_nan("x", x, torch.tensor([[T, F], [T, T]])) is None
    assert require.no_nan("x", torch.tensor([math.inf, 1.0])) is None
    with refuses("x: got NaN at index (0, 1), wanted no NaN where the mask is True"):
        require.no_nan("x", x, torch.tensor([[F, T], [F, F]]))
    with refuses("x: got NaN at index (0, 1), wanted no NaN where the mask is True"):
        require.no_nan("x", x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named_by_value_and_index(bad, refuses):
    x = torch.tensor([[1.0, 2.0], [bad, 3.0]])
    assert require.finite("x", x, torch.tensor([[T, T], [F, T]])) is None
    assert require.finite("x", torch.ones(2)) is None
    with refuses(f"x: got {bad} at index (1, 0), wanted finite numbers"):
        require.finite("x", x)
    with refuses(f"x: got {bad} at index (1, 0), wanted finite numbers"):
        require.finite("x", x, torch.tensor([[F, F], [T, F]]))


def test_the_first_offender_is_the_one_that_is_named(refuses):
    x = torch.tensor([1.0, math.inf, math.nan])
    with refuses("x: got inf at index (1,), wanted finite numbers"):
        require.finite("x", x)


def test_tensors_alike_are_finite_and_of_one_shape(refuses):
    def check(axes=1, **named):
        return require.alike("what is wanted", axes, **named)

    assert check(x=torch.ones(2), y=torch.ones(2, dtype=torch.int64)) is None
    assert check(2, x=torch.ones(1, 2)) is None
    with refuses("y: got float, wanted a Tensor"):
        check(x=torch.ones(2), y=1.0)
    for shape in ((), (1, 2), (0,)):
        with refuses(f"y: got shape {shape}, wanted what is wanted"):
            check(x=torch.ones(2), y=torch.ones(shape))
    with refuses("y: got shape (3,), wanted shape (2,)"):
        check(x=torch.ones(2), y=torch.ones(3))
    bad = torch.tensor([1.0, -math.inf])
    with refuses("y: got -inf at index (1,), wanted finite numbers"):
        check(x=torch.ones(2), y=bad, z=bad)


def test_integers_are_integers_below_the_bound(refuses):
    for dtype in (torch.uint8, torch.int32, torch.int64):
        assert require.integers("a", torch.tensor([0, 2], dtype=dtype), 3) is None
    with refuses("a: got 3 at index (1,), wanted integers in 0 … 2"):
        require.integers("a", torch.tensor([0, 3]), 3)
    with refuses("a: got -1 at index (0, 1), wanted integers in 0 … 1"):
        require.integers("a", torch.tensor([[0, -1]]), 2)
    with refuses("a: got int, wanted a Tensor"):
        require.integers("a", 3, 3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.complex64])
def test_what_is_no_integer_tensor_is_refused_whatever_its_values(dtype, refuses):
    with refuses(f"a: got {dtype}, wanted integers"):
        require.integers("a", torch.zeros(2, dtype=dtype), 3)
