"""Files that survive: written whole or not at all, and never believed without a check.

A checkpoint is one line that names the format, one with the sha256 of what follows,
then `torch.save`'s bytes. It is written beside its target and moved over it, so that a
killed process, a full disk or a second reader meets the old file or the new one, never
a half.

A model of this book is never downloaded: `cached` makes it in a minute and keeps it
under a name that holds a hash of everything that went into it. A change of the data,
the model or the loop makes another name, and so another model.
"""

import hashlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lib.digest import sources

MAGIC = b"rlhf-executed checkpoint 1\n"


class CheckpointError(Exception):
    """A file that is no checkpoint of this book, or no longer; says which and why."""


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, text, containers of them; a failure leaves no trace."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest().encode()
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + digest + b"\n" + payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~_umask())  # as any other file: a class may share it
        os.replace(partial, path)
    except OSError as error:
        Path(partial).unlink(missing_ok=True)
        needed = f"{path}: not written ({error.strerror}), needs {len(payload):,} bytes"
        raise OSError(error.errno, needed) from error
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def load(path: str | Path) -> dict[str, Any]:
    """Read what `save` wrote; CheckpointError (path and reason) for anything else."""
    raw = Path(path).read_bytes()
    if not raw.startswith(MAGIC):
        raise CheckpointError(f"{path}: not a checkpoint of this book")
    digest, _, payload = raw[len(MAGIC) :].partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise CheckpointError(
            f"{path}: corrupt (its sha256 does not match its content)"
        )
    try:
        return torch.load(io.BytesIO(payload), weights_only=True)
    except Exception as error:  # torch raises many kinds; nothing was executed
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: unreadable ({reason})") from error


def write_text(path: Path, text: str) -> None:
    """Write a small file whole, or not at all."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, "utf-8")
    beside.replace(path)


def _umask() -> int:
    """What the user takes away from new files; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


State = dict[str, Any]  # what a checkpoint holds


def cached(
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
    place = cache_path(name, file=file, of=of)
    state = _read_cached(place)
    if state is not None:
        return state
    if about:
        told = f"Making {about}, once; then kept in {place.parent}"
        tqdm.write(told, file=sys.stderr)
    state = {**make(), "key": place.stem}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        save(place, state)
    except OSError as error:
        warnings.warn(f"the model was not kept: {error}", stacklevel=3)
    return state


def cache_path(name: str, *, file: str, of: object = "") -> Path:
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


def _read_cached(place: Path) -> State | None:
    """What is kept there, if it is whole and what its name says."""
    try:
        state = load(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (CheckpointError, OSError) as error:
        warnings.warn(f"{error}; the model is made anew", stacklevel=4)
        return None
    if not isinstance(state, dict) or state.get("key") != place.stem:
        reason = f"{place}: holds something else than the model of its name"
        warnings.warn(f"{reason}; the model is made anew", stacklevel=4)
        return None
    return state
