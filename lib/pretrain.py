"""The base model: a small transformer that has read the village's papers, and no more.

It is made by code in well under a minute, never downloaded, and kept on this computer.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lib import checkpoint, require
from lib.losses.supervised import Loss, sft
from lib.models.transformer import Config, Transformer
from lib.ops import device_of, token_logps
from lib.train import History, fit, warm_cosine
from lib.worlds.village import TOKENIZER
from lib.worlds.village.corpus import documents

CONFIG = Config(vocabulary=len(TOKENIZER))
ROW = 64  # tokens in a row of pretraining text
BATCH = 8  # rows
UPDATES = 1800
LR = 5e-3


def rows(texts: Sequence[str], length: int = ROW) -> Tensor:
    """Documents packed into rows: (N, length + 1) token ids, padded on the right.

    Each document stands between begin and end. A row takes whole documents while they
    fit; what is longer than a row is cut.
    """
    require.count("length", length)
    if not texts:
        require.refuse("texts", "none", "at least one")
    packed: list[list[int]] = [[]]
    for text in texts:
        ids = [TOKENIZER.begin, *TOKENIZER.encode(text), TOKENIZER.end]
        if packed[-1] and len(packed[-1]) + len(ids) > length + 1:
            packed.append([])
        packed[-1] += ids[: length + 1]
    filled = torch.full((len(packed), length + 1), TOKENIZER.pad)
    for row, ids in zip(filled, packed):
        row[: len(ids)] = torch.tensor(ids)
    return filled


def next_token_loss(model: nn.Module, batch: Tensor) -> Loss:
    """Pretraining: predict every token but padding. batch: (B, length + 1)."""
    batch = batch.to(device_of(model))
    actions = batch[:, 1:]
    logps = token_logps(model(batch[:, :-1]), actions)
    return sft(logps, actions != TOKENIZER.pad)


def pretrain(
    *,
    seed: int = 0,
    config: Config = CONFIG,
    updates: int = UPDATES,
    progress: str | None = None,
) -> tuple[Transformer, History]:
    """A model from nothing: one pass over freshly written documents."""
    require.count("seed", seed, least=0)
    require.count("updates", updates)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    fill = 19.5  # tokens a document takes, begin and end included
    text = documents(count=int(1.2 * updates * BATCH * ROW / fill), seed=seed)
    batches = rows(text)[: updates * BATCH].split(BATCH)
    lr = warm_cosine(LR, updates)
    return model, fit(model, batches, next_token_loss, lr=lr, progress=progress)


# --- kept on this computer ------------------------------------------------------------


def base_model(*, seed: int = 0, progress: str | None = None) -> Transformer:
    """The base model of this seed: read from the cache, or made and put there.

    While it is made a bar shows how far it is, named `progress` ("base model", if None).
    """
    return base_run(seed=seed, progress=progress)[0]


def base_run(
    *, seed: int = 0, progress: str | None = None
) -> tuple[Transformer, History]:
    """The same with its training history (loss, grad_norm and perplexity, an update)."""
    require.count("seed", seed, least=0)

    def make() -> checkpoint.State:
        bar = progress or "base model"
        made, history = pretrain(
            seed=seed, config=CONFIG, updates=UPDATES, progress=bar
        )
        return {"model": made.state_dict(), "history": history}

    about, made_of = "the base model, which takes about 30 s", (CONFIG, UPDATES)
    state = checkpoint.cached(
        f"base-{seed}", make, file=__file__, of=made_of, about=about
    )
    model = Transformer(CONFIG, generator=torch.Generator().manual_seed(seed))
    model.load_state_dict(state["model"])
    return model, state["history"]


def base_model_path(seed: int) -> Path:
    """Where the base model of this seed is kept; see `checkpoint.cache_path`."""
    return checkpoint.cache_path(f"base-{seed}", file=__file__, of=(CONFIG, UPDATES))
