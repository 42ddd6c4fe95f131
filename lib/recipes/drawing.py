"""A recipe drawn as boxes with what was measured in them, and a run's curves."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lib.recipes.engine import Result
from lib.recipes.stages import BASE, Recipe
from lib.show import figures

WIDTH, HEIGHT, STEP = 4.3, 0.92, 1.28  # of a box, and from one to the next; inches
LEFT, RIGHT = 0.6, 0.45  # room for the arrows
COLOURS = {
    "instruction tuning": figures.SKY,
    "reward modelling": figures.REWARD,
    "policy gradients": figures.POLICY,
    "direct alignment": figures.OTHER,
    "rejection sampling": figures.VALUE,
}


def pipeline(recipe: Recipe, says: Mapping[str, str], *, scale: float) -> Figure:
    """The stages of a recipe: `says` is the last line of each box, BASE's too.

    A solid arrow goes from a stage to the one that trains its model on (from BASE as
    well), a dashed one from a judge or teacher to the stage that uses it.
    """
    tall = STEP * len(recipe.stages) + HEIGHT
    size = LEFT + WIDTH + RIGHT
    fig = Figure(figsize=(size, tall + 0.1), layout="none")
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, size), ylim=(-0.05, tall + 0.05))
    ax.axis("off")
    names = [BASE, *(stage.name for stage in recipe.stages)]
    tops = {name: tall - STEP * i for i, name in enumerate(names)}
    _box(ax, tops[BASE], figures.REFERENCE, "Base model", "", says.get(BASE, ""))
    for stage in recipe.stages:
        colour = COLOURS.get(stage.tool, figures.REFERENCE)
        whole = f"{stage.published:,}" + " (assumed)" * stage.assumed
        here = f"{stage.amount(scale):,} {stage.unit} of {whole}"
        title = f"{stage.title} ({stage.name})"
        _box(ax, tops[stage.name], colour, title, here, says.get(stage.name, ""))
        _arrow(ax, tops[stage.start], tops[stage.name])
        if stage.uses is not None:
            _arrow(ax, tops[stage.uses], tops[stage.name], used=True)
    return fig


def curves(results: Sequence[Result]) -> Figure:
    """What every stage learnt by, update for update: its reward, or else its loss."""
    trained = [result for result in results if result.history]
    names = ["reward" if "reward" in r.history else "loss" for r in trained]
    fig, axes = figures.axes(
        [f"update of {result.stage}" for result in trained],
        names,
        rows=len(trained),
        width=6.5,
        height=2.2 * len(trained),
    )
    every = axes.flat if len(trained) > 1 else [axes]
    for ax, result, name in zip(every, trained, names):
        colour = figures.REWARD if name == "reward" else figures.POLICY
        ax.plot(result.history[name], color=colour)
    return fig


def _box(ax: Axes, top: float, colour: str, *texts: str) -> None:
    low = top - HEIGHT
    box = FancyBboxPatch(
        (LEFT, low), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=.1"
    )
    box.set(facecolor="white", edgecolor=colour, linewidth=1.8)
    ax.add_patch(box)
    told = [text for text in texts if text]
    for i, text in enumerate(told):
        y = top - HEIGHT * (i + 0.5) / len(told)
        weight = "bold" if i == 0 else "normal"
        ax.text(LEFT + 0.15, y, text, va="center", weight=weight, color="#222222")


def _arrow(ax: Axes, above: float, below: float, *, used: bool = False) -> None:
    """From the box whose top is at `above` to the one at `below`."""
    side = LEFT + WIDTH if used else LEFT
    near = above - below < 1.5 * STEP
    if near and not used:  # straight down
        start, end, bend = (LEFT + 0.6, above - HEIGHT), (LEFT + 0.6, below), 0.0
    else:  # round the boxes between
        start, end = (side, above - 0.65 * HEIGHT), (side, below - 0.3 * HEIGHT)
        bend = (-0.28 if used else 0.28) / (0.6 + 0.4 * (above - below) / STEP)
    arrow = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=14,
        connectionstyle=f"arc3,rad={bend}",
        color=figures.REWARD if used else "#555555",
        linestyle="--" if used else "-",
        linewidth=1.6,
        shrinkA=0,
        shrinkB=0,
    )
    ax.add_patch(arrow)
