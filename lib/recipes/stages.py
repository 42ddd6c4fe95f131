"""A recipe is data: named stages, each with what goes in, which tool, and how much.

The sizes are those that were published, or stand for what was not; one knob, `scale`,
multiplies them all, the updates of reinforcement learning too. (The other stages make a
fixed number of passes, so their updates follow from their data.) What a stage does is a
function of its Work, which `lib.recipes.tools` has one of for every tool;
`lib.recipes.engine` runs them in order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from lib import require
from lib.train import History

BASE = "base"  # the model that every recipe starts from


@dataclass(frozen=True)
class Work:
    """What a stage is given."""

    start: nn.Module  # the model that is to be trained
    used: nn.Module | None  # the other model that the stage needs: a judge, a teacher
    amount: int  # of the stage's data
    seed: int
    checkpoint: Path | None  # where unfinished training is kept; None: nowhere
    progress: str | None  # the name of its progress bar
    updates: int | None = None  # of RL; None: as many as the tool's passes take

    def count_updates(self, own: int | None, prompts: int) -> int:
        """A tool's `own` number of updates, else the stage's, else one pass's.

        prompts: of each update.
        """
        once = max(1, self.amount // prompts)
        return next(n for n in (own, self.updates, once) if n is not None)


@dataclass(frozen=True)
class Outcome:
    """What a stage hands on."""

    model: nn.Module
    history: History
    answers: int = 0  # that models wrote for it
    notes: Mapping[str, float] = field(default_factory=dict)


Run = Callable[[Work], Outcome]


@dataclass(frozen=True)
class Stage:
    """One step of a recipe."""

    name: str  # by which later stages call its model
    title: str
    tool: str  # of the toolkit: which chapter explains it
    start: str  # the stage whose model it trains, or BASE
    published: int  # size of its data in the paper; if `assumed`, what stands for it
    unit: str  # of which: "demonstrations"
    run: Run
    uses: str | None = None  # the stage whose model judges or teaches, if one does
    judges: bool = False  # makes a reward model, not a policy
    assumed: bool = False  # the paper prints no such size: `published` is our choice
    updates: int | None = None  # of RL at that size; None: what the tool's passes take

    def amount(self, scale: float) -> int:
        """The published size times `scale`, rounded down; nothing at all is refused."""
        require.positive("scale", scale)
        found = math.floor(self.published * scale + 1e-9)
        if found < 1:
            got = f"{scale}, which leaves no {self.unit} for {self.name!r}"
            require.refuse("scale", got, f"at least {1 / self.published:.2g}")
        return found

    def updates_at(self, scale: float) -> int | None:
        """The stage's `updates` times `scale`, rounded down but never 0; None without."""
        require.positive("scale", scale)
        if self.updates is None:
            return None
        return max(1, math.floor(self.updates * scale + 1e-9))


@dataclass(frozen=True)
class Recipe:
    """Stages in the order in which they are run."""

    name: str  # "instructgpt"
    title: str  # "InstructGPT (2022)"
    paper: str
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        known = [BASE]
        for stage in self.stages:
            require.one_of("start", stage.start, known)
            if stage.uses is not None:
                require.one_of("uses", stage.uses, known)
            if stage.name in known:
                require.refuse("name", f"{stage.name!r} twice", "one name for a stage")
            known.append(stage.name)

    def without(self, name: str) -> "Recipe":
        """The recipe with one stage skipped: who started from it, starts from its start.

        A stage that another one uses cannot be skipped: change the other one first.
        """
        start = self.stage(name).start
        users = [stage.name for stage in self.stages if stage.uses == name]
        if users:
            require.refuse(
                "name", f"{name!r}, which {users[0]!r} uses", "another stage"
            )
        kept = (stage for stage in self.stages if stage.name != name)
        rest = tuple(replace(s, start=start) if s.start == name else s for s in kept)
        return replace(self, stages=rest)

    def changed(self, name: str, **fields: object) -> "Recipe":
        """The recipe with some fields of one stage replaced."""
        self.stage(name)
        every = (replace(s, **fields) if s.name == name else s for s in self.stages)
        return replace(self, stages=tuple(every))

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        require.one_of("name", name, [stage.name for stage in self.stages])
        return next(stage for stage in self.stages if stage.name == name)
