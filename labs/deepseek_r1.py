"""DeepSeek R1's four stages on the shell game, each a short function, and their ablations.

Cold start, reinforcement learning on reasoning, imitation of chosen answers from the
base model, reinforcement learning on everything.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labs.r1_zero import CONFIG, LEVELS, LR, TOKENS, examined, mixed, thinks, zero
from lib import evaluate, on_policy, require, rewards
from lib.algorithms import ALGORITHMS
from lib.evaluate import Answer
from lib.models.transformer import Transformer
from lib.rewards import Reward
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import demonstrations, instruct
from lib.train import History
from lib.worlds import cups, tasks
from lib.worlds.task import Task, TaskSampler

UPDATES = 40  # of each of the two rounds of reinforcement learning
GENERAL = ("facts", "strings", "constraints", "talk")  # what is not reasoning
COLD = 300  # worked answers of the cold start: the paper has "thousands"
REASONING, TALKING = 600, 200  # samples of the third stage: 75 % and 25 %


def consistent(task: Task, answer: Answer) -> float:
    """The share of its number words that are not of the lake; 1 if it has none."""
    return 1 - cups.dialects(answer.text)["lake"]


def cold_start(base: Transformer, *, seed: int) -> Transformer:
    """Stage 1: a few faithful thoughts in one dialect, imitated."""
    asked = tasks.tasks("cups", count=COLD, seed=seed_of("cold", seed))
    shown = [(t, cups.worked(cups.game_of(t), "hill")) for t in asked]
    policy = copy.deepcopy(base)
    instruct(policy, shown, epochs=3, lr=1e-3, seed=seed)
    return policy


def reasoning(
    start: nn.Module, *, seed: int, language: float = 0.2, updates: int = UPDATES
) -> tuple[nn.Module, History]:
    """Stage 2: right or wrong, and `language` times the language-consistency reward."""
    reward = rewards.total(
        [rewards.verified, rewards.of_text(consistent)], weights=[1.0, language]
    )
    return zero(start, seed=seed, reward=reward, updates=updates)


def chosen(policy: nn.Module, *, seed: int, count: int) -> list[tuple[Task, str]]:
    """Sampled answers that are right and in one dialect, one to a game."""
    found: list[tuple[Task, str]] = []
    for block in range(8):
        number = seed_of("rejection", seed, block)
        asked = tasks.tasks("cups", count=count, seed=number)
        rollout = evaluate.ask(
            policy, asked, generator=generator(number), max_tokens=TOKENS
        )
        for task, answer in zip(asked, evaluate.answers(rollout)):
            good = answer.finished and tasks.verify(task, answer.text)
            if good and thinks(task, answer) and not mixed(task, answer):
                found.append((task, answer.text))
        if len(found) >= count:
            break
    return found[:count]


def imitation(
    base: Transformer, shown: Sequence[tuple[Task, str]], *, seed: int
) -> Transformer:
    """Stage 3: the chosen answers and general data, two epochs, from the *base*."""
    each = TALKING // len(GENERAL)
    general = demonstrations(GENERAL, count=each, seed=seed)
    policy = copy.deepcopy(base)
    instruct(policy, [*shown, *general], epochs=2, lr=1e-3, seed=seed)
    return policy


def every_kind(seed: int) -> TaskSampler:
    """16 tasks an update: half games, then facts, strings, constraints and talk."""
    shares = {"cups": 8, "facts": 2, "strings": 2, "constraints": 1, "talk": 3}
    levels = {"cups": LEVELS}
    each = [
        on_policy.task_stream(skill, count=n, seed=seed, levels=levels.get(skill))
        for skill, n in shares.items()
    ]
    return lambda update: [task for ask in each for task in ask(update)]


def by_kind(judge: nn.Module, *, scale: float = 0.25) -> Reward:
    """Rules where there are rules, a reward model where there is taste.

    `scale` times what the reward model says: its scores are a few units wide.
    """

    def reward(asked: Sequence[Task], rollout: Rollout) -> Tensor:
        group = len(rollout) // len(asked)
        found = torch.zeros(len(rollout), dtype=torch.float64)
        for open_ended in (False, True):
            some = [i for i, t in enumerate(asked) if (t.skill == "talk") == open_ended]
            if some:
                first = torch.tensor(some).unsqueeze(1) * group
                rows = (first + torch.arange(group)).flatten()
                by, weight = (
                    (rewards.learned(judge), scale) if open_ended else (_ruled, 1)
                )
                found[rows] = weight * by([asked[i] for i in some], rollout.rows(rows))
        return found

    return reward


_ruled = rewards.total(
    [rewards.verified, rewards.of_text(consistent)], weights=[1.0, 0.2]
)


def everything(
    start: nn.Module, judge: nn.Module, *, seed: int, updates: int = UPDATES
) -> tuple[nn.Module, History]:
    """Stage 4: reinforcement learning on all kinds of requests."""
    return on_policy.train(
        start,
        ALGORITHMS["Dr. GRPO"],
        by_kind(judge),
        every_kind(seed),
        seed=seed,
        updates=updates,
        lr=LR,
        config=CONFIG,
    )


def report(policy: nn.Module, *, count: int = 100) -> dict[str, float]:
    """What a stage is judged by: games, their dialect, and every other skill."""
    games = examined(policy, count=count)
    column = {name: games[name] for name in ("right", "thinks", "faithful", "length")}
    column["one dialect"] = games["hill"]
    for skill in GENERAL:
        asked = evaluate.exam(skill, count=count)
        luck = generator("r1 report", skill)
        rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
        column[skill] = evaluate.scores(asked, rollout).mean().item()
    return column


def pipeline(
    base: Transformer,
    judge: nn.Module,
    *,
    seed: int,
    without: str = "",
    updates: int = UPDATES,
) -> dict[str, dict[str, float]]:
    """The four stages on a base, or all but one; the report after each that is run."""
    require.one_of("without", without, ("", *STAGES, "language reward"))
    found, policy = {"base": report(base)}, base
    if without != "cold start":
        policy = cold_start(base, seed=seed)
        found["cold start"] = report(policy)
    if without != "reasoning":
        language = 0.0 if without == "language reward" else 0.2
        policy, _ = reasoning(policy, seed=seed, language=language, updates=updates)
        found["reasoning"] = report(policy)
    if without != "imitation":
        shown = chosen(policy, seed=seed, count=REASONING)
        policy = imitation(base, shown, seed=seed) if shown else base
        found["imitation"] = {**report(policy), "samples": float(len(shown))}
    if without != "everything":
        policy, _ = everything(policy, judge, seed=seed, updates=updates)
        found["everything"] = report(policy)
    return found


STAGES = ("cold start", "reasoning", "imitation", "everything")
