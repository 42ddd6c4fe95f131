"""What chapter 9 claims: one optimum, both sides fall, and where the probability goes."""

import pytest
import torch
from test_pair_logps import model, pairs
from torch.testing import assert_close

from labs import agents, direct_alignment, objective
from lib.kl import exact_kl, optimal_policy
from lib.losses import preference
from lib.losses.preference import dpo
from lib.train import fit
from lib.villagers import instructed_model
from lib.worlds import exact
from lib.worlds.village import taste
from tools import notebooks

RECORD = direct_alignment.RECORD.read()
START = RECORD["before"]["gold"]


def runs(sweep, what, **only):
    found = [r[what] for r in RECORD[sweep] if only.items() <= r.items()]
    assert found, (sweep, only)
    return torch.tensor(found, dtype=torch.float64)


# ---------------------------------------------------------------------- the derivation


@pytest.mark.parametrize("seed", range(5))
def test_the_best_policy_s_log_ratio_is_its_reward_less_beta_log_z(seed):
    sheet = objective.scattered(12, seed=seed, beta=0.5)
    best = optimal_policy(sheet.ref_logps, sheet.rewards, beta=0.5)
    implicit = 0.5 * (best - sheet.ref_logps)
    missing = sheet.rewards - implicit
    assert_close(missing, sheet.best_value.expand(12), rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_dpo_on_every_pair_as_often_as_each_side_wins_is_smallest_at_the_optimum(beta):
    sheet = objective.scattered(6, seed=1, beta=beta)
    i, j, first = (x.tolist() for x in objective.comparisons(sheet))
    ref = sheet.ref_logps

    def loss(logps):
        wins = [
            p * dpo(logps[[a]], logps[[b]], ref[[a]], ref[[b]], beta=beta)[0]
            for a, b, p in (*zip(i, j, first), *zip(j, i, [1 - p for p in first]))
        ]
        return sum(wins)

    best = sheet.best_logps.clone().requires_grad_()
    [slope] = torch.autograd.grad(loss(best.log_softmax(0)), best)
    assert slope.abs().max() < 1e-12
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        other = sheet.best_logps + 0.3 * torch.randn(6, generator=draw).double()
        assert loss(other.log_softmax(0)) > loss(sheet.best_logps)


@pytest.mark.parametrize("beta", [4.0, 2.0, 1.5, 1.0, 0.5])
def test_dpo_and_rloo_meet_the_same_frontier_where_every_answer_is_compared(beta):
    sheet = objective.fox().objective(beta)
    for road in ("DPO", "RLOO"):
        table, stream = objective.tabular(sheet.ref_logps), [sheet] * 400
        loss = objective.soft_dpo_loss
        if road == "RLOO":
            stream = objective.sampled(table, sheet, updates=400, group=64, seed=0)
            loss = agents.policy_loss
        fit(table, stream, loss, lr=lambda i: 0.4 * (1 - i / 400))
        assert objective.gap(table, sheet) < 0.003


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_imitation_and_its_opposite_weighted_by_the_wrong_order(seed):
    draw = torch.Generator().manual_seed(seed)
    logps = torch.randn(4, 1, dtype=torch.float64, generator=draw).requires_grad_()
    value, _ = dpo(*logps, beta=0.7)
    [slope] = torch.autograd.grad(value, logps)
    chosen, rejected, ref_chosen, ref_rejected = logps.detach()
    h = (chosen - ref_chosen) - (rejected - ref_rejected)
    weight = 0.7 * torch.sigmoid(-0.7 * h)
    nothing = torch.zeros_like(weight)
    want = torch.stack((-weight, weight, nothing, nothing))
    assert_close(slope, want, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------- the curves


def slope_at(name, margins):
    """The slope of a loss over the margin, at beta = 1."""
    h = torch.tensor(margins, dtype=torch.float64, requires_grad=True)
    nil, total = torch.zeros(1, dtype=torch.float64), 0.0
    for x in h.split(1):
        total = total + getattr(preference, name)(x, nil, nil, nil, beta=1)[0]
    return torch.autograd.grad(total, h)[0]


def test_some_losses_never_stop_some_stop_and_some_pull_back():
    far = [8.0]
    assert -1e-3 < slope_at("dpo", far) < 0
    assert slope_at("robust_dpo", far).item() == pytest.approx(-0.125, abs=1e-3)
    assert slope_at("slic_hinge", far) == 0
    assert slope_at("cdpo", far).item() == pytest.approx(0.1, abs=1e-3)
    assert slope_at("ipo", [0.5]) == 0 and slope_at("ipo", far).item() == 15


def test_apo_down_pulls_apart_near_zero_and_together_beyond_two_nats():
    """With the margin shared equally between the sides, as on the page."""
    h = torch.linspace(-8, 8, 161, dtype=torch.float64, requires_grad=True)
    nil, total = torch.zeros(1, dtype=torch.float64), 0.0
    for x in h.split(1):
        total = total + preference.apo_down(x / 2, -x / 2, nil, nil, beta=1)[0]
    [slope] = torch.autograd.grad(total, h)
    inside = h.detach().abs() < 2.15  # 2.1 and a step
    assert (slope[h.detach().abs() < 2.05] < 0).all() and (slope[~inside] > 0).all()


# --------------------------------------------------------------- where the mass goes


@pytest.mark.parametrize("seed", range(5))
def test_in_a_table_the_chosen_answer_always_rises(seed):
    sheet = objective.scattered(12, seed=seed, beta=1.0)
    table, ref = objective.tabular(sheet.ref_logps), sheet.ref_logps
    logps = objective.answer_logps(table)
    value = dpo(logps[[0]], logps[[1]], ref[[0]], ref[[1]], beta=0.1)[0]
    step = -0.01 * exact.gradient(value, table)
    table.logits.data += step.reshape(table.logits.shape)
    after = objective.answer_logps(table)
    assert after[0] > ref[0] and after[1] < ref[1]


@pytest.mark.parametrize("beta", [0.03, 0.1, 0.3, 1.0])
def test_with_shared_habits_both_sides_of_a_pair_vanish_and_an_unseen_answer_rises(
    beta,
):
    every = exact.every_completion([0], tokens=[0, 1, 2], end=2, max_tokens=3)
    texts = [a[m].tolist() for a, m in zip(every.actions, every.mask)]
    words = torch.tensor([[t.count(k) for k in range(3)] for t in texts]).double()
    won, lost, kind = ([texts.index(t)] for t in ([1, 0, 0], [0, 0, 0], [1, 1, 1]))
    writer = objective.tabular(torch.tensor([0.4, 0.3, 0.3]).double().log())
    ref = (words @ objective.answer_logps(writer)).detach()

    def loss(policy, _):
        now = words @ objective.answer_logps(policy)
        return dpo(now[won], now[lost], ref[won], ref[lost], beta=beta)

    fit(writer, [None] * 60, loss, lr=0.05)
    after = (words @ objective.answer_logps(writer)).detach()
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


# ------------------------------------------------------------------------ the record


def test_the_record_says_what_made_it():
    made = RECORD["made"]
    assert made["command"] == "python -m tools.record_alignment"
    assert len(made["code"]) == 12 and made["date"] >= "2026-11-22"
    for name in ("COUNT", "LR", "BETA", "UPDATES"):
        key = {"COUNT": "pairs"}.get(name, name.lower())
        assert made[key] == getattr(direct_alignment, name)


def test_the_record_holds_every_setting_on_every_seed():
    sizes, betas = len(direct_alignment.SIZES), len(direct_alignment.BETAS)
    settings = sum(len(values) for values in direct_alignment.KNOBS.values())
    wanted = {
        "frontier": 5 * (betas + 2 * sizes) + 3 * betas,
        "courses": 3 * 5,
        "writers": 3 * 5,
        "losses": 3 * settings,
        "noise": 3 * 4,
        "lengths": 3 * 3,
        "patience": 3,
    }
    assert {sweep: len(RECORD[sweep]) for sweep in wanted} == wanted


def test_on_policy_dpo_raises_gold_on_5_of_5_seeds_at_each_of_4_prices():
    for beta in direct_alignment.BETAS:
        gold = runs("frontier", "gold", by="DPO", beta=beta)
        assert len(gold) == 5 and (gold > START + 0.2).all()


def test_a_higher_price_is_a_shorter_way():
    far = [
        runs("frontier", "kl", by="DPO", beta=b).mean() for b in (0.1, 0.3, 1.0, 3.0)
    ]
    assert far == sorted(far, reverse=True)


def test_classifiers_of_the_margin_and_kto_differ_less_than_seeds_do():
    found = [runs("frontier", "gold", by="DPO", beta=0.3)[:3]]
    found += [
        runs("losses", "gold", loss=name, beta=0.3)
        for name in ("cdpo", "robust_dpo", "slic_hinge", "apo_zero")
    ]
    found.append(runs("losses", "gold", loss="kto", beta=1.0))
    means = torch.stack([each.mean() for each in found])
    spread = torch.stack([each.max() - each.min() for each in found]).mean()
    assert (means > START + 0.35).all()
    assert means.max() - means.min() < 0.1 < spread


def test_apo_down_breaks_what_writes_its_own_answers_and_simpo_gains_nothing():
    assert (runs("losses", "gold", loss="apo_down") < -0.9).all()
    assert (runs("losses", "kl", loss="apo_down") > 30).all()
    for beta in (2.0, 10.0):
        assert runs("losses", "gold", loss="simpo", beta=beta).mean() < START


def test_imitation_of_the_chosen_takes_half_of_the_gain_for_a_little_of_the_distance():
    gold, kl = (runs("losses", what, loss="imitation") for what in ("gold", "kl"))
    far = {w: runs("frontier", w, by="DPO", beta=0.3)[:3] for w in ("gold", "kl")}
    assert (gold > START + 0.15).all() and (gold < far["gold"]).all()
    assert (gold.mean() - START) / (far["gold"].mean() - START) > 0.45
    assert (kl < far["kl"] / 5).all()


def test_a_second_round_on_one_s_own_new_answers_beats_as_many_old_ones():
    again = runs("writers", "gold", pairs="own, then own again")
    assert (again > runs("writers", "gold", pairs="own, twice as many")).all()


def test_other_people_s_pairs_gain_less_than_one_s_own():
    own = runs("writers", "gold", pairs="own")
    for other in ("the base model's", "the villagers'"):
        assert (own > runs("writers", "gold", pairs=other) + 0.1).all()


def test_the_villagers_worse_answers_are_shorter_than_the_model_s_own_worse_ones():
    gap = {}
    for name, some in (
        ("own", direct_alignment.pairs_of(0, 1024, instructed_model())),
        ("villagers", direct_alignment.written_pairs(0)),
    ):
        longer = some.chosen.lengths - some.rejected.lengths
        gap[name] = longer.double().mean()
    assert gap["villagers"] > gap["own"]  # about 3 tokens and 1, each to within 0.4
    for seed in range(3):
        [good] = runs("writers", "chosen", pairs="the villagers'", seed=seed)
        assert 2.3 <= good < 2.4


def test_the_middle_of_the_two_sides_falls_with_the_start_s_other_answers():
    for update in (24, 48, 72, 96):
        chosen, rejected, others, own = (
            runs("courses", f"unseen {name}", update=update)
            for name in ("chosen", "rejected", "others", "own")
        )
        assert (chosen < 0).all() and (rejected < chosen).all() and (own > 0).all()
        assert ((chosen + rejected) / 2 / others - 1).abs().max() < 0.25


def test_gold_falls_while_the_margin_on_unseen_pairs_grows():
    for update, next_update in ((0, 24), (24, 96)):
        margin = [
            runs("courses", "unseen chosen", update=u)
            - runs("courses", "unseen rejected", update=u)
            for u in (update, next_update)
        ]
        assert (margin[1] > margin[0]).all()
    late = runs("courses", "gold", update=96)
    assert (late < runs("courses", "gold", update=24)).all()


def test_with_three_labels_in_ten_flipped_no_loss_gains_much():
    clean = runs("noise", "gold", flipped=0.0, loss="dpo")
    far = {}
    for name in ("dpo", "cdpo", "robust_dpo"):
        gold = runs("noise", "gold", flipped=0.3, loss=name)
        assert (gold < clean - 0.2).all() and (gold < START + 0.15).all()
        far[name] = runs("noise", "kl", flipped=0.3, loss=name).mean()
    assert 2 * far["cdpo"] < far["dpo"] < far["robust_dpo"]


def test_means_per_token_made_answers_longer_where_annotators_like_length():
    long = {
        name: runs("lengths", "length", loss=name)
        for name in ("dpo", "dpo per token", "simpo")
    }
    gold = {name: runs("lengths", "gold", loss=name) for name in long}
    assert (long["dpo per token"] > long["dpo"] + 5).all()
    assert (long["simpo"] > long["dpo per token"]).all()
    assert (gold["dpo"] > gold["dpo per token"]).all()
    assert (gold["dpo per token"] > gold["simpo"]).all()
    fair = runs("frontier", "length", by="DPO", beta=0.3)
    assert (fair > RECORD["before"]["length"]).all()


def test_those_longer_answers_were_also_further_from_the_start():
    """One beta each, so that length at an equal distance was not measured."""
    far = [runs("lengths", "kl", loss=n) for n in ("dpo", "dpo per token", "simpo")]
    assert [round(each.mean().item(), 1) for each in far] == [2.5, 4.5, 7.8]
    assert (far[0] < far[1]).all() and (far[1] < far[2]).all()


def test_the_last_nat_of_dpo_bought_nothing_that_five_seeds_could_show():
    gold = {b: runs("frontier", "gold", by="DPO", beta=b) for b in (0.1, 0.3)}
    gap = gold[0.3] - gold[0.1]
    error = gap.std() / len(gap) ** 0.5
    assert round(gap.mean().item(), 2) == 0.06 and round(error.item(), 2) == 0.04


def test_two_rounds_gain_on_each_seed_and_on_one_of_them_hardly():
    two = runs("writers", "gold", pairs="own, then own again")
    gap = two - runs("writers", "gold", pairs="own, twice as many")
    assert [round(x, 2) for x in gap.tolist()] == [0.26, 0.02, 0.16]


def test_the_page_counts_the_different_requests_of_its_exam():
    asked = taste.requests(count=256, seed=0, split="test")
    assert len({task.request for task in asked}) == 135
    for seed in range(3):
        asked = taste.requests(count=1024, seed=100 + seed)
        assert 490 <= len({task.request for task in asked}) < 500


def test_the_probability_of_the_compared_answers_all_but_vanishes():
    before = runs("courses", "unseen both before", update=96)
    assert (runs("courses", "unseen both", update=96) < before / 10).all()


def test_every_loss_of_the_record_can_be_trained_again():
    start = model()
    for name in direct_alignment.KNOBS:
        before = [w.clone() for w in start.parameters()]
        policy = direct_alignment.trained(start, pairs(), name, 1.0, 0)
        assert any((a != b).any() for a, b in zip(before, policy.parameters())), name


def test_the_page_reads_this_record():
    page = notebooks.read(notebooks.ROOT / "notebooks/09_direct_alignment.ipynb")
    assert any(direct_alignment.RECORD.path.name in cell.source for cell in page.cells)
