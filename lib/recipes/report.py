"""What a run has come to, for people: a table, the curves, the answers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lib import evaluate
from lib.checkpoint import write_text
from lib.recipes.engine import Result, prompts
from lib.recipes.stages import Recipe


def table(results: Sequence[Result]) -> str:
    """The skills after every stage that made a policy, as Markdown."""
    policies = {r.stage: r.scores for r in results if "talk" in r.scores}
    names = list(results[0].scores)
    return evaluate.table({k: {n: v[n] for n in names} for k, v in policies.items()})


def line(result: Result) -> str:
    """One stage in a line."""
    if result.stage == "base":
        return "base: " + _scores(result)
    spent = f"{result.updates} updates, {result.answers:,} answers sampled"
    again = "kept from before" if result.resumed else f"{result.seconds:.0f} s"
    what = f"{result.stage}: {result.amount:,} {result.unit}, {spent}, {again}"
    return f"{what}; {_scores(result)}"


def _scores(result: Result) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in result.scores.items())


def samples(results: Sequence[Result]) -> str:
    """The same prompts, answered after every stage, as Markdown."""
    text = []
    for i, task in enumerate(prompts()):
        text.append(f"## {task.request}\n")
        text += [f"- **{r.stage}**: {r.samples[i]}" for r in results if r.samples]
        text.append("")
    return "\n".join(text)


def write(folder: Path, recipe: Recipe, results: Sequence[Result]) -> list[Path]:
    """results.md, samples.md and results.json (with all curves) into a run's folder."""
    head = f"# {recipe.title}\n\n"
    body = "\n".join(f"- {line(result)}" for result in results)
    texts = {
        "results.md": f"{head}{table(results)}\n\n{body}\n",
        "samples.md": f"{head}{samples(results)}",
        "results.json": json.dumps([asdict(r) for r in results], ensure_ascii=False),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
