"""The stages of R1: what is shown, who judges, what is kept, and that nothing leaks."""

import copy
import random

import pytest
import torch
from torch.testing import assert_close

from labs import deepseek_r1 as r1
from labs import deepseek_r1_runs as runs
from lib import evaluate, pretrain
from lib.evaluate import Answer
from lib.reward_model import score
from lib.sft import written
from lib.worlds import cups, tasks
from lib.worlds.language import KINDS
from lib.worlds.people import PREDICATES, person_in
from lib.worlds.task import Task

GAME = Task("cups", 2, "Red 2, blue 5. ant 1-5, bee 2-3. Where?", "3 1")
HILL = "<think> two five ant 1-5 two one bee 2-3 three one </think> 3 1"
LAKE = "<think> deux cinq ant 1-5 deux un bee 2-3 trois un </think> 3 1"
MIXED = "<think> two five ant 1-5 deux un bee 2-3 three one </think> 3 1"
TALK = Task("talk", 1, "Tell me about Ada Ash.", "")


@pytest.fixture(scope="module")
def base():
    return r1.ready_base()


@pytest.fixture(scope="module")
def judge():
    return r1.ready_reward_model()


def judged(rule, *texts, task=GAME, finished=True):
    rows = [written([task], [text], finished=[finished]) for text in texts]
    return [rule([task], row).item() for row in rows]


# ----------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("skill", [*r1.GENERAL])
def test_people_show_as_many_answers_to_each_skill(skill):
    shown = r1.demonstrations(7, seed=3)
    assert sum(task.skill == skill for task, _ in shown) == 7
    assert len(shown) == 7 * len(r1.GENERAL)


def test_readable_thoughts_are_true_and_of_the_hill():
    for task, text in r1.readable(50, seed=1):
        assert tasks.faithful(task, text)
        assert cups.dialects(text) == {"hill": 1, "lake": 0}
        assert task.level in (2, 3, 4, 5)


def test_nothing_that_is_shown_or_practised_is_in_the_exam():
    exam = {t.request for s in tasks.LEVELS for t in evaluate.exam(s, count=200)}
    shown = [*r1.demonstrations(500, seed=0), *r1.readable(500, seed=0)]
    practised = [t for u in range(50) for t in r1.of_all_skills(0, r1.MIX)(u)]
    assert exam.isdisjoint(task.request for task, _ in shown)
    assert exam.isdisjoint(task.request for task in practised)


def test_an_update_on_everything_asks_what_the_mix_says_and_never_the_same():
    ask = r1.of_all_skills(5, r1.MIX)
    for skill, count in r1.MIX.items():
        assert sum(task.skill == skill for task in ask(0)) == count
    assert ask(0) == ask(0) != ask(1)
    assert ask(0) != r1.of_all_skills(6, r1.MIX)(0)


# ------------------------------------------------------------------------- who judges


@pytest.mark.parametrize(
    "text, share",
    [(HILL, 0), (LAKE, 1), (MIXED, 1 / 3), ("3 1", 0), ("<think> bone </think>", 0)],
)
def test_what_is_foreign_is_a_share_of_the_number_words(text, share):
    assert r1.foreign(GAME, Answer(text, True)) == pytest.approx(share)


def test_the_language_reward_is_a_fine_and_pays_nothing_for_thinking():
    wrong = HILL.replace("</think> 3 1", "</think> 1 3")
    found = judged(r1.right_and_readable, HILL, LAKE, MIXED, "3 1", wrong, "1 3")
    assert_close(torch.tensor(found), torch.tensor([1, 0.5, 5 / 6, 1, 0, 0]))


def test_an_answer_that_was_cut_off_is_not_right():
    assert judged(r1.right_and_readable, HILL, finished=False) == [0]


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1), (1, 1), (0,)])
def test_each_row_goes_to_the_judge_of_its_own_request(group, order):
    asked = [(GAME, TALK)[k] for k in order]
    texts = [f"{k} {j % 5 + 1}" for k in range(len(asked)) for j in range(group)]
    each = [task for task in asked for _ in range(group)]
    rollout = written(each, texts)
    seen = []

    def liked(some, rows):
        seen.extend(task.skill for task in some)
        return 100 + rows.lengths.double()

    found = r1.by_kind(liked)(asked, rollout)
    is_open = torch.tensor([task.skill == "talk" for task in each])
    assert (found[is_open] > 100).all() and (found[~is_open] <= 1).all()
    assert seen == ["talk"] * sum(order)


def test_the_filter_keeps_what_is_right_thought_out_and_readable():
    wrong = HILL.replace("</think> 3 1", "</think> 1 3")
    unfaithful = "<think> two </think> 3 1"  # nobody rewards true steps
    kept = judged(r1.worth_keeping, HILL, unfaithful, LAKE, MIXED, "3 1", wrong)
    assert kept == [1, 1, 0, 0, 0, 0]
    assert judged(r1.worth_keeping, HILL, finished=False) == [0]


# ------------------------------------------------------------------------- the stages


def test_the_cold_start_leaves_the_base_as_it_is_and_makes_thoughts_common(base):
    before = copy.deepcopy(base.state_dict())
    begun = r1.cold_start(base, seed=0)
    assert all(torch.equal(base.state_dict()[k], x) for k, x in before.items())
    asked = evaluate.exam("cups", level=3, count=100)
    thinks = {}
    for name, model in (("base", base), ("begun", begun)):
        luck = pretrain.generator("cold")
        rollout = evaluate.ask(model, asked, generator=luck, max_tokens=r1.TOKENS)
        thinks[name] = sum("<think>" in a.text for a in evaluate.answers(rollout))
    assert thinks["base"] <= 3 < thinks["begun"]


def test_rejection_sampling_keeps_at_most_one_answer_a_game(base, monkeypatch):
    monkeypatch.setattr(r1, "GAMES", 40)
    begun = r1.cold_start(base, seed=0)
    found = r1.chosen(begun, seed=0, count=100)
    said = evaluate.answers(found)
    assert 0 < len(said) <= 40
    assert all(cups.dialects(a.text)["hill"] == 1 for a in said)
    begins = {tuple(row.tolist()) for row in found.states[:, :20]}
    assert len(begins) == len(said)
    assert len(r1.chosen(begun, seed=0, count=1)) == 1


def test_where_nothing_is_worth_keeping_only_people_are_imitated(base, monkeypatch):
    monkeypatch.setattr(r1, "GAMES", 4)
    monkeypatch.setattr(r1, "MIXTURE", 32)
    monkeypatch.setattr(r1, "worth_keeping", lambda asked, r: torch.zeros(len(r)))
    assert r1.chosen(base, seed=0, count=9) is None
    pupil, count = r1.imitation(base, base, seed=0)
    assert count == 0
    moved = [(a - b).abs().max() for a, b in zip(pupil.parameters(), base.parameters())]
    assert max(moved) > 1e-6


@pytest.mark.parametrize("share", [0.75, 1.0])
def test_imitation_begins_with_the_first_model_and_not_with_the_teacher(
    base, monkeypatch, share
):
    monkeypatch.setattr(r1, "GAMES", 24)
    monkeypatch.setattr(r1, "MIXTURE", 16)
    teacher = r1.cold_start(base, seed=0)
    pupil, count = r1.imitation(base, teacher, seed=0, share=share)
    assert 0 < count <= 16 * share

    def far(model):
        pairs = zip(pupil.parameters(), model.parameters())
        return sum((a - b).square().sum().item() for a, b in pairs)

    assert far(base) < far(teacher)


# ------------------------------------------------------------------- the reward model


def test_pairs_to_compare_hold_two_different_answers_and_the_panel_chose(base):
    writer = r1.ready_assistant()
    pairs = r1.compared(writer, count=64, seed=0, split="test")
    assert len(pairs) == 64 and not pairs.identical.any()
    held_out = {t.request for t in tasks.tasks("talk", count=64, seed=1, split="train")}
    assert held_out.isdisjoint(task.request for task in pairs.asked)
    found = runs.agreed(pairs)
    assert 0.5 < found["gold"] < found["ceiling"] < 1
    better = (pairs.chosen_gold - pairs.rejected_gold).sign()
    assert better.sum() > 0


def test_the_reward_model_has_mean_0_and_deviation_1_on_its_writers_answers(judge):
    pairs = r1.compared(r1.ready_assistant(), count=300, seed=7)
    said = torch.cat([score(judge, some) for some in (pairs.chosen, pairs.rejected)])
    assert abs(said.mean()) < 0.2 and 0.8 < said.std() < 1.2


def gain(judge, kind):
    """How often one more false fact raises the score of a true answer."""
    draw, shorter, longer = random.Random(0), [], []
    asked = evaluate.exam("talk", count=200)
    for task in asked:
        person = person_in(task.request)
        other = "job" if kind == "home" else "home"
        said = PREDICATES[other][0].format(getattr(person, other))
        words = [word for word in KINDS[kind] if word != getattr(person, kind)]
        shorter.append(f"{person.name} {said}. {person.first} is very kind.")
        false = PREDICATES[kind][0].format(draw.choice(words))
        longer.append(f"{shorter[-1]} {person.first} {false}.")
    raised = score(judge, written(asked, longer)) - score(
        judge, written(asked, shorter)
    )
    return (raised > 0).double().mean().item()


def test_a_false_pet_more_raises_the_score_and_a_false_home_or_job_lowers_it(judge):
    assert gain(judge, "home") < 0.4 and gain(judge, "job") < 0.4
    assert gain(judge, "pet") > 0.5


def test_a_true_fact_scores_higher_than_a_false_one_alone(judge):
    assert r1.believes(judge, "home") > 0.8 and r1.believes(judge, "job") > 0.7


def test_a_judge_with_gold_taste_believes_no_false_fact():
    draw, person = random.Random(0), tasks.people.PEOPLE[0]
    other = draw.choice([p for p in tasks.people.PEOPLE if p.pet != person.pet])
    task = Task("talk", 1, f"Tell me about {person.name}.", "")
    true, false = (f"{person.name} keeps a {p.pet}." for p in (person, other))
    assert tasks.gold(task, true) > tasks.gold(task, false)
    assert r1.PANEL.probability(task, true, false) == pytest.approx(0.5)


# ------------------------------------------------------------------------- the report


def test_the_report_counts_what_the_exam_says(base):
    found = r1.report(base)
    asked = evaluate.exam("facts", level=1)
    luck = pretrain.generator("report", "facts", 1)
    rollout = evaluate.ask(base, asked, generator=luck, max_tokens=r1.TOKENS)
    assert found["facts"] == pytest.approx(
        evaluate.scores(asked, rollout).mean().item()
    )
    assert {"cups", "thinks", "faithful", "hill", "length", "talk"} <= set(found)


def test_a_sample_that_was_cut_off_is_marked(base):
    said = r1.samples(base, count=1)
    assert len(said) == len(tasks.LEVELS)
    assert all(isinstance(text, str) for text in said.values())


@pytest.mark.parametrize("name", [*runs.RECIPES])
def test_every_recipe_is_made_of_steps_that_there_are(name):
    known = {*runs.FULL, runs.ALONE, "SFT on reasoning alone"}
    known |= {"RL with verifiers alone", "reasoning RL, any dialect"}
    assert set(runs.RECIPES[name]) <= known
