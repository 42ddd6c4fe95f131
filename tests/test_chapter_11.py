"""What chapter 11 claims: three stages in order, and what each of them is there for."""

import math
from math import comb

import pytest
import torch
from torch.testing import assert_close

from labs import recipes
from lib import kl
from lib.losses.reward import bradley_terry, k_wise
from lib.recipes import instructgpt
from lib.recipes.prompts import talk
from lib.recipes.stages import BASE
from lib.worlds.village.tasks import SKILLS
from tools import notebooks

PLACE = recipes.INSTRUCTGPT.path
PAGE = notebooks.ROOT / "notebooks" / f"{PLACE.stem}.ipynb"
RECORD = recipes.INSTRUCTGPT.read()
RUNS, ITSELF = RECORD["runs"], recipes.ITSELF
GOLD = "gold for the reward model"


def results(stage, variant=ITSELF):
    """A stage's results, one a seed; what a variant did not run anew is the recipe's."""
    every = [[*RUNS[variant][seed], *RUNS[ITSELF][seed]] for seed in RUNS[variant]]
    return [next(r for r in each if r["stage"] == stage) for each in every]


def score(what, stage="ppo", variant=ITSELF):
    found = [r["scores"][what] for r in results(stage, variant)]
    return torch.tensor(found, dtype=torch.float64)


def skill(stage="ppo", variant=ITSELF):
    return torch.stack([score(name, stage, variant) for name in SKILLS]).mean(0)


def curve(what, stage="ppo", variant=ITSELF):
    found = [r["history"][what] for r in results(stage, variant)]
    return torch.tensor(found, dtype=torch.float64)


# ------------------------------------------------------------------------- the record


def test_the_record_says_what_made_it():
    assert RECORD["made by"] == "python -m tools.record_recipes instructgpt"
    assert RECORD["scale"] == 0.01 and RECORD["date"] >= "2026-11-22"
    assert len(RECORD["code"]) == 12


def test_the_record_holds_every_ablation_on_five_seeds():
    assert list(RUNS) == [ITSELF, *instructgpt.ABLATIONS]
    assert all(list(runs) == list("01234") for runs in RUNS.values())
    for runs in RUNS[ITSELF].values():
        stages = [stage.name for stage in instructgpt.RECIPE.stages]
        assert [r["stage"] for r in runs] == [BASE, *stages]


def test_the_record_s_sizes_are_a_hundredth_of_table_6():
    sizes = {r["stage"]: r["amount"] for r in RUNS[ITSELF]["0"]}
    assert sizes == {BASE: 0, "sft": 127, "reward": 332, "ppo": 311}
    published = [stage.published for stage in instructgpt.RECIPE.stages]
    assert published == [11_295 + 1_430, 6_623 + 26_584, 31_144]


def test_of_the_311_prompts_of_ppo_253_are_different():
    assert [len({t.request for t in talk(n, 0)}) for n in (332, 311)] == [267, 253]


def test_all_five_seeds_start_from_one_base_model():
    assert len({r["scores"]["talk"] for r in results(BASE)}) == 1


def test_each_prompt_comes_up_about_eight_times_as_in_the_paper():
    for found in results("ppo"):
        assert round(found["answers"] / found["amount"]) == round(256_000 / 31_144) == 8


# ------------------------------------------------------------------------- derivations


def test_rankings_of_four_to_nine_hold_some_640_000_pairs():
    pairs = [comb(size, 2) for size in range(4, 10)]
    assert round(33_207 * sum(pairs) / len(pairs)) == 642_002
    assert (33_207 * pairs[0], 33_207 * pairs[-1]) == (199_242, 1_195_452)


@pytest.mark.parametrize("size", range(2, 10))
def test_the_first_step_of_the_k_wise_loss_is_linear_in_the_rank(size, grad_of):
    scores = torch.zeros(1, size, dtype=torch.float64)
    (slope,) = grad_of(lambda x: k_wise(x)[0], scores)
    place = torch.arange(1, size + 1, dtype=torch.float64)
    assert_close(slope[0], (2 * place - size - 1) / (size * (size - 1)))


@pytest.mark.parametrize("size", [2, 4, 9])
def test_eq_1_is_bradley_terry_over_all_pairs_of_a_prompt(size, seeded):
    scores = torch.randn(1, size, dtype=torch.float64, generator=seeded(size))
    better, worse = torch.triu_indices(size, size, 1)
    pairs = bradley_terry(scores[0, better], scores[0, worse])
    assert k_wise(scores)[0] == pairs[0] and len(better) == comb(size, 2)


def test_the_penalty_token_by_token_adds_up_to_that_of_the_answer(seeded):
    now, ref = torch.randn(2, 5, 7, dtype=torch.float64, generator=seeded(0))
    score = torch.randn(5, dtype=torch.float64, generator=seeded(1))
    mask = torch.arange(7) < torch.tensor([[1], [3], [7], [5], [2]])
    paid = kl.penalised_rewards(score, now, ref, mask, beta=0.02)
    whole = score - 0.02 * ((now - ref) * mask).sum(1)
    assert_close(paid.sum(1), whole)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("gamma", [0.0, 0.2, 1.0])
def test_a_leash_halves_the_gain_with_the_damage_and_old_text_does_not(beta, gamma):
    s = u = v = 0.0
    for _ in range(6000):  # exact slopes of the page's objective, r = 1
        p, q = (1 / (1 + math.exp(-x)) for x in (s + u, s + v))
        on_requests = p * (1 - p) * (1 - beta * (s + u))
        on_text = gamma * (0.5 - q)
        s += 0.5 * (on_requests + on_text)
        u, v = u + 0.5 * on_requests, v + 0.5 * on_text
    assert abs(s + u - 1 / beta) < 1e-3
    assert abs(s + v - (0 if gamma else 0.5 / beta)) < 1e-3


# -------------------------------------------------------------------------- the claims


def test_talk_rises_from_base_to_sft_to_ppo_on_every_seed():
    base, sft, ppo = (score("talk", stage) for stage in (BASE, "sft", "ppo"))
    assert (base < sft).all() and (sft < ppo).all()
    assert (ppo - sft).mean() > 0.4


def test_the_proxy_rises_the_reward_model_beats_a_coin_and_answers_do_not_grow():
    reward, length = curve("reward"), curve("length")
    assert (reward[:, -3:].mean(1) > reward[:, :3].mean(1) + 0.2).all()
    assert (score("accuracy", "reward") > 0.55).all()
    assert length[:, -3:].mean() < length[:, 0].mean() + 2


def test_old_text_keeps_the_skills_at_no_price_in_talk():
    plain, mixed = skill("ppo", "no ptx"), skill("ppo")
    assert (plain < mixed).all()
    assert plain.mean() < 0.6 * skill("sft").mean()
    assert score("know", "ppo", "no ptx").mean() < score("know", BASE).mean()
    assert abs(score("talk", "ppo", "no ptx").mean() - score("talk").mean()) < 0.2
    text = curve("perplexity")
    assert (text[:, -3:].mean(1) < text[:, 0] + 0.3).all()


def test_each_ablation_loses_what_the_page_says():
    itself = score("talk")
    assert (score("talk", "ppo", GOLD) > itself).all()
    coins = score("talk", "ppo", "coins for rankings")
    assert (coins < itself).all() and coins.mean() < itself.mean() - 0.4
    assert (skill("ppo", "no SFT") < skill("ppo")).all()
    assert (score("talk", "ppo", "no SFT") > itself).all()
    unheld = score("talk", "ppo", "no KL")
    assert (unheld < itself).all() and unheld.mean() < itself.mean() - 0.2


def test_the_prose_has_the_figures_of_the_record():
    page = " ".join(cell.source for cell in notebooks.read(PAGE).cells)
    assert PLACE.name in page
    stages = [score("talk", stage).mean().item() for stage in (BASE, "sft", "ppo")]
    told = " to ".join(f"{x:.2f}" for x in stages).replace("-", "−")
    assert f"went from {told}" in page
