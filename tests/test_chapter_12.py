"""What chapter 12 claims: what each stage of Tülu 3 gives, and what a verifier misses."""

import math

import pytest
import torch
from torch.testing import assert_close

from labs import tulu3 as lab
from labs import tulu3_runs
from lib import kl
from lib.evaluate import paired
from lib.losses.preference import dpo

RUNS = tulu3_runs.RECORD.read()["runs"]
SEEDS = [str(seed) for seed in range(5)]
STAGES = ("base", "sft", "dpo", "rlvr")


def items(skill, stage="rlvr", run="recipe"):
    """What each exam item is worth after a stage, for five seeds: (5, 200)."""
    return torch.stack([lab.marks(RUNS[run][s][stage], skill) for s in SEEDS])


def over(skill, one, other):
    """A stage of the recipe over another."""
    return paired(items(skill, one), items(skill, other))


def course(name, what):
    """One number along the run with a verifier of form: (5, looks)."""
    each = [RUNS["form"][seed][name][what] for seed in SEEDS]
    return torch.tensor(each, dtype=torch.float64)


# ------------------------------------------------------------------------ the record


def test_every_stage_of_every_seed_has_every_item():
    for run in RUNS["recipe"].values():
        assert [name for name in run if name in STAGES] == [*STAGES]
        for stage in STAGES:
            sizes = {skill: len(run[stage][skill]) for skill in lab.LEVELS}
            assert sizes == {s: 200 * len(n) for s, n in lab.LEVELS.items()}
        assert run["sft"]["shown"] == lab.GAMES + 4 * lab.EACH


def test_the_base_varies_with_the_seed():
    assert len({run["base"]["cups"] for run in RUNS["recipe"].values()}) == 5


# ------------------------------------------------------------------------ the stages


def test_the_mix_brings_games_and_dpo_talk_and_no_skill_is_lost():
    assert over("cups", "sft", "base").low > 0.5
    assert over("talk", "dpo", "sft").low > 0.1
    for skill in ("cups", "constraints", "facts", "strings"):
        gap = over(skill, "dpo", "sft")
        assert gap.low < 0 < gap.high and abs(gap.mean) < 0.02


def test_rlvr_raises_games_and_nothing_else_moves():
    assert over("cups", "rlvr", "dpo").low > 0.05
    for skill in ("constraints", "facts", "strings", "talk"):
        gap = over(skill, "rlvr", "dpo")
        assert gap.low < 0 < gap.high


def test_the_whole_recipe_raises_talk_and_brings_the_habit_of_thinking():
    assert over("talk", "rlvr", "base").low > 0
    share = {s: [RUNS["recipe"][k][s]["thinks"] for k in SEEDS] for s in STAGES}
    assert max(share["base"]) < 0.12 < 0.79 < min(share["sft"])
    assert min(share["rlvr"]) > 0.99
    alone = sorted(RUNS["no SFT"][k]["rlvr"]["thinks"] for k in SEEDS)
    assert alone[3] < 0.3 and alone[4] > 0.7


def test_sft_is_missed_in_games_and_dpo_in_talk():
    less = {
        (run, skill): paired(items(skill, "rlvr", run), items(skill))
        for run in ("no SFT", "no DPO", "no KL", "PPO")
        for skill in lab.LEVELS
    }
    missed = {key for key, gap in less.items() if gap.high < 0}
    assert missed == {("no SFT", "cups"), ("no DPO", "talk")}


def test_own_pairs_cannot_be_told_from_anothers():
    gap = paired(items("talk", "own", "sources"), items("talk", "others'", "sources"))
    assert gap.low < 0 < gap.high


def test_a_leak_is_learnt_as_facts_and_teaches_no_others():
    def gain(kind):
        each = [
            [RUNS["leak"][s][mix][kind] for s in SEEDS] for mix in ("leaked", "clean")
        ]
        return paired(*(torch.tensor(x, dtype=torch.float64) for x in each))

    assert gain("leaked").low > 0.2 and gain("in other words").low > 0.1
    assert gain("fresh").low < 0 < gain("fresh").high


def test_the_verifier_of_form_is_satisfied_while_gold_falls_with_a_penalty_too():
    for name in ("no penalty", "with penalty"):
        assert course(name, "verifier")[:, -1].min() > 0.85
        gold = course(name, "gold")
        assert (gold[:, -1] < gold[:, 0]).all()
        assert paired(gold[:, -1], gold[:, 0]).high < -0.5
    away = [course(name, "kl")[:, -1] for name in ("with penalty", "no penalty")]
    assert (away[0] < away[1]).all()


# --------------------------------------------------------------------------- formulas


def test_with_means_a_token_of_the_short_answer_pulls_harder():
    won, lost = (torch.zeros(n, dtype=torch.float64).requires_grad_() for n in (4, 12))
    now = [tokens.mean().reshape(1) for tokens in (won, lost)]
    loss, _ = dpo(*now, *(x.detach() for x in now), beta=5.0)
    up, down = torch.autograd.grad(loss, (won, lost))
    assert_close(-up[0] / down[0], torch.tensor(3.0, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_odds_of_being_right_are_multiplied_and_nothing_else_changes(ratio, count):
    law = torch.linspace(1, 2, 10, dtype=torch.float64)
    ref, right = (law / law.sum()).log(), (torch.arange(10) < count).double()
    policy = kl.optimal_policy(ref, ratio * right, beta=1.0)
    before, now = (x.exp() @ right for x in (ref, policy))
    odds = math.exp(ratio) * before / (1 - before)
    assert_close(now, odds / (1 + odds), rtol=1e-10, atol=0)
    two = now * (now / before).log() + (1 - now) * ((1 - now) / (1 - before)).log()
    assert_close(kl.exact_kl(policy, ref), two, rtol=1e-8, atol=1e-10)
    assert two < -before.log()


def test_the_optimum_on_means_prefers_the_longer_of_two_good_answers():
    ref = torch.tensor([0.4, 0.4, 0.1, 0.1], dtype=torch.float64).log()
    reward = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    tokens = torch.tensor([4.0, 4.0, 12.0, 12.0], dtype=torch.float64)
    low, high = 0.0, 1.0
    for _ in range(60):
        c = (low + high) / 2
        law = (ref + tokens * (reward - c) / 5).exp()
        low, high = (c, high) if law.sum() > 1 else (low, c)
    sums = kl.optimal_policy(ref, reward, beta=0.5).exp()
    assert law[2] / law[0] > 1.5 * sums[2] / sums[0] > 0
