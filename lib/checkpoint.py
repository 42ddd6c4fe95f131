"""Files that survive: written whole or not at all, and never believed without a check.

A checkpoint is one line that names the format, one with the sha256 of what follows,
then `torch.save`'s bytes. It is written beside its target and moved over it, so that a
killed process, a full disk or a second reader meets the old file or the new one, never
a half.
"""

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

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
