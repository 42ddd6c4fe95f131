"""R1-Zero from five base models, pass@k, direct answers instead, and when it stalls.

Every run has its own base model: seed s stands for the base, the games and the luck. A
base that thinks rarely is a base's own end of pretraining read again with fewer worked
answers (`lib.pretrain.anneal`).
"""

from functools import partial
from typing import Any

from torch import nn

from labs import r1_zero as r1
from labs.record import Record, call
from lib import evaluate, pretrain, rewards
from lib.evaluate import pass_at_k
from lib.models.transformer import Transformer
from lib.seeds import generator
from lib.sft import instruct
from lib.worlds import tasks

RARITIES = (0.01, 0.003, 0.001, 0.0)  # worked answers among the last documents
SAMPLES, KS = 64, (1, 2, 4, 8, 16, 32, 64)
KEPT = ("reward", "thinks", "faithful", "hill", "mixed", "length", "zero_variance")


def curves(history: dict[str, list[float]]) -> dict[str, list[float]]:
    """What a page draws of a run, every second update."""
    return {name: history[name][::2] for name in (*KEPT, "entropy")}


def by_level(policy: nn.Module) -> dict[str, dict[str, float]]:
    """Sampled answers to 200 test games of each level."""
    return {str(n): r1.examined(policy, levels=(n,)) for n in tasks.LEVELS["cups"]}


def zero(seed: int) -> dict[str, Any]:
    """R1-Zero from base model `seed`, before and after, level by level."""
    base = pretrain.base_model(seed=seed)
    policy, history = r1.zero(base, seed=seed)
    thinking = {str(n): r1.forced(base, level=n) for n in (3, 5, 7)}
    return {
        "curves": curves(history),
        "before": by_level(base),
        "after": by_level(policy),
        "made to think": thinking,
        "pass": {"base": passes(base), "R1-Zero": passes(policy)},
    }


def passes(policy: nn.Module, *, count: int = 100) -> dict[str, list[float]]:
    """pass@k over `count` test games of 4 swaps: of right answers, and of faithful."""
    asked = evaluate.exam("cups", level=4, count=count)
    luck = generator("pass at k")
    rollout = evaluate.ask(
        policy, asked, generator=luck, group=SAMPLES, max_tokens=r1.TOKENS
    )
    found = {}
    for name in ("right", "faithful"):
        by = rewards.verified if name == "right" else r1.MEASURES["faithful"]
        correct = by(asked, rollout).reshape(count, SAMPLES).sum(1).long()
        found[name] = [pass_at_k(SAMPLES, correct, k).mean().item() for k in KS]
    return found


def direct(seed: int) -> dict[str, Any]:
    """The same base shown 100,000 direct answers instead, twice: ten times the tokens."""
    policy = pretrain.base_model(seed=seed)
    asked = tasks.tasks("cups", count=100_000, seed=seed, levels=r1.LEVELS)
    instruct(policy, [(t, t.answer) for t in asked], epochs=2, batch=64, lr=1e-3)
    return {"after": by_level(policy)}


def rarely(seed: int, worked: float) -> Transformer:
    """Base `seed` with the end of its pretraining read again: so many worked answers."""
    model = pretrain.base_model(seed=seed)
    pretrain.anneal(model, seed=1000 + seed, cups_worked=worked)
    return model


def stall(seed: int, *, worked: float) -> dict[str, Any]:
    """GRPO and Dr. GRPO from the same base, where worked answers were so rare."""
    base = rarely(seed, worked)
    found: dict[str, Any] = {"base": r1.examined(base)}
    for algorithm in ("GRPO", "Dr. GRPO"):
        policy, history = r1.zero(base, seed=seed, algorithm=algorithm)
        found[algorithm] = {"curves": curves(history), "after": r1.examined(policy)}
    return found


RECORD = Record(
    "r1_zero",
    call,
    runs={"R1-Zero": zero, "direct answers": direct},
    file=__file__,
)
STALL = Record(
    "r1_zero_stall",
    call,
    runs={f"worked {w}": partial(stall, worked=w) for w in RARITIES},
    seeds=range(3),
    file=__file__,
)
