"""What does a judge see? An answer, and the same answer with one thing made worse.

A judge who cannot tell the two apart is right half the time. The gold taste prefers the
first version of every pair.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib import require
from lib.rollout import Rollout
from lib.sft import written
from lib.worlds.exact import completion_logps
from lib.worlds.village import ANIMALS, Animal
from lib.worlds.village.tasks import Task

REQUESTS = ("Tell me about the {}.", "Describe the {}.", "Who is the {}?")
_PLAIN = "The {0.name} is {0.colour}. It lives in the {0.home}."

# What is better about the first version; {0} was asked about, {1} is another animal.
EDITS = {
    "true, not false": (_PLAIN, _PLAIN.replace("0.home", "1.home")),
    "the right animal": ("The {0.name} is very sweet.", "The {1.name} is very sweet."),
    "one fact more": (_PLAIN, "The {0.name} lives in the {0.home}."),
    "a kind word": (_PLAIN + " It is very gentle.", _PLAIN + " It was here today."),
    "not said twice": (_PLAIN, _PLAIN + " It lives in the {0.home}."),
    "not too kind": (
        _PLAIN + " It is very gentle. It has a sweet name.",
        _PLAIN + " It is very gentle. It has a sweet, dear, lovely, happy name.",
    ),
}


def pairs(edit: str) -> tuple[list[Task], list[str], list[str]]:
    """Requests, better answers and worse ones: 16 animals × 3 requests."""
    require.one_of("edit", edit, tuple(EDITS))
    better, worse = EDITS[edit]
    asked = [
        (Task("talk", 1, request.format(animal.name), ""), animal, _another(animal))
        for animal in ANIMALS
        for request in REQUESTS
    ]
    tasks = [task for task, _, _ in asked]
    one, other = ([text.format(*two) for _, *two in asked] for text in (better, worse))
    return tasks, one, other


def sees(scorer: Callable[[Rollout], Tensor], edit: str) -> float:
    """How often a scorer, rollout -> (B,), puts the better version first."""
    asked, better, worse = pairs(edit)
    right = scorer(written(asked, better)) > scorer(written(asked, worse))
    return right.double().mean().item()


def _another(animal: Animal) -> Animal:
    """The next animal on the list, round and round, that lives elsewhere."""
    at = ANIMALS.index(animal)
    return next(a for a in ANIMALS[at:] + ANIMALS if a.home != animal.home)


@torch.no_grad()
def likelihood(model: nn.Module, rollout: Rollout) -> Tensor:
    """(B,) log p of each answer after its request: what a language model would say."""
    return completion_logps(model, rollout)
