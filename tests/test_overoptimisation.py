"""Best of n by counting subsets, a policy that climbs, and where curves turn over."""

import itertools
import math
from dataclasses import FrozenInstanceError
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


# ---------------------------------------------------------------- policy gradient


def test_the_writer_gives_the_log_ratio_and_its_gradient():
    policy = over.Writer()
    with torch.no_grad():
        policy.mean[:2] = torch.tensor([1.0, -2.0])
    x = torch.zeros(1, 8, dtype=torch.float64)
    x[0, :2] = torch.tensor([3.0, 0.5])
    normal = torch.distributions.Normal(policy.mean.detach(), 1.0)
    ref = torch.distributions.Normal(torch.zeros(8).double(), 1.0)
    want = (normal.log_prob(x) - ref.log_prob(x)).sum(-1)
    torch.testing.assert_close(policy(x), want)
    (slope,) = torch.autograd.grad(policy(x).sum(), policy.mean)
    torch.testing.assert_close(slope, (x - policy.mean).squeeze(0).detach())


def test_the_distance_is_the_root_of_kl():
    path = torch.zeros(2, 8)
    path[1, :2] = torch.tensor([3.0, 4.0])  # |μ| = 5, KL = 12.5 nats
    assert over.distance(path).tolist() == pytest.approx([0, math.sqrt(12.5)])


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_penalised_climb_ends_at_the_policy_that_theory_names(beta):
    """E w·x - beta |μ|²/2 is greatest at μ = w / beta."""
    w = torch.tensor([1.5, -1, 0.5, 0, 0, 0, 0, 1], dtype=torch.float64)
    path = over.climb(lambda x: x @ w, beta=beta, seed=0, updates=250)
    assert path.shape == (251, 8)
    assert path[0].abs().max() == 0
    end = path[-100:].mean(0)
    assert (end - w / beta).abs().max() < 0.06


def test_a_reward_with_a_top_is_climbed_to_its_top():
    """Only answers of the *present* policy tell when to stop: |μ - top| has to vanish."""
    top = torch.tensor([1.5, -1, 0, 0, 0, 0, 0, 0]).double()

    def reward(x):
        return -(x - top).square().sum(-1)

    path = over.climb(reward, seed=0, lr=0.05)
    assert len(path) == 201
    assert (path[-50:].mean(0) - top).abs().max() < 0.1


def test_without_a_penalty_it_walks_on_at_the_learning_rate(seeded):
    w = torch.ones(8, dtype=torch.float64)
    path = over.climb(lambda x: x @ w, seed=1, updates=50, lr=0.02)
    steps = path.diff(dim=0)
    assert (steps[0].abs() - 0.02).abs().max() < 1e-6  # Adam's first step
    assert 0.7 < path[-1].mean() / (50 * 0.02) < 1.05
    same = over.climb(lambda x: x @ w, seed=1, updates=50)
    assert torch.equal(same, path)
    assert not torch.equal(over.climb(lambda x: x @ w, seed=2, updates=50), path)


def test_equal_rewards_teach_nothing_and_broken_ones_are_refused(refuses):
    path = over.climb(lambda x: torch.full((len(x),), 0.3).double(), seed=0, updates=3)
    assert (path == 0).all()
    for broken in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="rewards: got"):
            over.climb(lambda x, b=broken: x[:, 0] * b, seed=0, updates=3)
    with refuses("beta: got -0.1, wanted a number of at least 0"):
        over.climb(lambda x: x[:, 0], beta=-0.1, seed=0)


# ---------------------------------------------------------------- curves


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_of_the_form_is_fitted_exactly_and_its_maximum_is_found(log):
    d = torch.linspace(0.1, 4, 40, dtype=torch.float64)
    wears_off = d.log() if log else d
    found = over.gao_fit(d, d * (2.0 - 0.8 * wears_off), log=log)
    assert (found.alpha, found.beta) == pytest.approx((2.0, 0.8))
    assert found.r2 == pytest.approx(1)
    assert found.peak == pytest.approx(math.exp(2 / 0.8 - 1) if log else 2 / 1.6)
    torch.testing.assert_close(found.curve, d * (2.0 - 0.8 * wears_off))
    fine = torch.linspace(0.01, 6, 60_000, dtype=torch.float64)
    value = fine * (2.0 - 0.8 * (fine.log() if log else fine))
    assert fine[value.argmax()].item() == pytest.approx(found.peak, abs=1e-3)


def test_r2_is_the_share_of_variance_and_a_rising_curve_has_no_peak():
    d = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    line = over.gao_fit(d, 2 * d + 0.1 * d**2, log=False)
    assert line.peak == math.inf and line.beta == pytest.approx(-0.1)
    gain = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    found = over.gao_fit(d, gain, log=False)
    error = (gain - found.curve).square().sum().item()
    assert found.r2 == pytest.approx(1 - error / 2)  # Σ (gain - 2)² = 2
    assert found.r2 < 1
    best = torch.stack((d, -d * d), 1)
    assert torch.allclose(best.T @ (gain - found.curve), torch.zeros(2).double())


def test_a_turnover_is_measured_in_standard_errors_of_the_drop():
    blocks = torch.tensor([[0.0, 2.0, 1.0], [0.0, 4.0, 2.0]], dtype=torch.float64)
    peak, errors = over.turnover(blocks)  # drops 1 and 2: mean 1.5, error 0.5
    assert peak == 1
    assert errors == pytest.approx(1.5 / 0.5)
    rising = over.turnover(torch.tensor([[0.0, 1], [0.0, 2]]))
    assert rising == (1, 0.0)


def test_what_is_no_curve_is_refused(refuses):
    ones = torch.ones(3, dtype=torch.float64)
    with refuses("d: got 0.0, wanted distances above 0"):
        over.gao_fit(ones - 1, ones, log=True)
    with refuses("gain: got shape (3,), wanted shape (2,)"):
        over.gao_fit(ones[:2], ones, log=True)
    with refuses("gain: got nan at index (0,), wanted finite numbers"):
        over.gao_fit(ones, ones * torch.nan, log=False)
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


def test_writer_loss_is_reinforce_on_one_step():
    policy = over.Writer()
    x = torch.zeros(2, 8, dtype=torch.float64)
    x[0, 0], x[1, 1] = 1.0, 2.0
    loss, _ = over.writer_loss(policy, (x, torch.tensor([3.0, -1.0]).double()))
    (slope,) = torch.autograd.grad(loss, policy.mean)
    assert slope[:2].tolist() == pytest.approx([-3 * 1 / 2, 1 * 2 / 2])


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


# ---------------------------------------------------------------- worth, and the record


def test_the_worth_of_a_score_is_gold_of_the_best_of_n_of_sixteen_blocks():
    score = lambda x: x[:, 1]  # noqa: E731
    _, gold = over.best_of_curves(score, [64], seed=3, count=2**16)
    assert gold.shape == (16, 1)
    assert over.worth(score, n=64, seed=3) == pytest.approx(gold.mean().item())
    _, more = over.best_of_curves(score, [1024], seed=3, count=2**16)
    assert over.worth(score, seed=3) == pytest.approx(more.mean().item())


def test_windows_are_means_of_five_updates_of_one_kind_and_beta(refuses):
    def run(kind, beta, seed):
        return {"kind": kind, "beta": beta, "gold": [seed + k for k in range(10)]}

    record = {"runs": [run("RewardModel", 0.0, 0), run("RewardModel", 0.1, 7)]}
    record["runs"] += [run("RewardModel", 0.0, 100), run("Informed", 0.0, 50)]
    got = over.windows(record, "gold", beta=0)
    assert got.tolist() == [[2, 7], [102, 107]]
    assert over.windows(record, "gold", beta=0, kind="Informed").tolist() == [[52, 57]]
    with refuses("beta: got 0.5, wanted one that was recorded for RewardModel"):
        over.windows(record, "gold", beta=0.5)


def test_the_record_is_read_wherever_one_stands(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    record = over.recorded()
    assert record["made"]["command"] == "python -m tools.record"
    assert len(record["runs"]) == 30


def test_what_is_measured_carries_no_gradient_and_a_fit_cannot_be_changed(seeded):
    score = proxies.Proxy()  # has weights
    with torch.no_grad():
        score.weight += 1
    curves = over.best_of_curves(score, [1, 4], seed=0, count=64, blocks=4)
    assert not any(curve.requires_grad for curve in curves)
    likes = score(toy_answers.draw(8, generator=seeded(0)))
    assert not evaluate.best_of(likes, likes, [2]).requires_grad
    assert not over.climb(score, seed=0, updates=2).requires_grad
    assert over.climb.__kwdefaults__["batch"] == 256
    assert signature(over.best_of_curves).parameters["count"].default == 2**18
    x = torch.ones(2, 3, 8, dtype=torch.float64)
    assert over.Writer()(x).shape == (2, 3)
    d = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    found = over.gao_fit(d, d, log=False)
    assert isinstance(found.r2, float)
    with pytest.raises(FrozenInstanceError):
        found.alpha = 0.0
