"""What the valley can be asked: the same call gives the same tasks, and no test leaks."""

import hashlib
import random
import re
from collections import Counter

import pytest

from lib.worlds import cups, people, strings, talk
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import LEVELS, SKILLS, faithful, gold, one, tasks, verify

EVERY = (*SKILLS, "talk")
REQUEST = {  # what each skill asks
    "cups": r"Red [1-5], blue [1-5]\.( [a-z]{3} [1-5]-[1-5][,.])+ Where\?",
    "facts": r"(What|Name|Say|Where) .*[A-Z][a-z]+ [A-Z][a-z]+.*[.?]",
    "strings": r"(What|Name|Say|How) .* [bcdfgklmnprst]{3,6}[.?]",
    "constraints": r"(Write|Say)( [2-6])? words(, .*)?\.",
    "talk": r"(Tell|Describe|Who|Say|Write) .*[A-Z][a-z]+ [A-Z][a-z]+.*[.?]",
}
HOW_MANY = {  # levels a skill has
    "cups": 6,
    "facts": 1,
    "strings": 4,
    "constraints": 3,
    "talk": 1,
}
GAME = Task("cups", 2, "Red 2, blue 5. ant 1-5, bee 2-3. Where?", "3 1")


def requests(skill, *, count, seed, split, levels=None):
    drawn = tasks(skill, count=count, seed=seed, split=split, levels=levels)
    return {task.request for task in drawn}


# ---------------------------------------------------------------- setting tasks


def test_four_skills_can_be_verified_and_each_has_levels():
    assert SKILLS == ("cups", "facts", "strings", "constraints")
    assert {skill: len(levels) for skill, levels in LEVELS.items()} == HOW_MANY


@pytest.mark.parametrize("skill", EVERY)
def test_the_same_call_gives_the_same_tasks_and_another_call_others(skill):
    asked = tasks(skill, count=60, seed=3)
    assert asked == tasks(skill, count=60, seed=3, split="train", levels=None)
    assert asked != tasks(skill, count=60, seed=4)
    assert asked != tasks(skill, count=60, seed=3, split="test")
    assert asked[:20] == tasks(skill, count=20, seed=3)


def test_the_tasks_of_a_seed_are_the_same_on_every_computer():
    said = [(t.request, t.answer) for s in EVERY for t in tasks(s, count=99, seed=0)]
    again = [(t.request, t.answer) for s in EVERY for t in tasks(s, count=99, seed=0)]
    assert said == again and len(said) == 5 * 99
    digest = hashlib.sha256(repr(said).encode()).hexdigest()[:16]
    assert digest == "460f903b84ef2b25"


@pytest.mark.parametrize("skill", EVERY)
def test_a_task_is_of_its_skill_its_split_and_one_of_the_levels(skill):
    split_of = {"cups": cups, "facts": people, "strings": strings, "talk": talk}
    for split in ("train", "test"):
        asked = tasks(skill, count=400, seed=1, split=split)
        assert {task.skill for task in asked} == {skill}
        assert {task.level for task in asked} == {*LEVELS[skill]}
        assert all(re.fullmatch(REQUEST[skill], task.request) for task in asked)
        if skill in split_of:
            found = {split_of[skill].split(task.request) for task in asked}
            assert found == {split}


@pytest.mark.parametrize("skill", EVERY)
def test_levels_come_as_often_as_each_other_and_only_those_asked_for(skill):
    levels, n = [*LEVELS[skill]], 3000
    seen = Counter(task.level for task in tasks(skill, count=n, seed=2))
    p = 1 / len(levels)
    assert all(abs(seen[k] / n - p) <= 5 * (p * (1 - p) / n) ** 0.5 for k in levels)
    few = levels[-1:]
    assert {t.level for t in tasks(skill, count=40, seed=2, levels=few)} == {*few}
    two = {levels[0], levels[-1]}
    assert {t.level for t in tasks(skill, count=99, seed=2, levels=[*two])} == two


def test_one_task_is_drawn_from_the_generator_that_is_given():
    for skill in EVERY:
        drawn = [one(skill, random.Random(5), split="test") for _ in range(2)]
        assert drawn[0] == drawn[1]
    before = random.getstate()
    tasks("cups", count=5, seed=0)
    assert random.getstate() == before


@pytest.mark.parametrize("skill", EVERY)
def test_a_prompt_and_its_answer_are_text_of_the_valley(skill):
    for task in tasks(skill, count=300, seed=0):
        text = f"{task.prompt} {task.answer}"
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
        assert len(TOKENIZER.encode(text)) <= 64
        assert task.tokenizer is TOKENIZER


# ---------------------------------------------------------------- nothing leaks


@pytest.mark.parametrize("skill", EVERY)
def test_train_and_test_share_no_request_in_twenty_thousand_draws(skill):
    train = requests(skill, count=20_000, seed=0, split="train")
    test = requests(skill, count=20_000, seed=0, split="test")
    assert not train & test
    assert len(train) > len(test) > 200


@pytest.mark.parametrize(
    ("skill", "level"), [(s, n) for s, levels in LEVELS.items() for n in levels]
)
def test_each_level_has_200_distinct_requests_for_testing_and_500_to_train(
    skill, level
):
    levels = (level,)
    test = requests(skill, count=4000, seed=1, split="test", levels=levels)
    train = requests(skill, count=4000, seed=1, split="train", levels=levels)
    assert len(test) >= 200 and len(train) >= 500


def test_a_fifth_of_the_games_is_for_testing():
    games = cups.new_game, random.Random(9)
    n = 8000
    tested = [cups.split(cups.asked(games[0](games[1], 5))) for _ in range(n)]
    p = 52 / 256  # bytes 0, 5, …, 255
    assert abs(tested.count("test") / n - p) < 4 * (p * (1 - p) / n) ** 0.5


# ---------------------------------------------------------------- impossible orders


def test_what_cannot_be_drawn_is_refused(refuses):
    every = "'cups', 'facts', 'strings', 'constraints', 'talk'"
    with refuses(f"skill: got 'chess', wanted one of {every}"):
        tasks("chess", count=1, seed=0)
    with refuses("count: got 0, wanted an int of at least 1"):
        tasks("cups", count=0, seed=0)
    with refuses("count: got 2.0, wanted an int of at least 1"):
        tasks("cups", count=2.0, seed=0)
    with refuses("seed: got -1, wanted an int of at least 0"):
        tasks("cups", count=1, seed=-1)
    with refuses("split: got 'dev', wanted one of 'train', 'test'"):
        tasks("cups", count=1, seed=0, split="dev")


@pytest.mark.parametrize("levels", [(1,), (2, 8), (), (2.5,), ("2",)])
def test_levels_that_a_skill_has_not_are_refused(levels, refuses):
    wanted = "wanted some of (2, 3, 4, 5, 6, 7) for 'cups'"
    with refuses(f"levels: got {levels}, {wanted}"):
        tasks("cups", count=1, seed=0, levels=levels)


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_reference_answers_verify(skill, split):
    for task in tasks(skill, count=2000, seed=4, split=split):
        assert verify(task, task.answer) is True
        assert verify(task, f" <think> hm </think> {task.answer}.") is True


@pytest.mark.parametrize("skill", SKILLS)
def test_a_denied_hedged_or_doubled_answer_is_wrong_in_every_skill(skill):
    hostile = (
        "not {}", "{} not", "maybe {}", "I think {}", "{} or {}", "{} {}", "{}. {}.",
        "{}?", "<think> {}", "<think> {} </think>", "{} <think> {} </think>",
        "<think> hm </think> {} <think> hm </think> {}", "", "hm",
    )  # fmt: skip
    for task in tasks(skill, count=300, seed=5):
        for text in hostile:
            assert verify(task, text.replace("{}", task.answer)) is False, text


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("text", [None, 31, b"3 1", ["3 1"], object()])
def test_what_is_no_text_is_wrong_in_every_skill(skill, text):
    assert verify(tasks(skill, count=1, seed=0)[0], text) is False


def test_an_answer_to_another_game_is_wrong():
    asked = tasks("cups", count=200, seed=6)
    for task, other in zip(asked, asked[1:]):
        assert verify(task, other.answer) == (task.answer == other.answer)


def test_only_games_have_steps_and_only_talk_has_a_taste(refuses):
    fact, open_request = (tasks(s, count=1, seed=0)[0] for s in ("facts", "talk"))
    steps = "<think> two five ant 1-5 two one bee 2-3 three one </think> 3 1"
    assert faithful(GAME, steps) is True and faithful(GAME, "3 1") is False
    assert faithful(GAME, None) is False
    with refuses("skill: got 'facts', wanted one of 'cups'"):
        faithful(fact, steps)
    known = "'cups', 'facts', 'strings', 'constraints'"
    with refuses(f"skill: got 'talk', wanted one of {known}"):
        verify(open_request, "I do not know.")
    want = talk.gold(open_request, open_request.answer, finished=False)
    assert gold(open_request, open_request.answer, finished=False) == want
    with refuses("task: got skill 'cups', wanted an open request, 'talk'"):
        gold(GAME, "3 1")
