"""Best of n by counting subsets, and where curves turn over."""

import itertools
import math
from inspect import signature

import pytest
import torch
from torch import Tensor

from labs import overoptimisation as over
from labs import proxies, toy_answers
from lib import evaluate

# ---------------------------------------------------------------- best of n


def by_hand(proxy: Tensor, values: Tensor, n: int) -> float:
    """The mean over all subsets of n, ties shared alike: nothing but counting."""
    found = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        tied = [values[i].item() for i in subset if proxy[i] == best]
        found.append(sum(tied) / len(tied))
    return sum(found) / len(found)


def test_best_of_n_is_the_mean_over_every_subset(seeded):
    draw = seeded(5)
    proxy, values = torch.randn(2, 9, dtype=torch.float64, generator=draw)
    got = evaluate.best_of(proxy, values, range(1, 10))
    want = [by_hand(proxy, values, n) for n in range(1, 10)]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))
    assert got[0].item() == pytest.approx(values.mean().item())
    assert got[-1] == values[proxy.argmax()]


def test_three_answers_by_hand():
    """Of the three pairs the best has twice the third answer, once the second."""
    proxy, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 60.0])
    got = evaluate.best_of(proxy, values, [1, 2, 3])
    assert got.tolist() == pytest.approx([30, (20 + 2 * 60) / 3, 60])


def test_answers_that_tie_share_alike():
    proxy = torch.tensor([1.0, 2, 2, 2, 0], dtype=torch.float64)
    values = torch.tensor([5.0, 1, 2, 6, 9], dtype=torch.float64)
    got = evaluate.best_of(proxy, values, [2, 3, 5])
    order = torch.tensor([3, 0, 4, 2, 1])
    assert got[-1].item() == pytest.approx(3)  # the mean of 1, 2 and 6
    assert torch.equal(evaluate.best_of(proxy[order], values[order], [2, 3, 5]), got)
    want = [by_hand(proxy, values, n) for n in (2, 3, 5)]
    assert got.tolist() == pytest.approx(want)


def test_leading_axes_are_blocks_of_their_own(seeded):
    proxy, values = torch.randn(2, 2, 3, 8, dtype=torch.float64, generator=seeded(1))
    got = evaluate.best_of(proxy, values, [1, 4, 8])
    assert got.shape == (2, 3, 3)
    torch.testing.assert_close(
        got[1, 2], evaluate.best_of(proxy[1, 2], values[1, 2], [1, 4, 8])
    )


def test_it_agrees_with_drawing_afresh_and_does_not_overflow(seeded):
    draw = seeded(2)
    proxy = torch.randn(4096, dtype=torch.float64, generator=draw)
    got = evaluate.best_of(proxy, proxy, [64, 4096])
    fresh = torch.randn(20_000, 64, dtype=torch.float64, generator=draw).amax(1).mean()
    assert got[0].item() == pytest.approx(fresh.item(), abs=0.05)
    assert got[1] == proxy.max()


def test_curves_come_in_blocks_with_the_proxy_in_its_own_sigma():
    sizes = [1, 4, 64]
    score, gold = (lambda x: 3 * x[:, 0] + 1), (lambda x: x[:, 0])
    proxy, truth = over.best_of_curves(
        score, sizes, seed=3, gold=gold, count=4096, blocks=8
    )
    assert proxy.shape == truth.shape == (8, 3)
    drawn = toy_answers.draw(4096, generator=torch.Generator().manual_seed(3))[:, 0]
    own = (drawn - drawn.mean()) / drawn.std()
    torch.testing.assert_close(
        proxy, evaluate.best_of(own.reshape(8, -1), own.reshape(8, -1), sizes)
    )
    torch.testing.assert_close(proxy * drawn.std() + drawn.mean(), truth)
    assert abs(proxy[:, 0].mean()) < 1e-12
    again, _ = over.best_of_curves(
        score, sizes, seed=4, gold=gold, count=4096, blocks=8
    )
    assert not torch.equal(again, proxy)
    wide, _ = over.best_of_curves(score, [1, 4096], seed=0)
    assert wide.shape == (16, 2)


def test_the_distance_is_the_root_of_kl():
    path = torch.zeros(2, 8)
    path[1, :2] = torch.tensor([3.0, 4.0])  # |μ| = 5, KL = 12.5 nats
    assert over.distance(path).tolist() == pytest.approx([0, math.sqrt(12.5)])


# ---------------------------------------------------------------- curves


def test_a_turnover_is_measured_in_standard_errors_of_the_drop():
    blocks = torch.tensor([[0.0, 2.0, 1.0], [0.0, 4.0, 2.0]], dtype=torch.float64)
    peak, errors = over.turnover(blocks)  # drops 1 and 2: mean 1.5, error 0.5
    assert peak == 1
    assert errors == pytest.approx(1.5 / 0.5)
    rising = over.turnover(torch.tensor([[0.0, 1], [0.0, 2]]))
    assert rising == (1, 0.0)


def test_what_is_no_curve_is_refused(refuses):
    ones = torch.ones(3, dtype=torch.float64)
    with refuses("blocks: got shape (1, 3), wanted (R, n) with R ≥ 2"):
        over.turnover(ones.unsqueeze(0))
    with refuses("blocks: got shape (3,), wanted (R, n) with R ≥ 2"):
        over.turnover(ones)
    with refuses("sizes: got 4, wanted at most the 3 answers there are"):
        evaluate.best_of(ones, ones, [1, 4])
    with refuses("sizes: got 0, wanted an int of at least 1"):
        evaluate.best_of(ones, ones, [0])
    with refuses("proxy: got nan at index (0,), wanted finite numbers"):
        evaluate.best_of(ones * torch.nan, ones, [1])
    with refuses("values: got inf at index (0,), wanted finite numbers"):
        evaluate.best_of(ones, ones * torch.inf, [1])
    with refuses("values: got shape (2,), wanted shape (3,)"):
        evaluate.best_of(ones, ones[:2], [1])


def test_the_linear_proxy_turns_over_and_one_that_can_bend_does_not(seeded):
    sizes = [1, 16, 4096]
    stiff, bends = proxies.Proxy(), proxies.Proxy(proxies.squares)
    for proxy in (stiff, bends):
        proxies.fit_proxy(proxy, proxies.compare(500, generator=seeded(0)))
    _, down = over.best_of_curves(stiff, sizes, seed=1)
    _, up = over.best_of_curves(bends, sizes, seed=1)
    peak, errors = over.turnover(down)
    assert peak == 1 and errors > 2
    assert over.turnover(up)[0] == 2


# ---------------------------------------------------------------- worth


def test_the_worth_of_a_score_is_gold_of_the_best_of_n_of_sixteen_blocks():
    score = lambda x: x[:, 1]  # noqa: E731
    _, gold = over.best_of_curves(score, [64], seed=3, count=2**16)
    assert gold.shape == (16, 1)
    assert over.worth(score, n=64, seed=3) == pytest.approx(gold.mean().item())
    _, more = over.best_of_curves(score, [1024], seed=3, count=2**16)
    assert over.worth(score, seed=3) == pytest.approx(more.mean().item())


def test_what_is_measured_carries_no_gradient(seeded):
    score = proxies.Proxy()  # has weights
    with torch.no_grad():
        score.weight += 1
    curves = over.best_of_curves(score, [1, 4], seed=0, count=64, blocks=4)
    assert not any(curve.requires_grad for curve in curves)
    likes = score(toy_answers.draw(8, generator=seeded(0)))
    assert not evaluate.best_of(likes, likes, [2]).requires_grad
    assert signature(over.best_of_curves).parameters["count"].default == 2**18
