"""The long run of a recipe: what it keeps of it and of its ablations."""

from types import SimpleNamespace

import pytest

from labs import recipes
from lib.recipes import engine
from tests.test_recipes import TWO

ABLATED = TWO.without("one")


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "ASKED", 2)
    monkeypatch.setattr(recipes, "KEPT", tmp_path)
    return tmp_path


def test_it_keeps_every_stage_of_the_recipe_and_what_an_ablation_ran_anew(kept):
    whole = {seed: recipes.run((TWO, TWO), seed) for seed in (0, 1)}
    ablated = {seed: recipes.run((TWO, ABLATED), seed) for seed in (0, 1)}
    assert [r["stage"] for r in whole[1]] == ["base", "one", "two"]
    assert [r["stage"] for r in ablated[1]] == ["two"]
    assert "samples" in ablated[0][0] and "samples" in whole[1][0]
    assert "samples" not in ablated[1][0] and "resumed" not in whole[0][0]
    run = engine.run(TWO, scale=0.01, seed=1)
    assert whole[1][2]["scores"] == run.results[2].scores
    assert set(whole[1][2]["history"]) == {"perplexity"}


def test_a_finished_stage_is_not_run_again(kept):
    before = recipes.run((TWO, TWO), 0)
    assert recipes.run((TWO, TWO), 0) == before  # to the second that a stage took
    [folder] = kept.glob("stages/*/0")
    (folder / "stages" / "2-two.pt").unlink()
    again = recipes.run((TWO, TWO), 0)
    assert again[:2] == before[:2] and again[2]["scores"] == before[2]["scores"]


def test_a_record_holds_the_recipe_on_five_seeds_and_its_ablations_on_those_given():
    module = SimpleNamespace(RECIPE=TWO, ABLATIONS={"no one": ABLATED})
    record = recipes.record_of("99_two", module, range(3))
    assert record.seeds == {"the recipe": range(5), "no one": range(3)}
    assert record.runs == {"the recipe": (TWO, TWO), "no one": (TWO, ABLATED)}
