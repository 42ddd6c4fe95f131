"""From one process to many, under torchrun: who reads which rows, and one rule for means.

    torchrun --nproc-per-node=2 script.py

Every rank holds the whole model and sees the same batch; `train.fit` gives each its
rows. The rule: a loss that is a mean over n things on a rank is multiplied by W · n / N
before gradients are averaged over the W ranks; N is the sum of n. Then the gradient is
that of one process, however uneven the shares (`weighted`). Without torchrun all of
this does nothing: one rank, rank 0, has everything.

`shard` keeps a piece of each weight on each rank instead (FSDP2).
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from lib import require

PATIENCE = timedelta(minutes=30)  # how long a rank waits for the others
METHODS = (
    "embed",
    "hidden",
    "read",
    "logits",
    "look",
    "think",
)  # called as `forward` is
_ALONE: list[bool] = []  # not empty while `alone`


# --- who is there ---------------------------------------------------------------------


def start(device: str = "cpu", *, patience: timedelta = PATIENCE) -> None:
    """Join the processes that torchrun started; nothing, where there is only one.

    gloo between CPUs, nccl between the cards of "cuda", of which this process takes
    that of its local rank. A restart (`--max-restarts`) meets under another name than
    the attempt before it, whose traces are still there: one that the ranks agree on,
    since each computer's torchrun counts its own restarts only.
    """
    if distributed.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    meeting = distributed.rendezvous("env://", timeout=patience)
    store, number, count = next(iter(meeting))
    attempt = _attempt(store, number, count, patience)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        store=distributed.PrefixStore(attempt, store),
        rank=number,
        world_size=count,
        timeout=patience,
    )


def _attempt(
    store: distributed.Store, number: int, count: int, patience: timedelta
) -> str:
    """A name that the ranks of this attempt share, and that none before it had.

    Each says that it is here under a name of its own; rank 0 answers each by its name
    with its own, until all have heard. What it finds may be of an attempt before, whose
    ranks answer no more; so it asks again.
    """
    mine, until = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    store.set(f"here {number}", mine)
    if number:
        store.wait([f"to {mine}"], patience)  # only this attempt's rank 0 answers
        name = store.get(f"to {mine}").decode()
        store.set(f"{name} {number}", "heard")
        return name
    late = set(range(1, count))
    while late:
        if time.monotonic() > until:
            raise TimeoutError(f"ranks {sorted(late)} did not come within {patience}")
        for other in (each for each in late if store.check([f"here {each}"])):
            store.set(f"to {store.get(f'here {other}').decode()}", mine)
        late = {each for each in late if not store.check([f"{mine} {each}"])}
        time.sleep(0.02)
    return mine


def stop() -> None:
    """Leave the other processes, if there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, 0 … size() - 1."""
    return distributed.get_rank() if _together() else 0


def size() -> int:
    """How many processes there are; 1 before `start`."""
    return distributed.get_world_size() if _together() else 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """As if there were no others: what each rank does by itself, or one of them only."""
    _ALONE.append(True)
    try:
        yield
    finally:
        _ALONE.pop()


def _together() -> bool:
    return not _ALONE and distributed.is_initialized()


# --- who does what --------------------------------------------------------------------


def share(count: int, *, multiple: int = 1) -> Tensor:
    """The rows of this rank, of `count`: LongTensor, in order, groups of `multiple` whole.

    Where they do not divide evenly, the first ranks have one group more; there may be
    ranks without any.
    """
    require.count("count", count, least=0)
    return split(torch.arange(count, device="cpu"), size(), multiple=multiple)[rank()]


def split(rows: Tensor, parts: int, *, multiple: int = 1) -> list[Tensor]:
    """Row numbers (N,) in so many parts, groups of `multiple` whole, none or more each."""
    require.count("multiple", multiple)
    if len(rows) % multiple:
        require.refuse("count", len(rows), f"a multiple of {multiple}, whole groups")
    groups = rows.reshape(-1, multiple)
    return [some.flatten() for some in groups.tensor_split(parts)]


def total(n: float) -> float:
    """The sum of n over all ranks."""
    return sum(gathered(n))


def weighted(loss: Tensor, n: float, *, of: float | None = None) -> Tensor:
    """loss · W · n / N: a mean over n on this rank, N on all; then average gradients.

    N is summed over the ranks where it is not given (`of`).
    """
    return loss * (size() * n / (total(n) if of is None else of))


def gathered(thing: Any) -> list[Any]:
    """What each rank has brought, in the order of ranks; tensors come to the CPU."""
    if size() == 1:
        return [thing]
    found: list[Any] = [None] * size()
    here = thing.to(torch.device("cpu")) if hasattr(thing, "to") else thing
    distributed.all_gather_object(found, here)
    return found


def read_by_all(
    read: Callable[[Any], Tensor], rows: Any, *, multiple: int = 1
) -> Tensor:
    """`read(rows)`, (B, …): each rank reads its rows, groups of `multiple` whole."""
    if size() == 1:
        return read(rows)
    own = share(len(rows), multiple=multiple)
    found = read(rows.rows(own)) if len(own) else None
    return torch.cat([part for part in gathered(found) if part is not None])


def meet() -> None:
    """Wait until every rank is here."""
    if size() > 1:
        distributed.barrier()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean of each gradient over ranks, in one message a dtype.

    A rank without a gradient brings 0, so that a rank without rows keeps nobody
    waiting; where no rank has one, it stays None. Sharded gradients (`shard`) are left
    alone: FSDP2 has averaged them.
    """
    if size() == 1:
        return
    kinds: dict[tuple, list[nn.Parameter]] = {}
    for weight in parameters:
        if not is_sharded(weight):
            kinds.setdefault((weight.dtype, weight.device), []).append(weight)
    for some in kinds.values():
        grads = [w.grad if w.grad is not None else torch.zeros_like(w) for w in some]
        there = some[0].new_tensor([w.grad is not None for w in some])
        flat = torch.cat([*(grad.flatten() for grad in grads), there])
        distributed.all_reduce(flat)
        flat, there = flat[: -len(some)] / size(), flat[-len(some) :].tolist()
        means = flat.split([w.numel() for w in some])
        for weight, mean, ranks in zip(some, means, there):
            weight.grad = mean.view_as(weight) if ranks else None


# --- a piece of each weight -----------------------------------------------------------


class Sharded(nn.Module):
    """A model in pieces: called as before, and with no way into its blocks.

    Every rank must call it equally often: each call collects weights from all.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def context(self) -> int | None:
        """The longest row that it reads, where the model says so."""
        return getattr(self.model, "context", None)

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the model makes of it."""
        return self.model(*inputs)


def shard(model: nn.Module) -> Sharded:
    """The model, in place, with a piece of each weight on each rank (FSDP2).

    Each block of a list of blocks by itself, then the rest: a rank holds one block
    whole at a time. Gradients arrive averaged, in pieces too. Without torchrun's
    processes it is refused.
    """
    if not _together():
        require.refuse("model", "one process", "more, started by torchrun: see `start`")
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    for part in (*(block for blocks in lists for block in blocks), model):
        fully_shard(part, reshard_after_forward=True)
        for name in METHODS:
            if hasattr(part, name):
                register_fsdp_forward_method(part, name)
    return Sharded(model)


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[nn.Module]:
    """A model that each rank may call as often as it likes, to write answers with.

    Of a sharded one all weights are collected first, and dropped at the end: a rank has
    room for them, but not for their gradients and moments. Any other is what it is.
    """
    if not isinstance(model, Sharded):
        yield model
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in model.model.modules() if isinstance(part, FSDPModule)]
    hooked = [(part, name) for part in parts for name in METHODS if name in vars(part)]
    methods = [
        vars(part).pop(name) for part, name in hooked
    ]  # one within another: FSDP2
    for part in parts:  # would drop the weights after the inner one
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield model.model
    finally:
        for (part, name), method in zip(hooked, methods):
            vars(part)[name] = method
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def is_sharded(weight: Tensor) -> bool:
    """Only a piece of this weight lies here."""
    return hasattr(weight, "full_tensor")


def save_sharded(
    folder: str | Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    **about: object,
) -> None:
    """Each rank writes its pieces into a new folder; `about` is whatever JSON can say."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict

    weights, moments = get_state_dict(model, optimiser)
    state = {"model": weights, "optimiser": moments, "about": json.dumps(about)}
    checkpoint.save(state, checkpoint_id=folder)


def load_sharded(
    folder: str | Path, model: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Go on from what `save_sharded` wrote, on any number of ranks; returns `about`."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    weights, moments = get_state_dict(model, optimiser)
    state = {"model": weights, "optimiser": moments, "about": ""}
    checkpoint.load(state, checkpoint_id=folder)
    set_state_dict(
        model,
        optimiser,
        model_state_dict=state["model"],
        optim_state_dict=state["optimiser"],
    )
    return json.loads(state["about"])
