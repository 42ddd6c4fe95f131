"""Files that survive: written whole or not at all, and never believed without a check."""

import hashlib
import io
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lib import checkpoint

STATE = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "step": 7,
    "lr": 0.1,
    "name": "pole",
    "history": {"loss": [1.0, 0.5]},
    "pair": (1, None, True),
}
ROOT = Path(__file__).resolve().parents[1]


def same(a, b):
    """Equal as nested containers of tensors and plain values."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@pytest.fixture
def path(tmp_path):
    """Where the checkpoint of a test lies, in a folder of its own."""
    return tmp_path / "pole.pt"


def test_what_is_saved_comes_back(path):
    checkpoint.save(path, STATE)
    assert same(checkpoint.load(path), STATE)
    assert [p.name for p in path.parent.iterdir()] == ["pole.pt"]


def test_a_path_may_be_a_string(path):
    checkpoint.save(str(path), STATE)
    assert same(checkpoint.load(str(path)), STATE)


def test_the_file_says_what_it_is_and_carries_its_sha256(path):
    checkpoint.save(path, STATE)
    title, digest, payload = path.read_bytes().split(b"\n", 2)
    assert title == b"rlhf-executed checkpoint 1"
    assert digest.decode() == hashlib.sha256(payload).hexdigest()
    assert same(torch.load(io.BytesIO(payload), weights_only=True), STATE)


def test_a_second_save_replaces_the_first(path):
    checkpoint.save(path, STATE)
    checkpoint.save(path, {"step": 8})
    assert checkpoint.load(path) == {"step": 8}


def test_a_flipped_byte_anywhere_is_found(path):
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    for at in [*range(0, 92), *range(92, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(checkpoint.CheckpointError, match=re.escape(str(path))):
            checkpoint.load(path)


@pytest.mark.parametrize("share", [0, 0.05, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, share):
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(checkpoint.CheckpointError, match=re.escape(str(path))):
        checkpoint.load(path)


def refused(path):
    """What `load` says about the file."""
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load(path)
    return str(caught.value)


def test_a_refusal_says_which_file_and_why(path):
    corrupt = f"{path}: corrupt (its sha256 does not match its content)"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert refused(path) == corrupt
    path.write_bytes(whole + b"\n")
    assert refused(path) == corrupt
    path.write_bytes(checkpoint.MAGIC)
    assert refused(path) == corrupt
    path.write_bytes(b"")
    assert refused(path) == f"{path}: not a checkpoint of this book"
    torch.save(STATE, path)  # torch's own format
    assert refused(path) == f"{path}: not a checkpoint of this book"
    path.write_bytes(b" " + whole)
    assert refused(path) == f"{path}: not a checkpoint of this book"


def signed(payload):
    """A file that claims to be ours, with a matching sha256."""
    return (
        checkpoint.MAGIC
        + hashlib.sha256(payload).hexdigest().encode()
        + b"\n"
        + payload
    )


def test_a_pickle_bomb_is_not_executed(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    for make in (
        lambda b: torch.save({"x": Bomb()}, b),
        lambda b: pickle.dump(Bomb(), b, 2),
    ):
        buffer = io.BytesIO()
        make(buffer)
        path.write_bytes(signed(buffer.getvalue()))
        message = refused(path)
        assert message.startswith(f"{path}: unreadable (") and message.endswith(")")
        assert "\n" not in message
        assert not (tmp_path / "boom").exists()


def test_signed_nonsense_is_refused_in_one_line(path):
    path.write_bytes(signed(b"nonsense"))
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load(path)
    reason = str(caught.value.__cause__).splitlines()[0]
    assert len(reason) > 10
    assert str(caught.value) == f"{path}: unreadable ({reason})"


def test_a_missing_file_is_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        checkpoint.load(path)


def test_a_state_that_cannot_be_pickled_leaves_the_old_file_and_no_other(path):
    checkpoint.save(path, STATE)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoint.save(path, {"f": lambda: 0})
    assert same(checkpoint.load(path), STATE)
    assert [p.name for p in path.parent.iterdir()] == ["pole.pt"]


def test_a_target_that_is_a_folder_is_named_and_nothing_is_left_behind(path):
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        checkpoint.save(path, STATE)
    size = len(payload_of(STATE))
    want = f"{path}: not written (Is a directory), needs {size:,} bytes"
    assert caught.value.strerror == want and f"{size:,}" in str(caught.value)
    assert size > 1000 and isinstance(caught.value.__cause__, OSError)
    assert [p.name for p in path.parent.iterdir()] == ["pole.pt"]


def payload_of(state):
    """torch.save's bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def run(code, *args):
    """Run Python beside us, so that limits and kills hit it and not the tests."""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}",
    ]
    return subprocess.Popen(
        [*command, *map(str, args)], stderr=subprocess.PIPE, text=True
    )


LIMITED = """
import resource, signal
from lib import checkpoint
import torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
checkpoint.save(sys.argv[1], {"x": torch.zeros(10_000)})
"""


def test_a_full_disk_leaves_the_old_file_and_no_stub(path):
    checkpoint.save(path, STATE)
    child = run(LIMITED, path)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1
    assert re.search(
        rf"{path}: not written \(File too large\), needs 4\d,\d\d\d bytes", said
    )
    assert same(checkpoint.load(path), STATE)
    assert [p.name for p in path.parent.iterdir()] == ["pole.pt"]


def test_an_interrupted_write_leaves_the_old_file_and_no_stub(path, monkeypatch):
    checkpoint.save(path, STATE)

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"step": 8})
    assert same(checkpoint.load(path), STATE)
    assert [p.name for p in path.parent.iterdir()] == ["pole.pt"]


@pytest.mark.parametrize("late", [KeyboardInterrupt(), OSError(5, "I/O error")])
def test_a_stop_just_after_the_move_is_reported_as_what_it_was(path, monkeypatch, late):
    replace = os.replace

    def moved_then_stopped(source, target):
        replace(source, target)
        raise late

    monkeypatch.setattr(os, "replace", moved_then_stopped)
    with pytest.raises(type(late)) as caught:
        checkpoint.save(path, STATE)
    assert isinstance(caught.value, KeyboardInterrupt) or caught.value.errno == 5
    assert same(checkpoint.load(path), STATE)
    assert [p.name for p in path.parent.iterdir()] == ["pole.pt"]


def test_bytes_are_on_the_disk_before_the_name_moves(path, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle):
        seen.append(("fsync", os.fstat(handle).st_size))
        fsync(handle)

    def watched_replace(source, target):
        where = (
            Path(source).parent == path.parent and Path(source).name[:9] == ".pole.pt."
        )
        seen.append(("replace", where, Path(target) == path))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    checkpoint.save(path, STATE)
    assert seen == [("fsync", path.stat().st_size), ("replace", True, True)]
    assert stat.S_ISREG(path.stat().st_mode)


WRITER = """
from lib import checkpoint
import itertools, torch
print("ready", file=sys.stderr, flush=True)
for i in itertools.count():
    checkpoint.save(sys.argv[1], {"i": i, "x": torch.full((20_000,), i)})
"""


def test_a_killed_writer_leaves_a_whole_file(path):
    child = run(WRITER, path)
    assert child.stderr.readline() == "ready\n"
    while not path.exists():
        time.sleep(0.01)
    good, state = 0, {"i": 0}
    while good < 20 or state["i"] == 0:  # a reader beside the writer
        state = checkpoint.load(path)
        assert (state["x"] == state["i"]).all()
        good += 1
    child.send_signal(signal.SIGKILL)
    child.communicate()
    state = checkpoint.load(path)
    assert (state["x"] == state["i"]).all() and state["i"] > 0


def test_no_file_is_ever_unpickled_without_a_check():
    for file in (ROOT / "lib").rglob("*.py"):
        text = file.read_text()
        assert "weights_only=False" not in text and "import pickle" not in text
        assert text.count("torch.load(") == text.count("weights_only=True")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_checkpoint_may_be_read_by_whom_the_user_s_umask_lets_read(
    tmp_path, mask, mode
):
    before = os.umask(mask)
    try:
        checkpoint.save(tmp_path / "run.pt", {"x": torch.ones(2)})
        assert os.umask(mask) == mask  # left as it was found
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.pt").stat().st_mode) == mode
