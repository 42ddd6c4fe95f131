"""The village: who lives there, what its words are, and who is told what."""

import hashlib
import re
from dataclasses import FrozenInstanceError

import pytest

from lib.worlds import village
from lib.worlds.village import animal_in, split_of, taste, words_of
from lib.worlds.village.corpus import documents
from lib.worlds.village.tasks import SKILLS, reasoning, tasks


def digest(x):
    return hashlib.sha256(repr(x).encode()).hexdigest()[:16]


def spelled(text):
    """What the tokenizer spells of a text: two or more letters or digits in a row."""
    pieces = [village.TOKENIZER.decode([i]) for i in village.TOKENIZER.encode(text)]
    alone = "".join(p if len(p) == 1 and p.isalnum() else " " for p in pieces)
    return [word for word in alone.split() if len(word) > 1]


# ---------------------------------------------------------------- the facts


def test_sixteen_animals_live_in_the_village():
    assert len(village.ANIMALS) == len(village.BY_NAME) == 16
    fox = {"name": "fox", "colour": "red", "home": "forest", "food": "berries"}
    assert vars(village.ANIMALS[0]) == fox
    assert [*vars(village.ANIMALS[-1]).values()] == ["wolf", "grey", "cave", "meat"]
    assert digest(village.ANIMALS) == "fceea68a608fc552"


def test_nobody_changes_an_animal():
    with pytest.raises(FrozenInstanceError):
        village.ANIMALS[0].colour = "green"


def test_no_two_animals_are_alike_and_none_is_told_by_its_home_or_colour_alone():
    assert len({(a.colour, a.home) for a in village.ANIMALS}) == 16
    assert len({a.food for a in village.ANIMALS}) == 16
    assert (
        len({a.colour for a in village.ANIMALS})
        < len({a.home for a in village.ANIMALS})
        < 16
    )


def test_an_animal_is_found_by_its_name():
    assert all(village.BY_NAME[a.name] is a for a in village.ANIMALS)


def test_the_kinds_of_facts_are_sorted_and_share_no_word():
    assert list(village.KINDS) == ["colour", "home", "food"]
    for kind, values in village.KINDS.items():
        assert values == tuple(sorted({getattr(a, kind) for a in village.ANIMALS}))
    every = [*village.BY_NAME, *village.KIND_WORDS, *sum(village.KINDS.values(), ())]
    assert len(every) == len(set(every)) == 16 + 7 + 7 + 10 + 16


# ---------------------------------------------------------------- the words


def test_the_vocabulary_is_the_one_that_models_were_trained_with():
    assert len(village.TOKENIZER) == 307
    assert digest(village.TOKENIZER.pieces) == "590224e3b9227883"


def test_no_word_is_missing_from_what_is_asked_and_answered():
    for skill in SKILLS.keys() - {"reverse"}:
        for split in ("train", "test"):
            for task in tasks(skill, count=200, seed=1, split=split):
                assert not spelled(f"{task.prompt} {task.answer}")
                if skill == "sum":
                    assert not spelled(f"A: {reasoning(task)}")
    for task in taste.requests(count=500, seed=1):
        assert not spelled(f"{task.prompt} {task.answer}")


def test_only_nonsense_is_spelled_in_the_papers():
    for text in documents(count=4000, seed=1):
        nonsense = "everse" in text or "backwards" in text
        assert not spelled(text) or nonsense, text


def test_no_word_is_there_for_nothing():
    texts = documents(count=6000, seed=2)
    used = {i for text in texts for i in village.TOKENIZER.encode(text)}
    unused = {
        word
        for i, word in enumerate(village.TOKENIZER.pieces[99:], 99)
        if i not in used
    }
    assert unused == {" 0", *(f" {n}" for n in range(31, 41))}  # no sum is so large


def test_every_word_is_one_token_within_a_sentence():
    for word in [
        *village.BY_NAME,
        *village.KIND_WORDS,
        *sum(village.KINDS.values(), ()),
    ]:
        assert len(village.TOKENIZER.encode(f" {word}.")) == 2
    assert all(len(village.TOKENIZER.encode(f" {n}")) == 1 for n in range(41))
    assert len(village.TOKENIZER.encode(" 41")) == 3


def test_a_sum_is_read_as_numbers_and_marks():
    ids = village.TOKENIZER.encode(
        "Q: What is 3 + 12?\nA: <think> 3 + 12 = 15. </think> 15"
    )
    parts = [village.TOKENIZER.decode([i]) for i in ids]
    text = "Q:| What| is| 3| +| 12|?|\n|A:| <think>| 3| +| 12| =| 15|.| </think>| 15"
    assert parts == text.split("|")


# ---------------------------------------------------------------- reading a text


def test_the_words_of_a_text_are_its_letters_and_digits():
    assert words_of("The fox's 3+4, <b>_x\n") == ["The", "fox", "s", "3", "4", "b", "x"]
    assert words_of("") == words_of("… ٣ é!") == []


def test_the_first_animal_that_a_text_names_is_found():
    assert animal_in("Tell me about the owl, not the fox.") == village.BY_NAME["owl"]
    assert animal_in("fox") == village.BY_NAME["fox"]


@pytest.mark.parametrize("text", ["", "Tell me about the dog.", "foxes", "FOX"])
def test_a_text_without_an_animal_is_refused(text, refuses):
    message = f"text: got {text!r}, wanted one that names an animal of the village"
    with refuses(message):
        animal_in(text)


# ---------------------------------------------------------------- the split


def test_the_split_of_a_text_is_read_off_its_sha256():
    for text in ("", "fox", "What is 5 + 3?", "né"):
        first = int(hashlib.sha256(text.encode()).hexdigest()[:2], 16)
        assert split_of(text) == ("test" if first % 5 == 0 else "train")


def test_the_split_of_a_request_never_changes():
    tests = ("What is 5 + 3?", "Where does the swan live?", "Repeat wolf 2 times.")
    trains = ("What is 3 + 4?", "What colour is the fox?", "Repeat swan 3 times.")
    assert {*map(split_of, tests)} == {"test"}
    assert {*map(split_of, trains)} == {"train"}


def test_about_a_fifth_is_for_testing():
    n = 10_000
    share = sum(split_of(f"request {i}") == "test" for i in range(n)) / n
    expected = 52 / 256  # bytes 0, 5, …, 255
    assert abs(share - expected) < 3 * (expected * (1 - expected) / n) ** 0.5


def test_words_of_the_village_are_plain():
    words = village.TOKENIZER.pieces[99:]
    assert all(re.fullmatch(r" ?(</?think>|[A-Za-z]+:?|[0-9]+|[+=])", w) for w in words)
