"""Checks that teach: an answer is tried, and what is off is said in one line.

    with checks.exercise("1.2", "reward-to-go") as check:
        check.close(reward_to_go(rewards), want, "sum from t on, not up to t")

Done right it prints one line. Not done yet, or done wrong, raises an error that a
notebook shows as one line too: no path, no traceback, nothing to scroll past.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class NotYet(NotImplementedError):
    """The exercise's stub is still a stub."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Wrong(AssertionError):
    """The answer was tried and something is off; the message says what."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Check:
    """The questions asked of one exercise."""

    def __init__(self) -> None:
        """No question asked yet."""
        self.asked = 0

    def that(self, condition: object, hint: str) -> None:
        """`condition` (bool or one-element Tensor) is true; else show the hint."""
        self.asked += 1
        if not bool(condition):
            raise Wrong(hint)

    def close(self, got: Any, want: Any, hint: str, *, tol: float = 1e-9) -> None:
        """|got - want| <= tol · max(1, |want|) in every entry, and the same shape.

        Numbers, lists, arrays and Tensors; NaN and infinities must stand where wanted.
        """
        self.asked += 1
        want = _numbers(want)
        try:
            got = _numbers(got)
        except (TypeError, ValueError, RuntimeError):
            said = "nothing (is a return missing?)" if got is None else _kind(got)
            raise Wrong(f"got {said}, wanted {_size(want)}. {hint}") from None
        if got.shape != want.shape:
            raise Wrong(f"got {_size(got)}, wanted {_size(want)}. {hint}")
        same = (got == want) | (got.isnan() & want.isnan())
        gap = (got - want).abs() / want.abs().clamp(min=1)
        off = ~(same | (gap <= tol))  # a NaN gap is off
        if off.any():
            where = off.nonzero()[0].tolist()
            at = f" at {where}" if where else ""
            pair = f"got {_say(got[tuple(where)])}, wanted {_say(want[tuple(where)])}"
            raise Wrong(f"{pair}{at}. {hint}")

    def refuses(self, call: Callable[[], object], name: str, hint: str) -> None:
        """`call()` raises a ValueError whose message names the argument `name`."""
        self.asked += 1
        try:
            call()
        except ValueError as error:
            if name in str(error):
                return
            said = f"the ValueError says “{error}” and does not name {name}"
            raise Wrong(f"{said}. {hint}") from None
        raise Wrong(f"a bad {name} was accepted; a ValueError was wanted. {hint}")


@contextmanager
def exercise(number: str, title: str) -> Iterator[Check]:
    """Run the checks of an exercise; print that it passed or raise NotYet or Wrong."""
    name = f"Exercise {number} ({title})"
    check = Check()
    try:
        yield check
    except NotImplementedError:
        raise NotYet(f"… {name}: not done yet. Complete the cell above.") from None
    except Wrong as wrong:
        raise Wrong(f"✗ {name}: {wrong}") from None
    if not check.asked:
        raise RuntimeError(f"{name}: no check was made")
    print(f"✓ {name}: passed")


def _numbers(x: Any) -> Tensor:
    """Whatever holds numbers, as a float64 Tensor on the CPU without gradient."""
    if isinstance(x, (list, tuple)):
        return torch.stack([_numbers(part) for part in x]) if x else torch.zeros(0)
    if isinstance(x, str):
        raise TypeError("text is not a number")
    return torch.as_tensor(x, dtype=torch.float64, device="cpu").detach()


def _size(x: Tensor) -> str:
    return f"shape {tuple(x.shape)}" if x.ndim else "one number"


def _kind(x: object) -> str:
    return f"a {type(x).__name__}"


def _say(x: Tensor) -> str:
    value = x.item() + 0.0  # no -0
    if math.isfinite(value) and value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}"
