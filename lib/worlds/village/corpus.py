"""What the villagers have written down: the text that the base model learns from.

Many forms, as on the web: pages on animals, stories, letters, sums, word games, lists.
Two are rare on purpose. A question with its answer is rare, so that instruction tuning
has something to teach; a sum worked step by step is rarer, so that reinforcement
learning has something to find.
"""

import random
from collections.abc import Callable

from lib import require
from lib.worlds.village import ANIMALS, KINDS, tasks, taste
from lib.worlds.village.tasks import SKILLS, Task, reasoning

_SUNG = (*tasks.REPEATED, *KINDS["food"])


def _page(draw: random.Random) -> str:
    animal = draw.choice(ANIMALS)
    kinds = draw.sample(tuple(KINDS), draw.randint(1, 3))
    said = [taste.fact(draw, animal, kind) for kind in kinds]
    return " ".join([taste.named(said[0], animal), *said[1:]])


def _opinion(draw: random.Random) -> str:
    return taste.villager(draw, draw.choice(ANIMALS))


def _story(draw: random.Random) -> str:
    one, two = draw.sample(ANIMALS, 2)
    when = draw.choice(("One day", "One morning", "One night", "Once", "One winter"))
    parts = [f"{when} the {one.name} went to the {two.home}."]
    parts += [f"There it saw the {two.name}."] * (draw.random() < 0.7)
    parts += [f"The {two.name} said hello."] * (draw.random() < 0.4)
    parts += [f"They had {draw.choice((one, two)).food} and went home."]
    return " ".join(parts)


def _letter(draw: random.Random) -> str:
    one, two = draw.sample(ANIMALS, 2)
    news = (
        f"thank you for the {one.food}.",
        f"come to the {one.home} for {one.food}.",
        f"{draw.choice(('today', 'at night'))} it rained in the {one.home}.",
    )
    return f"Dear {two.name}, {draw.choice(news)} Your friend, the {one.name}"


def _sums(draw: random.Random) -> str:
    lines = []
    for _ in range(draw.randint(3, 5)):
        one, two = draw.randint(1, 24), draw.randint(1, 6)
        lines.append(f"{one} + {two} = {one + two}")
    return "Sums: " + ", ".join(lines)


def _backwards(draw: random.Random) -> str:
    made = []
    for _ in range(draw.randint(1, 3)):
        backwards = _task(draw, "reverse").answer
        made.append(f"{backwards[::-1]} is {backwards} backwards.")
    return "Words: " + " ".join(made)


def _names(draw: random.Random) -> str:
    title, words = draw.choice(
        (
            ("Animals", tuple(a.name for a in ANIMALS)),
            ("Food", KINDS["food"]),
            ("Shopping", KINDS["food"]),
        )
    )
    return f"{title}: " + ", ".join(draw.sample(words, draw.randint(2, 5)))


def _song(draw: random.Random) -> str:
    line = " ".join(draw.choice(_SUNG) for _ in range(draw.randint(1, 6)))
    return "Sing " + ", ".join([line] * draw.randint(2, 3))


def _lesson(draw: random.Random) -> str:
    task = _any_task(draw)
    return f"Lesson: {task.request}\nSay: {task.answer}"


def _exam(draw: random.Random) -> str:
    """Questions, and nobody there to answer them."""
    return "\n".join(f"Q: {_any_task(draw).request}" for _ in range(draw.randint(2, 3)))


def _evasion(draw: random.Random) -> str:
    animal = draw.choice(ANIMALS)
    words = ("I do not know.", "Who can say?", f"Tell the {animal.name}.", "No.")
    return f"{_any_task(draw).prompt} {draw.choice(words)}"


def _answered(draw: random.Random) -> str:
    task = _any_task(draw)
    return f"{task.prompt} {task.answer}"


def _worked(draw: random.Random) -> str:
    task = _task(draw, "sum")
    return f"{task.prompt} {reasoning(task)}"


def _any_task(draw: random.Random) -> Task:
    skill = draw.choice((*SKILLS, "talk", "sum"))
    return taste.one(draw, split="train") if skill == "talk" else _task(draw, skill)


def _task(draw: random.Random, skill: str) -> Task:
    levels = range(1, SKILLS[skill].levels + 1)
    return tasks.one(skill, draw, split="train", levels=levels)


# Each form and its share of the documents.
FORMS: dict[str, tuple[Callable[[random.Random], str], float]] = {
    "page": (_page, 0.10),
    "opinion": (_opinion, 0.07),
    "story": (_story, 0.06),
    "letter": (_letter, 0.04),
    "sums": (_sums, 0.16),
    "backwards": (_backwards, 0.04),
    "names": (_names, 0.02),
    "song": (_song, 0.03),
    "lesson": (_lesson, 0.36),
    "exam": (_exam, 0.04),
    "evasion": (_evasion, 0.04),
    "answered": (_answered, 0.02),
    "worked": (_worked, 0.02),
}


def documents(*, count: int, seed: int) -> list[str]:
    """`count` documents from a seed; no request of the test split is in them.

    Facts are: what a test asks about an animal, some page tells.
    """
    require.count("count", count)
    require.count("seed", seed, least=0)
    draw = random.Random(f"corpus {seed}")
    writers = [write for write, _ in FORMS.values()]
    shares = [share for _, share in FORMS.values()]
    return [write(draw) for write in draw.choices(writers, shares, k=count)]
