"""What the page on sampler and learner says, held by other means; and its lab."""

import copy

import pytest
import torch
from torch.testing import assert_close

from labs import real_sampler
from labs import sampler_learner as lab
from lib.advantages import group_centred
from lib.logps import action_logps
from lib.losses import off_policy
from lib.models.mlp import Tabular
from lib.models.transformer import Config, Transformer
from lib.ops import sample, token_logps
from lib.rollout import concat
from lib.sampling import complete
from lib.seeds import generator
from lib.worlds import exact

WORDS = lab.words()
MASK = WORDS.mask
FIRST = lab.table(0)


def close(got, want, tol=1e-12):
    assert_close(got, want, rtol=0, atol=tol)


# ------------------------------------------------------------------ the world


def test_six_of_121_words_earn_1_and_what_repeats_or_does_not_end_nothing():
    paid = dict(zip(lab.texts(WORDS), WORDS.returns.tolist()))
    assert len(paid) == 121
    assert sorted(w for w, r in paid.items() if r == 1) == [
        "abc.",
        "acb.",
        "bac.",
        "bca.",
        "cab.",
        "cba.",
    ]
    assert (paid["."], paid["a."], paid["ab."]) == (0, 1 / 3, 2 / 3)
    assert paid["aa."] == paid["aab."] == paid["abca"] == 0


def test_the_slopes_of_a_table_are_those_of_automatic_differentiation():
    policy = lab.table(3)
    logps = token_logps(policy(WORDS.states), WORDS.actions)[MASK]
    each = torch.eye(len(logps), dtype=torch.float64)
    (slopes,) = torch.autograd.grad(logps, policy.logits, each, is_grads_batched=True)
    scores = lab.token_scores(policy, WORDS)
    close(scores[MASK], slopes.flatten(1))
    assert not scores[~MASK].any()


def test_mean_and_variance_are_those_of_many_draws():
    scores = lab.token_scores(FIRST, WORDS)
    chance = lab.logps_of(FIRST, WORDS).sum(1).exp()
    credit = WORDS.returns.unsqueeze(1) * MASK
    mean, variance = lab.moments(scores, chance, credit)
    drawn = sample(chance.log().expand(200_000, -1), generator=generator("moments"))
    each = (scores * credit.unsqueeze(-1)).sum(1)
    counts = drawn.bincount(minlength=121).double() / len(drawn)
    close(counts @ each, mean, tol=3e-3)
    spread = counts @ (each - mean).square().sum(1)
    assert spread.item() == pytest.approx(variance.item(), rel=0.02)


def test_exact_ascent_climbs_and_leaves_the_old_policy_alone():
    before = FIRST.logits.clone()
    reached = []
    for k in (0, 1, 4, 16):
        policy = lab.climbed(FIRST, WORDS, k)
        reached.append(
            (lab.logps_of(policy, WORDS).sum(1).exp() @ WORDS.returns).item()
        )
    assert reached == sorted(reached) and reached[-1] > 2 * reached[0]
    assert torch.equal(FIRST.logits, before)


# ------------------------------------------------------ bias, by other means


def bias(policy, sampler, weights):
    """|E_μ[ĝ] - ∇J| / |∇J|, with ∇J by automatic differentiation; -inf is never drawn."""
    logps = exact.completion_logps(policy, WORDS)
    truth = exact.gradient(exact.expected(WORDS.returns, logps), policy)
    chance = sampler.sum(1).exp()
    credit = off_policy.weighted(WORDS.returns - chance @ WORDS.returns, weights, MASK)
    mean, _ = lab.moments(lab.token_scores(policy, WORDS), chance, credit)
    return ((mean - truth).norm() / truth.norm()).item()


SAMPLERS = {
    "hot": lambda p: lab.logps_of(p, WORDS, temperature=1.5),
    "cold": lambda p: lab.logps_of(p, WORDS, temperature=0.6),
    "rounded": lambda p: lab.logps_of(lab.Rounded(p), WORDS),
    "another": lambda p: lab.logps_of(lab.table(9), WORDS),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("seed", range(3))
def test_only_the_weight_of_the_whole_word_is_unbiased(name, seed):
    policy = lab.table(seed)
    sampler, mine = SAMPLERS[name](policy), lab.logps_of(policy, WORDS)
    whole = off_policy.sequence_weights(mine, sampler, MASK)
    tokens = off_policy.importance_weights(mine, sampler, MASK)
    assert bias(policy, sampler, whole) < 1e-11
    assert bias(policy, sampler, tokens) > 1e-4
    assert bias(policy, sampler, torch.ones_like(tokens)) > 1e-4


def test_no_correction_repairs_a_cut_off():
    sampler, mine = lab.logps_of(FIRST, WORDS, top_p=0.9), lab.logps_of(FIRST, WORDS)
    drawn = (sampler > -torch.inf).all(1)
    logs = sampler.where(drawn.unsqueeze(1), mine)
    tokens = off_policy.importance_weights(mine, logs, MASK)
    whole = off_policy.sequence_weights(mine, logs, MASK)
    each = [torch.ones_like(tokens), tokens, whole, off_policy.truncated(whole)]
    assert all(bias(FIRST, sampler, weights) > 0.05 for weights in each)
    assert tokens[MASK & drawn.unsqueeze(1)].max() <= 1 + 1e-12  # the kept mass


def test_the_best_cap_grows_with_the_batch():
    policy = lab.climbed(FIRST, WORDS, 8)
    mine, sampler = lab.logps_of(policy, WORDS), lab.logps_of(FIRST, WORDS)
    scores, chance = lab.token_scores(policy, WORDS), sampler.sum(1).exp()
    whole = off_policy.sequence_weights(mine, sampler, MASK)
    logps = exact.completion_logps(policy, WORDS)
    truth = exact.gradient(exact.expected(WORDS.returns, logps), policy)
    centred = WORDS.returns - chance @ WORDS.returns

    def error(cap, words):
        weights = off_policy.truncated(whole, cap=cap)
        credit = off_policy.weighted(centred, weights, MASK)
        mean, variance = lab.moments(scores, chance, credit)
        return ((mean - truth).square().sum() + variance / words).item()

    caps = [0.25, 0.5, 1.0, 2.0, 4.0]
    best = [min(caps, key=lambda cap: error(cap, n)) for n in (4, 64, 1024, 65536)]
    assert best == sorted(best) and best[0] < best[-1]


# ---------------------------------------------------------------- stale runs


def test_runs_side_by_side_are_those_that_run_alone():
    how = {"lag": 3, "weigh": lab.token_tis, "updates": 6}
    together = lab.stale_runs(WORDS, seeds=range(4), **how)
    assert together.shape == (4, 7)
    close(together[2:3], lab.stale_runs(WORDS, seeds=range(2, 3), **how))
    close(
        together[:, 0],
        torch.stack(
            [
                lab.logps_of(lab.table(s), WORDS).sum(1).exp() @ WORDS.returns
                for s in range(4)
            ]
        ),
    )


@pytest.mark.parametrize("name", lab.CORRECTIONS)
def test_without_a_lag_every_correction_is_none(name):
    how = {"seeds": range(2), "lag": 0, "updates": 8}
    plain = lab.stale_runs(WORDS, weigh=lab.ones, **how)
    close(lab.stale_runs(WORDS, weigh=lab.CORRECTIONS[name], **how), plain)


def test_while_the_first_policy_writes_all_a_longer_lag_changes_nothing():
    how = {"seeds": range(2), "weigh": lab.sequence_tis, "updates": 5}
    close(
        lab.stale_runs(WORDS, lag=5, **how), lab.stale_runs(WORDS, lag=50, **how), tol=0
    )


def test_a_lag_below_0_is_refused():
    with pytest.raises(ValueError, match="^lag: got "):
        lab.stale_runs(WORDS, seeds=range(1), lag=-1, weigh=lab.ones)


# ----------------------------------------------------- pairs too large to list


def drawn_words(policy, name, count=2048):
    logps = lab.logps_of(policy, WORDS).sum(1)
    pick = sample(logps.expand(count, -1), generator=generator("pairs", name))
    return WORDS.rows(pick), group_centred(WORDS.returns[pick].unsqueeze(0))[0]


def test_a_policy_compared_with_itself_has_no_mismatch_and_the_same_gradient():
    mine, credit = drawn_words(FIRST, "mine")
    found = lab.compared(FIRST, FIRST, mine, credit, mine, credit, rows=512)
    same = {"log_ratio": 0, "kl": 0, "outside": 0, "ess_token": 1, "ess_sequence": 1}
    same |= {f"cos {name}": 1 for name in lab.CORRECTIONS}
    assert {name: found[name] for name in same} == pytest.approx(same, abs=1e-9)
    assert 0.5 < found["cos halves"] < 1


def test_what_is_measured_of_a_stale_pair_is_near_the_sums():
    policy = lab.climbed(FIRST, WORDS, 8)
    pair = (*drawn_words(FIRST, "written"), *drawn_words(policy, "own"))
    found = lab.compared(policy, FIRST, *pair, rows=1024)
    mine, sampler = lab.logps_of(policy, WORDS), lab.logps_of(FIRST, WORDS)
    chance = sampler.sum(1).exp()
    arrive = chance.unsqueeze(1) * MASK
    gap = ((mine - sampler).abs() * arrive).sum() / arrive.sum()
    whole = off_policy.sequence_weights(mine, sampler, MASK)
    ess = (chance @ whole).square() / (chance @ whole.square())
    assert found["log_ratio"] == pytest.approx(gap.item(), abs=0.03)
    assert found["ess_sequence"] == pytest.approx(ess.item(), abs=0.05)
    assert found["cos sequence TIS"] > found["cos none"] + 0.1
    assert "| cosine with on-policy: uncorrected |" in lab.markdown({"a": found})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_transformer_in_any_precision_can_be_compared(dtype):
    config = Config(vocabulary=7, context=12, width=16, layers=2, heads=2)
    policy = Transformer(config, generator=generator("compared"))
    sampler = copy.deepcopy(policy).to(torch.bfloat16)
    policy = policy.to(dtype)
    prompts = [[1, 2], [3, 4, 5]]
    how = {"end": 0, "max_tokens": 5, "group": 4}
    each = [
        complete(p, prompts, generator=generator("answers"), **how)
        for p in (sampler, policy)
    ]
    credit = torch.tensor([1.0, -1, 1, -1, 2, 0, -2, 0])
    found = lab.compared(
        policy, sampler, each[0], credit, each[1], credit, group=4, rows=4
    )
    assert all(isinstance(x, float) and x == x for x in found.values())
    assert found["log_ratio"] < 0.1 and found["ess_sequence"] > 0.9


def test_a_gradient_read_in_parts_is_the_gradient_of_all():
    mine, credit = drawn_words(FIRST, "parts", count=96)
    spread = off_policy.weighted(credit, torch.ones_like(credit), mine.mask)
    whole = lab.gradient_of(FIRST, mine, spread, rows=96)
    close(lab.gradient_of(FIRST, mine, spread, rows=40), whole)
    logps = lab.logps_in_parts(FIRST, mine, rows=7)
    close(logps, action_logps(FIRST, mine).detach())
    with pytest.raises(
        ValueError, match="^rows: got 5, wanted a multiple of group = 4"
    ):
        lab.gradient_of(FIRST, concat(mine, mine), spread, group=4, rows=5)


def test_groups_without_credit_are_not_read_and_nothing_at_all_is_a_slope_of_0():
    mine, _ = drawn_words(FIRST, "no credit", count=8)
    none = torch.zeros(mine.mask.shape, dtype=torch.float64)
    assert not lab.gradient_of(FIRST, mine, none, group=4, rows=4).any()
    some = none.clone()
    some[2] = 1  # one row of the first group alone
    want = lab.gradient_of(FIRST, mine, some, group=1, rows=8)
    close(lab.gradient_of(FIRST, mine, some, group=4, rows=4), want)
    assert want.any()


def test_a_part_of_the_weights_that_the_answers_do_not_touch_gets_no_slope():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = copy.deepcopy(FIRST), Tabular(1, 2)

        def forward(self, states):
            return self.used(states)

    mine, credit = drawn_words(FIRST, "idle", count=32)
    spread = off_policy.weighted(credit, torch.ones_like(credit), mine.mask)
    found = lab.gradient_of(Two(), mine, spread)
    close(found[:-2], lab.gradient_of(FIRST, mine, spread))
    assert not found[-2:].any()


# ------------------------------------------------------------- at 135 million weights


def cosines(pair):
    """(uncorrected, token TIS, sequence TIS) of each seed of the record."""
    names = [f"cos {name}" for name in lab.CORRECTIONS]
    found = real_sampler.RECORD.read()["runs"][pair].values()
    return [tuple(run[name] for name in names) for run in found]


def test_rounding_the_sampler_of_a_real_model_changes_nothing_that_a_weight_repairs():
    found = cosines("bfloat16")
    assert len(found) == 3
    for plain, *corrected in found:
        assert plain > 0.9 and all(abs(plain - x) < 0.02 for x in corrected)


def test_four_updates_of_a_real_model_turn_the_gradient_and_both_caps_bring_it_back():
    found = cosines("4 updates old")
    assert len(found) == 3
    for plain, *corrected in found:
        assert plain < 0.6 < min(corrected) and min(corrected) > plain + 0.15


def test_one_update_of_a_real_model_decides_nothing_between_weights_and_none():
    for place in (1, 2):
        better = [run[place] > run[0] for run in cosines("1 update old")]
        assert sum(better) == 2
