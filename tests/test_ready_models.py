"""The committed models are what the code makes, play the game, and rarely think."""

import pytest
import torch

from labs import r1_zero
from lib import pretrain, ready
from lib.pretrain import SEEDS, base_model

# Weights are float32: half a unit in the last of 24 bits, relative to the weight, and
# what float64 itself may differ by between processors.
LAST_BIT, NOISE = 2.0**-24, 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_base_model_thinks_rarely_and_well(seed):
    base = base_model(seed=seed)
    assert next(base.parameters()).dtype == torch.float64
    found = r1_zero.examined(base, count=60)
    assert 0.02 <= found["thinks"] <= 0.15  # of 180 answers
    made = r1_zero.forced(base, level=3, count=100)
    assert made["right"] >= 0.5 and made["faithful"] >= 0.5


def test_annealing_made_anew_gives_the_committed_base():
    model = ready.load(pretrain.blank(), "before-annealing")
    pretrain.anneal(model, seed=0)
    committed = dict(base_model(seed=0).named_parameters())
    for name, weight in model.named_parameters():
        far = (weight - committed[name]).abs()
        assert (far <= LAST_BIT * weight.abs() + NOISE).all(), name


def test_pretraining_begins_as_it_did():
    _, history = pretrain.pretrain(seed=0, updates=3)
    draw = pretrain.generator("base model", 0)
    fresh = pretrain.Transformer(pretrain.CONFIG, generator=draw, dtype=torch.float64)
    first = next(iter(pretrain.corpus(seed=0, updates=3).split(pretrain.BATCH)))
    loss, _ = pretrain.next_token_loss(fresh, first)
    assert history["loss"][0] == pytest.approx(loss.item(), rel=1e-12)
    assert history["loss"][2] < history["loss"][0]


def test_all_committed_weights_take_less_than_four_megabytes():
    files = list(ready.FOLDER.glob("*.safetensors"))
    others = {"before-annealing", "rare-base-0", "assistant-0", "reward-0"}
    assert {path.stem for path in files} == {f"base-{s}" for s in SEEDS} | others
    assert sum(path.stat().st_size for path in files) < 4_000_000
