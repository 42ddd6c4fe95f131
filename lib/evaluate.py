"""Measure a language model: put questions, read its answers, make the table of skills.

Here tokens become text again. Everything above this file may look at answers as a
reader does; everything below sees token ids.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import require
from lib.models.tokenizer import Tokenizer
from lib.rollout import Rollout
from lib.sampling import complete
from lib.seeds import generator, seed_of
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import LEVELS, gold, tasks, verify

ANSWER = 48  # tokens that an answer may take


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    finished: bool  # it stopped of its own accord: end-of-text was drawn


def prompt_ids(task: Task, tokenizer: Tokenizer | None = None) -> list[int]:
    """The prompt of a task as a model reads it: begin, then its tokens.

    A tokenizer that has a `prompt` of its own, a chat's for instance, writes it instead.
    """
    tokenizer = tokenizer or task.tokenizer
    if hasattr(tokenizer, "prompt"):
        return tokenizer.prompt(task.prompt)
    return [tokenizer.begin, *tokenizer.encode(task.prompt)]


def answers(rollout: Rollout, tokenizer: Tokenizer = TOKENIZER) -> list[Answer]:
    """The completions of a rollout, as text."""
    rows = zip(rollout.actions, rollout.mask, rollout.terminated.tolist())
    return [Answer(tokenizer.decode(a[m].tolist()), done) for a, m, done in rows]


def ask(
    policy: nn.Module,
    asked: Sequence[Task],
    *,
    generator: torch.Generator,
    group: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    max_tokens: int = ANSWER,
    tokenizer: Tokenizer | None = None,
    of: slice = slice(None),
) -> Rollout:
    """`group` answers to each task, sampled (greedy with top_k=1); see `complete`.

    `asked` may hold anything that has a `.prompt`, and `tokenizer` be any object with
    `encode`, `decode` and the ids `begin`, `end` and `pad`; without one it is that of
    the tasks.
    """
    tokenizer = tokenizer or asked[0].tokenizer
    return complete(
        policy,
        [prompt_ids(task, tokenizer) for task in asked],
        end=tokenizer.end,
        pad=tokenizer.pad,
        max_tokens=max_tokens,
        generator=generator,
        group=group,
        temperature=temperature,
        top_k=top_k,
        of=of,
    )


def score(task: Task, answer: Answer) -> float:
    """1 or 0 by the task's verifier, which wants it finished; for talk, gold's score."""
    if task.skill == "talk":
        return gold(task, answer.text, finished=answer.finished)
    return float(answer.finished and verify(task, answer.text))


def scores(asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """The score of every row of a rollout: (B,) float64; B = tasks × group."""
    return grades(score, asked, rollout)


def grades(
    grade: Callable[[Task, Answer], float], asked: Sequence[Task], rollout: Rollout
) -> Tensor:
    """What `grade` says of the text of every row: (B,) float64; B = tasks × group."""
    if not asked or len(rollout) % len(asked):
        require.refuse("asked", f"{len(asked)} tasks", f"a divisor of {len(rollout)}")
    group = len(rollout) // len(asked)
    each = [task for task in asked for _ in range(group)]
    pairs = zip(each, answers(rollout, asked[0].tokenizer), strict=True)
    found = [float(grade(*pair)) for pair in pairs]
    return torch.tensor(found, dtype=torch.float64, device=rollout.mask.device)


def exam(
    skill: str, *, level: int | None = None, count: int = 200, seed: int = 0
) -> list[Task]:
    """`count` distinct test tasks of one skill (of all its levels, or of one).

    No two share a request, and none shares one with a training task. Where there are
    fewer, the error says how many were found.
    """
    require.count("count", count)
    require.count("seed", seed, least=0)
    levels = None if level is None else (level,)
    found: dict[str, Task] = {}
    for block in range(40):
        number = seed_of("exam", seed, block)
        more = tasks(skill, count=count, seed=number, split="test", levels=levels)
        found |= {task.request: task for task in more if task.request not in found}
        if len(found) >= count:
            return list(found.values())[:count]
    require.refuse("count", count, f"at most the {len(found)} that exist")


@dataclass(frozen=True)
class Mark:
    """A mean over exam tasks, with its interval of 95 %."""

    mean: float
    low: float
    high: float
    count: int  # distinct tasks

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Difference:
    """By how much one is above the other, with its interval of 95 %."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self:.2f}"

    def __format__(self, digits: str) -> str:
        """As a verdict: f"{difference:.3f}" shows three digits, with signs."""
        mean, low, high = (
            format(x + 0.0, f"+{digits or '.2f'}")
            for x in (self.mean, self.low, self.high)
        )
        return f"{mean} [{low}, {high}], {self.seeds} seed{'s' * (self.seeds > 1)}"


def mark(found: Sequence[float] | Tensor) -> Mark:
    """The mean of one number a task: Wilson's interval for right and wrong, else normal.

    Wilson (1927) keeps shares near 0 and 1 between 0 and 1. One number that is neither
    right nor wrong has no interval and is refused.
    """
    x = torch.as_tensor(found, dtype=torch.float64)
    require.finite("found", x)
    share = bool(((x == 0) | (x == 1)).all())
    least = 1 if share else 2
    if x.ndim != 1 or len(x) < least:
        require.refuse("found", f"shape {tuple(x.shape)}", f"(N,), N at least {least}")
    n, mean, z = len(x), x.mean().item(), 1.96
    if share:
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        wide = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + (z / n / 2) ** 2)
        low, high = min(mean, centre - wide), max(mean, centre + wide)  # as if exact
        return Mark(mean, max(0.0, low), min(1.0, high), n)
    wide = z * x.std().item() / math.sqrt(n)
    return Mark(mean, mean - wide, mean + wide, n)


def paired(
    one: Sequence[Sequence[float]] | Tensor,
    other: Sequence[Sequence[float]] | Tensor,
    *,
    draws: int = 4_000,
) -> Difference:
    """How much `one` is above `other`, run by run and item by item.

    (S, N) each: S seeds, N exam items; or (S,), a number a seed. The bootstrap draws
    seeds and items anew, each with replacement (Efron and Tibshirani 1993), so that the
    interval knows of both. With few seeds it is too narrow. The draws are always the same.
    """
    require.count("draws", draws)
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (one, other))
    if not 1 <= a.ndim <= 2 or not a.numel():
        require.refuse("one", f"shape {tuple(a.shape)}", "(S, N) or (S,)")
    require.tensor("other", b, a.shape)
    gaps = (a - b).reshape(len(a), -1)  # (S, N)
    require.finite("one - other", gaps)
    luck, often = generator("bootstrap"), []
    for size in gaps.shape:  # how often each seed, then each item, is drawn
        drawn = torch.randint(size, (draws, size), generator=luck)
        count = torch.zeros(draws, size, dtype=torch.float64)
        often.append(count.scatter_add_(1, drawn, torch.ones_like(count)) / size)
    means = (often[0] @ gaps * often[1]).sum(1)  # (draws,)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = means.quantile(ends).tolist()
    return Difference(gaps.mean().item(), low, high, len(gaps))


def skills(
    policy: nn.Module, *, count: int = 200, seed: int = 0, max_tokens: int = ANSWER
) -> dict[str, Mark]:
    """The column of one model in the table of skills: every skill, level by level.

    Names are "cups 3", "facts 1", …, "talk"; answers are sampled at temperature 1, the
    same questions for every model.
    """
    column = {}
    for skill, level in ((s, n) for s, levels in LEVELS.items() for n in levels):
        asked = exam(skill, level=level, count=count, seed=seed)
        luck = generator("exam answers", skill, level, seed)
        rollout = ask(policy, asked, generator=luck, max_tokens=max_tokens)
        name = skill if skill == "talk" else f"{skill} {level}"
        column[name] = mark(scores(asked, rollout))
    return column


def pass_at_k(n: Tensor | int, correct: Tensor | int, k: Tensor | int) -> Tensor:
    """The chance that k of n answers hold a correct one, float64, without bias.

    1 - C(n - correct, k) / C(n, k) (Chen et al. 2021, Eq. 1): drawn without replacement
    from the n that were sampled. The arguments broadcast; whole numbers,
    0 <= correct <= n and 1 <= k <= n. As a product over what is drawn, so that large n
    do not overflow.
    """
    n, correct, k = torch.broadcast_tensors(
        *(_whole(name, x) for name, x in (("n", n), ("correct", correct), ("k", k)))
    )
    for name, x, least, most in (("correct", correct, 0, n), ("k", k, 1, n)):
        wrong = (x < least) | (x > most)
        if wrong.any():
            got = f"{int(x[wrong][0])} of {int(n[wrong][0])}"
            require.refuse(name, got, f"at least {least} and at most n")
    draw = torch.arange(int(k.max()) if k.numel() else 0, dtype=torch.float64)
    left = n.unsqueeze(-1) - draw.to(n.device)  # (..., k) answers left at each draw
    wrong = (left - correct.unsqueeze(-1)).clamp(min=0) / left.clamp(min=1)
    drawn = draw.to(n.device) < k.unsqueeze(-1)
    return 1 - wrong.where(drawn, 1.0).prod(-1)


def _whole(name: str, x: Tensor | int) -> Tensor:
    found = torch.as_tensor(x)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        require.refuse(name, f"{found.dtype}", "whole numbers")
    return found.double()


def table(columns: Mapping[str, Mapping[str, object]]) -> str:
    """Columns by model as a Markdown table, a skill a row.

    Entries are numbers (shown with two digits) or anything that prints itself.
    """
    if not columns:
        require.refuse("columns", "none", "at least one")
    names = list(next(iter(columns.values())))
    for model, column in columns.items():
        if list(column) != names:
            require.refuse("columns", f"{list(column)} for {model!r}", f"{names}")
    head = ["| skill | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    body = [
        f"| {name} | " + " | ".join(_shown(c[name]) for c in columns.values()) + " |"
        for name in names
    ]
    return "\n".join([*head, *body])


def _shown(entry: object) -> str:
    return f"{entry:.2f}" if isinstance(entry, float | int) else str(entry)


# --- best of n ------------------------------------------------------------------------


@torch.no_grad()
def best_of(proxy: Tensor, values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mean `values` of the answer that `proxy` likes best among n: (..., len(sizes)).

    proxy, values: (..., N) of N sampled answers. The mean runs over *all* subsets of n
    of the N, by how often each answer is the best of one, C(rank - 1, n - 1) of C(N, n)
    (Nakano et al. 2021); answers that tie share alike. Unbiased, and far less noisy
    than n fresh answers per point.
    """
    require.tensor("proxy", proxy)
    require.tensor("values", values, proxy.shape)
    require.finite("proxy", proxy)
    require.finite("values", values)
    count = proxy.shape[-1]
    for n in sizes:
        require.count("sizes", n)
        if n > count:
            require.refuse("sizes", n, f"at most the {count} answers there are")
    like = {"dtype": torch.float64, "device": proxy.device}
    rank = torch.arange(1, count + 1, **like)
    n = torch.tensor(sizes, **like).unsqueeze(-1)  # (n, 1)
    subsets = torch.lgamma(rank) - torch.lgamma((rank - n).clamp(min=0) + 1)
    weights = subsets.masked_fill(rank < n, -torch.inf).softmax(-1)  # (n, N)
    pairs = zip(proxy.reshape(-1, count), values.double().reshape(-1, count))
    rows = [weights @ _ascending(*each) for each in pairs]
    return torch.stack(rows).reshape(*proxy.shape[:-1], len(sizes))


def _ascending(proxy: Tensor, values: Tensor) -> Tensor:
    """(N,) values in the order of the proxy; where it ties, their mean."""
    levels, level = proxy.unique(return_inverse=True)
    total = values.new_zeros(len(levels)).index_add(0, level, values)
    mean = total / level.bincount()
    return mean[level.sort().values]
