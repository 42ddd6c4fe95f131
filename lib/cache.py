"""Models that are made by code are kept on this computer, and made anew if it changes.

A model of this book is never downloaded: it is made in a minute and then kept, under a
name that holds a hash of everything that went into it. A change of the data, the model
or the loop makes another name, and so another model.
"""

import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lib import checkpoint
from lib.digest import sources

State = dict[str, Any]  # what a checkpoint holds


def kept(
    name: str,
    make: Callable[[], State],
    *,
    file: str,
    of: object = "",
    about: str = "",
) -> State:
    """What `make` returns: read from this computer, or made now and put there.

    `name` tells a reader what it is; `file` (a module's __file__) is where it is made
    and `of` what else it depends on, see `path`. `about` says what is made and how long
    that takes: a line on stderr when it is really made. A file that is corrupt or holds
    something else is reported, and made anew; so is a folder that cannot be written to.
    """
    place = path(name, file=file, of=of)
    state = _read(place)
    if state is not None:
        return state
    if about:
        told = f"Making {about}, once; then kept in {place.parent}"
        tqdm.write(told, file=sys.stderr)
    state = {**make(), "key": place.stem}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(place, state)
    except OSError as error:
        warnings.warn(f"the model was not kept: {error}", stacklevel=3)
    return state


def path(name: str, *, file: str, of: object = "") -> Path:
    """Where it is kept: $RLHF_EXECUTED_CACHE, or rlhf-executed in the user's cache.

    The file's name holds a hash of `of`, of the source of `file` and of all of lib that
    it uses, of the version of torch and of the processor's instruction set (which
    changes the last digits).
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = os.environ.get("RLHF_EXECUTED_CACHE") or Path(home) / "rlhf-executed"
    processor = torch.backends.cpu.get_cpu_capability()
    digest = hashlib.sha256(repr([torch.__version__, processor, of]).encode())
    for source in sorted(sources(file)):
        code = source.read_bytes()
        digest.update(b"%d\n" % len(code) + code)
    return Path(folder) / f"{name}-{digest.hexdigest()[:16]}.pt"


def _read(place: Path) -> State | None:
    """What is kept there, if it is whole and what its name says."""
    try:
        state = checkpoint.load(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (checkpoint.CheckpointError, OSError) as error:
        warnings.warn(f"{error}; the model is made anew", stacklevel=4)
        return None
    if not isinstance(state, dict) or state.get("key") != place.stem:
        reason = f"{place}: holds something else than the model of its name"
        warnings.warn(f"{reason}; the model is made anew", stacklevel=4)
        return None
    return state
