"""What is kept on this computer: a cache with a key that knows its sources, not believed."""

import errno
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib import checkpoint
from lib import villagers as made_here
from lib.checkpoint import cache_path as path_of
from lib.checkpoint import cached
from lib.digest import sources
from lib.models.transformer import Config, Transformer
from lib.villagers import base_model, base_run, pretrain

ROOT = Path(__file__).resolve().parents[1]
TINY = Config(vocabulary=307, context=64, layers=1, width=16, heads=2, hidden=16)


def same(one, two):
    """Two models with bit-equal weights."""
    ours, theirs = one.state_dict(), two.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


def base_model_path(seed):
    """Where the village's base model of this seed is kept."""
    of = made_here.CONFIG, made_here.UPDATES
    return path_of(f"base-{seed}", file=made_here.__file__, of=of)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, a tiny model and three updates."""
    folder = tmp_path / "deep" / "cache"
    monkeypatch.setenv("RLHF_EXECUTED_CACHE", str(folder))
    monkeypatch.setattr(made_here, "CONFIG", TINY)
    monkeypatch.setattr(made_here, "UPDATES", 3)
    return folder


@pytest.fixture
def no_training(monkeypatch):
    """From here on nothing may be trained: what comes must come from the cache."""

    def stop():
        def never(**arguments):
            raise AssertionError("trained again")

        monkeypatch.setattr(made_here, "pretrain", never)

    return stop


def test_what_is_kept_is_made_once_for_each_name_and_each_thing_it_depends_on(cache):
    made = []

    def make():
        made.append(len(made))
        return {"count": len(made)}

    ask = {"file": made_here.__file__, "make": make}
    assert cached("one", **ask)["count"] == cached("one", **ask)["count"] == 1
    assert cached("two", **ask)["count"] == 2
    assert cached("one", of=3, **ask)["count"] == 3
    assert cached("one", of=3, **ask)["count"] == 3
    assert cached("one", of="", **ask)["count"] == 1
    names = sorted(p.name.partition("-")[0] for p in cache.iterdir())
    assert names == ["one", "one", "two"]
    assert path_of("two", file=made_here.__file__) in cache.iterdir()


def test_every_way_to_import_is_seen(tmp_path):
    lib = tmp_path / "lib"
    (lib / "deep").mkdir(parents=True)
    names = ["a", "b", "c", "d", "e", "unused", "deep/f", "deep/g"]
    for name in names:
        (lib / f"{name}.py").write_text("")
    (lib / "top.py").write_text(
        "import os, lib.a\n"
        "from lib import (\n    b as other,\n    c,\n)\n"
        "from lib.deep.f import x\n"
        "from lib.deep import g\n"
        "def late():\n    from lib.d import y\n    from . import z\n"
    )
    (lib / "d.py").write_text("from lib.e import *\nfrom lib import top")
    found = {file.relative_to(lib).as_posix() for file in sources(lib / "top.py")}
    assert found == {
        "top.py", "a.py", "b.py", "c.py", "d.py", "e.py", "deep/f.py", "deep/g.py"
    }  # fmt: skip


# ---------------------------------------------------------------- the cache


def test_the_second_call_reads_what_the_first_one_made(cache, no_training):
    model, history = base_run(seed=1)
    assert [*cache.iterdir()] == [base_model_path(1)]
    no_training()
    again, history_again = base_run(seed=1)
    assert same(model, again) and history == history_again
    assert again.config == TINY
    assert same(base_model(seed=1), model)


def test_what_is_kept_is_what_pretraining_gives(cache):
    model, history = pretrain(seed=0, config=TINY, updates=3)
    for _ in range(2):
        cached, kept_history = base_run()
        assert same(cached, model) and kept_history == history
        assert same(base_model(), model)


def test_progress_is_shown_while_the_model_is_made(cache, capfd):
    base_model(seed=0, progress="making")
    assert "3/3" in capfd.readouterr().err
    base_run(seed=1, progress="making")
    assert "3/3" in capfd.readouterr().err
    base_model(seed=0, progress="making")
    base_run(seed=1)
    assert capfd.readouterr() == ("", "")


def test_who_makes_a_model_is_told_what_it_is_how_long_it_takes_and_where_it_stays(
    cache, capfd
):
    base_model(seed=2)
    out, err = capfd.readouterr()
    told, bar = err.split("\n", 1)
    assert out == "" and told.endswith(f" s, once; then kept in {cache}")
    assert re.match(r"Making the base model, which takes about \d+ s", told)
    assert "base model: " in bar and "3/3" in bar


def test_an_interrupt_leaves_no_half_model_and_the_next_call_makes_it(cache):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("one", interrupted, file=made_here.__file__)
    assert not cache.exists() or [*cache.iterdir()] == []
    made = cached("one", lambda: {"count": 1}, file=made_here.__file__)
    assert made["count"] == 1 and len([*cache.iterdir()]) == 1


def test_nothing_is_written_outside_the_cache(cache, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir(), here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    base_run()
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {base_model_path(0)} and cache in base_model_path(0).parents


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/nowhere/home")
    for name in ("RLHF_EXECUTED_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert base_model_path(0).parent == Path("/nowhere/home/.cache/rlhf-executed")
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere/xdg")
    assert base_model_path(0).parent == Path("/nowhere/xdg/rlhf-executed")
    monkeypatch.setenv("RLHF_EXECUTED_CACHE", "/nowhere/ours")
    assert base_model_path(0).parent == Path("/nowhere/ours")
    for name in ("RLHF_EXECUTED_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    assert base_model_path(0).parent == Path("/nowhere/home/.cache/rlhf-executed")


# ---------------------------------------------------------------- its key


def name_of(seed=0):
    return base_model_path(seed).name


def test_the_name_tells_the_seed_and_a_hash():
    prefix, seed, rest = name_of(17).split("-")
    assert (prefix, seed) == ("base", "17")
    assert len(rest) == 16 + 3 and rest.endswith(".pt")
    assert int(rest[:16], 16) >= 0
    assert name_of(17) == name_of(17)


def test_another_seed_model_length_torch_or_processor_has_another_name(monkeypatch):
    names = {name_of(0), name_of(1)}
    for where, what, value in (
        (made_here, "CONFIG", TINY),
        (made_here, "UPDATES", 3),
        (torch, "__version__", "0.0"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "ABACUS"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(where, what, value)
            names.add(name_of(0))
    assert len(names) == 6
    assert name_of(0) in names


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """lib in another place, where it may be changed."""
    shutil.copytree(ROOT / "lib", tmp_path / "lib")
    monkeypatch.setattr(made_here, "__file__", str(tmp_path / "lib" / "villagers.py"))
    return tmp_path / "lib"


def test_the_name_does_not_depend_on_where_the_book_lies(copied, monkeypatch):
    there = name_of()
    monkeypatch.setattr(made_here, "__file__", str(ROOT / "lib" / "villagers.py"))
    assert name_of() == there


def test_a_change_in_any_source_that_goes_into_it_changes_the_name(copied):
    names = {name_of()}
    used = sorted(sources(copied / "villagers.py"))
    for file in used:
        text = file.read_text("utf-8")
        file.write_text(text + "# another line\n", "utf-8")
        names.add(name_of())
        file.write_text(text, "utf-8")
    assert len(names) == len(used) + 1


def test_a_change_elsewhere_does_not(copied):
    before = name_of()
    for name in ("kl.py", "show/figures.py", "worlds/cartpole.py", "on_policy.py"):
        (copied / name).write_text("")
    assert name_of() == before


def test_what_goes_into_it_is_what_python_imports_for_it():
    code = (
        "import sys, lib.villagers\n"
        "ours = [m for n, m in sys.modules.items() if n.split('.')[0] == 'lib']\n"
        "print(*[m.__file__ for m in ours], sep='\\n')"
    )
    run = [sys.executable, "-c", code]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {Path(line) for line in said.stdout.splitlines()}
    assert sources(ROOT / "lib" / "villagers.py") == imported
    assert len(imported) > 12


# ---------------------------------------------------------------- damage


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def emptied(path):
    path.write_bytes(b"")


def pickled(path):
    path.write_bytes(pickle.dumps({"key": path.stem}))


def of_another_seed(path):
    base_run(seed=9)
    shutil.copy(base_model_path(9), path)


def a_checkpoint_of_something(path):
    checkpoint.save(path, {"weights": torch.ones(3)})


def a_checkpoint_of_a_list(path):
    checkpoint.save(path, [1, 2, 3])


CORRUPT = "corrupt (its sha256 does not match its content)"
FOREIGN = "holds something else than the model of its name"
DAMAGE = {
    truncated: CORRUPT,
    flipped: CORRUPT,
    emptied: "not a checkpoint of this book",
    pickled: "not a checkpoint of this book",
    of_another_seed: FOREIGN,
    a_checkpoint_of_something: FOREIGN,
    a_checkpoint_of_a_list: FOREIGN,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_is_noticed_and_made_anew(damage, cache, no_training):
    model, history = base_run()
    path = base_model_path(0)
    damage(path)
    with pytest.warns(UserWarning) as said:
        again, history_again = base_run()
    reason = f"{path}: {DAMAGE[damage]}; the model is made anew"
    assert [str(w.message) for w in said] == [reason]
    assert said[0].filename == __file__  # the warning points at who asked
    assert same(model, again) and history == history_again
    no_training()
    assert same(base_model(), model)  # without a warning: the file is whole again
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]


def test_a_folder_in_the_place_of_the_file_is_reported_and_the_model_made(cache):
    path = base_model_path(0)
    path.mkdir(parents=True)
    with pytest.warns(UserWarning) as said:
        model = base_model()
    first, second = (str(w.message) for w in said)
    assert str(path) in first and first.endswith("; the model is made anew")
    assert str(path) in second and second.startswith("the model was not kept: ")
    assert same(model, pretrain(config=TINY, updates=3)[0])
    assert [*cache.iterdir()] == [path] and not [*path.iterdir()]


def test_a_folder_that_cannot_be_made_costs_a_warning_only(
    cache, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RLHF_EXECUTED_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="^the model was not kept: ") as said:
        model, history = base_run()
    assert len(said) == 1 and said[0].filename == __file__
    made, made_history = pretrain(config=TINY, updates=3)
    assert same(model, made) and history == made_history


def test_a_full_disk_costs_a_warning_only(cache, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    reason = f"[Errno 28] {base_model_path(0)}: not written (No space left on device)"
    with pytest.warns(UserWarning) as said:
        model = base_model()
    assert len(said) == 1
    assert str(said[0].message).startswith(f"the model was not kept: {reason}, ")
    assert same(model, pretrain(config=TINY, updates=3)[0])
    assert [*cache.iterdir()] == []


def test_a_folder_that_may_not_be_written_costs_a_warning_only(cache, monkeypatch):
    def forbidden(**arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(arguments["dir"]))

    monkeypatch.setattr("tempfile.mkstemp", forbidden)
    with pytest.warns(UserWarning) as said:
        model = base_model()
    reason = f"[Errno 13] Permission denied: {str(cache)!r}"
    assert [str(w.message) for w in said] == [f"the model was not kept: {reason}"]
    assert same(model, pretrain(config=TINY, updates=3)[0])


def test_two_processes_at_once_leave_one_whole_file(cache, no_training, seeded):
    code = (
        "import torch\n"
        "from lib import checkpoint, villagers\n"
        "from lib.models.transformer import Config, Transformer\n"
        f"villagers.CONFIG, villagers.UPDATES = {TINY}, 3\n"
        "draws = torch.Generator().manual_seed(0)\n"
        "made = Transformer(villagers.CONFIG, generator=draws)\n"
        "villagers.pretrain = lambda **_: (made, {'loss': [1.0]})  # at once\n"
        "of = villagers.CONFIG, villagers.UPDATES\n"
        "path = checkpoint.cache_path('base-0', file=villagers.__file__, of=of)\n"
        "for _ in range(8): path.unlink(True); villagers.base_run()"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in "ab"]
    said = [process.communicate(timeout=120)[1].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(
        line.startswith(b"Making the base model") for lines in said for line in lines
    )
    assert [*cache.iterdir()] == [base_model_path(0)]
    no_training()
    model, history = base_run()
    assert same(model, Transformer(TINY, generator=seeded(0)))
    assert history == {"loss": [1.0]}
