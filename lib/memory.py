"""What a training run holds in memory, by arithmetic: weights, moments, activations, caches.

The largest terms, each exact for a model's sizes or from a stated formula; not the
working space of a library, not what an allocator leaves unused. `fits` keeps a tenth
free for these. All sizes are bytes; a gigabyte is 2^30 of them, as graphics cards are
sold.
"""

from dataclasses import dataclass

from lib import require
from lib.models.transformer import Config

GB = 2**30
MOMENTS = 8  # Adam's two, in float32
LOGITS = 8  # logits and their gradient, in float32


@dataclass(frozen=True)
class Method:
    """How weights are kept: bytes a number, and how many are learnt."""

    read: float  # of a weight as it is read; tables of tokens: 2 at least
    learnt: float = (
        0.0  # more, of one that is learnt: its float32 copy, if `read` is less
    )
    gradient: float = 4.0  # of one that is learnt
    activation: float = 2.0  # of a number kept for the gradient
    rank: int | None = None  # LoRA's; None: every weight is learnt


METHODS = {
    "float32": Method(read=4, activation=4),
    "mixed": Method(read=2, learnt=4, gradient=2),  # Rajbhandari et al. 2020: 16 in all
    "LoRA": Method(read=2, learnt=4, gradient=2, rank=8),
    "LoRA on 4 bits": Method(read=(4 + 0.127) / 8, learnt=4, gradient=2, rank=8),
}  # 0.127 bits a weight for the scales: Dettmers et al. 2023


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they hold."""

    weights: float
    gradients: float
    moments: float
    activations: float  # with the logits; not there while answers are sampled
    cache: float  # of keys and values; not there while a loss is computed
    copies: float  # of other models: reference, reward model, critic

    @property
    def total(self) -> float:
        """The most that is there at a time."""
        lasting = self.weights + self.gradients + self.moments + self.copies
        return lasting + max(self.activations, self.cache)


def tables(config: Config, *, tied: bool = True) -> int:
    """How many weights its tables of tokens have: one table, or two if not `tied`."""
    return config.vocabulary * config.width * (1 if tied else 2)


def parameters(config: Config, *, tied: bool = True) -> int:
    """How many weights a Transformer has; one more table of tokens if not `tied`."""
    c = config
    look = c.width * c.size * (2 * c.heads + 2 * c.kv_heads)  # q and out, k and v
    block = look + 3 * c.width * c.hidden + 2 * c.width  # and the gated MLP, two norms
    return c.layers * block + c.width + tables(config, tied=tied)


def lora_parameters(config: Config, rank: int) -> int:
    """How many weights `add_lora` trains: rank · (in + out) of each linear layer."""
    require.count("rank", rank)
    c = config
    qkv = c.width + c.size * (c.heads + 2 * c.kv_heads)
    wide, down = c.width + 2 * c.hidden, c.hidden + c.width
    return c.layers * rank * (qkv + 2 * c.width + wide + down)


def kept(config: Config) -> int:
    """Numbers that a block of `Transformer` keeps of each token for the gradient.

    Nine as wide as the stream: what enters each of the two norms, with its scale and
    what comes out (6); what attention reads and writes (queries twice, turned and in
    the product that holds them; 3). Keys and values of the shared heads: three. The
    MLP: four of its width. One number a head and one a norm. Attention's scores are
    not kept. GPT's blocks keep 17 widths, 34 bytes in 16 bits (Korthikanti et al. 2022,
    Equation 2 without its second term).
    """
    c = config
    return 9 * c.width + 3 * c.kv_heads * c.size + 4 * c.hidden + c.heads + 2


def activations(
    config: Config, rows: int, tokens: int, *, number: float = 2, again: bool = False
) -> float:
    """What blocks keep for the gradient: `kept` numbers a token, in each block.

    `again`: only what enters each block is kept, and one block at a time is computed
    again.
    """
    for name, value in (("rows", rows), ("tokens", tokens)):
        require.count(name, value)
    require.positive("number", number)
    block = kept(config)
    others = (config.layers - 1) * (config.width if again else block)
    return rows * tokens * (others + block) * number


def kv_cache(config: Config, rows: int, tokens: int, *, number: float = 2) -> float:
    """A key and a value of each shared head, block, row and token."""
    for name, value in (("rows", rows), ("tokens", tokens)):
        require.count(name, value)
    each = 2 * config.layers * config.kv_heads * config.size
    return each * rows * tokens * number


def training(
    config: Config,
    method: Method,
    *,
    rows: int,
    tokens: int,
    tied: bool = True,
    again: bool = False,
    sampled: int = 0,
    frozen: int = 0,
    critics: int = 0,
) -> Memory:
    """What one process holds that learns from `rows` rows of `tokens` at a time.

    `sampled` rows are written at once with a cache; `frozen` whole models are only read
    (a reference, a reward model) and `critics` are learnt. With LoRA the reference is
    the model without its matrices, and need not be counted.
    """
    for name, value in (("sampled", sampled), ("frozen", frozen), ("critics", critics)):
        require.count(name, value, least=0)
    every = parameters(config, tied=tied)
    learnt = every if method.rank is None else lora_parameters(config, method.rank)
    beside = (
        0 if method.rank is None else learnt * 2
    )  # the thin matrices, as they are read
    words = tables(config, tied=tied)  # which QLoRA does not keep in 4 bits
    read = (every - words) * method.read + words * max(method.read, 2)
    weights = read + beside + learnt * method.learnt
    gradients, moments = learnt * method.gradient, learnt * MOMENTS
    blocks = activations(config, rows, tokens, number=method.activation, again=again)
    cache = {"number": method.activation}
    return Memory(
        weights=weights,
        gradients=gradients,
        moments=moments,
        activations=blocks + rows * tokens * config.vocabulary * LOGITS,
        cache=kv_cache(config, sampled, tokens, **cache) if sampled else 0.0,
        copies=frozen * read + critics * (weights + gradients + moments),
    )


def fits(memory: Memory, gigabytes: float) -> bool:
    """Whether a card of so many gigabytes holds it and keeps a tenth free."""
    require.positive("gigabytes", gigabytes)
    return memory.total <= 0.9 * gigabytes * GB
