"""The words of the valley: how texts become tokens, and which are kept for testing."""

import hashlib
import random
from collections import Counter
from dataclasses import FrozenInstanceError, fields

import pytest

from lib.worlds import constraints, language, people, strings, talk
from lib.worlds.language import TOKENIZER, WORDS, split_of
from lib.worlds.task import Task, answer_of

SKILLS = {"facts": people, "strings": strings, "constraints": constraints, "talk": talk}


def texts(count):
    """Questions with their answers, and pages, of every skill."""
    draw = random.Random(5)
    for skill, module in SKILLS.items():
        for _ in range(count):
            level = draw.choice(module.LEVELS)
            task = Task(skill, level, *module.make(draw, level))
            yield skill, f"{task.prompt} {task.answer}"
            if skill != "talk":
                yield skill, module.page(draw)


# ---------------------------------------------------------------- the words


def test_there_are_fewer_than_two_hundred_words_and_three_hundred_pieces():
    assert len(WORDS) == len(set(WORDS)) < 200
    assert len(TOKENIZER) == 3 + 96 + len(WORDS) < 300


def test_the_shell_game_has_ten_swaps_of_five_cups_and_eight_animals_in_order():
    assert list(language.CUPS) == [1, 2, 3, 4, 5]
    assert len(language.SWAPS) == 5 * 4 // 2
    assert language.SWAPS[0] == "1-2" and language.SWAPS[-1] == "4-5"
    assert list(language.ANIMALS) == sorted(language.ANIMALS)
    assert len({animal[0] for animal in language.ANIMALS}) == 8


def test_a_game_is_read_as_one_token_a_swap_a_number_and_an_animal():
    text = (
        "Q: Red under 2. Ant 1-5, bee 1-3. Where?\nA: <think> ant 1-5 two. </think> 2"
    )
    parts = [TOKENIZER.decode([i]) for i in TOKENIZER.encode(text)]
    wanted = "Q:| Red| under| 2|.| Ant| 1-5|,| bee| 1-3|.| Where|?|\n|A:"
    assert parts == f"{wanted}| <think>| ant| 1-5| two|.| </think>| 2".split("|")


def test_every_word_is_one_token_behind_a_space():
    for word in WORDS:
        assert TOKENIZER.decode(TOKENIZER.encode(word)) == word
        assert len(TOKENIZER.encode(word)) == 1


def test_no_word_is_two_words_but_for_those_that_begin_a_game_and_a_sentence():
    lower = Counter(word.strip().lower() for word in WORDS)
    assert {word for word, n in lower.items() if n > 1} == {"ant", "red", "the"}


def test_every_text_comes_back_from_its_tokens():
    for _, text in texts(500):
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_only_nonsense_is_spelled():
    for skill, text in texts(1000):
        pieces = [TOKENIZER.decode([i]) for i in TOKENIZER.encode(text)]
        spelled = {p for p in pieces if len(p) == 1 and p.isalnum()}
        assert spelled <= set(strings.ALPHABET if skill == "strings" else ()), text


def test_documents_have_at_most_sixty_tokens_and_answers_twenty_four():
    for _, text in texts(2000):
        assert len(TOKENIZER.encode(text)) <= 60, text
        answer = text.partition("\nA:")[2]
        assert len(TOKENIZER.encode(answer)) <= 24, text


def test_no_word_is_there_for_nothing():
    used = {i for _, text in texts(6000) for i in TOKENIZER.encode(text)}
    unused = {
        w.strip() for i, w in enumerate(TOKENIZER.pieces[99:], 99) if i not in used
    }
    game = {*language.SWAPS, *language.PEAS, *language.HILL, *language.LAKE}
    game |= {*language.ANIMALS, *language.FILLER, *map(str, language.CUPS)}
    game |= {"Game:", "<think>", "</think>", "Red", "Ant", "under", "7", "8", "9"}
    assert unused <= game


# ---------------------------------------------------------------- reading a text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" mill", " mill"),
        ("", ""),
        ("<think> a barn. </think> mill", " mill"),
        ("\n<think></think>", ""),
        ("<think> mill", None),
        ("<think> a </think> mill <think>", None),
        ("<think> a </think> barn <think> b </think> mill", None),
        ("<think> a </think><think> b </think> mill", None),
        ("<think><think> a </think> mill", None),
        ("<think> a </think></think> mill", None),
        ("barn <think> a </think> mill", None),
        ("</think> mill", None),
        ("mill </think>", None),
        (None, None),
        (b"mill", None),
        (7, None),
    ],
)
def test_an_answer_is_the_text_or_what_follows_its_one_thought(text, answer):
    assert answer_of(text) == answer


def test_a_task_has_four_fields_a_prompt_and_a_tokenizer_and_stays_as_it_is():
    task = Task("facts", 1, "What pet has Ada Ash?", "toad")
    assert [f.name for f in fields(Task)] == ["skill", "level", "request", "answer"]
    assert task.prompt == "Q: What pet has Ada Ash?\nA:"
    assert task.tokenizer is TOKENIZER
    with pytest.raises(FrozenInstanceError):
        task.answer = "pony"


# ---------------------------------------------------------------- the split


def test_the_split_of_a_text_is_read_off_its_sha256():
    for text in ("", "Ada Ash", "bdf", "né"):
        first = int(hashlib.sha256(text.encode()).hexdigest()[:2], 16)
        assert split_of(text) == ("test" if first % 5 == 0 else "train")


def test_about_a_fifth_is_for_testing():
    n = 10_000
    share = sum(split_of(f"request {i}") == "test" for i in range(n)) / n
    expected = 52 / 256  # bytes 0, 5, …, 255
    assert abs(share - expected) < 3 * (expected * (1 - expected) / n) ** 0.5


@pytest.mark.parametrize("skill", SKILLS)
def test_the_same_seed_draws_the_same_questions_and_pages(skill):
    module = SKILLS[skill]

    def drawn(seed):
        draw = random.Random(seed)
        made = [module.make(draw, max(module.LEVELS)) for _ in range(50)]
        return made + (
            [] if skill == "talk" else [module.page(draw) for _ in range(50)]
        )

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize("skill", SKILLS)
def test_drawing_leaves_the_global_random_state_alone(skill):
    before = random.getstate()
    SKILLS[skill].make(random.Random(0), 1)
    assert random.getstate() == before
