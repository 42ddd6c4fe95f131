"""Small policies and values: the arithmetic by hand, the first weights by their law."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lib.models.mlp import MLP, ActorCritic, Greedy, Tabular

close = partial(assert_close, rtol=0, atol=1e-14)


def test_an_mlp_is_tanh_between_linear_layers(seeded):
    model = MLP(3, 5, 4, 2, generator=seeded())
    x = torch.randn(7, 6, 3, dtype=torch.float64, generator=seeded(1))
    h = x
    weights = list(model.parameters())
    shapes = [(5, 3), (5,), (4, 5), (4,), (2, 4), (2,)]
    assert [tuple(w.shape) for w in weights] == shapes
    for w, b in zip(weights[:4:2], weights[1:4:2], strict=True):
        h = torch.tanh(h @ w.T + b)
    with torch.no_grad():
        for bias in weights[1::2]:
            assert (bias == 0).all()
            bias += 0.1  # so that the biases count
        h = torch.tanh(x @ weights[0].T + 0.1)
        h = torch.tanh(h @ weights[2].T + 0.1)
        close(model(x), h @ weights[4].T + 0.1)


def test_a_linear_model_has_no_tanh(seeded):
    model = MLP(3, 2, generator=seeded())
    x = 100 * torch.ones(1, 1, 3, dtype=torch.float64)
    (weight, _) = model.parameters()
    close(model(x), x @ weight.T)
    assert len(list(model.layers)) == 1


def test_first_weights_are_the_generators_normals_scaled_by_fan_in(seeded):
    model = MLP(4, 9, 16, 2, generator=seeded(3))
    draws = seeded(3)
    for weight, gain in zip(
        list(model.parameters())[::2], (1 / 2, 1 / 3, 0.1 / 4), strict=True
    ):
        want = gain * torch.randn(weight.shape, dtype=torch.float64, generator=draws)
        close(weight.detach(), want)
        assert weight.requires_grad


def test_one_layer_alone_starts_small(seeded):
    (weight, _) = MLP(400, 300, generator=seeded()).parameters()
    assert weight.std().item() == pytest.approx(0.1 / 20, rel=0.02)


def test_a_policy_starts_near_uniform(seeded):
    model = MLP(4, 64, 64, 2, generator=seeded())
    states = torch.randn(100, 1, 4, dtype=torch.float64, generator=seeded(1))
    assert (model(states).softmax(-1) - 0.5).abs().max() < 0.15


def test_an_mlp_acts_on_each_step_by_itself(seeded):
    model = MLP(3, 8, 2, generator=seeded())
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=seeded(1))
    close(model(x)[:, 2], model(x[:, 2]))
    other = x.clone()
    other[:, 3] += 1
    assert torch.equal(model(other)[:, :3], model(x)[:, :3])


def test_the_same_seed_makes_the_same_model_and_no_other_rng_moves(seeded):
    before = torch.random.get_rng_state()
    first, same, other = (MLP(3, 4, 2, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(first.parameters(), same.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert all(p.dtype == torch.float64 for p in first.parameters())


def test_an_mlp_needs_two_sizes_of_at_least_one(seeded, refuses):
    for sizes in ((), (3,)):
        with refuses(f"sizes: got {sizes}, wanted inputs, hidden layers, outputs"):
            MLP(*sizes, generator=seeded())
    with refuses("sizes: got 0, wanted an int of at least 1"):
        MLP(3, 0, 2, generator=seeded())
    with refuses("sizes: got 2.0, wanted an int of at least 1"):
        MLP(3, 2.0, generator=seeded())


def test_a_table_starts_uniform_and_reads_its_rows(refuses):
    table = Tabular(3, 2)
    assert table.logits.shape == (3, 2)
    assert table.logits.dtype == torch.float64
    assert (table.logits == 0).all()
    assert [name for name, _ in table.named_parameters()] == ["logits"]
    with torch.no_grad():
        table.logits.copy_(torch.arange(6).reshape(3, 2))
    assert table(torch.tensor([[2, 0]])).tolist() == [[[4, 5], [0, 1]]]
    with refuses("states: got 0, wanted an int of at least 1"):
        Tabular(0, 2)
    with refuses("actions: got 0, wanted an int of at least 1"):
        Tabular(2, 0)


def test_an_actor_critic_called_is_its_policy_and_scales_its_value(seeded, refuses):
    policy, value = MLP(3, 2, generator=seeded(1)), MLP(3, 1, generator=seeded(2))
    both = ActorCritic(policy, value, scale=50.0)
    x = torch.randn(4, 5, 3, dtype=torch.float64, generator=seeded(3))
    assert torch.equal(both(x), policy(x))
    assert both.values(x).shape == (4, 5)
    assert both.values(x[:1, :1]).shape == (1, 1)
    close(both.values(x), 50 * value(x)[..., 0])
    assert torch.equal(ActorCritic(policy, value).values(x), value(x)[..., 0])
    assert len(list(both.parameters())) == 4
    with refuses("scale: got 0, wanted a number above 0"):
        ActorCritic(policy, value, scale=0)


def test_every_model_is_a_module_that_can_be_saved_and_loaded(seeded):
    for make in (
        lambda seed: MLP(2, 3, 2, generator=seeded(seed)),
        lambda seed: ActorCritic(
            MLP(2, 2, generator=seeded(seed)), MLP(2, 1, generator=seeded(seed + 9))
        ),
    ):
        one, other = make(0), make(1)
        assert isinstance(one, nn.Module)
        other.load_state_dict(one.state_dict())
        x = torch.ones(1, 1, 2, dtype=torch.float64)
        assert torch.equal(one(x), other(x))


def test_units_divide_the_inputs_before_anything_else(seeded, refuses):
    plain = MLP(2, 5, 3, generator=seeded(1))
    scaled = MLP(2, 5, 3, generator=seeded(1), units=(2.0, 0.5))
    x = torch.tensor([[[2.0, 0.5], [4.0, -1.0]]], dtype=torch.float64)
    by_hand = torch.tensor([[[1.0, 1.0], [2.0, -2.0]]], dtype=torch.float64)
    assert torch.equal(scaled(x), plain(by_hand))
    assert torch.equal(plain(x), MLP(2, 5, 3, generator=seeded(1), units=[1, 1])(x))
    assert scaled.units.dtype == torch.float64
    assert "units" in scaled.state_dict() and "units" not in dict(
        scaled.named_parameters()
    )
    with refuses("units: got 1 numbers, wanted 2, one an input"):
        MLP(2, 3, generator=seeded(), units=(1.0,))
    with refuses("units: got 0, wanted a number above 0"):
        MLP(2, 3, generator=seeded(), units=(1.0, 0))


def test_a_greedy_policy_puts_all_probability_on_the_best_action():
    table = Tabular(2, 3)
    with torch.no_grad():
        table.logits.copy_(torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.0, 5.0]]))
    greedy = Greedy(table)
    got = greedy(torch.tensor([[0, 1]]))
    inf = torch.inf
    assert got.tolist() == [[[-inf, 0, -inf], [0, -inf, -inf]]]  # a tie: the first
    assert got.dtype == torch.float64
    assert got.softmax(-1).tolist() == [[[0, 1, 0], [1, 0, 0]]]
    assert len(list(greedy.parameters())) == 1
