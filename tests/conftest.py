"""What several test files need: exact messages, seeded generators, garbage, gradients.

And what holds for all of them: a test leaves to the next what it found.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GARBAGE = (float("nan"), float("inf"), -float("inf"), 1e30)
BY_IMPORTS = (
    "PYGAME_",
    "TORCHINDUCTOR_",
)  # gymnasium and torch set these for themselves


def _shared() -> dict[str, Any]:
    """What all tests of a process share, and could change for one another."""
    drawn = mpl.rcParams.copy().items()
    settings = {f"matplotlib's {k}": v for k, v in drawn if k != "backend"}
    told = {f"${k}": v for k, v in os.environ.items() if not k.startswith(BY_IMPORTS)}
    told.pop("$PYTEST_CURRENT_TEST")
    rest = {
        "the working folder": os.getcwd(),
        "torch's threads": torch.get_num_threads(),
        "torch's default type": torch.get_default_dtype(),
        "whether torch takes gradients": torch.is_grad_enabled(),
    }
    return settings | told | rest


@pytest.fixture(autouse=True)
def leaves_what_it_found() -> Iterator[None]:
    """A test that changes what others share fails, in whatever order they run."""
    before = _shared()
    yield
    after = _shared()
    changed = [name for name in after if before.get(name) != after[name]]
    gone = [name for name in before if name not in after]
    said = ", ".join(changed + gone)
    assert not said, f"the test changed for those after it: {said}"


@contextmanager
def _refuses(message: str) -> Iterator[None]:
    with pytest.raises(ValueError) as caught:
        yield
    assert str(caught.value) == message


@pytest.fixture
def refuses() -> Callable[[str], AbstractContextManager[None]]:
    """`with refuses("name: got …, wanted …"):` the block raises exactly this ValueError."""
    return _refuses


@pytest.fixture
def ends() -> Iterator[None]:
    """What runs for a minute of CPU time is stopped: no fast or slow machine decides.

    For what takes a hundredth of a second as it is, and hours where time grows with the
    square of a text's length.
    """

    def stop(*_: object) -> None:
        raise TimeoutError("a minute of CPU time, for what should take no time at all")

    if not hasattr(signal, "SIGVTALRM"):  # Windows: there it would just go on
        yield
        return
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    """A local generator: `seeded(7)`; no test touches the global one."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture
def grad_of() -> Callable[..., tuple[Tensor, ...]]:
    """`grad_of(f, x, y)` = (df/dx, df/dy) of the sum of f(x, y); 0 where none flows."""

    def gradients(
        function: Callable[..., Tensor], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        total = function(*leaves).sum()
        if not total.requires_grad:
            return tuple(torch.zeros_like(x) for x in inputs)
        return torch.autograd.grad(
            total, leaves, allow_unused=True, materialize_grads=True
        )

    return gradients


@pytest.fixture
def unmoved(grad_of: Callable) -> Callable[..., None]:
    """`unmoved(f, x, mask)`: no garbage behind the mask moves a bit of f(x) or df/dx."""

    def check(function: Callable[[Tensor], Tensor], x: Tensor, mask: Tensor) -> None:
        value, (slope,) = function(x), grad_of(function, x)
        assert value.isfinite().all()
        for garbage in GARBAGE:
            dirty = x.masked_fill(~mask, garbage)
            assert torch.equal(function(dirty), value)
            assert torch.equal(grad_of(function, dirty)[0], slope)
        assert (slope[~mask] == 0).all()
        assert (~mask).any() and (slope[mask] != 0).any()

    return check


class _Syncs(TorchFunctionMode):
    """Counts what makes a GPU's host wait: every number, list or index read from it."""

    READS = {"item", "tolist", "nonzero", "numpy", "unique", "masked_select", "cpu"} | {
        "__bool__", "__int__", "__float__", "__index__", "__format__", "__contains__",
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        by_mask = name == "__getitem__" and _holds_a_mask(args[1])
        self.count += name in self.READS or by_mask
        return function(*args, **(kwargs or {}))


def _holds_a_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(p, Tensor) and p.dtype == torch.bool for p in parts)


@pytest.fixture
def syncs() -> Callable[[Callable[[], Any]], int]:
    """`syncs(f)`: how often f() would wait for the device."""

    def count(function: Callable[[], Any]) -> int:
        with _Syncs() as mode:
            function()
        return mode.count

    return count
