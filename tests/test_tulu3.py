"""What chapter 12's lab does: clean prompts, a mix, pairs, a verifier of form."""

import copy
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from labs import r1_zero, tulu3, tulu3_runs
from lib import direct, evaluate, pretrain
from lib.evaluate import Answer
from lib.losses.preference import dpo
from lib.worlds import cups, people, tasks
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
    assert not {*both.asked[:4]} & {*both.asked[4:]}
    assert not torch.equal(own.chosen_gold, others.chosen_gold)
    with pytest.raises(ValueError, match="^source: got 'ours'"):
        tulu3.pairs_of(model, "ours", seed=0)


def test_every_run_of_the_record_has_its_seeds():
    assert tulu3_runs.RECORD.seeds_of() == {
        **{name: [*range(5)] for name in tulu3_runs.RUNS},
        "sweep": [tulu3_runs.SWEPT],
    }


def test_dpo_is_on_means_per_token_with_the_rate_and_the_beta_it_is_told(monkeypatch):
    monkeypatch.setattr(tulu3, "PAIRS", 8)
    model = pretrain.base_model(seed=0)
    pairs = tulu3.pairs_of(model, "own", seed=0)
    loss, told = partial(dpo, beta=2.0), {"lr": 1e-3, "seed": 0}
    wanted, means = direct.align(model, pairs, loss, per_token=True, **told)
    policy, history = tulu3.preferred(model, pairs, beta=2.0, **told)
    assert history == means
    for one, other in zip(policy.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(one, other)


def test_rlvr_keeps_near_to_its_start_by_the_algorithm_and_the_beta_it_is_told(
    monkeypatch,
):
    monkeypatch.setattr(tulu3, "ASKED", {"cups": 2})
    model = pretrain.base_model(seed=0)
    _, history = tulu3.practised(model, seed=0, updates=1)
    assert history["beta"] == [tulu3.RL_BETA] and len(history["kl"]) == 1
    _, history = tulu3.practised(model, seed=0, updates=1, algorithm="PPO", beta=0.0)
    assert history["beta"] == [0.0] and len(history["value_loss"]) == 1


def test_against_the_verifier_of_form_the_penalty_is_the_one_that_is_told(monkeypatch):
    monkeypatch.setattr(tulu3, "GROUP", 2)
    model = pretrain.base_model(seed=0)
    for beta in (0.0, 0.3):
        _, history = tulu3.satisfied(model, seed=0, beta=beta, updates=1)
        assert history["beta"] == [beta] and ("kl" in history) == (beta > 0)


def test_every_update_and_every_seed_practises_and_imitates_something_new():
    asked = [tulu3.ask_for(seed)(update) for seed, update in ((3, 0), (3, 1), (4, 0))]
    asked += [[task for task, _ in tulu3.mix(seed)[0]] for seed in (3, 4)]
    games = [tuple(t.request for t in some if t.skill == "cups") for some in asked]
    assert len(set(games)) == len(games) == 5


def test_rlvr_goes_as_far_as_its_rate_lets_it(monkeypatch):
    monkeypatch.setattr(tulu3, "ASKED", {"cups": 2})
    model = pretrain.base_model(seed=0)
    policy, _ = tulu3.practised(model, seed=0, updates=1, lr=1e-9)
    for one, other in zip(policy.parameters(), model.parameters(), strict=True):
        assert_close(one, other, rtol=0, atol=1e-7)


def test_what_is_examined_is_nowhere_away_from_itself_and_away_from_another(
    monkeypatch,
):
    monkeypatch.setattr(tulu3, "LEVELS", {"facts": (1,)})
    monkeypatch.setattr(tulu3, "exam", lambda skill: evaluate.exam(skill, count=8))
    model, other = (pretrain.base_model(seed=seed) for seed in (0, 1))
    assert abs(tulu3.examined(model, copy.deepcopy(model))["kl"]["facts"]) < 1e-9
    assert tulu3.examined(model, other)["kl"]["facts"] > 0.1


def test_a_tuned_model_is_a_copy():
    model, shown = pretrain.base_model(seed=0), tulu3.mix(0)[0][:8]
    before = copy.deepcopy(model)
    pupil = tulu3.tuned(model, shown, seed=0)
    pairs = [*zip(before.parameters(), model.parameters(), pupil.parameters())]
    assert all(torch.equal(one, same) for one, same, _ in pairs)
    assert any(not torch.equal(one, learnt) for one, _, learnt in pairs)


def test_a_task_s_share_is_of_its_own_four_answers(monkeypatch):
    asked = evaluate.exam("facts", count=3)
    found = torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(evaluate, "ask", lambda policy, asked, **told: None)
    monkeypatch.setattr(evaluate, "scores", lambda asked, rollout: found)
    assert tulu3.right(None, asked).tolist() == [1.0, 0.0, 0.25]


def test_prompts_that_are_too_near_are_passed_over_and_counted(monkeypatch):
    pool = tasks.tasks("facts", count=2 * 3 + 8, seed=0)
    banned = {pool[1].request, pool[4].request}
    monkeypatch.setattr(tulu3, "too_near", lambda: banned.__contains__)
    assert tulu3.clean_tasks("facts", count=3, seed=0) == ([pool[0], *pool[2:4]], 1)
    assert tulu3.clean_tasks("facts", count=1, seed=0) == (pool[:1], 0)


def test_games_of_training_have_the_levels_of_r1_zero():
    games, _ = tulu3.clean_tasks("cups", count=60, seed=0)
    assert {task.level for task in games} == {*r1_zero.LEVELS}


def test_people_show_the_work_of_a_game_and_answer_the_rest():
    for task, text in tulu3.mix(0)[0]:
        if task.skill == "cups":
            assert text == cups.worked(cups.game_of(task), "hill") != task.answer
        else:
            assert text == task.answer
