"""The one training loop of the book: batch -> loss -> gradient -> update.

A list of batches (imitation), a generator of pairs (reward models), a generator that
samples from the live policy (reinforcement learning): `fit` cannot tell and need not.
"""

import contextlib
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib import checkpoint as files
from lib import distributed, require
from lib.ops import device_of

History = dict[str, list[float]]
LossFn = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]
Batches = Iterable[Any] | Callable[[int], Iterable[Any]]


def fit(
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFn,
    *,
    lr: float | Callable[[int], float],
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
    progress: str | None = None,
    checkpoint: str | Path | None = None,
    every: int = 100,
    generators: Sequence[torch.Generator] = (),
    run: object = "",
    over: str | None = None,
    microbatches: int = 1,
    precision: torch.dtype | None = None,
) -> History:
    """One Adam update per batch; returns the loss, the gradient norm and the metrics of
    each.

    `loss_fn(model, batch)` gives (scalar loss, metrics). `lr` is a number or a function
    of the update's index. Gradients are scaled down to `max_grad_norm`. `progress`
    names a progress bar. A loss or gradient that is not finite stops with
    FloatingPointError before the weights are touched.

    With `checkpoint`, the weights, optimiser, history and `generators` are saved after
    each `every` updates and at the end; a call that finds the file goes on from there,
    bit for bit. Then `batches` must say how to begin later: a sequence, or a function
    `start -> iterable` (for K epochs per rollout, choose `every` a multiple of K). A
    file of another run is refused with CheckpointError: one that began with other
    weights, generators, `max_grad_norm` or `weight_decay`, or with another `run` (what
    else tells runs apart, a seed for instance; its repr is compared).

    `over` says what the loss is a mean over, "rows" or "tokens" (of the batch's mask).
    Then a batch can be read in parts, by the ranks of `lib.distributed` and by each in
    so many `microbatches`, and the gradient is that of the whole: a Tensor of row
    numbers, or anything with `rows(index)` and a length, whose `group`s stay whole.
    Each rank must see the same batches. Metrics are means over the parts, weighed
    alike.

    `precision`, float16 or bfloat16, is what the model is read in (autocast); its
    weights stay as they are. In float16 the loss is scaled up, and an update whose
    gradient overflows is skipped, with a grad_norm that is not finite.
    """
    require.positive("max_grad_norm", max_grad_norm)
    require.non_negative("weight_decay", weight_decay)
    require.count("every", every)
    _check_parts(over, microbatches)
    rate = lr if callable(lr) else _constant(lr)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        require.refuse("model", "no trainable parameters", "at least one")
    optimiser = torch.optim.AdamW(parameters, lr=rate(0), weight_decay=weight_decay)
    history: History = {}
    scaler = _scaler(precision, model)
    told_apart = (max_grad_norm, weight_decay, run, *[precision] * bool(precision))
    parts = {"model": model, "optimiser": optimiser}
    parts |= {"scaler": scaler} if scaler.is_enabled() else {}
    saved = _Saved(checkpoint, parts, generators, told_apart)
    start = saved.restore(history)
    stream = _from(batches, start, resumable=checkpoint is not None)

    done = start
    bar = {"initial": start, "total": len(batches) if _sized(batches) else None}
    bar["disable"] = progress is None or distributed.rank() > 0
    for batch in tqdm(stream, desc=progress, **bar):
        some = _parts(batch, over, microbatches, even=_is_sharded(parameters))
        metrics = _backward(model, *some, loss_fn, optimiser, scaler, precision)
        distributed.average_gradients(parameters)
        scaler.unscale_(optimiser)
        norm = _clipped(parameters, max_grad_norm)
        _check_finite(done, metrics["loss"], norm, scaler)
        _step(optimiser, scaler, rate(done))
        _record(
            history, {"loss": metrics.pop("loss"), "grad_norm": norm, **metrics}, done
        )
        done += 1
        if done % every == 0:
            saved.write(done, history)
    if done == 0:
        require.refuse("batches", "no batch at all", "at least one")
    saved.write(done, history)
    return history


# --- one update -----------------------------------------------------------------------

Part = tuple[Any, int]  # rows of a batch, and how many things its loss is a mean over


def _check_parts(over: str | None, microbatches: int) -> None:
    require.count("microbatches", microbatches)
    if over is not None:
        require.one_of("over", over, ("rows", "tokens"))
    elif microbatches * distributed.size() > 1:
        wanted = "'rows' or 'tokens', what the loss is a mean over, to read it in parts"
        require.refuse("over", None, wanted)


def _scaler(precision: torch.dtype | None, model: nn.Module) -> torch.amp.GradScaler:
    """Of the loss in float16; in another precision it does nothing."""
    if precision not in (None, torch.bfloat16, torch.float16):
        require.refuse("precision", precision, "torch.bfloat16, torch.float16 or None")
    if precision == torch.float16 and _is_sharded([*model.parameters()]):
        wanted = "torch.bfloat16: the pieces would not agree on what overflows"
        require.refuse("precision", f"{precision} for a sharded model", wanted)
    half = precision == torch.float16
    return torch.amp.GradScaler(device_of(model).type, enabled=half)


def _parts(
    batch: Any, over: str | None, microbatches: int, *, even: bool
) -> tuple[list[Part], int]:
    """What this rank reads of a batch, in so many parts; those without tokens left out.

    And how many things the whole batch's loss is a mean over. `even`: as many parts on
    every rank, some of them of nothing, since a sharded model is called by all or by
    none.
    """
    if microbatches * distributed.size() == 1:
        return [(batch, 1)], 1
    tensor = isinstance(batch, Tensor)
    if not tensor and not (hasattr(batch, "rows") and hasattr(batch, "__len__")):
        wanted = "row numbers, or something with rows(index) and a length"
        require.refuse("batches", type(batch).__name__, wanted)
    group, whole = getattr(batch, "group", 1), _amount(batch, over)
    if not whole:
        require.refuse("batches", f"a batch without any {over}", "at least one")
    own = distributed.share(len(batch), multiple=group)
    found: list[Part] = []
    for rows in distributed.split(own, microbatches, multiple=group):
        if len(rows):
            part = batch[rows] if tensor else batch.rows(rows)
            found.append((part, _amount(part, over)))
    found = [part for part in found if part[1]]
    if even and len(found) < microbatches:
        some = torch.arange(group, device="cpu")
        idle = batch[some] if tensor else batch.rows(some)
        found += [(idle, 0)] * (microbatches - len(found))
    return found, whole


def _amount(batch: Any, over: str | None) -> int:
    """How many rows or tokens the loss of this batch is a mean over."""
    if over == "rows":
        return len(batch)
    mask = getattr(getattr(batch, "rollout", batch), "mask", None)
    if mask is None:
        require.refuse("over", repr(over), "'rows', since the batches have no mask")
    return int(mask.sum())


def _backward(
    model: nn.Module,
    parts: Sequence[Part],
    whole: int,
    loss_fn: LossFn,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: torch.dtype | None,
) -> dict[str, float]:
    """The gradient of this rank's parts; the loss and the metrics of all ranks' parts."""
    told = []
    if not parts:
        optimiser.zero_grad()
    for number, (part, amount) in enumerate(parts):
        with _reading(device_of(model).type, precision):
            loss, metrics = loss_fn(model, part)
        require.tensor("loss_fn", loss, ())
        if number == 0:
            optimiser.zero_grad()
        scaler.scale(distributed.weighted(loss, amount, of=whole)).backward()
        told.append((amount, {"loss": loss.item(), **metrics}))
    every = [each for some in distributed.gathered(told) for each in some]
    return every[0][1] if len(every) == 1 else _mean(every)


def _reading(device: str, precision: torch.dtype | None) -> Any:
    """Autocast for one reading: a longer one would go on with the weights of before."""
    if precision is None:
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=precision)


def _mean(told: Sequence[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Each metric's mean over the parts that have it; what is equal stays what it is."""
    found = {}
    for name in {name: None for _, metrics in told for name in metrics}:
        each = [(amount, m[name]) for amount, m in told if amount and name in m]
        if not each:
            continue  # only parts of nothing have it
        values, weight = {x for _, x in each}, sum(amount for amount, _ in each)
        mean = sum(amount * x for amount, x in each) / weight
        found[name] = values.pop() if len(values) == 1 else mean
    return found


def _clipped(parameters: Sequence[nn.Parameter], most: float) -> float:
    norm = nn.utils.clip_grad_norm_(parameters, most)
    return (norm.full_tensor() if distributed.is_sharded(norm) else norm).item()


def _step(
    optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, lr: float
) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr
    scaler.step(optimiser)  # the optimiser's, if nothing was scaled
    scaler.update()


def _is_sharded(parameters: Sequence[nn.Parameter]) -> bool:
    return any(map(distributed.is_sharded, parameters))


def _check_finite(
    done: int, loss: float, norm: float, scaler: torch.amp.GradScaler
) -> None:
    """Stop at what is not finite, unless the scaler may only have aimed too high."""
    skipped = scaler.is_enabled() and scaler.get_scale() > 1 and math.isfinite(loss)
    if not (math.isfinite(loss) and (math.isfinite(norm) or skipped)):
        what = f"update {done}: loss {loss}, gradient norm {norm}"
        raise FloatingPointError(f"{what}; the weights were not touched")


def minibatches(
    count: int, *, epochs: int, batch: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Indices 0 … count - 1, `batch` at a time, in a new random order each epoch."""
    for _ in range(epochs):
        yield from torch.randperm(
            count, generator=generator, device=generator.device
        ).split(batch)


def _constant(lr: float) -> Callable[[int], float]:
    require.positive("lr", lr)
    return lambda update: lr


def _sized(batches: Batches) -> bool:
    return isinstance(batches, Sequence)


def _from(batches: Batches, start: int, *, resumable: bool) -> Iterable[Any]:
    """The batches from number `start` on."""
    if callable(batches):
        return batches(start)
    if _sized(batches):
        return itertools.islice(batches, start, None)
    if resumable:
        wanted = "a sequence, or a function start -> iterable, to resume"
        require.refuse("batches", type(batches).__name__, wanted)
    return batches


def _record(history: History, metrics: dict[str, float], done: int) -> None:
    """Append; a metric that an update lacks is NaN there, so the lists stay aligned."""
    for name in {**history, **metrics}:
        column = history.setdefault(name, [math.nan] * done)
        column.append(metrics.get(name, math.nan))


class _Saved:
    """The checkpoint of one `fit`: does nothing without a path.

    Rank 0 writes, and all go on when it has; all read.
    """

    def __init__(self, path, parts, generators, of) -> None:  # noqa: ANN001
        self.path = None if path is None else Path(path)
        self.parts = parts
        if path is not None and _is_sharded([*parts["model"].parameters()]):
            require.refuse(
                "checkpoint", path, "none: `save_sharded` keeps such a model"
            )
        self.generators = generators
        self.run = "" if path is None else self._fingerprint(of)

    def restore(self, history: History) -> int:
        if self.path is None or not distributed.gathered(self.path.exists())[0]:
            return 0
        state = files.load(self.path)
        if state.get("run") != self.run:
            why = "other weights at the start, another seed or other settings"
            raise files.CheckpointError(f"{self.path}: not of this run ({why})")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)
        history.update(state["history"])
        return state["done"]

    def write(self, done: int, history: History) -> None:
        if self.path is not None:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            state["generators"] = [g.get_state() for g in self.generators]
            about = {"history": history, "done": done, "run": self.run}
            if distributed.rank() == 0:
                files.save(self.path, {**state, **about})
            distributed.meet()

    def _fingerprint(self, of: object) -> str:
        """A sha256 of how the run begins: weights, generators, settings."""
        begin = [*self.parts["model"].state_dict().items()]
        begin += [("generator", g.get_state()) for g in self.generators]
        digest = hashlib.sha256(repr(of).encode())
        for name, x in begin:
            digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
            digest.update(x.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def warm_cosine(peak: float, updates: int, *, warm: int = 50) -> Callable[[int], float]:
    """A learning rate that climbs for `warm` updates, then falls to a tenth of `peak`.

    Without the climb it is half a cosine wave from `peak` down (Loshchilov & Hutter
    2017).
    """
    require.positive("peak", peak)
    require.count("updates", updates)
    require.count("warm", warm)

    def rate(update: int) -> float:
        done = min(1.0, update / updates)
        fall = 0.55 + 0.45 * math.cos(math.pi * done)
        return peak * min(1.0, (update + 1) / warm) * fall

    return rate
