"""One thing is worse, gold knows it, and nothing else differs."""

import pytest
import torch

from labs import minimal_pairs
from lib.worlds.annotators import Annotators
from lib.worlds.language import TOKENIZER, split_of
from lib.worlds.people import PEOPLE, person_in
from lib.worlds.talk import features, gold


@pytest.mark.parametrize("edit", minimal_pairs.EDITS)
def test_gold_prefers_the_first_version_of_every_pair(edit):
    found = minimal_pairs.pairs(edit)
    rows = [*zip(found.asked, found.better, found.worse, found.finished, strict=True)]
    assert len(rows) == len({task.request for task in found.asked}) == 210
    for task, one, other, end in rows:
        assert task.skill == "talk" and split_of(person_in(task.request).name) == "test"
        assert gold(task, one) > gold(task, other, finished=end)


def test_a_false_fact_is_somebody_else_s_and_all_else_stays():
    for kind in ("home", "job", "pet"):
        found = minimal_pairs.pairs(f"a true {kind}")
        for task, one, other in zip(found.asked, found.better, found.worse):
            assert one.split()[:-1] == other.split()[:-1]
            assert getattr(person_in(task.request), kind) == one.split()[-1][:-1]
            seen = [features(task, text) for text in (one, other)]
            assert [(s.true, s.false) for s in seen] == [(1, 0), (0, 1)]
            assert seen[1].false_pets == (kind == "pet")


def test_the_panel_sees_every_edit_but_the_pets():
    for edit in minimal_pairs.EDITS:
        found = minimal_pairs.pairs(edit)
        rows = zip(found.asked, found.better, found.worse, found.finished)
        task, one, other, end = next(rows)
        chance = Annotators().probability(task, one, other, finished=(True, end))
        assert chance == 0.5 if edit == "a true pet" else chance > 0.6


def test_who_is_asked_about_can_be_chosen_and_the_other_differs_in_all():
    assert len(minimal_pairs.people()) == 70
    assert {*minimal_pairs.people(), *minimal_pairs.people("train")} == {*PEOPLE}
    two = minimal_pairs.people("train")[:2]
    found = minimal_pairs.pairs("who was asked about", two)
    assert len(found.asked) == 6
    for task, other in zip(found.asked, found.worse):
        one, two = person_in(task.request), person_in(other)
        assert not {*vars(one).values()} & {*vars(two).values()}


def test_an_answer_that_is_cut_off_has_no_end():
    better, worse = minimal_pairs.pairs("not cut off").written()
    assert better.terminated.all() and not worse.terminated.any()
    better, worse = minimal_pairs.pairs("a true home").written()
    assert worse.terminated.all()


def test_an_unknown_edit_is_refused():
    with pytest.raises(
        ValueError, match="edit: got 'taste', wanted one of 'a true home'"
    ):
        minimal_pairs.pairs("taste")


def test_sees_marks_where_the_better_version_scores_strictly_higher():
    def long(rollout):
        return rollout.lengths

    assert minimal_pairs.sees(long, "one fact more").tolist() == [1] * 210
    assert minimal_pairs.sees(long, "not said twice").sum() == 0
    assert minimal_pairs.sees(lambda r: 0 * r.lengths, "one fact more").sum() == 0

    def no_barn(rollout):
        return (rollout.actions != TOKENIZER.encode(" barn")[0]).all(1).double()

    found = minimal_pairs.pairs("a true home")
    want = [
        "barn" in other and "barn" not in one
        for one, other in zip(found.better, found.worse)
    ]
    assert minimal_pairs.sees(no_barn, "a true home").bool().tolist() == want
    assert torch.tensor(want).any()
