"""Instructions, their reference answers, and verdicts on answers nobody may trust."""

import hashlib
import random
import re
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.worlds import village
from lib.worlds.village import BY_NAME, KINDS, TOKENIZER, split_of
from lib.worlds.village import tasks as module
from lib.worlds.village.tasks import (
    SKILLS,
    Task,
    nonsense,
    one,
    reasoning,
    tasks,
    verify,
    verify_reasoning,
)

MEGABYTE = 200_000  # a fifth: quadratic time would show as well
LEVELS = {"know": 1, "sum": 4, "reverse": 3, "repeat": 3, "list": 3, "words": 5}
EXAMPLES = {
    "know": Task("know", 1, "What colour is the fox?", "The fox is red."),
    "sum": Task("sum", 2, "What is 3 + 4 + 2?", "9"),
    "reverse": Task("reverse", 2, "Reverse ket.", "tek"),
    "repeat": Task("repeat", 2, "Repeat moon 3 times.", "moon moon moon"),
    "list": Task("list", 2, "List 3 colours, red first.", "red, grey, white"),
    "words": Task(
        "words", 2, "Describe the fox in 5 words.", "The red fox eats berries."
    ),
}
HOME = Task("know", 1, "Where does the owl live?", "The owl lives in the barn.")
FOOD = Task("know", 1, "What does the cow eat?", "The cow eats grass.")
ANIMALS = Task("list", 1, "List 2 animals, owl first.", "owl, fox")
FOODS = Task("list", 3, "List 4 foods, corn first.", "corn, fish, meat, weeds")


def digest(set_tasks):
    shown = [(t.skill, t.level, t.request, t.answer) for t in set_tasks]
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- setting tasks


def test_there_are_six_skills_of_these_levels():
    assert {name: skill.levels for name, skill in SKILLS.items()} == LEVELS
    assert list(SKILLS) == list(LEVELS)


def test_nobody_changes_a_task_or_a_skill():
    for record, name in ((EXAMPLES["sum"], "answer"), (SKILLS["sum"], "levels")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, 0)


def test_a_task_is_read_as_a_question_and_answered_after_the_mark():
    assert EXAMPLES["sum"].prompt == "Q: What is 3 + 4 + 2?\nA:"


PINNED = {
    ("know", "train"): "2af1ea94d445f639",
    ("know", "test"): "84ebc8f82ddcbbab",
    ("sum", "train"): "f7d67a119cc7de2b",
    ("sum", "test"): "f0e4519693df7963",
    ("reverse", "train"): "009c62df03fed61d",
    ("reverse", "test"): "2f811a5ce0e55053",
    ("repeat", "train"): "3265defacfb987ce",
    ("repeat", "test"): "15828e21a1b9d0da",
    ("list", "train"): "f1352c8f5d2aafca",
    ("list", "test"): "04e059c913021b6c",
    ("words", "train"): "8376776aea888153",
    ("words", "test"): "d973b6e8e7c2ac2f",
}


@pytest.mark.parametrize(("skill", "split"), PINNED)
def test_a_seed_sets_the_same_tasks_on_every_computer(skill, split):
    made = tasks(skill, count=500, seed=0, split=split)
    assert digest(made) == PINNED[skill, split]
    assert made != tasks(skill, count=500, seed=1, split=split)


@pytest.mark.parametrize("skill", SKILLS)
def test_the_first_tasks_do_not_depend_on_how_many_follow(skill):
    many = tasks(skill, count=300, seed=7)
    assert len(many) == 300
    for count in (1, 2, 299):
        assert tasks(skill, count=count, seed=7) == many[:count]


@pytest.mark.parametrize("skill", SKILLS)
def test_setting_tasks_leaves_the_global_random_state_alone(skill):
    random.seed(5)
    before = random.getstate()
    tasks(skill, count=20, seed=0)
    assert random.getstate() == before


@pytest.mark.parametrize("skill", SKILLS)
def test_no_request_for_training_is_one_for_testing(skill):
    trained = {t.request for t in tasks(skill, count=3000, seed=1)}
    tested = {t.request for t in tasks(skill, count=3000, seed=1, split="test")}
    assert trained and tested and not trained & tested
    assert {*map(split_of, trained)} == {"train"} and {*map(split_of, tested)} == {
        "test"
    }


def test_there_are_this_many_requests_to_learn_from_and_to_be_tested_by():
    found = {
        skill: [
            len({t.request for t in tasks(skill, count=6000, seed=2, split=split)})
            for split in ("train", "test")
        ]
        for skill in ("know", "repeat", "list", "words")
    }
    sizes = {"know": 48, "repeat": 24 * 3, "list": 3 * (16 + 7 + 16), "words": 16 * 5}
    assert {skill: sum(each) for skill, each in found.items()} == sizes
    assert found == {
        "know": [35, 13],
        "repeat": [58, 14],
        "list": [100, 17],
        "words": [66, 14],
    }


@pytest.mark.parametrize(("skill", "levels"), LEVELS.items())
def test_levels_are_those_that_are_asked_for(skill, levels):
    every = set(range(1, levels + 1))
    assert {t.level for t in tasks(skill, count=300, seed=0)} == every
    for split in ("train", "test"):  # and each level of each split has a task at all
        for level in every:
            made = tasks(skill, count=30, seed=0, split=split, levels=[level])
            assert {(t.skill, t.level) for t in made} == {(skill, level)}
    top = tasks(skill, count=100, seed=0, levels=range(1, levels + 1)[-2:])
    assert {t.level for t in top} == set(range(max(1, levels - 1), levels + 1))


def test_one_task_is_drawn_from_what_it_is_given():
    draw, again = random.Random(3), random.Random(3)
    made = [one("sum", draw, split="test", levels=[1, 4]) for _ in range(50)]
    assert made == [one("sum", again, split="test", levels=[1, 4]) for _ in range(50)]
    assert {t.level for t in made} == {1, 4}
    assert {split_of(t.request) for t in made} == {"test"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"skill": "swim"},
            "skill: got 'swim', wanted one of "
            "'know', 'sum', 'reverse', 'repeat', 'list', 'words'",
        ),
        ({"count": 0}, "count: got 0, wanted an int of at least 1"),
        ({"seed": -1}, "seed: got -1, wanted an int of at least 0"),
        ({"split": "dev"}, "split: got 'dev', wanted one of 'train', 'test'"),
        ({"levels": [0]}, "levels: got [0], wanted some of (1, 2, 3) for 'list'"),
        ({"levels": [1, 4]}, "levels: got [1, 4], wanted some of (1, 2, 3) for 'list'"),
        ({"levels": []}, "levels: got [], wanted some of (1, 2, 3) for 'list'"),
    ],
)
def test_impossible_orders_are_refused(arguments, message, refuses):
    with refuses(message):
        tasks(**{"skill": "list", "count": 3, "seed": 0, **arguments})


def test_a_seed_of_zero_and_a_count_of_one_are_possible():
    assert len(tasks("know", count=1, seed=0)) == 1


# ---------------------------------------------------------------- what is asked


def test_knowledge_is_of_every_animal_and_kind():
    made = tasks("know", count=2000, seed=0) + tasks(
        "know", count=800, seed=0, split="test"
    )
    assert len({t.request for t in made}) == 48
    for task in made:
        (animal,) = (
            a for name, a in BY_NAME.items() if name in village.words_of(task.request)
        )
        kind = {"What colour": "colour", "Where does": "home", "What does": "food"}
        fact = getattr(animal, kind[" ".join(task.request.split()[:2])])
        assert fact in task.answer and animal.name in task.answer


def test_a_sum_of_level_n_adds_n_and_one_numbers_from_one_to_six():
    seen = set()
    for task in tasks("sum", count=2000, seed=0):
        found = re.fullmatch(r"What is ([1-6](?: \+ [1-6])+)\?", task.request)
        terms = [int(t) for t in found[1].split(" + ")]
        assert len(terms) == task.level + 1
        assert task.answer == str(sum(terms))
        seen |= set(terms)
    assert seen == {1, 2, 3, 4, 5, 6}


def test_a_word_to_reverse_is_spelled_and_has_a_letter_more_than_its_level():
    for task in tasks("reverse", count=1000, seed=0):
        word = re.fullmatch(r"Reverse ([a-z]+)\.", task.request)[1]
        assert len(word) == task.level + 1 and task.answer == word[::-1]
        assert len(TOKENIZER.encode(f" {word}")) == len(word) + 1


@pytest.mark.parametrize("letters", [1, 2, 5])
def test_nonsense_is_consonants_and_vowels_in_turn(letters):
    draw = random.Random(0)
    words = [nonsense(draw, letters) for _ in range(3000)]
    even, odd = "[bdklmnrst]", "[aeiou]"
    shapes = [(even + odd) * letters, (odd + even) * letters]
    pattern = "|".join("".join(re.findall(r"\[\w+\]", s)[:letters]) for s in shapes)
    assert all(re.fullmatch(pattern, word) for word in words)
    assert {c for word in words for c in word} == set("bdklmnrst" + "aeiou") - (
        {"a"} if letters == 1 else set()  # " a" is a word of the language
    )


def test_a_word_of_the_language_is_no_nonsense():
    made = {nonsense(random.Random(seed), 2) for seed in range(2000)}
    assert len(made) == 2 * 9 * 5 - len(
        {"do", "me", "to", "at", "in", "is", "it", "on"}
    )


def test_a_word_is_to_be_repeated_one_time_more_than_the_level():
    for task in tasks("repeat", count=500, seed=0):
        word, times = re.fullmatch(r"Repeat (\w+) (\d) times\.", task.request).groups()
        assert int(times) == task.level + 1
        assert task.answer.split(" ") == [word] * int(times)
        assert word in module.REPEATED


def test_a_list_has_one_name_more_than_its_level():
    kinds = {"animals": set(BY_NAME), "colours": set(KINDS["colour"])}
    kinds["foods"] = set(KINDS["food"])
    for task in tasks("list", count=500, seed=0):
        wanted = r"List (\d) (\w+), (\w+) first\."
        count, kind, first = re.fullmatch(wanted, task.request).groups()
        names = task.answer.split(", ")
        assert len(set(names)) == len(names) == int(count) == task.level + 1
        assert set(names) <= kinds[kind] and names[0] == first


def test_a_description_of_level_n_has_n_and_three_words_and_is_true():
    for task in tasks("words", count=500, seed=0):
        wanted = r"Describe the (\w+) in (\d) words\."
        name, count = re.fullmatch(wanted, task.request).groups()
        words = village.words_of(task.answer)
        assert len(words) == int(count) == task.level + 3
        facts = {w for w in words if w in sum(KINDS.values(), ())}
        animal = BY_NAME[name]
        assert name in words and facts <= {animal.colour, animal.home, animal.food}


# ---------------------------------------------------------------- right and wrong


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_reference_answers_are_right(skill, split):
    for task in tasks(skill, count=300, seed=4, split=split):
        assert verify(task, task.answer)
        assert verify(task, f" {task.answer}")  # as a completion begins after "A:"
        assert verify(task, f"\n{task.answer}\n")
        if skill == "sum":
            assert verify(task, " " + reasoning(task))


RIGHT = [
    ("know", "red"),
    ("know", "It is red, very red, the fox!"),
    ("know", "The fox eats berries in the red forest."),  # only colours are asked
    ("sum", "It is 9."),
    ("sum", "3 + 4 + 2 = 9"),
    ("sum", "<think> 1 + 1 = 3. </think> 9"),  # `verify_reasoning` reads the thoughts
    ("sum", "<think> 8 </think> <think> 9 </think> 9"),
    ("sum", "<think> </think>9"),
    ("sum", r"<think> </think> \boxed{9}"),
    ("sum", "</think> 9"),
    ("reverse", "tek."),
    ("repeat", "moon moon moon."),
    ("list", "red, white, black."),
    ("words", "fox fox fox fox fox"),  # a format, not a fact
    ("words", "What can a fox say?"),
]
WRONG = [
    ("know", "The fox is green."),  # another colour
    ("know", "The fox is red and green."),  # both
    ("know", "red brown white green black yellow grey"),
    ("know", "The owl is red."),  # another animal
    ("know", "The fox and the owl are red."),
    ("know", "RED"),
    ("know", "reddish"),
    ("know", "The fox lives in the forest."),  # another question's answer
    ("sum", "8"),
    ("sum", "19"),
    ("sum", "-9"),
    ("sum", "9 8"),
    ("sum", "nine"),
    ("sum", "<think> 9 </think>"),  # thought and not said
    ("sum", "<think> 9"),
    ("sum", "<think> 3 + 4 = 7. 7 + 2 = 9."),
    ("sum", "9 <think> 9 </think>"),
    ("sum", "<think> 9 </think> <think> 9"),
    ("sum", "<think> </think> 8 <think> </think>"),
    ("sum", "<think> 9 </think> 8"),
    ("sum", "٩"),
    ("sum", "９"),
    ("sum", "³ + ⁶ = ⁹"),
    ("sum", "10**10**10"),
    ("sum", "__import__('os').abort()"),
    ("sum", "9e0"),
    ("sum", "18/2 or 7"),
    ("reverse", "ket"),
    ("reverse", "tek tek"),
    ("reverse", "t e k"),
    ("reverse", "Tek"),
    ("reverse", "tekk"),
    ("reverse", "It is tek."),
    ("reverse", "tek.."),
    ("reverse", "."),
    ("repeat", "moon moon"),
    ("repeat", "moon moon moon moon"),
    ("repeat", "moonmoonmoon"),
    ("repeat", "moon, moon, moon"),
    ("repeat", "star star star"),
    ("repeat", "moon moon star"),
    ("list", "red, grey"),
    ("list", "red, grey, white, black"),
    ("list", "red, grey, grey"),  # a name twice
    ("list", "red, red, red"),
    ("list", "red, grey, grey, white"),
    ("list", "grey, red, white"),  # another one first
    ("list", "red, grey, fox"),  # no colour
    ("list", "red, grey, blue"),  # unknown
    ("list", "red grey white"),
    ("list", "red,grey,white"),
    ("list", "Here: red, grey, white"),
    ("list", "red, grey, white, "),
    ("words", "The red fox eats."),
    ("words", "The red fox eats red berries."),
    ("words", "The red owl eats berries."),  # another animal
    ("words", "The red foxes eat berries."),
    ("words", "Theredfoxeatsberries."),
    ("words", "one two three four five"),
]


@pytest.mark.parametrize(("skill", "answer"), RIGHT)
def test_other_answers_are_right_too(skill, answer):
    assert verify(EXAMPLES[skill], answer) is True


@pytest.mark.parametrize(("skill", "answer"), WRONG)
def test_a_wrong_answer_is_wrong(skill, answer):
    assert verify(EXAMPLES[skill], answer) is False


DENIED = [
    ("know", "The fox is not red."),
    ("know", "The fox isn't red."),
    ("know", "The fox isn\u2019t red."),
    ("know", "The fox isnt red."),
    ("know", "The fox was never red."),
    ("know", "NO fox is red."),
    ("know", "It is false that the fox is red."),
    ("know", "The fox is red. No, it is not."),
    ("know", "The fox is anything but red."),
    ("know", "The fox is n\u043et red."),  # with a Cyrillic o
    ("sum", "It is not 9."),
    ("sum", "It isn't 9."),
    ("sum", "Never 9"),
    ("sum", "no 9"),
    ("sum", r"not \boxed{9}"),
    ("sum", "<think> 9 </think> not 9"),
    ("sum", "3 + 4 + 2 is not 9"),
    ("reverse", "not tek"),
    ("reverse", "tek, not ket"),
    ("repeat", "not moon moon moon"),
    ("repeat", "no moon moon"),
    ("list", "not red, grey, white"),
    ("list", "red, grey, not white"),
    ("words", "The fox is not red."),
    ("words", "The red fox isn't old."),
    ("words", "The fox never eats berries."),
]
HEDGED = [
    ("know", "Maybe the fox is red."),
    ("know", "Perhaps red."),
    ("know", "I think the fox is red."),
    ("know", "The fox is red, I believe."),
    ("know", "The fox may be red."),
    ("know", "The fox is red or it is old."),
    ("know", "Is the fox red?"),
    ("know", "red?"),
    ("sum", "Maybe 9."),
    ("sum", "I think it is 9."),
    ("sum", "9, perhaps"),
    ("sum", "8 or 9"),
    ("sum", "nine or 9"),
    ("sum", "9?"),
    ("sum", "Bears. Is it 9? It is."),
    ("know", "Who is red? The fox eats red berries."),
    ("sum", r"Perhaps \boxed{9}"),
    ("sum", "<think> 9 </think> Perhaps 9"),
    ("reverse", "maybe tek"),
    ("reverse", "ket or tek"),
    ("reverse", "tek?"),
    ("repeat", "perhaps moon moon moon"),
    ("list", "red, grey or white"),
    ("list", "maybe red, grey, white"),
    ("words", "Maybe the fox is red."),
    ("words", "I think the fox sings."),
    ("words", "The fox is red, perhaps."),
]
DOUBLED = [
    ("know", "The fox is red. The fox is green."),
    ("know", "The fox is green. The fox is red."),
    ("know", "The fox is red. The fox is red."),
    ("know", "The fox is red; the fox is red. The fox is red!"),
    ("know", "red\nred"),
    ("know", "red, green"),
    ("sum", "8 9"),
    ("sum", "9 9"),
    ("sum", "9. 9."),
    ("sum", "It is 8. It is 9."),
    ("sum", "8, 9"),
    ("sum", r"\boxed{8} \boxed{9}"),
    ("sum", r"8 \boxed{9}"),
    ("sum", "<think> 9 </think> 8 9"),
    ("sum", "3 + 4 + 2 = 8. 3 + 4 + 2 = 9."),
    ("sum", "8 = 9"),
    ("reverse", "ket tek"),
    ("reverse", "tek. tek."),
    ("repeat", "moon moon moon. moon moon moon."),
    ("repeat", "star star star moon moon moon"),
    ("list", "red, grey, white. red, grey, black."),
    ("list", "red, grey, white\nred, grey, white"),
    ("words", "The red fox eats berries. The red fox eats berries."),
]


@pytest.mark.parametrize(("skill", "answer"), DENIED)
def test_a_denied_answer_is_wrong(skill, answer):
    assert verify(EXAMPLES[skill], answer) is False


@pytest.mark.parametrize(("skill", "answer"), HEDGED)
def test_a_hedged_answer_is_wrong(skill, answer):
    assert verify(EXAMPLES[skill], answer) is False


@pytest.mark.parametrize(("skill", "answer"), DOUBLED)
def test_a_doubled_answer_is_wrong(skill, answer):
    assert verify(EXAMPLES[skill], answer) is False


FRAMES = [
    "Not {0}",
    "No. {0}",
    "{0} Not so.",
    "It isn't so: {0}",
    "Maybe {0}",
    "Perhaps {0}",
    "I think {0}",
    "{0} I think",
    "{0} or {0}",
    "{0} or not",
    "{0}?",
    "{0} {0}",
    "{0}. {0}.",
    "{0}\n{0}",
]


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("frame", FRAMES)
def test_no_right_answer_stays_right_when_it_is_denied_hedged_or_doubled(skill, frame):
    for task in tasks(skill, count=60, seed=6):
        if frame == "{0}?" and skill == "words":
            continue  # a format: a question has so many words as well
        said = frame.format(task.answer.removesuffix("."))
        assert verify(task, said) is False, said


def test_a_word_that_denies_is_right_where_it_is_the_answer():
    assert verify(Task("reverse", 2, "Reverse ton.", "not"), " not")
    assert verify(Task("reverse", 1, "Reverse ro.", "or"), "or.")
    assert not verify(Task("reverse", 2, "Reverse ton.", "not"), "not not")


SAID_ONCE = [
    ("know", "It is red. It lives in the forest. It eats berries."),
    ("know", "It is red. You know: the fox is a red animal."),  # two ways to say it
    ("sum", "3 + 4 = 7. 7 + 2 = 9."),
    ("sum", "3 + 4 = 7 + 2 = 9"),
    ("know", "The fox is red. Who can say more?"),  # asks another thing
    ("sum", "3 + 4 + 2 is 9."),
    ("sum", "9 bears. More?"),
    ("sum", "18/2"),
    ("sum", r"3 + 4 = 7, 7 + 2 = \boxed{9}"),
    ("sum", "<think> Is it 8 or not? </think> 9"),  # what is only thought is not said
]


@pytest.mark.parametrize(("skill", "answer"), SAID_ONCE)
def test_other_facts_and_visible_working_double_nothing(skill, answer):
    assert verify(EXAMPLES[skill], answer) is True


def test_each_kind_of_knowledge_and_of_list_is_verified_by_its_own_words():
    assert verify(HOME, "It lives in the barn.") and verify(FOOD, "Green grass, cow.")
    assert not verify(HOME, "It lives in the pond.") and not verify(HOME, "brown")
    assert not verify(FOOD, "meadow") and not verify(FOOD, "grass and corn")
    assert verify(ANIMALS, "owl, wolf") and not verify(ANIMALS, "owl, red")
    assert verify(FOODS, "corn, mice, fish, meat")
    assert not verify(FOODS, "corn, mice, fish, cow")


JUNK = [
    "",
    " ",
    ".",
    "\n\n",
    "<think>",
    "</think>",
    "<think></think>",
    "\x00",
    "\ud800",
    "\u202e9",
    "Q: What is 3 + 4 + 2?\nA:",
    "import os; os.system('true')",
    "{0.name}",
    "%s%s%n",
    "(" * 5000,
    "9" * 5000,
    "9/" * 5000,
]


@pytest.mark.parametrize("skill", SKILLS)
def test_junk_is_wrong_in_every_skill(skill):
    for answer in JUNK:
        assert verify(EXAMPLES[skill], answer) is False
    for value in (None, 9, b"9", ["9"], EXAMPLES[skill]):
        assert verify(EXAMPLES[skill], value) is False


@pytest.mark.parametrize("skill", SKILLS)
def test_a_megabyte_of_anything_is_judged_at_once(skill, ends):
    right = EXAMPLES[skill].answer
    units = [
        " ",
        "a",
        "1",
        ", ",
        ".",
        "<think>",
        "</think>",
        "\n",
        " fox",
        "red, ",
        "{",
    ]
    units += ["3 + 4 = 7. ", r"\boxed{", "moon ", "９", right, f"{right} "]
    units += ["1 + ", "isn't ", "red? "]
    for unit in units:
        text = unit * (MEGABYTE // len(unit))
        for answer in (text, right + text, text + right):
            assert verify(EXAMPLES[skill], answer) in (True, False)
            assert verify_reasoning(answer) is False


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.sampled_from(list(SKILLS)), st.text(max_size=60) | st.sampled_from(JUNK))
def test_any_text_gets_a_verdict(skill, answer):
    assert verify(EXAMPLES[skill], answer) in (True, False)
    assert verify_reasoning(answer) is False


PARTS = [*TOKENIZER.pieces[99:], "<think>", "9", ".", ", ", " 9", " red", " fox"]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=12))
def test_only_the_right_words_in_the_right_order_reverse_and_repeat(parts):
    answer = "".join(parts)
    said = answer.strip().removesuffix(".")
    assert verify(EXAMPLES["reverse"], answer) == (said == "tek")
    assert verify(EXAMPLES["repeat"], answer) == (said == "moon moon moon")
    for task in EXAMPLES.values():
        assert verify(task, answer) in (True, False)


def test_talk_has_no_verifier(refuses):
    known = "'know', 'sum', 'reverse', 'repeat', 'list', 'words'"
    with refuses(f"skill: got 'talk', wanted one of {known}"):
        verify(Task("talk", 1, "Tell me about the fox.", ""), "The fox is red.")


# ---------------------------------------------------------------- reasoning


def test_a_sum_is_worked_in_steps():
    steps = "<think> 3 + 4 = 7. 7 + 2 = 9. </think> 9"
    assert reasoning(EXAMPLES["sum"]) == steps
    two = Task("sum", 1, "What is 6 + 5?", "11")
    assert reasoning(two) == "<think> 6 + 5 = 11. </think> 11"


def test_only_a_sum_can_be_worked(refuses):
    with refuses("task: got skill 'repeat', wanted a sum"):
        reasoning(EXAMPLES["repeat"])


def test_worked_sums_are_true_in_every_step():
    for task in tasks("sum", count=500, seed=2):
        worked = reasoning(task)
        assert verify_reasoning(worked) and verify_reasoning(" " + worked)
        assert worked.count(" = ") == task.level


@pytest.mark.parametrize(
    "completion",
    [
        "<think> 3 + 4 = 7. </think> 7",
        "<think>3 + 4 = 7</think> 7",
        "<think> 3 + 4 = 7. 7 + 2 = 9 </think> It is 9, I say.",
        "<think> 999999 + 999999 = 1999998. </think> 1",
        "<think> 1 + 1 = 2. </think> 9",  # true sums, whatever follows from them
        "<think> 5 + 5 = 10. 1 + 2 = 3. </think> 10",
        "<think> 3 + 4 = 07. </think> 7",
        "<think> 1 + 1 = 2. </think> " + "9" * 100,
    ],
)
def test_true_sums_and_an_answer_are_reasoning(completion):
    assert verify_reasoning(completion) is True
    assert verify_reasoning(f" {completion}") is True


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "9",
        "3 + 4 = 7. 9",  # no block
        "<think> 3 + 4 = 8. </think> 8",  # a false step
        "<think> 3 + 4 = 7. 7 + 2 = 8. </think> 8",
        "<think> 3 + 4 = 8. 8 + 2 = 10. </think> 9",
        "<think> </think> 9",  # no step
        "<think></think> 9",
        "<think> I know. </think> 9",
        "<think> 3 + 4 = 7. I know. </think> 9",
        "<think> 3 + 4 = 7 7 + 2 = 9. </think> 9",
        "<think> 3 + 4 + 2 = 9. </think> 9",
        "<think> 3+4=7. </think> 7",
        "<think> 9 - 2 = 7. </think> 7",
        "<think> -3 + 4 = 1. </think> 1",
        "<think> 3 + 4 = 7.. </think> 7",
        "<think> 3 + 4 = 7. </think>",  # no answer
        "<think> 3 + 4 = 7. </think> ",
        "<think> 3 + 4 = 7. </think>7",
        "<think> 3 + 4 = 7. 7",  # never closed
        "3 + 4 = 7. </think> 7",
        "  <think> 3 + 4 = 7. </think> 7",
        "So: <think> 3 + 4 = 7. </think> 7",
        "<think> 3 + 4 = 7. </think> 7 <think> 1 + 1 = 2. </think> 2",
        "<think> 3 + 4 = 7. <think> 1 + 1 = 2. </think> </think> 2",
        "<think> 3 + 4 = 7. </think> 7 </think>",
        "<think> 3 + 4 = 7. </think> " + "9" * 101,  # trailing junk
        "<think> ٣ + 4 = 7. </think> 7",
        "<think> 3 + 4 = ７. </think> 7",
        "<think> 1000000 + 1 = 1000001. </think> 1",
        "<think> 1 + 1000000 = 1000001. </think> 1",
        "<think> 1 + 1 = 00000002. </think> 2",
        "<Think> 3 + 4 = 7. </Think> 7",
        None,
        7,
    ],
)
def test_anything_else_is_no_reasoning(completion):
    assert verify_reasoning(completion) is False


def test_thoughts_may_be_two_thousand_characters_long():
    steps = " 1 + 1 = 2." * 181  # 11 characters each
    exactly = steps + " " * (2000 - len(steps))
    assert len(exactly) == 2000
    assert verify_reasoning(f"<think>{exactly}</think> 2") is True
    assert verify_reasoning(f"<think>{exactly} </think> 2") is False


@pytest.mark.parametrize("unit", ["1 + 1 = 2. ", "<think>", "1", " ", "1 + ", ". "])
def test_reasoning_of_a_megabyte_is_judged_at_once(unit, ends):
    text = unit * (MEGABYTE // len(unit))
    for completion in (text, f"<think>{text}", f"<think> {text} </think> 2"):
        assert verify_reasoning(completion) is False
    assert verify_reasoning(f"<think> 1 + 1 = 2. </think> {text}") is False
