"""Where heads look: angles by hand, attention place by place, memory against rereading."""

import math
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from lib.models.attention import Cache, Memory, angles, causal, gaps, rotate

close = partial(assert_close, rtol=0, atol=1e-12)
INF = math.inf


def normal(*shape, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=draws)


def test_pairs_turn_at_speeds_from_one_down_to_almost_a_ten_thousandth():
    cos, sin = angles(5, 4)  # two pairs: 1 and 10,000^(-2/4) = 1/100 radians a place
    want = torch.tensor([3.0, 0.03, 3.0, 0.03], dtype=torch.float64)
    close(cos[3], want.cos())
    close(sin[3], want.sin() * torch.tensor([-1, -1, 1, 1]))
    assert cos.shape == sin.shape == (5, 4)
    assert cos[0].tolist() == [1] * 4 and (sin[0] == 0).all()


def test_rotate_turns_each_pair_as_a_complex_number():
    x = normal(7, 6)
    cos, sin = angles(7, 6)
    got = rotate(x, cos, sin)
    angle = torch.arange(7)[:, None] * 10_000 ** -(torch.arange(0, 6, 2).double() / 6)
    turned = torch.complex(x[:, :3], x[:, 3:]) * torch.polar(angle * 0 + 1, angle)
    close(got, torch.cat((turned.real, turned.imag), -1))
    assert torch.equal(got[0], x[0])  # place 0 is not turned
    several = torch.stack((x, 2 * x))  # (2, 7, 6)
    close(rotate(several, cos, sin), torch.stack((got, 2 * got)))


def test_after_rotation_only_the_distance_between_two_places_counts():
    q, k = normal(1, 8), normal(1, 8, seed=1)
    cos, sin = angles(20, 8)

    def score(i, j):
        return (rotate(q, cos[i], sin[i]) * rotate(k, cos[j], sin[j])).sum().item()

    assert score(9, 4) == pytest.approx(score(15, 10), abs=1e-12)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def looked(q, keys, values):
    """One query by hand: softmax of q·k/√D over keys (T, D), as a mean of values."""
    weights = ((keys @ q) / len(q) ** 0.5).exp()
    return (weights / weights.sum()) @ values


def test_causal_attention_is_a_mean_over_the_places_before_and_its_own():
    q, k, v = (normal(3, 5, 2, 4, seed=s) for s in range(3))  # (B, T, H, D)
    got = causal(q, k, v)
    for h in range(2):
        for b in range(3):
            for t in range(5):
                seen = k[b, : t + 1, h], v[b, : t + 1, h]
                close(got[b, t, h], looked(q[b, t, h], *seen))


def test_gaps_hide_padding_and_what_another_row_wrote():
    got = gaps(torch.tensor([1, 3]), 3, 2, 2)
    assert got.tolist() == [
        # prompt | row 0, row 1 | row 0, row 1
        [[0, -INF, -INF, 0, -INF, 0, -INF], [0, -INF, -INF, -INF, 0, -INF, 0]],
        [[0, 0, 0, 0, -INF, 0, -INF], [0, 0, 0, -INF, 0, -INF, 0]],
    ]
    assert gaps(torch.tensor([2]), 2, 3, 1).tolist() == [[[0] * 5]]


@pytest.mark.parametrize("group", [1, 3])
def test_a_memory_looks_at_the_prompt_and_at_a_rows_own_tokens(group):
    heads, prompts, n, size, room = 2, 4, 5, 6, 3
    lengths = torch.tensor([5, 2, 1, 4])
    gap = gaps(lengths, n, room, group).double().repeat_interleave(heads, 0)
    memory = Memory(gap, heads, size, n)
    q, k, v = (normal(prompts, n, heads, size, seed=s) for s in range(3))
    for rows in (slice(0, 3), slice(3, 9)):
        part = [x[rows] for x in (q, k, v)]
        assert torch.equal(memory.begin(*part, rows=rows), causal(*part))
    batch = prompts * group
    new = normal(3, room, batch, heads, size, seed=4)  # q, k, v of each step
    for t in range(room):
        got = memory.step(*new[:, t])
        assert got.shape == (batch, heads, size)
        for h in range(heads):
            for b in range(batch):
                p = b // group
                seen = [
                    torch.cat((old[p, : lengths[p], h], x[: t + 1, b, h]))
                    for old, x in ((k, new[1]), (v, new[2]))
                ]
                close(got[b, h], looked(new[0, t, b, h], *seen))
    assert memory.taken == n + room * group == memory.keys.shape[2]


def test_a_cache_cannot_be_given_other_places():
    cache = Cache(torch.tensor([3, 4]), [])
    with pytest.raises(FrozenInstanceError):
        cache.places = torch.tensor([0, 0])
