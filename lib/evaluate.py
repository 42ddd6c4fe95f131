"""Measure a language model: put questions, read its answers, make the table of skills.

Here tokens become text again. Everything above this file may look at answers as a
reader does; everything below sees token ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import require
from lib.models.tokenizer import Tokenizer
from lib.rollout import Rollout
from lib.sampling import complete
from lib.worlds.village import TOKENIZER, Split, taste
from lib.worlds.village.tasks import SKILLS, Task, tasks, verify

ANSWER = 48  # tokens that an answer may take


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    finished: bool  # it stopped of its own accord: end-of-text was drawn


def prompt_ids(task: Task, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    """The prompt of a task as a model reads it: begin, then its tokens."""
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
    tokenizer: Tokenizer = TOKENIZER,
) -> Rollout:
    """`group` answers to each task, sampled (greedy with top_k=1); see `complete`.

    `asked` may hold anything that has a `.prompt`, and `tokenizer` be any object with
    `encode`, `decode` and the ids `begin`, `end` and `pad`.
    """
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
    )


def score(task: Task, answer: Answer) -> float:
    """1 or 0 by the task's verifier, which wants it finished; for talk, gold's score."""
    if task.skill == "talk":
        return taste.gold(task, answer.text, finished=answer.finished)
    return float(answer.finished and verify(task, answer.text))


def scores(asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """The score of every row of a rollout: (B,) float64; B = tasks × group."""
    if not asked or len(rollout) % len(asked):
        require.refuse("asked", f"{len(asked)} tasks", f"a divisor of {len(rollout)}")
    group = len(rollout) // len(asked)
    each = [task for task in asked for _ in range(group)]
    pairs = zip(each, answers(rollout))
    found = [score(*pair) for pair in pairs]
    return torch.tensor(found, dtype=torch.float64, device=rollout.mask.device)


def exam(*, count: int = 64, seed: int = 0, split: Split = "test") -> list[Task]:
    """`count` tasks of every skill, then as many open-ended requests."""
    verified = [tasks(skill, count=count, seed=seed, split=split) for skill in SKILLS]
    return [*sum(verified, []), *taste.requests(count=count, seed=seed, split=split)]


def skills(
    policy: nn.Module,
    *,
    count: int = 64,
    seed: int = 0,
    split: Split = "test",
    top_k: int | None = None,
) -> dict[str, float]:
    """The table's column for one model: the mean score in each skill, then in talk.

    Verified skills in [0, 1]; "talk" is the mean gold score. Answers are sampled at
    temperature 1 (top_k=1: greedy), the same questions for every model.
    """
    asked = exam(count=count, seed=seed, split=split)
    generator = torch.Generator().manual_seed(seed)
    rollout = ask(policy, asked, generator=generator, top_k=top_k)
    means = scores(asked, rollout).reshape(-1, count).mean(1).tolist()
    return dict(zip((*SKILLS, "talk"), means))


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


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Columns by model as a Markdown table, a skill a row."""
    if not columns:
        require.refuse("columns", "none", "at least one")
    names = list(next(iter(columns.values())))
    for model, column in columns.items():
        if list(column) != names:
            require.refuse("columns", f"{list(column)} for {model!r}", f"{names}")
    head = ["| skill | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    body = [
        f"| {name} | " + " | ".join(f"{c[name]:.2f}" for c in columns.values()) + " |"
        for name in names
    ]
    return "\n".join([*head, *body])


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
