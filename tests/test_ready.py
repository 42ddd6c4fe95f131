"""Weights that are committed: float32 on disk, float64 in use."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lib import pretrain, ready
from lib.models.transformer import Config, Transformer

TINY = Config(vocabulary=20, layers=1, width=8, heads=2, hidden=8)


def tiny(seed=0, dtype=torch.float64, config=TINY):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(config, generator=draws, dtype=dtype)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder for the weights of these tests; the committed ones stay as they are."""
    monkeypatch.setattr(ready, "FOLDER", tmp_path / "weights")
    return tmp_path / "weights"


def test_what_is_loaded_is_what_was_saved_rounded_to_float32(folder):
    model, other = tiny(0), tiny(1)
    assert ready.save(model, "mine") == folder / "mine.safetensors"
    found = ready.load(other, "mine")
    assert found is other
    for (name, want), got in zip(model.named_parameters(), found.parameters()):
        assert got.dtype == torch.float64 and got.requires_grad
        assert torch.equal(got, want.float().double()), name
    rounded = [p - p.float().double() for p in model.parameters()]
    assert any(x.abs().max() > 0 for x in rounded)  # so the test can tell


def test_on_disk_there_is_float32_and_nothing_of_the_model_is_changed(folder):
    model = tiny()
    before = [p.clone() for p in model.parameters()]
    ready.save(model, "mine")
    weights = load_file(folder / "mine.safetensors")
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert {w.dtype for w in weights.values()} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert all(p.dtype == torch.float64 for p in model.parameters())


def test_a_second_save_and_load_changes_no_bit(folder):
    ready.save(tiny(), "mine")
    first = (folder / "mine.safetensors").read_bytes()
    ready.save(ready.load(tiny(3), "mine"), "mine")
    assert (folder / "mine.safetensors").read_bytes() == first


def test_a_model_answers_as_the_one_that_was_saved():
    model, states = tiny(), torch.arange(12).reshape(2, 6)
    ready.save(model, "mine")
    found = ready.load(tiny(5, torch.float32), "mine")(states)
    assert found.dtype == torch.float64
    assert (found - model(states)).abs().max() < 1e-5
    assert torch.equal(found, model.float().double()(states))


def test_an_unknown_name_lists_what_there_is(refuses):
    with refuses("name: got 'mine', wanted one of none yet"):
        ready.load(tiny(), "mine")
    ready.save(tiny(), "two")
    ready.save(tiny(), "one")
    with refuses("name: got 'mine', wanted one of one, two"):
        ready.load(tiny(), "mine")


def test_a_model_of_another_shape_is_refused_and_stays_as_it_is(refuses):
    ready.save(nn.Linear(3, 1), "line")
    for model, other in (
        (nn.Linear(3, 2), "bias, weight"),  # a row would be copied into both
        (nn.Linear(3, 1, bias=False), "bias"),
        (nn.Sequential(nn.Linear(3, 1)), "0.bias, 0.weight, bias, weight"),
    ):
        before = [p.clone() for p in model.parameters()]
        wanted = "wanted one of the shape of 'line'"
        with refuses(f"model: got one that differs in {other}, {wanted}"):
            ready.load(model, "line")
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


COMMITTED = sorted((ready.FOLDER).glob("*.safetensors"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_weights_are_finite_float32(path):
    weights = load_file(path)
    assert {w.dtype for w in weights.values()} == {torch.float32}
    assert all(w.isfinite().all() for w in weights.values())


def test_committed_weights_take_at_most_four_megabytes():
    assert sum(path.stat().st_size for path in COMMITTED) <= 4_000_000


@pytest.mark.parametrize("seed", pretrain.SEEDS)
def test_the_base_model_of_each_seed_is_there(seed, monkeypatch):
    if not COMMITTED:
        pytest.skip("no weights are committed yet")
    monkeypatch.undo()
    model = pretrain.base_model(seed=seed)
    assert model.config == pretrain.CONFIG
    weights = load_file(ready.path_of(f"base-{seed}"))
    for name, weight in model.named_parameters():
        assert torch.equal(weight, weights[name].double())
