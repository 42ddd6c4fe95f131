"""Tülu 3 on the valley: a clean mix, length-normalised DPO, verifiers as the reward.

Prompts are kept off the exams by their n-grams; demonstrations of every skill, pairs of
the model's own and of others' answers, and games and lists of words that code can check.
After every stage each skill is examined, item by item. At the end, a verifier that can be
satisfied without an answer.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from labs import deepseek_r1 as r1
from labs import r1_zero
from labs.deepseek_r1 import Shown
from lib import direct, evaluate, on_policy, pretrain, require, rewards
from lib.algorithms import ALGORITHMS
from lib.evaluate import Answer
from lib.losses.preference import dpo
from lib.models.transformer import Transformer
from lib.on_policy import RLConfig
from lib.preference_data import PreferencePairs
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import instruct
from lib.train import History
from lib.worlds import cups, people, talk, tasks
from lib.worlds.people import person_in
from lib.worlds.task import Task, TaskSampler

TOKENS = 40  # that an answer may take
Watch = Callable[[int, nn.Module], None]

# --- keep the exam out ----------------------------------------------------------------

N, SHARE = 13, 0.5  # tokens in a row, and the share of a held-out prompt they may cover


def words(text: str) -> tuple[str, ...]:
    """Its words, numbers and marks; a swap is one word: "Red 3. ant 1-5." has six."""
    return tuple(re.findall(r"[\w-]+|[^\w\s]", text))


def overlap(text: Sequence[str], held_out: Sequence[str], *, n: int = N) -> float:
    """The share of the held-out tokens that lie in an n-gram which `text` has as well.

    A held-out prompt of fewer than n tokens is one n-gram (Lambert et al. 2024, 3.2).
    """
    require.count("n", n)
    if not held_out:
        require.refuse("held_out", "no tokens", "at least one")
    size = min(n, len(held_out))
    seen, covered = set(_grams(text, size)), set()
    for first, gram in enumerate(_grams(held_out, size)):
        if gram in seen:
            covered.update(range(first, first + size))
    return len(covered) / len(held_out)


def decontaminator(
    held_out: Iterable[str], *, n: int = N, share: float = SHARE
) -> Callable[[str], bool]:
    """A function that says whether a prompt is too near to one of the held-out ones."""
    require.unit_interval("share", share)
    places: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for request in set(held_out):
        tokens = words(request)
        for gram in _grams(tokens, min(n, len(tokens))):
            places.setdefault(gram, set()).add(tokens)
    sizes = {len(gram) for gram in places}

    def near(request: str) -> bool:
        tokens = words(request)
        grams = (gram for size in sizes for gram in _grams(tokens, size))
        met = set().union(*(places.get(gram, ()) for gram in grams))
        return any(overlap(tokens, other, n=n) > share for other in met)

    return near


def _grams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


# --- the exam -------------------------------------------------------------------------

LEVELS = {skill: tuple(tasks.LEVELS[skill]) for skill in tasks.LEVELS} | {
    "cups": (3, 4, 5)
}  # of the exam: games of 3 to 5 swaps
ITEMS = 200  # distinct ones of each skill and level


@cache
def exam(skill: str) -> list[Task]:
    """ITEMS distinct test tasks of each level of a skill."""
    every = [evaluate.exam(skill, level=n, count=ITEMS) for n in LEVELS[skill]]
    return [task for some in every for task in some]


def held_out() -> list[str]:
    """All prompts of the exams."""
    return [task.request for skill in LEVELS for task in exam(skill)]


@cache
def too_near() -> Callable[[str], bool]:
    """Whether a prompt is too near to one of the exams."""
    return decontaminator(held_out())


def clean_tasks(skill: str, *, count: int, seed: int) -> tuple[list[Task], int]:
    """`count` training tasks, none too near to the exam, and how many were passed over."""
    levels = r1_zero.LEVELS if skill == "cups" else None
    pool = tasks.tasks(skill, count=2 * count + 8, seed=seed, levels=levels)
    clean = (i for i, task in enumerate(pool) if not too_near()(task.request))
    kept = [*islice(clean, count)]
    if len(kept) < count:
        require.refuse("count", count, f"at most the {len(kept)} found")
    return [pool[i] for i in kept], kept[-1] + 1 - count


def examined(policy: nn.Module, start: nn.Module | None = None) -> dict[str, Any]:
    """A sampled answer to every item: what it is worth, and KL from `start` in nats.

    Right and wrong are a text of 1 and 0, an item each; talk is gold's scores.
    """
    found: dict[str, Any] = {"kl": {}}
    for skill in LEVELS:
        asked, luck = exam(skill), generator("tulu3 exam", skill)
        rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
        worth = evaluate.scores(asked, rollout).tolist()
        right = "".join(f"{x:.0f}" for x in worth)
        found[skill] = worth if skill == "talk" else right
        if skill == "cups":
            said = evaluate.answers(rollout)
            found["thinks"] = sum("<think>" in a.text for a in said) / len(said)
        if start is not None:
            drift = rewards.drift(start)(asked, rollout).mean().item()
            found["kl"][skill] = drift
    return found


def marks(found: Mapping[str, Any], skill: str) -> Tensor:
    """What `examined` kept of a skill, as numbers: (ITEMS,), means over its levels."""
    each = torch.tensor([float(x) for x in found[skill]], dtype=torch.float64)
    return each.reshape(len(LEVELS[skill]), -1).mean(0)


# --- stage 1: a mix -------------------------------------------------------------------

GAMES, EACH = 40, 400  # worked games, and answers to each other skill
EPOCHS, SFT_LR = 2, 1e-3


def mix(seed: int) -> tuple[Shown, int]:
    """Demonstrations that are not too near to the exam; how many prompts were."""
    shown: list[tuple[Task, str]] = []
    thrown = 0
    for skill in LEVELS:
        count, number = (GAMES if skill == "cups" else EACH), seed_of("mix", seed)
        asked, near = clean_tasks(skill, count=count, seed=number)
        hill = skill == "cups"
        told = [
            cups.worked(cups.game_of(t), "hill") if hill else t.answer for t in asked
        ]
        shown, thrown = [*shown, *zip(asked, told)], thrown + near
    return shown, thrown


def distinct(shown: Shown) -> dict[str, tuple[int, int, int]]:
    """Of each skill: demonstrations, different ones, and different prompts."""
    found = {}
    for skill in LEVELS:
        some = [(task.request, text) for task, text in shown if task.skill == skill]
        found[skill] = len(some), len(set(some)), len({request for request, _ in some})
    return found


def tuned(
    model: Transformer, shown: Shown, *, seed: int, progress: str | None = None
) -> Transformer:
    """A copy of the model that has imitated the demonstrations."""
    pupil = copy.deepcopy(model)
    told = {"epochs": EPOCHS, "lr": SFT_LR, "seed": seed, "progress": progress}
    instruct(pupil, shown, **told)
    return pupil


# --- stage 2: preferences -------------------------------------------------------------

PAIRS, BETA, DPO_LR = 1_536, 5.0, 3e-4  # beta in units of a token
SOURCES = ("both", "own", "others'")


def pairs_of(policy: Transformer, source: str, *, seed: int) -> PreferencePairs:
    """PAIRS comparisons of the policy's own answers, of another base's, or half of each."""
    require.one_of("source", source, SOURCES)
    other = pretrain.base_model(seed=(seed + 1) % 5)
    if source != "both":
        writer = policy if source == "own" else other
        return r1.compared(writer, count=PAIRS, seed=seed)
    mine = r1.compared(policy, count=PAIRS // 2, seed=seed)
    return mine + r1.compared(other, count=PAIRS // 2, seed=seed_of("other", seed))


def preferred(
    policy: Transformer,
    pairs: PreferencePairs,
    *,
    seed: int,
    lr: float = DPO_LR,
    beta: float = BETA,
    progress: str | None = None,
) -> tuple[nn.Module, History]:
    """DPO on means per token, once through the pairs."""
    loss = partial(dpo, beta=beta)
    told = {"lr": lr, "seed": seed, "batch": 32, "progress": progress}
    return direct.align(policy, pairs, loss, per_token=True, **told)


# --- stage 3: verifiers ---------------------------------------------------------------

ASKED = {"cups": 6, "constraints": 12}  # tasks of an update
GROUP, UPDATES, RL_LR, RL_BETA = 8, 24, 3e-4, 0.05


def ask_for(seed: int) -> TaskSampler:
    """For each update ASKED new training tasks, none too near to the exam."""

    def ask(update: int) -> list[Task]:
        number = seed_of("rlvr", seed, update)
        each = (clean_tasks(s, count=n, seed=number)[0] for s, n in ASKED.items())
        return [task for some in each for task in some]

    return ask


def practised(
    policy: nn.Module,
    *,
    seed: int,
    algorithm: str = "GRPO",
    lr: float = RL_LR,
    beta: float = RL_BETA,
    updates: int = UPDATES,
    progress: str | None = None,
) -> tuple[nn.Module, History]:
    """Reinforcement learning on games and constraints, with verifiers alone."""
    return on_policy.train(
        policy,
        ALGORITHMS[algorithm],
        rewards.verified,
        ask_for(seed),
        seed=seed,
        updates=updates,
        lr=lr,
        config=RLConfig(group=GROUP, max_tokens=TOKENS, beta=beta),
        progress=progress,
    )


# --- a verifier that reads the form alone ---------------------------------------------

SENTENCES, FORM_LR, FORM_BETA = 4, 1e-3, 0.1


def long_enough(task: Task, answer: Answer) -> float:
    """1 for a finished answer with SENTENCES full stops or more, whatever it says."""
    return float(answer.finished and answer.text.count(".") >= SENTENCES)


def satisfied(
    policy: nn.Module,
    *,
    seed: int,
    beta: float,
    updates: int = UPDATES,
    watch: Watch | None = None,
    progress: str | None = None,
) -> tuple[nn.Module, History]:
    """Reinforcement learning on open requests, with `long_enough` as the reward."""
    return on_policy.train(
        policy,
        ALGORITHMS["GRPO"],
        rewards.of_text(long_enough),
        on_policy.task_stream("talk", count=16, seed=seed),
        seed=seed,
        updates=updates,
        lr=FORM_LR,
        config=RLConfig(group=GROUP, max_tokens=TOKENS, beta=beta),
        watch=watch,
        progress=progress,
    )


def looked_at(policy: nn.Module, start: nn.Module) -> dict[str, float]:
    """The exam's open requests: the verifier, gold, and what is in the answers."""
    asked, luck = exam("talk"), generator("looked at")
    rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
    said = [*zip(asked, evaluate.answers(rollout))]
    seen = [talk.features(t, a.text, finished=a.finished) for t, a in said]
    return {
        "verifier": sum(long_enough(*each) for each in said) / len(said),
        "gold": evaluate.scores(asked, rollout).mean().item(),
        "kl": rewards.drift(start)(asked, rollout).mean().item(),
        "true": sum(s.true for s in seen) / len(seen),
        "false": sum(s.false for s in seen) / len(seen),
        "repeated": sum(s.repeated for s in seen) / len(seen),
        "of others": sum(s.astray for s in seen) / len(seen),
        "tells nothing": sum(s.true == 0 for s in seen) / len(seen),
    }


def answers_to(policy: nn.Module, *, count: int) -> dict[str, str]:
    """An answer to each of the first open requests of the exam."""
    asked, luck = exam("talk")[:count], generator("said")
    rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
    said = (f"{a.text}{'' if a.finished else ' …'}" for a in evaluate.answers(rollout))
    return {task.request: text for task, text in zip(asked, said)}


# --- a leak ---------------------------------------------------------------------------


LEAKS = 4  # times that each question stands in the mix


def leak() -> tuple[list[Task], list[Task], list[Task]]:
    """Facts of test people: those that leak, the same in other words, and others.

    All are distinct test questions; the third kind is about facts that do not leak.
    """
    every = evaluate.exam("facts", count=600)
    fact = [(person_in(t.request).name, people.kind_in(t.request)) for t in every]
    first = set(fact[:ITEMS])
    rest = [*zip(every, fact)][ITEMS:]
    again = [task for task, about in rest if about in first]
    return every[:ITEMS], again, [task for task, about in rest if about not in first]


def right(policy: nn.Module, asked: Sequence[Task]) -> Tensor:
    """The share of four sampled answers to each task that is right: (N,)."""
    told = {"group": 4, "max_tokens": 8, "generator": generator("right")}
    rollout: Rollout = evaluate.ask(policy, asked, **told)
    return evaluate.scores(asked, rollout).reshape(-1, 4).mean(1)
