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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from lib import checkpoint, distributed, evaluate, require, villagers
from lib.checkpoint import CheckpointError
from lib.recipes.folder import Busy, Folder, manifest
from lib.recipes.prompts import EXAM
from lib.recipes.stages import BASE, Outcome, Recipe, Stage, Work
from lib.reward_model import RewardModel, SurprisalRewardModel
from lib.rewards import verified
from lib.villagers import base_model, reasoned
from lib.worlds.village import taste
from lib.worlds.village.tasks import Task, tasks

ASKED = EXAM
SHORT = (1, 2)  # levels of the sums whose working is looked at


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

    recipe: Recipe
    scale: float
    seed: int
    models: Mapping[str, nn.Module]
    results: tuple[Result, ...]  # the first is of BASE

    def result(self, stage: str) -> Result:
        """What this stage has come to."""
        require.one_of("stage", stage, [result.stage for result in self.results])
        return next(result for result in self.results if result.stage == stage)


def run(
    recipe: Recipe,
    *,
    scale: float,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    told: Callable[[Result], None] | None = None,
    device: str = "cpu",
) -> Run:
    """Run a recipe at `scale` times its published sizes; `told` hears each result.

    With `out`, everything is kept in that folder. If it holds a run already, `resume`
    goes on with it; a run of another recipe, scale, seed or code is refused. The base
    model is moved to `device`, and the others are made there.

    With several processes (`lib.distributed`) rank 0 keeps the folder, which all must
    see, and measures; they train together, and end with the weights of one process but
    for rounding. Those that torchrun has started anew go on, asked to or not.
    """
    require.count("seed", seed, least=0)
    for stage in recipe.stages:
        stage.amount(scale)
    resume = distributed.restarted() or resume  # all ranks ask
    with contextlib.ExitStack() as held:
        folder = None if out is None else Folder(Path(out))
        if folder is not None:
            with _as_rank_0_finds() as mine:
                if mine:
                    held.enter_context(folder.alone())
                    folder.open(manifest(recipe, scale, seed), resume=resume)
        base = _base().to(device)
        first = _by_rank_0(lambda: _measured(BASE, base))
        if told is not None:
            told(first)
        begun = Run(recipe, scale, seed, {BASE: base}, (first,))
        return _onward(begun, folder, progress=progress, told=told)


REFUSALS = (ValueError, CheckpointError, Busy, OSError)


@contextlib.contextmanager
def _as_rank_0_finds() -> Iterator[bool]:
    """What rank 0 alone does (True there); where it is refused, so are all."""
    refusal = None
    try:
        yield distributed.rank() == 0
    except REFUSALS as error:
        refusal = error
    found = distributed.gathered(refusal)[0]
    if found is not None:
        raise found


def _by_rank_0(make: Callable[[], Result]) -> Result:
    """What rank 0 makes, for all; it may take long."""
    return distributed.gathered(make() if distributed.rank() == 0 else None)[0]


def _base() -> nn.Module:
    """The base model, made by one rank if it must be made, and then read by all."""
    for turn in (True, False):
        if turn == (distributed.rank() == 0):
            with distributed.alone():
                base = base_model()
        distributed.meet()
    return base


def rerun(
    before: Run,
    recipe: Recipe,
    *,
    progress: bool = False,
    told: Callable[[Result], None] | None = None,
) -> Run:
    """The same run with a recipe that differs: from its first other stage on.

    What comes before that is taken over from `before`, models and results.
    """
    same = 0
    for one, other in zip(before.recipe.stages, recipe.stages):
        if one != other:
            break
        same += 1
    names = [BASE, *(stage.name for stage in recipe.stages[:same])]
    models = {name: before.models[name] for name in names}
    results = tuple(before.result(name) for name in names)
    begun = Run(recipe, before.scale, before.seed, models, results)
    return _onward(begun, None, progress=progress, told=told)


def _onward(
    begun: Run,
    folder: Folder | None,
    *,
    progress: bool,
    told: Callable[[Result], None] | None,
) -> Run:
    """The run with those stages that it lacks."""
    models, results, stages = (
        dict(begun.models),
        list(begun.results),
        begun.recipe.stages,
    )
    for number, stage in enumerate(stages[len(results) - 1 :], len(results)):
        place = None if folder is None else folder.stage(number, stage)
        work = Work(
            start=models[stage.start],
            used=None if stage.uses is None else models[stage.uses],
            amount=stage.amount(begun.scale),
            seed=begun.seed,
            checkpoint=None if place is None else place.with_suffix(".part"),
            progress=f"{number}/{len(stages)} {stage.title}" if progress else None,
            updates=stage.updates_at(begun.scale),
        )
        model, result = _done(place, stage, work, models[BASE]) or _do(
            place, stage, work
        )
        models[stage.name] = model
        results.append(result)
        if told is not None:
            told(result)
    return replace(begun, models=models, results=tuple(results))


def prompts() -> list[Task]:
    """The tasks whose answers are kept after every stage: held out, the same for all."""
    some = [tasks(skill, count=1, seed=8, split="test")[0] for skill in ("sum", "know")]
    return [*some, *taste.requests(count=1, seed=8, split="test")]


# --- one stage ------------------------------------------------------------------------


def _do(place: Path | None, stage: Stage, work: Work) -> tuple[nn.Module, Result]:
    """Run a stage, measure what it made, and keep it."""
    part = work.checkpoint
    with _as_rank_0_finds() as mine:
        if mine and part is not None and part.exists():
            checkpoint.load(part)  # a corrupt one is refused before hours of sampling
    began = time.perf_counter()
    outcome = stage.run(work)
    seconds = time.perf_counter() - began
    result = _by_rank_0(lambda: _judged(stage, work, outcome, seconds))
    with _as_rank_0_finds() as mine:
        if mine and place is not None:
            state = {"model": outcome.model.state_dict(), "result": asdict(result)}
            checkpoint.save(place, {**state, "kind": type(outcome.model).__name__})
            part.unlink(missing_ok=True)
    return outcome.model, result


def _done(
    place: Path | None, stage: Stage, work: Work, base: nn.Module
) -> tuple[nn.Module, Result] | None:
    """What a finished stage left, or None."""
    if place is None or not distributed.gathered(place.exists())[0]:
        return None
    state = checkpoint.load(place)
    kinds = {"RewardModel": RewardModel, "SurprisalRewardModel": SurprisalRewardModel}
    try:
        kind, found = state["kind"], state["result"]
        if kind in kinds:
            model = kinds[kind](base)
        else:
            model = copy.deepcopy(base)
        model.load_state_dict(state["model"])
        if found["stage"] != stage.name or found["amount"] != work.amount:
            wrong = f"{found['amount']} {found['unit']} of {found['stage']!r}"
            raise KeyError(wrong)
        found = {**found, "samples": tuple(found["samples"]), "resumed": True}
        return model, Result(**found)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{place}: not of this stage ({reason})") from error


# --- measuring ------------------------------------------------------------------------


def scores(policy: nn.Module) -> dict[str, float]:
    """The skills table's column on held-out tasks, and how short sums are answered.

    "short sum": the share that is right, of sums of two or three numbers; "format": that
    is worked in true steps inside <think>; "length": tokens of these answers.
    """
    found = villagers.skills(policy, count=ASKED)
    asked = tasks("sum", count=ASKED, seed=1, split="test", levels=SHORT)
    draw = torch.Generator().manual_seed(1)
    rollout = evaluate.ask(policy, asked, generator=draw)
    found["short sum"] = verified(asked, rollout).mean().item()
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
    return tuple(answer.text.strip() for answer in villagers.answers(rollout))
