"""Packing: nothing is lost, nothing is cut, and no demonstration sees another."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from labs.packing import Packed, pack, packed_logits, packed_loss, used
from lib.models.transformer import Config, Transformer
from lib.rollout import Rollout
from lib.sft import sft_loss, written
from lib.villagers import demonstrations

TINY = Config(vocabulary=307, context=64, layers=2, width=16, heads=2, hidden=16)


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def shown(count=3, seed=0) -> Rollout:
    return written(*zip(*demonstrations(count=count, seed=seed)))


def rows_of(sizes: list[int]) -> Rollout:
    """Rows of so many tokens, all but the first of each an answer."""
    width = max(sizes)
    at = torch.arange(width)
    inside = at < torch.tensor(sizes)[:, None]
    tokens = (10 * torch.arange(1, len(sizes) + 1)[:, None] + at) * inside
    nothing = torch.zeros(inside.shape)
    return Rollout(
        states=tokens,
        actions=tokens + 1,
        logps=nothing,
        rewards=nothing,
        mask=inside & (at > 0),
        last_states=tokens[:, 0],
        terminated=torch.ones(len(sizes), dtype=torch.bool),
    )


def test_what_is_used_is_everything_before_the_padding():
    got = used(rows_of([2, 4, 3]))
    assert got.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]


def test_rows_are_filled_by_hand():
    # 4, 3, 3, 2, 2 into rows of 6: 4 + 2, 3 + 3, 2
    got = pack(rows_of([2, 4, 3, 2, 3]), length=6)
    assert got.document.tolist() == [
        [2, 2, 2, 2, 1, 1],
        [3, 3, 3, 5, 5, 5],
        [4, 4, 0, 0, 0, 0],
    ]
    assert got.place.tolist() == [
        [0, 1, 2, 3, 0, 1],
        [0, 1, 2, 0, 1, 2],
        [0, 1, 0, 0, 0, 0],
    ]
    assert got.states[0].tolist() == [20, 21, 22, 23, 10, 11]
    assert got.actions[1].tolist() == [31, 32, 33, 51, 52, 53]
    assert got.mask.int().tolist() == [
        [0, 1, 1, 1, 0, 1],
        [0, 1, 1, 0, 1, 1],
        [0, 1, 0, 0, 0, 0],
    ]
    assert got.states[2].tolist() == [40, 41, 0, 0, 0, 0]
    assert got.mask.dtype == torch.bool


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", [45, 64, 128])
def test_packing_changes_neither_the_loss_nor_its_gradient(seed, length):
    rows, losses, slopes = shown(seed=seed), [], []
    for packed in (False, True):
        model = tiny(seed)
        given = pack(rows, length=length) if packed else rows
        loss, metrics = (packed_loss if packed else sft_loss)(model, given)
        loss.backward()
        losses.append(loss)
        slopes.append(torch.cat([w.grad.flatten() for w in model.parameters()]))
        assert metrics["perplexity"] == pytest.approx(loss.exp().item())
    assert_close(losses[1], losses[0], rtol=0, atol=1e-12)
    assert_close(slopes[1], slopes[0], rtol=0, atol=1e-12)


def test_every_demonstration_is_read_as_if_it_stood_alone():
    rows = shown()
    packed = pack(rows, length=64)
    model = tiny()
    alone, together = model(rows.states), packed_logits(model, packed)
    assert together.shape == (*packed.states.shape, 307)
    for i, size in enumerate(used(rows).sum(1).tolist()):
        found = together[packed.document == i + 1]
        assert_close(found, alone[i, :size], rtol=0, atol=1e-12)


def test_neither_padding_nor_a_neighbour_reaches_the_loss():
    packed, model = pack(shown(), length=64), tiny()
    clean = packed_loss(model, packed)[0]
    hidden = packed.document == 0
    assert hidden.any()
    garbage = replace(packed, states=packed.states.masked_fill(hidden, 7))
    assert packed_loss(model, garbage)[0] == clean
    first = packed.document == packed.document[0, 0]
    changed = replace(packed, states=packed.states.masked_fill(first, 7))
    others = packed_logits(model, packed)[~first & ~hidden]
    assert torch.equal(packed_logits(model, changed)[~first & ~hidden], others)
    assert not torch.equal(packed_loss(model, changed)[0], clean)


def test_what_is_longer_than_a_row_is_refused_and_not_cut(refuses):
    with refuses("length: got 3, wanted at least 4, the longest row"):
        pack(rows_of([2, 4]), length=3)
    with refuses("length: got 0, wanted an int of at least 1"):
        pack(rows_of([2, 4]), length=0)
    assert isinstance(pack(rows_of([2, 4]), length=4), Packed)


def test_what_is_packed_stays_as_it_is():
    packed = pack(rows_of([2, 4]), length=4)
    with pytest.raises(AttributeError):
        packed.mask = packed.states
