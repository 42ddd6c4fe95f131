"""What every public function asks of its arguments, said in one voice.

A refused argument raises `ValueError("name: got …, wanted …")`: the reader learns which
argument, what it was and what it should have been, and nothing runs on half of it.
"""

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor


def refuse(name: str, got: object, wanted: str) -> NoReturn:
    """Raise the one error of the house: `name: got …, wanted …`."""
    raise ValueError(f"{name}: got {got}, wanted {wanted}")


def number(name: str, value: object) -> None:
    """A finite int or float (a bool or a string is refused)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(name, repr(value), "a number")
    if not math.isfinite(value):
        refuse(name, value, "a finite number")


def positive(name: str, value: object) -> None:
    """A finite number above 0."""
    number(name, value)
    if value <= 0:
        refuse(name, value, "a number above 0")


def non_negative(name: str, value: object) -> None:
    """A finite number of at least 0."""
    number(name, value)
    if value < 0:
        refuse(name, value, "a number of at least 0")


def unit_interval(name: str, value: object) -> None:
    """A number in [0, 1]."""
    number(name, value)
    if not 0 <= value <= 1:
        refuse(name, value, "a number in [0, 1]")


def count(name: str, value: object, *, least: int = 1) -> None:
    """An int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        refuse(name, repr(value), f"an int of at least {least}")


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    """One of these names."""
    if value not in known:
        refuse(name, repr(value), f"one of {', '.join(map(repr, known))}")


def tensor(name: str, x: object, shape: tuple[int, ...] | None = None) -> None:
    """A Tensor, of this shape if one is given."""
    if not isinstance(x, Tensor):
        refuse(name, type(x).__name__, "a Tensor")
    if shape is not None and x.shape != shape:
        refuse(name, f"shape {tuple(x.shape)}", f"shape {tuple(shape)}")


def mask_of(x: Tensor, mask: object, name: str = "x") -> None:
    """`mask` is bool, non-empty and has the shape of `x`."""
    tensor("mask", mask)
    if mask.dtype != torch.bool:
        refuse("mask", mask.dtype, "torch.bool")
    tensor(name, x, mask.shape)
    if mask.numel() == 0:
        refuse(
            "mask", f"an empty mask of shape {tuple(mask.shape)}", "at least one entry"
        )


def some_true(mask: Tensor, dim: int | None = None) -> None:
    """A True somewhere (or all along `dim`): a mean over nothing is no number."""
    if not (mask.any() if dim is None else mask.any(dim).all()):
        along = "at all" if dim is None else f"along dim {dim}"
        refuse("mask", f"no True {along}", "at least one True to average")


def every_row_true(mask: Tensor) -> None:
    """Every row of the mask (its last axis) has at least one True."""
    empty = (~mask.any(-1)).flatten().nonzero()
    if len(empty):
        refuse("mask", f"no True in row {empty[0].item()}", "a True in every row")


def no_nan(name: str, x: Tensor, mask: Tensor | None = None) -> None:
    """No NaN where the mask is True (anywhere, without one)."""
    bad = x.isnan() if mask is None else x.isnan() & mask
    if bad.any():
        refuse(name, f"NaN at index {_first(bad)}", "no NaN where the mask is True")


def finite(name: str, x: Tensor, mask: Tensor | None = None) -> None:
    """No NaN and no infinity where the mask is True (anywhere, without one)."""
    bad = ~x.isfinite() if mask is None else ~x.isfinite() & mask
    if bad.any():
        at = _first(bad)
        refuse(name, f"{x[at].item()} at index {at}", "finite numbers")


def alike(wanted: str, axes: int, **named: Tensor) -> None:
    """Finite tensors of so many axes and one shape, not empty; one look at the device."""
    for name, x in named.items():
        tensor(name, x)
        if x.ndim != axes or x.numel() == 0:
            refuse(name, f"shape {tuple(x.shape)}", wanted)
        tensor(name, x, next(iter(named.values())).shape)
    if (torch.stack([*named.values()]).detach() * 0).any():  # 0 · inf is NaN
        for name, x in named.items():
            finite(name, x)


def integers(name: str, x: Tensor, below: int) -> None:
    """An integer Tensor with entries in 0 … below - 1."""
    tensor(name, x)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        refuse(name, x.dtype, "integers")
    bad = (x < 0) | (x >= below)
    if bad.any():
        at = _first(bad)
        refuse(name, f"{x[at].item()} at index {at}", f"integers in 0 … {below - 1}")


def prompts(given: Tensor, lengths: Tensor, *, room: int, group: int) -> None:
    """Prompts (P, n) of `lengths` (P,) tokens, none empty, and room for more."""
    count("room", room)
    count("group", group)
    tensor("prompts", given)
    tensor("lengths", lengths, given.shape[:1])
    integers("lengths", lengths, given.shape[-1] + 1)
    if (lengths == 0).any():
        refuse("lengths", 0, "at least one token in every prompt")


def _first(bad: Tensor) -> tuple[int, ...]:
    return tuple(bad.nonzero()[0].tolist())
