"""Pairs as a policy sees them: one number an answer, and what is refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from lib import logps as logps_module
from lib import preference_data
from lib.logps import answer_logps
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.preference_data import PreferencePairs
from lib.sft import written
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task

close = partial(assert_close, rtol=0, atol=1e-12)
TINY = Config(len(TOKENIZER), context=32, layers=2, width=16, heads=2, hidden=16)
GOOD = (
    "Ada Ash is kind.",
    "Ben Dove is kind. Ben is a dear friend.",
    "Cleo Hale is wise.",
)
BAD = ("Ada Ash is wise. Ada is a merry friend.", "Ben Dove.", "Cleo Hale is a friend.")
ASKED = [
    Task("talk", 1, request, "")
    for request in (
        "Describe Ada Ash.",
        "Tell me about Ben Dove again.",
        "Who is Cleo Hale?",
    )
]


def model(seed=0):
    draws = torch.Generator().manual_seed(seed)
    made = Transformer(TINY, generator=draws, dtype=torch.float64)
    with torch.no_grad():
        for weight in made.parameters():
            weight *= 4.0 if weight.ndim == 2 else 1.3
    return made


def pairs(good=GOOD, bad=BAD, **finished):
    gold = torch.zeros(len(ASKED), dtype=torch.float64)
    texts = written(ASKED, good, **finished), written(ASKED, bad, **finished)
    return PreferencePairs(ASKED, *texts, gold, gold)


def slow(policy, answers):
    """Each row alone, from its beginning."""
    logps = token_logps(policy(answers.states), answers.actions)
    return logps.masked_fill(~answers.mask, 0).sum(1)


def cut(answers, most):
    """The first `most` tokens of each answer."""
    return replace(answers, mask=answers.mask & (answers.mask.cumsum(1) <= most))


# ------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_s_numbers_are_those_of_its_answers_read_alone(seed):
    policy, both = model(seed), pairs()
    chosen, rejected = preference_data.pair_logps(policy, both)
    close(chosen, slow(policy, both.chosen))
    close(rejected, slow(policy, both.rejected))
    close(answer_logps(policy, both.chosen), chosen)


def test_per_token_is_the_sum_over_the_answer_s_length_its_end_included():
    policy, both = model(), pairs()
    total, mean = (
        preference_data.pair_logps(policy, both, per_token=each)
        for each in (False, True)
    )
    for side, sums, means in zip((both.chosen, both.rejected), total, mean):
        close(means * side.lengths, sums)
    assert both.chosen.lengths.tolist() == [6, 12, 6]


def test_frozen_numbers_are_the_same_without_gradient_for_more_pairs_than_a_part():
    policy, both = model(), pairs()
    many = both.rows(torch.arange(150) % 3)
    found = preference_data.frozen_logps(policy, many)
    assert found.shape == (2, 150) and not found.requires_grad
    close(
        found[:, 147:], torch.stack(preference_data.pair_logps(policy, both)).detach()
    )
    means = preference_data.frozen_logps(policy, both, per_token=True)
    close(
        means,
        torch.stack(preference_data.pair_logps(policy, both, per_token=True)).detach(),
    )


def test_the_gradient_is_that_of_the_answers_read_alone():
    policy, both = model(), pairs()

    def slope(logps):
        weighted = (logps * torch.tensor([1.0, -2.0, 0.5])).sum()
        return torch.autograd.grad(weighted, list(policy.parameters()))

    fast = slope(preference_data.pair_logps(policy, both)[1])
    for one, other in zip(fast, slope(slow(policy, both.rejected))):
        close(one, other, atol=1e-10)


# -------------------------------------------------------------- without their partners


def test_unpaired_answers_are_all_of_them_the_chosen_first():
    both = pairs()
    answers, good = preference_data.unpaired(both)
    assert good.tolist() == [True] * 3 + [False] * 3
    want = torch.cat((slow(model(), both.chosen), slow(model(), both.rejected)))
    close(slow(model(), answers), want)


def said(answers):
    """(what was asked, what was answered) of each row."""
    tokens = torch.cat((answers.states[:, :1], answers.actions), 1)
    begins = answers.mask.long().argmax(1) + 1
    rows = zip(tokens.tolist(), begins.tolist(), answers.lengths.tolist())
    return [(row[:b], row[b : b + n]) for row, b, n in rows]


def test_a_mismatched_row_has_its_own_prompt_and_the_answer_of_the_row_before():
    answers = pairs().chosen
    strangers = preference_data.mismatched(answers)
    own, others = said(answers), said(strangers)
    assert [prompt for prompt, _ in others] == [prompt for prompt, _ in own]
    assert [text for _, text in others] == [own[i - 1][1] for i in range(3)]
    assert strangers.lengths.tolist() == answers.lengths.roll(1).tolist()
    assert (strangers.logps == 0).all() and (strangers.rewards == 0).all()


def test_a_mismatched_row_is_written_like_any_other():
    strangers = preference_data.mismatched(pairs().chosen)
    same = written(ASKED, [GOOD[2], GOOD[0], GOOD[1]])
    for name in ("states", "actions", "mask", "last_states", "terminated"):
        got, want = getattr(strangers, name), getattr(same, name)
        if got.ndim == 2:
            got, want = (x.masked_fill(~same.mask, 0) for x in (got, want))
        assert torch.equal(got, want), name


def test_a_mismatched_answer_that_was_cut_off_still_is():
    answers = written(ASKED, GOOD, finished=[False, True, True])
    assert preference_data.mismatched(answers).terminated.tolist() == [
        True,
        False,
        True,
    ]


def test_what_stands_behind_an_answer_reaches_no_mismatched_row():
    answers = pairs().chosen
    garbage = torch.where(answers.mask.flip(1).cummax(1).values.flip(1), 0, 7)
    dirty = replace(answers, actions=answers.actions + garbage)
    clean, found = (
        preference_data.mismatched(answers),
        preference_data.mismatched(dirty),
    )
    assert torch.equal(clean.states, found.states)
    assert torch.equal(clean.actions, found.actions)


def test_rolling_first_and_averaging_then_is_no_mismatch():
    policy, start, answers = model(1), model(0), pairs().chosen
    ratio = answer_logps(policy, answers) - answer_logps(start, answers)
    strangers = preference_data.mismatched(answers)
    drift = answer_logps(policy, strangers) - answer_logps(start, strangers)
    close(ratio.roll(1).mean(), ratio.mean())
    assert (drift.mean() - ratio.mean()).abs() > 0.1


# --------------------------------------------------------------------------- refusals


def test_sound_pairs_are_let_through():
    both = pairs()
    longest = max(part.states.shape[1] for part in (both.chosen, both.rejected))
    assert preference_data.check_pairs(both, longest) is None


def test_equal_answers_are_refused(refuses):
    both = pairs(bad=(BAD[0], GOOD[1], BAD[2]))
    with refuses(
        "pairs: got twice the same answer in pair 1, wanted two different answers in each"
    ):
        preference_data.check_pairs(both, 32)


def test_answers_that_a_cut_made_equal_are_refused(refuses):
    both = pairs(bad=("Ada Ash is wise.", *BAD[1:]))
    short = replace(both, chosen=cut(both.chosen, 3), rejected=cut(both.rejected, 3))
    preference_data.check_pairs(both, 32)
    with refuses(
        "pairs: got twice the same answer in pair 0, wanted two different answers in each"
    ):
        preference_data.check_pairs(short, 32)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_an_answer_without_a_token_is_refused(side, refuses):
    both = pairs()
    mask = getattr(both, side).mask.clone()
    mask[2] = False
    broken = replace(both, **{side: replace(getattr(both, side), mask=mask)})
    with refuses(f"pairs.{side}: got no token in answer 2, wanted at least one"):
        preference_data.check_pairs(broken, 32)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_an_answer_that_does_not_fit_the_context_is_refused_and_not_cut(side, refuses):
    both = pairs()
    part = getattr(both, side)
    lengths = part.ends.long().argmax(1) + 1
    row = int(lengths.argmax())
    other = both.rejected if side == "chosen" else both.chosen
    short = {"chosen": cut(other, 1), "rejected": cut(other, 1)}
    both = replace(both, **{**short, side: part})
    most = int(lengths.max())
    got = f"pairs.{side}: got {most} tokens to read in row {row}"
    with refuses(f"{got}, wanted at most {most - 1}, the model's context"):
        preference_data.check_pairs(both, most - 1)


def test_a_context_is_a_number_of_tokens(refuses):
    with refuses("context: got 0, wanted an int of at least 1"):
        preference_data.check_pairs(pairs(), 0)


def test_rows_that_share_a_prompt_are_handed_on_as_a_group(monkeypatch):
    seen, honest = [], logps_module.action_logps

    def spied(policy, answers, *, group):
        seen.append(group)
        return honest(policy, answers, group=group)

    monkeypatch.setattr(logps_module, "action_logps", spied)
    preference_data.pair_logps(model(), pairs())
    answer_logps(model(), pairs().chosen)
    assert seen == [2, 1]
