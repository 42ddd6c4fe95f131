"""Stand-ins for gold: what they can express, what they learn, and how many agree."""

import math

import pytest
import torch

from labs import proxies, toy_answers

X = torch.arange(16, dtype=torch.float64).reshape(2, 8) / 4


def test_features_are_the_coordinates_then_squares_or_all_products():
    assert torch.equal(proxies.linear(X), X)
    assert torch.equal(proxies.squares(X), torch.cat((X, X * X), 1))
    got = proxies.products(X)
    assert got.shape == (2, 44)
    pairs = [X[:, i] * X[:, j] for i in range(8) for j in range(i, 8)]
    assert torch.equal(got, torch.cat((X, torch.stack(pairs, 1)), 1))


def test_a_proxy_is_linear_in_its_features_and_starts_at_0():
    proxy = proxies.Proxy(proxies.squares)
    assert torch.equal(proxy(X), torch.zeros(2).double())
    with torch.no_grad():
        proxy.weight[9] = 2.0  # the square of the second coordinate
    assert proxy(X).tolist() == [2 * (1 / 4) ** 2, 2 * (9 / 4) ** 2]
    assert proxies.Proxy().weight.shape == (8,)


def test_comparisons_put_the_better_answer_first_and_never_err(seeded):
    better, worse = proxies.compare(500, generator=seeded(3))
    assert better.shape == worse.shape == (500, 8)
    assert (toy_answers.gold(better) > toy_answers.gold(worse)).all()
    drawn = toy_answers.draw(1000, generator=seeded(3))
    both = torch.cat((better, worse))
    assert torch.equal(both.sort(0).values, drawn.sort(0).values)


def test_comparisons_follow_the_gold_that_is_given(seeded):
    better, worse = proxies.compare(50, generator=seeded(), gold=lambda x: -x[:, 0])
    assert (better[:, 0] < worse[:, 0]).all()


def test_the_loss_is_bradley_terry_on_both_scores():
    proxy = proxies.Proxy()
    with torch.no_grad():
        proxy.weight[0] = 1.0
    better, worse = torch.zeros(2, 1, 8, dtype=torch.float64)
    better[0, 0], worse[0, 0] = 3.0, 1.0
    loss, metrics = proxies.comparison_loss(proxy, (better, worse))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert metrics["accuracy"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_proxy_learns_which_way_and_is_right_nine_times_in_ten(seed, seeded):
    proxy = proxies.Proxy()
    history = proxies.fit_proxy(proxy, proxies.compare(2000, generator=seeded(seed)))
    assert len(history["loss"]) == 200
    held_out = proxies.compare(4000, generator=seeded(100 + seed))
    assert 0.89 < proxies.accuracy(proxy, held_out) < 0.94
    share = proxy.weight / proxy.weight.norm()
    assert 0.65 < share[0] < 0.8 and (share[1:] > 0.15).all()
    wide = proxies.Proxy(proxies.products)
    proxies.fit_proxy(wide, proxies.compare(2000, generator=seeded(seed)))
    assert proxies.accuracy(wide, held_out) > proxies.accuracy(proxy, held_out)
    assert wide.weight[8] < 0  # the square of length, of which there can be too much


def test_the_learning_rate_falls_to_nothing_in_a_straight_line(seeded):
    """Adam's first step is as long as its rate; one update is all the way."""
    pairs, proxy = proxies.compare(50, generator=seeded()), proxies.Proxy()
    proxies.fit_proxy(proxy, pairs, updates=1, lr=0.25)
    torch.testing.assert_close(proxy.weight.abs(), torch.full((8,), 0.25).double())
    again = proxies.Proxy()
    proxies.fit_proxy(again, pairs, updates=2, lr=0.25)
    moved = (again.weight - proxy.weight).abs()
    assert moved.max().item() == pytest.approx(0.125, abs=2e-3)  # the second: half


def test_accuracy_counts_a_tie_as_wrong():
    better, worse = X[:1].repeat(4, 1), X[1:].repeat(4, 1)
    assert proxies.accuracy(lambda x: -x[:, 0], (better, worse)) == 1
    assert proxies.accuracy(lambda x: 0 * x[:, 0], (better, worse)) == 0
    half = torch.cat((X[:1], X[1:])), torch.cat((X[1:], X[:1]))
    assert proxies.accuracy(lambda x: x[:, 0], half) == 0.5


def test_an_ensemble_brings_each_score_to_its_own_sigma_first(seeded):
    first, second = (lambda x: 5 + x[..., 0]), (lambda x: 100 * x[..., 1] - 7)
    sample = toy_answers.draw(4096, generator=seeded(0))
    a, b = ((sample[:, i] - sample[:, i].mean()) / sample[:, i].std() for i in (0, 1))
    mean = proxies.ensemble([first, second])(sample)
    torch.testing.assert_close(mean, (a + b) / 2)
    worst = proxies.ensemble([first, second], worst=True)(sample)
    torch.testing.assert_close(worst, torch.minimum(a, b))


def test_a_network_scores_answers_smoothly_and_gold_of_its_kind_is_standardised(seeded):
    net = proxies.network(generator=seeded(1))
    assert net(X).shape == (2,)
    assert torch.equal(net(X), proxies.network(generator=seeded(1))(X))
    assert any(w.requires_grad for w in net.parameters())
    bent = net(X * 100)  # far out it is flat: tanh
    assert (bent - net(X * 200)).abs().max() < 1e-3
    gold = proxies.smooth_gold(generator=seeded(1))
    sample = gold(toy_answers.draw(4096, generator=seeded(0)))
    assert not sample.requires_grad
    assert sample.mean().item() == pytest.approx(0, abs=1e-12)
    assert sample.std().item() == pytest.approx(1, abs=1e-12)


def test_the_units_of_a_network_are_four_standard_deviations(seeded):
    net = proxies.network(generator=seeded(1))
    assert net[0].units.tolist() == [4.0] * 8
    assert [w.shape for w in net.parameters()] == [(8, 8), (8,), (1, 8), (1,)]


def test_what_cannot_teach_is_refused(refuses, seeded):
    pairs = proxies.compare(3, generator=seeded())
    with refuses("count: got 0, wanted an int of at least 1"):
        proxies.compare(0, generator=seeded())
    with refuses("pairs: got identical answers, wanted pairs that differ"):
        proxies.comparison_loss(proxies.Proxy(), (pairs[0], pairs[0]))
    with refuses("lr: got -0.1, wanted a number above 0"):
        proxies.fit_proxy(proxies.Proxy(), pairs, lr=-0.1)
    with refuses("updates: got 0, wanted an int of at least 1"):
        proxies.fit_proxy(proxies.Proxy(), pairs, updates=0)
    with refuses("scores: got none, wanted at least one"):
        proxies.ensemble([])
    broken = pairs[0] * torch.nan
    proxy = proxies.Proxy()
    with pytest.raises(ValueError, match="finite"):
        proxies.fit_proxy(proxy, (broken, pairs[1]))
    assert (proxy.weight == 0).all()


def test_taught_is_a_hundred_updates_on_comparisons_from_the_seed(seeded):
    got = proxies.taught(proxies.squares, 60, seed=4)
    want = proxies.Proxy(proxies.squares)
    history = proxies.fit_proxy(
        want, proxies.compare(60, generator=seeded(4)), updates=100
    )
    assert len(history["loss"]) == 100
    assert torch.equal(got.weight, want.weight)
    other = proxies.taught(proxies.linear, 60, seed=4, gold=lambda x: -x[:, 0])
    assert other.weight[0] < 0


def test_the_control_is_a_proxy_that_has_learnt_a_gold_of_its_own_kind():
    proxy, gold = proxies.control(3)
    draw = torch.Generator().manual_seed(9)
    held_out = proxies.compare(4000, generator=draw, gold=gold)
    assert proxies.accuracy(proxy, held_out) > 0.96
    assert not gold(X).requires_grad and proxy(X).requires_grad
    assert (proxies.control(4)[1](X) != gold(X)).all()
