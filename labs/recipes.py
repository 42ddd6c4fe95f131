"""A recipe on five seeds, and what it is without this or that.

A recipe runs at a hundredth of the published sizes, then every one of its module's
ABLATIONS on the same seeds, from the first stage on that differs: 15 to 45 minutes on
one core. Finished stages are kept in .cache/recipes.
"""

from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from labs.record import Record
from lib.recipes import engine, instructgpt
from lib.recipes.folder import manifest
from lib.recipes.stages import Recipe

KEPT = Path(__file__).resolve().parent.parent / ".cache" / "recipes"
SCALE, SEEDS = 0.01, range(5)
CURVES = ("reward", "kl", "length", "entropy", "perplexity", "margin", "accuracy")
ITSELF = "the recipe"


def run(settings: tuple[Recipe, Recipe], seed: int) -> list[dict[str, Any]]:
    """Every stage of the recipe itself, or those that an ablation runs anew."""
    recipe, variant = settings
    code = manifest(recipe, SCALE, seed)["code"]
    out = KEPT / recipe.name / code / str(seed)
    before = engine.run(recipe, scale=SCALE, seed=seed, out=out, resume=True)
    if variant == recipe:
        return [stage_record(result, samples=True) for result in before.results]
    new = engine.rerun(before, variant).results
    return [stage_record(r, samples=seed == 0) for r in new if r not in before.results]


def stage_record(result: engine.Result, *, samples: bool) -> dict[str, Any]:
    """What is kept of a stage's result."""
    found = asdict(result)
    del found["resumed"]
    history = found["history"]
    found["history"] = {name: history[name] for name in CURVES if name in history}
    if not samples:
        del found["samples"]
    return found


def record_of(name: str, module: ModuleType, ablated: range) -> Record:
    """The record of a recipe on SEEDS, and of its ablations on these seeds."""
    variants = {ITSELF: module.RECIPE, **module.ABLATIONS}
    return Record(
        name,
        run,
        runs={k: (module.RECIPE, variant) for k, variant in variants.items()},
        seeds={**dict.fromkeys(variants, ablated), ITSELF: SEEDS},
        file=__file__,
    )


INSTRUCTGPT = record_of("11_instructgpt", instructgpt, SEEDS)
