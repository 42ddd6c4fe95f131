"""Sampler ≠ learner: answers written by another policy, where every answer is known.

A world of 121 words in which bias and variance of a gradient estimator are exact sums; a
learner whose answers come from its own past; and, for models too large to enumerate, a
table of how far two policies are apart and what that does to a gradient.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lib import require
from lib.advantages import group_centred
from lib.logps import action_logps
from lib.losses.off_policy import (
    importance_weights,
    mismatch,
    sequence_weights,
    truncated,
    weighted,
)
from lib.losses.policy_gradient import reinforce
from lib.ops import token_logps
from lib.rollout import Rollout
from lib.sampling import filter_logits
from lib.seeds import generator
from lib.worlds import exact

# --- the world ------------------------------------------------------------------------

LETTERS, STOP = "abc.", 3  # the full stop ends a word, and begins every prompt
LENGTH = 4  # tokens that a word may take, the full stop included
LR = 4.0  # of gradient ascent on the table

Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]  # logps, sampler's, mask -> weights


def words() -> Rollout:
    """Every word that can be written: 121 rows, each with its reward on the last token.

    The reward of a word that ends and repeats no letter is a third for each letter; of
    any other word 0.
    """
    rows = exact.every_completion([STOP], tokens=range(4), end=STOP, max_tokens=LENGTH)
    paid = torch.tensor([pay(text) for text in texts(rows)], dtype=torch.float64)
    rows.rewards.masked_scatter_(rows.ends, paid)
    return rows


def texts(rows: Rollout) -> list[str]:
    """The words as text, such as "ab."."""
    pairs = zip(rows.actions, rows.mask)
    return ["".join(LETTERS[t] for t in a[m].tolist()) for a, m in pairs]


def pay(word: str) -> float:
    """A third for each letter of a word that ends and repeats none, else 0."""
    letters = word.removesuffix(".")
    sound = word.endswith(".") and len(set(letters)) == len(letters)
    return len(letters) / 3 if sound else 0.0


def table(seed: int) -> exact.PrefixTable:
    """A policy with a row of random logits for each beginning of a word."""
    policy = exact.PrefixTable(len(LETTERS), LENGTH)
    like = {"dtype": torch.float64, "generator": generator("sampler learner", seed)}
    policy.logits.data.copy_(torch.randn(policy.logits.shape, **like))
    return policy


def climbed(policy: nn.Module, rows: Rollout, updates: int) -> nn.Module:
    """The policy after so many steps of exact gradient ascent on J; the old one stays."""
    policy = copy.deepcopy(policy)
    for _ in range(updates):
        logps = exact.completion_logps(policy, rows)
        slope = exact.gradient(exact.expected(rows.returns, logps), policy)
        policy.logits.data += LR * slope.view_as(policy.logits)
    return policy


@torch.no_grad()
def logps_of(
    policy: nn.Module,
    rows: Rollout,
    *,
    temperature: float = 1.0,
    top_p: float | None = None,
) -> Tensor:
    """log-probabilities of each token under a sampler's settings, 0 behind the mask.

    (B, T); -inf where the sampler never writes this token.
    """
    logits = filter_logits(policy(rows.states), temperature=temperature, top_p=top_p)
    return token_logps(logits, rows.actions).masked_fill(~rows.mask, 0)


class Rounded(nn.Module):
    """The same policy, its logits rounded to bfloat16: an engine of lower precision."""

    def __init__(self, policy: nn.Module) -> None:
        """Of this policy."""
        super().__init__()
        self.policy = policy

    def forward(self, states: Tensor) -> Tensor:
        """(B, T) -> (B, T, A) float64, of 8 significant bits each."""
        return self.policy(states).to(torch.bfloat16).double()


# --- exact bias and variance ----------------------------------------------------------


def prefixes(rows: Rollout) -> Tensor:
    """The row of the table that chose each token: (B, T)."""
    numbered = exact.PrefixTable(len(LETTERS), LENGTH)
    each = torch.arange(len(numbered.logits), dtype=torch.float64).unsqueeze(1)
    numbered.logits.data.copy_(each)
    return numbered(rows.states)[..., 0].detach().long()


@torch.no_grad()
def token_scores(policy: exact.PrefixTable, rows: Rollout) -> Tensor:
    """d log π(token) / d logits of every token of every row: (B, T, N), 0 behind.

    In the table's row of its prefix 1 for the token itself, less all probabilities.
    """
    chosen = torch.nn.functional.one_hot(rows.actions, len(LETTERS))  # (B, T, V)
    slope = (chosen - policy(rows.states).softmax(-1)) * rows.mask.unsqueeze(-1)
    scores = slope.new_zeros(*rows.mask.shape, *policy.logits.shape)  # (B, T, R, V)
    index = prefixes(rows)[..., None, None].expand(-1, -1, 1, len(LETTERS))
    return scores.scatter(2, index, slope.unsqueeze(2)).flatten(2)


def moments(scores: Tensor, chance: Tensor, credit: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N,) and total variance () of Σ_t credit_t · score_t over rows.

    scores (B, T, N), credit (B, T), and chance (B,), how often the sampler writes a row.
    """
    each = (scores * credit.unsqueeze(-1)).sum(1)  # (B, N)
    mean = chance @ each
    return mean, chance @ each.square().sum(1) - mean.square().sum()


# --- a learner whose answers come from its own past -----------------------------------


def ones(logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Tensor:
    """No correction: weight 1 for every token."""
    return torch.ones_like(logps)


def token_tis(logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Tensor:
    """min(ρ_t, 2) for every token."""
    return truncated(importance_weights(logps, sampler_logps, mask))


def sequence_tis(logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Tensor:
    """min(Π ρ_t, 2) for every answer."""
    return truncated(sequence_weights(logps, sampler_logps, mask))


CORRECTIONS = {"none": ones, "token TIS": token_tis, "sequence TIS": sequence_tis}


def stale_runs(
    rows: Rollout,
    *,
    seeds: range,
    lag: int,
    weigh: Weigh,
    updates: int = 100,
    answers: int = 64,
    lr: float = LR,
) -> Tensor:
    """J before each update and at the end, where answers are `lag` updates old: (S, U + 1).

    REINFORCE with a group's mean as the baseline and plain gradient ascent; the first
    `lag` updates learn from the first policy's answers. J is exact. A seed draws the
    first policy and the luck, the same for every lag and weight; all run side by side.
    """
    require.count("lag", lag, least=0)
    reached = prefixes(rows).masked_fill(~rows.mask, 0)
    used, prefix = reached.unique(return_inverse=True)  # (R,) of the table, (K, T)
    logits = torch.stack([table(seed).logits.detach()[used] for seed in seeds])
    draws = (luck_of(seed, updates, answers) for seed in seeds)
    luck = torch.stack([*draws], 1)  # (updates, S, B)
    past = [_tables_logps(logits, rows, prefix)]  # (S, K, T), oldest first
    for uniform in luck:
        sampler = past[max(0, len(past) - 1 - lag)]
        pick = _drawn(sampler.sum(2), uniform)  # (S, B)
        leaf = logits.requires_grad_()
        logps = _picked(_tables_logps(leaf, rows, prefix), pick)  # (S · B, T)
        mask = rows.mask[pick.flatten()]
        weights = weigh(logps.detach(), _picked(sampler, pick), mask)
        credit = group_centred(rows.returns[pick]).flatten()
        loss, _ = reinforce(logps, weighted(credit, weights, mask), mask)
        (slope,) = torch.autograd.grad(loss * len(seeds), leaf)
        logits = (logits - lr * slope).detach()
        past.append(_tables_logps(logits, rows, prefix))
    return torch.stack([p.sum(2).exp() @ rows.returns for p in past], 1)


def luck_of(seed: int, updates: int, answers: int) -> Tensor:
    """The luck of one run: (updates, answers) uniform numbers."""
    like = {"dtype": torch.float64, "generator": generator("stale answers", seed)}
    return torch.rand(updates, answers, **like)


def _drawn(logps: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative distribution: (S, K), (S, B) -> (S, B)."""
    cumulative = logps.softmax(1).cumsum(1)[:, :-1]
    return torch.searchsorted(cumulative.contiguous(), uniform, right=True)


def _tables_logps(logits: Tensor, rows: Rollout, prefix: Tensor) -> Tensor:
    """What S tables (S, R, V) give to each token of every row: (S, K, T), 0 behind."""
    place = (prefix * logits.shape[2] + rows.actions).flatten()  # (K · T,) in a table
    flat = logits.log_softmax(2).flatten(1)  # (S, R · V)
    each = flat.gather(1, place.expand(len(flat), -1))
    return each.unflatten(1, prefix.shape).masked_fill(~rows.mask, 0)


def _picked(logps: Tensor, pick: Tensor) -> Tensor:
    """The rows that were drawn: (S, K, T), (S, B) -> (S · B, T)."""
    index = pick.unsqueeze(2).expand(-1, -1, logps.shape[2])
    return logps.gather(1, index).flatten(0, 1)


# --- a pair of policies too large to enumerate ----------------------------------------


def gradient_of(
    policy: nn.Module,
    answers: Rollout,
    advantages: Tensor,
    *,
    temperature: float = 1.0,
    group: int = 1,
    rows: int = 64,
) -> Tensor:
    """REINFORCE's uphill gradient, mean over rows, as one vector on the CPU: (N,).

    advantages (B, T), weights already in them. Read `rows` rows at a time (a multiple of
    `group`), so that a model that fits with a few answers fits with many; a group without
    any credit is not read. float32 at least.
    """
    require.count("rows", rows)
    if rows % group:
        require.refuse("rows", rows, f"a multiple of group = {group}")
    weights = [w for w in policy.parameters() if w.requires_grad]
    total = [torch.zeros_like(w, dtype=_summed(w)) for w in weights]
    credited = (advantages != 0).any(1).reshape(-1, group).any(1)  # (P,)
    read = credited.repeat_interleave(group).nonzero()[:, 0].cpu()
    for index in read.split(rows) if len(read) else ():
        part = answers.rows(index.to(answers.mask.device))
        logps = action_logps(policy, part, temperature=temperature, group=group)
        credit, mask = (x.to(logps.device) for x in (advantages[index], part.mask))
        loss, _ = reinforce(logps, credit, mask)
        slopes = torch.autograd.grad(loss, weights, materialize_grads=True)
        for sums, slope in zip(total, slopes):
            sums -= slope.to(sums.dtype) * len(index) / len(answers)
    return torch.cat([sums.flatten().cpu() for sums in total])


def _summed(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


@torch.no_grad()
def logps_in_parts(
    policy: nn.Module,
    answers: Rollout,
    *,
    temperature: float = 1.0,
    group: int = 1,
    rows: int = 64,
) -> Tensor:
    """`action_logps` of many answers, `rows` at a time: (B, T) on the CPU."""
    parts = [answers.rows(i) for i in torch.arange(len(answers)).split(rows)]
    found = [
        action_logps(policy, part, temperature=temperature, group=group)
        for part in parts
    ]
    return torch.cat([each.cpu() for each in found])


def compared(
    policy: nn.Module,
    sampler: nn.Module,
    written: Rollout,
    advantages: Tensor,
    own: Rollout,
    own_advantages: Tensor,
    *,
    temperature: float = 1.0,
    group: int = 1,
    rows: int = 64,
) -> dict[str, float]:
    """How far the learner is from the sampler, and what that does to its gradient.

    `written` are the sampler's answers, `own` the learner's to the same prompts, each
    with advantages (B,). What `lib.losses.off_policy.mismatch` tells, and the cosine of
    the gradient on `written` (uncorrected, token TIS, sequence TIS; caps of 2) with that
    on `own`: "cos none", … "cos halves" is that of the two halves of `own`, which no
    correction can be expected to beat by much: the rest is the noise of few answers.
    """
    how = {"temperature": temperature, "group": group, "rows": rows}
    now, then = (logps_in_parts(p, written, **how) for p in (policy, sampler))
    mask, credit = written.mask.cpu(), advantages.cpu()
    found = mismatch(now, then, mask)
    ones_own = torch.ones_like(own.mask.cpu(), dtype=own_advantages.dtype)
    spread = weighted(own_advantages.cpu(), ones_own, own.mask.cpu())
    half = len(own) // (2 * group) * group  # groups stay whole
    first, second = (
        gradient_of(policy, own.rows(i), spread[i.cpu()], **how)
        for i in torch.arange(len(own), device=own.mask.device).tensor_split([half])
    )
    found["cos halves"] = _cosine(first, second)
    share = half / len(own)
    target = share * first + (1 - share) * second
    del first, second
    for name, weigh in CORRECTIONS.items():
        given = weighted(credit, weigh(now, then, mask), mask)
        found[f"cos {name}"] = _cosine(
            gradient_of(policy, written, given, **how), target
        )
    return found


def _cosine(one: Tensor, other: Tensor) -> float:
    return (one @ other / (one.norm() * other.norm())).item()


def markdown(columns: Mapping[str, Mapping[str, float]]) -> str:
    """What `compared` found, a pair of policies a column, as a Markdown table."""
    names = {
        "log_ratio": "mean abs. log-ratio, nats a token",
        "kl": "KL(sampler ‖ learner), k3, nats a token",
        "outside": "tokens with a ratio outside [0.5, 2]",
        "ess_token": "effective sample size, tokens",
        "ess_sequence": "effective sample size, answers",
        "cos none": "cosine with on-policy: uncorrected",
        "cos token TIS": "cosine with on-policy: token TIS",
        "cos sequence TIS": "cosine with on-policy: sequence TIS",
        "cos halves": "cosine of two on-policy halves",
    }
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for key, name in names.items():
        each = " | ".join(f"{column[key]:.4f}" for column in columns.values())
        lines.append(f"| {name} | {each} |")
    return "\n".join(lines)
