"""What reward models learn from comparisons of five base models' answers.

Each seed is another base model with its own comparisons. About six minutes on one core.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from labs import inspection, minimal_pairs
from labs.deepseek_r1 import compared
from labs.record import Record, call
from lib import pretrain
from lib.logps import answer_logps
from lib.losses.reward import Loss, bradley_terry
from lib.models.transformer import Transformer
from lib.preference_data import PreferencePairs
from lib.reward_model import (
    RewardModel,
    SurprisalRewardModel,
    preference_loss,
    read,
    score,
)
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import written
from lib.train import fit, minibatches, warm_cosine
from lib.worlds.language import KINDS
from lib.worlds.people import PREDICATES
from lib.worlds.task import Task

SIZES = (300, 1_000, 3_000)  # comparisons, each read once
BATCH, LR, CENTRE = 16, 3e-3, 0.01
RATES = (1e-3, 3e-3, 1e-2)
KINDS_OF_MODEL = {"plain": RewardModel, "surprisal": SurprisalRewardModel}
CLEAN, HURRY, EAGER, FRESH = 2_000, 0.3, 128, 400
HOME = "a true home"


def one_pass(
    model: nn.Module,
    pairs: PreferencePairs,
    *,
    lr: float = LR,
    epochs: int = 1,
    seed: int = 0,
) -> nn.Module:
    """Train a model in place on comparisons, BATCH at a time, warm-up and cosine."""
    draw = generator("order", seed)
    order = [*minibatches(len(pairs), epochs=epochs, batch=BATCH, generator=draw)]
    loss = partial(preference_loss, centre=CENTRE)
    rate = warm_cosine(lr, len(order), warm=20)
    fit(model, [pairs.rows(some) for some in order], loss, lr=rate)
    return model


def gaps(model: nn.Module, pairs: PreferencePairs) -> Tensor:
    """(N,) the chosen answer's score less the rejected one's."""
    return score(model, pairs.chosen) - score(model, pairs.rejected)


def digits(right: Tensor) -> str:
    """Zeros and ones as text: a record keeps every item, to resample them."""
    return "".join(str(int(x)) for x in right)


def seen(judge: Callable[[Rollout], Tensor]) -> dict[str, float]:
    """How often it sees each edit, on people for testing; and facts of the others."""
    known = minimal_pairs.people("train")[:70]
    each = {e: minimal_pairs.sees(judge, e) for e in minimal_pairs.EDITS}
    each |= {f"{HOME}, train": minimal_pairs.sees(judge, HOME, known)}
    return {name: found.mean().item() for name, found in each.items()}


# --- comparisons ----------------------------------------------------------------------


def comparisons(base: Transformer, seed: int) -> dict[str, Any]:
    """Plain and surprisal reward models: what they agree with, see, claim and pay for."""
    pairs = compared(base, count=max(SIZES), seed=seed)
    fresh = compared(base, count=FRESH, seed=seed_of("fresh", seed), split="test")
    texts, gold = inspection.answers_of(fresh)
    better = fresh.chosen_gold - fresh.rejected_gold
    made: dict[str, Any] = {"limits": inspection.limits(fresh)}
    made["distinct"] = len({task.request for task in fresh.asked})
    made["trunk"] = seen(partial(likelihood, base))
    models = {}
    for name, kind in KINDS_OF_MODEL.items():
        curve: dict[str, list[float]] = {"accuracy": [], "gold": [], HOME: []}
        for size in SIZES:
            model = one_pass(kind(base), pairs.first(size), seed=seed)
            gap, told = gaps(model, fresh), better != 0
            curve["accuracy"].append((gap > 0).double().mean().item())
            curve["gold"].append((gap * better > 0)[told].double().mean().item())
            home = minimal_pairs.sees(partial(score, model), HOME)
            curve[HOME].append(home.mean().item())
            models[name if size == max(SIZES) else f"{name}, {size}"] = model
        made[name] = {"curve": curve, "sees": seen(partial(score, models[name]))}
        made[name]["right"] = digits(gaps(models[name], fresh) > 0)
    few = pairs.first(SIZES[1])
    late = inspection.hurried(few, share=HURRY, seed=seed)
    models["hurried"] = one_pass(RewardModel(base), late, seed=seed)
    eager = {"epochs": 8, "seed": seed}
    models["eager"] = one_pass(RewardModel(base), pairs.first(EAGER), **eager)
    for name, model in models.items():
        gap = gaps(model, fresh)
        price = inspection.token_price(score(model, texts), gold, texts.lengths)
        made[name] = made.get(name, {}) | {
            "temperature": inspection.temperature(gap),
            "price": price,
            "accuracy": (gap > 0).double().mean().item(),
        }
    beside = torch.stack((gold, texts.lengths.double())).corrcoef()[0, 1].item()
    return made | {"gold and length": beside}


@torch.no_grad()
def likelihood(model: nn.Module, rollout: Rollout) -> Tensor:
    """(B,) log p of each answer after its request: what a language model would say."""
    parts = torch.arange(len(rollout)).split(400)
    return torch.cat([answer_logps(model, rollout.rows(part)) for part in parts])


# --- can it compare at all? -----------------------------------------------------------


def clean(count: int, *, seed: int, split: str = "train") -> PreferencePairs:
    """Comparisons in which truth is all: one sentence on a home, true against false."""
    draw = random.Random(seed_of("clean", seed))
    who, found = minimal_pairs.people(split), []
    for _ in range(count):
        person, way = draw.choice(who), draw.choice(PREDICATES["home"])
        false = draw.choice([home for home in KINDS["home"] if home != person.home])
        request = draw.choice(minimal_pairs.REQUESTS).format(person.name)
        said = (f"{person.name} {way.format(home)}." for home in (person.home, false))
        found.append((Task("talk", 1, request, ""), *said))
    asked, true, false = zip(*found)
    nobody = torch.zeros(count, dtype=torch.float64)
    return PreferencePairs(
        asked, written(asked, true), written(asked, false), nobody, nobody
    )


def deeper(trunk: Transformer, *, layers: int = 4) -> Transformer:
    """The trunk with more layers above its own, which do nothing at first."""
    config = replace(trunk.config, layers=layers)
    tall = Transformer(config, generator=generator("deeper"), dtype=torch.float64)
    tall.load_state_dict(trunk.state_dict(), strict=False)
    with torch.no_grad():
        for block in tall.blocks[len(trunk.blocks) :]:
            block.out.weight.zero_()
            block.down.weight.zero_()
    return tall


@torch.no_grad()
def last_hidden(trunk: Transformer, rollout: Rollout) -> Tensor:
    """(B, width) what a trunk makes of a whole text."""
    tokens, last = read(rollout)
    at = last[:, None, None].expand(-1, 1, trunk.config.width)
    return trunk.hidden(tokens).gather(1, at)[:, 0]


def probe(trunk: Transformer, pairs: PreferencePairs) -> Callable[[Rollout], Tensor]:
    """The best linear score of the frozen trunk's last hidden state (ridge 10⁻⁴)."""
    apart = last_hidden(trunk, pairs.chosen) - last_hidden(trunk, pairs.rejected)
    weight = torch.zeros(apart.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        gap = apart @ weight
        loss = bradley_terry(gap, 0 * gap)[0] + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return lambda rollout: last_hidden(trunk, rollout) @ weight.detach()


def truth_alone(base: Transformer, seed: int) -> dict[str, dict[str, float]]:
    """Four judges taught by clean comparisons: true homes of people they know or do not."""
    pairs = clean(CLEAN, seed=seed)
    judges = {
        "two layers": RewardModel(base),
        "four layers": RewardModel(deeper(base)),
        "surprisal": SurprisalRewardModel(base),
    }
    scorers = {"probe": probe(base, pairs)}
    for name, model in judges.items():
        scorers[name] = partial(score, one_pass(model, pairs, seed=seed))
    who = {s: minimal_pairs.people(s)[:70] for s in ("train", "test")}
    return {
        name: {
            split: minimal_pairs.sees(judge, HOME, some).mean().item()
            for split, some in who.items()
        }
        for name, judge in scorers.items()
    }


# --- the record -----------------------------------------------------------------------


def everything(seed: int) -> dict[str, Any]:
    """All that a base model's answers can teach."""
    base = pretrain.base_model(seed=seed)
    return {
        "comparisons": comparisons(base, seed),
        "truth alone": truth_alone(base, seed),
    }


def sweep(seed: int) -> dict[str, dict[str, list[float]]]:
    """Loss and accuracy on fresh data at RATES, from base 0 and data of this seed alone."""
    base = pretrain.base_model(seed=0)
    pairs = compared(base, count=SIZES[1], seed=seed)
    fresh = compared(base, count=FRESH, seed=seed_of("fresh", seed))
    found: dict[str, dict[str, list[float]]] = {}

    def note(name: str, loss: Loss) -> None:
        each = found.setdefault(name, {"loss": [], "accuracy": []})
        each["loss"].append(loss[0].item())
        each["accuracy"].append(loss[1]["accuracy"])

    for lr in RATES:
        for name, kind in KINDS_OF_MODEL.items():
            model = one_pass(kind(base), pairs, lr=lr, seed=seed)
            with torch.no_grad():
                note(name, preference_loss(model, fresh, centre=0))
    return found


RECORD = Record(
    "04_reward_models",
    call,
    runs={"sweep": sweep, "five bases": everything},
    seeds={"sweep": [9], "five bases": range(5)},
    file=__file__,
)
