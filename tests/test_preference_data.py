"""Two answers, and who is preferred: by whom, how often, and never one against itself."""

import pytest
import torch

from lib import preference_data
from lib.evaluate import ask, scores
from lib.models.transformer import Config, Transformer
from lib.preference_data import PreferencePairs, annotated, ceiling, sample_pairs
from lib.rollout import concat
from lib.seeds import seed_of
from lib.sft import written
from lib.villagers import answers
from lib.worlds.village import TOKENIZER, split_of, tasks, taste
from lib.worlds.village.taste import Annotators

NEVER_ERR = Annotators(temperature=0.0, error_rate=0.0)


def small(seed: int = 0) -> Transformer:
    size = {"layers": 1, "width": 16, "heads": 2, "hidden": 16}
    config = Config(vocabulary=len(TOKENIZER), **size)
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


def fox(texts: list[str], count: int):
    asked = [tasks.Task("talk", 1, "Tell me about the fox.", "")] * count
    each = [task for task in asked for _ in range(len(texts) // count)]
    return asked, written(each, texts)


def test_annotators_who_never_err_choose_what_gold_prefers(seeded):
    texts = [
        "The fox is red.",
        "The fox is white.",
        "No.",
        "The fox is red. It is dear.",
    ]
    asked, rollout = fox(texts, 2)
    pairs = annotated(asked, rollout, generator=seeded(), annotators=NEVER_ERR)
    said = [a.text.strip() for a in answers(pairs.chosen)]
    assert said == [texts[0], texts[3]]
    assert [a.text.strip() for a in answers(pairs.rejected)] == [texts[1], texts[2]]
    gold = scores(asked, rollout)
    assert torch.equal(pairs.chosen_gold, gold[[0, 3]])
    assert torch.equal(pairs.rejected_gold, gold[[1, 2]])
    assert pairs.asked == asked and len(pairs) == 2


def test_annotators_may_follow_something_else_than_gold(seeded):
    asked, rollout = fox(["The fox is red.", "The fox is white."], 1)
    seen = torch.tensor([0.0, 1.0]).double()
    pairs = annotated(
        asked, rollout, generator=seeded(), annotators=NEVER_ERR, seen=seen
    )
    assert pairs.chosen_gold < pairs.rejected_gold


def test_annotators_err_as_often_as_their_probabilities_say(seeded):
    asked, rollout = fox(
        ["The fox is red.", "The fox is red. It is dear."] * 2000, 2000
    )
    gold = scores(asked, rollout)[:2]
    pairs = annotated(asked, rollout, generator=seeded())
    share = (pairs.chosen_gold == gold.max()).double().mean()
    want = Annotators().probabilities(gold.max()[None], gold.min()[None])
    assert abs(share - want) < 4 * (0.25 / 2000) ** 0.5


def test_two_answers_to_each_request_are_wanted(seeded, refuses):
    asked, rollout = fox(["It is red."] * 3, 1)
    with refuses("answers: got 3 rows, wanted 2, two each"):
        annotated(asked, rollout, generator=seeded())
    asked, rollout = fox(["It is red."] * 2, 1)
    with refuses("seen: got shape (1,), wanted shape (2,)"):
        annotated(asked, rollout, generator=seeded(), seen=torch.zeros(1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_compare_lets_the_policy_answer_twice_and_people_choose(split):
    pairs = sample_pairs(small(), count=5, seed=3, split=split)
    assert len(pairs) == 5 and not pairs.identical.any()
    assert {split_of(task.request) for task in pairs.asked} == {split}
    for rollout, gold in (
        (pairs.chosen, pairs.chosen_gold),
        (pairs.rejected, pairs.rejected_gold),
    ):
        torch.testing.assert_close(scores(pairs.asked, rollout), gold)
        for state, task in zip(rollout.states, pairs.asked):
            assert TOKENIZER.decode(state.tolist()).startswith(task.prompt)
    again = sample_pairs(small(), count=5, seed=3, split=split)
    assert torch.equal(again.chosen.actions, pairs.chosen.actions)
    other = sample_pairs(small(), count=5, seed=4, split=split)
    assert [t.request for t in other.asked] != [t.request for t in pairs.asked]


def test_progress_is_shown_if_it_has_a_name_and_changes_nothing(capfd):
    silent = sample_pairs(small(), count=5, seed=3)
    assert capfd.readouterr() == ("", "")
    shown = sample_pairs(small(), count=5, seed=3, progress="asking")
    out, err = capfd.readouterr()
    assert out == "" and "asking: " in err and "5/5" in err
    assert torch.equal(silent.chosen.actions, shown.chosen.actions)


@pytest.mark.parametrize("seed", [0, 3])
def test_all_luck_of_compare_comes_from_its_seed(seed, seeded):
    policy, draws = small(), seeded(seed)
    asked = taste.requests(count=4, seed=seed_of("pairs", seed, 0))
    both = ask(policy, asked, group=2, generator=draws)
    want = annotated(asked, both, generator=draws)
    got = sample_pairs(policy, count=4, seed=seed)
    assert got.asked == asked  # an untrained model does not repeat itself
    assert torch.equal(got.chosen.actions, want.chosen.actions)
    assert torch.equal(got.rejected.actions, want.rejected.actions)


def test_compare_obeys_its_annotators():
    pairs = sample_pairs(small(), count=8, seed=3, annotators=NEVER_ERR)
    assert (pairs.chosen_gold >= pairs.rejected_gold).all()
    people = Annotators(error_rate=1.0)
    pairs = sample_pairs(small(), count=40, seed=3, annotators=people)
    assert 5 < (pairs.chosen_gold < pairs.rejected_gold).sum() < 35


def test_compare_goes_on_until_it_has_enough_different_answers(monkeypatch):
    calls = []

    def ask(policy, asked, *, group, generator):
        calls.append(len(asked))
        texts = ["It is red.", "It is red." if len(calls) % 2 else "It is old."]
        return written([t for t in asked for _ in range(2)], texts * len(asked))

    monkeypatch.setattr(preference_data, "ask", ask)
    pairs = sample_pairs(small(), count=600, seed=2)
    assert len(pairs) == 600 and not pairs.identical.any()
    assert calls == [512, 512, 512, 512]
    firsts = [pairs.asked[i].request for i in (0, 512)]
    seeds = (seed_of("pairs", 2, block) for block in (1, 3))
    blocks = (taste.requests(count=512, seed=seed) for seed in seeds)
    assert firsts == [block[0].request for block in blocks]


def test_a_policy_that_says_the_same_nine_times_running_is_refused(
    monkeypatch, refuses
):
    calls = []

    def ask(policy, asked, *, group, generator):
        calls.append(len(asked))
        texts = ["No."] * 2 * len(asked)
        if len(calls) == 9:
            texts[0] = "It is red."
        return written([t for t in asked for _ in range(2)], texts)

    monkeypatch.setattr(preference_data, "ask", ask)
    with refuses("policy: got the same answer twice, always, wanted one that varies"):
        sample_pairs(small(), count=2, seed=0)
    assert len(calls) == 18, "eight in vain, one that was not, and nine in vain"


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, -1), (1.5, 0)])
def test_impossible_counts_and_seeds_are_refused(count, seed):
    wanted = "count: got" if seed == 0 else "seed: got -1, wanted an int of at least 0"
    with pytest.raises(ValueError, match=wanted):
        sample_pairs(small(), count=count, seed=seed)


def test_identical_means_token_for_token_whatever_the_padding():
    asked = taste.requests(count=4, seed=0)
    one = written(asked, ["It is red.", "It is red.", "It is old.", "No." * 20])
    other = written(
        asked,
        ["It is red.", "It is red. It is", "It is red.", "It is red."],
        finished=[True, True, True, False],
    )
    gold = torch.zeros(4).double()
    pairs = PreferencePairs(asked, one, other, gold, gold)
    assert pairs.identical.tolist() == [True, False, False, False]
    swapped = PreferencePairs(asked, other, one, gold, gold)
    assert swapped.identical.tolist() == [True, False, False, False]
    cut = written(asked[:1], ["It is red."], finished=[False])
    left = PreferencePairs(
        asked[:1], one.rows(torch.tensor([0])), cut, gold[:1], gold[:1]
    )
    assert not left.identical.any(), "one ended and the other did not"


def test_rows_and_sums_of_comparisons_keep_everything_together():
    asked = taste.requests(count=2, seed=0)
    short = written(asked, ["It is red.", "It is old."])
    long = written(asked, ["It is red. It is old. I do not know.", "No."])
    gold = torch.tensor([1.0, 2.0]).double()
    pairs = PreferencePairs(asked, short, long, gold, -gold)
    both = pairs + PreferencePairs(asked, long, short, 10 * gold, -10 * gold)
    assert len(both) == 4 and both.asked == [*asked, *asked]
    assert both.chosen_gold.tolist() == [1, 2, 10, 20]
    assert both.rejected_gold.tolist() == [-1, -2, -10, -20]
    texts = [a.text for a in answers(both.chosen)]
    assert texts == [a.text for r in (short, long) for a in answers(r)]
    last = both.rows(torch.tensor([3, 0]))
    assert last.asked == [asked[1], asked[0]]
    assert last.chosen_gold.tolist() == [20, 1] and last.rejected_gold[0] == -20
    assert [a.text for a in answers(last.rejected)] == [
        answers(short)[1].text,
        answers(long)[0].text,
    ]


def test_rollouts_together_are_padded_behind_their_masks():
    asked = taste.requests(count=1, seed=0)
    one, other = written(asked, ["It."]), written(asked, ["It is red. It is old."])
    both = concat(one, other)
    assert len(both) == 2 and both.mask.shape == (2, other.mask.shape[1])
    assert both.lengths.tolist() == [*one.lengths.tolist(), *other.lengths.tolist()]
    assert (both.actions[0, one.mask.shape[1] :] == TOKENIZER.pad).all()
    assert both.terminated.tolist() == [True, True]
    assert torch.equal(both.last_states, torch.tensor([TOKENIZER.end] * 2))


@pytest.mark.parametrize("name", ["chosen_gold", "rejected_gold", "chosen", "rejected"])
def test_parts_that_do_not_fit_are_refused(name, refuses):
    asked = taste.requests(count=2, seed=0)
    rollout, gold = written(asked, ["It."] * 2), torch.zeros(2).double()
    parts = {"chosen": rollout, "rejected": rollout}
    parts |= {"chosen_gold": gold, "rejected_gold": gold}
    one = torch.tensor([0])
    parts[name] = gold[:1] if "gold" in name else rollout.rows(one)
    with refuses(f"{name}: got 1 rows, wanted 2, as in asked"):
        PreferencePairs(asked, **parts)


def test_the_ceiling_is_what_the_annotators_leave_over():
    people = Annotators(temperature=1.0, error_rate=0.0)
    nine = torch.tensor([9.0]).double().log()  # odds 9 : 1
    best, each_other = ceiling(nine, 0 * nine, people)
    assert type(best) is type(each_other) is float
    assert best == pytest.approx(0.9) and each_other == pytest.approx(0.82)
    assert ceiling(0 * nine, nine, people) == pytest.approx((0.9, 0.82))
    assert ceiling(0 * nine, 0 * nine) == (0.5, 0.5)
    two = torch.cat((nine, 0 * nine))
    assert ceiling(two, 0 * two, people) == pytest.approx((0.7, 0.66))
    careless = Annotators(temperature=0.0, error_rate=0.1)
    assert ceiling(nine, 0 * nine, careless)[0] == pytest.approx(0.95)
