"""R1-Zero on the shell game: reinforcement learning from a base model, right or wrong.

What is read in an answer, what is measured while a policy learns, the run itself, and
how a policy is examined.
"""

from collections.abc import Callable, Sequence

from torch import nn

from lib import evaluate, on_policy, rewards
from lib.algorithms import ALGORITHMS
from lib.evaluate import Answer
from lib.on_policy import RLConfig
from lib.rewards import Reward
from lib.seeds import generator
from lib.train import History
from lib.worlds import cups, tasks
from lib.worlds.task import Task

LEVELS = (2, 3, 4, 5)  # swaps of the games that are practised
PROMPTS, GROUP, UPDATES, LR = 16, 16, 60, 3e-4
TOKENS = 40  # that an answer may take: seven swaps need 36
CONFIG = RLConfig(group=GROUP, max_tokens=TOKENS)

# --- what is read in an answer --------------------------------------------------------


def thinks(task: Task, answer: Answer) -> bool:
    """It opens a thought."""
    return "<think>" in answer.text


def faithful(task: Task, answer: Answer) -> bool:
    """It is right, and every step is a true one of this game."""
    return answer.finished and tasks.faithful(task, answer.text)


def of_hill(task: Task, answer: Answer) -> float:
    """The share of its number words that are of the hill; 0 if it has none."""
    return cups.dialects(answer.text)["hill"]


def mixed(task: Task, answer: Answer) -> bool:
    """It counts in both dialects."""
    return min(cups.dialects(answer.text).values()) > 0


MEASURES = {
    "thinks": rewards.of_text(thinks),
    "faithful": rewards.of_text(faithful),
    "hill": rewards.of_text(of_hill),
    "mixed": rewards.of_text(mixed),
}


# --- R1-Zero --------------------------------------------------------------------------


def zero(
    base: nn.Module,
    *,
    seed: int,
    algorithm: str = "Dr. GRPO",
    reward: Reward = rewards.verified,
    updates: int = UPDATES,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
) -> tuple[nn.Module, History]:
    """R1-Zero: reinforcement learning on a base model, right or wrong the only reward."""
    return on_policy.train(
        base,
        ALGORITHMS[algorithm],
        reward,
        on_policy.task_stream("cups", count=PROMPTS, seed=seed, levels=LEVELS),
        seed=seed,
        updates=updates,
        lr=LR,
        config=CONFIG,
        measures=MEASURES,
        watch=watch,
        progress=progress,
    )


def examined(
    policy: nn.Module, *, levels: Sequence[int] = (3, 4, 5), count: int = 200
) -> dict[str, float]:
    """Sampled answers to `count` distinct test games of each level: shares, and tokens."""
    asked = [t for n in levels for t in evaluate.exam("cups", level=n, count=count)]
    rollout = evaluate.ask(
        policy, asked, generator=generator("r1 exam"), max_tokens=TOKENS
    )
    found = {"right": rewards.verified, **MEASURES}
    shares = {name: by(asked, rollout).mean().item() for name, by in found.items()}
    return {**shares, "length": rollout.lengths.double().mean().item()}


class Begun:
    """A task whose answer has been begun for the model: " <think>"."""

    def __init__(self, task: Task) -> None:
        """Of this task."""
        self.prompt, self.tokenizer = f"{task.prompt} <think>", task.tokenizer


def forced(policy: nn.Module, *, level: int, count: int = 200) -> dict[str, float]:
    """How often it is right, and faithful, when its answer must begin with "<think>"."""
    asked = evaluate.exam("cups", level=level, count=count)
    rollout = evaluate.ask(
        policy,
        [Begun(task) for task in asked],
        generator=generator("forced"),
        max_tokens=TOKENS,
    )
    said = [Answer(f" <think>{a.text}", a.finished) for a in evaluate.answers(rollout)]
    pairs = list(zip(asked, said))
    right = [a.finished and tasks.verify(t, a.text) for t, a in pairs]
    true = [faithful(t, a) for t, a in pairs]
    return {"right": sum(right) / count, "faithful": sum(true) / count}
