"""Pretraining: a small transformer reads a corpus, and is a base model then.

The five base models of the book are committed (`base_model`): nobody waits for them.
`python -m tools.models` makes them anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lib import require
from lib.losses.supervised import Loss, sft
from lib.models.attention import attention
from lib.models.tokenizer import Tokenizer
from lib.models.transformer import Config, Transformer
from lib.ops import device_of, token_logps
from lib.ready import load
from lib.seeds import generator, seed_of
from lib.train import History, fit, warm_cosine
from lib.worlds.corpus import documents
from lib.worlds.language import TOKENIZER

CONFIG = Config(vocabulary=len(TOKENIZER))
SEEDS = range(5)  # of the committed base models
ROW = 96  # tokens in a row of text
BATCH = 8  # rows
OPEN = 16  # rows that still take documents
UPDATES = 10_000
LR = 5e-3
ANNEAL = 1_000  # updates at the end, at a low rate
WORKED = 0.01  # share of worked answers among the documents that are read then


@dataclass(frozen=True)
class Packed:
    """Documents side by side in rows of T + 1 tokens, and where each begins."""

    tokens: Tensor  # (N, T + 1)
    document: Tensor  # (N, T + 1)  its number in the row; -1 is padding

    def split(self, rows: int) -> Iterator["Packed"]:
        """So many rows at a time."""
        parts = zip(self.tokens.split(rows), self.document.split(rows))
        return (Packed(*part) for part in parts)

    def __len__(self) -> int:
        return len(self.tokens)


def pack(
    texts: Sequence[str], length: int = ROW, tokenizer: Tokenizer = TOKENIZER
) -> Packed:
    """Each document between begin and end, side by side in rows of length + 1 tokens.

    A document goes into the first of OPEN rows that has room for it; what is longer
    than a row is cut.
    """
    require.count("length", length)
    if not texts:
        require.refuse("texts", "none", "at least one")
    rows: list[list[list[int]]] = []
    room: list[int] = []
    for text in texts:
        ids = [tokenizer.begin, *tokenizer.encode(text), tokenizer.end][: length + 1]
        near = range(max(0, len(rows) - OPEN), len(rows))
        at = next((i for i in near if room[i] >= len(ids)), None)
        if at is None:
            at = len(rows)
            rows.append([])
            room.append(length + 1)
        rows[at].append(ids)
        room[at] -= len(ids)
    tokens = torch.full((len(rows), length + 1), tokenizer.pad)
    document = torch.full_like(tokens, -1)
    for row, ids, number in zip(rows, tokens, document):
        lengths = torch.tensor([len(each) for each in row])
        ids[: lengths.sum()] = torch.tensor([token for each in row for token in each])
        number[: lengths.sum()] = torch.arange(len(row)).repeat_interleave(lengths)
    return Packed(tokens, document)


def next_token_loss(model: Transformer, batch: Packed) -> Loss:
    """Predict every token of every document from those before it in that document.

    Documents that share a row do not see each other.
    """
    device = device_of(model)
    tokens, document = batch.tokens.to(device), batch.document.to(device)
    states, actions = tokens[:, :-1], tokens[:, 1:]  # (B, T) each
    here, there = document[:, :-1], document[:, 1:]
    same = here.unsqueeze(2) == here.unsqueeze(1)  # (B, T, T)
    seen = same.tril().unsqueeze(1)  # (B, 1, T, T)
    attend = partial(attention, may_see=seen)
    places = torch.arange(states.shape[1], device=device)
    hidden = model.read(model.embed(states), places, attend)  # (B, T, width)
    logps = token_logps(model.logits(hidden), actions)
    return sft(logps, (there == here) & (there >= 0))


def corpus(*, seed: int, updates: int, **shares: float) -> Packed:
    """Rows of freshly written documents for so many updates, each read once.

    `shares` change those of `lib.worlds.corpus.SHARES`.
    """
    rows, count = updates * BATCH, 2000
    full = len(pack(documents(count=count, seed=seed, **shares))) / count
    texts = documents(count=int(1.05 * rows / full) + 100, seed=seed, **shares)
    packed = pack(texts)
    return Packed(packed.tokens[:rows], packed.document[:rows])


def pretrain(
    *,
    seed: int,
    attempt: int = 0,
    updates: int = UPDATES,
    progress: str | None = None,
) -> tuple[Transformer, History]:
    """A model from nothing, in float64: one pass over a corpus.

    The seed draws the text and, with the `attempt`, the first weights: from some of
    them the game is not learnt. 10,000 updates take about seven minutes on one core.
    """
    require.count("seed", seed, least=0)
    require.count("attempt", attempt, least=0)
    require.count("updates", updates)
    draw = generator("base model", seed, *[attempt] * (attempt > 0))
    model = Transformer(CONFIG, generator=draw, dtype=torch.float64)
    batches = list(corpus(seed=seed, updates=updates).split(BATCH))
    lr = warm_cosine(LR, updates)
    return model, fit(model, batches, next_token_loss, lr=lr, progress=progress)


def anneal(
    model: Transformer,
    *,
    seed: int,
    cups_worked: float = WORKED,
    updates: int = ANNEAL,
    progress: str | None = None,
) -> History:
    """The end of pretraining, in place: fresh text and a falling rate.

    Real models too read last what they should remember best (annealing, mid-training).
    `cups_worked` is the share of worked answers in it: the fewer there are, the more
    rarely a base thinks, and it still knows how to.
    """
    require.unit_interval("cups_worked", cups_worked)
    number = seed_of("anneal", seed)
    text = corpus(seed=number, updates=updates, cups_worked=cups_worked)
    batches, lr = list(text.split(BATCH)), warm_cosine(LR / 5, updates)
    return fit(model, batches, next_token_loss, lr=lr, progress=progress)


def blank(config: Config = CONFIG) -> Transformer:
    """A model in float64 whose weights will be filled."""
    return Transformer(config, generator=generator("blank"), dtype=torch.float64)


def base_model(*, seed: int = 0) -> Transformer:
    """The committed base model of this seed, in float64."""
    require.count("seed", seed, least=0)
    if seed not in SEEDS:
        require.refuse("seed", seed, f"one of {tuple(SEEDS)}; `pretrain` makes others")
    return load(blank(), f"base-{seed}")
