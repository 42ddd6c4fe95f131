"""What chapter 12's lab does: clean prompts, a mix, pairs, a verifier of form."""

import copy

import pytest
import torch
from torch.testing import assert_close

from labs import tulu3, tulu3_runs
from lib import evaluate, pretrain
from lib.evaluate import Answer
from lib.worlds import people
from lib.worlds.people import person_in


def test_overlap_is_the_share_of_held_out_tokens_in_common_n_grams():
    held_out = "abcdef"
    assert tulu3.overlap("xbcdx", held_out, n=3) == 3 / 6
    assert tulu3.overlap("abcxcde", held_out, n=3) == 5 / 6  # they meet in c
    assert tulu3.overlap("abxde", held_out, n=3) == 0
    assert tulu3.overlap("abxde", held_out, n=2) == 4 / 6
    assert tulu3.overlap("xabx", "ab", n=8) == 1  # shorter than n: one n-gram


def test_overlap_refuses_by_name(refuses):
    with refuses("held_out: got no tokens, wanted at least one"):
        tulu3.overlap("a", "")
    with pytest.raises(ValueError, match="^n: got 0"):
        tulu3.overlap("a", "a", n=0)
    with pytest.raises(ValueError, match=r"^share: got 1\.5"):
        tulu3.decontaminator(["a"], share=1.5)


def test_words_numbers_marks_and_swaps_are_tokens():
    assert tulu3.words("Red 3. ant 1-5?") == ("Red", "3", ".", "ant", "1-5", "?")


def test_more_than_the_share_is_too_near_and_as_much_is_not():
    held_out, half = "Write 4 words, use mill.", "Write 4 words, end with inn."
    same = tulu3.overlap(tulu3.words(half), tulu3.words(held_out), n=3)
    assert 0 < same < 1
    assert not tulu3.decontaminator([held_out], n=3, share=same)(half)
    assert tulu3.decontaminator([held_out], n=3, share=same - 0.01)(half)


def test_the_index_finds_what_comparing_everything_with_everything_finds():
    held_out = [task.request for task in tulu3.exam("constraints")][:60]
    prompts = [task.request for task in evaluate.exam("constraints", seed=1, count=80)]
    near = tulu3.decontaminator(held_out, n=6)
    pairs = [(tulu3.words(p), [tulu3.words(h) for h in held_out]) for p in prompts]
    slow = [any(tulu3.overlap(p, h, n=6) > 0.5 for h in every) for p, every in pairs]
    assert [near(prompt) for prompt in prompts] == slow
    assert 0 < sum(slow) < len(slow)


def test_no_prompt_of_the_mix_or_of_rlvr_is_too_near_to_the_exam():
    near = tulu3.decontaminator(tulu3.held_out())
    shown, thrown = tulu3.mix(3)
    assert thrown > 0 and len(shown) == tulu3.GAMES + 4 * tulu3.EACH
    asked = [task for update in range(2) for task in tulu3.ask_for(3)(update)]
    assert len(asked) == 2 * sum(tulu3.ASKED.values())
    assert not any(near(task.request) for task in [*asked, *(t for t, _ in shown)])


def test_distinct_counts_demonstrations_and_prompts():
    shown, _ = tulu3.mix(0)
    some = shown[tulu3.GAMES : tulu3.GAMES + 2]
    found = tulu3.distinct([*some, some[0], (some[0][0], "no")])
    assert found["facts"] == (4, 3, 2)
    assert found["talk"] == (0, 0, 0)


def test_the_exam_has_as_many_distinct_items_as_it_says():
    for skill, levels in tulu3.LEVELS.items():
        requests = [task.request for task in tulu3.exam(skill)]
        assert len(requests) == tulu3.ITEMS * len(levels)
        assert len({*requests}) >= 0.99 * len(requests)  # levels may share a few


def test_marks_are_means_over_levels_item_by_item():
    right = "1" * 200 + "0" * 200 + "10" * 100
    wanted = torch.tensor([2.0, 1.0], dtype=torch.float64) / 3
    assert_close(tulu3.marks({"cups": right}, "cups")[:2], wanted)


def test_a_model_is_nowhere_away_from_itself():
    model = pretrain.base_model(seed=0)
    found = tulu3.looked_at(copy.deepcopy(model), model)
    assert_close(found["kl"], 0.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "finished", "says"),
    [
        ("One. Two. Three. Four.", True, 1),
        ("One. Two. Three.", True, 0),
        (". . . .", True, 1),
        ("One. Two. Three. Four.", False, 0),
    ],
)
def test_the_verifier_of_form_counts_full_stops(text, finished, says):
    assert tulu3.long_enough(None, Answer(text, finished)) == says


def test_what_leaks_what_is_reworded_and_what_is_fresh_do_not_meet():
    leaked, again, fresh = tulu3.leak()
    about = [
        {(person_in(t.request).name, people.kind_in(t.request)) for t in some}
        for some in (leaked, again, fresh)
    ]
    assert about[1] <= about[0] and not about[2] & about[0]
    every = [task.request for some in (leaked, again, fresh) for task in some]
    assert len(set(every)) == len(every) == 600


def test_pairs_come_from_whom_they_should(monkeypatch):
    monkeypatch.setattr(tulu3, "PAIRS", 8)
    model = pretrain.base_model(seed=2)
    own, others, both = (
        tulu3.pairs_of(model, source, seed=2) for source in ("own", "others'", "both")
    )
    assert [len(x) for x in (own, others, both)] == [8, 8, 8]
    assert torch.equal(both.first(4).chosen_gold, own.first(4).chosen_gold)
    assert own.asked == others.asked  # the same requests, other answers
    assert not torch.equal(own.chosen_gold, others.chosen_gold)
    with pytest.raises(ValueError, match="^source: got 'ours'"):
        tulu3.pairs_of(model, "ours", seed=0)


def test_every_run_of_the_record_has_its_seeds():
    assert tulu3_runs.RECORD.seeds_of() == {
        **{name: [*range(5)] for name in tulu3_runs.RUNS},
        "sweep": [tulu3_runs.SWEPT],
    }
