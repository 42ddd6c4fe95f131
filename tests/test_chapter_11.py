"""What chapter 11 claims: three steps, what each is there for, and who pays the tax."""

from math import comb

import pytest
import torch

from labs import instructgpt, instructgpt_runs
from lib.evaluate import paired
from lib.losses.reward import bradley_terry, k_wise

RUNS = instructgpt_runs.RECORD.read()["runs"]
FIVE = (
    "the recipe",
    "no SFT",
    "no KL penalty",
    "no old text",
    "gold for the reward model",
)


def scores(what, run="the recipe", stage="PPO"):
    """What was measured after a stage, on each seed."""
    found = []
    for each in RUNS[run].values():
        value = each[stage]
        for name in what.split("/"):
            value = value[name]
        found.append(value)
    return torch.tensor(found, dtype=torch.float64)


# ------------------------------------------------------------------------ rankings


@pytest.mark.parametrize("k", [2, 4, 9])
def test_the_loss_of_a_ranking_is_bradley_terry_over_all_of_its_pairs(k, seeded):
    said = torch.randn(1, k, dtype=torch.float64, generator=seeded(k))
    better, worse = torch.triu_indices(k, k, 1)
    assert len(better) == comb(k, 2)
    pairs = bradley_terry(said[0, better], said[0, worse])[0]
    torch.testing.assert_close(k_wise(said)[0], pairs, rtol=0, atol=1e-12)


def test_the_first_step_on_a_ranking_is_linear_in_the_rank():
    said = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    push = -torch.autograd.grad(k_wise(said)[0], said)[0][0]
    steps = torch.full((4,), -0.1, dtype=torch.float64)
    torch.testing.assert_close(push.diff(), steps, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- the record


def test_the_record_has_five_bases_for_each_part_and_one_for_the_sweep():
    assert list(RUNS) == [*FIVE, *instructgpt_runs.SWEEP]
    assert all(list(RUNS[name]) == list("01234") for name in FIVE)
    assert all(list(RUNS[name]) == ["0"] for name in instructgpt_runs.SWEEP)


def test_every_base_saw_nearly_as_many_different_demonstrations_as_were_shown():
    for run in RUNS["the recipe"].values():
        shown = run["shown"]
        assert 2_800 < shown["demonstrations"] <= 5 * instructgpt.SHOWN
        assert run["judge"]["requests"] > 900


def test_all_pairs_of_a_ranking_teach_more_than_one_of_them():
    every, one = scores("accuracy", stage="judge"), scores("one pair", stage="judge")
    assert paired(every, one).low > 0
    assert (every < scores("ceiling", stage="judge")).all()


def test_people_prefer_ppos_answers_to_those_of_sft_and_gold_agrees():
    wins = scores("wins")
    assert paired(wins, torch.full_like(wins, 0.5)).low > 0.1
    assert paired(scores("gold"), scores("gold", stage="SFT")).low > 0


def test_sft_teaches_the_games_and_nothing_that_people_prefer():
    taught = paired(
        scores("skills/cups", stage="SFT"), scores("skills/cups", stage="base")
    )
    assert taught.low > 0.8
    wins = scores("wins", stage="SFT") - scores("wins", stage="base")
    assert abs(wins.mean().item()) < 0.05


def test_without_the_kl_penalty_people_notice_nothing_and_the_policy_goes_farther():
    gap = paired(scores("wins", "no KL penalty"), scores("wins"))
    assert abs(gap.mean) < 0.05
    assert (scores("kl", "no KL penalty") > scores("kl")).all()


def test_old_text_pays_for_old_text_and_not_for_what_sft_taught():
    text = paired(scores("old text"), scores("old text", "no old text"))
    games = paired(scores("skills/cups"), scores("skills/cups", "no old text"))
    assert text.high < 0 and games.high < 0


def test_gold_for_the_reward_model_is_the_best_in_gold_on_every_base():
    best = scores("gold", "gold for the reward model").mean(1)
    assert all((best > scores("gold", name).mean(1)).all() for name in FIVE[:4])
