"""KL penalties alone pull tuned models back to their bases: five uses of an estimator.

There is no reward. A base model is tuned on people's answers to open requests, and then
each use of an estimator is the whole loss. Seed s stands for the base, the answers that
it is tuned on and all luck; the sweep over learning rates has luck of its own.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from labs.record import Record
from lib import evaluate, pretrain
from lib.advantages import reward_to_go
from lib.kl import exact_kl, k1, k2, k3
from lib.logps import action_logps
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import instruct
from lib.train import fit
from lib.worlds.tasks import tasks

UPDATES, BATCH = 16, 48  # answers to so many requests an update, one each
RATES = (1e-4, 3e-4, 1e-3)
SHOWN = 960  # answers of people


def to_go(logps: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
    """k1 in the reward: each token is charged for itself and all that follow, (B, T)."""
    charged = reward_to_go(k1(logps, ref).detach(), mask)
    centred = charged - (charged.sum(0) / mask.sum(0).clamp(min=1))  # over the batch
    return centred.masked_fill(~mask, 0) * logps


USES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "k1 in the reward": to_go,
    "k1 in the loss": lambda logps, ref, _: k1(logps, ref),
    "k2 of each token": lambda logps, ref, _: k2(logps, ref),
    "k2 of the answer": lambda logps, ref, _: k2(logps.sum(1), ref.sum(1))[:, None],
    "k3 of each token": lambda logps, ref, _: k3(logps, ref),
}
LR = {  # the best of the sweep
    "k1 in the reward": 3e-4,
    "k1 in the loss": 1e-4,
    "k2 of each token": 3e-4,
    "k2 of the answer": 3e-4,
    "k3 of each token": 3e-4,
}


def tuned(seed: int) -> tuple[nn.Module, nn.Module]:
    """A base model, and the same after people's answers to open requests."""
    base = pretrain.base_model(seed=seed)
    policy = copy.deepcopy(base)
    shown = tasks("talk", count=SHOWN, seed=seed_of("tuned", seed))
    instruct(policy, [(task, task.answer) for task in shown], epochs=1, seed=seed)
    return base, policy


@torch.no_grad()
def nats(policy: nn.Module, base: nn.Module, seed: int) -> float:
    """KL an answer, summed over the vocabulary, over answers to 200 test requests."""
    luck = generator("measure", seed)
    rollout = evaluate.ask(policy, evaluate.exam("talk", count=200), generator=luck)
    each = exact_kl(policy(rollout.states), base(rollout.states))
    return each.masked_fill(~rollout.mask, 0).sum(1).mean().item()


def pull(settings: dict[str, Any], seed: int) -> dict[str, float]:
    """One use of an estimator as the whole loss: KL from the base, before and after."""
    use, luck = settings["use"], settings.get("luck", "run")
    base, policy = tuned(seed)
    before = nats(policy, base, seed)

    def batches() -> Any:
        for update in range(UPDATES):
            asked = tasks(
                "talk", count=BATCH, seed=seed_of(luck, "asked", seed, update)
            )
            draw = generator(luck, "answers", seed, update)
            yield evaluate.ask(policy, asked, generator=draw)

    def loss(model: nn.Module, rollout: Rollout) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            ref = action_logps(base, rollout)
        logps = action_logps(model, rollout)
        return USES[use](logps, ref, rollout.mask).sum(1).mean(), {}

    fit(policy, batches(), loss, lr=settings["lr"])
    return {"before": before, "after": nats(policy, base, seed)}


SWEEP = {
    f"sweep: {use}, {lr:g}": {"use": use, "lr": lr, "luck": "sweep"}
    for use in USES
    for lr in RATES
}
RUNS = {use: {"use": use, "lr": lr} for use, lr in LR.items()}
RECORD = Record(
    "kl_estimators",
    pull,
    runs={**RUNS, **SWEEP},
    seeds={**dict.fromkeys(RUNS, range(5)), **dict.fromkeys(SWEEP, range(1))},
    file=__file__,
)
