"""A world small enough to write down: every completion, its probability, and the truth.

An estimator says what it aims at; here one can look. With every completion of a prompt
in one batch, an expectation is a sum: expected reward, KL, the best policy and all their
gradients are exact, and a mean over samples can be held against them.

K completions are the rows of one `Rollout`; a policy's log-probabilities of them are a
vector (K,), and everything else is a function of that vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lib import require
from lib.kl import exact_kl, normalised, optimal_policy, optimal_value
from lib.ops import sequence_logps, token_logps
from lib.rollout import Rollout

LIMIT = 1_000_000  # tokens in all prefixes, or logits in a table: more is not small


def every_completion(
    prompt: Sequence[int], *, tokens: Sequence[int], end: int | None, max_tokens: int
) -> Rollout:
    """All strings over `tokens` that stop at `end` or after `max_tokens`: K rows.

    A row is prompt, completion, 0 …: states are all of it but the last, actions all but
    the first, and the mask is True on the completion, its `end` included. First come
    those that end, shorter before longer, then those cut off; among equals the order of
    `tokens` decides. `terminated` where `end` was written; logps and rewards are 0, for
    a judge to fill. `end`, if there is one, is among the `tokens`.
    """
    _ids("prompt", prompt)
    _ids("tokens", tokens)
    require.count("max_tokens", max_tokens)
    if len(set(tokens)) < len(tokens):
        require.refuse("tokens", list(tokens), "each token once")
    if end is not None and end not in tokens:
        require.refuse("end", end, f"one of the tokens {list(tokens)}, or None")
    done, growing, written = [], [()], 0
    for length in range(1, max_tokens + 1):
        written += len(growing) * len(tokens) * length
        if written > LIMIT:
            got = f"{written} tokens to write by length {length}"
            require.refuse("tokens", got, f"at most {LIMIT}: fewer or shorter strings")
        longer = [(*string, token) for string in growing for token in tokens]
        done += [string for string in longer if string[-1] == end]
        growing = [string for string in longer if string[-1] != end]
        if not growing:
            break
    return _rows(prompt, done + growing, end)


def bandit(completions: int, *, prompt: int = 0) -> Rollout:
    """Each of K completions as *one* action: (K, 1), in the state `prompt`.

    For a policy such as `Tabular(prompts, K)`: no tokens, no time, a contextual bandit.
    """
    require.count("completions", completions)
    rows = every_completion([prompt], tokens=range(completions), end=None, max_tokens=1)
    return replace(rows, terminated=torch.ones_like(rows.terminated))


def completion_logps(
    policy: nn.Module, completions: Rollout, *, temperature: float = 1.0
) -> Tensor:
    """log π(completion | prompt) of each row, (K,), with its gradient.

    What the policy gives to tokens outside the set is missing from the sum of their
    probabilities, and what follows refuses such a set: wrap the policy in `Restricted`.
    """
    logits = policy(completions.states)  # (K, T, A)
    logps = token_logps(logits, completions.actions, temperature=temperature)
    return sequence_logps(logps, completions.mask)


def expected(values: Tensor, logps: Tensor) -> Tensor:
    """E[values] = Σ_y π(y) · values(y): (..., K), (..., K) -> (...).

    With the gradient through both: E[reward] is J(π) and differentiates to ∇J. Detach
    `logps` to hold the sampling law fixed; then E[loss] differentiates to the expected
    gradient of an estimator. Where π is 0, the value does not matter.
    """
    normalised("logps", logps)
    require.tensor("values", values, logps.shape)
    return (logps.exp() * values.masked_fill(logps == -torch.inf, 0)).sum(-1)


def gradient(value: Tensor, policy: nn.Module) -> Tensor:
    """d value / d weights as one vector (N,), to be compared with another."""
    require.tensor("value", value, ())
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    slopes = torch.autograd.grad(
        value, weights, retain_graph=True, materialize_grads=True
    )
    return torch.cat([slope.flatten() for slope in slopes])


@dataclass(frozen=True)
class Objective:
    """J_beta(π) = E_π[r] - beta · KL(π ‖ ref) over K completions, and its answer sheet.

    Policies come as log-probabilities (..., K) of all the completions; each answer is
    (...), differentiable.
    """

    rewards: Tensor  # (..., K)
    ref_logps: Tensor  # (..., K)  summing to 1 over K
    beta: float  # reward per nat

    def __post_init__(self) -> None:
        require.non_negative("beta", self.beta)
        normalised("ref_logps", self.ref_logps)
        require.tensor("rewards", self.rewards, self.ref_logps.shape)
        require.finite("rewards", self.rewards)

    def reward(self, logps: Tensor) -> Tensor:
        """J(π) = E_π[r], in units of reward."""
        return expected(self.rewards, logps)

    def kl(self, logps: Tensor) -> Tensor:
        """KL(π ‖ ref) of whole completions, in nats."""
        normalised("logps", logps)
        return exact_kl(logps, self.ref_logps)

    def value(self, logps: Tensor) -> Tensor:
        """J(π) - beta · KL(π ‖ ref); with beta 0 the KL may be infinite."""
        if self.beta == 0:
            return self.reward(logps)
        return self.reward(logps) - self.beta * self.kl(logps)

    @property
    def best_logps(self) -> Tensor:
        """log π* (..., K): π* ∝ ref · exp(r / beta)."""
        return optimal_policy(self.ref_logps, self.rewards, beta=self.beta)

    @property
    def best_value(self) -> Tensor:
        """J* = beta · log Z, which π* reaches; others miss it by beta · KL(π ‖ π*)."""
        return optimal_value(self.ref_logps, self.rewards, beta=self.beta)

    @property
    def log_z(self) -> Tensor:
        """log Z = log Σ ref · exp(r / beta), in nats."""
        return self.best_value / self.beta


class Restricted(nn.Module):
    """The same policy, allowed these tokens only: its probabilities sum to 1 on them."""

    def __init__(self, policy: nn.Module, tokens: Sequence[int]) -> None:
        super().__init__()
        _ids("tokens", tokens)
        self.policy = policy
        self.register_buffer("tokens", torch.tensor(tokens))

    def forward(self, states: Tensor) -> Tensor:
        """(B, T) -> logits (B, T, A), -inf for every token outside."""
        logits = self.policy(states)
        require.integers("tokens", self.tokens, logits.shape[-1])
        outside = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
        return logits.masked_fill(outside.index_fill(0, self.tokens, False), -torch.inf)


class PrefixTable(nn.Module):
    """A row of logits for each prefix: any policy over short strings, uniform at first.

    Prefixes of 1 … `context` tokens, the prompt's included, are numbered as in a
    dictionary sorted by length.
    """

    def __init__(self, vocabulary: int, context: int) -> None:
        super().__init__()
        require.count("vocabulary", vocabulary)
        require.count("context", context)
        prefixes = 0
        for length in range(1, context + 1):
            prefixes += vocabulary**length
            if prefixes * vocabulary > LIMIT:
                got = f"{prefixes} prefixes of up to {length} tokens"
                wanted = f"at most {LIMIT} logits: a smaller vocabulary or context"
                require.refuse("context", got, wanted)
        zeros = torch.zeros(prefixes, vocabulary, dtype=torch.float64)
        self.logits, self.context = nn.Parameter(zeros), context

    def forward(self, states: Tensor) -> Tensor:
        """(B, T) tokens, T <= context -> (B, T, vocabulary) logits of the next token."""
        size = self.logits.shape[1]
        require.integers("states", states, size)
        if states.shape[1] > self.context:
            got = f"{states.shape[1]} tokens"
            require.refuse("states", got, f"at most context = {self.context}")
        numbers, number = [], torch.full_like(states[:, 0], -1)
        for token in states.unbind(1):
            number = (number + 1) * size + token
            numbers.append(number)
        return self.logits[torch.stack(numbers, 1)]  # (B, T, vocabulary)


def _ids(name: str, ids: Sequence[int]) -> None:
    """At least one token id, and no more than may be written."""
    if not 0 < len(ids) <= LIMIT:
        require.refuse(name, f"{len(ids)} tokens", f"1 … {LIMIT} of them")
    for token in ids:
        require.count(name, token, least=0)


def _rows(prompt: Sequence[int], strings: list, end: int | None) -> Rollout:
    """Prompt and strings in the layout of sampled completions, padded with 0."""
    width, start = max(map(len, strings)), len(prompt)
    padded = [[*prompt, *string, *[0] * (width - len(string))] for string in strings]
    tokens = torch.tensor(padded)  # (K, start + width)
    lengths = torch.tensor([len(string) for string in strings]).unsqueeze(1)  # (K, 1)
    place = torch.arange(1, start + width)  # of each action in its row
    mask = (place >= start) & (place < start + lengths)  # (K, T)
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    last = tokens.gather(1, start + lengths - 1).squeeze(1)  # (K,)
    return Rollout(
        states=tokens[:, :-1],
        actions=tokens[:, 1:],
        logps=zeros,
        rewards=zeros.clone(),
        mask=mask,
        last_states=last,
        terminated=torch.zeros_like(last, dtype=torch.bool)
        if end is None
        else last == end,
    )
