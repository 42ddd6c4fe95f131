"""InstructGPT in three steps: demonstrations, a model of rankings, PPO with old text.

Supervised fine-tuning (SFT) of a base on people's answers; a reward model from rankings
of K answers to a prompt; PPO against it, with a critic that starts as the reward model, a
KL penalty on each token, and the pretraining loss mixed in (Ouyang et al. 2022). Each
step is a function of a seed; ablations leave some out.
"""

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from labs.deepseek_r1 import PANEL, Shown, demonstrations, readable
from lib import evaluate, pretrain, ready, rewards
from lib.algorithms import ALGORITHMS
from lib.evaluate import Answer
from lib.losses.policy_gradient import Loss
from lib.losses.reward import k_wise
from lib.models.transformer import Transformer
from lib.on_policy import (
    PolicyWithCritic,
    RLConfig,
    loss_of,
    task_stream,
    training_batches,
)
from lib.pretrain import Packed, next_token_loss
from lib.reward_model import RewardModel, SurprisalRewardModel, at_last, score
from lib.rewards import Reward
from lib.rollout import Batch, Rollout, concat
from lib.seeds import generator, seed_of
from lib.sft import instruct, written
from lib.train import History, fit, minibatches, warm_cosine
from lib.worlds import tasks
from lib.worlds.annotators import believed
from lib.worlds.talk import features
from lib.worlds.task import Task

# --- 1: demonstrations ----------------------------------------------------------------

SHOWN = 600  # answers of people to each of five skills
EPOCHS = 2


def shown_by_people(seed: int, *, count: int = SHOWN) -> Shown:
    """`count` demonstrations of each skill, games among them."""
    number = seed_of("shown", seed)
    return [*demonstrations(count, seed=number), *readable(count, seed=number)]


def distinct(shown: Shown) -> dict[str, int]:
    """How many different demonstrations and requests there are, skill by skill."""
    every = {(task.skill, task.request, answer) for task, answer in shown}
    asked = {(skill, request) for skill, request, _ in every}
    found = {"demonstrations": len(every), "requests": len(asked)}
    for skill in tasks.LEVELS:
        found[skill] = sum(each[0] == skill for each in every)
    return found


def sft(base: Transformer, *, seed: int, progress: str | None = None) -> Transformer:
    """A copy of the base that has imitated people's answers."""
    pupil, shown = copy.deepcopy(base), shown_by_people(seed)
    instruct(pupil, shown, epochs=EPOCHS, lr=1e-3, seed=seed, progress=progress)
    return ready.rounded(pupil)


# --- 2: rankings, and a model of them -------------------------------------------------

RANKED, K = 1_000, 4  # prompts, and answers to each
PROMPTS = 4  # in a batch
RM_EPOCHS, RM_LR = 2, 2e-3


@dataclass(frozen=True)
class Rankings:
    """K answers to each of P requests, the best first."""

    asked: Sequence[Task]  # P
    answers: Rollout  # (P · K, T)

    def rows(self, index: Tensor) -> "Rankings":
        """These rankings only."""
        each = torch.arange(len(self.answers) // len(self.asked))
        at = (index.unsqueeze(1) * len(each) + each).flatten()
        return Rankings([self.asked[i] for i in index.tolist()], self.answers.rows(at))

    def __len__(self) -> int:
        return len(self.asked)


def rank(task: Task, said: Sequence[Answer], draw: random.Random) -> list[int]:
    """The order, best first, in which one annotator of the panel puts some answers.

    Each score gets noise of the Gumbel law, so the order follows Plackett and Luce: any
    two answers stand in it as `Annotator.probability` says. Who does not look ranks blindly.
    """
    one = draw.choice(PANEL.panel)
    looks = draw.random() >= one.inattention
    liked = []
    for answer in said:
        seen = believed(features(task, answer.text, finished=answer.finished))
        noise = -math.log(-math.log(draw.random()))
        liked.append(looks * one.weights.score(seen) / one.temperature + noise)
    return sorted(range(len(said)), key=lambda i: -liked[i])


def ranked(
    writer: nn.Module, *, seed: int, count: int = RANKED, k: int = K
) -> Rankings:
    """`count` open requests, k answers of the writer to each, as somebody ranks them."""
    asked = tasks.tasks("talk", count=count, seed=seed_of("ranked", seed))
    luck, draw = generator("ranked", seed), random.Random(seed_of("ranks", seed))
    parts = []
    for first in range(0, count, 500):
        some = asked[first : first + 500]
        rollout = evaluate.ask(writer, some, generator=luck, group=k)
        said = evaluate.answers(rollout)
        order = [
            k * i + j
            for i, task in enumerate(some)
            for j in rank(task, said[k * i : k * (i + 1)], draw)
        ]
        parts.append(rollout.rows(torch.tensor(order)))
    return Rankings(asked, concat(*parts))


def ranking_loss(model: nn.Module, some: Rankings) -> Loss:
    """Eq. 1 of the paper: Bradley–Terry over all pairs of each ranking."""
    scores = at_last(model, some.answers).reshape(len(some), -1)  # (P, K)
    return k_wise(scores)


def one_pair(rankings: Rankings, *, seed: int) -> Rankings:
    """Of each ranking two answers, drawn at random, in their order: one comparison."""
    size, draw = len(rankings.answers) // len(rankings), random.Random(seed)
    rows = [
        size * i + j
        for i in range(len(rankings))
        for j in sorted(draw.sample(range(size), 2))
    ]
    return Rankings(rankings.asked, rankings.answers.rows(torch.tensor(rows)))


def reward_model(
    writer: Transformer,
    rankings: Rankings,
    *,
    seed: int,
    progress: str | None = None,
) -> tuple[RewardModel, History]:
    """A copy of the writer that has learnt to rank as people do.

    Its scores are shifted, so that what people wrote has mean 0 (as in the paper), and
    divided by their standard deviation over the ranked answers (so that beta has a unit).
    """
    model, draw = SurprisalRewardModel(writer), generator("reward model", seed)
    parts = minibatches(len(rankings), epochs=RM_EPOCHS, batch=PROMPTS, generator=draw)
    batches = [rankings.rows(some) for some in parts]
    rate = warm_cosine(RM_LR, len(batches), warm=20)
    history = fit(model, batches, ranking_loss, lr=rate, progress=progress)
    people = demonstrations(SHOWN, seed=seed_of("shown", seed))
    talk = [each for each in people if each[0].skill == "talk"]
    zero = score(model, written(*zip(*talk))).mean()
    size = score(model, rankings.answers).std()
    with torch.no_grad():
        model.head.weight.div_(size)
        model.head.bias.sub_(zero).div_(size)
    return ready.rounded(model), history


# --- 3: PPO with old text -------------------------------------------------------------

ASKED, ANSWERS = 16, 4  # prompts an update, and answers to each
UPDATES, PPO_LR = 40, 1e-3
BETA, PTX = 0.1, 0.05
ROWS = 8  # of old text an update
PPO = ALGORITHMS["PPO"]


@dataclass(frozen=True)
class Mixed:
    """Judged answers, and the old text that is read along with them."""

    judged: Batch
    text: Packed  # (ROWS, T + 1)


def old_text(seed: int) -> list[Packed]:
    """What pretraining reads, freshly written: ROWS rows for each of UPDATES updates."""
    text = pretrain.corpus(seed=seed_of("old text", seed), updates=UPDATES)
    return list(text.split(ROWS))


def mixed_loss(learner: PolicyWithCritic, batch: Mixed, *, ptx: float) -> Loss:
    """PPO's loss and the critic's, and ptx times the loss of pretraining."""
    loss, told = loss_of(PPO)(learner, batch.judged)
    if not ptx:
        return loss, told
    old, _ = next_token_loss(learner.policy, batch.text)
    return loss + ptx * old, {**told, "old text": old.item()}


def ppo(
    start: Transformer,
    judge: RewardModel,
    *,
    seed: int,
    reward: Reward | None = None,
    beta: float = BETA,
    ptx: float = PTX,
    lr: float = PPO_LR,
    updates: int = UPDATES,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
) -> tuple[Transformer, History]:
    """PPO-ptx: a copy of `start` that the judge likes better.

    The critic starts as the judge, and the reference of the KL penalty is `start`.
    """
    policy = copy.deepcopy(start)
    learner = PolicyWithCritic(policy, copy.deepcopy(judge))
    stream = training_batches(
        learner,
        PPO,
        rewards.learned(judge) if reward is None else reward,
        task_stream("talk", count=ASKED, seed=seed),
        seed=seed,
        updates=updates,
        reference=start,
        config=RLConfig(group=ANSWERS, beta=beta),
    )
    text = old_text(seed)

    def batches() -> Iterator[Mixed]:
        for update, judged in enumerate(stream(0)):
            if watch is not None:
                watch(update, policy)
            yield Mixed(judged, text[update])

    loss = partial(mixed_loss, ptx=ptx)
    return policy, fit(learner, batches(), loss, lr=lr, progress=progress)


# --- what came of it ------------------------------------------------------------------


@lru_cache(maxsize=1)
def unread() -> Packed:
    """Old text that no model has read: 64 rows."""
    return pretrain.corpus(seed=seed_of("unread"), updates=8)


@torch.no_grad()
def surprise(model: Transformer) -> float:
    """The loss of pretraining on old text that no model has read, nats a token."""
    return next_token_loss(model, unread())[0].item()


def said_by(policy: nn.Module, *, name: str = "said") -> Rollout:
    """One sampled answer to each of the 200 open requests of the exam."""
    return evaluate.ask(policy, evaluate.exam("talk"), generator=generator(name))


def preferred(one: Rollout, other: Rollout) -> list[float]:
    """P(the panel prefers the first answer to the second), request by request."""
    asked, both = evaluate.exam("talk"), zip(*map(evaluate.answers, (one, other)))
    return [
        PANEL.probability(task, a.text, b.text, finished=(a.finished, b.finished))
        for task, (a, b) in zip(asked, both, strict=True)
    ]


def judged(said: Rollout, judge: RewardModel, reference: nn.Module) -> dict[str, Any]:
    """What the exam's answers are worth, request by request, and what is in them.

    `kl` is KL(policy ‖ reference) in nats an answer; `panel` is the annotators' own
    taste, each pet believed.
    """
    asked = evaluate.exam("talk")
    seen = [
        features(task, a.text, finished=a.finished)
        for task, a in zip(asked, evaluate.answers(said))
    ]
    panel = [[a.weights.score(believed(s)) for a in PANEL.panel] for s in seen]
    return {
        "gold": evaluate.scores(asked, said),
        "panel": torch.tensor(panel, dtype=torch.float64).mean(1),
        "reward": score(judge, said).mean().item(),
        "kl": rewards.drift(reference)(asked, said).mean().item(),
        "true": sum(s.true for s in seen) / len(seen),
        "false pets": sum(s.false_pets for s in seen) / len(seen),
        "other false": sum(s.false - s.false_pets for s in seen) / len(seen),
        "kind": sum(s.kind for s in seen) / len(seen),
        "words": sum(s.words for s in seen) / len(seen),
    }
