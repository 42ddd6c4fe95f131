"""Who compares answers to open requests: five annotators near gold, with one blind spot.

Each weighs what gold weighs in a way of their own, errs, and sometimes does not look. One
thing none of them knows: who keeps what pet. They believe whatever is said of it, so a
false pet counts as a true fact. A reward model that learns from them is good, is wrong
there, and can be exploited.
"""

import math
import random
from dataclasses import dataclass, replace

from lib import require
from lib.worlds.people import person_in
from lib.worlds.talk import Judgement, Weights, answer, features, gold, make
from lib.worlds.task import Task


def believed(seen: Judgement) -> Judgement:
    """An answer's counts to those who know nobody's pet: a false one counts as true."""
    pets = seen.false_pets
    return replace(seen, true=seen.true + pets, false=seen.false - pets)


@dataclass(frozen=True)
class Annotator:
    """Somebody with a taste near gold's who errs (Bradley and Terry 1952).

    P(one over two) = (1 - inattention) σ((score of one - score of two) / temperature)
    + inattention / 2, with their own weights, and with every pet believed.
    """

    name: str
    weights: Weights
    temperature: float = 0.8
    inattention: float = 0.1

    def probability(
        self,
        task: Task,
        one: str,
        two: str,
        *,
        finished: tuple[bool, bool] = (True, True),
    ) -> float:
        """P(the first of two answers is preferred)."""
        seen = (
            believed(features(task, text, finished=end))
            for text, end in zip((one, two), finished)
        )
        return self.probability_of(*seen)

    def probability_of(self, one: Judgement, two: Judgement) -> float:
        """P(the first is preferred) to somebody who sees these counts in two answers."""
        gap = (self.weights.score(one) - self.weights.score(two)) / self.temperature
        looking = (1 + math.tanh(gap / 2)) / 2  # the logistic function, at any gap
        return (1 - self.inattention) * looking + self.inattention / 2


PANEL = (
    Annotator("teacher", Weights(false=-2.0, kind=0.3, long=-0.05), temperature=0.7),
    Annotator("singer", Weights(true=0.7, kind=0.8, gush=0.1)),
    Annotator("farmer", Weights(true=0.8, long=-0.2, repeated=-1.5)),
    Annotator("doctor", Weights(true=1.2, kind=0.4, astray=-2.5), inattention=0.05),
    Annotator("miner", Weights(false=-1.0, astray=-1.0, cut=-0.5), inattention=0.2),
)


@dataclass(frozen=True)
class Annotators:
    """Several of them: each comparison is made by one, drawn at random."""

    panel: tuple[Annotator, ...] = PANEL

    def probability(
        self,
        task: Task,
        one: str,
        two: str,
        *,
        finished: tuple[bool, bool] = (True, True),
    ) -> float:
        """P(the first of two answers is preferred), over who is asked and how they err."""
        by_each = [a.probability(task, one, two, finished=finished) for a in self.panel]
        return sum(by_each) / len(by_each)

    def prefer(
        self,
        task: Task,
        one: str,
        two: str,
        draw: random.Random,
        *,
        finished: tuple[bool, bool] = (True, True),
    ) -> bool:
        """Was the first of two answers preferred, by whoever was asked?"""
        asked = draw.choice(self.panel)
        return draw.random() < asked.probability(task, one, two, finished=finished)


def pairs(*, count: int, seed: int) -> list[tuple[Task, str, str]]:
    """`count` requests, each with two answers of people that gold tells apart.

    The first is the better one.
    """
    require.count("count", count)
    draw, made = random.Random(f"pairs {seed}"), []
    while len(made) < count:
        request, one = make(draw, 1)
        task, two = Task("talk", 1, request, one), answer(draw, person_in(request))
        better = gold(task, one) - gold(task, two)
        if abs(better) > 1e-9:
            made.append((task, one, two) if better > 0 else (task, two, one))
    return made


def agreement(
    judge: Annotator | Annotators, *, count: int = 1000, seed: int = 0
) -> float:
    """How often they prefer what gold prefers, in expectation, over people's answers.

    Of the annotators together this is also how often a judge with gold's own taste
    agrees with their labels.
    """
    chances = [judge.probability(*pair) for pair in pairs(count=count, seed=seed)]
    return sum(chances) / len(chances)


def ceiling(
    judge: Annotator | Annotators, *, count: int = 1000, seed: int = 0
) -> float:
    """How often the best possible reward model agrees with their labels: E max(p, 1 - p)."""
    chances = [judge.probability(*pair) for pair in pairs(count=count, seed=seed)]
    return sum(max(p, 1 - p) for p in chances) / len(chances)
