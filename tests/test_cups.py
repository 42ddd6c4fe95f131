"""The shell game: where the peas go, how it is told, and verdicts on answers."""

import itertools
import random
from dataclasses import FrozenInstanceError

import pytest

from lib.worlds import cups
from lib.worlds.cups import (
    DIALECTS,
    LEVELS,
    Game,
    answer,
    asked,
    dialects,
    faithful,
    game_of,
    make,
    new_game,
    retold,
    setup,
    split,
    thought,
    verify,
    worked,
)
from lib.worlds.language import ANIMALS, CUPS, HILL, LAKE, SWAPS, TOKENIZER, split_of
from lib.worlds.task import Task

GAME = Game((2, 5), ("1-5", "2-3"))
TASK = Task("cups", 2, "Red 2, blue 5. ant 1-5, bee 2-3. Where?", "3 1")
HILL_STEPS = "two five ant 1-5 two one bee 2-3 three one"
LAKE_STEPS = "deux cinq ant 1-5 deux un bee 2-3 trois un"


def games(count, seed=0):
    """Games of every level, in turn."""
    draw = random.Random(seed)
    return [new_game(draw, LEVELS[i % len(LEVELS)]) for i in range(count)]


def task_of(game):
    return Task("cups", len(game.swaps), asked(game), answer(game))


def moved(game):
    """Where both peas end, found by moving what lies on a table of five cups."""
    table = dict.fromkeys(map(str, CUPS), "")
    table[str(game.start[0])], table[str(game.start[1])] = "red", "blue"
    for swap in game.swaps:
        a, b = swap.split("-")
        table[a], table[b] = table[b], table[a]
    under = {pea: cup for cup, pea in table.items() if pea}
    return int(under["red"]), int(under["blue"])


# ---------------------------------------------------------------- the game


def test_every_game_of_one_and_of_two_swaps_ends_as_on_a_table():
    starts = list(itertools.permutations(CUPS, 2))
    assert len(starts) == 20
    for swaps in (*itertools.product(SWAPS), *itertools.product(SWAPS, SWAPS)):
        for start in starts:
            game = Game(start, swaps)
            assert game.states()[-1] == moved(game)


def test_long_games_too_and_their_states_are_those_of_their_beginnings():
    for game in games(600):
        so_far = [moved(Game(game.start, game.swaps[: n + 1])) for n in range(99)]
        assert game.states() == so_far[: len(game.swaps)]
    assert Game((2, 5), ()).states() == []


def test_every_start_and_swap_is_as_likely_as_any_other():
    draw, n = random.Random(0), 20_000
    drawn = [new_game(draw, 2) for _ in range(n)]
    starts = [game.start for game in drawn]
    for start in itertools.permutations(CUPS, 2):
        assert abs(starts.count(start) / n - 1 / 20) < 5 * (0.05 * 0.95 / n) ** 0.5
    for place in range(2):
        swaps = [game.swaps[place] for game in drawn]
        for swap in SWAPS:
            assert abs(swaps.count(swap) / n - 0.1) < 5 * (0.1 * 0.9 / n) ** 0.5


def test_the_level_is_the_number_of_swaps():
    draw = random.Random(1)
    for level in LEVELS:
        for _ in range(50):
            request, _ = make(draw, level)
            assert len(game_of(Task("cups", level, request, "")).swaps) == level
    assert [*LEVELS] == [2, 3, 4, 5, 6, 7]


def test_nobody_changes_a_game():
    with pytest.raises(FrozenInstanceError):
        GAME.start = (1, 2)


@pytest.mark.parametrize("start", [(2, 2), (0, 1), (1, 6), (1,), (1, 2, 2)])
def test_two_peas_lie_under_two_of_five_cups(start, refuses):
    with refuses(f"start: got {start}, wanted two of the cups 1 … 5"):
        Game(start, ())


@pytest.mark.parametrize("swaps", [("5-1",), ("1-1",), ("1-6",), ("1-2",) * 9])
def test_a_swap_is_of_two_cups_and_an_animal_makes_it(swaps, refuses):
    wanted = "at most 8, each such as '1-5', the lower cup first"
    with refuses(f"swaps: got {swaps}, wanted {wanted}"):
        Game((1, 2), swaps)


# ---------------------------------------------------------------- in words


def test_a_game_is_told_asked_retold_and_answered_like_this():
    assert setup(GAME) == "Red 2, blue 5. ant 1-5, bee 2-3."
    assert asked(GAME) == "Red 2, blue 5. ant 1-5, bee 2-3. Where?"
    assert retold(GAME, "hill") == HILL_STEPS
    assert retold(GAME, "lake") == LAKE_STEPS
    assert answer(GAME) == "3 1"
    assert worked(GAME, "hill") == f"<think> {HILL_STEPS} </think> 3 1"


def test_the_game_is_found_again_in_what_is_asked():
    assert game_of(TASK) == GAME
    for game in games(600):
        assert game_of(task_of(game)) == game
        assert setup(game) + " Where?" == asked(game)


def test_animals_pass_in_the_order_of_the_alphabet():
    for game in games(60):
        said = retold(game, "lake").split()
        assert [w for w in said if w in ANIMALS] == [*ANIMALS[: len(game.swaps)]]


def test_what_is_retold_says_each_swap_and_each_state_in_order():
    for game in games(300):
        for name, words in (("hill", HILL), ("lake", LAKE)):
            said = retold(game, name).split()
            places = [words.index(w) + 1 for w in said if w in words]
            states = [game.start, *game.states()]
            assert places == [cup for state in states for cup in state]
            assert [w for w in said if w in SWAPS] == [*game.swaps]


@pytest.mark.parametrize(
    ("skill", "request_"),
    [
        ("facts", TASK.request),
        ("cups", ""),
        ("cups", "Where?"),
        ("cups", "Red 2, blue 2. ant 1-5, bee 2-3. Where?"),
        ("cups", "Red 2, blue 6. ant 1-5, bee 2-3. Where?"),
        ("cups", "Red 2, blue 5. bee 1-5, ant 2-3. Where?"),
        ("cups", "Red 2, blue 5. ant 1-5, bee 3-2. Where?"),
        ("cups", "Red 2, blue 5. ant 1-5, bee 2-2. Where?"),
        ("cups", "Red 2, blue 5. ant 1-5 bee 2-3. Where?"),
        ("cups", "Red 2, blue 5. ant 1-5, bee 2-3. Where? "),
        ("cups", "Red 2, blue 5. . Where?"),
        ("cups", "Red 2, blue 5. " + "ant 1-5, " * 15 + "ant 1-5. Where?"),
    ],
)
def test_what_is_no_game_is_refused(skill, request_, refuses):
    with refuses(f"task: got {request_!r}, wanted a game of cups"):
        game_of(Task(skill, 2, request_, ""))


def test_each_game_has_its_own_split():
    for game in games(300):
        assert split(asked(game)) == split_of(asked(game))


def test_the_longest_worked_answer_takes_forty_eight_tokens_at_most():
    longest = Game((2, 5), ("1-5",) * max(LEVELS))
    for name in DIALECTS:
        assert len(TOKENIZER.encode(f" {worked(longest, name)}")) + 1 <= 48


# ---------------------------------------------------------------- right or wrong


def test_reference_answers_are_right_at_once_and_worked():
    for game in games(600):
        task = task_of(game)
        for text in ("{}", " {}", "{}.", " {}\n", "<think> hm </think> {}"):
            assert verify(task, text.format(answer(game)))
        for name in DIALECTS:
            assert verify(task, f" {worked(game, name)}")


def test_of_all_answers_of_two_digits_one_is_right():
    for game in games(30):
        task = task_of(game)
        texts = [f"{a} {b}" for a in range(10) for b in range(10)]
        assert [t for t in texts if verify(task, t)] == [answer(game)]


HOSTILE = (
    "", " ", ".", "3", "1", "31", "3,1", "3-1", "3 1 1", "3 3 1", "3 1 3 1", "3 1. 3 1.",
    "3 1\n3 1", "1 3", "2 5", "three one", "trois un", "Red 3, blue 1.", "red 3 blue 1",
    "not 3 1", "3 not 1", "not 3 1.", "isn't 3 1", "far from 3 1", "no 3 1", "never 3 1",
    "maybe 3 1", "3 1?", "3 1 or 1 3", "3 1 or 2 5", "I think 3 1", "3 or 1", "3 1 hm",
    "3 1!", "3 1..", "3  1", "-3 1", "+3 1", "3.0 1", "03 1", "3 1 not", "\u0663 \u0661",
    "\uff13 1", "3\u200b1", "3 1\0", "3 1 <think>", "<think> 3 1", "<think> 3 1 </think>",
    "<think> hm </think>", "3 1 </think>", "3 1 <think> hm </think>", "</think> 3 1",
    "<think> hm </think> 1 3 <think> hm </think> 3 1", "1 3 </think> 3 1",
    "3 1 <think> hm </think> 3 1", "<think> a </think> <think> b </think> 3 1",
    "<think> <think> hm </think> 3 1", "<think> hm </think> </think> 3 1",
    "<think> hm </think> 3 1 <think> no </think>", "< think > hm < /think > 3 1",
    " " * 1_000_000 + "3 1", "3 1" + " " * 1_000_000, "3 1 " * 250_000,
    "<think>" * 140_000 + "3 1", "<think> " + "hm " * 300_000, "</think>" * 120_000,
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text)[:40])
def test_near_misses_are_wrong(text):
    assert not verify(TASK, text)
    assert not faithful(TASK, text)


@pytest.mark.parametrize("text", [None, 31, b"3 1", ["3", "1"], ("3 1",)])
def test_what_is_no_text_is_wrong(text):
    assert not verify(TASK, text)
    assert not faithful(TASK, text)


# ---------------------------------------------------------------- faithful


def thinking(steps, said="3 1"):
    return f" <think> {steps} </think> {said}"


def test_worked_answers_are_faithful_in_either_dialect_and_in_both():
    draw = random.Random(3)
    for game in games(300):
        task = task_of(game)
        for name in DIALECTS:
            assert faithful(task, f" {worked(game, name)}")
        mixed = zip(retold(game, "hill").split(), retold(game, "lake").split())
        assert faithful(task, thinking(" ".join(map(draw.choice, mixed)), task.answer))
    assert not faithful(TASK, thinking("2 5 ant 1-5 2 1 bee 2-3 3 1"))  # digits


def test_every_word_that_is_missing_doubled_or_swapped_with_the_next_is_noticed():
    for game in games(60):
        task = task_of(game)
        for name in DIALECTS:
            words = retold(game, name).split()
            for at in range(len(words)):
                gone = words[:at] + words[at + 1 :]
                twice = words[: at + 1] + words[at:]
                turned = [*words[:at], *reversed(words[at : at + 2]), *words[at + 2 :]]
                for steps in (gone, twice, *([turned] if turned != words else [])):
                    text = thinking(" ".join(steps), task.answer)
                    assert verify(task, text) and not faithful(task, text)


def test_every_word_that_is_another_is_noticed():
    others = (*ANIMALS, *SWAPS, *HILL, *LAKE, "so", "not", "6")
    cup = {word: n for words in (HILL, LAKE) for n, word in enumerate(words, 1)}
    words = HILL_STEPS.split()
    for at, word in enumerate(words):
        for other in others:
            steps = " ".join([*words[:at], other, *words[at + 1 :]])
            same = cup.get(other, other) == cup.get(word, word)
            assert faithful(TASK, thinking(steps)) == same


@pytest.mark.parametrize(
    "steps",
    [
        "two five bee 2-3 three five ant 1-5 three one",  # true, in another order
        "two five ant 1-5 two one bee 2-3 three one cat 1-2 three two",  # invented
        "two five ant 1-5 two one",  # the last one missing
        "two five bee 2-3 three one",  # the first one missing
        "two five",  # the start alone
        "one five ant 1-5 five one bee 2-3 five one",  # another start
        "ant 1-5 two one bee 2-3 three one",  # no start
        "five two ant 1-5 one two bee 2-3 one three",  # blue before red
        f"{HILL_STEPS} {HILL_STEPS}",
        f"{HILL_STEPS} {LAKE_STEPS}",
        f"so {HILL_STEPS}",
        f"{HILL_STEPS} so",
        HILL_STEPS.replace(" ", ", "),
        HILL_STEPS.replace(" ", ""),
        HILL_STEPS.upper(),
        "hm",
        "",
    ],
)
def test_a_right_answer_after_other_steps_is_not_faithful(steps):
    assert verify(TASK, thinking(steps)) and not faithful(TASK, thinking(steps))


def test_a_true_thought_with_a_wrong_answer_is_not_faithful():
    texts = [f"{a} {b}" for a in CUPS for b in CUPS]
    assert [t for t in texts if faithful(TASK, thinking(HILL_STEPS, t))] == ["3 1"]
    for said in ("not 3 1", "3 1 or 1 3", "3 1 3 1", "", "3"):
        assert not faithful(TASK, thinking(HILL_STEPS, said))


def test_a_right_answer_without_a_thought_or_after_two_is_not_faithful():
    assert not faithful(TASK, "3 1") and verify(TASK, "3 1")
    assert not faithful(TASK, thinking(HILL_STEPS) + thinking(HILL_STEPS))
    assert not faithful(TASK, f"so{thinking(HILL_STEPS)}")


def test_the_thought_of_another_game_is_not_faithful():
    for game, other in itertools.pairwise(games(200)):
        text = thinking(retold(other, "hill"), answer(game))
        assert not faithful(task_of(game), text)


def test_a_thought_is_what_stands_between_its_marks():
    assert thought(thinking(HILL_STEPS)) == HILL_STEPS
    for text in ("3 1", "<think> a", "<think> a </think>", "<think></think> 3 1"):
        assert thought(text) is None


# ---------------------------------------------------------------- dialects


def test_a_text_of_one_dialect_is_all_of_it_and_a_mix_is_counted():
    for game in games(60):
        assert dialects(worked(game, "hill")) == {"hill": 1, "lake": 0}
        assert dialects(worked(game, "lake")) == {"hill": 0, "lake": 1}
    assert dialects("one deux trois ant 1-5 so quatre") == {"hill": 0.25, "lake": 0.75}


@pytest.mark.parametrize("text", ["", "3 1", "onetwo", "One", "ant 1-5 so"])
def test_a_text_without_number_words_has_no_dialect(text):
    assert dialects(text) == {"hill": 0, "lake": 0}


def test_no_word_counts_in_both_dialects():
    assert not set(HILL) & set(LAKE)
    assert cups.DIALECTS == {"hill": HILL, "lake": LAKE}
