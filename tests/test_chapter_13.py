"""What chapter 13 claims: RL from a base model starts, costs, and is paid for its form."""

import pytest
import torch
from torch.testing import assert_close

from labs.recipes import DEEPSEEK_R1, ITSELF
from lib import sft
from lib.advantages import group_normalised
from lib.recipes.deepseek_r1 import ABLATIONS, RECIPE, sums
from lib.recipes.prompts import right_and_reasoned
from lib.rollout import zero_variance
from lib.worlds.village.tasks import Task, reasoning, tasks

RECORD = DEEPSEEK_R1.read()
RUNS = RECORD["runs"]
SEEDS = 5


def of(what, kind, stage="r1", variant=ITSELF):
    """scores (seeds,) or history (seeds, updates) of a stage of a variant."""
    every = [[*RUNS[variant][s], *RUNS[ITSELF][s]] for s in RUNS[variant]]
    found = [next(r for r in each if r["stage"] == stage) for each in every]
    return torch.tensor([r[kind][what] for r in found], dtype=torch.float64)


def score(what, stage="r1", variant=ITSELF):
    return of(what, "scores", stage, variant)


def smooth(stage):
    """Running means over ten steps of the reward: (seeds, steps - 9)."""
    return of("reward", "history", stage).unfold(1, 10, 1).mean(2)


def paid(texts, request="What is 3 + 4 + 2?", answer="9"):
    """What Zero's reward says of these answers to one sum."""
    task = Task("sum", 2, request, answer)
    written = [sft.written([task], [text]) for text in texts]
    return [right_and_reasoned([task], one).item() for one in written]


# ----------------------------------------------------------------- will it start at all


@pytest.mark.parametrize("p", [0.11, 0.01, 0.001])
def test_the_share_of_groups_that_speak_is_that_of_enumeration(p):
    # every pattern of right and wrong among 4 answers, with its probability
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    chance = (patterns * p + (1 - patterns) * (1 - p)).prod(1)
    told = chance[~zero_variance(patterns)].sum()
    assert_close(told.item(), 1 - (1 - p) ** 4 - p**4, rtol=0, atol=1e-12)


def test_the_figures_of_an_update_are_those_of_the_text():
    speak = {p: 32 * (1 - (1 - p) ** 16 - p**16) for p in (0.11, 0.01, 0.001)}
    assert [round(x, 1) for x in speak.values()] == [27.0, 4.8, 0.5]


@pytest.mark.parametrize("group", [2, 4, 16])
def test_a_lone_success_is_credited_with_g_minus_1_over_root_g(group):
    rewards = torch.zeros(1, group, dtype=torch.float64)
    rewards[0, 0] = 1
    credit = group_normalised(rewards, eps=0.0)[0]
    assert_close(credit[0].item(), (group - 1) / group**0.5)
    assert_close(credit[1].item(), -1 / group**0.5)
    assert not group_normalised(0 * rewards).any()  # and none without one


@pytest.mark.parametrize("begin", [0.01, 0.08, 0.27])
@pytest.mark.parametrize("end", [0.5, 0.6])
def test_the_time_of_a_head_start_is_the_integral_of_its_law(begin, end):
    p = torch.linspace(begin, end, 200_001, dtype=torch.float64)
    s = p * (1 - p)
    root = (2 * p - 1) / s.sqrt()
    grpo = torch.trapezoid(s**-1.5, p)
    assert_close(grpo, 2 * (root[-1] - root[0]), rtol=1e-6, atol=0)
    plain = (2 * p - 1) / s + 2 * torch.log(p / (1 - p))
    assert_close(torch.trapezoid(s**-2, p), plain[-1] - plain[0], rtol=1e-6, atol=0)


# ------------------------------------------------------------------ what is paid for


def test_the_reward_pays_for_right_answers_worked_in_any_true_sums():
    own = reasoning(Task("sum", 2, "What is 3 + 4 + 2?", "9"))
    assert own == "<think> 3 + 4 = 7. 7 + 2 = 9. </think> 9"
    assert paid([own, "<think> 1 + 1 = 2. </think> 9"]) == [1, 1]  # the loophole
    wrong = "<think> 3 + 4 = 7. 7 + 2 = 9. </think> 8"
    false = "<think> 3 + 4 = 8. 8 + 1 = 9. </think> 9"
    assert paid([wrong, false, "9", "<think> </think> 9"]) == [0, 0, 0, 0]


def test_under_the_sum_working_with_a_wrong_answer_is_worth_a_right_answer_without():
    right = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0]])
    worked = torch.tensor([[1.0, 0, 1, 1, 1, 1, 1, 0]])
    added, times = group_normalised(right + worked)[0], group_normalised(right * worked)
    assert added[1] == added[2] == 0 < added[0] == -added[7]
    assert (times[0, 1:] < 0).all() and times[0, 0] > 2


@pytest.mark.parametrize("seed", range(5))
def test_neither_scale_nor_zero_of_a_judge_survives_standardisation(seed, seeded):
    scores = torch.randn(3, 16, dtype=torch.float64, generator=seeded(seed))
    scale = torch.tensor([[0.01], [1.0], [300.0]]).double()
    moved = group_normalised(scale * scores - 7, eps=0.0)
    assert_close(moved, group_normalised(scores, eps=0.0), rtol=0, atol=1e-9)
    assert_close(moved.std(1), torch.ones(3).double(), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------ the record


def test_the_record_is_whole_and_says_what_made_it():
    assert RECORD["made by"] == "python -m tools.record_recipes deepseek_r1"
    assert RECORD["scale"] == 0.01
    assert set(RUNS) == {ITSELF, *ABLATIONS}
    assert len(RUNS[ITSELF]) == SEEDS
    assert {len(RUNS[v]) for v in ABLATIONS} == {3}
    for runs in RUNS[ITSELF].values():
        assert [r["stage"] for r in runs] == ["base", *(s.name for s in RECIPE.stages)]
        for result, stage in zip(runs[1:], RECIPE.stages, strict=True):
            assert result["amount"] == stage.amount(0.01)


@pytest.mark.parametrize("count", [3_328, 6_000])
def test_the_questions_of_every_stage_are_192_different_sums(count):
    assert len({task.request for task in sums(count, 0)}) == 192


def test_the_exam_of_short_sums_has_45_different_questions():
    asked = tasks("sum", count=128, seed=1, split="test", levels=(1, 2))
    assert len({task.request for task in asked}) == 45


def test_zero_starts_above_nothing_and_learns():
    reward = smooth("zero")
    assert (score("short sum", "base") > 0).all() and (reward[:, 0] > 0).all()
    assert (reward[:, -1] > 1.5 * reward[:, 0]).all()
    assert (score("short sum", "zero") > score("short sum", "base") + 0.1).all()


def test_zero_pays_with_everything_else():
    assert (score("know", "zero") < score("know", "base") - 0.05).all()
    assert (score("talk", "zero") < -0.8).all()


def test_the_cold_start_reaches_zeros_last_reward_in_fewer_steps():
    zero, begun = smooth("zero"), smooth("reasoning")
    level = zero[:, -1:]
    assert (begun[:, 0] > zero[:, 0] + 0.05).all()
    assert ((begun >= level).int().argmax(1) < (zero >= level).int().argmax(1)).all()
    assert (begun >= level).any(1).all()
    assert (begun - zero).mean(1).min() > 0.05


def test_the_cold_start_has_the_higher_format_rate_where_training_begins():
    assert (score("format", "cold") > score("format", "base") + 0.1).all()


def test_sft_brings_general_answers_back_and_keeps_the_sums():
    assert (score("talk", "sft") > score("talk", "reasoning") + 1).all()
    assert (score("know", "sft") > score("know", "reasoning") + 0.3).all()
    assert (score("short sum", "sft") > score("short sum", "reasoning") - 0.1).all()


def test_the_last_stage_raises_talk_and_keeps_the_sums_within_the_noise():
    assert (score("talk", "r1") > score("talk", "sft")).all()
    assert (score("short sum", "r1") > score("short sum", "sft") - 0.12).all()


def test_the_length_of_answers_hardly_moves():
    for stage in ("zero", "reasoning"):
        length = of("length", "history", stage).unfold(1, 10, 1).mean(2)
        assert 9.9 < length.min() and length.max() < 16
        assert ((length[:, -1] - length[:, 0]).abs() < 1.5).all()


def test_the_working_is_not_that_of_the_question():
    own = reasoning(Task("sum", 2, "What is 6 + 3 + 3?", "12"))
    said = [
        next(r for r in runs if r["stage"] == stage)["samples"][0]
        for runs in RUNS[ITSELF].values()
        for stage in ("reasoning", "r1")
    ]
    assert sum(text == own for text in said) <= 1
    assert sum(text.startswith("<think>") for text in said) == len(said)


def on_the_same_seeds(what, variant, stage="r1"):
    """What a variant has more than the recipe, seed by seed."""
    seeds = [list(RUNS[ITSELF]).index(seed) for seed in RUNS[variant]]
    return score(what, stage, variant) - score(what, stage)[seeds]


def test_without_a_cold_start_reasoning_rl_is_zero():
    got = of("reward", "history", "reasoning", "no cold start")
    want = of("reward", "history", "zero")[: len(got)]
    assert_close(got, want, rtol=0, atol=0)


def test_without_the_general_quarter_general_answers_do_not_come_back():
    assert (on_the_same_seeds("talk", "reasoning alone in SFT") < -1).all()
    assert (score("know", "r1", "reasoning alone in SFT") < 0.05).all()


def test_without_the_preference_reward_talk_stays_where_sft_left_it():
    assert (on_the_same_seeds("talk", "verifiers alone at last") < -0.2).all()


def test_a_larger_cold_start_is_a_better_start():
    lecture = "the lecture's cold start"
    assert (on_the_same_seeds("short sum", lecture, "cold") > 0.2).all()


def test_at_the_end_neither_cold_start_nor_reasoning_rl_is_missed():
    assert (on_the_same_seeds("short sum", "no cold start") > 0).all()
    assert abs(on_the_same_seeds("short sum", "no reasoning RL").mean()) < 0.07
    for variant in ("no cold start", "no reasoning RL"):
        assert abs(on_the_same_seeds("talk", variant).mean()) < 0.2
