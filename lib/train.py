"""The one training loop of the book: batch -> loss -> gradient -> update.

A list of batches (imitation), a generator of pairs (reward models), a generator that
samples from the live policy (reinforcement learning): `fit` cannot tell and need not.
"""

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
from lib import require

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
    """
    require.positive("max_grad_norm", max_grad_norm)
    require.non_negative("weight_decay", weight_decay)
    require.count("every", every)
    rate = lr if callable(lr) else _constant(lr)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        require.refuse("model", "no trainable parameters", "at least one")
    optimiser = torch.optim.AdamW(parameters, lr=rate(0), weight_decay=weight_decay)
    history: History = {}
    told_apart = (max_grad_norm, weight_decay, run)
    saved = _Saved(checkpoint, model, optimiser, generators, told_apart)
    start = saved.restore(history)
    stream = _from(batches, start, resumable=checkpoint is not None)

    done = start
    bar = {"initial": start, "total": len(batches) if _sized(batches) else None}
    for batch in tqdm(stream, desc=progress, disable=progress is None, **bar):
        loss, metrics = loss_fn(model, batch)
        require.tensor("loss_fn", loss, ())
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm).item()
        if not (math.isfinite(loss.item()) and math.isfinite(norm)):
            what = f"update {done}: loss {loss.item()}, gradient norm {norm}"
            raise FloatingPointError(f"{what}; the weights were not touched")
        for group in optimiser.param_groups:
            group["lr"] = rate(done)
        optimiser.step()
        _record(history, {"loss": loss.item(), "grad_norm": norm, **metrics}, done)
        done += 1
        if done % every == 0:
            saved.write(done, history)
    if done == 0:
        require.refuse("batches", "no batch at all", "at least one")
    saved.write(done, history)
    return history


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
    """The checkpoint of one `fit`: does nothing without a path."""

    def __init__(self, path, model, optimiser, generators, of) -> None:  # noqa: ANN001
        self.path = None if path is None else Path(path)
        self.parts = {"model": model, "optimiser": optimiser}
        self.generators = generators
        self.run = "" if path is None else self._fingerprint(of)

    def restore(self, history: History) -> int:
        if self.path is None or not self.path.exists():
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
            files.save(self.path, {**state, **about})

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
