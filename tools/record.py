"""Run chapter 6's experiments on the village's language model, and keep what came out.

    python -m tools.record            # about a quarter of an hour on one core

Five sets of comparisons, and from each a plain reward model and one that hears how
surprising each word was (`reward_model.Informed`). Against each plain one five policies
are trained, one for each beta, and best-of-n is measured; against each informed one a
policy without a leash. That is too long for a page that runs in a minute, so the page
runs a part of it live and reads the rest from
notebooks/records/06_over_optimisation.json, which says what made it and when.
"""

import datetime
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib import cache, evaluate, regularised
from lib.instruct import instructed_model
from lib.overoptimisation import RECORD, best_of
from lib.reward_model import Informed, RewardModel, proxy_model, score
from lib.rewards import learned
from lib.worlds import taste

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / RECORD
SEEDS = range(5)
BETAS = (0.0, 0.02, 0.05, 0.1, 0.3)
KNOBS = {"updates": 60, "requests": 8, "group": 8, "lr": 1e-3}
LOOKS = (0, 5, 10, 15, 20, 30, 40, 60)  # updates before which answers are kept
SIZES = [2**k for k in range(9)]  # of best-of-n
ASKED = taste.requests(count=3, seed=9, split="test")  # whose answers are kept


def code() -> str:
    """Twelve hex digits over this file and all of lib that it uses."""
    digest, files = hashlib.sha256(Path(__file__).read_bytes()), set()
    for module in ("regularised", "overoptimisation", "reward_model", "rewards"):
        files |= cache.sources(ROOT / "lib" / f"{module}.py")
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def rounded(numbers: list[float]) -> list[float]:
    """Three digits behind the point, which is more than their errors leave."""
    return [round(x, 3) for x in numbers]


def said(policy: nn.Module) -> list[str]:
    """Its answers to the same three requests, with the same luck."""
    draw = torch.Generator().manual_seed(1)
    return [
        a.text.strip()
        for a in evaluate.answers(evaluate.ask(policy, ASKED, generator=draw))
    ]


def run(model: nn.Module, proxy: nn.Module, seed: int, beta: float) -> dict[str, Any]:
    """One policy: its notes, its answers on the way, its skills at the end."""
    texts: dict[int, list[str]] = {}

    def watch(update: int, policy: nn.Module) -> None:
        if update in LOOKS:
            texts[update] = said(policy)

    policy, notes = regularised.optimise(
        model, learned(proxy), seed=seed, beta=beta, watch=watch, **KNOBS
    )
    columns = {
        name: rounded([getattr(note, name) for note in notes])
        for name in ("proxy", "gold", "k1", "k3", "length")
    }
    skills = evaluate.skills(policy, count=40)
    skills = {name: round(value, 3) for name, value in skills.items()}
    return {"seed": seed, "beta": beta, **columns, "texts": texts, "skills": skills}


def chosen(model: nn.Module, proxy: nn.Module, seed: int) -> dict[str, Any]:
    """Best of n of the model itself: 32 requests of 256 answers each."""
    asked = taste.requests(count=32, seed=500 + seed, split="test")
    draw = torch.Generator().manual_seed(500 + seed)
    rollout = evaluate.ask(model, asked, generator=draw, group=SIZES[-1])
    likes = score(proxy, rollout).reshape(len(asked), -1)
    gold = evaluate.scores(asked, rollout).reshape(len(asked), -1)
    curves = [best_of(likes, values, SIZES) for values in (likes, gold)]
    drop = curves[1] - curves[1][:, -1:]  # (32, n)
    error = drop.std(0) / len(asked) ** 0.5
    named = dict(zip(("proxy", "gold"), (rounded(c.mean(0).tolist()) for c in curves)))
    return {"seed": seed, **named, "error": rounded(error.tolist())}


def main() -> None:
    """Run everything and write the record."""
    torch.set_num_threads(1)
    began, model = time.time(), instructed_model()
    runs, best = [], []
    for seed in SEEDS:
        for kind, betas in ((RewardModel, BETAS), (Informed, BETAS[:1])):
            name, proxy = kind.__name__, proxy_model(seed=seed, kind=kind)
            best.append({"kind": name, **chosen(model, proxy, seed)})
            for beta in betas:
                runs.append({"kind": name, **run(model, proxy, seed, beta)})
                print(seed, name, beta, runs[-1]["gold"][-1], file=sys.stderr)
    made = {
        "command": "python -m tools.record",
        "date": datetime.date.today().isoformat(),
        "code": code(),
        "torch": torch.__version__,
        "minutes": round((time.time() - began) / 60),
        **KNOBS,
    }
    skills = {k: round(v, 3) for k, v in evaluate.skills(model, count=40).items()}
    record = {
        "made": made,
        "requests": [task.request for task in ASKED],
        "before": skills,
        "sizes": SIZES,
        "best_of_n": best,
        "runs": runs,
    }
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
    PLACE.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
