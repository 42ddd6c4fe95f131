"""SmolLM2 learns small sums four ways, and cheerful sentences too well; costs included.

Seed s stands for the tasks and the luck of sampling; the model is always the same one.
Everything is in float32, on one thread. It needs requirements-real.txt.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from labs import real_model as real
from labs.record import Record, call
from lib import direct, evaluate, on_policy, rewards
from lib.algorithms import ALGORITHMS
from lib.evaluate import best_of, pass_at_k
from lib.losses.preference import dpo
from lib.models.byte_pairs import ChatTokenizer
from lib.models.lora import add_lora
from lib.on_policy import RLConfig
from lib.reward_model import accuracy, fit_reward_model, score
from lib.seeds import generator
from lib.sft import sft_loss
from lib.train import fit

UPDATES, EVERY, PROMPTS = 30, 10, 8
CONFIG = RLConfig(group=8, max_tokens=real.TOKENS)
FULL, LORA = 2e-5, 2e-4  # learning rates
DPO_UPDATES, DPO_BATCH, DPO_LR, DPO_EVERY = 24, 8, 5e-5, 8
TOPICS, SIZES = 64, (1, 2, 4, 8, 16)


def exam(policy: nn.Module, reference: nn.Module) -> dict[str, float]:
    """`real.examined`, and KL(π ‖ start) in nats an answer, of the same 200 sums."""
    _, lines, _ = real.ready()
    asked = real.sums(200, lines, seed=0, split="test")
    given = {"max_tokens": real.TOKENS, "tokenizer": lines}
    rollout = evaluate.ask(policy, asked, generator=generator("kl of sums"), **given)
    drift = rewards.drift(reference)(asked, rollout).mean().item()
    return {**real.examined(policy, lines), "kl": drift}


# --- sums -----------------------------------------------------------------------------


def grpo(
    seed: int,
    *,
    lr: float,
    updates: int = UPDATES,
    prepare: Callable[[nn.Module, int], nn.Module] = lambda model, seed: model,
) -> dict[str, Any]:
    """GRPO on sums, right or wrong; an exam every ten updates."""
    start, lines, _ = real.ready()
    model, exams = prepare(copy.deepcopy(start), seed), {}

    def watch(update: int, policy: nn.Module) -> None:
        if update % EVERY == 0:
            exams[str(update)] = exam(policy, start)

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
    exams = {str(UPDATES): exam(policy, start)}
    return {"exams": exams, "loss": history["loss"], "answers": said(policy), **spent}


PROMPTED = {
    "a one-digit example": (real.EXAMPLE, False),
    "a two-digit example": ("12 + 25 = 37", False),
    "no example": ("", False),
    "What is a + b?": ("", True),
}


def asked_otherwise(seed: int) -> dict[str, Any]:
    """The start's base rate under four prompts: right, begins right, pass@16."""
    start, lines, chat = real.ready()
    found = {}
    for name, (example, talks) in PROMPTED.items():
        tokenizer = chat if talks else lines
        asked = real.sums(40, tokenizer, seed=seed, split="test", example=example)
        if talks:
            words = [f"What is {t.prompt.removesuffix(' =')}?" for t in asked]
            asked = [real.Asked(w, t.answer, tokenizer) for w, t in zip(words, asked)]
        draw = generator("base rates", seed, name)
        given = {"max_tokens": real.TOKENS, "tokenizer": tokenizer, "group": 16}
        rollout = evaluate.ask(start, asked, generator=draw, **given)
        right = real.right(asked, rollout).reshape(40, 16).sum(1).long()
        found[name] = {
            "right": right.double().mean().item() / 16,
            "begins right": real.begins_right(asked, rollout).mean().item(),
            "finished": rollout.terminated.double().mean().item(),
            "pass": [pass_at_k(16, right, k).mean().item() for k in SIZES],
            "answers": [a.text for a in evaluate.answers(rollout, tokenizer)[::128]],
        }
    return found


SUMS = Record(
    "real_sums",
    call,
    runs={
        "GRPO": partial(grpo, lr=FULL),
        "GRPO, LoRA": partial(grpo, lr=LORA, prepare=with_lora),
        "SFT": shown,
        "prompts": asked_otherwise,
    },
    seeds=range(3),
    file=__file__,
)


# --- sentences ------------------------------------------------------------------------


def pairs_for(seed: int, chat: ChatTokenizer) -> Any:
    """The most and the least cheerful of four samples to each training topic."""
    asked = real.topics(TOPICS, chat, seed=seed)
    return real.best_and_worst(real.ready()[0], asked, seed=seed)


def too_cheerful(seed: int) -> dict[str, Any]:
    """DPO on the most against the least cheerful: the frontier, and what is lost."""
    start, _, chat = real.ready()
    path: dict[str, Any] = {}

    def watch(update: int, policy: nn.Module) -> None:
        if update % DPO_EVERY == 0 or update == DPO_UPDATES:
            path[str(update)] = real.judged(policy, start, chat, seed)

    with real.costs() as spent:
        pairs = pairs_for(seed, chat).first(56)
        policy, history = direct.align(
            start,
            pairs,
            partial(dpo, beta=0.1),
            epochs=-(-DPO_UPDATES * DPO_BATCH // len(pairs)),
            lr=DPO_LR,
            batch=DPO_BATCH,
            seed=seed,
            watch=watch,
            progress=f"DPO, seed {seed}",
        )
    return {"pairs": len(pairs), "path": path, "margin": history["margin"], **spent}


def best_of_n(seed: int) -> dict[str, Any]:
    """A reward model on such pairs, and best-of-n by it and by the word list itself."""
    start, _, chat = real.ready()
    with real.costs() as spent:
        model, history = fit_reward_model(
            start,
            pairs_for(seed, chat),
            epochs=2,
            lr=1e-5,
            batch=8,
            seed=seed,
            progress=f"reward model, seed {seed}",
        )
        asked = real.topics(50, chat, seed=seed, split="test")
        draw = generator("best of n", seed)
        given = {"max_tokens": real.SENTENCE, "tokenizer": chat, "group": SIZES[-1]}
        rollout = evaluate.ask(start, asked, generator=draw, **given)
        gold = real.cheerful(asked, rollout).reshape(50, -1)
        names = real.names_it(asked, rollout).reshape(50, -1)
        proxy = score(model, rollout, batch=32).reshape(50, -1)
        held = real.best_and_worst(start, asked, seed=seed + 100)
    return {
        "accuracy": accuracy(model, held),
        "pairs held out": len(held),
        "loss": history["loss"],
        "by the model": ranked(proxy, gold, names),
        "by the word list": ranked(gold, gold, names),
        **spent,
    }


def ranked(by: Tensor, gold: Tensor, names: Tensor) -> dict[str, list[float]]:
    """Cheer and the share that names its topic of the best of n by a score (P, N)."""
    kept = {"cheer": gold, "names it": names}
    return {k: best_of(by, x, SIZES).mean(0).tolist() for k, x in kept.items()}


SENTENCES = Record(
    "real_sentences",
    call,
    runs={"DPO": too_cheerful, "best of n": best_of_n},
    seeds=range(3),
    file=__file__,
)
