"""What chapter 4 claims: what comparisons leave open, and what was recorded."""

from itertools import combinations, permutations

import pytest
import torch

from labs import minimal_pairs, process_rewards
from labs import reward_models_runs as runs
from lib import pretrain
from lib.losses.reward import bradley_terry, k_wise
from lib.reward_model import RewardModel, score
from lib.seeds import generator
from lib.sft import written
from lib.worlds.people import person_in

FIVE = runs.RECORD.read()["runs"]["five bases"]
WORKED = process_rewards.RECORD.read()["runs"]["bases"]


@pytest.mark.parametrize("seed", range(5))
def test_a_constant_per_request_changes_neither_loss_nor_gradient(seed, seeded):
    draw = seeded(seed)
    scores = torch.randn(2, 16, dtype=torch.float64, generator=draw).requires_grad_()
    constant = 2.0 * torch.randint(-50, 50, (16,), generator=draw)
    plain, moved = (bradley_terry(*(scores + c))[0] for c in (0 * constant, constant))
    slopes = [torch.autograd.grad(loss, scores)[0] for loss in (plain, moved)]
    torch.testing.assert_close(moved, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-12)
    torch.testing.assert_close(slopes[0].sum(0), torch.zeros(16).double())


@pytest.mark.parametrize("share", [0.55, 0.75, 0.9])
def test_the_best_gap_reproduces_the_share(share):
    gap = torch.logit(torch.tensor(share).double()).requires_grad_()
    zero = torch.zeros(1).double()
    right, wrong = bradley_terry(gap[None], zero)[0], bradley_terry(zero, gap[None])[0]
    (slope,) = torch.autograd.grad(share * right + (1 - share) * wrong, gap)
    assert slope.abs() < 1e-7


@pytest.mark.parametrize("seed", range(5))
def test_the_pairs_of_a_plackett_luce_ranking_are_bradley_terry_pairs(seed, seeded):
    r = torch.randn(4, dtype=torch.float64, generator=seeded(seed))
    law = {
        order: torch.stack([r[list(order[k:])].softmax(0)[0] for k in range(4)]).prod()
        for order in permutations(range(4))
    }
    for i, j in combinations(range(4), 2):
        before = sum(p for order, p in law.items() if order.index(i) < order.index(j))
        torch.testing.assert_close(before, torch.sigmoid(r[i] - r[j]))
    pairs = [
        bradley_terry(r[i, None], r[j, None])[0] for i, j in combinations(range(4), 2)
    ]
    torch.testing.assert_close(k_wise(r[None])[0], sum(pairs) / 6)


# ------------------------------------------------------------------- the controls


def test_more_layers_begin_as_the_trunk_itself_and_can_learn():
    base = pretrain.base_model(seed=0)
    tall = runs.deeper(base)
    tokens = torch.randint(5, 90, (3, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tall(tokens), base(tokens), rtol=0, atol=1e-12)
    assert len(tall.blocks) == 4
    tall.hidden(tokens).square().sum().backward()
    assert all(block.out.weight.grad.abs().sum() > 0 for block in tall.blocks)


def test_in_the_clean_comparisons_truth_is_all_there_is():
    pairs = runs.clean(100, seed=1)
    known = {person.name for person in minimal_pairs.people("train")}
    for row, task in enumerate(pairs.asked):
        person = person_in(task.request)
        one, other = (
            side.actions[row][side.mask[row]] for side in (pairs.chosen, pairs.rejected)
        )
        assert person.name in known and len(one) == len(other)
        assert (one != other).sum() == 1


def test_the_probe_is_where_its_loss_is_flat():
    base = pretrain.base_model(seed=0)
    pairs = runs.clean(60, seed=1)
    apart = runs.last_hidden(base, pairs.chosen) - runs.last_hidden(
        base, pairs.rejected
    )
    judge = runs.probe(base, pairs)
    gap = judge(pairs.chosen) - judge(pairs.rejected)
    weight = torch.linalg.lstsq(apart, gap.unsqueeze(1)).solution[:, 0].requires_grad_()
    loss = bradley_terry(apart @ weight, 0 * gap)[0] + 1e-4 * weight.square().sum()
    (slope,) = torch.autograd.grad(loss, weight)
    assert slope.abs().max() < 1e-3 and gap.mean() > 0


def test_the_likelihood_of_an_answer_is_that_of_its_tokens_alone():
    base = pretrain.base_model(seed=0)
    found = minimal_pairs.pairs("one fact more", minimal_pairs.people()[:1])
    rollout = written(found.asked, found.better)
    got = runs.likelihood(base, rollout)
    logps = base(rollout.states).log_softmax(-1)
    each = logps.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(got, (each * rollout.mask).sum(1).detach())
    assert not got.requires_grad


def test_one_pass_reads_every_comparison_once_an_epoch():
    pairs = runs.clean(40, seed=2)
    model = RewardModel(pretrain.base_model(seed=0))
    before = score(model, pairs.chosen)
    assert runs.one_pass(model, pairs) is model
    assert (before == 0).all() and (score(model, pairs.chosen) != 0).any()
    order = runs.minibatches(40, epochs=2, batch=16, generator=generator("order", 0))
    rows = torch.cat([*order]).sort().values
    assert rows.tolist() == [k for k in range(40) for _ in range(2)]


# -------------------------------------------------------------------- the records


def test_every_base_was_run():
    assert [*FIVE] == [str(seed) for seed in range(5)]
    assert [*WORKED] == [str(seed) for seed in range(3)]
    for run in FIVE.values():
        found = run["comparisons"]
        assert found["distinct"] >= 200 and len(found["plain"]["right"]) == runs.FRESH
        for kind in runs.KINDS_OF_MODEL:
            curve = found[kind]["curve"]
            assert len(curve["accuracy"]) == len(runs.SIZES)
            right = [int(x) for x in found[kind]["right"]]
            assert sum(right) / len(right) == pytest.approx(
                curve["accuracy"][-1], abs=1e-3
            )


def test_no_judge_of_thoughts_is_above_the_verifier():
    for run in WORKED.values():
        best = run["chosen"]["verifier"]["right"]
        for each in run["chosen"].values():
            assert all(x <= y + 1e-9 for x, y in zip(each["right"], best))
            assert each["right"][0] == pytest.approx(run["thoughts"]["right"], abs=1e-3)
            mean = sum(each["each at 8"]) / len(each["each at 8"])
            assert mean == pytest.approx(each["right"][-1], abs=1e-3)


def test_the_curves_hold_what_the_page_says_of_the_sizes():
    assert runs.SIZES == (300, 1_000, 3_000) and process_rewards.NS[-1] == 8
