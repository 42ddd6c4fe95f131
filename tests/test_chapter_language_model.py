"""What the page on the small language model says of one prompt, held over others."""

import random

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from lib.models.attention import angles, causal, rotate
from lib.models.transformer import Config, Transformer
from lib.pretrain import CONFIG, Packed, next_token_loss
from lib.worlds.cups import new_game

TINY = Config(vocabulary=9, context=40, layers=2, width=16, heads=2, hidden=24)


@pytest.fixture(params=range(3))
def model(request, seeded) -> Transformer:
    """A model with random weights, surer of itself than at birth."""
    made = Transformer(TINY, generator=seeded(request.param), dtype=torch.float64)
    made.embedding.weight.data *= 20
    return made


def side_by_side(*documents: list[int]) -> Packed:
    """These documents in one row."""
    which = [[number] * len(each) for number, each in enumerate(documents)]
    return Packed(torch.tensor([sum(documents, [])]), torch.tensor([sum(which, [])]))


def test_documents_have_the_same_loss_alone_and_in_any_order_side_by_side(model):
    documents = [[1, 5, 6, 2], [1, 7, 7, 8, 3, 2], [1, 4, 2]]
    questions = [len(each) - 1 for each in documents]
    alone = [next_token_loss(model, side_by_side(each))[0] for each in documents]
    want = sum(n * loss for n, loss in zip(questions, alone)) / sum(questions)
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        row = side_by_side(*(documents[i] for i in order))
        assert_close(next_token_loss(model, row)[0], want, rtol=0, atol=1e-12)


def test_documents_that_see_each_other_have_another_loss(model):
    row = side_by_side([1, 5, 6, 2], [1, 7, 7, 8, 3, 2])
    unmasked = model(row.tokens[:, :-1]).log_softmax(-1)
    asked = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8])
    logps = unmasked.gather(-1, row.tokens[:, 1:, None])[0, asked, 0]
    assert abs(-logps.mean() - next_token_loss(model, row)[0]) > 1e-3


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """`causal` of two products, which the counter sees: (B, T, H, D) each."""
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    ahead = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(ahead, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("length", [5, 17, 67])
def test_the_multiplications_of_the_page_are_those_that_pytorch_counts(length, seeded):
    large = Transformer(CONFIG, generator=seeded(0), dtype=torch.float64)
    x = large.embed(torch.ones(1, length, dtype=torch.long))
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        hidden = large.read(x, torch.arange(length), by_hand)
        large.logits(hidden[:, -1])
    matrices = 2 * (64 * 192 + 64 * 64 + 64 * 256 + 128 * 64)
    looking = 2 * 2 * 64 * length**2
    want = length * matrices + looking + 64 * CONFIG.vocabulary
    assert counted.get_total_flops() == 2 * want  # a product and a sum each


def turned_scores(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(T, T) scores of one query and one key of size D at every two places."""
    turns = angles(30, len(one))
    return rotate(one, *turns) @ rotate(other, *turns).T


def test_a_turned_score_depends_on_the_distance_and_on_nothing_else(seeded):
    q, k = torch.randn(2, 16, dtype=torch.float64, generator=seeded(0))
    scores = turned_scores(q, k)
    for distance in range(-29, 30):
        along = scores.diagonal(distance)
        assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-12)
    assert len(scores[0].unique()) == 30  # and no two distances are alike


def test_one_look_without_turning_cannot_tell_in_which_order_it_read(model, seeded):
    block, x = model.blocks[0], torch.randn(1, 8, 16, generator=seeded(5)).double()
    shuffled = x[:, [3, 1, 6, 0, 2, 5, 4, 7]]
    cos, sin = model.cos[:8], model.sin[:8]
    still = torch.ones_like(cos), torch.zeros_like(sin)
    same, moved = (
        (block.look(x, *turn, causal) - block.look(shuffled, *turn, causal))[0, -1]
        for turn in (still, (cos, sin))
    )
    assert same.abs().max() < 1e-12 < 1e-4 < moved.abs().max()


def test_six_swaps_of_ten_leave_a_pea_where_it_is():
    draw, stays = random.Random(0), []
    for _ in range(2000):
        game = new_game(draw, 4)
        states = [game.start, *game.states()]
        stays += [a[0] == b[0] for a, b in zip(states, states[1:])]
    assert sum(stays) / len(stays) == pytest.approx(0.6, abs=0.03)  # five deviations
