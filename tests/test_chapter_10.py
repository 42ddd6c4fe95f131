"""What chapter 10 claims: selection is a policy gradient; who is selected is all of it."""

import pytest
import torch
from torch.testing import assert_close

from labs import rejection_sampling
from lib import kl, rejection, rewards
from lib.losses.policy_gradient import reinforce
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.sft import sft_loss
from lib.worlds import exact
from lib.worlds.village import taste
from lib.worlds.village.tasks import tasks
from tools import notebooks

RECORD = rejection_sampling.RECORD.read()
TINY = Config(vocabulary=307, context=128, layers=1, width=16, heads=2, hidden=16)


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def small_world(draw):
    """15 answers of up to three tokens and a random policy of them."""
    every = exact.every_completion([0], tokens=range(3), end=2, max_tokens=3)
    policy = exact.PrefixTable(3, 3)
    torch.nn.init.normal_(policy.logits, generator=draw)
    return policy, exact.completion_logps(policy, every)


def imitating(law, logps, policy):
    return exact.gradient((law.detach() * logps).sum(), policy)


# ------------------------------------------------------------------ selection as a law


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_what_counting_all_n_tuples_says(n, seeded):
    draw = seeded(n)
    ref = torch.randn(4, dtype=torch.float64, generator=draw).log_softmax(0)
    worth = torch.tensor([0.0, 2.0, 1.0, 2.0]).double()  # a tie at the top
    shares = torch.zeros(4, dtype=torch.float64)
    for drawn in torch.cartesian_prod(*[torch.arange(4)] * n).reshape(-1, n):
        best = drawn[worth[drawn] == worth[drawn].max()]
        each = (ref[drawn].sum().exp() / len(best)).expand(len(best))
        shares.index_add_(0, best, each)
    law = kl.best_of_n_policy(ref, worth, n).exp()
    assert_close(law, shares, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (4, 8), (16, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_perfect_rounds_compound(n, m, seed, seeded):
    draw = seeded(seed)
    ref = torch.randn(9, dtype=torch.float64, generator=draw).log_softmax(0)
    worth = torch.randint(4, (9,), generator=draw).double()
    twice = kl.best_of_n_policy(kl.best_of_n_policy(ref, worth, n), worth, m)
    once = kl.best_of_n_policy(ref, worth, n * m)
    assert_close(twice.exp(), once.exp(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_imitating_right_answers_is_the_policy_gradient_and_one_each_is_max_rl(
    seed, seeded
):
    draw = seeded(seed)
    policy, logps = small_world(draw)
    right = (torch.rand(len(logps), generator=draw) < 0.3).double()
    right[0] = 1
    J = exact.expected(right, logps)
    slope = exact.gradient(J, policy)
    every = imitating(right * logps.exp() / J, logps, policy)
    assert_close(every, slope / J.detach(), rtol=0, atol=1e-12)
    for n in (1, 2, 8, 64):
        law = kl.best_of_n_policy(logps.detach(), right, n).exp() * right
        passed = sum((1 - (1 - J) ** k) / k for k in range(1, n + 1))  # pass@k / k
        want = exact.gradient(passed, policy)
        assert_close(imitating(law, logps, policy), want, rtol=0, atol=1e-12)
        loud = (1 - (1 - J) ** n) / J
        assert_close(want, slope * loud.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_imitating_the_best_of_two_climbs_the_win_rate_against_oneself(seed, seeded):
    draw = seeded(seed)
    policy, logps = small_world(draw)
    worth = torch.randint(5, (len(logps),), generator=draw).double()  # with ties
    beats = (worth[:, None] > worth).double() + 0.5 * (worth[:, None] == worth)
    wins = (beats * logps.exp().detach()).sum(1)
    law = kl.best_of_n_policy(logps.detach(), worth, 2).exp()
    want = exact.gradient(exact.expected(2 * wins, logps), policy)
    assert_close(imitating(law, logps, policy), want, rtol=0, atol=1e-12)


def test_on_samples_the_gradients_of_reinforce_and_of_imitation_agree():
    model, asked = tiny(), tasks("know", count=6, seed=0)
    config = rejection.RejectionConfig(group=4, max_tokens=5)

    def odd(asked, rollout):
        return (rollout.actions.masked_fill(~rollout.mask, 0).sum(1) % 2).double()

    rollout, scores = rejection.sample_and_score(
        model, odd, asked, seed=0, config=config
    )
    shown = rejection.selected(rollout, rejection.every_passing(scores), group=4)
    logps = token_logps(model(rollout.states), rollout.actions)
    paid = reinforce(logps, scores.flatten(), rollout.mask)[0] * len(rollout)
    imitated = sft_loss(model, shown)[0] * shown.mask.sum()
    got, want = (exact.gradient(loss, model) for loss in (paid, imitated))
    assert 0 < len(shown) < len(rollout)
    assert_close(got, want, rtol=0, atol=1e-12)


def test_scores_read_in_the_wrong_order_select_answers_that_were_not_meant():
    draw = torch.Generator().manual_seed(0)
    scores = (torch.rand(200, 16, generator=draw) < 0.2).double()  # (P, G)
    pairs = rejection.every_passing(scores.flatten().reshape(16, 200).T)
    assert pairs.shape == rejection.every_passing(scores).shape  # nothing looks wrong
    kept = scores[pairs[:, 0], pairs[:, 1]].mean()
    assert abs(kept - scores.mean()) < 0.05  # as many right ones as at random


def test_on_a_verifiers_ties_the_overall_selection_takes_the_first_prompts():
    scores = torch.tensor([[1.0, 1, 1], [0, 1, 0], [0, 1, 1]])
    kept = rejection_sampling.as_many_overall(scores)
    assert kept.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert rejection_sampling.best_right(scores).tolist() == [[0, 0], [1, 1], [2, 1]]
    assert len(rejection.top_k_overall(scores * 0, 3)) == 3
    assert len(rejection_sampling.as_many_overall(scores * 0)) == 0


# ------------------------------------------------------------------------ the record


def column(sweep, what, **only):
    """(seeds, …); what was measured on the way has an axis of looks behind that."""
    rows = [r for r in RECORD[sweep] if all(r[k] == v for k, v in only.items())]
    found = [r[what] if what in r else [x[what] for x in r["looks"]] for r in rows]
    return torch.tensor(found, dtype=torch.float64)


def test_the_record_says_what_made_it():
    made = RECORD["made"]
    assert made["command"] == "python -m tools.record_rejection"
    assert len(made["code"]) == 12
    assert made["date"] >= "2026-11-22"
    assert made["answers"] == 6 * 160 * 16
    assert set(RECORD["before"]) == {"others", "talk"}


def test_the_record_holds_every_setting_on_every_seed():
    assert len(RECORD["verified"]) == 5 * len(rejection_sampling.SEEDS)
    sizes = 2 * len(rejection_sampling.SIZES) + len(rejection_sampling.NUMBERS)
    assert len(RECORD["distilled"]) == 3 * sizes
    assert len(RECORD["iterated"]) == 3 * 3
    assert len(RECORD["judged"]) == 3 * (2 + len(rejection_sampling.TAUGHT))
    assert len(RECORD["mixed"]) == 3
    assert {len(r["looks"]) for r in RECORD["verified"] + RECORD["mixed"]} == {7}
    assert {len(r["looks"]) for r in RECORD["iterated"]} == {6}


def test_on_as_many_answers_every_right_one_imitated_beats_grpo_on_each_seed():
    end = {
        arm: column("verified", "right", arm=arm)[:, -1]
        for arm in ("every", "afresh", "top", "overall", "grpo")
    }
    assert end["every"].min() > 0.97
    assert 0.8 < end["afresh"].min() and end["afresh"].max() < 0.97
    assert (end["top"] > end["overall"]).all() and (end["top"] > end["grpo"]).all()


def test_the_overall_selection_never_learns_the_hard_words():
    hard = {
        arm: column("verified", "levels", arm=arm)[:, -1, 2]
        for arm in ("top", "overall")
    }
    assert hard["top"].min() > 0.3 > 0.1 > hard["overall"].max()
    assert (column("verified", "covered", arm="overall")[:, -1] < 0.25).all()


def test_rounds_on_one_skill_destroy_the_others_and_a_mixture_keeps_a_part():
    assert column("verified", "others", arm="every").max() < 0.05
    assert column("mixed", "others")[:, -1].min() > 0.35
    assert column("mixed", "talk")[:, -1].min() > RECORD["before"]["talk"] + 0.8
    assert column("mixed", "right")[:, -1].min() > 0.95


def test_the_better_judge_gains_more_and_a_poor_one_nothing_from_a_large_n():
    found = [column("judged", "gold", kind="gold")]
    for count, _ in reversed(rejection_sampling.TAUGHT):
        found.append(column("judged", "gold", kind="Informed", comparisons=count))
    gains = [(curve - curve[:, :1]).mean(0) for curve in found]
    assert all((a > b)[1:].all() for a, b in zip(gains, gains[1:]))
    assert gains[3][-1] < gains[3][4]  # 256 comparisons: best of 64 and of 16
    plain = column("judged", "gold", kind="RewardModel")
    assert (plain[:, -1] < found[1][:, -1] - 0.4).all()


def test_imitation_keeps_a_part_of_the_gain_and_more_requests_keep_more():
    for judge in ("gold", "informed"):
        data, pupils = (
            column("distilled", what, by="n", judge_name=judge).reshape(3, -1)
            for what in ("shown_gold", "gold")
        )
        assert (pupils < data)[:, 1:].all() and (pupils.diff() > 0).all()
        share = (pupils - pupils[:, :1]).mean(0) / (data - data[:, :1]).mean(0)
        assert 0.5 < share[1:].min() and share[1:].max() < 0.8
    more = column("distilled", "gold", by="requests").reshape(3, -1)
    assert (more.diff() > 0.1).all()


def test_a_model_that_imitated_the_best_of_32_is_worth_the_best_of_4():
    data, pupils = (
        column("distilled", what, by="n", judge_name="gold").reshape(3, -1).mean(0)
        for what in ("shown_gold", "gold")
    )
    assert abs(pupils[-1] - data[2]) < 0.05 < data[5] - pupils[-1]


def test_three_ideal_rounds_gain_less_each_where_the_world_has_room_for_them():
    fine = torch.linspace(-6, 6, 241, dtype=torch.float64)
    curve = torch.log_softmax(-fine.square() / 2, 0)
    gain = [
        (kl.best_of_n_policy(curve, fine, 16**t).exp() * fine).sum().item()
        for t in (1, 2, 3)
    ]
    assert gain == [pytest.approx(x, abs=0.005) for x in (1.766, 2.827, 3.626)]


def test_a_mixture_keeps_six_tenths_of_the_other_skills():
    kept = column("mixed", "others")[:, -1].mean() / RECORD["before"]["others"]
    assert round(kept.item(), 1) == 0.6


def test_the_page_counts_the_different_words_and_requests_of_its_exams():
    def different(asked):
        return len({task.request for task in asked})

    assert different(tasks("reverse", count=100, seed=77, split="test")) == 80
    assert different(taste.requests(count=64, seed=9, split="test")) == 48
    assert different(taste.requests(count=128, seed=9, split="test")) == 85
    for seed in range(3):
        judged = taste.requests(count=64, seed=100 + seed, split="test")
        assert 50 <= different(judged) <= 53
        most = taste.requests(count=768, seed=10_000 + seed)
        for count, about in ((48, 44), (192, 162), (768, 435)):
            assert different(most[:count]) == pytest.approx(about, rel=0.07)


def test_rounds_by_a_blind_judge_please_the_judge_and_not_the_truth():
    told = column("iterated", "judge", judge_name="plain")
    assert (told[:, :4].diff() > 0).all()
    plain, seeing, gold = (
        column("iterated", "gold", judge_name=name)
        for name in ("plain", "informed", "gold")
    )
    assert (plain[:, 5] < plain[:, 1] - 0.4).all()
    assert (seeing[:, 5] > 2.5).all() and (gold[:, 5] > seeing[:, 5] + 0.2).all()
    different = column("iterated", "different", judge_name="informed")
    assert (different[:, 5] < 0.7).all()


def test_the_sweeps_can_be_made_again(monkeypatch):
    for name, value in {"ROUNDS": 1, "PROMPTS": 3, "GRPO_PROMPTS": 3}.items():
        monkeypatch.setattr(rejection_sampling, name, value)
    monkeypatch.setattr(rewards, "verified", lambda asked, r: (r.lengths % 2).double())
    found = list(rejection_sampling.verified(tiny().float(), 0))
    recorded = [r for r in RECORD["verified"] if r["seed"] == 0]
    assert [f["arm"] for f in found] == [r["arm"] for r in recorded]
    assert [{*f, "seed"} for f in found] == [set(r) for r in recorded]
    assert set(found[0]["looks"][0]) == set(recorded[0]["looks"][0])


def test_a_judge_never_sees_whether_a_control_is_one():
    """The mean score of the controls is the matrix's own."""
    matrix, draw = torch.rand(4, 4), torch.Generator().manual_seed(0)
    kept = [rejection.random_per_prompt(matrix, generator=draw) for _ in range(3000)]
    pairs = torch.cat(kept)
    got = matrix[pairs[:, 0], pairs[:, 1]].mean()
    assert abs(got - matrix.mean()) < 0.02


def test_the_page_reads_this_record():
    page = notebooks.read(notebooks.ROOT / "notebooks/10_rejection_sampling.ipynb")
    assert any(
        rejection_sampling.RECORD.path.name in cell.source for cell in page.cells
    )
