"""The people of the valley: what is true of them, who asks, and what answers that."""

import random
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest

from lib.worlds import people
from lib.worlds.language import KINDS, split_of
from lib.worlds.people import BY_NAME, PEOPLE, make, page, person_in, split, verify
from lib.worlds.task import Task

ADA = BY_NAME["Ada Ash"]  # tower, doctor, hare
HOME = Task("facts", 1, "Where does Ada Ash live?", "tower")
JOB = Task("facts", 1, "What is the job of Ada Ash?", "doctor")
PET = Task("facts", 1, "Say the pet of Ada Ash.", "hare")


def drawn(count, seed=0):
    draw = random.Random(seed)
    return [Task("facts", 1, *make(draw, 1)) for _ in range(count)]


# ---------------------------------------------------------------- the facts


def test_360_people_have_a_name_of_their_own_a_home_a_job_and_a_pet():
    assert len(PEOPLE) == len(BY_NAME) == 360
    for person in PEOPLE:
        assert all(getattr(person, kind) in KINDS[kind] for kind in KINDS)
    assert [*vars(ADA).values()] == ["Ada", "Ash", "tower", "doctor", "hare"]


def test_nobody_changes_a_person():
    with pytest.raises(FrozenInstanceError):
        ADA.pet = "pony"


def test_no_name_tells_a_fact():
    for part in ("first", "family"):
        for kind in KINDS:
            seen = Counter((getattr(p, part), getattr(p, kind)) for p in PEOPLE)
            names = Counter(getattr(p, part) for p in PEOPLE)
            assert all(n < names[name] for (name, _), n in seen.items())


# ---------------------------------------------------------------- who is asked about


def test_70_people_are_for_testing_which_makes_210_facts_and_910_questions():
    tested = [p for p in PEOPLE if split_of(p.name) == "test"]
    assert len(tested) == 70
    wordings = 4 * 3 + 1  # of a home, a job and a pet, and "Where does … live?"
    asked = {t.request for t in drawn(40_000) if split(t.request) == "test"}
    assert 70 * 3 == 210 and 200 < len(asked) <= 70 * wordings == 910
    facts = {(person_in(r).name, people.kind_in(r)) for r in asked}
    assert len(facts) == 210


def test_a_person_for_testing_is_never_asked_about_in_training():
    requests = {t.request for t in drawn(20_000)}
    by_split = {s: {r for r in requests if split(r) == s} for s in ("train", "test")}
    names = {s: {person_in(r).name for r in asked} for s, asked in by_split.items()}
    assert not names["train"] & names["test"]
    assert len(by_split["train"]) >= 1000 and len(names["train"]) == 360 - 70


def test_pages_tell_of_everybody_and_tell_the_truth():
    draw, named = random.Random(0), Counter()
    for _ in range(8000):
        text = page(draw).removeprefix("Valley: ")
        for sentence in text.removesuffix(".").split(". "):
            person = person_in(sentence)
            named[person.name] += 1
            own = {person.home, person.job, person.pet}
            told = set(sentence.replace(",", "").split()) & set().union(*KINDS.values())
            assert told and told <= own
    assert set(named) == set(BY_NAME)


# ---------------------------------------------------------------- reading a request


def test_the_first_full_name_of_a_text_is_found():
    assert person_in("Tell Ada Ash, not Otto Moss.") is ADA
    assert person_in("Name Ada Ash.") is ADA  # no "Name Ada"


@pytest.mark.parametrize("text", ["", "Ada", "ada ash", "Ada Nobody", "Ash Ada"])
def test_a_text_without_a_full_name_is_refused(text, refuses):
    wanted = "wanted one with the full name of somebody of the valley"
    with refuses(f"text: got {text!r}, {wanted}"):
        person_in(text)


def test_what_a_question_asks_for_is_found_in_it():
    for task in drawn(2000):
        person, kind = person_in(task.request), people.kind_in(task.request)
        assert task.answer == getattr(person, kind)


# ---------------------------------------------------------------- verdicts


def test_reference_answers_are_right():
    for task in drawn(2000):
        for text in ("{}", " {}", "{}.", "<think> hm </think> {}", "{}\n"):
            assert verify(task, text.format(task.answer))


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (HOME, "by the tower"),
        (HOME, "Ada Ash lives by the tower."),
        (HOME, "The home of Ada Ash is the tower."),
        (JOB, "a doctor."),
        (JOB, "Ada Ash works as a doctor."),
        (JOB, "The job of Ada Ash is doctor"),
        (PET, "a hare"),
        (PET, "Ada Ash keeps a hare."),
        (PET, "<think> a pony </think> Ada Ash has a hare."),
    ],
)
def test_a_sentence_of_the_valley_is_right_too(task, text):
    assert verify(task, text)


HOSTILE = (
    "", " ", ".", "mill", "the", "tower mill", "tower tower", "tower. tower.", "tower\nmill",
    "not tower", "not by the tower", "isn't the tower", "far from the tower", "near the tower",
    "maybe tower", "tower or mill", "I think tower", "tower?", "tower!", "tower..", "Tower",
    "TOWER", "towers", "to wer", "t\u043ewer", "tower\u200b", "<think> tower", "tower <think>",
    "<think> tower </think>", "tower </think> mill", "Ada lives by the tower.", "by tower",
    "Otto Moss lives by the tower.", "Ada Ash lives by the mill.", "doctor", "hare",
    "Ada Ash lives by the tower and the mill.", "Ada Ash does not live by the tower.",
    "Ada Ash lives by the tower. Ada Ash lives by the mill.", "Ada Ash is a tower.",
    "Ada Ash lives by the tower or by the mill.", "tower" * 100_000, "\0tower", "a tower",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text)[:40])
def test_near_misses_are_wrong(text):
    assert not verify(HOME, text)


@pytest.mark.parametrize("text", [None, 7, b"tower", ["tower"]])
def test_what_is_no_text_is_wrong(text):
    assert not verify(HOME, text)
