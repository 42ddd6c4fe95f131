"""The dozen answers, and the beta of a budget."""

import math
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from labs import objective
from lib.worlds import talk
from lib.worlds.exact import Objective
from lib.worlds.task import Task

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
NAN = math.nan


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


# ---------------------------------------------------------------- a dozen answers


def test_the_dozen_is_judged_by_the_valley_s_own_taste():
    dozen = objective.dozen()
    assert len(dozen.texts) == len(set(dozen.texts)) == len(objective.LETTERS) == 12
    ask = Task("talk", 1, objective.REQUEST, "")
    assert dozen.gold.tolist() == [talk.gold(ask, text) for text in dozen.texts]
    assert not any(talk.features(ask, text).cut for text in dozen.texts)
    close(dozen.ref_logps.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert dozen.ref_logps.exp()[0].item() == pytest.approx(0.14)
    assert dozen.ref_logps.exp()[11].item() == pytest.approx(0.005)


def test_the_proxy_differs_from_gold_only_where_an_answer_gushes():
    dozen = objective.dozen()
    gap = (dozen.rewards - dozen.gold).tolist()
    assert gap[:11] == [0] * 11
    assert gap[11] == pytest.approx(6 * (0.65 + 0.3))  # eight kind words, six too many
    assert dozen.rewards.argmax() == 11 and dozen.gold[11] < 0
    assert dozen.gold.argmax() == 7


def test_the_sheet_of_the_dozen_is_its_rewards_and_its_reference():
    dozen = objective.dozen()
    sheet = dozen.objective(0.7)
    assert torch.equal(sheet.rewards, dozen.rewards) and sheet.beta == 0.7
    assert torch.equal(sheet.ref_logps, dozen.ref_logps)


def test_the_answers_cannot_be_rewritten():
    with pytest.raises(FrozenInstanceError):
        objective.dozen().texts = ()


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("budget", [1e-3, 0.1, 1.0, 3.0, 5.25])
def test_the_best_policy_at_this_beta_spends_the_budget(budget):
    dozen = objective.dozen()
    beta = objective.beta_for(budget, dozen.objective(1.0))
    sheet = dozen.objective(beta)
    assert sheet.kl(sheet.best_logps).item() == pytest.approx(budget, abs=1e-9)


def test_the_beta_of_two_answers_by_hand():
    # ref ½, rewards 0 and 1: π* = σ(1 / β); with β = 1 the KL is 0.1109 nats
    p = 1 / (1 + math.exp(-1))
    budget = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    pair = Objective(f64(0, 1), f64(0.5, 0.5).log(), 7.0)
    assert objective.beta_for(budget, pair) == pytest.approx(1, abs=1e-9)
    scaled = Objective(f64(5, 1005), f64(0.5, 0.5).log(), 7.0)
    assert objective.beta_for(budget, scaled) == pytest.approx(1000, rel=1e-9)


def test_a_budget_that_is_none_or_that_no_beta_spends_is_refused(refuses):
    pair = Objective(f64(0, 1, 1), f64(0.5, 0.3, 0.2).log(), 1.0)
    for budget in (0, -1):
        with refuses(f"budget: got {budget}, wanted a number above 0"):
            objective.beta_for(budget, pair)
    with refuses("budget: got nan, wanted a finite number"):
        objective.beta_for(NAN, pair)
    wanted = "wanted less than 0.6931 nats, what the best answer alone costs"
    for budget in (math.log(2), 1.0):  # the best two hold a half
        with refuses(f"budget: got {budget}, {wanted}"):
            objective.beta_for(budget, pair)
    assert objective.beta_for(0.69, pair) > 0


def test_equal_rewards_buy_nothing(refuses):
    flat = Objective(f64(2, 2), f64(0.25, 0.75).log(), 1.0)
    close(flat.best_logps, flat.ref_logps)
    with pytest.raises(ValueError, match="^budget: got 0.1, wanted less than"):
        objective.beta_for(0.1, flat)
