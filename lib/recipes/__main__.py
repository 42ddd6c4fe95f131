"""Recipes from the command line.

python -m lib.recipes --list
python -m lib.recipes instructgpt --scale 0.01 --out DIR
python -m lib.recipes instructgpt --scale 0.01 --out DIR --resume
torchrun --nproc-per-node=2 -m lib.recipes instructgpt --scale 0.01 --out DIR

With torchrun the processes share each batch; rank 0 writes and prints. `--max-restarts`
of torchrun goes on from the last checkpoint when one of them has died.
"""

import argparse
import importlib
import sys
from pathlib import Path

import matplotlib as mpl
import torch

from lib import distributed
from lib.checkpoint import write_text
from lib.recipes import drawing, engine, report
from lib.recipes.stages import Recipe
from lib.show import figures, picture

NAMES = ("instructgpt", "tulu3", "deepseek_r1")


def recipe(name: str) -> Recipe:
    """The recipe of this name."""
    return importlib.import_module(f"lib.recipes.{name}").RECIPE


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 0 if it is done, 2 if it cannot be, 130 if interrupted."""
    asked = _parser().parse_args(arguments)
    if asked.list or asked.recipe is None:
        return _list_all(asked.scale)
    if asked.recipe not in NAMES:
        return _refused(
            f"recipe: got {asked.recipe!r}, wanted one of {', '.join(NAMES)}"
        )
    if asked.out is None:
        return _refused("--out: got none, wanted a folder for the results")
    if reason := _lacks(asked.device):
        return _refused(f"--device: got {asked.device!r}, {reason}")
    distributed.start(asked.device)
    try:
        return _run(asked)
    finally:
        distributed.stop()


def _lacks(device: str) -> str:
    """Why a recipe cannot run there; empty, if it can."""
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    if device == "mps":
        return "wanted 'cpu' or 'cuda': draws and scores are float64, which mps has not"
    if device not in there:
        return "wanted one of cpu, cuda, mps"
    return (
        "" if there[device] else f"wanted one that this torch has ({torch.__version__})"
    )


def _run(asked: argparse.Namespace) -> int:
    results: list[engine.Result] = []

    def told(result: engine.Result) -> None:
        results.append(result)
        if distributed.rank() == 0:
            print(report.line(result), flush=True)

    chosen = recipe(asked.recipe)
    try:
        engine.run(
            chosen,
            scale=asked.scale,
            seed=asked.seed,
            out=asked.out,
            resume=asked.resume,
            progress=True,
            told=told,
            device=asked.device,
        )
        mine = distributed.rank() == 0
        files = _keep(Path(asked.out), chosen, results) if mine else []
    except engine.REFUSALS as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        print(f"stopped; --out {asked.out} --resume goes on", file=sys.stderr)
        return 130
    if files:
        print("written: " + ", ".join(map(str, files)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.recipes",
        description="Run a post-training recipe on the village's language model.",
    )
    add = parser.add_argument
    add("recipe", nargs="?", help="one of " + ", ".join(NAMES))
    add("--list", action="store_true", help="all recipes, their stages and sizes")
    add("--scale", type=float, default=0.01, help="times the published sizes (0.01)")
    add("--seed", type=int, default=0, help="of all luck (0)")
    add("--out", help="folder for checkpoints, table, curves and samples")
    add("--resume", action="store_true", help="go on with the run that is in --out")
    add("--device", default="cpu", help="where it runs: cpu or cuda")
    return parser


def _keep(folder: Path, chosen: Recipe, results: list[engine.Result]) -> list[Path]:
    """The table, the answers and the curves of a run, as text and as a picture."""
    place = folder / "curves.svg"
    with mpl.rc_context(figures.STYLE):
        write_text(place, picture.svg(drawing.curves(results)))
    return [*report.write(folder, chosen, results), place]


def _list_all(scale: float) -> int:
    try:
        for name in NAMES:
            _list(recipe(name), scale)
    except ValueError as error:
        return _refused(str(error))
    return 0


def _list(chosen: Recipe, scale: float) -> None:
    print(f"{chosen.name}: {chosen.title}")
    for stage in chosen.stages:
        size = f"{stage.published:,} {stage.unit}" + " (assumed)" * stage.assumed
        here, updates = stage.amount(scale), stage.updates_at(scale)
        plural = "" if updates == 1 else "s"
        work = "" if updates is None else f" in {updates:,} update{plural}"
        print(f"  {stage.name:10} {stage.title}: {size}; at {scale:g}: {here:,}{work}")


def _refused(reason: str) -> int:
    if distributed.rank() == 0:
        print(f"python -m lib.recipes: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
