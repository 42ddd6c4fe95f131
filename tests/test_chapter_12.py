"""What chapter 12 claims: what each stage of Tülu 3 gives, and what a mean changes."""

import random
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from labs import recipes
from lib import kl, villagers
from lib.losses.preference import dpo
from lib.recipes import tulu3
from lib.recipes.decontaminate import decontaminator
from lib.recipes.engine import ASKED
from lib.worlds.village.tasks import SKILLS
from tools import notebooks

RECORD = recipes.TULU3.read()
PRACTISED = ("reverse", "words")
OTHERS = [skill for skill in SKILLS if skill not in PRACTISED]


def after(stage, *what, variant=recipes.ITSELF):
    """Means of these scores after a stage: (seeds,)."""
    runs = RECORD["runs"][variant].values()
    found = [next(r["scores"] for r in run if r["stage"] == stage) for run in runs]
    return torch.tensor([[scores[name] for name in what] for scores in found]).mean(1)


def history(stage, what, variant=recipes.ITSELF):
    """(seeds, updates)."""
    runs = RECORD["runs"][variant].values()
    found = [next(r["history"] for r in run if r["stage"] == stage) for run in runs]
    n = min(len(each[what]) for each in found)
    return torch.tensor([each[what][:n] for each in found])


# ------------------------------------------------------------------------ the record


def test_the_record_says_what_made_it():
    assert RECORD["made by"] == "python -m tools.record_recipes tulu3"
    assert RECORD["scale"] == 0.01
    assert RECORD["date"] >= "2026-11-22"


def test_the_record_holds_the_recipe_on_five_seeds_and_every_ablation_on_three():
    wanted = {recipes.ITSELF, *tulu3.ABLATIONS}
    assert set(RECORD["runs"]) == wanted
    for name, runs in RECORD["runs"].items():
        seeds = "01234" if name == recipes.ITSELF else "012"
        assert "".join(sorted(runs)) == seeds, name
    for run in RECORD["runs"][recipes.ITSELF].values():
        assert [r["stage"] for r in run] == ["base", "sft", "dpo", "rlvr"]
        assert [r["amount"] for r in run] == [0, 9_393, 2_714, 299]
        assert run[-1]["answers"] == 80 * 16 * 16 == 20_480


def test_fine_tuning_gives_nearly_everything():
    before, now = (after(stage, *SKILLS) for stage in ("base", "sft"))
    assert before.max() < 0.1 and now.min() > 0.6
    assert (after("sft", "talk") - after("base", "talk")).min() > 1.9


def test_dpo_raises_talk_and_keeps_the_skills_on_every_seed():
    assert (after("dpo", "talk") - after("sft", "talk")).min() > 0.3
    assert (after("dpo", *SKILLS) - after("sft", *SKILLS)).abs().max() < 0.02


def test_rlvr_raises_both_verifiable_tasks_on_every_seed_and_costs_little_talk():
    for skill, least in (("reverse", 0.1), ("words", 0.02)):
        assert (after("rlvr", skill) - after("dpo", skill)).min() > least
    lost = after("dpo", "talk") - after("rlvr", "talk")
    assert lost.max() < 0.2 and lost.mean() < 0.12
    assert (after("rlvr", "talk") - after("sft", "talk")).min() > 0.3
    assert (after("dpo", *OTHERS) - after("rlvr", *OTHERS)).mean() < 0.02


def test_rlvr_spends_more_than_the_verifier_asks_for():
    right, spent = history("rlvr", "reward"), history("rlvr", "kl")
    first, last = right[:, :10].mean(), right[:, -10:].mean()
    coins = last * (last / first).log() + (1 - last) * ((1 - last) / (1 - first)).log()
    assert 0.01 < coins < 0.04 < 0.1 < spent[:, -10:].mean() < 0.2


def test_one_pair_in_six_is_the_wrong_way_round_and_a_hundredth_and_a_half_is_near():
    erred, kept = after("dpo", "erred"), after("sft", "kept")
    assert abs(erred.mean() - 1 / 6) < 0.015
    assert 0.98 < kept.min() and kept.max() < 0.99


# ------------------------------------------------------------------- how much is there


def test_the_9393_demonstrations_are_4220_different_ones_and_know_is_35():
    shown = villagers.demonstrations(count=1_342, seed=0)
    mix = random.Random(0).sample(shown, 9_393)
    assert len(set(mix)) == 4_220
    asked = {
        skill: {task.request for task, _ in mix if task.skill == skill}
        for skill in ("know", "repeat", "words")
    }
    assert [len(each) for each in asked.values()] == [35, 58, 66]


def test_the_exam_asks_thirteen_questions_of_know_and_few_of_three_other_skills():
    exam = villagers.exam(count=ASKED)
    different = {
        skill: len({task.request for task in exam if task.skill == skill})
        for skill in (*SKILLS, "talk")
    }
    counts = {"know": 13, "sum": 88, "reverse": 89, "repeat": 14, "list": 17}
    assert different == {**counts, "words": 14, "talk": 89}


def test_the_prompts_of_rlvr_are_122_words_and_58_descriptions():
    asked = {(task.skill, task.request) for task in tulu3.verifiable(299, 0)}
    assert sorted(skill for skill, _ in asked).count("reverse") == 122
    assert len(asked) == 122 + 58


def test_six_answers_in_ten_were_seen_before_the_first_epoch_ends():
    mix = random.Random(0).sample(villagers.demonstrations(count=1_342, seed=0), 9_393)
    seen = set(mix[:-1600])
    assert 0.55 < sum(one in seen for one in mix[-1600:]) / 1600 < 0.65


# ---------------------------------------------------------------- what a mean changes


def test_with_means_a_token_pulls_by_beta_over_the_length_of_its_answer():
    for m, n in ((4, 12), (7, 3)):
        tokens = [torch.zeros(k).double().requires_grad_() for k in (m, n)]
        now = [x.mean().reshape(1) for x in tokens]
        loss, _ = dpo(*now, *(x.detach() for x in now), beta=5.0)
        won, lost = torch.autograd.grad(loss, tokens)
        assert_close(won, torch.full((m,), -2.5 / m).double())
        assert_close(lost, torch.full((n,), 2.5 / n).double())


def test_raising_all_tokens_is_a_margin_for_sums_and_none_for_means():
    m, n, d = 12, 8, 0.3
    zero = torch.zeros(1).double()
    loss = partial(dpo, ref_chosen_logps=zero, ref_rejected_logps=zero, beta=0.5)
    _, sums = loss(zero + m * d, zero + n * d)
    _, means = loss(zero + d, zero + d)
    assert_close(sums["margin"], 0.5 * d * (m - n), rtol=0, atol=1e-6)
    assert abs(means["margin"]) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_of_means_rewards_each_token(seed, seeded):
    """With soft labels, the loss is least where beta / |y| · log-ratio is r - c."""
    draw = seeded(seed)
    ref = torch.randn(5, dtype=torch.float64, generator=draw).log_softmax(0)
    reward = torch.randn(5, dtype=torch.float64, generator=draw)
    tokens = torch.randint(2, 9, (5,), generator=draw).double()
    low, high = reward.min(), reward.max()
    for _ in range(80):
        c = (low + high) / 2
        policy = ref + tokens * (reward - c) / 5.0
        low, high = (c, high) if policy.exp().sum() > 1 else (low, c)
    logits = policy.clone().requires_grad_()
    h = 5.0 / tokens * (logits.log_softmax(0) - ref)
    likes = torch.sigmoid(reward[:, None] - reward)
    gap = h[:, None] - h
    loss = -(likes * torch.nn.functional.logsigmoid(gap)).sum()
    assert abs(policy.exp().sum() - 1) < 1e-9
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-9


# ------------------------------------------------------------- the price of a verifier


@pytest.mark.parametrize("ratio", [1.0, 10.0, 30.0])
def test_a_verifier_multiplies_the_odds_and_costs_at_most_minus_log_j(ratio, seeded):
    ref = torch.randn(9, dtype=torch.float64, generator=seeded(3)).log_softmax(0)
    right = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 1, 0]).double()
    policy = kl.optimal_policy(ref, ratio * right, beta=1.0)
    before, now = ref.exp() @ right, policy.exp() @ right
    odds = now / (1 - now) / (before / (1 - before))
    assert_close(odds.log(), torch.tensor(ratio).double(), rtol=1e-3, atol=1e-6)
    assert kl.exact_kl(policy, ref) <= -before.log() + 1e-12
    within = policy[right > 0] - ref[right > 0]
    assert within.max() - within.min() < 1e-9


# -------------------------------------------------------------------- the exam kept out


def test_eight_grams_throw_out_long_sums_and_nothing_else_and_four_grams_genres():
    exam = villagers.exam(count=ASKED)
    shown = [task for task, _ in villagers.demonstrations(count=100, seed=0)]
    copies, near = (decontaminator(exam, n=n) for n in (8, 4))
    out = [task for task in shown if copies(task)]
    assert {(task.skill, task.level > 2) for task in out} == {("sum", True)}
    assert 5 <= len(out) <= 15
    described = [t for t in shown if t.skill == "words"]
    assert all(map(near, described))
    assert sum(map(near, shown)) > len(shown) / 2


def test_the_page_reads_this_record():
    page = notebooks.read(notebooks.ROOT / "notebooks/12_tulu3.ipynb")
    assert any(recipes.TULU3.path.name in cell.source for cell in page.cells)
