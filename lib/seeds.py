"""One source of luck: a stream is named, so that no two of them meet by accident.

Sums of a seed and a counter collide sooner or later: seed 0 at update 10,000 is seed 1
at update 0. Here the name of a stream, such as ("answers", seed, update), is hashed.
"""

import hashlib

import torch

from lib import require


def seed_of(*names: str | int) -> int:
    """63 bits of the sha256 of a stream's name: the same on every machine.

    `names` are texts and whole numbers, such as ("tasks", "sum", 3); 3 and "3" differ.
    """
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int):
            require.refuse("names", repr(name), "texts and whole numbers")
    digest = hashlib.sha256(repr(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*names: str | int) -> torch.Generator:
    """A generator on the CPU at the beginning of the stream of this name."""
    return torch.Generator().manual_seed(seed_of(*names))
