"""Where the heads of a transformer look, and what they remember.

Attention (Vaswani et al. 2017): a query is compared with the keys of every place that it
may look at, and receives their values in proportion. Training looks at whole rows at
once (`causal`). Sampling reads one token at a time: the keys and values of all that was
read before wait in a Memory.

Where several heads share one head's keys and values (grouped-query attention; Ainslie et
al. 2023), as Llama's do, k and v have fewer heads than q: KV, a divisor of H.

Shapes: H heads of size D, B rows, T tokens, P prompts of n tokens, G rows a prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def angles(context: int, size: int, theta: float = 10_000) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of `rotate`, (context, size) each, float64.

    Pair i turns by place · theta^(-2i / D): the first fast, the last slowly.
    """
    speed = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    turned = torch.arange(context).unsqueeze(1) * speed  # (context, D / 2)
    cos, sin = turned.cos(), turned.sin()
    return torch.cat((cos, cos), 1), torch.cat((-sin, sin), 1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + D/2}) by its position's angle (RoPE; Su et al. 2021).

    x (..., D); cos and sin broadcast to it, sin with a minus sign in its first half.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each position looks at itself and at those before it.

    q (B, T, H, D), k and v (B, T, KV, D) -> (B, T, H, D).
    """
    return attention(q, k, v, is_causal=True)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    may_see: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """q (B, t, H, D) looks at k, v (B, T, KV, D) where `may_see` (B, 1, t, T) is True."""
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    found = F.scaled_dot_product_attention(
        q, k, v, attn_mask=may_see, is_causal=is_causal, enable_gqa=grouped
    )
    return found.transpose(1, 2)


def gaps(lengths: Tensor, n: int, room: int, group: int) -> Tensor:
    """(P, G, n + room · G): -inf on padding and on entries of other rows, 0 elsewhere."""
    late = torch.arange(n, device=lengths.device) >= lengths.unsqueeze(1)  # (P, n)
    others = ~torch.eye(group, dtype=torch.bool, device=lengths.device)
    late = late.unsqueeze(1).expand(-1, group, -1)
    others = others.repeat(1, room).expand(len(lengths), -1, -1)
    hidden = torch.cat((late, others), -1)
    return torch.zeros(hidden.shape, device=lengths.device).masked_fill(
        hidden, -torch.inf
    )


class Memory:
    """The keys and values that one block's heads have seen, written in place.

    The G rows that share a prompt share one list: first what the prompt left, then one
    entry of each row, one of each row, … A row must not look at another's, nor at
    padding: there `gap` (P·KV, R·G, entries) is -inf, elsewhere 0. `sharing` R is the
    number of heads that share one head's keys and values.
    """

    def __init__(
        self, gap: Tensor, heads: int, size: int, taken: int, sharing: int = 1
    ) -> None:
        self.gap, self.taken, self.sharing = gap, taken, sharing
        prompts, self.group = len(gap) // heads, gap.shape[1] // sharing
        self.keys = gap.new_empty(prompts, heads, gap.shape[2], size)  # (P, KV, …, D)
        self.values = torch.empty_like(self.keys)

    def begin(self, q: Tensor, k: Tensor, v: Tensor, *, rows: slice) -> Tensor:
        """What these prompts read: q (P, n, H, D), k and v (P, n, KV, D)."""
        self.keys[rows, :, : self.taken] = k.transpose(1, 2)
        self.values[rows, :, : self.taken] = v.transpose(1, 2)
        return causal(q, k, v)

    def step(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each row reads next: q (B, H, D), k and v (B, KV, D) -> (B, H, D)."""
        old, self.taken = self.taken, self.taken + self.group
        q, k, v = (x.unflatten(0, (-1, self.group)).transpose(1, 2) for x in (q, k, v))
        self.keys[:, :, old : self.taken] = k  # (P, KV, G, D)
        self.values[:, :, old : self.taken] = v
        kept = (x[:, :, : self.taken] for x in (self.keys, self.values))
        keys, values = (x.flatten(0, 1) for x in kept)  # (P·KV, …, D)
        rows = q.reshape(len(keys), -1, q.shape[-1])  # (P·KV, R·G, D)
        gap, scale = self.gap[..., : self.taken], q.shape[-1] ** -0.5
        scores = torch.baddbmm(gap, rows, keys.mT, alpha=scale)
        seen = torch.bmm(scores.softmax(-1), values)  # (P·KV, R·G, D)
        return seen.view_as(q).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Cache:
    """What `extend` needs of everything that was read before."""

    places: Tensor  # (B,) where each row's next token stands
    memories: Sequence[Memory]  # one a block
