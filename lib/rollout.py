"""The records that both worlds write into: what was done, and what it is credited with.

A row of a `Rollout` is one episode: a pole kept up, a room heated, a completion
written. After this record nothing in the book can tell a pole from a sentence. A
`Batch` is a rollout with its credit: what an update learns from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import require
from lib.ops import masked_mean


@dataclass(frozen=True)
class Rollout:
    """A batch of episodes, one a row, padded on the right."""

    states: Tensor  # (B, T, ...)  what the policy saw
    actions: Tensor  # (B, T)       what it did
    logps: Tensor  # (B, T)       log π_old(action | state), nats
    rewards: Tensor  # (B, T)
    mask: Tensor  # (B, T) bool  True where the policy chose
    last_states: Tensor  # (B, ...)     the state after the last action
    terminated: Tensor  # (B,) bool    it ended by itself; False: the clock cut it off

    def __post_init__(self) -> None:
        for name in ("actions", "logps", "rewards"):
            require.mask_of(getattr(self, name), self.mask, name)
        require.tensor("terminated", self.terminated, self.mask.shape[:1])
        require.tensor("last_states", self.last_states)
        shape = (*self.mask.shape, *self.last_states.shape[1:])
        require.tensor("states", self.states, shape)
        require.tensor("last_states", self.last_states, (len(self.mask), *shape[2:]))

    @property
    def lengths(self) -> Tensor:
        """(B,) steps in each episode."""
        return self.mask.sum(-1)

    @property
    def returns(self) -> Tensor:
        """(B,) undiscounted sum of each episode's rewards."""
        return self.rewards.masked_fill(~self.mask, 0).sum(-1)

    @property
    def ends(self) -> Tensor:
        """(B, T) bool: True on the last step of each episode."""
        after = torch.zeros_like(self.mask)
        after[:, :-1] = self.mask[:, 1:]
        return self.mask & ~after

    def rows(self, index: Tensor) -> "Rollout":
        """The rollout of these rows only (a minibatch)."""
        return Rollout(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device) -> "Rollout":
        """The same rollout on this device."""
        parts = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return self if self.mask.device == device else Rollout(**parts)

    def __len__(self) -> int:
        return len(self.mask)


def of_tokens(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    end: int,
    pad: int,
) -> Rollout:
    """Token ids of B prompts and of an answer to each as a Rollout on the CPU.

    Log-probabilities and rewards are 0; the mask is True on the answers, and a row that
    ends with `end` has terminated. No prompt is empty.
    """
    if not prompts or not all(map(len, prompts)):
        got = "none" if not prompts else "an empty one"
        require.refuse("prompts", got, "at least one, of at least one token each")
    here = {"device": "cpu"}
    rows = [
        torch.tensor([*p, *a], **here) for p, a in zip(prompts, answers, strict=True)
    ]
    tokens = nn.utils.rnn.pad_sequence(rows, True, pad)  # (B, T + 1)
    begins, ends = (
        torch.tensor([len(x) for x in each], **here).unsqueeze(1)
        for each in (prompts, rows)
    )
    at = torch.arange(tokens.shape[1], **here)
    last = tokens.gather(1, ends - 1).squeeze(1)  # (B,)
    nothing = torch.zeros(tokens[:, 1:].shape, **here)
    return Rollout(
        states=tokens[:, :-1],
        actions=tokens[:, 1:],
        logps=nothing,
        rewards=nothing,
        mask=((at >= begins) & (at < ends))[:, 1:],
        last_states=last,
        terminated=last == end,
    )


def concat(*parts: Rollout) -> Rollout:
    """Rollouts of texts as one, row below row, padded to the longest."""
    width = max(part.mask.shape[1] for part in parts)

    def joined(name: str) -> Tensor:
        each = [getattr(part, name) for part in parts]
        return torch.cat([_wide(x, width, 0) if x.ndim > 1 else x for x in each])

    return Rollout(**{f.name: joined(f.name) for f in fields(Rollout)})


def _wide(x: Tensor, width: int, fill: int = -1) -> Tensor:
    return F.pad(x, (0, width - x.shape[1]), value=fill)


@dataclass(frozen=True)
class Batch:
    """A rollout and what its actions are credited with: what an update learns from."""

    rollout: Rollout
    advantages: Tensor  # (B, T)  the credit of each action
    values: Tensor | None = None  # (B, T)  what V(s_t) said when it was taken,
    returns: Tensor | None = None  # (B, T)  and what it should have said
    group: int = 1  # rows to each prompt, side by side
    ref_logps: Tensor | None = None  # (B, T)  where the loss holds a KL penalty
    beta: float = 0.0  # of that penalty
    length: int | None = None  # tokens that an answer might have taken
    metrics: dict[str, float] = field(default_factory=dict)  # of these answers

    def rows(self, index: Tensor) -> "Batch":
        """What these rows alone teach; `index` keeps groups whole."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {n: x[index] for n, x in parts.items() if isinstance(x, Tensor)}
        return replace(self, rollout=self.rollout.rows(index), **tensors)

    def __len__(self) -> int:
        return len(self.rollout)


def zero_variance(rewards: Tensor) -> Tensor:
    """Groups whose rewards are all equal, and so teach nothing: (P, G) -> (P,) bool."""
    return (rewards == rewards[:, :1]).all(1)


def rollout_metrics(rollout: Rollout, rewards: Tensor) -> dict[str, float]:
    """Diagnostics of a set of answers, before anything is learnt from it.

    reward: their mean. zero_variance: share of groups whose rewards are all equal.
    length: tokens. entropy: nats a token, estimated by -log π of what was drawn.
    finished: share that came to an end.
    """
    return {
        "reward": rewards.mean().item(),
        "zero_variance": zero_variance(rewards).double().mean().item(),
        "length": rollout.lengths.double().mean().item(),
        "entropy": -masked_mean(rollout.logps, rollout.mask).item(),
        "finished": rollout.terminated.double().mean().item(),
    }
