"""Run a recipe: stage after stage, measured after each, kept, and resumed after a crash.

In a folder, a run is a few files: `run.json` says what it is; `stages/` holds a
checkpoint of each finished stage, and one of the stage in flight; everything else is
written from those. Each file is written whole or not at all (`lib.checkpoint`), and all
luck comes from the seed, so a run that was killed and resumed ends with the same
weights, bit for bit, as one that was left alone.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from lib import checkpoint, evaluate, require
from lib.base import base_model
from lib.checkpoint import CheckpointError
from lib.recipes.folder import Folder, manifest
from lib.recipes.stages import BASE, Outcome, Recipe, Stage, Work
from lib.reward_model import Informed, RewardModel
from lib.rewards import reasoned
from lib.worlds import taste
from lib.worlds.tasks import Task, tasks

ASKED = 48  # held-out tasks of each skill, after each stage


@dataclass(frozen=True)
class Result:
    """What one stage has come to."""

    stage: str
    amount: int  # of its data
    unit: str
    updates: int
    answers: int  # that models wrote for it
    seconds: float
    scores: Mapping[str, float]  # skills, talk, format …, of a policy; else accuracy
    history: Mapping[str, list[float]]
    samples: tuple[str, ...]  # answers to `prompts()`
    resumed: bool = False


@dataclass(frozen=True)
class Run:
    """All of it: the models by the names of their stages, BASE first, and the results."""

    models: Mapping[str, nn.Module]
    results: tuple[Result, ...]  # the first is of BASE


def run(
    recipe: Recipe,
    *,
    scale: float,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    told: Callable[[Result], None] | None = None,
) -> Run:
    """Run a recipe at `scale` times its published sizes; `told` hears each result.

    With `out`, everything is kept in that folder. If it holds a run already, `resume`
    goes on with it; a run of another recipe, scale, seed or code is refused.
    """
    require.count("seed", seed, least=0)
    amounts = {stage.name: stage.amount(scale) for stage in recipe.stages}
    with contextlib.ExitStack() as held:
        folder = None if out is None else Folder(Path(out))
        if folder is not None:
            held.enter_context(folder.alone())
            folder.open(manifest(recipe, scale, seed), resume=resume)
        models: dict[str, nn.Module] = {BASE: base_model()}
        results = [_measured(BASE, models[BASE])]
        if told is not None:
            told(results[0])
        for number, stage in enumerate(recipe.stages, 1):
            title = f"{number}/{len(recipe.stages)} {stage.title}" if progress else None
            place = None if folder is None else folder.stage(number, stage)
            work = Work(
                models,
                models[stage.start],
                amounts[stage.name],
                seed,
                None if place is None else place.with_suffix(".part"),
                title,
            )
            model, result = _done(place, stage, work) or _do(place, stage, work)
            models[stage.name] = model
            results.append(result)
            if told is not None:
                told(result)
    return Run(models, tuple(results))


def prompts() -> list[Task]:
    """The tasks whose answers are kept after every stage: held out, the same for all."""
    some = [tasks(skill, count=1, seed=8, split="test")[0] for skill in ("sum", "know")]
    return [*some, *taste.requests(count=1, seed=8, split="test")]


# --- one stage ------------------------------------------------------------------------


def _do(place: Path | None, stage: Stage, work: Work) -> tuple[nn.Module, Result]:
    """Run a stage, measure what it made, and keep it."""
    part = work.checkpoint
    before = _look(part)
    began = time.perf_counter()
    try:
        outcome = stage.run(work)
    except (KeyError, RuntimeError, ValueError) as error:
        if before is not None and _look(part) == before:  # it never got going
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{part}: not of this stage ({reason})") from error
        raise
    seconds = time.perf_counter() - began
    result = _judged(stage, work, outcome, seconds)
    if place is not None:
        state = {"model": outcome.model.state_dict(), "result": asdict(result)}
        checkpoint.save(place, {**state, "kind": type(outcome.model).__name__})
        part.unlink(missing_ok=True)
    return outcome.model, result


def _done(
    place: Path | None, stage: Stage, work: Work
) -> tuple[nn.Module, Result] | None:
    """What a finished stage left, or None."""
    if place is None or not place.exists():
        return None
    state = checkpoint.load(place)
    kinds = {"RewardModel": RewardModel, "Informed": Informed}
    try:
        kind, found = state["kind"], state["result"]
        if kind in kinds:
            model = kinds[kind](work.models[BASE])
        else:
            model = copy.deepcopy(work.models[BASE])
        model.load_state_dict(state["model"])
        if found["stage"] != stage.name or found["amount"] != work.amount:
            wrong = f"{found['amount']} {found['unit']} of {found['stage']!r}"
            raise KeyError(wrong)
        found = {**found, "samples": tuple(found["samples"]), "resumed": True}
        return model, Result(**found)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{place}: not of this stage ({reason})") from error


def _look(part: Path | None) -> tuple[int, int] | None:
    """Size and time of a file: whether it has been written to. Corrupt ones are refused."""
    if part is None or not part.exists():
        return None
    checkpoint.load(part)
    found = part.stat()
    return found.st_size, found.st_mtime_ns


# --- measuring ------------------------------------------------------------------------


def scores(policy: nn.Module) -> dict[str, float]:
    """The skills table's column on held-out tasks, and how sums are answered.

    "format": share of sums worked in true steps inside <think>; "length": their tokens.
    """
    found = evaluate.skills(policy, count=ASKED)
    asked = tasks("sum", count=ASKED, seed=1, split="test")
    draw = torch.Generator().manual_seed(1)
    rollout = evaluate.ask(policy, asked, generator=draw)
    found["format"] = reasoned(asked, rollout).mean().item()
    found["length"] = rollout.lengths.double().mean().item()
    return found


def _measured(name: str, policy: nn.Module) -> Result:
    return Result(name, 0, "", 0, 0, 0.0, scores(policy), {}, _said(policy))


def _judged(stage: Stage, work: Work, outcome: Outcome, seconds: float) -> Result:
    history = outcome.history
    policy = not stage.judges
    return Result(
        stage=stage.name,
        amount=work.amount,
        unit=stage.unit,
        updates=len(history.get("loss", ())),
        answers=outcome.answers,
        seconds=seconds,
        scores={**(scores(outcome.model) if policy else {}), **outcome.notes},
        history=history,
        samples=_said(outcome.model) if policy else (),
    )


def _said(policy: nn.Module) -> tuple[str, ...]:
    draw = torch.Generator().manual_seed(2)
    rollout = evaluate.ask(policy, prompts(), generator=draw)
    return tuple(answer.text.strip() for answer in evaluate.answers(rollout))
