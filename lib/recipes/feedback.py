"""Learning from people's rankings as InstructGPT did: a reward model, then PPO on it."""

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lib import evaluate, train, villagers
from lib.algorithms import ALGORITHMS
from lib.losses.policy_gradient import Loss
from lib.losses.reward import k_wise
from lib.on_policy import PolicyWithCritic, RLConfig, loss_of, training_batches
from lib.preference_data import PEOPLE, sample_pairs
from lib.recipes.prompts import from_pool, talk
from lib.recipes.stages import Outcome, Run, Work
from lib.reward_model import RewardModel, SurprisalRewardModel, accuracy, at_last
from lib.rewards import Reward, learned
from lib.rollout import Batch, Rollout
from lib.train import fit
from lib.worlds.village import TOKENIZER
from lib.worlds.village.corpus import documents
from lib.worlds.village.taste import Annotators

# --- reward models --------------------------------------------------------------------


def reward_model_stage(
    *,
    answers: Sequence[int] = range(4, 10),
    lr: float = 2e-3,
    batch: int = 8,
    epochs: int = 1,
    annotators: Annotators = PEOPLE,
) -> Run:
    """A reward model from rankings of K answers to a prompt (InstructGPT).

    A batch is `batch` prompts of one K, drawn from `answers`; all C(K, 2) pairs of a
    prompt are one element of the loss. Pairs are rankings of two.
    """

    def run(work: Work) -> Outcome:
        draw = random.Random(f"ranked {work.seed}")
        asked = talk(work.amount, work.seed)
        luck = torch.Generator().manual_seed(work.seed)
        batches, written = [], 0
        for first in range(0, len(asked), batch):
            some, size = asked[first : first + batch], draw.choice(list(answers))
            rollout = evaluate.ask(work.start, some, generator=luck, group=size)
            gold = evaluate.scores(some, rollout).reshape(-1, size)
            order = annotators.rank(gold, generator=luck)  # (P, K), best first
            first_of = torch.arange(len(some), device=order.device).unsqueeze(1) * size
            rows = order + first_of
            batches.append(Ranked(rollout.rows(rows.flatten()), size))
            written += len(rollout)
        order = [draw.sample(batches, len(batches)) for _ in range(epochs)]
        batches, model = sum(order, []), SurprisalRewardModel(work.start)
        history = fit(
            model,
            batches,
            _ranking_loss,
            lr=train.warm_cosine(lr, len(batches), warm=min(10, len(batches))),
            progress=work.progress,
            checkpoint=work.checkpoint,
            every=10,
            run=(work.seed, work.amount),
            over="rows",
        )
        fresh = sample_pairs(work.start, count=256, seed=900 + work.seed, split="test")
        notes = {"accuracy": accuracy(model, fresh)}
        return Outcome(model, history, written, notes)

    return run


@dataclass(frozen=True)
class Ranked:
    """K answers to each of P prompts, the best first."""

    answers: Rollout  # (P · K, T)
    group: int  # K

    def rows(self, index: Tensor) -> "Ranked":
        """These rows only; `index` keeps groups whole."""
        return replace(self, answers=self.answers.rows(index))

    def __len__(self) -> int:
        return len(self.answers)


def _ranking_loss(model: RewardModel, batch: Ranked) -> Loss:
    return k_wise(at_last(model, batch.answers).reshape(-1, batch.group))


# --- PPO ------------------------------------------------------------------------------


def ppo_stage(
    *,
    updates: int | None = None,
    prompts: int = 16,
    group: int = 4,
    lr: float = 1e-3,
    beta: float = 0.02,
    ptx: float = 0.5,
    rows: int = 8,
    reward: Reward | None = None,
) -> Run:
    """PPO against the reward model that the stage uses, whose copy starts the critic.

    A `reward` takes its place (the critic then starts as the policy does, untaught).
    As many updates as the stage says, or these `updates` whatever it says; if neither
    does, as many as ask each prompt once.

    The loss is PPO's plus `ptx` times that of pretraining on as many rows of old text
    (PPO-ptx; Ouyang et al. 2022, Eq. 2).
    """

    def run(work: Work) -> Outcome:
        judge = RewardModel(work.start) if reward is not None else work.used
        learner = PolicyWithCritic(copy.deepcopy(work.start), _critic(judge))
        algorithm = ALGORITHMS["PPO"]
        count = work.count_updates(updates, prompts)
        stream = training_batches(
            learner,
            algorithm,
            learned(judge) if reward is None else reward,
            from_pool(talk(work.amount, work.seed), prompts, work.seed),
            seed=work.seed,
            updates=count,
            reference=work.start,
            config=RLConfig(group=group, beta=beta),
        )
        text = villagers.rows(documents(count=4 * rows * count, seed=5000 + work.seed))

        def pairs(start: int) -> Iterator[Mixed]:
            for update, judged in enumerate(stream(start), start):
                first = update * rows % (len(text) - rows)
                yield Mixed(judged, text[first : first + rows])

        history = fit(
            learner,
            pairs,
            partial(_mixed_loss, ptx=ptx),
            lr=lr,
            progress=work.progress,
            checkpoint=work.checkpoint,
            every=20,
            run=(work.seed, work.amount),
            over=algorithm.over,
        )
        return Outcome(learner.policy, history, int(sum(history["answers"])))

    return run


@dataclass(frozen=True)
class Mixed:
    """Answers to learn from, and old text that goes along with them.

    Both losses are means over tokens, but not over the same ones. In a part of a batch
    the text's has a weight, its own share of tokens over that of the answers, by which
    `fit` weighs them both.
    """

    judged: Batch
    text: Tensor  # (N, length + 1)
    weight: float = 1.0  # of the text's loss

    @property
    def rollout(self) -> Rollout:
        """The answers, over whose tokens PPO's loss is a mean."""
        return self.judged.rollout

    @property
    def group(self) -> int:
        """Rows of answers to each prompt."""
        return self.judged.group

    def rows(self, index: Tensor) -> "Mixed":
        """These answers, and the text that goes with their prompts."""
        judged, prompts = self.judged.rows(index), len(self) // self.group
        of = torch.arange(len(self.text), device="cpu") * prompts // len(self.text)
        text = self.text[torch.isin(of, index.cpu() // self.group)]
        answers = int(judged.rollout.mask.sum()) / int(self.rollout.mask.sum())
        share = _tokens(text) / _tokens(self.text)
        return Mixed(judged, text, self.weight * share / answers)

    def __len__(self) -> int:
        return len(self.judged)


def _tokens(text: Tensor) -> int:
    return int((text[:, 1:] != TOKENIZER.pad).sum())


def _mixed_loss(learner: PolicyWithCritic, batch: Mixed, *, ptx: float) -> Loss:
    """PPO's loss on a batch, and `ptx` times the loss of pretraining on old text."""
    loss, metrics = loss_of(ALGORITHMS["PPO"])(learner, batch.judged)
    if not ptx or not len(batch.text):
        return loss, metrics
    old, told = villagers.next_token_loss(learner.policy, batch.text)
    metrics = {**metrics, "perplexity": told["perplexity"]}
    return loss + ptx * batch.weight * old, metrics


def _critic(reward_model: RewardModel) -> RewardModel:
    """A value model with the reward model's weights, where it has the same ones."""
    critic = RewardModel(reward_model.trunk)
    critic.head.load_state_dict(reward_model.head.state_dict())
    return critic
