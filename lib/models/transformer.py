"""A small language model in plain PyTorch: Llama's architecture (Touvron et al. 2023).

Tokens become vectors; each block lets every position look back at those before it
(attention, with rotary positions) and then think by itself (a gated MLP); what is left
is compared with every token's vector. Read causally, it is a policy like any other:
states (B, T) -> logits (B, T, A), where a state is a token with all those before it.

Training reads whole rows with `forward`. Sampling reads the prompts once (`prefill`),
then one token a row at a time (`extend`); a Cache keeps the keys and values of what was
read. The blocks cannot tell the difference: only what their heads look at differs.

Shapes: B rows, T tokens, P prompts of n tokens, A vocabulary, H heads of size D.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import require
from lib.models.attention import Cache, Memory, angles, causal, gaps, rotate

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v -> one more like q


@dataclass(frozen=True)
class Config:
    """The sizes of a Transformer. Its heads share `width` among them.

    Real models differ from the book's own in their numbers alone.
    """

    vocabulary: int
    context: int = 128  # the longest row that it reads
    layers: int = 2
    width: int = 64
    heads: int = 4
    hidden: int = 128  # of the MLP
    kv_heads: int | None = None  # heads of keys and values; None: as many as heads
    theta: float = 10_000.0  # of the rotary positions, see `attention.angles`
    eps: float = 1e-6  # under the root of RMSNorm

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "width", "heads", "hidden"):
            require.count(name, getattr(self, name))
        require.positive("theta", self.theta)
        require.positive("eps", self.eps)
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)
        require.count("kv_heads", self.kv_heads)
        if self.heads % self.kv_heads:
            require.refuse(
                "kv_heads", self.kv_heads, f"a divisor of {self.heads} heads"
            )
        if self.width % (2 * self.heads):
            wanted = f"a multiple of {2 * self.heads}, twice the heads"
            require.refuse("width", self.width, wanted)

    @property
    def size(self) -> int:
        """Of one head: D."""
        return self.width // self.heads


class RMSNorm(nn.Module):
    """Each vector over its root mean square, then scaled (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        mean_square = torch.linalg.vecdot(x, x).unsqueeze(-1) / x.shape[-1]
        return x * (self.weight * torch.rsqrt(mean_square + self.eps))


class Block(nn.Module):
    """Attention, then a gated MLP (SwiGLU; Shazeer 2020), each added to the stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, hidden, self.size = config.width, config.hidden, config.size
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.norm1, self.norm2 = (RMSNorm(width, config.eps) for _ in range(2))
        rows = (self.heads + 2 * self.kv_heads) * self.size
        self.qkv = nn.utils.skip_init(nn.Linear, width, rows, bias=False)
        self.out = nn.utils.skip_init(nn.Linear, width, width, bias=False)
        self.wide = nn.utils.skip_init(nn.Linear, width, 2 * hidden, bias=False)
        self.down = nn.utils.skip_init(nn.Linear, hidden, width, bias=False)

    def look(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """(..., width) -> (..., width): each position looks at others."""
        seen = attend(*self.heads_of(x, cos, sin))  # (..., H, D)
        return x + self.out(seen.flatten(-2))

    def heads_of(
        self, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(..., width) -> queries (..., H, D), keys and values (..., KV, D)."""
        qkv = self.qkv(self.norm1(x)).unflatten(
            -1, (-1, self.size)
        )  # (..., H + 2 KV, D)
        turned, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), -2)
        turned = rotate(turned, cos, sin)
        q, k = turned.split((self.heads, self.kv_heads), -2)
        return q, k, v

    def think(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width): each position by itself."""
        gate, up = self.wide(self.norm2(x)).chunk(2, -1)  # (..., hidden) each
        return x + self.down(F.silu(gate) * up)


class Transformer(nn.Module):
    """tokens (B, T) -> logits (B, T, A): place t scores what may follow tokens[: t + 1].

    Weights are drawn in float64 from the generator, so that the same seed gives the
    same start on every processor, and then cast to `dtype`; without a generator they are
    nothing yet, for weights that are read (`lib.models.pretrained`). A token outside the
    vocabulary and a row longer than the context are refused.
    """

    def __init__(
        self,
        config: Config,
        *,
        generator: torch.Generator | None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.config = config
        size = config.vocabulary, config.width
        self.embedding = nn.utils.skip_init(nn.Embedding, *size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.eps)
        turns = angles(config.context, config.size, config.theta)
        cos, sin = (x[:, None] for x in turns)  # one for all heads
        self.register_buffer("cos", cos, persistent=False)  # (context, 1, D)
        self.register_buffer("sin", sin, persistent=False)
        if generator is not None:
            self._draw(generator)
        self.to(dtype)

    def _draw(self, generator: torch.Generator) -> None:
        for name, weight in self.double().named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(
                    weight, std=self._spread(name, weight), generator=generator
                )

    def _spread(self, name: str, weight: Tensor) -> float:
        """The standard deviation that a weight is drawn with."""
        if name == "embedding.weight":
            return 0.05
        spread = 0.5 * weight.shape[1] ** -0.5
        added = name.endswith(("out.weight", "down.weight"))
        return spread * (2 * self.config.layers) ** -0.5 if added else spread

    @property
    def context(self) -> int:
        """The longest row that it reads."""
        return self.config.context

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, A)."""
        return self.logits(self.hidden(tokens))

    def hidden(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, width): what it makes of each token and those before it."""
        x = self.embed(tokens)
        return self.read(x, torch.arange(x.shape[1], device=x.device), causal)

    def read(self, x: Tensor, places: Tensor, attend: Attend) -> Tensor:
        """Embedded tokens (..., width) that stand at `places` (...) -> (..., width).

        `attend` decides which of them each may look at, and is all that mixes them.
        """
        cos, sin = self.cos[places], self.sin[places]  # (..., 1, D)
        for block in self.blocks:
            x = block.think(block.look(x, cos, sin, attend))
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., A): each token's own vector scores the hidden one."""
        return F.linear(hidden, self.embedding.weight)

    def prefill(
        self, prompts: Tensor, lengths: Tensor, *, room: int, group: int = 1
    ) -> tuple[Tensor, Cache]:
        """Read each prompt once: logits (P · group, A) of what follows, and a Cache.

        prompts (P, n) are padded on the right, `lengths` (P,) say from where. Each
        begins `group` rows side by side, with `room` for that many tokens. No gradient.
        """
        require.prompts(prompts, lengths, room=room, group=group)
        if prompts.shape[-1] + room > self.config.context:
            got = f"{prompts.shape[-1]} tokens and room for {room} more"
            require.refuse("prompts", got, f"at most {self.config.context} in all")
        share = max(rows for rows in range(1, 9) if group % rows == 0)  # one Memory
        prompts = prompts.repeat_interleave(group // share, 0)
        lengths = lengths.repeat_interleave(group // share)
        heads, n = self.config.kv_heads, prompts.shape[1]
        sharing = self.config.heads // heads
        gap = gaps(lengths, n, room, share).to(self.cos).repeat_interleave(heads, 0)
        gap = gap.repeat(1, sharing, 1)  # (P·KV, R·G, entries)
        shape = (heads, self.config.size, n, sharing)
        memories = [Memory(gap, *shape) for _ in self.blocks]
        few = 16  # prompts at once: what they need on the way stays near the CPU
        parts = [slice(first, first + few) for first in range(0, len(prompts), few)]
        with torch.inference_mode():
            logits = [self._begin(prompts, lengths, memories, rows) for rows in parts]
        cache = Cache(lengths.repeat_interleave(share), memories)
        return torch.cat(logits).repeat_interleave(share, 0), cache

    def _begin(
        self, prompts: Tensor, lengths: Tensor, memories: Sequence[Memory], rows: slice
    ) -> Tensor:
        """What follows the last token of each of these prompts: (P, A)."""
        x, last = self.embed(prompts[rows]), lengths[rows] - 1
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        for block, memory in zip(self.blocks, memories):
            x = block.look(x, cos, sin, partial(memory.begin, rows=rows))
            if block is self.blocks[-1]:
                x = x[torch.arange(len(x), device=x.device), last]  # nobody asks more
            x = block.think(x)
        return self.logits(self.norm(x))

    def extend(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Read one more token (B,) of each row: logits (B, A) of what follows it."""
        require.tensor("tokens", tokens, cache.places.shape)
        first = cache.memories[0]
        if first.taken == first.keys.shape[2]:
            require.refuse("tokens", "one more", "no more than there was room for")
        with torch.inference_mode():
            x = self.embed(tokens.unsqueeze(1)).squeeze(1)  # (B, width)
            cos, sin = self.cos[cache.places], self.sin[cache.places]  # (B, 1, D)
            for block, memory in zip(self.blocks, cache.memories):
                x = block.think(block.look(x, cos, sin, memory.step))
            cache.places.add_(1)
            logits = self.logits(self.norm(x))
        return logits.clone()  # an ordinary tensor

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, width), if there are such tokens and not too many."""
        require.tensor("tokens", tokens)
        if tokens.ndim != 2:
            require.refuse("tokens", f"shape {tuple(tokens.shape)}", "shape (B, T)")
        require.integers("tokens", tokens, self.config.vocabulary)
        if not 1 <= tokens.shape[1] <= self.config.context:
            wanted = f"1 … {self.config.context}, the context"
            require.refuse("tokens", f"{tokens.shape[1]} in a row", wanted)
        return self.embedding(tokens.long())
