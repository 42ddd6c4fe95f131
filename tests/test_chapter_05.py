"""What chapter 5 claims: a price, a penalty, motors that pull and motors that do not."""

from functools import partial

import pytest
import torch

from labs import kl_estimators, objective
from lib.kl import exact_kl, k1, k2, k3
from lib.worlds.exact import expected


def test_gold_peaks_strictly_inside_while_the_reward_only_rises():
    fox = objective.fox()
    betas = torch.logspace(1.5, -1.5, 61).tolist()
    laws = [fox.objective(beta).best_logps for beta in betas]
    rewards = torch.stack([expected(fox.rewards, law) for law in laws])
    golds = torch.stack([expected(fox.gold, law) for law in laws])
    assert (rewards.diff() > 0).all()
    peak = int(golds.argmax())
    assert (golds[: peak + 1].diff() > 0).all() and (golds[peak:].diff() < 0).all()
    assert 0.5 < betas[peak] < 1 and golds[0] > 1 and golds[-1] < 0
    nats = torch.stack([exact_kl(law, fox.ref_logps) for law in laws])
    slopes = rewards.diff() / nats.diff()
    assert (slopes.diff() < 0).all()  # the frontier is concave


@pytest.mark.parametrize("seed", range(5))
def test_k2_in_the_loss_comes_home_and_k1_in_the_loss_wanders(seed, seeded):
    home, start = torch.tensor([[0.55, 0.40, 0.05], [0.15, 0.30, 0.55]]).double().log()
    pull = partial(kl_estimators.descend, start, steps=400)
    assert (
        exact_kl(pull(lambda now: kl_estimators.slope(now - home, now))[-1].log(), home)
        < 1e-3
    )
    ones = torch.ones(3, dtype=torch.float64)
    noisy = partial(kl_estimators.sampled_slope, ones, batch=8, generator=seeded(seed))
    path = pull(noisy)
    assert exact_kl(path[-1].log(), home) > 0.1
    assert path.diff(dim=0).abs().max() > 1e-3  # it moves all the time
    away = pull(lambda now: kl_estimators.slope(-k1(now, home), now))
    assert exact_kl(away[-1].log(), home) > 2  # the sign


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("through", [True, False])
def test_the_ratio_repairs_k1_and_k3_by_its_gradient_and_k2_without_it(
    through, seed, seeded
):
    """Exact off-policy gradients of a penalty in the loss, for random policies."""
    ref, old, logits = torch.randn(3, 8, dtype=torch.float64, generator=seeded(seed))
    ref, old = ref.log_softmax(0), old.log_softmax(0)
    true = kl_estimators.kl_slope(logits.log_softmax(0), ref)

    def error(estimator) -> float:
        leaf = logits.clone().requires_grad_()
        logps = leaf.log_softmax(0)
        ratio = (logps - old).exp()
        weight = ratio if through else ratio.detach()
        mean = expected(weight * estimator(logps, ref), old)
        (push,) = torch.autograd.grad(mean, leaf)
        return ((push - true).norm() / true.norm()).item()

    exact, wrong = ((k1, k3), (k2,)) if through else ((k2,), (k1, k3))
    assert max(map(error, exact)) < 1e-12
    assert min(map(error, wrong)) > 0.1
    if not through:
        assert error(k1) == pytest.approx(1, abs=1e-12)  # no gradient at all


@pytest.mark.parametrize("seed", range(5))
def test_far_away_k3_of_an_answer_is_low_as_a_rule_and_high_at_times(seed, seeded):
    tokens = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]]).double().log()
    tokens = tokens.log_softmax(1)
    got = kl_estimators.estimates(
        *tokens, tokens=16, answers=64, repeats=200, generator=seeded(seed)
    )
    true = 16 * exact_kl(*tokens)
    low, middle, high = (
        {name: (each / true).quantile(q).item() for name, each in got.items()}
        for q in (0.05, 0.5, 0.95)
    )
    assert middle["k3 per answer"] < 0.95 and high["k3 per answer"] > 1.2
    for name in ("k1", "k3 per token"):
        assert abs(middle[name] - 1) < 0.05
    assert high["k3 per token"] - low["k3 per token"] < 0.7 * (high["k1"] - low["k1"])


def test_apart_the_reverse_fit_takes_a_hill_and_the_forward_fit_takes_both():
    x = torch.arange(61).double()
    family = kl_estimators.hills(x, x, torch.linspace(1, 15, 57).double())
    reverse, forward = kl_estimators.nearest(kl_estimators.two_hills(x, 32.0), family)
    assert reverse[:30].exp().sum() > 0.99  # the higher one
    assert 0.4 < forward[:30].exp().sum() < 0.7
    assert forward[26:35].exp().sum() > 0.2 > 0.01 > reverse[26:35].exp().sum()
    together = kl_estimators.nearest(kl_estimators.two_hills(x, 0.0), family)
    assert torch.equal(*together)
