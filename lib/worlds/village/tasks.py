"""Instructions whose answers a few lines of code can verify, in six skills.

Each has a difficulty `level`, a reference answer, and a verdict on any other answer
that reads untrusted text: `verify`. Sums may be answered at once or with visible
reasoning, `<think> … </think>`, whose steps can be verified too. Open-ended requests,
which only taste can judge, are in `lib.worlds.village.taste`.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib import require
from lib.models.tokenizer import Tokenizer
from lib.worlds import task
from lib.worlds.verifiers import plain, says_one_number, sentences, verify_number
from lib.worlds.village import (
    ANIMALS,
    BY_NAME,
    KINDS,
    TOKENIZER,
    Animal,
    Split,
    animal_in,
    split_of,
    words_of,
)


@dataclass(frozen=True)
class Task(task.Task):
    """One instruction of the village: "What is 3 + 4 + 2?"."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the village's language."""
        return TOKENIZER


# --- knowledge: what pretraining has read ---------------------------------------------

_QUESTIONS = {
    "colour": ("What colour is the {}?", "The {0.name} is {0.colour}."),
    "home": ("Where does the {} live?", "The {0.name} lives in the {0.home}."),
    "food": ("What does the {} eat?", "The {0.name} eats {0.food}."),
}


def _know(draw: random.Random, level: int) -> Task:
    animal, kind = draw.choice(ANIMALS), draw.choice(tuple(_QUESTIONS))
    question, answer = _QUESTIONS[kind]
    return Task("know", level, question.format(animal.name), answer.format(animal))


def _verify_know(task: Task, answer: str) -> bool:
    animal, kind = _asked(task.request)
    words, names = words_of(answer), set(KINDS[kind])
    others = (set(words) & BY_NAME.keys()) - {animal.name}  # "It is red." names nobody
    right = names.intersection(words) == {getattr(animal, kind)} and not others
    told = [s for s in sentences(answer) if names.intersection(words_of(s))]
    twice = len({" ".join(words_of(s)) for s in told}) < len(told)
    half = len(words) // 2
    again = twice or words[:half] == words[half:]  # a sentence, or the whole
    return right and plain(answer) and not again and "?" not in "".join(told)


def _asked(request: str) -> tuple[Animal, str]:
    animal = animal_in(request)
    questions = {q.format(animal.name): kind for kind, (q, _) in _QUESTIONS.items()}
    return animal, questions[request]


# --- arithmetic: level n adds n + 1 numbers -------------------------------------------


def _sum(draw: random.Random, level: int) -> Task:
    terms = [draw.randint(1, 6) for _ in range(level + 1)]
    request = f"What is {' + '.join(map(str, terms))}?"
    return Task("sum", level, request, str(sum(terms)))


def reasoning(task: Task) -> str:
    """A sum worked step by step: "<think> 3 + 4 = 7. 7 + 2 = 9. </think> 9"."""
    if task.skill != "sum":
        require.refuse("task", f"skill {task.skill!r}", "a sum")
    terms = [int(t) for t in re.findall(r"[0-9]+", task.request)]
    steps, total = [], terms[0]
    for term in terms[1:]:
        steps.append(f"{total} + {term} = {total + term}.")
        total += term
    return f"<think> {' '.join(steps)} </think> {total}"


def _verify_sum(task: Task, answer: str) -> bool:
    said = answer.rpartition("</think>")[2]  # what is only thought is not said
    if "<think>" in said or not says_one_number(said) or not plain(said):
        return False
    asked = any("?" in s and re.search(r"[0-9]", s) for s in sentences(said))
    return not asked and verify_number(said, task.answer)


# --- strings, lists and formats -------------------------------------------------------

_CONSONANTS, _VOWELS = "bdklmnrst", "aeiou"


def nonsense(draw: random.Random, letters: int) -> str:
    """A word that the language lacks, so that it is read letter by letter."""
    while True:
        kinds = draw.choice(((_CONSONANTS, _VOWELS), (_VOWELS, _CONSONANTS)))
        word = "".join(draw.choice(kinds[i % 2]) for i in range(letters))
        if len(TOKENIZER.encode(" " + word)) == letters + 1:
            return word


def _reverse(draw: random.Random, level: int) -> Task:
    word = nonsense(draw, level + 1)
    return Task("reverse", level, f"Reverse {word}.", word[::-1])


REPEATED = ("moon", "star", "pie", "rock", "song", "rain", "wind", "snow", *BY_NAME)


def _repeat(draw: random.Random, level: int) -> Task:
    word, times = draw.choice(REPEATED), level + 1
    request = f"Repeat {word} {times} times."
    return Task("repeat", level, request, " ".join([word] * times))


_LISTS = {"animals": tuple(BY_NAME), "colours": KINDS["colour"], "foods": KINDS["food"]}


def _list(draw: random.Random, level: int) -> Task:
    kind = draw.choice(tuple(_LISTS))
    names = draw.sample(_LISTS[kind], level + 1)
    request = f"List {level + 1} {kind}, {names[0]} first."
    return Task("list", level, request, ", ".join(names))


def _verify_list(task: Task, answer: str) -> bool:
    _, count, kind, first, _ = words_of(task.request)
    names = answer.strip().removesuffix(".").split(", ")
    known = set(names) <= set(_LISTS[kind])
    return known and len(set(names)) == len(names) == int(count) and names[0] == first


_IN_WORDS = (
    "The {0.name} is {0.colour}.",
    "The {0.colour} {0.name} eats {0.food}.",
    "The {0.name} lives in the {0.home}.",
    "The {0.colour} {0.name} lives in the {0.home}.",
    "The {0.colour} {0.name} eats {0.food} in the {0.home}.",
)


def _in_words(draw: random.Random, level: int) -> Task:
    animal = draw.choice(ANIMALS)
    request = f"Describe the {animal.name} in {level + 3} words."
    return Task("words", level, request, _IN_WORDS[level - 1].format(animal))


def _verify_in_words(task: Task, answer: str) -> bool:
    name = animal_in(task.request).name
    right = len(answer.split()) == task.level + 3 and name in words_of(answer)
    return right and plain(answer)  # a question will do


# --- all of them ----------------------------------------------------------------------


@dataclass(frozen=True)
class Skill:
    """How to set a task of this kind, and how to verify an answer to it."""

    make: Callable[[random.Random, int], Task]
    verify: Callable[[Task, str], bool]
    levels: int


def _exactly(task: Task, answer: str) -> bool:
    return answer.strip().removesuffix(".") == task.answer


SKILLS = {
    "know": Skill(_know, _verify_know, 1),
    "sum": Skill(_sum, _verify_sum, 4),
    "reverse": Skill(_reverse, _exactly, 3),
    "repeat": Skill(_repeat, _exactly, 3),
    "list": Skill(_list, _verify_list, 3),
    "words": Skill(_in_words, _verify_in_words, 5),
}


def one(
    skill: str, draw: random.Random, *, split: Split, levels: Sequence[int]
) -> Task:
    """One task of the split, its level drawn from `levels`."""
    while True:
        task = SKILLS[skill].make(draw, draw.choice(levels))
        if split_of(task.request) == split:
            return task


def tasks(
    skill: str,
    *,
    count: int,
    seed: int,
    split: Split = "train",
    levels: Sequence[int] | None = None,
) -> list[Task]:
    """`count` tasks of one skill from a seed, all of one split, of these `levels`.

    Small skills repeat themselves: there are only 48 questions of knowledge.
    """
    _known(skill)
    require.count("count", count)
    require.count("seed", seed, least=0)
    require.one_of("split", split, ("train", "test"))
    every = tuple(range(1, SKILLS[skill].levels + 1))
    chosen = every if levels is None else tuple(levels)
    if not chosen or not set(chosen) <= set(every):
        require.refuse("levels", levels, f"some of {every} for {skill!r}")
    draw = random.Random(f"{skill} {seed}")
    return [one(skill, draw, split=split, levels=chosen) for _ in range(count)]


def verify(task: Task, completion: str) -> bool:
    """Whether a completion, whatever it holds, answers the task as asked.

    It is as strict as the skill and no stricter: a description in words must have their
    number and name the animal, and may say anything of it. But in every skill an answer
    is said once and plainly: one that is denied ("not", "isn't"), hedged ("maybe",
    "or", "I think") or given twice is wrong.
    """
    _known(task.skill)
    return isinstance(completion, str) and SKILLS[task.skill].verify(task, completion)


_THOUGHT = re.compile(r" ?<think>([^<>]{1,2000})</think> [^<>]{1,100}")
_STEP = re.compile(r"([0-9]{1,6}) \+ ([0-9]{1,6}) = ([0-9]{1,7})\.?")


def verify_reasoning(completion: str) -> bool:
    """Whether a completion is one `<think>` block of true sums, then an answer.

    It sees no task: that the sums are those that were asked for, lead from one to the
    next and end in the answer is not verified (that the answer is right, `verify`
    does).
    """
    found = isinstance(completion, str) and _THOUGHT.fullmatch(completion)
    return bool(found) and all(map(_true_sum, found[1].strip().split(". ")))


def _true_sum(step: str) -> bool:
    sides = _STEP.fullmatch(step)
    return sides is not None and int(sides[1]) + int(sides[2]) == int(sides[3])


def _known(skill: str) -> None:
    require.one_of("skill", skill, tuple(SKILLS))
