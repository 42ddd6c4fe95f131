"""What chapter 4 claims: what comparisons leave open, what was recorded, what is shown."""

from dataclasses import replace
from functools import partial
from itertools import combinations, permutations
from pathlib import Path

import nbformat
import pytest
import torch

from labs import minimal_pairs, reward_models_runs
from lib import preference_data, reward_model
from lib.losses.reward import bradley_terry, k_wise
from lib.villagers import answers, instructed_model
from lib.worlds.village.taste import Judgement, judge

ROOT = Path(__file__).resolve().parents[1]
SWEEP = reward_models_runs.RECORD.read()


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


def test_the_recorded_sweep_says_what_the_page_says():
    sizes, ceiling = SWEEP["sizes"], SWEEP["ceiling"]
    assert tuple(sizes) == reward_models_runs.SIZES == (32, 128, 512, 2048, 8192)
    plain, informed = (
        torch.tensor(SWEEP["accuracy"][kind]) for kind in ("RewardModel", "Informed")
    )
    assert (
        plain.shape
        == informed.shape
        == (reward_models_runs.SEEDS, len(sizes))
        == (3, 5)
    )
    for runs in (plain, informed):
        assert (runs[:, 0] < 0.56).all(), "hardly better than a coin"
        assert (runs < ceiling).all() and (runs[:, -1] > runs[:, 0] + 0.05).all()
    assert (plain[:, :4] - informed[:, :4]).mean(0).abs().max() < 0.03
    assert informed[:, -1].min() > plain[:, -1].max() + 0.05
    said = [0.58, 0.61, 0.65]  # at 512, 2,048 and 8,192: no plateau
    assert plain.mean(0)[2:].tolist() == pytest.approx(said, abs=0.005)
    assert informed.mean(0)[-1].item() == pytest.approx(0.76, abs=0.005)
    assert (plain.mean(0).diff() > 0).all() and ceiling == pytest.approx(
        0.81, abs=0.005
    )
    assert 0.5 < SWEEP["each other"] < ceiling < 0.86


def test_the_recorded_sweep_names_its_command_its_date_and_its_code():
    assert SWEEP["command"] == "python -m benchmarks.reward_model"
    assert len(SWEEP["date"]) == 10 and len(SWEEP["code"]) == 16
    assert SWEEP["torch"] and SWEEP["python"]


def test_the_page_reads_this_record():
    page = nbformat.read(ROOT / "notebooks/04_reward_models.ipynb", 4)
    assert any(reward_models_runs.RECORD.path.name in c.source for c in page.cells)


def test_the_page_s_table_of_minimal_pairs_is_the_library_s():
    page = nbformat.read(ROOT / "notebooks/04_reward_models.ipynb", 4)
    text = "\n".join(c.source for c in page.cells if c.cell_type == "markdown")
    for edit in minimal_pairs.EDITS:
        row = next(line for line in text.splitlines() if line.startswith(f"| {edit} |"))
        shown = [version.strip() for version in row.split("|")[2:4]]
        _, better, worse = minimal_pairs.pairs(edit)
        for version, full in zip(shown, (better[0], worse[0])):
            assert full.endswith(version.removeprefix("… "))


def form(judgement: Judgement) -> float:
    """What gold sees, but for truth and relevance: any fact counts alike."""
    facts = 0.3 * (judgement.true + judgement.false)
    blind = replace(judgement, true=0, false=0, to_the_point=False)
    return facts + blind.score


@pytest.mark.parametrize("seed", [0, 1])
def test_to_weigh_form_alone_takes_one_to_where_the_plain_model_is(seed):
    pairs = preference_data.sample_pairs(instructed_model(), count=1024, seed=50 + seed)
    best, _ = preference_data.ceiling(pairs.chosen_gold, pairs.rejected_gold)
    gap = [
        form(judge(task, one.text, finished=one.finished))
        - form(judge(task, other.text, finished=other.finished))
        for task, one, other in zip(
            pairs.asked, answers(pairs.chosen), answers(pairs.rejected)
        )
    ]
    right = sum((g > 0) + 0.5 * (g == 0) for g in gap) / len(gap)
    assert 0.56 < right < 0.74 and right < best - 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_the_trunk_knows_what_a_young_reward_model_does_not(seed):
    trunk = instructed_model()
    pairs = preference_data.sample_pairs(trunk, count=256, seed=60 + seed)
    model, _ = reward_model.fit_reward_model(trunk, pairs, seed=seed)
    edit = "true, not false"
    assert minimal_pairs.sees(partial(minimal_pairs.likelihood, trunk), edit) > 0.9
    assert minimal_pairs.sees(partial(reward_model.score, model), edit) < 0.85
