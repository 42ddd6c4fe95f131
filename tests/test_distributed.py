"""Many processes end where one does: tests/processes.py measures, under torchrun."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from lib import distributed
from tools import notebooks

ROOT = notebooks.ROOT
RANKS = ("--standalone", "--nproc-per-node=2", "--monitor-interval=0.1")
CLOSE = {"float32": 1e-6, "float64": 1e-12}
WAYS = ("all-reduce", "DDP", "FSDP2")


def begun(*arguments):
    """A torchrun that has begun."""
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=threads, **told)


def ended(run, seconds=240):
    """Its exit status and what it said; nothing of it is left after so many seconds."""
    try:
        said, _ = run.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGTERM)  # torchrun then ends its processes
        said, _ = run.communicate()
    return run.returncode, said


def torchrun(*arguments, seconds=240):
    """Both, with two ranks on this computer."""
    return ended(begun(*RANKS, *arguments), seconds)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """All that two processes have measured."""
    out = tmp_path_factory.mktemp("two") / "all.json"
    status, said = torchrun("tests/processes.py", "everything", str(out))
    assert status == 0, said
    return json.loads(out.read_text())


def each(told, dtype):
    """(loss, shares, way, error) of all gradients that were compared."""
    for loss, by_shares in told[dtype].items():
        for shares, by_way in by_shares.items():
            for way, error in by_way.items():
                yield loss, shares, way, error


@pytest.mark.parametrize("dtype", CLOSE)
def test_two_processes_have_the_gradient_of_one(measured, dtype):
    found = [e for e in each(measured, dtype) if e[2] in WAYS]
    assert len(found) == 13 * 2 * 3
    assert [e for e in found if not e[3] <= CLOSE[dtype]] == []


def test_the_plain_mean_of_uneven_shares_is_wrong(measured):
    plain = [e for e in each(measured, "float64") if e[2] == "plain mean"]
    assert all(error > 0.01 for _, shares, _, error in plain if shares == "uneven")
    assert any(error > 0.01 for _, shares, _, error in plain if shares == "even")


def test_fit_ends_with_the_weights_of_one_process(measured):
    assert set(measured["fit"]) > {
        "sft in microbatches",
        "sft in pieces",
        "dpo",
        "reward model",
    }
    assert all(apart < 1e-12 for apart in measured["fit"].values())


@pytest.mark.parametrize("name", ["GRPO", "PPO", "DAPO"])
def test_reinforcement_learning_ends_with_the_weights_of_one_process(measured, name):
    found = measured["rl"][name]
    assert found["weights"] < 1e-12 < 1e-3 < found["moved"]
    assert found["in pieces"] < 1e-12  # of a policy, and a critic, that are sharded
    assert found["sharded"] == [True] * (2 if name == "PPO" else 1)
    assert found["rewards equal"] and found["answers equal"]
    one, other = found["steps"]
    assert one != other  # and nobody waited for ever


def test_ranks_of_two_computers_meet_again_though_one_torchrun_alone_counts(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "met.json"
    asked = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]
    asked += ["--monitor-interval=0.1", "--rdzv-backend=c10d", "--rdzv-id=met"]
    asked += [f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1"]
    both = [begun(*asked, "tests/processes.py", "met_again", str(out)) for _ in "ab"]
    for status, said in map(ended, both):
        assert status == 0, said
    found = json.loads(out.read_text())
    assert found["sum"] == 3
    assert sorted(found["counts"]) == ["0", "1"]  # at once: the one death, and no other


def test_a_rank_may_read_a_sharded_model_more_often_than_another(measured):
    assert measured["unevenly"] < 1e-12


def test_a_sharded_model_goes_on_from_its_checkpoint_bit_for_bit(measured):
    found = measured["pieces"]
    assert found["equal"] and found["about"] == {"done": 2}
    assert found["here"] < 0.6 * found["all"]


def test_one_process_has_nobody_to_share_weights_with(refuses):
    with refuses(
        "model: got one process, wanted more, started by torchrun: see `start`"
    ):
        distributed.shard(torch.nn.Linear(2, 2))


def test_what_cannot_be_shared_is_refused_by_name(measured):
    kto, unknown, no_rows = measured["refused"]
    assert kto.startswith("over: got None") and unknown.startswith("over: got None")
    assert no_rows.startswith("batches: got tuple")


def test_a_killed_rank_is_started_again_and_the_weights_are_the_same(tmp_path):
    out = tmp_path / "killed.json"
    asked = "--max-restarts=3", "tests/processes.py", "killed", str(out), "7:1"
    status, said = torchrun(*asked)
    assert status == 0, said
    found = json.loads(out.read_text())
    assert found["attempts"] == 1 and found["resumed"]
    assert found["weights"] < 1e-12


# --- one process ----------------------------------------------------------------------


def test_without_torchrun_one_rank_has_everything():
    distributed.start()  # nothing to join
    assert (distributed.rank(), distributed.size()) == (0, 1)
    assert distributed.share(6, multiple=3).tolist() == [0, 1, 2, 3, 4, 5]
    assert distributed.total(3) == 3 and distributed.gathered("a") == ["a"]
    loss = torch.tensor(0.3, dtype=torch.float64)
    assert distributed.weighted(loss, 7) == loss
    distributed.meet()
    distributed.stop()


def test_rows_are_split_in_order_with_their_groups_whole():
    parts = distributed.split(torch.arange(10), 3, multiple=2)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    parts = distributed.split(torch.arange(2), 3, multiple=2)
    assert [len(part) for part in parts] == [2, 0, 0]


@pytest.mark.parametrize(
    ("count", "multiple", "refusal"),
    [(7, 2, "count: got 7, wanted a multiple of 2"), (-1, 1, "count"), (4, 0, "mult")],
)
def test_half_a_group_is_refused(count, multiple, refusal):
    with pytest.raises(ValueError, match=refusal):
        distributed.share(count, multiple=multiple)


def test_gradients_of_one_process_stay_as_they_are():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    distributed.average_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0]
