"""What the page on R1-Zero says of pushes, lengths and guesses, held by other means."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from labs import r1_zero_runs
from lib.advantages import group_centred, group_normalised
from lib.losses.policy_gradient import dr_grpo, grpo
from lib.sft import written
from lib.worlds import cups, tasks

LENGTH = 40  # the constant of Dr. GRPO

# ------------------------------------------------- Z.8: the push on the first token


def expected_push(p, q, d, lengths, constant, credit, group=3):
    """Expected downhill gradient on the logit of "<think>", by autograd over all groups.

    Answers are one of four kinds, a right or a wrong thought, a right or a wrong direct
    answer; only the first token's log-probability depends on the logit.
    """
    chances = [p * q, p * (1 - q), (1 - p) * d, (1 - p) * (1 - d)]
    z = torch.tensor(p, dtype=torch.float64).logit().requires_grad_()
    first = torch.stack([z.sigmoid().log()] * 2 + [(-z).sigmoid().log()] * 2)
    first = first - first.detach()  # a ratio of 1
    steps = torch.arange(max(lengths))
    total = torch.zeros((), dtype=torch.float64)
    for kinds in itertools.product(range(4), repeat=group):
        chance = torch.tensor([chances[k] for k in kinds]).double().prod()
        rewards = torch.tensor([[1.0 - k % 2 for k in kinds]], dtype=torch.float64)
        mask = steps < torch.tensor([lengths[k] for k in kinds]).unsqueeze(1)
        logps = torch.zeros(mask.shape, dtype=torch.float64)
        logps = torch.cat((first[[*kinds]].unsqueeze(1), logps[:, 1:]), 1)
        old, credits = torch.zeros_like(logps), credit(rewards)[0]
        if constant:
            loss, _ = dr_grpo(logps, old, credits, mask, length=LENGTH)
        else:
            loss, _ = grpo(logps, old, None, credits, mask)
        total = total + chance * loss
    (slope,) = torch.autograd.grad(-total, z)
    return slope.item()


RATES = [(0.06, 0.7, 0.05), (0.3, 0.5, 0.4), (0.5, 0.2, 0.6)]


@pytest.mark.parametrize(("p", "q", "d"), RATES)
@pytest.mark.parametrize("constant", [False, True])
def test_the_push_is_that_of_the_page(p, q, d, constant):
    thought, direct = (LENGTH, LENGTH) if constant else (9, 3)
    found = expected_push(p, q, d, (9, 9, 3, 3), constant, group_centred)
    weight = (1 - p) / thought + p / direct
    assert_close(found, (1 - 1 / 3) * p * (1 - p) * (q - d) * weight)


@pytest.mark.parametrize(("p", "q", "d"), RATES)
@pytest.mark.parametrize("credit", [group_centred, group_normalised])
@pytest.mark.parametrize("constant", [False, True])
def test_thoughts_of_one_length_are_pushed_up_where_they_are_more_often_right(
    p, q, d, credit, constant
):
    push = expected_push(p, q, d, (9, 9, 3, 3), constant, credit)
    assert (push > 0) == (q > d)


def test_where_right_thoughts_are_longer_grpo_alone_can_push_the_better_kind_down():
    rates = (0.01, 0.3, 0.25)
    assert expected_push(*rates, (26, 13, 3, 3), False, group_centred) < 0
    assert expected_push(*rates, (13, 13, 3, 3), False, group_centred) > 0
    assert expected_push(*rates, (26, 13, 3, 3), True, group_centred) > 0


# ---------------------------------------------------------- lengths, guesses, counts


@pytest.mark.parametrize("level", cups.LEVELS)
def test_a_direct_answer_has_3_tokens_and_a_thought_7_and_4_a_swap(level):
    task = tasks.tasks("cups", count=1, seed=0, levels=(level,))[0]
    thought = cups.worked(cups.game_of(task), "hill")
    lengths = written([task, task], [task.answer, thought]).lengths
    assert lengths.tolist() == [3, 7 + 4 * level]


def test_the_peas_lie_in_20_ways_and_in_the_end_all_are_about_as_likely():
    asked = tasks.tasks("cups", count=4000, seed=0, levels=(5,))
    counts = {}
    for task in asked:
        counts[task.answer] = counts.get(task.answer, 0) + 1
    assert len(counts) == 20
    assert max(counts.values()) < 2 * 4000 / 20


def test_about_a_fifth_of_the_games_is_kept_for_testing():
    every = [
        cups.asked(cups.Game(start, swaps))
        for start in itertools.permutations(range(1, 6), 2)
        for swaps in itertools.product(("1-2", "3-5", "2-4"), repeat=4)
    ]
    share = sum(cups.split(text) == "test" for text in every) / len(every)
    assert share == pytest.approx(0.2, abs=0.04)


# ---------------------------------------------------------------- the two records


def test_the_record_runs_what_the_page_runs():
    from labs import r1_zero as r1

    assert (r1.PROMPTS, r1.GROUP, r1.UPDATES, r1.LR) == (16, 16, 60, 3e-4)
    assert (r1.LEVELS, r1.TOKENS) == ((2, 3, 4, 5), LENGTH)
    assert r1_zero_runs.SAMPLES == max(r1_zero_runs.KS)


def runs(record, name):
    return record.read()["runs"][name]


@pytest.mark.parametrize("seed", range(5))
def test_on_each_base_model_it_learns_to_think_truly(seed):
    found = runs(r1_zero_runs.RECORD, "R1-Zero")[str(seed)]
    curves, after = found["curves"], found["after"]
    assert curves["thinks"][0] < 0.2 and curves["thinks"][-1] > 0.95
    assert curves["length"][-1] > 3 * curves["length"][0]
    for level in ("2", "3", "4", "5"):
        assert after[level]["right"] >= 0.9 and after[level]["faithful"] >= 0.9


@pytest.mark.parametrize("seed", range(5))
def test_direct_answers_are_far_behind_where_swaps_are_many(seed):
    shown = runs(r1_zero_runs.RECORD, "direct answers")[str(seed)]["after"]
    learned = runs(r1_zero_runs.RECORD, "R1-Zero")[str(seed)]["after"]
    for level in ("3", "4", "5"):
        assert shown[level]["right"] < learned[level]["right"] - 0.3
    assert sum(shown[level]["right"] for level in ("3", "4", "5")) / 3 < 0.75


def test_the_base_models_pass_the_faithful_test_with_many_tries():
    for found in runs(r1_zero_runs.RECORD, "R1-Zero").values():
        base, policy = (found["pass"][who]["faithful"] for who in ("base", "R1-Zero"))
        assert base[0] < 0.2 < 0.8 < base[-1]
        assert all(b <= p for b, p in zip(base, policy))


def took_off(curves):
    """The first update, of every second, at which most answers think; 60 if none."""
    return next((2 * k for k, x in enumerate(curves["thinks"]) if x > 0.5), 60)


@pytest.mark.parametrize("worked", r1_zero_runs.RARITIES)
def test_grpo_takes_off_later_or_neither_does(worked):
    for found in runs(r1_zero_runs.STALL, f"worked {worked}").values():
        at = {loss: took_off(found[loss]["curves"]) for loss in ("GRPO", "Dr. GRPO")}
        assert (at["Dr. GRPO"] < at["GRPO"]) if worked else ({*at.values()} == {60})


def test_the_rarer_the_worked_answers_the_later_the_take_off():
    every = [runs(r1_zero_runs.STALL, f"worked {w}") for w in r1_zero_runs.RARITIES]
    for seed in every[0]:
        at = [took_off(found[seed]["Dr. GRPO"]["curves"]) for found in every]
        assert at == sorted(at)
