"""Memory arithmetic, against sums by hand and against models that are really there."""

import copy
import dataclasses

import pytest
import torch

from lib.memory import (
    GB,
    METHODS,
    Memory,
    Method,
    activations,
    fits,
    kept,
    kv_cache,
    lora_parameters,
    parameters,
    tables,
    training,
)
from lib.models.lora import add_lora
from lib.models.transformer import Config, Transformer

TINY = Config(vocabulary=50, layers=2, width=16, heads=4, hidden=24, kv_heads=2)
EVEN = Config(vocabulary=31, layers=3, width=24, heads=2, hidden=40)
SMOL = Config(
    vocabulary=49_152, layers=30, width=576, heads=9, hidden=1_536, kv_heads=3
)
LLAMA = Config(
    vocabulary=128_256, layers=32, width=4_096, heads=32, hidden=14_336, kv_heads=8
)


@pytest.mark.parametrize("config", [TINY, EVEN])
def test_the_weights_are_those_of_the_model(config, seeded):
    model = Transformer(config, generator=seeded(0))
    assert parameters(config) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config", [TINY, EVEN])
@pytest.mark.parametrize("rank", [1, 8])
def test_the_weights_of_lora_are_those_that_it_trains(config, rank, seeded):
    model = Transformer(config, generator=seeded(0))
    add_lora(model, rank=rank, generator=seeded(1))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora_parameters(config, rank) == trained


def test_published_sizes_come_out():
    assert parameters(SMOL) == 134_515_008  # SmolLM2-135M
    assert parameters(LLAMA, tied=False) == 8_030_261_248  # Llama 3.1 8B


@pytest.mark.parametrize("name", ["float32", "mixed"])
def test_a_weight_that_is_learnt_costs_sixteen_bytes_with_all_that_goes_with_it(name):
    found = training(SMOL, METHODS[name], rows=1, tokens=1)
    lasting = found.weights + found.gradients + found.moments
    assert lasting == 16 * parameters(SMOL)


def test_optimisers_hold_what_the_arithmetic_says(seeded):
    model = Transformer(TINY, generator=seeded(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimiser.step()
    kept = [x for each in optimiser.state.values() for x in each.values() if x.ndim]
    found = training(TINY, METHODS["float32"], rows=1, tokens=3)
    assert sum(x.nbytes for x in kept) == found.moments
    assert sum(p.nbytes for p in model.parameters()) == found.weights
    assert sum(p.grad.nbytes for p in model.parameters()) == found.gradients


def test_lora_keeps_moments_for_the_thin_matrices_alone():
    found, thin = (
        training(LLAMA, METHODS["LoRA"], rows=1, tokens=1, tied=False),
        lora_parameters(LLAMA, 8),
    )
    assert found.moments == 8 * thin and found.gradients == 2 * thin
    assert found.weights == 2 * parameters(LLAMA, tied=False) + 6 * thin


def test_four_bits_are_about_half_a_byte_and_tables_of_tokens_have_sixteen():
    four, wide = (
        training(LLAMA, METHODS[name], rows=1, tokens=1)
        for name in ("LoRA on 4 bits", "LoRA")
    )
    words = 2 * tables(LLAMA)
    thin = 6 * lora_parameters(LLAMA, 8) + words
    ratio = (four.weights - thin) / (wide.weights - thin)
    assert ratio == pytest.approx(4.127 / 16) and words == 2 * 128_256 * 4_096


def held(config, rows, tokens, seeded):
    """Bytes that automatic differentiation keeps of a reading, beside the weights."""
    model = Transformer(config, generator=seeded(0))
    own = (*model.parameters(), *model.buffers())
    own = {x.untyped_storage().data_ptr() for x in own}
    found, alive = {}, []

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own and x.shape[0] in (rows, rows * tokens):
            found[storage.data_ptr()] = storage.nbytes()
        alive.append(x)  # so that no address is given twice
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model.hidden(torch.ones(rows, tokens, dtype=torch.long))
    return sum(found.values())


@pytest.mark.parametrize("config", [TINY, EVEN])
def test_activations_are_what_automatic_differentiation_keeps_of_a_block(
    config, seeded
):
    one, other = (dataclasses.replace(config, layers=n) for n in (1, 4))
    more = held(other, 3, 20, seeded) - held(one, 3, 20, seeded)
    assert more == activations(config, 3, 20, number=4) / config.layers * 3


def test_read_again_only_what_enters_a_block_is_kept_and_one_block():
    whole, again = activations(LLAMA, 2, 100), activations(LLAMA, 2, 100, again=True)
    assert again == 2 * 2 * 100 * 4096 * 31 + whole / 32


def test_a_block_keeps_somewhat_more_than_the_papers_seventeen_widths():
    assert 17 < kept(SMOL) / SMOL.width < 21 and kept(LLAMA) / LLAMA.width < 24


def test_the_cache_is_that_of_the_model(seeded):
    model = Transformer(TINY, generator=seeded(0))
    prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    _, cache = model.prefill(prompts, torch.tensor([3, 3]), room=5)
    held = sum(m.keys.nbytes + m.values.nbytes for m in cache.memories)
    assert held == kv_cache(TINY, rows=2, tokens=8, number=4)


def test_shared_heads_shrink_the_cache_and_nothing_else_of_it():
    alone = dataclasses.replace(LLAMA, kv_heads=32)
    assert kv_cache(alone, 1, 1) == 4 * kv_cache(LLAMA, 1, 1)


def test_logits_count_twice_in_float32():
    one, other = (training(SMOL, METHODS["mixed"], rows=n, tokens=10) for n in (1, 2))
    more = other.activations - one.activations
    assert more == activations(SMOL, 1, 10) + 8 * 10 * 49_152


def test_sampling_and_learning_take_turns():
    settings = {"rows": 4, "tokens": 64}
    plain = training(SMOL, METHODS["mixed"], **settings)
    sampling = training(SMOL, METHODS["mixed"], sampled=4, **settings)
    assert sampling.cache > 0 and sampling.total == plain.total
    many = training(SMOL, METHODS["mixed"], sampled=100_000, **settings)
    assert many.total == plain.total - plain.activations + many.cache


def test_a_frozen_model_is_read_and_a_critic_is_learnt():
    settings = {"rows": 1, "tokens": 8}
    plain = training(SMOL, METHODS["mixed"], **settings)
    frozen = training(SMOL, METHODS["mixed"], frozen=2, **settings)
    assert frozen.copies == 2 * 2 * parameters(SMOL)
    four = training(SMOL, METHODS["LoRA on 4 bits"], frozen=2, **settings)
    own = training(SMOL, METHODS["LoRA on 4 bits"], **settings)
    thin = 6 * lora_parameters(SMOL, 8)  # which a model that is only read has not
    assert four.copies == pytest.approx(2 * (own.weights - thin))
    critic = training(SMOL, METHODS["mixed"], critics=1, **settings)
    assert critic.copies == 16 * parameters(SMOL)
    assert plain.copies == 0


def test_a_tenth_of_the_card_stays_free():
    held = Memory(9 * GB, 0, 0, 0, 0, 0)
    assert fits(held, 10) and not fits(held, 9.9)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: lora_parameters(TINY, 0), "rank"),
        (lambda: activations(TINY, 0, 1), "rows"),
        (lambda: activations(TINY, 1, 1, number=0), "number"),
        (lambda: kv_cache(TINY, 1, 0), "tokens"),
        (lambda: training(TINY, METHODS["LoRA"], rows=1, tokens=1, frozen=-1), "froz"),
        (lambda: fits(Memory(0, 0, 0, 0, 0, 0), 0), "gigabytes"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, name):
    with pytest.raises(ValueError, match=name):
        call()


def test_a_method_is_data_that_nobody_changes():
    method = copy.copy(METHODS["LoRA"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.rank = 4
    assert Method(read=2).rank is None
