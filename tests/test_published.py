"""What was published: every figure has a source, and the recipes agree with it."""

import json
import math
from dataclasses import FrozenInstanceError, asdict

import pytest

from labs import published
from labs.published import LECTURE, RECIPES, VERIFIED, Fact, facts, find, read

ROW = {
    "recipe": "tulu3",
    "stage": "dpo",
    "what": "size",
    "value": 3,
    "unit": "",
    "paper": "Somebody 2024",
    "version": "v1",
    "table": "Table 1",
    "verified": "not",
    "note": "",
}
STAGES = {  # of the three recipes that this book runs
    "instructgpt": ("sft", "reward", "ppo"),
    "tulu3": ("sft", "dpo", "rlvr"),
    "deepseek_r1": ("zero", "cold", "reasoning", "sft", "reward", "r1"),
}


def test_every_line_of_the_file_is_a_fact_and_comes_in_its_order():
    rows = json.loads(published.PLACE.read_text("utf-8"))
    assert [asdict(fact) for fact in facts()] == rows
    assert len(rows) > 90


def test_a_fact_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        facts()[0].value = 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_facts_of_one_recipe_are_those_of_all_with_its_name(recipe):
    mine = facts(recipe)
    assert mine == [fact for fact in facts() if fact.recipe == recipe]
    assert len(mine) > 20


def test_an_unknown_recipe_is_refused_by_name():
    with pytest.raises(ValueError, match="recipe: got 'gpt5', wanted one of 'instr"):
        facts("gpt5")
    with pytest.raises(ValueError, match="recipe: got ''"):
        facts("")


@pytest.mark.parametrize("name", list(ROW))
def test_a_row_without_a_field_is_refused(name):
    row = {key: value for key, value in ROW.items() if key != name}
    with pytest.raises(ValueError, match=rf"row: got .*off in \['{name}'\], wanted"):
        read([row])


def test_a_row_with_a_field_too_many_is_refused_even_among_good_ones():
    with pytest.raises(ValueError, match=r"off in \['colour'\]"):
        read([ROW, {**ROW, "colour": "red"}])


@pytest.mark.parametrize("name", ["stage", "what", "paper", "version", "table"])
def test_an_empty_source_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name}: got nothing, wanted a word"):
        read([{**ROW, name: ""}])


@pytest.mark.parametrize("name", ["unit", "note"])
def test_a_unit_and_a_note_may_be_empty(name):
    assert getattr(read([{**ROW, name: ""}])[0], name) == ""


@pytest.mark.parametrize("name", [name for name in ROW if name != "value"])
def test_every_field_but_the_value_is_text(name):
    with pytest.raises(ValueError, match=f"^{name}: got 3, wanted text"):
        read([{**ROW, name: 3}])


def test_a_recipe_and_a_state_of_verification_must_be_known():
    with pytest.raises(ValueError, match="recipe: got 'gpt5'"):
        read([{**ROW, "recipe": "gpt5"}])
    with pytest.raises(ValueError, match="verified: got 'maybe', wanted one of 'text'"):
        read([{**ROW, "verified": "maybe"}])


@pytest.mark.parametrize("value", [True, math.inf, math.nan, [1]])
def test_a_value_that_is_no_number_no_word_and_not_nothing_is_refused(value):
    with pytest.raises(ValueError, match="^value: got"):
        read([{**ROW, "value": value}])


@pytest.mark.parametrize("value", [0, -2.5, "thousands", None])
def test_numbers_words_and_nothing_are_values(value):
    assert read([{**ROW, "value": value}])[0].value == value


def test_the_same_fact_twice_is_refused_but_not_from_another_source():
    with pytest.raises(ValueError, match="rows: got .'tulu3', 'dpo', 'size'.* twice"):
        read([ROW, {**ROW, "value": 4}])
    for name, other in {
        "recipe": "instructgpt",
        "stage": "sft",
        "what": "beta",
        "paper": "Somebody else 2024",
        "version": "v2",
    }.items():
        assert len(read([ROW, {**ROW, name: other}])) == 2


@pytest.mark.parametrize(
    "value, number",
    [
        (7, 7),
        (0.5, 0.5),
        ("12", 12),
        ("~10K", 10_000),
        ("~1M", 1_000_000),
        ("100K+", 100_000),
        ("5M", 5_000_000),
    ],
)
def test_rounded_figures_are_read_as_numbers(value, number):
    assert Fact(**{**ROW, "value": value}).number == number


@pytest.mark.parametrize(
    "value", ["On-policy", "thousands", "", None, "K", "1K2", "1 M"]
)
def test_words_and_nothing_are_no_numbers(value):
    assert math.isnan(Fact(**{**ROW, "value": value}).number)


def test_finding_passes_over_the_lecture_unless_asked_for_it():
    assert find("tulu3", "dpo", "size").value == 271_409
    assert find("tulu3", "dpo", "size", paper=LECTURE).value == "~1M"
    assert find("deepseek_r1", "cold", "size").value == "thousands"


def test_where_versions_disagree_one_has_to_be_named():
    asked = "deepseek_r1", "zero", "AIME after"
    assert find(*asked, version="arXiv v1").value == 71.0
    assert find(*asked, version="arXiv v2").value == 77.9
    with pytest.raises(ValueError, match="what: got 'zero', 'AIME after' with 2 facts"):
        find(*asked)
    assert find("tulu3", "rlvr", "answers", paper="open-instruct").value == 10**7
    assert find("tulu3", "rlvr", "answers", version="arXiv v5").value == 10**5


@pytest.mark.parametrize(
    "stage, what, paper",
    [("dpo", "colour", None), ("cold", "size", None), ("dpo", "size", "nobody")],
)
def test_what_is_not_there_is_refused(stage, what, paper):
    with pytest.raises(ValueError, match="with 0 facts, wanted the name of one"):
        find("tulu3", stage, what, paper=paper)


def test_finding_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="^recipe: got 'gpt5'"):
        find("gpt5", "sft", "size")


# ----------------------------------------------------------- the file and the recipes


def test_every_stage_that_is_run_here_has_a_published_size_or_is_known_to_have_none():
    assert {*STAGES} == {*RECIPES}
    every = [(recipe, stage) for recipe in RECIPES for stage in STAGES[recipe]]
    sizes = {line: find(*line, "size") for line in every}
    without = [line for line, fact in sizes.items() if math.isnan(fact.number)]
    assert without == [("deepseek_r1", "cold"), ("deepseek_r1", "reasoning")]
    assumed = [line for line, fact in sizes.items() if "assuming" in fact.note]
    assert assumed == [("deepseek_r1", "r1")]


def test_what_is_computed_from_a_source_is_not_said_to_be_read_in_it():
    computed = {
        (fact.stage, fact.what) for fact in facts() if fact.verified == "computed"
    }
    both = {"size", "answers"}
    assert computed == {(stage, what) for stage in ("zero", "r1") for what in both}


def test_r1_learns_from_one_rollout_in_sixteen_minibatches_and_keeps_the_format():
    r1 = "deepseek_r1"
    rollout = find(r1, "zero", "rollout").number
    assert rollout == find(r1, "reasoning", "rollout").number == 8_192
    parts = find(r1, "zero", "minibatches").number
    questions, group = (
        find(r1, "zero", what).number for what in ("questions a step", "group")
    )
    assert rollout == parts * questions * group
    assert find(r1, "reasoning", "clip").number == 10
    assert find(r1, "r1", "temperature").number == 0.7
    assert "format" in find(r1, "r1", "reward of general data").value


def test_figures_that_are_sums_and_products_add_up():
    def value(*name, **more):
        return find(*name, **more).number

    r1 = "deepseek_r1"
    steps = value(r1, "zero", "steps")
    questions = steps * value(r1, "zero", "questions a step")
    assert questions == value(r1, "zero", "size")
    assert questions * value(r1, "zero", "group") == value(r1, "zero", "answers")
    assert value(r1, "r1", "steps") * 512 == value(r1, "r1", "answers")
    parts = value(r1, "sft", "reasoning") + value(r1, "sft", "general")
    assert parts == value(r1, "sft", "size") == 804_745
    hours = [value(r1, stage, "GPU hours") for stage in ("zero", "sft", "r1")]
    assert sum(hours) == value(r1, "all", "GPU hours")
    assert value(r1, "all", "GPU hours") * 2 == value(r1, "all", "cost")
    assert value("tulu3", "rlvr", "size") == 7_473 + 7_500 + 14_973
    assert value("tulu3", "rlvr 3.1", "batch") == 48 * 16
    assert value("instructgpt", "sft", "size") == 11_295 + 1_430
    assert value("instructgpt", "reward", "size") == 6_623 + 26_584


def test_nothing_of_the_papers_is_left_without_a_state_of_verification():
    states = {fact.verified for fact in facts()}
    assert states <= set(VERIFIED) and "text" in states
    assert all(fact.table for fact in facts())
