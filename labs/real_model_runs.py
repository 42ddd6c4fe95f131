"""SmolLM2 learns small sums four ways, and cheerful sentences too well; costs included.

Seed s stands for the tasks and the luck of sampling; the model is always the same one.
Everything is in float32, on one thread. It needs requirements-real.txt.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from labs import real_model as real
from labs.record import Record, call
from lib import direct, evaluate, on_policy
from lib.algorithms import ALGORITHMS
from lib.evaluate import best_of, pass_at_k
from lib.losses.preference import dpo
from lib.losses.reward import Loss, bradley_terry
from lib.models.lora import add_lora
from lib.on_policy import RLConfig
from lib.preference_data import PreferencePairs
from lib.reward_model import CENTRE, read
from lib.rollout import Rollout
from lib.seeds import generator
from lib.sft import sft_loss
from lib.train import fit

UPDATES, EVERY, PROMPTS = 30, 15, 8
CONFIG = RLConfig(group=8, max_tokens=real.TOKENS)
FULL, LORA = 2e-5, 2e-4  # learning rates
DPO_PAIRS, DPO_BATCH, DPO_EPOCHS, DPO_LR = 56, 8, 2, 5e-5
DPO_JUDGED = {5: 64, 9: 64, 14: 200}  # update: held-out topics
TOPICS, SIZES = 64, (1, 2, 4, 8)
JUDGE_TOPICS, JUDGE_PAIRS = 370, (45, 90, 180, 360)
JUDGE_UPDATES, JUDGE_LR = 200, 1e-4
SWEEP = {"all weights": (2.3e-6, 7e-6, 2e-5, 6e-5), "LoRA": (7e-5, 2e-4, 6e-4)}


# --- sums -----------------------------------------------------------------------------


def grpo(
    seed: int,
    *,
    lr: float,
    updates: int = UPDATES,
    prepare: Callable[[nn.Module, int], nn.Module] = lambda model, seed: model,
) -> dict[str, Any]:
    """GRPO on sums, right or wrong; an exam every fifteen updates."""
    start, lines, _ = real.ready()
    model, exams = prepare(copy.deepcopy(start), seed), {}

    def watch(update: int, policy: nn.Module) -> None:
        if update == updates or (update and update % EVERY == 0):
            last = update == updates
            exams[str(update)] = real.examined(policy, start, lines, greedy=last)

    with real.costs() as spent:
        policy, history = on_policy.train(
            model,
            ALGORITHMS["GRPO"],
            real.right,
            real.sum_stream(PROMPTS, lines, seed=seed),
            seed=seed,
            updates=updates,
            lr=lr,
            config=CONFIG,
            tokenizer=lines,
            watch=watch,
            progress=f"GRPO, lr {lr}, seed {seed}",
        )
    kept = ("reward", "zero_variance", "length", "entropy", "finished", "grad_norm")
    return {
        "exams": exams,
        "curves": {name: history[name] for name in kept},
        "answers": said(policy),
        "trained": sum(p.numel() for p in policy.parameters() if p.requires_grad),
        **spent,
    }


def said(policy: nn.Module) -> list[str]:
    """Greedy answers to eight test sums, with their prompts' last lines."""
    _, lines, _ = real.ready()
    asked = real.sums(8, lines, seed=0, split="test")
    given = {"max_tokens": real.TOKENS, "tokenizer": lines, "top_k": 1}
    rollout = evaluate.ask(policy, asked, generator=generator("said"), **given)
    texts = evaluate.answers(rollout, lines)
    return [f"{t.prompt.splitlines()[-1]}{a.text}" for t, a in zip(asked, texts)]


def with_lora(model: nn.Module, seed: int) -> nn.Module:
    """The model with thin matrices beside its wide ones, which are frozen."""
    return add_lora(model, generator=generator("lora", seed))


def shown(seed: int) -> dict[str, Any]:
    """SFT on the right answers to the sums that GRPO asked, each once."""
    start, lines, _ = real.ready()
    policy = copy.deepcopy(start)
    with real.costs() as spent:
        batches = real.shown(UPDATES, lines, seed)
        history = fit(policy, batches, sft_loss, lr=FULL, progress=f"SFT, {seed}")
    exams = {str(UPDATES): real.examined(policy, start, lines)}
    return {"exams": exams, "loss": history["loss"], "answers": said(policy), **spent}


PROMPTED = {
    "a one-digit example": (real.EXAMPLE, False),
    "a two-digit example": ("12 + 25 = 37", False),
    "no example": ("", False),
    "What is a + b?": ("", True),
}


def untrained(seed: int) -> dict[str, Any]:
    """The model as it comes."""
    start, lines, _ = real.ready()
    return {"exams": {"0": real.examined(start, start, lines)}, "answers": said(start)}


def asked_otherwise(seed: int) -> dict[str, Any]:
    """The start's base rate under four prompts: right, begins right, pass@8."""
    start, lines, chat = real.ready()
    found = {}
    for name, (example, talks) in PROMPTED.items():
        tokenizer = chat if talks else lines
        asked = real.sums(40, tokenizer, seed=seed, split="test", example=example)
        if talks:
            words = [f"What is {t.prompt.removesuffix(' =')}?" for t in asked]
            asked = [real.Asked(w, t.answer, tokenizer) for w, t in zip(words, asked)]
        draw = generator("base rates", seed, name)
        given = {"max_tokens": real.TOKENS, "tokenizer": tokenizer, "group": SIZES[-1]}
        rollout = evaluate.ask(start, asked, generator=draw, **given)
        right = real.right(asked, rollout).reshape(40, -1).sum(1).long()
        found[name] = {
            "right": right.double().mean().item() / SIZES[-1],
            "begins right": real.begins_right(asked, rollout).mean().item(),
            "finished": rollout.terminated.double().mean().item(),
            "pass": [pass_at_k(SIZES[-1], right, k).mean().item() for k in SIZES],
            "answers": [a.text for a in evaluate.answers(rollout, tokenizer)[::64]],
        }
    return found


SUMS = Record(
    "real_sums",
    call,
    runs={
        "start": untrained,
        "prompts": asked_otherwise,
        "SFT": shown,
        "GRPO": partial(grpo, lr=FULL),
        "GRPO, LoRA": partial(grpo, lr=LORA, updates=15, prepare=with_lora),
    },
    seeds={
        "start": [0],
        "prompts": range(3),
        "SFT": range(3),
        "GRPO": range(3),
        "GRPO, LoRA": range(3),
    },
    file=__file__,
)


PREPARED = {"all weights": {}, "LoRA": {"prepare": with_lora}}
TRIED = {f"{name}, {lr:g}": (name, lr) for name, rates in SWEEP.items() for lr in rates}
BEST = "all weights, 7e-06"  # of the sweep; that of LoRA is the rate of SUMS

RATES = Record(
    "real_rates",
    call,
    runs={
        run: partial(grpo, lr=lr, updates=EVERY, **PREPARED[name])
        for run, (name, lr) in TRIED.items()
    },
    # The sweep has a seed of its own; then the best on those of the runs it joins.
    seeds={run: [3, *([0, 1, 2] if run == BEST else [])] for run in TRIED},
    file=__file__,
)


# --- sentences ------------------------------------------------------------------------


def pairs_for(seed: int, topics: int, count: int) -> PreferencePairs:
    """The most and the least cheerful of four samples to each training topic."""
    start, _, chat = real.ready()
    asked = real.topics(topics, chat, seed=seed)
    return real.best_and_worst(start, asked, seed=seed).first(count)


def unaligned(seed: int) -> dict[str, Any]:
    """The model as it comes, on 200 held-out topics."""
    start, _, chat = real.ready()
    return real.judged(start, start, chat)


def too_cheerful(seed: int) -> dict[str, Any]:
    """DPO on the most against the least cheerful: the frontier, and what is lost."""
    start, _, chat = real.ready()
    path: dict[str, Any] = {}

    def watch(update: int, policy: nn.Module) -> None:
        if update in DPO_JUDGED:
            count = DPO_JUDGED[update]
            path[str(update)] = real.judged(policy, start, chat, count=count)

    with real.costs() as spent:
        pairs = pairs_for(seed, TOPICS, DPO_PAIRS)
        _, history = direct.align(
            start,
            pairs,
            partial(dpo, beta=0.1),
            epochs=DPO_EPOCHS,
            lr=DPO_LR,
            batch=DPO_BATCH,
            seed=seed,
            watch=watch,
            progress=f"DPO, seed {seed}",
        )
    return {"pairs": len(pairs), "path": path, "margin": history["margin"], **spent}


def best_of_n(seed: int) -> dict[str, Any]:
    """A reward model on so many pairs, and best-of-n by the last and by the word list.

    The trunk is frozen and read once; its head alone learns (Bradley–Terry).
    """
    start, _, chat = real.ready()
    with real.costs() as spent:
        pairs = pairs_for(seed, JUDGE_TOPICS, JUDGE_PAIRS[-1])
        seen = last_hidden(start, pairs.chosen), last_hidden(start, pairs.rejected)
        asked = real.topics(200, chat, seed=seed, split="test")
        draw, group = generator("best of n", seed), SIZES[-1]
        given = {"max_tokens": real.SENTENCE, "tokenizer": chat, "group": group}
        rollout = evaluate.ask(start, asked, generator=draw, **given)
        gold = real.cheerful(asked, rollout).reshape(-1, group)
        names = real.names_it(asked, rollout).reshape(-1, group)
        held = last_hidden(start, rollout)
        differ = gold.max(1).values > gold.min(1).values
        ends = (gold[differ].argmax(1), gold[differ].argmin(1))
        right = {}
        for count in JUDGE_PAIRS:
            head = head_of(*(x[:count] for x in seen))
            proxy = head(held).detach().reshape(-1, group)
            best, worst = (proxy[differ].gather(1, at.unsqueeze(1)) for at in ends)
            right[str(count)] = (best > worst).double().mean().item()
    return {
        "pairs": len(pairs),
        "accuracy": right,  # on pairs held out, by the number that was learnt from
        "pairs held out": int(differ.sum()),
        "by the model": ranked(proxy, gold, names),
        "by the word list": ranked(gold, gold, names),
        **spent,
    }


@torch.no_grad()
def last_hidden(model: nn.Module, rollout: Rollout) -> Tensor:
    """What the model makes of each answer's last token: (B, width) float64."""
    tokens, last = read(rollout)
    rows = torch.arange(len(last)).split(32)
    found = [model.hidden(tokens[i])[torch.arange(len(i)), last[i]] for i in rows]
    return torch.cat(found).double()


def head_of(chosen: Tensor, rejected: Tensor) -> nn.Module:
    """The head of a reward model that has learnt from these pairs, (N, width) each."""
    head = nn.Linear(chosen.shape[1], 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(head.weight)

    def loss(head: nn.Module, pairs: tuple[Tensor, Tensor]) -> Loss:
        return bradley_terry(*(head(x).squeeze(1) for x in pairs), centre=CENTRE)

    fit(head, [(chosen, rejected)] * JUDGE_UPDATES, loss, lr=JUDGE_LR)
    return head


def ranked(by: Tensor, gold: Tensor, names: Tensor) -> dict[str, list[float]]:
    """Cheer and the share that names its topic of the best of n by a score (P, N)."""
    kept = {"cheer": gold, "names it": names}
    return {k: best_of(by, x, SIZES).mean(0).tolist() for k, x in kept.items()}


SENTENCES = Record(
    "real_sentences",
    call,
    runs={"start": unaligned, "DPO": too_cheerful, "best of n": best_of_n},
    seeds={"start": [0], "DPO": range(3), "best of n": range(3)},
    file=__file__,
)
