"""The dozen answers, the price of a budget, three roads to π*, and a controller."""

import math
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from labs import objective
from labs.agents import policy_loss
from lib.kl import AdaptiveKL, exact_kl
from lib.losses.preference import dpo
from lib.train import fit
from lib.worlds.exact import Objective, expected, gradient
from lib.worlds.village import taste
from lib.worlds.village.tasks import Task

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
NAN, INF = math.nan, math.inf


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


# ---------------------------------------------------------------- a dozen answers


def test_the_fox_s_answers_are_judged_by_the_village_s_own_taste():
    fox = objective.fox()
    assert len(fox.texts) == len(set(fox.texts)) == len(objective.LETTERS) == 12
    ask = Task("talk", 1, objective.REQUEST, "")
    assert fox.gold.tolist() == [taste.gold(ask, text) for text in fox.texts]
    close(fox.ref_logps.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert fox.ref_logps.exp()[0].item() == pytest.approx(0.14)
    assert fox.ref_logps.exp()[11].item() == pytest.approx(0.005)


def test_the_judge_of_the_fox_counts_each_kind_word_in_full():
    fox = objective.fox()
    kind = f64(*[0] * 6, 1, 2, 0, 0, 0, 5)  # read off the texts
    close(fox.rewards - fox.gold, 0.25 * kind**2)
    assert fox.rewards[11] == fox.rewards.max() and fox.gold[11] < 0
    assert fox.gold.argmax() == 7


def test_the_table_has_a_row_for_each_answer():
    fox = objective.fox()
    lines = fox.table().splitlines()
    assert lines[0] == "| | answer | reference (%) | reward | gold |"
    assert len(lines) == 14
    assert lines[2] == "| a | I do not know. | 14.0 | -0.2 | -0.2 |"
    assert lines[9].startswith("| h | The sweet fox") and "4.0 | 5.0 | 4.0" in lines[9]


def test_the_sheet_of_the_fox_is_its_rewards_and_its_reference():
    fox = objective.fox()
    sheet = fox.objective(0.7)
    assert torch.equal(sheet.rewards, fox.rewards) and sheet.beta == 0.7
    assert torch.equal(sheet.ref_logps, fox.ref_logps)


def test_the_answers_cannot_be_rewritten():
    with pytest.raises(FrozenInstanceError):
        objective.fox().texts = ()


def test_a_random_world_is_its_seed():
    one, same = (objective.scattered(6, seed=3, beta=0.5) for _ in range(2))
    assert torch.equal(one.rewards, same.rewards)
    assert torch.equal(one.ref_logps, same.ref_logps)
    other = objective.scattered(6, seed=4, beta=0.5)
    assert not torch.equal(one.rewards, other.rewards)
    assert one.rewards.shape == (6,) and one.rewards.dtype == torch.float64
    assert one.beta == 0.5 and one.ref_logps.exp().sum().item() == pytest.approx(1)


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("budget", [1e-3, 0.1, 1.0, 3.0, 5.25])
def test_the_best_policy_at_this_price_spends_the_budget(budget):
    fox = objective.fox()
    beta = objective.beta_for(budget, fox.objective(1.0))
    sheet = fox.objective(beta)
    assert sheet.kl(sheet.best_logps).item() == pytest.approx(budget, abs=1e-9)


def test_the_price_of_two_answers_by_hand():
    # ref ½, rewards 0 and 1: π* = σ(1 / β); with β = 1 the KL is 0.1109 nats
    p = 1 / (1 + math.exp(-1))
    budget = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    pair = Objective(f64(0, 1), f64(0.5, 0.5).log(), 7.0)
    assert objective.beta_for(budget, pair) == pytest.approx(1, abs=1e-9)
    scaled = Objective(f64(5, 1005), f64(0.5, 0.5).log(), 7.0)
    assert objective.beta_for(budget, scaled) == pytest.approx(1000, rel=1e-9)


def test_a_budget_that_is_none_or_has_no_price_is_refused(refuses):
    pair = Objective(f64(0, 1, 1), f64(0.5, 0.3, 0.2).log(), 1.0)
    for budget in (0, -1):
        with refuses(f"budget: got {budget}, wanted a number above 0"):
            objective.beta_for(budget, pair)
    with refuses("budget: got nan, wanted a finite number"):
        objective.beta_for(NAN, pair)
    wanted = "wanted less than 0.6931 nats, the price of the best answer"
    for budget in (math.log(2), 1.0):  # the best two hold a half
        with refuses(f"budget: got {budget}, {wanted}"):
            objective.beta_for(budget, pair)
    assert objective.beta_for(0.69, pair) > 0


def test_equal_rewards_buy_nothing(refuses):
    flat = Objective(f64(2, 2), f64(0.25, 0.75).log(), 1.0)
    close(flat.best_logps, flat.ref_logps)
    with pytest.raises(ValueError, match="^budget: got 0.1, wanted less than"):
        objective.beta_for(0.1, flat)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_reward_that_is_no_number_is_refused(bad, refuses):
    with refuses(f"rewards: got {bad} at index (1,), wanted finite numbers"):
        Objective(f64(0, bad), f64(0.5, 0.5).log(), 1.0)


def test_what_divides_by_beta_refuses_a_beta_that_is_not_above_0(refuses):
    fox = objective.fox()
    with refuses("beta: got 0.0, wanted a number above 0"):
        _ = fox.objective(0.0).best_logps
    with refuses("beta: got -1.0, wanted a number of at least 0"):
        fox.objective(-1.0)
    with refuses("beta: got 0.0, wanted a number above 0"):
        objective.gap(objective.tabular(fox.ref_logps), fox.objective(0.0))


# ---------------------------------------------------------------- three roads


def test_a_table_says_what_it_was_given():
    fox = objective.fox()
    policy = objective.tabular(fox.ref_logps)
    assert policy.logits.shape == (1, len(fox.ref_logps))  # one prompt
    close(objective.answer_logps(policy).detach(), fox.ref_logps)
    close(objective.answer_logps(objective.tabular(f64(1, 1, 1, 1))).detach().exp(),
          f64(0.25, 0.25, 0.25, 0.25))  # fmt: skip
    assert objective.answer_logps(policy).requires_grad


def test_the_exact_loss_is_the_objective_turned_round():
    world = objective.scattered(5, seed=0, beta=0.5)
    policy = objective.tabular(f64(0, 1, 0, -1, 0))
    loss, metrics = objective.exact_loss(policy, world)
    logps = objective.answer_logps(policy)
    close(loss, -world.reward(logps) + 0.5 * world.kl(logps))
    assert metrics == {}


def test_the_sampled_road_has_the_objective_s_gradient_in_the_mean():
    world = objective.scattered(4, seed=1, beta=0.5)
    policy = objective.tabular(f64(0.5, 0, -0.5, 0))
    batches = list(objective.sampled(policy, world, updates=4, group=4000, seed=0))
    slopes = [gradient(policy_loss(policy, seen)[0], policy) for seen in batches]
    want = gradient(objective.exact_loss(policy, world)[0], policy)
    # 16000 answers: a standard error of about 0.008 an entry
    assert (torch.stack(slopes).mean(0) - want).abs().max() < 0.03
    assert want.abs().max() > 0.1


def test_what_an_answer_is_paid_on_the_sampled_road():
    world = objective.scattered(4, seed=1, beta=0.5)
    policy = objective.tabular(f64(0.5, 0, -0.5, 0))
    (seen,) = objective.sampled(policy, world, updates=1, group=6, seed=0)
    said = seen.rollout.actions[:, 0]  # (B,)
    assert len(said.unique()) > 1
    logps = objective.answer_logps(policy).detach()
    paid = (world.rewards - 0.5 * (logps - world.ref_logps))[said]
    close(
        seen.advantages[:, 0], paid - (paid.sum() - paid) / 5
    )  # less the others' mean
    assert seen.advantages.shape == (6, 1)


def test_the_sampled_road_is_its_seed():
    world = objective.scattered(4, seed=1, beta=0.5)
    policy = objective.tabular(world.ref_logps)

    def said(seed):
        (seen,) = objective.sampled(policy, world, updates=1, group=20, seed=seed)
        return seen.rollout.actions

    assert torch.equal(said(0), said(0)) and not torch.equal(said(0), said(1))


def test_at_the_optimum_every_sample_is_worth_the_same_and_pushes_nothing():
    world = objective.scattered(8, seed=2, beta=0.3)
    policy = objective.tabular(world.best_logps)
    (seen,) = objective.sampled(policy, world, updates=1, group=64, seed=0)
    assert seen.advantages.abs().max() < 1e-12


def test_equal_rewards_push_nothing():
    flat = Objective(f64(1, 1, 1), f64(0.2, 0.3, 0.5).log(), 0.5)
    policy = objective.tabular(flat.ref_logps)
    (seen,) = objective.sampled(policy, flat, updates=1, group=16, seed=0)
    assert torch.equal(seen.advantages, torch.zeros(16, 1, dtype=torch.float64))
    fit(policy, objective.sampled(policy, flat, updates=3, group=4, seed=0), policy_loss,
        lr=0.1)  # fmt: skip
    close(objective.answer_logps(policy).detach(), flat.ref_logps)


def test_the_comparisons_are_all_pairs_once_with_their_bradley_terry_chances():
    world = Objective(f64(0, 1, 3), f64(0.2, 0.3, 0.5).log(), 0.5)
    i, j, first = objective.comparisons(world)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    close(first, torch.sigmoid(f64(-1, -3, -2)))
    i, j, first = objective.comparisons(world, unseen=1)
    assert (i.tolist(), j.tolist()) == ([0], [2])
    close(first, torch.sigmoid(f64(-3)))


@pytest.mark.parametrize("unseen", [None, 1])
def test_the_soft_loss_is_dpo_with_each_pair_both_ways_round(unseen):
    world = objective.scattered(4, seed=0, beta=0.4)
    policy = objective.tabular(f64(1, 0, -1, 0.5))
    logps, ref = objective.answer_logps(policy), world.ref_logps
    each = []
    for i, j, p in zip(*objective.comparisons(world, unseen=unseen), strict=True):
        one, other = (
            [x[None] for x in (logps[i], ref[i])],
            [x[None] for x in (logps[j], ref[j])],
        )
        won = dpo(one[0], other[0], one[1], other[1], beta=0.4)[0]
        lost = dpo(other[0], one[0], other[1], one[1], beta=0.4)[0]
        each.append(p * won + (1 - p) * lost)
    loss, metrics = objective.soft_dpo_loss(policy, world, unseen=unseen)
    close(loss, torch.stack(each).mean())
    assert metrics == {}


def test_a_walk_ends_with_a_rate_of_nothing():
    world = objective.scattered(6, seed=0, beta=0.5)
    gaps = objective.walk("exact", world, seed=0)
    assert abs(gaps[-1] - gaps[-2]) < 1e-5 < abs(gaps[1] - gaps[0])
    logits = objective.tabular(world.ref_logps)
    fit(logits, [world], objective.exact_loss, lr=0.2)
    assert gaps[1] == pytest.approx(objective.gap(logits, world))  # the first step: 0.2


def test_the_roads_are_as_long_as_the_book_says():
    long = {road: updates for road, (_, updates) in objective.ROADS.items()}
    assert long == {"exact": 300, "RLOO": 400, "DPO": 150}


def test_the_sampled_road_asks_for_64_answers_at_a_time():
    world = objective.scattered(4, seed=0, beta=0.5)
    policy = objective.tabular(world.ref_logps)
    stream = objective.sampled(policy, world, updates=1, group=64, seed=7)
    fit(policy, stream, policy_loss, lr=0.2)
    want = objective.gap(policy, world)
    assert objective.walk("RLOO", world, seed=7)[1] == pytest.approx(want)


def test_a_road_has_a_name(refuses):
    world = objective.scattered(4, seed=0, beta=0.5)
    with refuses("road: got 'PPO', wanted one of 'exact', 'RLOO', 'DPO'"):
        objective.walk("PPO", world, seed=0)


def test_the_gap_is_what_is_missing_in_units_of_beta():
    world = objective.scattered(6, seed=0, beta=0.25)
    policy = objective.tabular(f64(0, 1, 0, 2, 0, -1))
    missing = world.best_value - world.value(objective.answer_logps(policy).detach())
    gap = objective.gap(policy, world)
    assert type(gap) is float and gap == pytest.approx(missing.item() / 0.25)


def test_dpo_leaves_an_answer_that_nobody_compared_where_it_was():
    world = objective.scattered(6, seed=0, beta=1.0)
    ends = []
    for logit in (-1.0, 2.0):
        policy = objective.tabular(f64(0, 0, 0, 0, 0, logit))
        blind = partial(objective.soft_dpo_loss, unseen=5)
        fit(policy, [world] * 300, blind, lr=lambda update: 0.1 * (1 - update / 300))
        logps = objective.answer_logps(policy).detach()
        known, best = logps[:5].log_softmax(0), world.best_logps[:5].log_softmax(0)
        assert exact_kl(known, best) < 1e-6  # among the others it is right
        assert policy.logits[0, 5].item() == pytest.approx(logit, abs=1e-6)
        ends.append(logps[5].exp().item())
    assert ends[1] > 2 * ends[0]


# ---------------------------------------------------------------- steering


def test_a_controller_is_shown_the_exact_kl_after_each_update():
    fox = objective.fox()
    sheet = fox.objective(123.0)  # its own beta is not used
    seen = objective.steer(sheet, AdaptiveKL(0.5, target=1.0, horizon=10), updates=3)
    assert seen.shape == (3, 2) and seen.dtype == torch.float64
    policy, beta = objective.tabular(fox.ref_logps), 0.5
    fit(policy, [fox.objective(beta)], objective.exact_loss, lr=0.1)
    kl = sheet.kl(objective.answer_logps(policy).detach()).item()
    assert seen[0, 0].item() == pytest.approx(kl)
    assert kl < 0.8  # so the error is clipped
    assert seen[0, 1].item() == pytest.approx(0.5 * (1 - 0.2 * 1 / 10))


def test_with_a_good_horizon_it_settles_at_the_price_of_the_target():
    sheet = objective.fox().objective(1.0)
    seen = objective.steer(sheet, AdaptiveKL(0.6, target=1.0, horizon=20), updates=400)
    assert (seen[-50:, 0] - 1).abs().max() < 0.02
    assert seen[-1, 1].item() == pytest.approx(objective.beta_for(1.0, sheet), rel=0.02)


@pytest.mark.parametrize(("horizon", "off"), [(1, 0.5), (200, 0.5)])
def test_with_a_bad_horizon_it_misses_the_target(horizon, off):
    sheet = objective.fox().objective(1.0)
    controller = AdaptiveKL(0.6, target=1.0, horizon=horizon)
    seen = objective.steer(sheet, controller, updates=400)
    assert (seen[-50:, 0] - 1).abs().max() > off


def test_the_rate_of_steering_is_a_knob():
    sheet = objective.fox().objective(1.0)
    slow, fast = (
        objective.steer(sheet, AdaptiveKL(0.6, 1.0, 20), updates=5, lr=lr)[-1, 0]
        for lr in (0.01, 0.3)
    )
    default = objective.steer(sheet, AdaptiveKL(0.6, 1.0, 20), updates=5)[-1, 0]
    explicit = objective.steer(sheet, AdaptiveKL(0.6, 1.0, 20), updates=5, lr=0.1)[
        -1, 0
    ]
    assert slow < default < fast and default == explicit


def test_the_marginal_reward_of_a_nat_is_beta():
    fox = objective.fox()
    for beta in (0.2, 1.0, 4.0):
        laws = [fox.objective(b).best_logps for b in (beta * 1.0005, beta / 1.0005)]
        nats = [exact_kl(law, fox.ref_logps) for law in laws]
        earned = [expected(fox.rewards, law) for law in laws]
        slope = (earned[1] - earned[0]) / (nats[1] - nats[0])
        assert slope.item() == pytest.approx(beta, rel=1e-5)


@pytest.mark.parametrize("road", objective.ROADS)
@pytest.mark.parametrize("seed", range(5))
def test_each_road_reaches_the_optimum(road, seed):
    world = objective.scattered(20, seed=seed, beta=0.5)
    gaps = objective.walk(road, world, seed=seed)
    assert len(gaps) == objective.ROADS[road][1] + 1
    assert gaps[0] == pytest.approx(exact_kl(world.ref_logps, world.best_logps).item())
    assert gaps[0] > 0.5 and abs(gaps[-1]) < 1e-3
    assert gaps[-1] < gaps[50] / 10 < gaps[0] / 10
