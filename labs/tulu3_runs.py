"""Tülu 3 from five bases: every stage, ablations, whose pairs, a leak, a fooled verifier.

Seed s is base model s, its demonstrations, its pairs and its luck. The sweep is one run
of each setting, on base 3 with other demonstrations and pairs.
"""

from functools import lru_cache, partial
from typing import Any

from torch import nn

from labs import deepseek_r1 as r1
from labs import tulu3
from labs.record import Record, call
from lib import pretrain
from lib.models.transformer import Transformer
from lib.preference_data import PreferencePairs
from lib.train import History

Found = dict[str, Any]
CURVES = ("reward", "length", "kl", "zero_variance")
RATES, BETAS = (1e-4, 3e-4, 1e-3, 3e-3), (1.0, 20.0)
SWEPT = 8  # its seed; the base is 3
LOOKS = range(0, tulu3.UPDATES + 1, 3)


def base(seed: int) -> Transformer:
    """The base model that a seed starts from."""
    return pretrain.base_model(seed=seed % 5)


@lru_cache(maxsize=2)
def tuned(seed: int) -> Transformer:
    """After stage 1."""
    return tulu3.tuned(base(seed), tulu3.mix(seed)[0], seed=seed)


@lru_cache(maxsize=4)
def pairs(seed: int, source: str, sft: bool = True) -> PreferencePairs:
    """Pairs for stage 2, the own ones by the tuned model (or by the base)."""
    writer = tuned(seed) if sft else base(seed)
    return tulu3.pairs_of(writer, source, seed=seed)


@lru_cache(maxsize=4)
def preferred(
    seed: int, source: str = "both", sft: bool = True
) -> tuple[nn.Module, History]:
    """After stage 2."""
    start = tuned(seed) if sft else base(seed)
    return tulu3.preferred(start, pairs(seed, source, sft), seed=seed)


def learnt(history: History) -> Found:
    """Of a stage's curves, every second point."""
    return {name: history[name][::2] for name in CURVES if name in history}


def last(
    start: nn.Module, reference: nn.Module, *, seed: int, **settings: Any
) -> tuple[nn.Module, Found]:
    """After stage 3 from `start`; its exam, with the KL from `reference`, and curves."""
    policy, history = tulu3.practised(start, seed=seed, **settings)
    found = tulu3.examined(policy, reference)
    return policy, found | {"curves": learnt(history)}


def recipe(seed: int) -> Found:
    """The exam after every stage, and what the stages were made of."""
    shown, thrown = tulu3.mix(seed)
    found: Found = {"base": tulu3.examined(base(seed))}
    found["sft"] = tulu3.examined(tuned(seed), base(seed)) | {"thrown out": thrown}
    found["sft"]["shown"] = len(shown)
    policy, history = preferred(seed)
    curves = {name: history[name][::4] for name in ("accuracy", "margin")}
    found["dpo"] = tulu3.examined(policy, tuned(seed)) | {"curves": curves}
    policy, found["rlvr"] = last(policy, tuned(seed), seed=seed)
    found["said"] = r1.samples(policy)
    return found


def no_sft(seed: int) -> Found:
    """The base model goes straight to preferences."""
    dpo = preferred(seed, sft=False)[0]
    found = {"dpo": tulu3.examined(dpo, base(seed))}
    return found | {"rlvr": last(dpo, base(seed), seed=seed)[1]}


def ended(seed: int, *, dpo: bool = True, **settings: Any) -> Found:
    """The last stage otherwise than in the recipe: from SFT, or with other settings."""
    start = preferred(seed)[0] if dpo else tuned(seed)
    return {"rlvr": last(start, tuned(seed), seed=seed, **settings)[1]}


def sources(seed: int) -> Found:
    """Stage 2 on the model's own pairs alone, and on another's alone."""
    found: Found = {}
    for source in ("own", "others'"):
        told = pairs(seed, source)
        policy, history = preferred(seed, source)
        found[source] = tulu3.examined(policy, tuned(seed))
        gold = told.chosen_gold.mean().item(), told.rejected_gold.mean().item()
        found[source] |= {"gold": gold, "accuracy": history["accuracy"][::4]}
    return found


def leak(seed: int) -> Found:
    """The mix with 200 exam questions in it, four times each, and without them."""
    leaked, again, fresh = tulu3.leak()
    shown = [*tulu3.mix(seed)[0], *[(t, t.answer) for t in leaked] * tulu3.LEAKS]
    models = {"clean": tuned(seed)}
    models["leaked"] = tulu3.tuned(base(seed), shown, seed=seed)
    kinds = {"leaked": leaked, "in other words": again, "fresh": fresh}
    return {
        name: {kind: tulu3.right(model, asked) for kind, asked in kinds.items()}
        for name, model in models.items()
    }


def form(seed: int) -> Found:
    """A verifier of form as the reward of open requests, with a KL penalty and without."""
    start, found = preferred(seed)[0], {}
    for name, beta in (("no penalty", 0.0), ("with penalty", tulu3.FORM_BETA)):
        seen: list[dict[str, float]] = []

        def watch(update: int, policy: nn.Module, seen: list = seen) -> None:
            if update in LOOKS:
                seen.append(tulu3.looked_at(policy, start))

        policy, _ = tulu3.satisfied(start, seed=seed, beta=beta, watch=watch)
        curves = {what: [each[what] for each in seen] for what in seen[0]}
        found[name] = curves | {"said": tulu3.answers_to(policy, count=4)}
    return found


def sweep(seed: int) -> Found:
    """DPO at several rates and betas, RLVR at several rates: one run each."""
    found: Found = {"dpo": {}, "rlvr": {}, "sft": tulu3.examined(tuned(seed))}
    told = pairs(seed, "both")
    settings = [(lr, tulu3.BETA) for lr in RATES] + [(tulu3.DPO_LR, b) for b in BETAS]
    for lr, beta in settings:
        policy, _ = tulu3.preferred(tuned(seed), told, seed=seed, lr=lr, beta=beta)
        found["dpo"][f"{lr:g}, {beta:g}"] = tulu3.examined(policy)
    for lr in RATES:
        policy, _ = tulu3.practised(preferred(seed)[0], seed=seed, lr=lr)
        found["rlvr"][f"{lr:g}"] = tulu3.examined(policy)
    return found


RUNS = {
    "recipe": recipe,
    "no SFT": no_sft,
    "no DPO": partial(ended, dpo=False),
    "no KL": partial(ended, beta=0.0),
    "PPO": partial(ended, algorithm="PPO"),  # as in the first release
    "sources": sources,
    "leak": leak,
    "form": form,
    "sweep": sweep,
}
SEEDS = {name: (SWEPT,) if name == "sweep" else range(5) for name in RUNS}
RECORD = Record("tulu3", call, RUNS, __file__, SEEDS)
