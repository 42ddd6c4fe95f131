"""Recipes as data, and the engine that runs, keeps, resumes and refuses them."""

import copy
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lib import checkpoint, sft, villagers
from lib.checkpoint import CheckpointError
from lib.recipes import __main__ as command
from lib.recipes import engine, feedback, folder, report
from lib.recipes.folder import Busy, Folder
from lib.recipes.stages import BASE, Outcome, Recipe, Stage
from lib.train import fit

ROOT = Path(__file__).resolve().parent.parent


def tuned(work):
    """Six updates on as many demonstrations as there are to be."""
    shown = villagers.demonstrations(count=1, seed=work.seed)[: work.amount]
    model = copy.deepcopy(work.start)
    batches = [sft.written(*zip(*shown))] * 6
    knobs = {"lr": 1e-3, "checkpoint": work.checkpoint, "every": 2}
    return Outcome(model, fit(model, batches, sft.sft_loss, **knobs))


def stage(name, start, *, run=tuned, published=200, **more):
    return Stage(name, name.title(), "a tool", start, published, "things", run, **more)


TWO = Recipe("stages", "Two", "nobody", (stage("one", BASE), stage("two", "one")))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(engine, "ASKED", 2)


def weights(model):
    return torch.cat([w.flatten() for w in model.state_dict().values()])


# --- recipes --------------------------------------------------------------------------


def test_a_stage_takes_its_published_size_times_the_scale_rounded_down():
    sizes = {
        "instructgpt": {"sft": 127, "reward": 332, "ppo": 311},
        "tulu3": {"sft": 9393, "dpo": 2714, "rlvr": 299},
        "deepseek_r1": {
            "zero": 3328,
            "cold": 50,
            "reasoning": 3328,
            "sft": 8000,
            "reward": 660,
            "r1": 544,
        },
    }
    for name, wanted in sizes.items():
        found = {s.name: s.amount(0.01) for s in command.recipe(name).stages}
        assert found == wanted
    assert stage("one", BASE, published=100).amount(0.29) == 29  # not 28.999…
    assert stage("one", BASE, published=199).amount(0.01) == 1  # not rounded up


def test_a_scale_that_leaves_a_stage_without_data_is_refused_by_name(refuses):
    one = stage("one", BASE, published=50)
    wanted = "scale: got 0.01, which leaves no things for 'one', wanted at least 0.02"
    with refuses(wanted):
        one.amount(0.01)
    for scale in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="^scale: got .*, wanted a "):
            one.amount(scale)


def test_updates_of_rl_grow_with_the_scale_are_rounded_down_and_are_never_none():
    rl = stage("one", BASE, published=1000, updates=250)
    found = {scale: rl.updates_at(scale) for scale in (1, 0.29, 0.1, 0.0119, 0.001)}
    assert found == {1: 250, 0.29: 72, 0.1: 25, 0.0119: 2, 0.001: 1}
    assert stage("one", BASE, updates=100).updates_at(0.29) == 29  # not 28.999…
    assert stage("one", BASE).updates_at(0.5) is None
    with pytest.raises(ValueError, match="^scale: got 0, wanted a "):
        rl.updates_at(0)


def test_at_a_hundredth_the_updates_of_rl_are_those_that_the_book_shows():
    found = {
        (name, s.name): s.updates_at(0.01)
        for name in command.NAMES
        for s in command.recipe(name).stages
        if s.tool == "policy gradients"
    }
    assert found == {
        ("instructgpt", "ppo"): 40,
        ("tulu3", "rlvr"): 80,
        ("deepseek_r1", "zero"): 104,
        ("deepseek_r1", "reasoning"): 104,
        ("deepseek_r1", "r1"): 17,
    }


@pytest.mark.parametrize("name", command.NAMES)
def test_a_prompt_of_rl_is_asked_as_often_at_every_scale(name):
    for each in command.recipe(name).stages:
        assert (each.updates is not None) == (each.tool == "policy gradients")
        if each.updates is None:
            continue
        for scale in (0.01, 0.02, 0.05, 0.1, 0.5, 1):
            ratio = each.updates_at(scale) / each.amount(scale)
            # each of the two is floored: off by less than one of its own size
            most = 1 / each.updates_at(scale) + 1 / each.amount(scale)
            assert abs(ratio / (each.updates / each.published) - 1) < most


def test_a_recipe_refuses_a_stage_that_starts_from_nothing_or_a_name_twice():
    with pytest.raises(ValueError, match="^start: got 'two'"):
        Recipe("x", "X", "nobody", (stage("one", "two"), stage("two", BASE)))
    with pytest.raises(ValueError, match="^name: got 'one' twice"):
        Recipe("x", "X", "nobody", (stage("one", BASE), stage("one", BASE)))


def test_without_a_stage_those_after_it_start_from_where_it_started():
    three = dataclasses.replace(TWO, stages=(*TWO.stages, stage("three", "two")))
    starts = {s.name: s.start for s in three.without("one").stages}
    assert starts == {"two": BASE, "three": "two"}
    assert [s.start for s in three.without("three").stages] == [BASE, "one"]
    with pytest.raises(ValueError, match="^name: got 'four'"):
        three.without("four")
    used = three.changed("three", uses="one")
    with pytest.raises(ValueError, match="^name: got 'one', which 'three' uses"):
        used.without("one")
    with pytest.raises(ValueError, match="^uses: got 'four'"):
        three.changed("three", uses="four")
    assert used.stage("three").uses == "one"
    assert TWO.changed("two", published=7).stages[1].published == 7
    assert TWO.changed("two", published=7).stages[0] is TWO.stages[0]


# --- running --------------------------------------------------------------------------


def test_each_stage_trains_the_model_it_starts_from_and_hands_on_its_own():
    told = []
    run = engine.run(TWO, scale=0.01, told=told.append)
    assert [r.stage for r in run.results] == [BASE, "one", "two"] and told == [
        *run.results
    ]
    assert list(run.models) == [BASE, "one", "two"]
    base, one, two = map(weights, run.models.values())
    assert not torch.equal(base, one) and not torch.equal(one, two)
    assert [r.amount for r in run.results] == [0, 2, 2]
    assert [r.updates for r in run.results] == [0, 6, 6]
    assert all(len(r.samples) == len(engine.prompts()) for r in run.results)
    assert {"talk", "sum", "format", "length"} <= set(run.results[2].scores)


def test_another_seed_is_another_run():
    one, other = (engine.run(TWO, scale=0.01, seed=seed) for seed in (1, 2))
    assert not torch.equal(weights(one.models["one"]), weights(other.models["one"]))


def test_a_run_of_other_code_is_another_run(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "lib", tmp_path / "lib")
    monkeypatch.setattr(folder, "RECIPES", tmp_path / "lib" / "recipes")
    recipe = command.recipe("tulu3")
    before = folder.manifest(recipe, 0.01, 0)
    assert folder.manifest(recipe, 0.01, 0) == before
    for file in ("recipes/tulu3.py", "losses/preference.py"):
        place = tmp_path / "lib" / file
        place.write_text(place.read_text("utf-8") + "\nx = 1\n", "utf-8")
        after = folder.manifest(recipe, 0.01, 0)
        assert after["code"] != before["code"], file
        before = after


@pytest.mark.parametrize("what", ["code", "torch"])
def test_a_run_that_other_code_began_is_not_gone_on_with(tmp_path, what):
    ours = folder.manifest(TWO, 0.01, 0)
    Folder(tmp_path).open({**ours, what: "another"}, resume=False)
    with pytest.raises(CheckpointError, match=f"a run with {what} another, not {what}"):
        Folder(tmp_path).open(ours, resume=True)
    Folder(tmp_path).open({**ours, what: "another"}, resume=True)


def test_a_run_in_a_folder_ends_with_the_same_weights_and_resumes_for_free(tmp_path):
    free = engine.run(TWO, scale=0.01, seed=1)
    kept = engine.run(TWO, scale=0.01, seed=1, out=tmp_path)
    assert torch.equal(weights(free.models["two"]), weights(kept.models["two"]))
    again = engine.run(TWO, scale=0.01, seed=1, out=tmp_path, resume=True)
    assert torch.equal(weights(free.models["two"]), weights(again.models["two"]))
    assert [r.resumed for r in again.results] == [False, True, True]
    assert again.results[2].scores == kept.results[2].scores
    assert not list((tmp_path / "stages").glob("*.part"))


def test_a_run_that_torchrun_starts_anew_goes_on_unasked(tmp_path, monkeypatch):
    engine.run(TWO, scale=0.01, out=tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = engine.run(TWO, scale=0.01, out=tmp_path)
    assert [r.resumed for r in again.results] == [False, True, True]


def test_a_changed_recipe_is_run_from_its_first_other_stage_on():
    before = engine.run(TWO, scale=0.01)
    begun = []

    def noted(work):
        begun.append(work.amount)
        return tuned(work)

    told = []
    other = TWO.changed("two", run=noted, published=300)
    found = engine.rerun(before, other, told=told.append)
    assert begun == [3] and [r.stage for r in told] == ["two"]
    assert found.models["one"] is before.models["one"]
    assert found.results[:2] == before.results[:2] and found.result("two") == told[0]
    assert found.recipe is other and (found.scale, found.seed) == (0.01, 0)
    first = engine.rerun(before, TWO.without("one"))
    assert [r.stage for r in first.results] == [BASE, "two"]
    whole = engine.run(TWO.without("one"), scale=0.01)
    assert torch.equal(weights(first.models["two"]), weights(whole.models["two"]))
    with pytest.raises(ValueError, match="^stage: got 'one'"):
        first.result("one")


class Stop(Exception):
    """The lights go out."""


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_run_that_stopped_inside_a_stage_goes_on_bit_for_bit(
    tmp_path, monkeypatch, name
):
    whole = engine.run(TWO, scale=0.01)
    real, count = sft.sft_loss, 0

    def dying(model, batch):
        nonlocal count
        count += 1
        if count == {"one": 4, "two": 11}[name]:  # updates 3 and 4 are not yet saved
            raise Stop
        return real(model, batch)

    monkeypatch.setattr(sft, "sft_loss", dying)
    with pytest.raises(Stop):
        engine.run(TWO, scale=0.01, out=tmp_path)
    assert [p.name.split("-")[1] for p in (tmp_path / "stages").glob("*.part")] == [
        f"{name}.part"
    ]
    before = count
    found = engine.run(TWO, scale=0.01, out=tmp_path, resume=True)
    assert torch.equal(weights(whole.models["two"]), weights(found.models["two"]))
    assert count - before == {"one": 4, "two": 2}[name] + 6 * (name == "one")


# --- refusing -------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_begun_anew_and_not_mistaken_for_another(
    tmp_path, refuses
):
    engine.run(TWO, scale=0.01, out=tmp_path)
    with pytest.raises(ValueError, match="^out: got .*, which holds a run"):
        engine.run(TWO, scale=0.01, out=tmp_path)
    for other in ({"scale": 0.02}, {"scale": 0.01, "seed": 3}):
        with pytest.raises(CheckpointError, match=r"run\.json: a run with"):
            engine.run(TWO, out=tmp_path, resume=True, **other)
    with pytest.raises(CheckpointError, match=r"a run with stages"):
        engine.run(TWO.without("two"), scale=0.01, out=tmp_path, resume=True)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json: not a run of this book"):
        engine.run(TWO, scale=0.01, out=tmp_path, resume=True)


def test_a_truncated_or_foreign_stage_is_refused_with_its_path_and_reason(tmp_path):
    engine.run(TWO, scale=0.01, out=tmp_path)
    place = tmp_path / "stages" / "1-one.pt"
    good = place.read_bytes()
    place.write_bytes(good[:-100])
    with pytest.raises(CheckpointError, match=r"1-one\.pt: corrupt"):
        engine.run(TWO, scale=0.01, out=tmp_path, resume=True)
    place.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match=r"1-one\.pt: not a checkpoint"):
        engine.run(TWO, scale=0.01, out=tmp_path, resume=True)
    checkpoint.save(place, {"model": {}})
    with pytest.raises(CheckpointError, match=r"1-one\.pt: not of this stage"):
        engine.run(TWO, scale=0.01, out=tmp_path, resume=True)
    place.write_bytes((tmp_path / "stages" / "2-two.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"1-one\.pt: not of this stage \(.*two"):
        engine.run(TWO, scale=0.01, out=tmp_path, resume=True)


def test_a_truncated_or_foreign_stage_in_flight_is_refused_as_well(tmp_path):
    engine.run(TWO, scale=0.01, out=tmp_path)
    (tmp_path / "stages" / "2-two.pt").unlink()
    part = tmp_path / "stages" / "2-two.part"
    part.write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"2-two\.part: not a checkpoint"):
        engine.run(TWO, scale=0.01, out=tmp_path, resume=True)
    checkpoint.save(part, {"model": {}, "generators": []})
    with pytest.raises(CheckpointError, match=r"2-two\.part: not of this run"):
        engine.run(TWO, scale=0.01, out=tmp_path, resume=True)


def test_an_error_of_the_stage_itself_is_not_blamed_on_a_file(tmp_path):
    def broken(work):
        raise ValueError("my own fault")

    recipe = Recipe("stages", "One", "nobody", (stage("one", BASE, run=broken),))
    with pytest.raises(ValueError, match="my own fault"):
        engine.run(recipe, scale=0.01, out=tmp_path)


def test_an_error_of_a_resumed_stage_is_not_blamed_on_its_file_either(tmp_path):
    def broken(work):
        raise RuntimeError("my own fault")

    engine.run(TWO, scale=0.01, out=tmp_path)
    last = tmp_path / "stages" / "2-two.pt"
    last.rename(last.with_suffix(".part"))
    recipe = TWO.changed("two", run=broken)
    with pytest.raises(RuntimeError, match="my own fault"):
        engine.run(recipe, scale=0.01, out=tmp_path, resume=True)


def test_the_second_of_two_runs_on_one_folder_is_refused(tmp_path):
    with Folder(tmp_path).alone():
        with pytest.raises(Busy, match="another run is writing here"):
            engine.run(TWO, scale=0.01, out=tmp_path)
        with pytest.raises(Busy):  # the first refusal took nothing from the holder
            engine.run(TWO, scale=0.01, out=tmp_path)
    engine.run(TWO, scale=0.01, out=tmp_path)  # the lock went with its holder


def test_a_folder_that_another_process_writes_to_is_free_when_that_is_killed(tmp_path):
    holder = (
        "import sys, time; from pathlib import Path\n"
        "from lib.recipes.folder import Folder\n"
        "with Folder(Path(sys.argv[1])).alone(): print('held', flush=True), time.sleep(99)"
    )
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Busy), Folder(tmp_path).alone():
            pass
        process.kill()
    with Folder(tmp_path).alone():
        assert (tmp_path / "stages").is_dir()


def test_a_full_disk_stops_the_run_and_what_was_kept_goes_on(tmp_path, monkeypatch):
    whole = engine.run(TWO, scale=0.01)
    real, count = os.fsync, 0

    def full(handle):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"1-one\.part: not written \(No space left"):
        engine.run(TWO, scale=0.01, out=tmp_path)
    found = engine.run(TWO, scale=0.01, out=tmp_path, resume=True)
    assert torch.equal(weights(whole.models["two"]), weights(found.models["two"]))


# --- the command ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope", "--out", "x"], "recipe: got 'nope', wanted one of instructgpt"),
        (["instructgpt"], "--out: got none"),
        (["instructgpt", "--out", "x", "--scale", "0"], "scale: got 0.0"),
        (["instructgpt", "--out", "x", "--scale", "-1"], "scale: got -1.0"),
        (["instructgpt", "--out", "x", "--scale", "1e-6"], "which leaves no demonstr"),
        (["instructgpt", "--out", "x", "--seed", "-1"], "seed: got -1"),
        (["instructgpt", "--out", "x", "--device", "tpu"], "--device: got 'tpu'"),
        (["instructgpt", "--out", "/proc/none"], "/proc/none"),
    ],
)
def test_the_command_refuses_in_one_line_and_exits_with_2(
    arguments, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
    assert not list(tmp_path.glob("x/**/*.pt"))


def test_the_command_lists_the_sizes_that_a_run_would_have(capsys):
    for name in command.NAMES:
        command.main(["--list", "--scale", "0.29"])
        said = capsys.readouterr().out
        for stage in command.recipe(name).stages:
            assert f"at 0.29: {stage.amount(0.29):,}" in said
    assert command.main(["--list", "--scale", "1e-12"]) == 2
    assert "scale: got 1e-12" in capsys.readouterr().err


LISTED = re.compile(r"^  (\w+) .*; at [^:]+: ([\d,]+)(?: in ([\d,]+) updates?)?$")


@pytest.mark.parametrize("scale", [0.0002, 0.0005])
@pytest.mark.parametrize("name", command.NAMES)
def test_a_run_does_what_the_command_lists(name, scale, capsys):
    """Every prompt and update that is listed; R1's first stage alone, for time's sake."""
    recipe = command.recipe(name)
    if name == "deepseek_r1":
        recipe = dataclasses.replace(recipe, stages=recipe.stages[:1])
    assert command.main(["--list", "--scale", str(scale)]) == 0
    said = capsys.readouterr().out.partition(f"{name}: ")[2].splitlines()[1:]
    listed = {}
    for line in said[: len(recipe.stages)]:
        stage, amount, updates = LISTED.match(line).groups()
        listed[stage] = int(amount.replace(",", "")), updates and int(updates)
    assert list(listed) == [stage.name for stage in recipe.stages]
    for result in engine.run(recipe, scale=scale).results[1:]:
        amount, updates = listed[result.stage]
        rl = recipe.stage(result.stage).tool == "policy gradients"
        assert (result.amount, result.updates if rl else None) == (amount, updates)


def test_the_command_lists_the_recipes_with_their_sizes(capsys):
    assert command.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert (
        "InstructGPT (2022)" in said and "12,725 demonstrations; at 0.01: 127" in said
    )
    assert "5,000 samples (assumed); at 0.01: 50\n" in said
    assert "31,144 prompts; at 0.01: 311 in 40 updates\n" in said
    assert said.count("(assumed)") == 3


def test_the_command_writes_a_table_the_curves_and_the_samples(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "recipe", lambda name: TWO)
    assert command.main(["instructgpt", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "two: 2 things, 6 updates" in said and "written: " in said
    table = (tmp_path / "results.md").read_text()
    assert "| skill | base | one | two |" in table and "| talk |" in table
    assert engine.prompts()[0].request in (tmp_path / "samples.md").read_text()
    curves = (tmp_path / "curves.svg").read_text()
    assert curves.startswith("<svg") and curves.endswith("</svg>\n")
    found = json.loads((tmp_path / "results.json").read_text())
    assert [len(r["history"].get("loss", [])) for r in found] == [0, 6, 6]
    assert command.main(["instructgpt", "--out", str(tmp_path), "--resume"]) == 0
    assert "kept from before" in capsys.readouterr().out
    assert (tmp_path / "results.md").read_text().count("kept from before") == 2


def test_a_reward_model_is_kept_but_has_no_column_in_the_table(tmp_path):
    judge = stage(
        "judge",
        BASE,
        published=800,
        run=feedback.reward_model_stage(answers=(2, 3), batch=4),
        judges=True,
    )
    recipe = Recipe("stages", "Judge", "nobody", (judge,))
    run = engine.run(recipe, scale=0.01, out=tmp_path)
    again = engine.run(recipe, scale=0.01, out=tmp_path, resume=True)
    assert torch.equal(weights(run.models["judge"]), weights(again.models["judge"]))
    assert set(run.results[1].scores) == {"accuracy"} and run.results[1].updates == 2
    assert report.table(run.results).splitlines()[0] == "| skill | base |"


def test_kill_9_and_resume_give_the_same_weights_as_a_run_left_alone(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
        "from lib.recipes import engine; from tests.test_recipes import TWO\n"
        "engine.ASKED = 2\n"
        "engine.run(TWO, scale=0.01, out=sys.argv[2], resume='r' in sys.argv[3])\n"
    )

    def begun(mode):
        arguments = [sys.executable, "-c", script, str(ROOT), str(tmp_path), mode]
        return subprocess.Popen(arguments, cwd=ROOT)

    process, deadline = begun("new"), time.monotonic() + 600
    while not list(tmp_path.glob("stages/*.part")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was to be killed inside a stage"
    assert begun("r").wait() == 0
    whole = engine.run(TWO, scale=0.01)
    found = checkpoint.load(tmp_path / "stages" / "2-two.pt")["model"]
    for name, weight in whole.models["two"].state_dict().items():
        assert torch.equal(weight, found[name])
