"""Packing: several demonstrations in a row, each read as if it stood alone.

Texts of different lengths side by side need padding, which costs time and teaches
nothing. Packed end to end they need almost none, if no text can look at another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from labs.instruction_tuning import everything
from lib import require
from lib.losses.supervised import Loss, sft
from lib.models.transformer import Transformer
from lib.ops import token_logps
from lib.rollout import Rollout


@dataclass(frozen=True)
class Packed:
    """Demonstrations end to end: several in a row, none cut."""

    states: Tensor  # (R, T)
    actions: Tensor  # (R, T)
    mask: Tensor  # (R, T) bool  True on tokens that are learned
    document: Tensor  # (R, T)  which demonstration, from 1; 0 on padding
    place: Tensor  # (R, T)  position in its own demonstration, from 0


def used(shown: Rollout) -> Tensor:
    """(B, T) bool: True up to each row's last answer token, False on padding."""
    return everything(shown).mask


def pack(shown: Rollout, *, length: int) -> Packed:
    """The rows of a Rollout, longest first, each into the first row with room for it.

    A row longer than `length` is refused, not cut.
    """
    require.count("length", length)
    sizes = used(shown).sum(1).tolist()
    if max(sizes) > length:
        require.refuse("length", length, f"at least {max(sizes)}, the longest row")
    rows: list[list[int]] = []  # which demonstrations lie in each row
    taken: list[int] = []  # tokens, in each row
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fits = (r for r, full in enumerate(taken) if full + sizes[i] <= length)
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
            taken.append(0)
        rows[row].append(i)
        taken[row] += sizes[i]
    return _filled(shown, sizes, rows, length)


def _filled(
    shown: Rollout, sizes: list[int], rows: list[list[int]], length: int
) -> Packed:
    parts = [torch.zeros(len(rows), length, dtype=torch.long) for _ in range(5)]
    for row, members in enumerate(rows):
        at = 0
        for i in members:
            n = sizes[i]
            columns = (shown.states[i, :n], shown.actions[i, :n], shown.mask[i, :n])
            for part, column in zip(parts, (*columns, i + 1, torch.arange(n))):
                part[row, at : at + n] = column
            at += n
    states, actions, mask, document, place = parts
    return Packed(states, actions, mask.bool(), document, place)


def packed_logits(model: Transformer, packed: Packed) -> Tensor:
    """(R, T, A): what the model says of each demonstration, read by itself.

    A token looks only at its own demonstration, whose places count from 0. (`model` on
    the bare states would look at the demonstrations before it, too.)
    """
    same = packed.document.unsqueeze(2) == packed.document.unsqueeze(1)
    may_see = same.tril().unsqueeze(1)  # (R, 1, T, T)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (R, H, T, D)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=may_see)
        return seen.transpose(1, 2)

    x = model.embedding(packed.states)  # a row may be longer than the context
    return model.logits(model.read(x, packed.place, attend))


def packed_loss(model: Transformer, packed: Packed) -> Loss:
    """`sft_loss` of the demonstrations in a Packed."""
    logps = token_logps(packed_logits(model, packed), packed.actions)
    return sft(logps, packed.mask)
