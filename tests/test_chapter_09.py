"""What chapter 9 claims: one optimum, both sides fall, and what its runs are made of."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from labs import direct_alignment as lab
from lib import evaluate, pretrain
from lib.kl import exact_kl, optimal_policy
from lib.losses import preference
from lib.losses.preference import dpo
from lib.worlds import exact, tasks
from lib.worlds.exact import Objective
from lib.worlds.task import Task

TALK = Task(
    "talk", 1, "Tell me about Ada Reed.", ""
)  # of the inn, a potter, has a mole


def world(seed, *, answers=6, beta=0.5):
    """Normal rewards and a random reference over a few answers."""
    draw = torch.Generator().manual_seed(seed)
    rewards, logits = torch.randn(2, answers, dtype=torch.float64, generator=draw)
    return Objective(rewards, logits.log_softmax(0), beta)


def everyone(logps, sheet):
    """DPO's loss where each pair appears as often as each side wins."""
    i, j = torch.combinations(torch.arange(len(logps))).T.tolist()
    first = torch.sigmoid(sheet.rewards[i] - sheet.rewards[j]).tolist()
    ref, beta = sheet.ref_logps, sheet.beta
    ways = (*zip(i, j, first), *zip(j, i, [1 - p for p in first]))
    each = [
        p * dpo(logps[[a]], logps[[b]], ref[[a]], ref[[b]], beta=beta)[0]
        for a, b, p in ways
    ]
    return sum(each)


# ---------------------------------------------------------------------- the derivation


@pytest.mark.parametrize("seed", range(5))
def test_the_best_policy_s_log_ratio_is_its_reward_less_beta_log_z(seed):
    sheet = world(seed, answers=12)
    best = optimal_policy(sheet.ref_logps, sheet.rewards, beta=0.5)
    missing = sheet.rewards - 0.5 * (best - sheet.ref_logps)
    assert_close(missing, sheet.best_value.expand(12), rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_dpo_on_every_pair_as_often_as_each_side_wins_is_smallest_at_the_optimum(beta):
    sheet = world(1, beta=beta)
    best = sheet.best_logps.clone().requires_grad_()
    [slope] = torch.autograd.grad(everyone(best.log_softmax(0), sheet), best)
    assert slope.abs().max() < 1e-12
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        other = sheet.best_logps + 0.3 * torch.randn(6, generator=draw).double()
        assert everyone(other.log_softmax(0), sheet) > everyone(sheet.best_logps, sheet)


def test_another_beta_in_the_loss_has_another_minimum():
    sheet = world(1, beta=0.5)
    best = sheet.best_logps.clone().requires_grad_()
    loss = everyone(best.log_softmax(0), replace(sheet, beta=1.0))
    assert torch.autograd.grad(loss, best)[0].abs().max() > 1e-2


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_imitation_and_its_opposite_weighted_by_the_wrong_order(seed):
    draw = torch.Generator().manual_seed(seed)
    logps = torch.randn(4, 1, dtype=torch.float64, generator=draw).requires_grad_()
    [slope] = torch.autograd.grad(dpo(*logps, beta=0.7)[0], logps)
    chosen, rejected, ref_chosen, ref_rejected = logps.detach()
    h = (chosen - ref_chosen) - (rejected - ref_rejected)
    weight = 0.7 * torch.sigmoid(-0.7 * h)
    nothing = torch.zeros_like(weight)
    want = torch.stack((-weight, weight, nothing, nothing))
    assert_close(slope, want, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------- the curves


def slope_at(name, margins):
    """The slope of a loss at beta = 1 over a margin that its sides share equally."""
    h = torch.tensor(margins, dtype=torch.float64, requires_grad=True)
    nil, total = torch.zeros(1, dtype=torch.float64), 0.0
    for x in h.split(1):
        total = total + getattr(preference, name)(x / 2, -x / 2, nil, nil, beta=1)[0]
    return torch.autograd.grad(total, h)[0]


def test_some_losses_never_stop_some_stop_and_some_pull_back():
    far = [8.0]
    assert -1e-3 < slope_at("dpo", far) < 0
    assert slope_at("robust_dpo", far).item() == pytest.approx(-0.125, abs=1e-3)
    assert slope_at("slic_hinge", far) == 0
    assert slope_at("cdpo", far).item() == pytest.approx(0.1, abs=1e-3)
    assert slope_at("ipo", [0.5]) == 0 and slope_at("ipo", far).item() == 15


def test_apo_zero_fades_on_both_sides():
    slope = slope_at("apo_zero", [-12.0, -4.0, 0.0, 4.0, 12.0])
    assert (slope < 0).all() and slope.argmin() == 2
    assert slope[[0, -1]].abs().max() < 0.01 * slope[2].abs()


def test_apo_down_pulls_apart_near_zero_and_together_beyond_two_nats():
    margins = torch.linspace(-8, 8, 161).tolist()
    slope, size = slope_at("apo_down", margins), torch.tensor(margins).abs()
    assert (slope[size < 2.05] < 0).all() and (slope[size > 2.15] > 0).all()


# --------------------------------------------------------------- where the mass goes


@pytest.mark.parametrize("seed", range(5))
def test_in_a_table_the_chosen_answer_always_rises(seed):
    ref = world(seed).ref_logps
    logits = ref.clone().requires_grad_()
    logps = logits.log_softmax(0)
    loss = dpo(logps[[0]], logps[[1]], ref[[0]], ref[[1]], beta=0.1)[0]
    [slope] = torch.autograd.grad(loss, logits)
    after = (logits - 0.01 * slope).log_softmax(0)
    assert after[0] > ref[0] and after[1] < ref[1]


@pytest.mark.parametrize("beta", [0.03, 0.1, 0.3, 1.0])
def test_with_shared_habits_both_sides_of_a_pair_vanish_and_an_unseen_answer_rises(
    beta,
):
    every = exact.every_completion([0], tokens=[0, 1, 2], end=2, max_tokens=3)
    texts = [a[m].tolist() for a, m in zip(every.actions, every.mask)]
    words = torch.tensor([[t.count(k) for k in range(3)] for t in texts]).double()
    won, lost, kind = ([texts.index(t)] for t in ([1, 0, 0], [0, 0, 0], [1, 1, 1]))
    habit = torch.tensor([0.4, 0.3, 0.3]).double().log().requires_grad_()
    ref = (words @ habit.log_softmax(0)).detach()
    adam = torch.optim.Adam([habit], lr=0.05)
    for _ in range(60):
        now = words @ habit.log_softmax(0)
        adam.zero_grad()
        dpo(now[won], now[lost], ref[won], ref[lost], beta=beta)[0].backward()
        adam.step()
    after = (words @ habit.log_softmax(0)).detach()
    assert_close(after.exp().sum(), torch.ones(()).double(), rtol=0, atol=1e-12)
    assert (after[won + lost] < ref[won + lost] - 1).all()
    assert after.argmax() == kind[0]


@pytest.mark.parametrize("seed", range(5))
def test_on_policy_the_two_sides_have_to_fall_by_the_divergence_on_average(seed):
    """E over on-policy pairs of (r_w + r_l) / 2 = -KL(ref ‖ π), for any annotator."""
    draw = torch.Generator().manual_seed(seed)
    ref, other = torch.randn(2, 7, dtype=torch.float64, generator=draw).log_softmax(1)
    wins = torch.rand(7, 7, dtype=torch.float64, generator=draw)  # i is put before j
    wins = wins.triu(1) + (1 - wins.triu(1).T).tril(-1) + 0.5 * torch.eye(7)
    law = 2 * ref.exp()[:, None] * ref.exp() * wins  # of (chosen, rejected)
    assert law.sum().item() == pytest.approx(1)
    ratio = other - ref
    middle = (law * (ratio[:, None] + ratio) / 2).sum()
    assert_close(middle, -exact_kl(ref, other), rtol=0, atol=1e-12)


# --------------------------------------------------------------------------- the runs


@pytest.fixture(scope="module")
def start():
    return pretrain.base_model(seed=0)


@pytest.fixture(scope="module")
def pairs(start):
    return lab.compared(start, seed=0, count=24)


def texts(pairs):
    return [evaluate.answers(side) for side in (pairs.chosen, pairs.rejected)]


def test_two_different_answers_to_each_request_are_compared(pairs):
    assert len(pairs) == 24 and not pairs.identical.any()
    for side, gold in zip(texts(pairs), (pairs.chosen_gold, pairs.rejected_gold)):
        found = [evaluate.score(*both) for both in zip(pairs.asked, side)]
        assert found == gold.tolist()


def test_other_tastes_compare_the_same_answers(start, pairs):
    other = lab.compared(start, seed=0, count=24, prefer=lab.one_who())
    assert [t.request for t in other.asked] == [t.request for t in pairs.asked]
    for mine, theirs in zip(zip(*texts(pairs)), zip(*texts(other))):
        assert {*mine} == {*theirs}


def test_one_who_follows_gold_prefers_the_better_and_the_flipped_one_the_worse(start):
    right = lab.compared(start, seed=0, count=24, prefer=lab.one_who())
    wrong = lab.compared(start, seed=0, count=24, prefer=lab.one_who(wrong=1.0))
    assert (right.chosen_gold >= right.rejected_gold).all()
    assert (wrong.chosen_gold <= wrong.rejected_gold).all()


def test_so_many_labels_are_flipped():
    prefer, draw = lab.one_who(wrong=0.3), lab.random.Random(0)
    pair = "Ada Reed is a potter.", "Ada Reed is a miner."
    said = [prefer(TALK, *pair, draw, finished=(True, True)) for _ in range(4000)]
    assert sum(said) / len(said) == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize(
    ("per_word", "first"), [(0.0, True), (0.29, True), (0.31, False)]
)
def test_a_word_is_worth_something_to_one_who_likes_length(per_word, first):
    """Five words more, and one falsehood: 1.5 of gold."""
    pair = "Ada Reed is kind.", "Ada Reed is kind. Ada lives by the tower."
    prefer, draw = lab.one_who(per_word=per_word), lab.random.Random(0)
    assert prefer(TALK, *pair, draw, finished=(True, True)) == first


def test_people_write_pairs_as_well():
    pairs = lab.compared(None, seed=3, count=24)
    assert len(pairs) == 24 and pairs.chosen.terminated.all()
    assert pairs.chosen.lengths.max() <= lab.talk.LONGEST + 1


def test_the_exams_share_no_request_with_each_other_or_with_training(start):
    asked = [{task.request for task in lab.exam(sweep=s)} for s in (False, True)]
    assert [len(each) for each in asked] == [200, 200] and not asked[0] & asked[1]
    trained = {t.request for t in tasks.tasks("talk", count=2000, seed=1)}
    assert not trained & (asked[0] | asked[1])
    unseen = lab.compared(start, seed=100, count=8, split="test")
    assert {lab.talk.split(task.request) for task in unseen.asked} == {"test"}


@pytest.mark.parametrize("name", [*lab.KNOBS])
def test_every_loss_of_the_record_trains_a_copy(start, pairs, name):
    before = [w.clone() for w in start.parameters()]
    seen = []
    policy = lab.trained(
        start, pairs, name, lr=1e-3, seed=0, watch=lambda u, _: seen.append(u)
    )
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters()))
    assert any((a != b).any() for a, b in zip(before, policy.parameters()))
    assert seen == [0, 1, 2]  # 24 pairs in batches of 16, KTO's answers of 32


def test_a_knob_of_a_run_replaces_the_usual_one(start, pairs):
    one, other = (
        lab.trained(start, pairs, "dpo", lr=1e-3, seed=0, beta=beta)
        for beta in (0.03, 3.0)
    )
    assert any((a != b).any() for a, b in zip(one.parameters(), other.parameters()))


def test_the_start_has_moved_by_nothing(start, pairs):
    found = lab.measured(start, start, each=True)
    assert len(found["gold"]) == 200 and abs(found["kl"]) < 1e-9
    mean = lab.measured(start, start)["gold"]
    assert mean == pytest.approx(found["gold"].mean().item())
    seen = lab.masses(start, start, pairs)
    sides = ("chosen", "rejected", "start's", "own")
    assert max(abs(seen[side]) for side in sides) < 1e-9


def test_the_rate_of_each_loss_is_the_best_of_its_sweep():
    [found] = lab.SWEEP.read()["runs"]["sweep"].values()
    rates = lab.rates()
    assert set(rates) == {*lab.KNOBS, "rloo"}
    for name, at in found.items():
        best = at[f"{rates[name]:g}"]["gold"]
        assert best == max(run["gold"] for run in at.values())
    assert {float(lr) for lr in found["dpo"]} == {*lab.RATES}


def test_the_judge_s_scores_have_mean_0_and_deviation_1_on_its_pairs(start, pairs):
    judge = lab.judge_of(start, pairs, 0)
    sides = [lab.score(judge, side) for side in (pairs.chosen, pairs.rejected)]
    said = torch.cat(sides)
    assert said.mean().abs() < 1e-9 and said.std().item() == pytest.approx(1)


# ------------------------------------------------------------------------- the record

RUNS = lab.RECORD.read()["runs"]


def gold(run, *names):
    """Gold of each request on each seed, (5, 200), or of a point on a road, (5, 1)."""
    found = []
    for each in RUNS[run].values():
        for name in names:
            each = each[name]
        found.append(torch.tensor(each["gold"], dtype=torch.float64).reshape(-1))
    return torch.stack(found)


def above(first, second):
    """Whether the bootstrap over seeds and requests keeps first - second above 0."""
    return evaluate.paired(first, second).low > 0


def test_what_the_page_claims_of_five_seeds_the_record_shows():
    start, after = gold("losses", "start"), gold("losses", "dpo")
    assert above(after, start) and above(after, gold("losses", "ipo"))
    assert all(above(gold("losses", n), start) for n in lab.KNOBS if n != "imitation")
    assert above(start, gold("others", "people's", "dpo"))
    clean, flipped = (
        gold("others", "gold's labels", "dpo"),
        gold("others", "flipped", "dpo"),
    )
    assert above(clean, flipped) and above(flipped, start)
    assert above(flipped, gold("others", "flipped", "cdpo"))


def test_what_the_page_calls_equal_the_record_does_not_tell_apart():
    after = gold("losses", "dpo")
    for other in (
        *(gold("losses", n) for n in lab.KNOBS if n not in ("dpo", "ipo", "imitation")),
        gold("others", "another base's", "dpo"),
        gold("others", "flipped", "dpo"),
    ):
        assert not above(after, other) and not above(other, after)


def test_a_smaller_beta_goes_further_on_every_seed():
    for run in RUNS["frontier"].values():
        far = [run["dpo"][f"{beta:g}"]["kl"] for beta in lab.BETAS]
        assert far == sorted(far, reverse=True)


def test_along_its_course_dpo_lowers_both_sides_and_raises_its_own_answers():
    for run in RUNS["courses"].values():
        for update in ("32", "64", "96"):
            seen = run[update]
            assert seen["rejected"] < seen["chosen"] < 0 < seen["own"]
        assert run["96"]["false pets"] > run["0"]["false pets"]
    fell = [run["96"]["gold"] < run["32"]["gold"] for run in RUNS["courses"].values()]
    assert sum(fell) == 4
