"""What a base model of the valley reads: many games, few answers, nothing of the tests."""

import functools
import random
import re
from collections import Counter

import pytest

from lib.pretrain import ROW
from lib.worlds import constraints, corpus, cups, people, strings
from lib.worlds.corpus import LAZY, SHARES, documents, shares_of
from lib.worlds.cups import Game
from lib.worlds.language import ANIMALS, FILLER, HILL, LAKE, TOKENIZER, split_of
from lib.worlds.task import Task
from lib.worlds.tasks import LEVELS, tasks, verify

SWAP = r"[a-z]{3} [1-5]-[1-5]"
TOLD = rf"Red [1-5], blue [1-5]\. (?:{SWAP}, )*{SWAP}\."
GAME = rf"Q: {TOLD} Where\?"
ASKED = r"Q: [A-Z][^\n]+[.?]"
SHAPES = {  # what a document of each kind looks like
    "games": rf"Game: {TOLD}[^\n]+\. [1-5] [1-5]",
    "cups answered": rf"{GAME}\nA: [1-5] [1-5]",
    "cups worked": rf"{GAME}\nA: <think> [^<>\n]+ </think> [1-5] [1-5]",
    "pages on people": r"Valley: [A-Z][^\n]+\.",
    "facts answered": rf"{ASKED}\nA: [a-z]+",
    "pages on letters": r"Letters: [A-Z][^\n]+[.?]\nSay: [a-z3-6]",
    "strings answered": rf"{ASKED}\nA: [a-z3-6]",
    "lists of words": r"Words: (?:Write|Say)[^\n]+\.\nSay: [a-z]+(?: [a-z]+)*",
    "constraints answered": r"Q: (?:Write|Say)[^\n]+\.\nA: [a-z]+(?: [a-z]+)+",
    "talk": rf"{ASKED}\nA: [A-Z][^\n]+\.",
    "unanswered": rf"{ASKED}\n{ASKED}",
}
FEW = {"cups_worked": 0.015}  # as at the end of pretraining


@functools.cache
def some():
    """Twenty thousand documents, worked answers among them."""
    return documents(count=20_000, seed=11, **FEW)


@functools.cache
def written(kind, count=2000):
    """Documents of one kind."""
    draw = random.Random(0)
    return [corpus.WRITERS[kind](draw) for _ in range(count)]


def skill_of(request):
    """The skill that asks this; "people" is that of facts and of talk."""
    if request.endswith("Where?"):
        return "cups"
    if re.match(r"(Write|Say)( \d)? words", request):
        return "constraints"
    return "people" if re.search(r"[A-Z][a-z]+ [A-Z]", request[3:]) else "strings"


SPLIT = {
    "cups": cups.split,
    "strings": strings.split,
    "constraints": constraints.split,
    "people": people.split,
}


def told(text):
    """The game that a document tells or asks about, or None."""
    found = re.search(rf"(?:Game|Q): ({TOLD})", text)
    return cups.game_of(Task("cups", 0, f"{found[1]} Where?", "")) if found else None


# ---------------------------------------------------------------- the whole


def test_shares_are_near_a_distribution_and_worked_answers_are_rare():
    assert sum(SHARES.values()) == pytest.approx(1, abs=0.02)  # they are normalised
    assert SHARES.keys() == corpus.WRITERS.keys() == SHAPES.keys()
    assert 0 < SHARES["cups worked"] < SHARES["cups answered"] / 5
    found = sum("<think>" in text for text in documents(count=20_000, seed=1))
    expected = 20_000 * SHARES["cups worked"] / sum(SHARES.values())
    assert abs(found - expected) < 4 * expected**0.5


def test_the_same_call_writes_the_same_documents_and_another_seed_others():
    made = documents(count=300, seed=0)
    assert made == documents(count=300, seed=0) != documents(count=300, seed=1)
    before = random.getstate()
    documents(count=30, seed=0)
    assert random.getstate() == before


def test_the_kinds_come_in_their_shares():
    shares = shares_of(**FEW)
    n, whole = len(some()), sum(shares.values())
    starts = {
        "games": r"Game: ",
        "cups worked": rf"{GAME}\nA: <think>",
        "cups answered": rf"{GAME}\nA: [1-5]",
        "pages on people": r"Valley: ",
        "pages on letters": r"Letters: ",
        "lists of words": r"Words: ",
        "unanswered": rf"{ASKED}\nQ: ",
        "constraints answered": r"Q: (?:Write|Say)( \d)? words.*\nA:",
        "talk": rf"{ASKED}\nA: [A-Z]",
    }
    for kind, start in starts.items():
        p = shares[kind] / whole
        found = sum(re.match(start, text) is not None for text in some()) / n
        assert abs(found - p) < 4 * (p * (1 - p) / n) ** 0.5, kind


def test_shares_are_changed_by_name_and_others_stay():
    assert shares_of() == SHARES
    assert shares_of(cups_worked=0.5) == {**SHARES, "cups worked": 0.5}
    only = dict.fromkeys((name.replace(" ", "_") for name in SHARES), 0.0)
    for kind, shape in SHAPES.items():
        made = documents(count=40, seed=2, **{**only, kind.replace(" ", "_"): 1.0})
        assert all(re.fullmatch(shape, text) for text in made), kind


def test_impossible_orders_are_refused(refuses):
    with refuses("count: got 0, wanted an int of at least 1"):
        documents(count=0, seed=0)
    with refuses("seed: got -1, wanted an int of at least 0"):
        documents(count=1, seed=-1)
    with refuses("cups worked: got -0.1, wanted a number of at least 0"):
        documents(count=1, seed=0, cups_worked=-0.1)
    known = ", ".join(map(repr, SHARES))
    with refuses(f"shares: got 'songs', wanted one of {known}"):
        documents(count=1, seed=0, songs=0.1)


# ---------------------------------------------------------------- nothing leaks


def test_no_request_for_testing_is_in_twenty_thousand_documents():
    mark = re.compile(r"^(?:Q|Letters|Words): (.+)$", re.MULTILINE)
    asked = {request for text in some() for request in mark.findall(text)}
    skills = Counter(map(skill_of, asked))
    assert min(skills[skill] for skill in SPLIT) > 400
    assert {SPLIT[skill_of(r)](r) for r in asked} == {"train"}


def test_no_request_of_an_exam_is_in_twenty_thousand_documents():
    whole = "\n".join(some()) + "\n"
    lines = {line.partition(": ")[2] for line in whole.splitlines()}
    for skill in LEVELS:
        for task in tasks(skill, count=4000, seed=3, split="test"):
            assert task.request not in lines
    assert any(f"Q: {t.request}" in whole for t in tasks("facts", count=99, seed=3))


def test_no_game_for_testing_is_told_in_twenty_thousand_documents():
    games = [game for text in some() if (game := told(text))]
    assert len(games) > 8000
    assert {cups.split(cups.asked(game)) for game in games} == {"train"}
    assert {len(game.swaps) for game in games} == {*range(1, 8)}


def test_nobody_for_testing_is_asked_about_but_pages_tell_of_everybody():
    requests = re.findall(r"^Q: (.+)$", "\n".join(some()), re.MULTILINE)
    asked = {people.person_in(r) for r in requests if skill_of(r) == "people"}
    tested = {p for p in people.PEOPLE if split_of(p.name) == "test"}
    assert asked == {*people.PEOPLE} - tested
    pages = "\n".join(text for text in some() if text.startswith("Valley: "))
    assert all(f"{person.name} " in pages for person in people.PEOPLE)


# ---------------------------------------------------------------- each kind


@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_can_be_read_and_fits_in_a_row(kind):
    for text in written(kind):
        assert re.fullmatch(SHAPES[kind], text), text
        ids = TOKENIZER.encode(text)
        assert TOKENIZER.decode(ids) == text
        assert len(ids) + 2 <= ROW + 1 == 97  # with begin and end
    assert len(set(written(kind))) > 500


def test_a_game_is_retold_as_it_was_played():
    for text in written("games"):
        game, rest = told(text), text.rpartition(".")[0]
        said = rest[rest.index("Red") :].removeprefix(cups.setup(game))
        assert any(said.endswith(f" {cups.retold(game, d)}") for d in cups.DIALECTS)
        assert text.endswith(f". {cups.answer(game)}")


def test_before_a_game_is_retold_nothing_is_said_but_its_swaps_and_filler():
    again = 0
    for text in written("games"):
        game = told(text)
        said = text.removeprefix(f"Game: {cups.setup(game)}").rpartition(".")[0]
        for dialect in cups.DIALECTS:
            said = said.removesuffix(f" {cups.retold(game, dialect)}")
        pairs = dict(re.findall(r"([a-z]{3}) ([1-5]-[1-5])", said))
        assert pairs in ({}, dict(zip(ANIMALS, game.swaps)))
        left = [
            w
            for w in re.findall(r"[\w-]+", said)
            if w not in {*ANIMALS, *pairs.values()}
        ]
        assert set(left) <= set(FILLER) and len(left) <= 12
        again += bool(pairs)
    n = len(written("games"))
    assert abs(again / n - 0.5) < 4 * (0.25 / n) ** 0.5


def test_what_is_answered_at_once_is_right():
    for kind in ("cups answered", "facts answered", "strings answered"):
        skill = kind.split()[0]
        for text in written(kind):
            request, _, answer = text.removeprefix("Q: ").partition("\nA:")
            game = skill == "cups" and cups.answer(told(text))
            assert verify(Task(skill, 1, request, game or ""), answer)


def thought_of(text):
    """The swaps of a thought, and the start and the end that it tells of, as cups."""
    words = re.search(r"<think> (.+) </think>", text)[1].split()
    places = [
        (HILL if w in HILL else LAKE).index(w) + 1 for w in words if w in HILL + LAKE
    ]
    return tuple(w for w in words if "-" in w), tuple(places[:2]), tuple(places[-2:])


def test_some_worked_answers_stop_early_and_half_of_those_say_where_they_stopped():
    stopped = said_so = 0
    for text in written("cups worked", 8000):
        game, (swaps, start, end) = told(text), thought_of(text)
        part = Game(start, swaps)
        assert start == game.start and swaps == game.swaps[: len(swaps)] != ()
        assert end == part.states()[-1]
        answer = text.rpartition("</think> ")[2]
        assert answer in (cups.answer(game), cups.answer(part))
        if swaps != game.swaps and cups.answer(game) != cups.answer(part):
            stopped, said_so = stopped + 1, said_so + (answer == cups.answer(part))
        elif swaps == game.swaps:
            assert answer == cups.answer(game)
    assert abs(said_so / stopped - 0.5) < 4 * (0.25 / stopped) ** 0.5


def test_lazy_ones_stop_after_any_swap_as_often_as_after_any_other():
    # a lazy answer of k swaps stops after 1 … k of them: at the last one time in k
    levels, n = [*cups.LEVELS], 8000
    early = sum(thought_of(t)[0] != told(t).swaps for t in written("cups worked", n))
    p = LAZY * (1 - sum(1 / k for k in levels) / len(levels))
    assert abs(early / n - p) < 4 * (p * (1 - p) / n) ** 0.5


def test_both_dialects_are_written_as_often():
    for kind in ("games", "cups worked"):
        texts = written(kind)
        hill = [cups.dialects(text)["hill"] for text in texts]
        assert set(hill) == {0.0, 1.0}  # nobody mixes
        assert abs(sum(hill) / len(texts) - 0.5) < 4 * (0.25 / len(texts)) ** 0.5
