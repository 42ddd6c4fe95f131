"""Chapter 6's experiments on the village's language model.

Five sets of comparisons, and from each a plain reward model and one that hears how
surprising each word was (`reward_model.SurprisalRewardModel`). Against each plain one
five policies are trained, one for each beta, and best-of-n is measured; against each
informed one a policy without a KL penalty: about 35 minutes on one core.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from labs.record import Record, call
from lib import evaluate, rewards, villagers
from lib.algorithms import ALGORITHMS
from lib.evaluate import best_of
from lib.kl import k1, k3
from lib.on_policy import RLConfig, train
from lib.reward_model import RewardModel, SurprisalRewardModel, score
from lib.villagers import instructed_model, proxy_model, task_stream
from lib.worlds.village import taste

BETAS = (0.0, 0.02, 0.05, 0.1, 0.3)
KNOBS = {"updates": 60, "requests": 8, "group": 8, "lr": 1e-3}
LOOKS = (0, 5, 10, 15, 20, 30, 40, 60)  # updates before which answers are kept
SIZES = [2**k for k in range(9)]  # of best-of-n
ASKED = taste.requests(count=3, seed=9, split="test")  # whose answers are kept


def said(policy: nn.Module) -> list[str]:
    """Its answers to the same three requests, with the same luck."""
    draw = torch.Generator().manual_seed(1)
    return [
        a.text.strip()
        for a in villagers.answers(evaluate.ask(policy, ASKED, generator=draw))
    ]


def before(seed: int) -> dict[str, Any]:
    """What is asked, and the skills of the model that all of them start from."""
    skills = villagers.skills(instructed_model(), count=40)
    return {"requests": [task.request for task in ASKED], "skills": skills, **KNOBS}


def climbed(seed: int, *, kind: type[RewardModel], beta: float) -> dict[str, Any]:
    """One policy: its notes, its answers on the way, its skills at the end."""
    texts: dict[int, list[str]] = {}

    def watch(update: int, policy: nn.Module) -> None:
        if update in LOOKS:
            texts[update] = said(policy)

    start = instructed_model()
    measures = {"gold": rewards.gold}
    measures |= {k.__name__: rewards.drift(start, estimator=k) for k in (k1, k3)}
    policy, history = train(
        start,
        ALGORITHMS["RLOO"],
        rewards.learned(proxy_model(seed=seed, kind=kind)),
        task_stream("talk", count=KNOBS["requests"], seed=seed),
        seed=seed,
        updates=KNOBS["updates"],
        lr=KNOBS["lr"],
        config=RLConfig(group=KNOBS["group"], beta=beta),
        measures=measures,
        watch=watch,
    )
    columns = {name: history[name] for name in (*measures, "length")}
    return {
        "proxy": history["reward"],
        **columns,
        "texts": texts,
        "skills": villagers.skills(policy, count=40),
    }


def chosen(seed: int, *, kind: type[RewardModel]) -> dict[str, Any]:
    """Best of n of the model itself: 32 requests of 256 answers each."""
    asked = taste.requests(count=32, seed=500 + seed, split="test")
    draw = torch.Generator().manual_seed(500 + seed)
    rollout = evaluate.ask(instructed_model(), asked, generator=draw, group=SIZES[-1])
    proxy = score(proxy_model(seed=seed, kind=kind), rollout).reshape(len(asked), -1)
    gold = evaluate.scores(asked, rollout).reshape(len(asked), -1)
    liked, worth = (best_of(proxy, values, SIZES) for values in (proxy, gold))
    drop = worth - worth[:, -1:]  # (32, n)
    error = drop.std(0) / len(asked) ** 0.5
    found = {"proxy": liked.mean(0), "gold": worth.mean(0), "error": error}
    return {"sizes": SIZES, **found}


KINDS = {RewardModel: BETAS, SurprisalRewardModel: BETAS[:1]}
RUNS: dict[str, Callable[[int], dict[str, Any]]] = {"before": before}
for each, betas in KINDS.items():
    RUNS[f"{each.__name__}, best of n"] = partial(chosen, kind=each)
    for beta in betas:
        RUNS[f"{each.__name__}, beta {beta}"] = partial(climbed, kind=each, beta=beta)
RECORD = Record(
    "06_over_optimisation",
    call,
    runs=RUNS,
    seeds={**dict.fromkeys(RUNS, range(5)), "before": range(1)},
    file=__file__,
)
