"""The recorder of recipes: what it keeps, and that it goes on where it stopped."""

import json
from types import SimpleNamespace

import pytest

from lib.recipes import engine
from tests.test_recipes import TWO
from tools import record_recipes as recorder


@pytest.fixture
def module(monkeypatch):
    found = SimpleNamespace(RECIPE=TWO, ABLATIONS={"no one": TWO.without("one")})
    importing = SimpleNamespace(import_module=lambda name: found)
    monkeypatch.setattr(recorder, "importlib", importing)
    monkeypatch.setattr(recorder, "SEEDS", range(2))
    monkeypatch.setattr(recorder, "manifest", lambda *given: {"code": "abc"})
    monkeypatch.setattr(engine, "ASKED", 2)
    return found


def test_it_keeps_every_stage_of_the_recipe_and_what_an_ablation_ran_anew(
    module, tmp_path
):
    place = tmp_path / "record.json"
    recorder.record("two", place, kept=tmp_path)
    found = json.loads(place.read_text())
    assert found["made by"] == "python -m tools.record_recipes two"
    assert (found["code"], found["scale"]) == ("abc", 0.01)
    runs = found["runs"]
    assert set(runs) == {recorder.ITSELF, "no one"}
    stages = {v: {s: [r["stage"] for r in f] for s, f in runs[v].items()} for v in runs}
    assert stages[recorder.ITSELF] == dict.fromkeys("01", ["base", "one", "two"])
    assert stages["no one"] == dict.fromkeys("01", ["two"])
    assert "samples" in runs["no one"]["0"][0]
    assert "samples" not in runs["no one"]["1"][0]
    kept = runs[recorder.ITSELF]["1"][2]
    assert set(kept["history"]) == {"perplexity"} and len(kept["scores"]) >= 7
    run = engine.run(TWO, scale=0.01, seed=1)
    wanted = {k: round(v, 3) for k, v in run.results[2].scores.items()}
    assert kept["scores"] == wanted


def test_it_goes_on_with_the_same_code_and_begins_anew_with_other_code(
    module, tmp_path, monkeypatch
):
    place = tmp_path / "record.json"
    recorder.record("two", place, kept=tmp_path)
    whole = json.loads(place.read_text())
    del whole["runs"]["no one"]["1"]
    whole["runs"][recorder.ITSELF]["0"][0]["seconds"] = -1.0  # to know it again
    place.write_text(json.dumps(whole))
    recorder.record("two", place, kept=tmp_path)
    found = json.loads(place.read_text())
    assert set(found["runs"]["no one"]) == {"0", "1"}
    assert found["runs"][recorder.ITSELF]["0"][0]["seconds"] == -1.0
    monkeypatch.setattr(recorder, "manifest", lambda *given: {"code": "other"})
    recorder.record("two", place, kept=tmp_path)
    found = json.loads(place.read_text())
    assert found["code"] == "other"
    assert found["runs"][recorder.ITSELF]["0"][0]["seconds"] >= 0
