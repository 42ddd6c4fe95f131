"""Chapter 8: what ten policy-gradient algorithms do, measured; and its runs, read.

Papers describe an algorithm by what it is made of. Here each is put to the same small
tests, as an algorithm of `lib.algorithms` on literal rewards, lengths and ratios: which
tokens does it push, how hard, until when? The numbers are gradients, by autograd or in
expectation over every group that a small world can answer with.

The runs are those of `labs.policy_gradients_runs`: marks in a sweep of learning rates.

Shapes: S seeds, N exam items, P prompts, G answers to each, B = P · G rows, T tokens,
K completions.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor, nn

from labs import policy_gradients_runs as runs
from lib import evaluate, require
from lib.algorithms import Algorithm
from lib.evaluate import Difference
from lib.on_policy import PolicyWithCritic, RLConfig, make_batch
from lib.ops import sequence_logps, token_logps
from lib.rollout import Batch, Rollout
from lib.worlds import exact

ROOM = 10  # tokens that an answer of a probe might take
FAR = 20.0  # a ratio beyond which nobody looks for an end


class Knowing(nn.Module):
    """A critic that knows what each prompt's answers earn on average, and no more."""

    def __init__(self, rewards: Tensor) -> None:
        super().__init__()
        self.register_buffer(
            "means", rewards.mean(1).repeat_interleave(rewards.shape[1])
        )

    def forward(self, states: Tensor) -> Tensor:
        """(B, T) -> (B, T)."""
        return self.means.unsqueeze(1).expand(states.shape)


def literal(lengths: Sequence[int]) -> Rollout:
    """Answers of these lengths, their tokens all alike, each of probability ½."""
    for length in lengths:
        require.count("lengths", length)
    steps = torch.arange(max(lengths, default=0))
    mask = steps < torch.tensor(lengths).unsqueeze(1)  # (B, T)
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    return Rollout(
        states=torch.zeros_like(mask, dtype=torch.long),
        actions=torch.zeros_like(mask, dtype=torch.long),
        logps=zeros.masked_fill(mask, -math.log(2)),
        rewards=zeros,
        mask=mask,
        last_states=torch.zeros(len(mask), dtype=torch.long),
        terminated=torch.ones(len(mask), dtype=torch.bool),
    )


def credited(algorithm: Algorithm, rollout: Rollout, rewards: Tensor) -> Batch:
    """The batch that an algorithm makes of rewards (P, G): see `on_policy.make_batch`."""
    knobs = RLConfig(group=rewards.shape[1], max_tokens=ROOM)
    critic = Knowing(rewards) if algorithm.critic else None
    return make_batch(
        PolicyWithCritic(None, critic), algorithm, rollout, rewards, config=knobs
    )


def push(
    algorithm: Algorithm,
    rewards: Tensor,
    lengths: Sequence[int],
    *,
    ratio: float | Tensor = 1.0,
) -> Tensor:
    """How hard a step of descent pushes each token's log-probability up: (B, T).

    -d loss / d log π, for answers of these lengths with rewards (P, G), after each
    token's probability has become `ratio` (B, T) of what it was when it was written.
    """
    seen = credited(algorithm, literal(lengths), rewards)
    ratio = torch.as_tensor(ratio, dtype=torch.float64)
    logps = (seen.rollout.logps + ratio.log()).requires_grad_()
    loss, _ = algorithm.policy_loss(logps, seen)
    return -torch.autograd.grad(loss, logps, materialize_grads=True)[0]


def push_at(
    algorithm: Algorithm, ratios: Tensor, *, good: bool, length: int = ROOM
) -> Tensor:
    """The push on an answer whose tokens have all come to each ratio, (n,).

    In multiples of the push on-policy, whose sign is + if the answer is `good` (the one
    that was right of four) and - if not. Mean over its tokens.
    """
    rewards = torch.eye(4, dtype=torch.float64)[:1] if good else 1 - torch.eye(4)[:1]
    lengths = [length] * 4

    def mean(ratio: float) -> Tensor:
        each = torch.ones(4, length, dtype=torch.float64)
        each[0] = ratio
        return push(algorithm, rewards.double(), lengths, ratio=each)[0].mean()

    return torch.stack([mean(r) for r in ratios.tolist()]) / mean(1.0).abs()


# --- probes: one number for each algorithm, NaN where it refuses ----------------------

ONE_OF_FOUR = torch.tensor([[1, 0, 0, 0]], dtype=torch.float64)
HARD_AND_EVEN = torch.zeros(2, 16, dtype=torch.float64)  # 1 of 16 right, and 8 of 16
HARD_AND_EVEN[0, :1] = HARD_AND_EVEN[1, :8] = 1


def shifted(algorithm: Algorithm) -> float:
    """How far the pushes move, relative to their size, if all rewards are 10 higher."""
    usual = push(algorithm, ONE_OF_FOUR, [5] * 4)
    try:
        found = push(algorithm, ONE_OF_FOUR + 10, [5] * 4)
    except ValueError:
        return math.nan
    return ((found - usual).norm() / usual.norm()).item()


def scaled(algorithm: Algorithm) -> float:
    """The factor by which the pushes grow if all rewards are 10 times as high."""
    try:
        grown = push(algorithm, 10 * ONE_OF_FOUR, [5] * 4)
    except ValueError:
        return math.nan
    return (grown.norm() / push(algorithm, ONE_OF_FOUR, [5] * 4).norm()).item()


def hard(algorithm: Algorithm) -> float:
    """Pushes on a question with 1 right answer of 16, over one with 8 right of 16."""
    pushes = push(algorithm, HARD_AND_EVEN, [5] * 32).abs().reshape(2, -1).sum(1)
    return (pushes[0] / pushes[1]).item()


def long(algorithm: Algorithm) -> float:
    """The push on a token of an answer of 10, over that on one of 2, last tokens."""
    pushes = push(algorithm, torch.tensor([[1.0, 1, 0, 0]]).double(), [10, 2, 6, 6])
    return (pushes[0, 9] / pushes[1, 1]).item()


def neighbour(algorithm: Algorithm) -> float:
    """What is left of the push on an answer of 2 if another grows from 2 to 10."""
    rewards = torch.tensor([[1.0, 0]]).double()
    before, after = (push(algorithm, rewards, [2, n])[0, 1] for n in (2, 10))
    return (after / before).item()


def highest(algorithm: Algorithm) -> float:
    """The ratio up to which each token of a good answer is pushed up; inf: no end."""
    return _edge(lambda r: push_at(algorithm, r, good=True), math.log(FAR))


def lowest(algorithm: Algorithm) -> float:
    """The ratio down to which each token of a bad answer is pushed down; 0: no end."""
    return _edge(lambda r: push_at(algorithm, r, good=False), -math.log(FAR))


PROBES: dict[str, Callable[[Algorithm], float]] = {
    "reward + 10": shifted,
    "reward × 10": scaled,
    "a hard question": hard,
    "a long answer": long,
    "a long neighbour": neighbour,
    "pushed up to": highest,
    "pushed down to": lowest,
}


def _edge(pushed: Callable[[Tensor], Tensor], far: float) -> float:
    """Where the push ends between a ratio of 1 and exp(far), by halving."""

    def moves(log_ratio: float) -> bool:
        ratio = torch.tensor([math.exp(log_ratio)], dtype=torch.float64)
        return pushed(ratio).item() != 0

    if moves(far):
        return math.inf if far > 0 else 0.0
    near = 0.0
    for _ in range(35):
        middle = (near + far) / 2
        near, far = (middle, far) if moves(middle) else (near, middle)
    return math.exp(near)


def table(algorithms: Mapping[str, Algorithm]) -> str:
    """What the probes find, an algorithm a row, as Markdown."""
    columns = ["algorithm", *PROBES, "also has"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, algorithm in algorithms.items():
        cells = [_said(probe, probe(algorithm)) for probe in PROBES.values()]
        has = {
            "a critic": algorithm.critic,
            "KL penalty in the loss (off)": algorithm.penalty_in_loss,
            "groups drawn anew": algorithm.resample,
        }
        more = ", ".join(what for what, there in has.items() if there) or "–"
        lines.append("| " + " | ".join([name, *cells, more]) + " |")
    return "\n".join(lines)


def _said(probe: Callable[[Algorithm], float], value: float) -> str:
    """One cell of the table."""
    if math.isnan(value):
        return "refused"
    if probe is shifted:
        return "the same" if value < 1e-9 else "another gradient"
    if math.isinf(value) or (probe is lowest and value == 0):
        return "no end"
    digits = 4 if probe in (highest, lowest) else 2
    return ("× " if probe is scaled else "") + f"{value:.{digits}f}".rstrip("0").rstrip(
        "."
    )


# --- expectations: every group that a small world can answer with ---------------------


def groups(law: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All ways to draw `size` of K completions, in any order: (size,), probability."""
    require.count("size", size)
    for chosen in combinations_with_replacement(range(len(law)), size):
        index = torch.tensor(chosen)
        repeats = torch.bincount(index, minlength=len(law))
        orders = math.factorial(size) / math.prod(map(math.factorial, repeats.tolist()))
        yield index, orders * law[index].prod()


def expected_push(
    algorithm: Algorithm,
    policy: nn.Module,
    completions: Rollout,
    rewards: Tensor,
    *,
    group: int,
) -> Tensor:
    """Minus the expected gradient of one on-policy update, all weights in one (N,).

    One prompt; rewards (K,) of its `completions`, which are all that `policy` can say.
    The mean is over every group of that size, with its probability: no sampling.
    """
    require.tensor("rewards", rewards, (len(completions),))
    logps = token_logps(policy(completions.states), completions.actions)  # (K, T)
    law = sequence_logps(logps.detach(), completions.mask).exp()  # (K,)
    total = torch.zeros((), dtype=logps.dtype)
    for index, chance in groups(law, group):
        rows = replace(completions.rows(index), logps=logps[index].detach())
        seen = credited(algorithm, rows, rewards[index].unsqueeze(0))
        total = total - chance * algorithm.policy_loss(logps[index], seen)[0]
    return exact.gradient(total, policy)


def alignment(
    algorithm: Algorithm,
    policy: nn.Module,
    completions: Rollout,
    rewards: Tensor,
    *,
    group: int,
) -> tuple[float, float]:
    """The expected push beside ∇J: the cosine, and the factor along it."""
    logps = exact.completion_logps(policy, completions)
    slope = exact.gradient(exact.expected(rewards, logps), policy)
    pushed = expected_push(algorithm, policy, completions, rewards, group=group)
    cosine = torch.cosine_similarity(pushed, slope, 0)
    return cosine.item(), (pushed @ slope / slope.square().sum()).item()


# --- runs: what the record holds ------------------------------------------------------

SAME = {"GSPO": "GRPO", "SAPO": "GRPO"}  # to the digit, while answers are fresh
Runs = Mapping[str, Mapping[str, Any]]  # record["runs"]: a run's name, then a seed


def of(record: Runs, name: str, lr: float, *, again: bool = False) -> list[Any]:
    """All seeds of one algorithm at one rate; `again`: with several updates a set."""
    name = name if again else SAME.get(name, name)
    more = f", {runs.AGAIN} updates" if again else ""
    return [*record[f"{name}, {lr:g}{more}"].values()]


def marks(found: Sequence[Mapping[str, Any]], *, exam: int | None = None) -> Tensor:
    """(S, N) each item's share of right answers in the three exams, or in one of them."""
    each = [run["exam"] if exam is None else [run["exam"][exam]] for run in found]
    right = [[[int(x) for x in one] for one in exams] for exams in each]
    return torch.tensor(right, dtype=torch.float64).mean(1)


def tuned(record: Runs, name: str, *, again: bool = False) -> dict[float, float]:
    """The mean mark at each rate on the games that are for choosing one."""
    found = {}
    for lr in runs.SOME if again else runs.RATES:
        each = [run["tuning"] for run in of(record, name, lr, again=again)]
        found[lr] = torch.tensor(each, dtype=torch.float64).mean().item()
    return found


def best(record: Runs, name: str, *, again: bool = False) -> float:
    """The learning rate with the highest mark on the games for choosing one."""
    found = tuned(record, name, again=again)
    return max(found, key=found.__getitem__)


def course(found: Sequence[Mapping[str, Any]], what: str) -> Tensor:
    """(S, updates) one of the curves of each run."""
    each = [run["curves"][what] for run in found]
    return torch.tensor(each, dtype=torch.float64)


def over(record: Runs, one: str, other: str, *, again: bool = False) -> Difference:
    """Two algorithms, each at its best rate: paired over seeds and items."""
    rates = {name: best(record, name, again=again) for name in (one, other)}
    pair = [marks(of(record, n, lr, again=again)) for n, lr in rates.items()]
    return evaluate.paired(*pair)
