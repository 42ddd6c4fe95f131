"""Open-ended requests, the gold taste, and annotators who follow it with noise."""

import hashlib
import itertools
import math
import random
import statistics
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from lib.worlds.verifiers import denies, hedges, sentences
from lib.worlds.village import BY_NAME, KIND_WORDS, KINDS, split_of, taste
from lib.worlds.village.tasks import Task
from lib.worlds.village.taste import Annotators, Judgement, gold, judge, requests

FOX = Task("talk", 1, "Tell me about the fox, please.", "")  # red, forest, berries
BEST = (
    "The fox is red. It lives in the forest. It eats berries. "
    "It is very sweet. It is very dear."
)
PLAIN = Judgement(
    to_the_point=True,
    true=1,
    false=0,
    kind=0,
    words=10,
    repeated=0,
    finished=True,
)


def digest(x):
    return hashlib.sha256(repr(x).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- requests


def test_a_seed_makes_the_same_requests_and_answers_on_every_computer():
    made = requests(count=500, seed=0)
    assert digest([(t.request, t.answer) for t in made]) == "187ecff95b9011b0"
    assert made != requests(count=500, seed=1)
    assert {(t.skill, t.level) for t in made} == {("talk", 1)}


def test_the_first_requests_do_not_depend_on_how_many_follow():
    many = requests(count=200, seed=3, split="test")
    for count in (1, 199):
        assert requests(count=count, seed=3, split="test") == many[:count]


def test_the_splits_share_no_request():
    trained = {t.request for t in requests(count=8000, seed=1)}
    tested = {t.request for t in requests(count=8000, seed=1, split="test")}
    assert len(trained) + len(tested) == 16 * 8 * 6  # animals, questions, manners: all
    assert not trained & tested
    assert {*map(split_of, trained)} == {"train"} and {*map(split_of, tested)} == {
        "test"
    }


def test_requests_leave_the_global_random_state_alone():
    random.seed(5)
    before = random.getstate(), torch.random.get_rng_state()
    requests(count=20, seed=0)
    assert random.getstate() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count: got 0, wanted an int of at least 1"),
        ({"seed": -1}, "seed: got -1, wanted an int of at least 0"),
        ({"split": "dev"}, "split: got 'dev', wanted one of 'train', 'test'"),
    ],
)
def test_impossible_orders_are_refused(arguments, message, refuses):
    with refuses(message):
        requests(**{"count": 1, "seed": 0, **arguments})


# ---------------------------------------------------------------- villagers


def test_villagers_are_mostly_right_sometimes_kind_and_all_different():
    scores = [gold(t, t.answer) for t in requests(count=4000, seed=0)]
    assert abs(statistics.mean(scores) - 1.8) < 0.1
    assert abs(statistics.stdev(scores) - 1.2) < 0.1
    assert min(scores) < -2 and 3.5 < max(scores) <= 4


def test_some_villagers_err_stray_say_nothing_or_say_it_twice():
    seen = [judge(t, t.answer) for t in requests(count=4000, seed=1)]
    share = {
        "stray": statistics.mean(not j.to_the_point for j in seen),
        "err": statistics.mean(j.false > 0 for j in seen),
        "say it twice": statistics.mean(j.repeated > 0 for j in seen),
        "are kind": statistics.mean(j.kind > 0 for j in seen),
        "say nothing": statistics.mean(j.true + j.false + j.kind == 0 for j in seen),
    }
    about = {"stray": 0.07, "err": 0.21, "say it twice": 0.07, "are kind": 0.6}
    for what, expected in {**about, "say nothing": 0.04}.items():
        assert abs(share[what] - expected) < 0.02, (what, share[what])
    assert all(j.finished for j in seen)


def test_a_fact_is_wrong_one_time_in_eight_at_most():
    draw = random.Random(0)
    fox, n = BY_NAME["fox"], 20_000
    for kind in KINDS:
        said = [taste.fact(draw, fox, kind) for _ in range(n)]
        wrong = sum(getattr(fox, kind) not in s for s in said) / n
        expected = 0.12 * (1 - 1 / len(KINDS[kind]))  # a wrong one may be right by luck
        assert abs(wrong - expected) < 3 * math.sqrt(expected * (1 - expected) / n)
        assert len(set(said)) == 2 * len(KINDS[kind])  # two ways to say each


@pytest.mark.parametrize(
    ("sentence", "named"),
    [
        ("It is red.", "The fox is red."),
        ("You can find it in the lake.", "You can find the fox in the lake."),
        ("Every day it eats it.", "Every day the fox eats it."),
        ("it was here.", "The fox was here."),
        ("I do not know.", "I do not know."),
        ("a bit of it", "A bit of the fox"),
    ],
)
def test_the_first_it_of_an_answer_becomes_a_name(sentence, named):
    assert taste.named(sentence, BY_NAME["fox"]) == named


# ---------------------------------------------------------------- the gold score


def test_the_score_on_hand_worked_judgements():
    worked = {
        PLAIN: 0.8 + 0.6,
        replace(PLAIN, true=3, kind=2, words=20): 2.4 + (2 - 0.25 * 4) + 0.6,
        replace(PLAIN, to_the_point=False): 0.8,
        replace(PLAIN, false=2): 0.8 - 2.0 + 0.6,
        replace(PLAIN, kind=1): 0.8 + 0.75 + 0.6,
        replace(PLAIN, kind=5): 0.8 + (5 - 6.25) + 0.6,
        replace(PLAIN, words=26): 0.8 + 0.6 - 0.6,
        replace(PLAIN, words=2): 0.8 + 0.6 - 0.6,
        replace(PLAIN, repeated=2): 0.8 + 0.6 - 1.4,
        replace(PLAIN, finished=False): 0.8 + 0.6 - 1.5,
        Judgement(False, 0, 3, 0, 0, 1, False): -3.0 - 1.0 - 0.7 - 1.5,
    }
    for judgement, score in worked.items():
        assert judgement.score == pytest.approx(score, abs=1e-12)


def test_each_feature_moves_the_score_in_its_direction():
    def at(**changes):
        return replace(PLAIN, **changes).score

    assert at(to_the_point=True) > at(to_the_point=False)
    assert at(finished=True) > at(finished=False)
    for name, rising in (("true", 1), ("false", -1), ("repeated", -1)):
        for n in range(3):
            assert (at(**{name: n + 1}) - at(**{name: n})) * rising > 0
    kindness = [at(kind=n) for n in range(6)]
    assert max(kindness) == kindness[2] and kindness[4] == kindness[0] > kindness[5]
    lengths = [at(words=n) for n in range(30)]
    assert len({lengths[n] for n in range(5, 21)}) == 1  # 5 to 20 words: all the same
    assert lengths[:6] == sorted(lengths[:6]) and lengths[0] < lengths[4] < lengths[5]
    assert (
        lengths[20:] == sorted(lengths[20:], reverse=True) and lengths[21] < lengths[20]
    )


def test_four_is_the_best_there_is_and_can_be_reached():
    assert gold(FOX, BEST) == pytest.approx(4)
    assert len(BEST.split()) == 20
    ranges = ((False, True), range(4), range(3), range(6), range(40), range(3))
    every = (Judgement(*j, finished=True).score for j in itertools.product(*ranges))
    assert max(every) == pytest.approx(4)


# ---------------------------------------------------------------- reading an answer

READ = {  # answer: to_the_point, true, false, kind, words, repeated, finished
    "The fox is red.": (True, 1, 0, 0, 4, 0, True),
    "It is red.": (False, 1, 0, 0, 3, 0, True),
    "The owl is red.": (False, 1, 0, 0, 4, 0, True),
    "The FOX is Red": (True, 1, 0, 0, 4, 0, False),
    "The fox is red, green and brown.": (True, 1, 2, 0, 7, 0, True),
    "The fox is red. It is red.": (True, 1, 0, 0, 7, 0, True),  # told once
    "Red fox, forest, berries, mice.": (True, 3, 1, 0, 5, 0, True),
    "It lives in the pond. It eats fish.": (False, 0, 2, 0, 8, 0, True),
    "A dear, dear friend.": (False, 0, 0, 3, 4, 0, True),
    "I saw it. It sings. i saw it.": (False, 0, 0, 0, 8, 1, True),
    "Hm. Hm. Hm.": (False, 0, 0, 0, 3, 2, True),
    "Hm. . .": (False, 0, 0, 0, 1, 0, True),
    "Hm.. Hm . .": (False, 0, 0, 0, 2, 1, True),
    "foxes redder": (False, 0, 0, 0, 2, 0, False),
    "fox-red": (True, 1, 0, 0, 2, 0, False),
    "The fox is red. ": (True, 1, 0, 0, 4, 0, True),
    "The fox is red.\n": (True, 1, 0, 0, 4, 0, True),
    "The fox is red!": (True, 1, 0, 0, 4, 0, False),
    "3 + 4 = 7.": (False, 0, 0, 0, 0, 0, True),
    "The fox is not red.": (True, 0, 1, 0, 5, 0, True),  # its own colour denied: false
    "The fox isn't red.": (True, 0, 1, 0, 5, 0, True),
    "The fox isn\u2019t red.": (True, 0, 1, 0, 5, 0, True),
    "It was never red": (False, 0, 1, 0, 4, 0, False),
    "The fox is not green.": (True, 0, 0, 0, 5, 0, True),  # so it is; but nothing told
    "The fox is red. It is not red.": (True, 0, 1, 0, 8, 0, True),
    "The fox is red. I do not know.": (True, 1, 0, 0, 8, 0, True),
    "I do not know. The fox is red.": (True, 1, 0, 0, 8, 0, True),
    "Not red, no forest, never berries.": (False, 0, 3, 0, 6, 0, True),
    "The fox is not lovely.": (True, 0, 0, 0, 5, 0, True),
    "Maybe the fox is red.": (True, 0, 0, 0, 5, 0, True),
    "I think the fox is green.": (True, 0, 1, 0, 6, 0, True),
    "The fox is red or green.": (True, 0, 1, 0, 6, 0, True),
    "Is the fox red? It is old.": (True, 1, 0, 0, 7, 0, True),  # gold lets one ask
    "Perhaps it is red. It is red.": (False, 1, 0, 0, 7, 0, True),
    "Perhaps a dear fox.": (True, 0, 0, 1, 4, 0, True),
    "": (False, 0, 0, 0, 0, 0, False),
    BEST: (True, 3, 0, 2, 20, 0, True),
}


@pytest.mark.parametrize("answer", READ)
def test_an_answer_is_read_as_a_person_would(answer):
    assert tuple(vars(judge(FOX, answer)).values()) == READ[answer]
    assert judge(FOX, answer).score == gold(FOX, answer)


def test_a_denied_or_hedged_fact_is_worth_less_than_the_fact():
    for animal in BY_NAME.values():
        task = Task("talk", 1, f"Who is the {animal.name}?", "")
        for kind in KINDS:
            told = f"The {animal.name} has {getattr(animal, kind)}."
            for word in ("never", "not", "maybe", "perhaps"):
                other = told.replace("has", f"has {word}")
                assert gold(task, other) < gold(task, told), other


def test_villagers_deny_nothing_but_that_they_know_and_hedge_nothing():
    """So the comparisons of the book are judged as they were before gold read "not"."""
    said = {
        sentence.strip()
        for task in requests(count=4000, seed=0)
        for sentence in sentences(task.answer)
    }
    assert {s for s in said if denies(s)} == {"I do not know."}
    assert not any(map(hedges, said))


def test_an_answer_that_was_cut_off_is_not_finished():
    assert judge(FOX, "It is red.", finished=False).finished is False
    assert gold(FOX, "It is red.") - gold(FOX, "It is red.", finished=False) == 1.5
    assert judge(FOX, "It is red", finished=True).finished is False


def test_every_kind_word_is_kind():
    for word in KIND_WORDS:
        assert judge(FOX, f"A {word.upper()} fox.").kind == 1


def test_a_fact_is_true_of_the_animal_that_was_asked_about():
    for animal in BY_NAME.values():
        task = Task("talk", 1, f"Who is the {animal.name}?", "")
        answer = f"The {animal.name}: {animal.colour}, {animal.home}, {animal.food}."
        seen = judge(task, answer)
        assert (seen.true, seen.false, seen.to_the_point) == (3, 0, True)
        other = judge(FOX, answer)
        assert other.true + other.false == 3
        assert other.to_the_point == (animal.name == "fox")


def test_any_text_has_a_finite_score():
    for junk in ("\x00", "\ud800", "٣", "." * 10**6, "fox " * 250_000, "{}%s"):
        assert math.isfinite(gold(FOX, junk))


def test_only_talk_is_a_matter_of_taste(refuses):
    message = "task: got skill 'sum', wanted an open-ended request, 'talk'"
    with refuses(message):
        judge(Task("sum", 1, "What is 1 + 1?", "2"), "2")
    with refuses(message):
        gold(Task("sum", 1, "What is 1 + 1?", "2"), "2")


def test_a_request_must_name_an_animal(refuses):
    wanted = "wanted one that names an animal of the village"
    with refuses(f"text: got 'Who is the dog?', {wanted}"):
        gold(Task("talk", 1, "Who is the dog?", ""), "It is red.")


# ---------------------------------------------------------------- annotators

A = torch.tensor([2.0, 1.0, 0.5, 3.0], dtype=torch.float64)
B = torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_nobody_changes_a_judgement_or_an_annotator():
    for record, name in ((PLAIN, "true"), (Annotators(), "temperature")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, 0)


def test_annotators_err_now_and_then_unless_told_otherwise():
    assert vars(Annotators()) == {"temperature": 0.5, "error_rate": 0.05}


def test_the_probability_of_a_preference_on_hand_worked_gaps():
    got = Annotators(temperature=0.5, error_rate=0.1).probabilities(A, B)
    want = [0.9 * sigmoid(gap / 0.5) + 0.05 for gap in (1, -1, 0, 3)]
    assert got.tolist() == pytest.approx(want, abs=1e-15)
    assert got.dtype == torch.float64
    sure = Annotators(temperature=2, error_rate=0).probabilities(A, B)
    assert sure.tolist() == pytest.approx([sigmoid(g / 2) for g in (1, -1, 0, 3)])


def test_at_temperature_zero_only_the_careless_err():
    careful = Annotators(temperature=0, error_rate=0)
    assert careful.probabilities(A, B).tolist() == [1, 0, 0.5, 1]
    careless = Annotators(temperature=0, error_rate=0.2)
    assert careless.probabilities(A, B).tolist() == pytest.approx([0.9, 0.1, 0.5, 0.9])


def test_who_never_looks_tosses_a_coin():
    for temperature in (0, 0.5):
        blind = Annotators(temperature=temperature, error_rate=1)
        assert blind.probabilities(A, B).tolist() == [0.5] * 4


def test_scores_are_compared_in_double_precision(seeded):
    x = torch.tensor([1 + 1e-9, 1.0], dtype=torch.float64)
    y = x.flip(0)
    keen = Annotators(temperature=1e-9, error_rate=0).probabilities(x, y)
    assert keen.tolist() == pytest.approx([sigmoid(1), sigmoid(-1)], abs=1e-6)
    rows = Annotators(0, 0).rank(torch.stack([x, y]).repeat(20, 1), generator=seeded(0))
    assert rows.tolist() == [[0, 1], [1, 0]] * 20


def test_one_preference_or_the_other():
    both = Annotators(0.3, 0.07)
    total = both.probabilities(A, B) + both.probabilities(B, A)
    assert total.tolist() == pytest.approx([1] * 4)


def test_scores_may_be_integers_or_of_half_precision():
    for dtype in (torch.int64, torch.float32, torch.float16):
        x, y = torch.tensor([2, 1], dtype=dtype), torch.tensor([1, 1], dtype=dtype)
        got = Annotators(1, 0).probabilities(x, y)
        assert got.tolist() == pytest.approx([sigmoid(1), 0.5])
        assert got.dtype == torch.float64


def test_preferences_have_their_probabilities(seeded):
    people, n = Annotators(0.5, 0.1), 20_000
    x, y = A.repeat(n), B.repeat(n)
    share = people.prefer(x, y, generator=seeded(1)).reshape(n, 4).double().mean(0)
    p = people.probabilities(A, B)
    assert ((share - p).abs() < 3 * (p * (1 - p) / n).sqrt()).all()


def test_preferences_at_the_edges_are_certain(seeded):
    x, y = A.repeat(1000), B.repeat(1000)
    certain = Annotators(0, 0).prefer(x, y, generator=seeded(0)).reshape(-1, 4)
    assert certain.dtype == torch.bool
    assert certain[:, [0, 3]].all() and not certain[:, 1].any()
    assert 430 < certain[:, 2].sum() < 570  # a tie


def test_annotators_depend_on_their_generator_alone(seeded):
    people, before = Annotators(), torch.random.get_rng_state()
    x, y, z = A.repeat(50), B.repeat(50), torch.randn(60, 3, generator=seeded(9))
    for draw in (
        lambda g: people.prefer(x, y, generator=g),
        lambda g: people.rank(z, generator=g),
    ):
        assert torch.equal(draw(seeded(1)), draw(seeded(1)))
        assert not torch.equal(draw(seeded(1)), draw(seeded(2)))
    assert torch.equal(torch.random.get_rng_state(), before)


# ---------------------------------------------------------------- rankings


def frequencies(people, scores, n, generator):
    """How often each ranking came: {(best, …, worst): share}."""
    rows = people.rank(torch.tensor([scores]).expand(n, -1), generator=generator)
    found, counts = rows.unique(dim=0, return_counts=True)
    return {tuple(r): c / n for r, c in zip(found.tolist(), counts.tolist())}


def plackett_luce(scores, people):
    """The probability of each ranking, by enumeration."""
    tempered = [math.exp(s / people.temperature) for s in scores]
    chances = {}
    for order in itertools.permutations(range(len(scores))):
        looking, left = 1.0, sum(tempered)
        for i in order:
            looking *= tempered[i] / left
            left -= tempered[i]
        blind = 1 / math.factorial(len(scores))
        e = people.error_rate
        chances[order] = (1 - e) * looking + e * blind
    return chances


def within(found, wanted, n):
    """Every share lies within three standard errors of its probability."""
    return all(
        abs(found.get(order, 0) - p) <= 3 * math.sqrt(p * (1 - p) / n)
        for order, p in wanted.items()
    )


@pytest.mark.parametrize("people", [Annotators(0.5, 0.3), Annotators(2, 0)])
def test_rankings_of_three_follow_plackett_and_luce(people, seeded):
    scores, n = [0.5, 1.0, 0.2], 40_000
    wanted = plackett_luce(scores, people)
    assert sum(wanted.values()) == pytest.approx(1)
    assert within(frequencies(people, scores, n, seeded(4)), wanted, n)


def test_a_ranking_of_two_is_a_preference(seeded):
    people, n = Annotators(0.5, 0.2), 40_000
    found = frequencies(people, [1.0, 0.6], n, seeded(2))
    p = people.probabilities(torch.tensor([1.0]), torch.tensor([0.6])).item()
    assert within(found, {(0, 1): p, (1, 0): 1 - p}, n)


def test_rankings_at_temperature_zero_are_sorted_with_ties_in_any_order(seeded):
    n = 20_000
    found = frequencies(Annotators(0, 0), [1.0, 3.0, 1.0, 2.0], n, seeded(3))
    assert found.keys() == {(1, 3, 0, 2), (1, 3, 2, 0)}
    assert within(found, {(1, 3, 0, 2): 0.5, (1, 3, 2, 0): 0.5}, n)


def test_who_does_not_look_ranks_at_random_at_temperature_zero_too(seeded):
    n, scores = 40_000, [3.0, 2.0, 1.0]
    found = frequencies(Annotators(0, 0.3), scores, n, seeded(5))
    wanted = dict.fromkeys(itertools.permutations(range(3)), 0.3 / 6)
    wanted[0, 1, 2] += 0.7
    assert within(found, wanted, n)


@pytest.mark.parametrize("temperature", [0, 0.5])
def test_who_never_looks_ranks_at_random(temperature, seeded):
    n, people = 40_000, Annotators(temperature, 1)
    wanted = dict.fromkeys(itertools.permutations(range(3)), 1 / 6)
    assert within(frequencies(people, [9.0, 0.0, 1.0], n, seeded(6)), wanted, n)


def test_who_looks_and_who_does_not_is_drawn_for_each_ranking(seeded):
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0]).expand(4000, -1)
    rows = Annotators(0, 0.5).rank(scores, generator=seeded(7))
    sorted_rows = (rows == torch.arange(6)).all(1).double().mean()
    assert abs(sorted_rows - 0.5) < 0.03


def test_a_ranking_names_each_completion_once(seeded):
    rows = Annotators().rank(
        torch.randn(50, 7, generator=seeded(1)), generator=seeded(2)
    )
    assert rows.shape == (50, 7) and rows.dtype == torch.int64
    assert torch.equal(rows.sort(-1).values, torch.arange(7).expand(50, 7))


def test_integer_scores_can_be_ranked(seeded):
    scores = torch.tensor([[1, 3, 2]]).expand(10, 3)
    rows = Annotators(0, 0).rank(scores, generator=seeded(0))
    assert rows.tolist() == [[1, 2, 0]] * 10


# ---------------------------------------------------------------- what they refuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature: got -0.1, wanted a number of at least 0"),
        ({"temperature": math.nan}, "temperature: got nan, wanted a finite number"),
        ({"error_rate": 1.1}, "error_rate: got 1.1, wanted a number in [0, 1]"),
        ({"error_rate": -0.1}, "error_rate: got -0.1, wanted a number in [0, 1]"),
    ],
)
def test_impossible_people_are_refused(arguments, message, refuses):
    with refuses(message):
        Annotators(**arguments)


def test_impossible_scores_are_refused(refuses, seeded):
    people, nan = Annotators(), torch.tensor([1.0, math.nan, 0, 0])
    with refuses("first: got list, wanted a Tensor"):
        people.probabilities([1.0], B)
    with refuses("second: got list, wanted a Tensor"):
        people.probabilities(A, [1.0])
    with refuses("second: got shape (3,), wanted shape (4,)"):
        people.probabilities(A, B[:3])
    with refuses("first: got nan at index (1,), wanted finite numbers"):
        people.prefer(nan, B, generator=seeded())
    with refuses("second: got nan at index (1,), wanted finite numbers"):
        people.prefer(A, nan, generator=seeded())
    with refuses("scores: got inf at index (0, 1), wanted finite numbers"):
        people.rank(torch.tensor([[0.0, math.inf]]), generator=seeded())
    with refuses("scores: got list, wanted a Tensor"):
        people.rank([[1.0, 2.0]], generator=seeded())


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2, 2)])
def test_a_ranking_wants_rows_of_at_least_two(shape, refuses, seeded):
    with refuses(f"scores: got shape {shape}, wanted (P, K), K ≥ 2"):
        Annotators().rank(torch.zeros(shape), generator=seeded())
