"""Run a recipe and its ablations over several seeds, and keep what came out.

    python -m tools.record_recipes instructgpt   # tulu3, deepseek_r1

Five seeds at 1/100 of the published sizes, then every recipe of the module's ABLATIONS
on the same seeds (three of them for Tülu 3 and R1), from the first stage on that differs.
That is 15 to 45 minutes on one core, so the chapters run one seed live and read the rest
from notebooks/records. It can be stopped: what was measured so far is kept, and it goes
on with the same code.
"""

import argparse
import datetime
import importlib
import itertools
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lib.recipes import engine
from lib.recipes.folder import manifest, written

ROOT = Path(__file__).resolve().parent.parent
PLACES = {
    "instructgpt": "11_instructgpt",
    "tulu3": "12_tulu3",
    "deepseek_r1": "13_deepseek_r1",
}
SCALE, SEEDS = 0.01, range(5)
ABLATED = {"tulu3": range(3), "deepseek_r1": range(3)}  # all seeds would take too long
CURVES = ("reward", "kl", "length", "entropy", "perplexity", "margin", "accuracy")
ITSELF = "the recipe"


def told(result: engine.Result, *, curves: bool, samples: bool) -> dict[str, Any]:
    """What is kept of a stage's result, rounded."""
    found = asdict(result)
    del found["resumed"]
    found["seconds"] = round(found["seconds"], 1)
    found["scores"] = {k: round(v, 3) for k, v in found["scores"].items()}
    kept = {k: v for k, v in found["history"].items() if curves and k in CURVES}
    found["history"] = {k: [round(x, 3) for x in v] for k, v in kept.items()}
    if not samples:
        del found["samples"]
    return found


def begun(place: Path, name: str, module: Any) -> dict[str, Any]:
    """What is there of this record, made by this code, or an empty one."""
    code = manifest(module.RECIPE, SCALE, 0)["code"]
    made = {
        "made by": f"python -m tools.record_recipes {name}",
        "with": f"Python {platform.python_version()}, torch {torch.__version__}",
        "code": code,
        "scale": SCALE,
    }
    if place.exists():
        found = json.loads(place.read_text("utf-8"))
        if all(found.get(key) == value for key, value in made.items()):
            return found
    return {**made, "date": datetime.date.today().isoformat(), "runs": {}}


def record(name: str, place: Path, *, kept: Path) -> None:
    """Fill the record at `place`; `kept` is where the recipe's own runs are kept.

    First the recipe itself on all seeds, then what it is without this or that.
    """
    module = importlib.import_module(f"lib.recipes.{name}")
    found = begun(place, name, module)
    variants = {ITSELF: module.RECIPE, **module.ABLATIONS}
    ablated = itertools.product(ABLATED.get(name, SEEDS), module.ABLATIONS)
    jobs = [*((seed, ITSELF) for seed in SEEDS), *ablated]
    for seed, variant in tqdm(jobs, desc=f"{name} -> {place}"):
        runs = found["runs"].setdefault(variant, {})
        if str(seed) in runs:
            continue
        out = kept / name / found["code"] / str(seed)
        run = before = engine.run(
            module.RECIPE, scale=SCALE, seed=seed, out=out, resume=True
        )
        new = before.results
        if variant != ITSELF:
            run = engine.rerun(before, variants[variant])
            new = [result for result in run.results if result not in before.results]
        keep = {"curves": True, "samples": variant == ITSELF or seed == 0}
        runs[str(seed)] = [told(result, **keep) for result in new]
        written(place, json.dumps(found, ensure_ascii=False) + "\n")


def main() -> int:
    """Record one recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=list(PLACES))
    parser.add_argument("--out", type=Path, help="another file than the book's")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    place = ROOT / "notebooks" / "records" / f"{PLACES[asked.recipe]}.json"
    record(asked.recipe, asked.out or place, kept=ROOT / ".cache" / "recipes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
