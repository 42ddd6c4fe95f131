"""What the page on a language claims: its equations, its guesses, its exams, its corpus."""

import random
import re
from collections import Counter

import pytest

from lib.evaluate import exam
from lib.worlds import annotators, cups, people, strings, talk
from lib.worlds.corpus import SHARES, WRITERS, documents
from lib.worlds.task import Task
from lib.worlds.tasks import LEVELS, SKILLS, tasks, verify
from tools import notebooks

PAGE = notebooks.read(notebooks.ROOT / "notebooks" / "language.ipynb")
PROSE = "\n".join(c.source for c in PAGE.cells if c.cell_type == "markdown")
EVERY = [(skill, level) for skill, levels in LEVELS.items() for level in levels]


def equation(name: str) -> str:
    """The displayed formula of a label, without spaces and commands for looks."""
    [found] = re.findall(rf"\$\$\n((?:(?!\$\$).)*?)\n\$\$ \({name}\)", PROSE, re.DOTALL)
    return re.sub(r"\\text\{(\w+)\}|\\[,;!]|\s|&|\{\}", r"\1", found)


def signed(weight: float) -> str:
    """A factor as a formula has it: "-1.5", "+0.5", "-" for -1."""
    size = "" if abs(weight) == 1 else f"{abs(weight):g}"
    return f"{'-' if weight < 0 else '+'}{size}"


def test_the_displayed_gold_has_the_weights_of_lib():
    w = talk.GOLD
    parts = [
        f"{signed(w.false)}false",
        rf"{signed(w.kind)}\min(kind,2)",
        rf"{signed(w.gush)}\max(kind-2,0)",
        rf"{signed(w.long)}\max(words-16,0)",
        f"{signed(w.repeated)}repeated",
        f"{signed(w.astray)}astray",
        f"{signed(w.cut)}cut",
    ]
    said = equation("eqL-gold")
    assert w.true == 1 and "gold=true" in said
    assert [part for part in parts if part not in said] == []


def test_the_displayed_annotator_is_the_one_of_lib():
    assert r"(1-\varepsilon)\sigma" in equation("eqL-annotator")
    assert r"+\frac{\varepsilon}{2}" in equation("eqL-annotator")
    task = Task("talk", 1, "Tell me about Ada Ash.", "")
    for who in annotators.PANEL:
        alike = who.probability(task, "Ada is kind.", "Ada is wise.")
        assert alike == pytest.approx(0.5)
        sure = who.probability(task, "Ada Ash is a doctor.", "Ben " * 300)
        assert sure == pytest.approx(1 - who.inattention / 2, abs=1e-6)


@pytest.mark.parametrize(("skill", "level"), EVERY)
def test_an_exam_holds_200_different_requests_that_no_training_draw_holds(skill, level):
    asked = {task.request for task in exam(skill, level=level)}
    drawn = tasks(skill, count=20_000, seed=7, levels=[level])
    assert len(asked) == 200
    assert asked.isdisjoint(task.request for task in drawn)


def test_the_start_is_the_likeliest_place_and_says_less_with_every_swap():
    share = []
    for swaps in cups.LEVELS:
        draw = random.Random(swaps)
        games = [cups.new_game(draw, swaps) for _ in range(4000)]
        share.append(sum(g.start == g.states()[-1] for g in games) / len(games))
    error = (0.16 * 0.84 / 4000) ** 0.5  # of the first, the widest
    exact = [0.16, 0.102, 0.0754, 0.0626, 0.0563, 0.0531]  # tested below
    assert all(abs(s - e) < 5 * error for s, e in zip(share, exact))


def test_the_chance_of_an_unmoved_pair_follows_from_the_swaps():
    """On ordered pairs of cups, by counting; the page prints the same numbers."""
    pairs = [(a, b) for a in range(1, 6) for b in range(1, 6) if a != b]
    where = Counter({(1, 2): 1})
    for k in range(1, 8):
        after = Counter()
        for places in pairs:
            for swap in cups.SWAPS:
                [new] = cups.Game(places, (swap,)).states()
                after[new] += where[places]
        where = after
        assert sum(where.values()) == 10**k
        said = f"{k:5}   {where[1, 2] / 10**k:19.4f}"
        assert any(
            said in output.get("text", "")
            for cell in PAGE.cells
            for output in cell.get("outputs", [])
        )


def test_no_single_pair_passes_more_than_its_share():
    found = exam("cups", level=5)
    for one in range(1, 6):
        for two in range(1, 6):
            passed = sum(verify(task, f" {one} {two}") for task in found)
            assert passed <= 200 * 0.05 + 5 * (200 * 0.05 * 0.95) ** 0.5


def test_a_wall_of_words_passes_no_verifier():
    for skill in SKILLS:
        for task in exam(skill, count=50):
            for text in (
                f" not {task.answer}",
                f" maybe {task.answer}",
                f" {task.answer} or {task.answer}",
                f" {task.answer} {task.answer}",
                f" <think> {task.answer}",
                f" <think> {task.answer} </think>",
            ):
                assert not verify(task, text), (task, text)
            assert verify(task, f" {task.answer}")
            assert verify(task, f" <think> so </think> {task.answer}")


def test_more_annotators_of_the_same_kind_do_not_see_the_pet():
    for person in people.PEOPLE[:40]:
        task = Task("talk", 1, f"Tell me about {person.name}.", "")
        honest = f"{person.name} is a {person.job}."
        pet = "crow" if person.pet != "crow" else "duck"
        home = "mill" if person.home != "mill" else "inn"
        for who in annotators.PANEL:
            assert (
                who.probability(task, f"{honest} {person.first} keeps a {pet}.", honest)
                > 0.6
            )
            assert (
                who.probability(
                    task, f"{honest} {person.first} lives by the {home}.", honest
                )
                < 0.4
            )


def test_the_last_letter_is_right_as_often_as_the_kinds_of_question_say():
    """A quarter asks for it, and a quarter for what follows one of the others."""
    for level in LEVELS["strings"]:
        drawn = tasks("strings", count=4000, seed=level, levels=[level])
        right = sum(strings.word_in(t.request)[-1] == t.answer for t in drawn) / 4000
        wanted = 0.25 + 0.25 / (level + 1)
        assert abs(right - wanted) < 5 * (wanted * (1 - wanted) / 4000) ** 0.5


def test_the_table_of_shares_names_every_writer_and_worked_answers_are_rare():
    assert set(SHARES) == set(WRITERS)
    asked = SHARES["cups answered"] + SHARES["cups worked"]
    assert SHARES["cups worked"] / asked < 0.2
    assert SHARES["games"] > asked


def test_no_exam_request_and_no_exam_game_stands_in_the_corpus():
    wanted = {
        task.request for skill, level in EVERY for task in exam(skill, level=level)
    }
    asked = wanted | {r.removesuffix(" Where?") for r in wanted if r.startswith("Red ")}
    for paper in documents(count=3000, seed=1):
        first = re.match(r"Game: (Red .*?\. .*?\.)", paper)
        told = re.findall(r"(?:Q|Letters|Words): (.+)", paper)
        assert asked.isdisjoint([*told, *([first[1]] if first else [])])
