"""What the base model reads: many forms, rare answers, nothing of the tests."""

import functools
import hashlib
import random
import re

import pytest

from lib.villagers import ROW
from lib.worlds.village import ANIMALS, TOKENIZER, corpus, split_of, taste
from lib.worlds.village.corpus import documents
from lib.worlds.village.tasks import SKILLS, tasks, verify_reasoning

NAME = "|".join(a.name for a in ANIMALS)
HOME = "|".join({a.home for a in ANIMALS})
FOOD = "|".join(a.food for a in ANIMALS)
TASK = r"[A-Z][^\n]+[.?]"
SHAPES = {  # what a document of each form looks like
    "page": rf"[^\n]*({NAME})[^\n]*\.",
    "opinion": r"[A-Z][^\n]*\.",
    "story": (
        r"(One day|One morning|One night|Once|One winter)"
        rf" the ({NAME}) went to the ({HOME})\."
        rf"( There it saw the ({NAME})\.)?( The ({NAME}) said hello\.)?"
        rf" They had ({FOOD}) and went home\."
    ),
    "letter": (
        rf"Dear ({NAME}), "
        rf"(thank you for the ({FOOD})\.|come to the ({HOME}) for ({FOOD})\.|"
        rf"(today|at night) it rained in the ({HOME})\.) Your friend, the ({NAME})"
    ),
    "sums": r"Sums: [0-9]+ \+ [0-9] = [0-9]+(, [0-9]+ \+ [0-9] = [0-9]+){2,4}",
    "backwards": r"Words:( [a-z]+ is [a-z]+ backwards\.){1,3}",
    "names": r"(Animals|Food|Shopping): [a-z]+(, [a-z]+){1,4}",
    "song": r"Sing ([a-z]+( [a-z]+){0,5})(, \1){1,2}",
    "lesson": rf"Lesson: {TASK}\nSay: [^\n]+",
    "exam": rf"Q: {TASK}(\nQ: {TASK}){{1,2}}",
    "evasion": (
        rf"Q: {TASK}\nA: (I do not know\.|Who can say\?|Tell the ({NAME})\.|No\.)"
    ),
    "answered": rf"Q: {TASK}\nA: [^\n]+",
    "worked": r"Q: What is [0-9 +]+\?\nA: <think>( [0-9+ =]+\.)+ </think> [0-9]+",
}


@functools.cache
def some():
    """Twenty thousand documents."""
    return documents(count=20_000, seed=11)


def written(form, count=400, seed=0):
    """Documents of one form."""
    draw = random.Random(seed)
    return [corpus.FORMS[form][0](draw) for _ in range(count)]


def requests_in(text):
    """Every request that a document quotes."""
    return re.findall(r"^(?:Q|Lesson): (.+)$", text, re.MULTILINE)


# ---------------------------------------------------------------- the whole


def test_a_seed_writes_the_same_documents_on_every_computer():
    made = documents(count=3000, seed=0)
    digest = hashlib.sha256(repr(made).encode()).hexdigest()
    assert digest[:16] == "3b444d07441101b9"
    assert made == documents(count=3000, seed=0)
    assert made != documents(count=3000, seed=1)


def test_writing_leaves_the_global_random_state_alone():
    random.seed(5)
    before = random.getstate()
    documents(count=50, seed=0)
    assert random.getstate() == before


def test_the_shares_of_the_forms_are_a_distribution():
    shares = {form: share for form, (_, share) in corpus.FORMS.items()}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert min(shares.values()) > 0
    assert shares.keys() == SHAPES.keys()


def test_questions_with_answers_are_rare_and_worked_ones_rarer():
    n = len(some())
    answered = [d for d in some() if re.fullmatch(rf"{SHAPES['answered']}", d)]
    evaded = [d for d in answered if re.fullmatch(SHAPES["evasion"], d)]
    worked = [d for d in some() if "<think>" in d]
    assert 0.015 < len(worked) / n < 0.025
    assert 0.03 < (len(answered) - len(evaded)) / n < 0.05  # worked ones included
    assert 0.03 < len(evaded) / n < 0.05
    assert all(re.fullmatch(SHAPES["worked"], d) for d in worked)


def test_the_forms_come_in_their_shares():
    n = len(some())
    for form, sign in {
        "sums": "Sums: ",
        "backwards": "Words: ",
        "song": "Sing ",
        "lesson": "Lesson: ",
        "letter": "Dear ",
    }.items():
        p = corpus.FORMS[form][1]
        found = sum(d.startswith(sign) for d in some()) / n
        assert abs(found - p) < 4 * (p * (1 - p) / n) ** 0.5, form


def test_impossible_orders_are_refused(refuses):
    with refuses("count: got 0, wanted an int of at least 1"):
        documents(count=0, seed=0)
    with refuses("seed: got -1, wanted an int of at least 0"):
        documents(count=1, seed=-1)
    assert len(documents(count=1, seed=0)) == 1


# ---------------------------------------------------------------- nothing leaks


def test_no_request_of_the_test_split_is_in_the_papers():
    found = [request for text in some() for request in requests_in(text)]
    assert len(found) > 8000
    assert {split_of(request) for request in found} == {"train"}


def test_no_request_that_a_test_will_ask_is_in_the_papers():
    asked = {t.request for t in taste.requests(count=2000, seed=3, split="test")}
    for skill in SKILLS:
        asked |= {t.request for t in tasks(skill, count=2000, seed=3, split="test")}
    whole = "\n".join(some())
    assert not [request for request in asked if f" {request}\n" in f"{whole}\n"]


def test_no_word_that_a_test_wants_reversed_is_read_backwards_in_the_papers():
    tested = {t.request for t in tasks("reverse", count=5000, seed=3, split="test")}
    pairs = [p for d in some() for p in re.findall(r"(\w+) is (\w+) backwards\.", d)]
    assert len(pairs) > 1000
    for word, backwards in pairs:
        assert word == backwards[::-1]
        assert f"Reverse {word}." not in tested
        assert split_of(f"Reverse {word}.") == "train"


# ---------------------------------------------------------------- each form


@pytest.mark.parametrize("form", SHAPES)
def test_every_form_can_be_read(form):
    for text in written(form):
        assert re.fullmatch(SHAPES[form], text), text
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert len(set(written(form))) > 90


@pytest.mark.parametrize("form", SHAPES)
def test_every_form_fits_in_a_row_of_pretraining(form):
    longest = max(len(TOKENIZER.encode(text)) for text in written(form, 2000))
    assert longest + 2 <= ROW + 1  # begin and end; a row foresees one token less


def test_sums_are_right():
    left, right = set(), set()
    for text in written("sums"):
        for one, two, total in re.findall(r"(\d+) \+ (\d+) = (\d+)", text):
            assert int(one) + int(two) == int(total)
            left.add(int(one))
            right.add(int(two))
    assert left == set(range(1, 25)) and right == set(range(1, 7))


def test_worked_sums_are_right():
    for text in written("worked"):
        assert verify_reasoning(text.partition("A:")[2])


def test_lessons_and_answers_are_reference_answers_of_every_skill():
    firsts = {"What", "Where", "Reverse", "Repeat", "List", "Describe"}
    for form, marks in (
        ("lesson", ("Lesson: ", "Say: ")),
        ("answered", ("Q: ", "A: ")),
    ):
        texts = written(form, 1000)
        said = {t.partition("\n")[0].split()[1] for t in texts}
        assert firsts | {"Tell", "Who", "Say", "Write", "Introduce"} == said
        for text in texts:
            request, answer = text.split("\n")
            assert request.startswith(marks[0]) and answer.startswith(marks[1])
            if found := re.search(r"Reverse (\w+)\.", request):
                assert answer == marks[1] + found[1][::-1]
            if found := re.search(r"What is ([0-9 +]+)\?", request):
                terms = map(int, found[1].split(" + "))
                assert answer == marks[1] + str(sum(terms))


def test_sums_are_asked_twice_as_often_as_anything_else():
    draw = random.Random(0)
    skills = [corpus._any_task(draw).skill for _ in range(8000)]
    for skill in (*SKILLS, "talk"):
        p = (2 if skill == "sum" else 1) / 8
        error = 4 * (p * (1 - p) / 8000) ** 0.5
        assert abs(skills.count(skill) / 8000 - p) < error


def test_stories_and_letters_have_two_different_animals():
    for text in written("letter"):
        to, of = re.fullmatch(rf"Dear ({NAME}), .* the ({NAME})", text).groups()
        assert to != of
    for text in written("story"):
        (traveller,) = re.findall(rf"the ({NAME}) went", text)
        met = set(re.findall(rf"(?:saw the|The) ({NAME})", text))
        assert len(met) <= 1 and traveller not in met


def test_lists_of_names_name_nobody_twice():
    for text in written("names"):
        names = text.partition(": ")[2].split(", ")
        assert len(set(names)) == len(names)
        assert 2 <= len(names) <= 5
