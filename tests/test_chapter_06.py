"""What chapter 6 claims: gold peaks and falls, on every seed; and the control does not."""

import pytest
import torch
from torch import Tensor

from labs import overoptimisation, proxies, toy_answers
from lib.kl import best_of_n_kl_bound
from lib.worlds.village.tasks import Task
from lib.worlds.village.taste import judge

SIZES = [2**k for k in range(13)]
D = torch.tensor([best_of_n_kl_bound(n) for n in SIZES], dtype=torch.float64).sqrt()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(5))
def test_gold_turns_over_under_best_of_n_and_under_rl_while_the_proxy_rises(seed):
    proxy = proxies.taught(proxies.linear, 2000, seed=seed)
    rising, gold = overoptimisation.best_of_curves(proxy, SIZES, seed=100 + seed)
    peak, errors = overoptimisation.turnover(gold)
    assert 0 < peak < len(SIZES) - 1 and errors > 2
    assert (rising.mean(0).diff() > 0).all()

    path = overoptimisation.climb(proxy, seed=seed)
    exact = toy_answers.expected_gold(path)
    at = exact.argmax().item()
    assert 0 < at < len(path) - 1
    scores = proxy(path).detach()  # linear: E proxy(x) is proxy(E x)
    assert scores[-1] == scores.max()

    def sampled(mean: Tensor) -> Tensor:
        """Gold of what the policy writes in 16 blocks of 256 answers: (16,)."""
        x = mean + toy_answers.draw(4096, generator=seeded(seed))
        return toy_answers.gold(x).reshape(16, -1).mean(1)

    blocks = torch.stack([sampled(path[k]) for k in (0, at, -1)], 1)
    peak, errors = overoptimisation.turnover(blocks)
    assert peak == 1 and errors > 2
    assert blocks.mean(0)[1].item() == pytest.approx(exact[at].item(), abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_the_control_fits_better_than_anything_that_turns_and_does_not_turn(seed):
    proxy, smooth = proxies.control(seed)
    _, gold = overoptimisation.best_of_curves(proxy, SIZES, seed=seed, gold=smooth)
    mean = gold.mean(0)
    found = overoptimisation.gao_fit(D[1:], (mean - mean[0])[1:], log=False)
    assert found.r2 > 0.999 and found.peak > 1.5 * D[-1]
    assert mean.argmax() == len(SIZES) - 1
    assert overoptimisation.turnover(gold)[1] < 2


@pytest.mark.parametrize("seed", range(5))
def test_of_two_proxies_of_equal_accuracy_one_turns_over_and_one_does_not(seed):
    stiff = proxies.taught(proxies.linear, 20_000, seed=seed)
    bends = proxies.taught(proxies.squares, 200, seed=seed)
    fresh = proxies.compare(20_000, generator=seeded(77))
    assert abs(proxies.accuracy(stiff, fresh) - proxies.accuracy(bends, fresh)) < 0.03
    curves = [
        overoptimisation.best_of_curves(proxy, SIZES, seed=seed)[1]
        for proxy in (stiff, bends)
    ]
    falls = [overoptimisation.turnover(gold)[1] for gold in curves]
    assert falls[0] > 2 > falls[1]
    assert curves[0].mean(0)[-1] < 0 and curves[1].mean(0)[-1] > 2


def test_plain_gradient_ascent_stopped_at_t_is_the_optimum_of_beta_one_over_t():
    """Both are t · w; so a penalised run of `climb` ends where ascent passes by."""
    w = torch.linspace(-1, 1, 8, dtype=torch.float64)
    mean = torch.zeros(8, dtype=torch.float64)
    for _ in range(50):
        mean = mean + 0.01 * w  # the gradient of E w·x
    path = overoptimisation.climb(lambda x: x @ w, beta=2.0, seed=0, updates=200)
    assert (path[-100:].mean(0) - mean).abs().max() < 0.05
    assert torch.allclose(mean, w / 2)


# ---------------------------------------------------------------- the record


@pytest.fixture(scope="module")
def record() -> dict:
    return overoptimisation.recorded()


def test_the_record_says_what_made_it_and_is_whole(record):
    made = record["made"]
    assert made["command"] == "python -m tools.record"
    assert len(made["code"]) == 12 and len(made["date"]) == 10
    found = sorted((run["kind"], run["seed"], run["beta"]) for run in record["runs"])
    plain = [("RewardModel", s, b) for s in range(5) for b in (0, 0.02, 0.05, 0.1, 0.3)]
    assert found == sorted([*plain, *(("Informed", seed, 0) for seed in range(5))])
    for run in record["runs"]:
        assert {len(run[n]) for n in ("proxy", "gold", "k1", "k3", "length")} == {60}
        assert all(len(said) == 3 for said in run["texts"].values())
        assert torch.tensor(run["gold"]).isfinite().all()
    assert [len(run["gold"]) for run in record["best_of_n"]] == [9] * 10


def change(record: dict, name: str, **which) -> Tensor:
    """Last two windows of five updates less the first, for each seed: (5,)."""
    runs = overoptimisation.windows(record, name, **which)
    return runs[:, -2:].mean(1) - runs[:, 0]


def test_without_a_penalty_the_proxy_gains_and_gold_loses_on_every_seed(record):
    assert change(record, "proxy", beta=0).min() > 0
    assert change(record, "gold", beta=0).max() < -1
    assert change(record, "gold", beta=0.1).min() > 0


@pytest.mark.parametrize("seed", range(5))
def test_without_a_penalty_the_recorded_answers_lose_their_facts(record, seed):
    def said(beta: float) -> list:
        run = next(
            run
            for run in record["runs"]
            if (run["kind"], run["seed"], run["beta"]) == ("RewardModel", seed, beta)
        )
        pairs = zip(record["requests"], run["texts"]["60"], strict=True)
        return [judge(Task("talk", 1, request, ""), text) for request, text in pairs]

    def worth(beta: float) -> int:
        return sum(found.true - found.false for found in said(beta))

    assert worth(0) < 0 < worth(0.05)


def test_fewer_comparisons_and_less_accuracy_can_be_the_better_proxy():
    """Products of 50 comparisons against linear of 2,000: what the summary says."""
    fresh = proxies.compare(20_000, generator=seeded(77))
    right, gold = torch.zeros(2, 2, 3, dtype=torch.float64)
    for i, (kind, count) in enumerate([(proxies.products, 50), (proxies.linear, 2000)]):
        for seed in range(3):
            proxy = proxies.taught(kind, count, seed=50 + seed)
            right[i, seed] = proxies.accuracy(proxy, fresh)
            gold[i, seed] = overoptimisation.worth(proxy, seed=200 + seed)
    assert right.mean(1).tolist() == pytest.approx([0.64, 0.91], abs=0.006)
    assert gold.mean(1).tolist() == pytest.approx([0.59, -0.21], abs=0.006)
    assert (gold[0] > gold[1]).sum() == 2


@pytest.mark.parametrize("trial", range(3))
def test_an_ensemble_helps_against_variance_and_not_against_a_shared_error(trial):
    def gain(kind, count: int) -> float:
        """The lesser gain of mean and worst of five over what one is worth."""
        seeds = [1000 * trial + k for k in range(5)]
        five = [proxies.taught(kind, count, seed=seed) for seed in seeds]
        both = [proxies.ensemble(five, worst=worst) for worst in (False, True)]
        alone = [overoptimisation.worth(proxy, seed=trial) for proxy in five]
        together = min(overoptimisation.worth(proxy, seed=trial) for proxy in both)
        return together - sum(alone) / 5

    assert gain(proxies.products, 100) > 0.3 > gain(proxies.linear, 2000)
