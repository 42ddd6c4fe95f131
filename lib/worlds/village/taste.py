"""Open-ended requests, the villagers' gold taste, and the annotators who report it.

"Tell me about the fox." has no right answer, only better and worse ones. The gold score
says how much better: it likes what is true, to the point, and kind, up to a measure.
No model of the book ever sees it. What models see are the judgements of annotators, who
follow the gold score with noise, and sometimes do not look.
"""

import random
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from lib import require
from lib.worlds.verifiers import denies, hedges, sentences
from lib.worlds.village import (
    ANIMALS,
    KIND_WORDS,
    KINDS,
    Animal,
    Split,
    animal_in,
    split_of,
)
from lib.worlds.village.tasks import Task

# --- what is asked --------------------------------------------------------------------

_REQUESTS = (
    "Tell me about the {}{}.",
    "Describe the {}{}.",
    "Who is the {}{}?",
    "Say something about the {}{}.",
    "Write about the {}{}.",
    "Introduce the {}{}.",
    "What do you know of the {}{}?",
    "Tell a story of the {}{}.",
)
_MANNERS = ("", ", please", " now", " again", " today", " once more")


def one(draw: random.Random, *, split: Split) -> Task:
    """One open-ended request of the split, with one villager's answer."""
    while True:
        animal = draw.choice(ANIMALS)
        request = draw.choice(_REQUESTS).format(animal.name, draw.choice(_MANNERS))
        if split_of(request) == split:
            return Task("talk", 1, request, villager(draw, animal))


def requests(*, count: int, seed: int, split: Split = "train") -> list[Task]:
    """`count` open-ended requests from a seed, each with one villager's answer."""
    require.count("count", count)
    require.count("seed", seed, least=0)
    require.one_of("split", split, ("train", "test"))
    draw = random.Random(f"talk {seed}")
    return [one(draw, split=split) for _ in range(count)]


# --- what a villager answers ----------------------------------------------------------

_SENTENCES = {
    "colour": ("It is {}.", "It is a {} animal."),
    "home": ("It lives in the {}.", "You can find it in the {}."),
    "food": ("It eats {}.", "Every day it eats {}."),
}
_WARM = (
    "It is very {}.",
    "It has a {} name.",
    "It sings a {} song.",
    "It is a {} one.",
)
_EMPTY = ("I saw it at night.", "It was here today.", "I do not know.", "It is old.")
_FACTS, _KINDNESS = (10, 35, 35, 20), (40, 32, 20, 8)  # weights of 0, 1, 2, 3 of them
_WRONG, _ELSEWHERE, _EMPTY_TALK, _TWICE = 0.12, 0.05, 0.15, 0.06  # probabilities


def villager(draw: random.Random, animal: Animal) -> str:
    """An answer as people give them: mostly true, sometimes kind, now and then bad."""
    subject = draw.choice(ANIMALS) if draw.random() < _ELSEWHERE else animal
    kinds = draw.sample(tuple(_SENTENCES), draw.choices(range(4), _FACTS)[0])
    said = [fact(draw, subject, kind) for kind in kinds]
    for _ in range(draw.choices(range(4), _KINDNESS)[0]):
        said.append(draw.choice(_WARM).format(draw.choice(KIND_WORDS)))
    if not said or draw.random() < _EMPTY_TALK:
        said.append(draw.choice(_EMPTY))
    draw.shuffle(said)
    if draw.random() < _TWICE:
        said.append(said[-1])
    return " ".join([named(said[0], subject), *said[1:]])


def fact(draw: random.Random, animal: Animal, kind: str) -> str:
    """A sentence on the animal's colour, home or food; wrong one time in eight."""
    what = draw.choice(KINDS[kind]) if draw.random() < _WRONG else getattr(animal, kind)
    return draw.choice(_SENTENCES[kind]).format(what)


def named(sentence: str, animal: Animal) -> str:
    """The sentence with the animal's name for its first "it"."""
    whole = re.sub(r"\bit\b", f"the {animal.name}", sentence, count=1, flags=re.I)
    return whole[0].upper() + whole[1:]


# --- how good it is -------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What the gold taste sees in an answer; `score` is what it makes of it."""

    to_the_point: bool  # names the animal that was asked about
    true: int  # of colour, home and food: how many are told, rightly
    false: int  # colours, homes and foods that are not its own, or its own denied
    kind: int  # kind words
    words: int
    repeated: int  # sentences said before
    finished: bool  # ends with a full stop, and then ends

    @property
    def score(self) -> float:
        """About 1.8 for a villager's answer, 4 for the best there is."""
        facts = 0.8 * self.true - 1.0 * self.false
        kindness = self.kind - 0.25 * self.kind**2  # two kind words are best
        length = -0.1 * max(0, self.words - 20) - 0.2 * max(0, 5 - self.words)
        form = 0.6 * self.to_the_point - 0.7 * self.repeated - 1.5 * (not self.finished)
        return facts + kindness + length + form


def judge(task: Task, completion: str, *, finished: bool = True) -> Judgement:
    """Read an answer to an open-ended request as the gold taste does.

    A sentence that hedges ("maybe", "or", "I think") tells no true fact, but may tell
    false ones. One that denies ("not", "isn't") is false if it denies what is true, and
    else it tells nothing. `finished` says whether the writer stopped of its own accord
    (end-of-text).
    """
    if task.skill != "talk":
        require.refuse("task", f"skill {task.skill!r}", "an open-ended request, 'talk'")
    animal = animal_in(task.request)
    text = completion.lower()
    told, hedged, denied = _by_manner(text)
    own = {getattr(animal, kind) for kind in KINDS}
    facts = {word for names in KINDS.values() for word in names}
    words = re.findall(r"[a-z]+", text)
    said = [s.strip() for s in text.split(".") if s.strip()]
    return Judgement(
        to_the_point=animal.name in words,
        true=len(own & set(told) - set(denied)),
        false=len(facts & {*told, *hedged} - own) + len(own & set(denied)),
        kind=sum(w in KIND_WORDS for w in told + hedged),
        words=len(words),
        repeated=len(said) - len(set(said)),
        finished=finished and completion.rstrip().endswith("."),
    )


def _by_manner(text: str) -> tuple[list[str], list[str], list[str]]:
    """The words of the sentences that tell, of those that hedge, of those that deny."""
    told, hedged, denied = [], [], []
    for sentence in sentences(text):
        kept = denied if denies(sentence) else hedged if hedges(sentence) else told
        kept += re.findall(r"[a-z]+", sentence)
    return told, hedged, denied


def gold(task: Task, completion: str, *, finished: bool = True) -> float:
    """The gold score of an answer: what the villagers would say if they never erred."""
    return judge(task, completion, finished=finished).score


# --- who says so ----------------------------------------------------------------------


@dataclass(frozen=True)
class Annotators:
    """People who follow the gold score with noise (Bradley and Terry 1952).

    They prefer a to b with probability σ((gold a - gold b) / temperature); at
    temperature 0 they never err, and toss a coin at a tie. With probability
    `error_rate` they do not look and answer at random.
    """

    temperature: float = 0.5
    error_rate: float = 0.05

    def __post_init__(self) -> None:
        require.non_negative("temperature", self.temperature)
        require.unit_interval("error_rate", self.error_rate)

    def probabilities(self, first: Tensor, second: Tensor) -> Tensor:
        """P(the first is preferred), from gold scores: (B,), (B,) -> (B,) float64."""
        _scores("first", first)
        _scores("second", second)
        require.tensor("second", second, first.shape)
        gap = first.double() - second.double()
        if self.temperature == 0:
            looking = 0.5 * (1 + gap.sign())
        else:
            looking = torch.sigmoid(gap / self.temperature)
        return (1 - self.error_rate) * looking + self.error_rate / 2

    def prefer(
        self, first: Tensor, second: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """(B,) bool: the first was preferred."""
        chances = self.probabilities(first, second)
        return _uniform(chances.shape, generator) < chances

    def rank(self, scores: Tensor, *, generator: torch.Generator) -> Tensor:
        """K-wise rankings, best first: gold scores (P, K) -> indices (P, K).

        Plackett–Luce (Luce 1959; Plackett 1975): the best is drawn by softmax(gold /
        temperature), then the next of what is left. For K = 2 it is `prefer`.
        """
        _scores("scores", scores)
        if scores.ndim != 2 or scores.shape[1] < 2:
            require.refuse("scores", f"shape {tuple(scores.shape)}", "(P, K), K ≥ 2")
        noise = -torch.log(-torch.log(_uniform(scores.shape, generator)))  # Gumbel
        looks = _uniform((len(scores), 1), generator) >= self.error_rate
        seen = torch.where(looks, scores.double(), 0.0)
        if self.temperature == 0:
            tied = noise.argsort(-1)  # a random order, then a stable sort by score
            order = seen.gather(1, tied).argsort(dim=-1, descending=True, stable=True)
            return tied.gather(1, order)
        return (seen / self.temperature + noise).argsort(-1, descending=True)


def _scores(name: str, x: Tensor) -> None:
    require.tensor(name, x)
    require.finite(name, x)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    like = {"dtype": torch.float64, "device": generator.device}
    return torch.rand(shape, generator=generator, **like)
