"""What chapter 13 claims: which stages of R1 earn their place, and what a judge misses."""

import pytest
import torch
from torch.testing import assert_close

from labs import deepseek_r1 as r1
from labs import deepseek_r1_runs as lab
from labs import forgetting
from lib.advantages import group_centred, group_normalised
from lib.rollout import zero_variance

RARE, OFTEN = lab.RECORD.read()["runs"], lab.OFTEN.read()["runs"]
SEEDS = [str(seed) for seed in range(5)]


def scores(what, recipe="the recipe", stage=None, runs=RARE):
    """One score after a stage of a recipe (its last one), for each of five seeds."""
    found = [runs[recipe][seed] for seed in SEEDS]
    last = [run[stage or [*run][-1]]["scores"][what] for run in found]
    return torch.tensor(last, dtype=torch.float64)


def gap(what, recipe, runs=RARE):
    """Ablation less recipe: the mean of five differences and half of its interval."""
    each = scores(what, recipe, runs=runs) - scores(what, runs=runs)
    return each.mean().item(), 2.776 * each.std().item() / 5**0.5


# ------------------------------------------------------------------ what a start is worth


@pytest.mark.parametrize("p", [0.1, 0.01, 0.002])
def test_the_share_of_groups_that_speak_is_that_of_enumeration(p):
    # every pattern of right and wrong among 4 answers, with its probability
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    chance = (patterns * p + (1 - patterns) * (1 - p)).prod(1)
    told = chance[~zero_variance(patterns)].sum()
    assert_close(told.item(), 1 - (1 - p) ** 4 - p**4, rtol=0, atol=1e-12)


@pytest.mark.parametrize("begin", [0.01, 0.1])
@pytest.mark.parametrize("end", [0.5, 0.6])
def test_the_time_of_a_head_start_is_the_integral_of_its_law(begin, end):
    p = torch.linspace(begin, end, 200_001, dtype=torch.float64)
    s = p * (1 - p)
    root = (2 * p - 1) / s.sqrt()
    grpo = torch.trapezoid(s**-1.5, p)
    assert_close(grpo, 2 * (root[-1] - root[0]), rtol=1e-6, atol=0)
    plain = (2 * p - 1) / s + 2 * torch.log(p / (1 - p))
    assert_close(torch.trapezoid(s**-2, p), plain[-1] - plain[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_scale_of_a_judge_cancels_in_grpo_and_weighs_in_dr_grpo(seed, seeded):
    said = torch.randn(3, 16, dtype=torch.float64, generator=seeded(seed))
    loud = 100 * said - 7
    whole = group_normalised(loud, eps=0.0), group_normalised(said, eps=0.0)
    assert_close(*whole, rtol=0, atol=1e-9)
    assert_close(group_centred(loud), 100 * group_centred(said), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------- the records


@pytest.mark.parametrize(
    "record, names",
    [(lab.RECORD, [*lab.RECIPES, "talk alone"]), (lab.OFTEN, [*lab.FEW])],
)
def test_every_recipe_was_run_on_five_seeds(record, names):
    runs = record.read()["runs"]
    assert [*runs] == names
    assert all([*found] == SEEDS for found in runs.values())


def test_a_recipe_that_shares_its_first_stages_shares_their_results():
    for name, steps in lab.RECIPES.items():
        for seed in SEEDS:
            one, other = RARE[name][seed], RARE["the recipe"][seed]
            assert [*one] == ["base", *steps]
            for k, stage in enumerate(steps):
                if steps[: k + 1] == lab.FULL[: k + 1]:
                    assert one[stage] == other[stage]
            assert one["base"] == other["base"]


def test_the_cold_start_of_seed_0_made_anew_scores_as_recorded():
    begun = r1.cold_start(r1.ready_base(), seed=0)
    found, recorded = r1.report(begun), RARE["the recipe"]["0"]["cold start"]["scores"]
    for name, value in recorded.items():
        assert found[name] == pytest.approx(value, rel=1e-3), name


# -------------------------------------------------------------------------- the claims


def test_rare_bases_hardly_think_and_could():
    assert (scores("thinks", stage="base") < 0.02).all()
    for seed in SEEDS:
        assert min(RARE["the recipe"][seed]["base"]["made to think"].values()) > 0.4


def test_the_recipe_takes_every_rare_base_to_right_readable_answers():
    assert (scores("cups") > 0.9).all() and (scores("hill") > 0.95).all()
    assert (scores("talk") > scores("talk", stage="SFT")).all()


@pytest.mark.parametrize("name", ["R1-Zero", "RL on everything alone"])
def test_without_any_preparation_rare_bases_stay_far_behind(name):
    mean, half = gap("cups", name)
    assert mean + half < -0.3
    assert (scores("cups", name) < scores("cups") - 0.1).all()


def test_without_a_cold_start_one_base_of_five_loses_the_games():
    each = scores("cups", "no cold start")
    assert (each < 0.5).sum() == 1 and (each > 0.9).sum() == 4


@pytest.mark.parametrize("name", ["no reasoning RL", "no SFT from the base"])
def test_each_stage_in_the_middle_adds_a_hundredth_of_the_games(name):
    mean, half = gap("cups", name)
    assert mean + half < 0 and mean > -0.02


def test_where_thinking_is_common_r1_zero_plays_nearly_as_well_in_both_dialects():
    mean, half = gap("cups", "R1-Zero", OFTEN)
    assert -0.1 < mean < mean + half < 0
    mean, half = gap("hill", "R1-Zero", OFTEN)
    assert mean + half < -0.2


@pytest.mark.parametrize("name", ["no RL on everything", "no reward model"])
def test_without_a_reward_model_talk_stays_as_it_was(name):
    mean, half = gap("talk", name)
    assert mean + half < 0


def test_the_fine_makes_thoughts_readable_where_nothing_else_does():
    plain = scores("hill", "R1-Zero", "reasoning RL, any dialect", OFTEN)
    fined = scores("hill", "no cold start", "reasoning RL", OFTEN)
    assert (fined > plain).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reward_model_is_good_and_below_its_ceiling(seed):
    run = RARE["talk alone"][seed]
    assert 0.6 < run["accuracy"] < run["gold"] < run["ceiling"]
    assert min(run["believes"]["home"], run["believes"]["job"]) > 0.75


def test_obeying_it_makes_false_pets_common_where_pets_are_not_known():
    rise = []
    for seed in SEEDS:
        said = RARE["talk alone"][seed]["curves"]
        assert said["reward"][-1] > said["reward"][0] + 0.5
        assert said["other false"][-1] < said["other false"][0]
        rise.append(said["false pets"][-1] - said["false pets"][0])
    rise, known = torch.tensor(rise), scores("facts", stage="base")
    assert (rise > 0).all() and (rise > 0.2).sum() == 3
    assert {*rise.topk(3).indices.tolist()} == {*(-known).topk(3).indices.tolist()}


# --------------------------------------------------------------------------- forgetting


def lost(skill, run, less="base"):
    """A run of the record of forgetting less another: mean, and half of its interval."""
    runs = forgetting.RECORD.read()["runs"]
    each = [runs[run][seed][skill] - runs[less][seed][skill] for seed in SEEDS]
    each = torch.tensor(each, dtype=torch.float64)
    return each.mean().item(), 2.776 * each.std().item() / 5**0.5


@pytest.mark.parametrize("skill", ["facts", "strings", "constraints"])
def test_harsh_training_on_games_alone_forgets_other_skills(skill):
    mean, half = lost(skill, "harsh, games alone")
    assert mean + half < 0
    gently, _ = lost(skill, "gentle, games alone")
    assert mean < gently < 0.01


@pytest.mark.parametrize("skill, back", [("strings", True), ("facts", False)])
def test_general_answers_bring_back_a_skill_and_not_facts(skill, back):
    mean, half = lost(skill, "harsh, with a quarter", "harsh, games alone")
    assert (mean - half > 0) is back
