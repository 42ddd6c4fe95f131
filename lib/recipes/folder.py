"""A run's folder: what it is a run of, who is writing to it, and its finished stages."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout  # torch brings it along

from lib import require
from lib.checkpoint import CheckpointError, write_text
from lib.digest import sources
from lib.recipes.stages import Recipe, Stage

RECIPES = Path(__file__).resolve().parent


class Busy(Exception):
    """Another run is writing to this folder."""


def manifest(recipe: Recipe, scale: float, seed: int) -> dict[str, Any]:
    """What a run is: two runs with the same manifest end with the same weights."""
    digest = hashlib.sha256()
    for name in ("engine", recipe.name):
        for file in sorted(sources(RECIPES / f"{name}.py")):
            digest.update(file.read_bytes())
    stages = [stage.name for stage in recipe.stages]
    code, version = digest.hexdigest()[:12], torch.__version__
    asked = {"recipe": recipe.name, "stages": stages, "scale": scale, "seed": seed}
    return {**asked, "code": code, "torch": version}


class Folder:
    """A run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder's lock; it goes when the process does, however it does."""
        (self.path / "stages").mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(self.path / "lock").acquire(timeout=0)
        except Timeout:
            raise Busy(f"{self.path}: another run is writing here") from None
        with held:
            yield

    def open(self, manifest: dict[str, Any], *, resume: bool) -> None:
        """Begin a run here, or make sure that the one that is here is this one."""
        place = self.path / "run.json"
        if not place.exists():
            write_text(place, json.dumps(manifest, indent=1) + "\n")
            return
        if not resume:
            require.refuse("out", f"{self.path}, which holds a run", "--resume, or DIR")
        try:
            found = json.loads(place.read_text("utf-8"))
            wrong = [name for name in manifest if found[name] != manifest[name]]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{place}: not a run of this book") from error
        if wrong:
            got, wanted = (
                ", ".join(f"{n} {d[n]}" for n in wrong) for d in (found, manifest)
            )
            raise CheckpointError(f"{place}: a run with {got}, not {wanted}")

    def stage(self, number: int, stage: Stage) -> Path:
        """Where a finished stage is kept."""
        return self.path / "stages" / f"{number}-{stage.name}.pt"
