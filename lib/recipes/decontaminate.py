"""Keep the evaluations out of the training data.

As Tülu 3 does (Lambert et al. 2024, §3.2): a training prompt is too near a held-out one
if n-grams that both share cover more than half of the held-out prompt. A token is a word,
a number or a mark here. What is equal word for word is always too near.
"""

import re
from collections.abc import Callable, Sequence

from lib import require
from lib.worlds.village.tasks import Task

N, SHARE = 8, 0.5  # of tokens, and of the held-out prompt


def words(text: str) -> tuple[str, ...]:
    """Its words, numbers and marks: "What is 1 + 2?" has six."""
    return tuple(re.findall(r"\w+|[^\w\s]", text))


def overlap(text: Sequence[str], held_out: Sequence[str], *, n: int = N) -> float:
    """The share of the held-out tokens that lie in an n-gram which `text` has as well.

    A held-out prompt of fewer than n tokens counts as a single n-gram.
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
    held_out: Sequence[Task], *, n: int = N, share: float = SHARE
) -> Callable[[Task], bool]:
    """A function that says whether a task is too near to one of the held-out ones."""
    require.unit_interval("share", share)
    places: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for request in {task.request for task in held_out}:
        tokens = words(request)
        for gram in _grams(tokens, min(n, len(tokens))):
            places.setdefault(gram, set()).add(tokens)
    sizes = {len(gram) for gram in places}

    def near(task: Task) -> bool:
        tokens = words(task.request)
        grams = (gram for size in sizes for gram in _grams(tokens, size))
        met = set().union(*(places.get(gram, ()) for gram in grams))
        return any(overlap(tokens, other, n=n) > share for other in met)

    return near


def _grams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
