"""The base model: a small transformer that has read the village's papers, and no more.

It is made by code in well under a minute, never downloaded. The result is kept on this
computer under a name that holds a hash of everything that went into it: a change of the
corpus, the model or the loop makes another name, and so another model.
"""

import hashlib
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib import checkpoint, require
from lib.losses.supervised import Loss, sft
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.train import History, fit
from lib.worlds.corpus import documents
from lib.worlds.village import TOKENIZER

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
    """Pretraining: every token but padding is to be foreseen. batch: (B, length + 1)."""
    actions = batch[:, 1:]
    logps = token_logps(model(batch[:, :-1]), actions)
    return sft(logps, actions != TOKENIZER.pad)


def warm_cosine(peak: float, updates: int, *, warm: int = 50) -> Callable[[int], float]:
    """A learning rate that climbs for `warm` updates, then falls to a tenth of `peak`.

    Without the climb it is half a cosine wave from `peak` down (Loshchilov & Hutter
    2017).
    """
    require.positive("peak", peak)
    require.count("updates", updates)
    require.count("warm", warm)

    def rate(update: int) -> float:
        done = min(1.0, update / updates)
        fall = 0.55 + 0.45 * math.cos(math.pi * done)
        return peak * min(1.0, (update + 1) / warm) * fall

    return rate


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
    """The base model of this seed: read from the cache, or made and put there."""
    return base_run(seed=seed, progress=progress)[0]


def base_run(
    *, seed: int = 0, progress: str | None = None
) -> tuple[Transformer, History]:
    """The same with its training history (loss, grad_norm and perplexity, an update)."""
    require.count("seed", seed, least=0)
    path = cache_path(seed)
    kept = _read(path)
    if kept is not None:
        model = Transformer(CONFIG, generator=torch.Generator().manual_seed(seed))
        model.load_state_dict(kept["model"])
        return model, kept["history"]
    model, history = pretrain(
        seed=seed, config=CONFIG, updates=UPDATES, progress=progress
    )
    state = {"key": path.stem, "model": model.state_dict(), "history": history}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(path, state)
    except OSError as error:
        warnings.warn(f"the base model was not kept: {error}", stacklevel=2)
    return model, history


def cache_path(seed: int) -> Path:
    """Where the base model of this seed is kept.

    In $RLHF_EXECUTED_CACHE, or rlhf-executed in the user's cache folder. The name holds
    a hash of the source of all of lib that this file uses, the version of torch and the
    processor's instruction set (which changes the last digits).
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = os.environ.get("RLHF_EXECUTED_CACHE") or Path(home) / "rlhf-executed"
    processor = torch.backends.cpu.get_cpu_capability()
    made_of = [torch.__version__, processor, CONFIG, UPDATES]
    digest = hashlib.sha256(repr(made_of).encode())
    for file in sorted(_sources(Path(__file__).resolve())):
        digest.update(file.read_bytes())
    return Path(folder) / f"base-{seed}-{digest.hexdigest()[:16]}.pt"


_IMPORT = re.compile(r"^from (lib[\w.]*) import (.+)$", re.MULTILINE)


def _sources(file: Path, known: frozenset[Path] = frozenset()) -> frozenset[Path]:
    """A file of lib and every other that it imports, directly or not."""
    known = known | {file}
    root = Path(__file__).resolve().parent.parent
    for module, names in _IMPORT.findall(file.read_text("utf-8")):
        for name in (module, *(f"{module}.{n.strip()}" for n in names.split(","))):
            found = root / (name.replace(".", "/") + ".py")
            if found.is_file() and found not in known:
                known = _sources(found, known)
    return known


def _read(path: Path) -> dict[str, Any] | None:
    """What is kept there; a file that is corrupt or another model's is reported."""
    try:
        state = checkpoint.load(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (checkpoint.CheckpointError, OSError) as error:
        warnings.warn(f"{error}; the base model is made anew", stacklevel=3)
        return None
    if not isinstance(state, dict) or state.get("key") != path.stem:
        reason = f"{path}: holds something else than the model of its name"
        warnings.warn(f"{reason}; the base model is made anew", stacklevel=3)
        return None
    return state
