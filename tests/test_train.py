"""The one loop: its arithmetic by hand, its stops, and going on as if never stopped."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from lib import checkpoint
from lib.losses.policy_gradient import ppo_clip, reinforce
from lib.models.mlp import MLP
from lib.ops import token_logps
from lib.rollout import Batch
from lib.train import _mean, fit, minibatches
from lib.worlds import cartpole
from lib.worlds.environment import play


class Weights(nn.Module):
    """Two numbers to be learned."""

    def __init__(self, *start):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start or (1.0, 2.0), dtype=torch.float64))


def pull(model, batch):
    """½ |w - batch|²: the gradient is w - batch."""
    gap = model.w - batch
    return 0.5 * gap.square().sum(), {"distance": gap.norm().item()}


def along(model, batch):
    """w · batch: the gradient is the batch."""
    return (model.w * torch.tensor(batch, dtype=torch.float64)).sum(), {}


# ---------------------------------------------------------------- the arithmetic


def test_each_update_is_adams_on_the_clipped_gradient():
    model, reference = Weights(), Weights()
    batches = [(3.0, 4.0), (0.3, 0.4), (-30.0, 0.1)]
    history = fit(model, batches, along, lr=0.1, max_grad_norm=1.0)
    # Adam by hand: m, v from gradients g scaled down to norm 1
    w, m, v = reference.w.detach().clone(), torch.zeros(2), torch.zeros(2)
    for step, batch in enumerate(batches, start=1):
        g = torch.tensor(batch, dtype=torch.float64)
        g = g * min(1.0, 1.0 / (g.norm().item() + 1e-6))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    assert (model.w - w).abs().max() < 1e-12
    assert history["grad_norm"] == pytest.approx([5, 0.5, 30.0001666], abs=1e-6)
    assert history["loss"][0] == 11  # 3·1 + 4·2


def test_the_gradient_is_clipped_at_the_norm_that_is_asked_for():
    # weights after two updates depend on the ratio of the two gradients that Adam saw
    def after(first, second, **knobs):
        model = Weights()
        fit(model, [first, second], along, lr=0.1, **knobs)
        return model.w.detach()

    far, near = (30.0, 40.0), (0.6, 0.8)
    clipped = after(far, near)  # 50 and 1: both seen as norm 1
    assert (clipped - after(near, near)).abs().max() < 1e-6
    assert (after(far, near, max_grad_norm=50.0) - after(near, near)).abs().max() > 1e-3
    ten = after(far, near, max_grad_norm=10.0)
    assert (ten - after((6.0, 8.0), near, max_grad_norm=10.0)).abs().max() < 1e-6


def test_one_update_moves_each_weight_by_the_learning_rate():
    model = Weights()
    fit(model, [(5.0, -0.01)], along, lr=0.25)
    assert model.w.tolist() == pytest.approx([0.75, 2.25], abs=1e-4)


def test_without_weight_decay_a_weight_without_gradient_stays():
    model = Weights(1.0, 2.0)
    fit(model, [(1.0, 0.0)], along, lr=0.1)
    assert model.w[1].item() == 2.0
    decayed = Weights(1.0, 2.0)
    fit(decayed, [(1.0, 0.0)], along, lr=0.1, weight_decay=0.5)
    assert decayed.w[1].item() == pytest.approx(2.0 * (1 - 0.1 * 0.5), abs=1e-12)


def test_gradients_do_not_pile_up_from_batch_to_batch():
    model = Weights()
    history = fit(model, [(0.1, 0.0)] * 4, along, lr=0.01)
    assert history["grad_norm"] == pytest.approx([0.1] * 4, abs=1e-15)


def test_a_learning_rate_may_follow_the_number_of_the_update():
    asked, positions = [], []

    def rate(update):
        asked.append(update)
        return 0.1 if update < 2 else 0.0

    def watched(model, batch):
        positions.append(model.w[0].item())
        return along(model, batch)

    model = Weights()
    fit(model, [(1.0, 0.0)] * 4, watched, lr=rate)
    positions.append(model.w[0].item())
    assert positions == pytest.approx([1, 0.9, 0.8, 0.8, 0.8], abs=1e-6)
    assert asked == [0, 0, 1, 2, 3]


def test_frozen_parameters_stay():
    model = MLP(2, 3, 1, generator=torch.Generator().manual_seed(0))
    first, *_ = model.parameters()
    first.requires_grad_(False)
    kept = first.clone()

    def loss(model, batch):
        return model(batch).square().sum(), {}

    fit(model, [torch.ones(1, 2).double()] * 3, loss, lr=0.1)
    assert torch.equal(first, kept)


# ---------------------------------------------------------------- the history


def test_the_history_holds_one_number_per_update_for_every_metric():
    def loss(model, batch):
        metrics = {"odd": float(batch)} if batch % 2 else {"even": float(batch)}
        return model.w.sum() * 0 + batch, metrics

    history = fit(Weights(), [0, 1, 2, 3], loss, lr=0.1)
    assert set(history) == {"loss", "grad_norm", "odd", "even"}
    assert history["loss"] == [0, 1, 2, 3]
    assert history["grad_norm"] == [0, 0, 0, 0]
    assert history["even"][::2] == [0, 2] and history["odd"][1::2] == [1, 3]
    assert all(math.isnan(x) for x in history["even"][1::2] + history["odd"][::2])
    assert {len(column) for column in history.values()} == {4}


def test_training_reduces_a_loss_that_can_be_reduced():
    history = fit(Weights(), [torch.zeros(2)] * 200, pull, lr=0.05)
    assert history["loss"][0] == 2.5 and history["loss"][-1] < 1e-3
    assert history["distance"][0] == pytest.approx(5**0.5)


def test_batches_may_be_a_list_a_generator_or_a_function_of_the_start():
    batches = [(1.0, 0.5), (0.2, -0.3), (0.1, 0.1)]
    starts = []

    def later(start):
        starts.append(start)
        yield from batches[start:]

    histories = [
        fit(Weights(), b, along, lr=0.1) for b in (batches, iter(batches), later)
    ]
    assert histories[0] == histories[1] == histories[2]
    assert starts == [0]
    assert len(histories[0]["loss"]) == 3


# ---------------------------------------------------------------- stops


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(poison):
    model, seen = Weights(), []

    def loss(model, batch):
        seen.append(model.w.detach().clone())
        return pull(model, batch)

    batches = [torch.zeros(2), torch.zeros(2), torch.full((2,), poison), torch.zeros(2)]
    with pytest.raises(FloatingPointError) as caught:
        fit(model, batches, loss, lr=0.1)
    assert torch.equal(model.w, seen[-1]) and len(seen) == 3
    norm = math.nan if math.isnan(poison) else math.inf
    want = (
        f"update 2: loss {poison}, gradient norm {norm}; the weights were not touched"
    )
    assert str(caught.value) == want


def test_a_gradient_that_is_not_finite_stops_even_where_the_loss_is():
    def loss(model, batch):
        return (model.w - batch).abs().sqrt().sum(), {}  # infinite slope at w = batch

    model = Weights()
    with pytest.raises(
        FloatingPointError, match=r"^update 0: loss 1\.0, gradient norm "
    ):
        fit(model, [torch.tensor([1.0, 1.0])], loss, lr=0.1)
    assert model.w.tolist() == [1, 2]


def test_an_infinite_loss_with_a_finite_gradient_stops_as_well():
    def loss(model, batch):
        return model.w.sum() + math.inf, {}

    model = Weights()
    with pytest.raises(
        FloatingPointError, match=r"^update 0: loss inf, gradient norm 1\.4"
    ):
        fit(model, [0], loss, lr=0.1)
    assert model.w.tolist() == [1, 2]


def test_a_stop_loses_no_checkpoint_that_was_written(tmp_path):
    path = tmp_path / "run.pt"
    batches = [torch.zeros(2)] * 3 + [torch.full((2,), math.nan)]
    with pytest.raises(FloatingPointError):
        fit(Weights(), batches, pull, lr=0.1, checkpoint=path, every=2)
    assert checkpoint.load(path)["done"] == 2


def test_fit_says_what_is_wrong(refuses):
    def run(model=None, batches=((1.0, 1.0),), loss=along, **knobs):
        fit(model or Weights(), batches, loss, **{"lr": 0.1, **knobs})

    for name, value, wanted in (
        ("lr", 0, "a number above 0"),
        ("lr", -0.1, "a number above 0"),
        ("max_grad_norm", 0, "a number above 0"),
        ("weight_decay", -1, "a number of at least 0"),
        ("every", 0, "an int of at least 1"),
    ):
        with refuses(f"{name}: got {value}, wanted {wanted}"):
            run(**{name: value})
    with refuses("lr: got '0.1', wanted a number"):
        run(lr="0.1")
    with refuses("model: got no trainable parameters, wanted at least one"):
        run(model=nn.Tanh())
    for nothing in ([], iter(()), lambda start: []):
        with refuses("batches: got no batch at all, wanted at least one"):
            run(batches=nothing)
    with refuses("loss_fn: got float, wanted a Tensor"):
        run(loss=lambda model, batch: (1.0, {}))
    with refuses("loss_fn: got shape (2,), wanted shape ()"):
        run(loss=lambda model, batch: (model.w, {}))


# ---------------------------------------------------------------- in parts


def credited(world=cartpole, batch=7):
    """A policy in float64, and rows of several lengths that it played."""
    generator = torch.Generator().manual_seed(3)
    model = MLP(4, 8, 2, generator=generator).double()
    seen = play(model, world.world(horizon=30), batch=batch, generator=generator)
    credit = seen.returns.double().unsqueeze(1) - 20.0
    return model, Batch(seen, advantages=credit.expand(seen.mask.shape))


def by_rows(model, batch):
    seen = batch.rollout
    logps = token_logps(model(seen.states), seen.actions)
    return reinforce(logps, batch.advantages, seen.mask)


def by_tokens(model, batch):
    seen = batch.rollout
    logps = token_logps(model(seen.states), seen.actions)
    return ppo_clip(logps, seen.logps, batch.advantages, seen.mask)


@pytest.mark.parametrize(("loss", "over"), [(by_rows, "rows"), (by_tokens, "tokens")])
@pytest.mark.parametrize("most", [1e9, 0.01])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(loss, over, most):
    found = []
    for parts in (1, 3, 20):  # more parts than rows
        model, batch = credited()
        knobs = {"lr": 0.1, "max_grad_norm": most, "microbatches": parts}
        history = fit(model, [batch], loss, over=over, **knobs)
        grads = torch.cat([w.grad.flatten() for w in model.parameters()])
        found.append((grads, history["loss"][0], history["grad_norm"][0]))
    assert found[0][0].norm() > 1e-3
    for grads, loss_of_parts, norm in found[1:]:
        assert (grads - found[0][0]).norm() < 1e-12 * found[0][0].norm()
        assert loss_of_parts == pytest.approx(found[0][1], rel=1e-12)
        assert norm == pytest.approx(found[0][2], rel=1e-12)


def test_a_part_of_nothing_says_nothing():
    told = [(2, {"x": 1 / 3}), (0, {"x": math.nan, "only here": 1.0})]
    assert _mean(told) == {"x": 1 / 3}


def test_groups_stay_whole_in_parts():
    seen, (model, batch) = [], credited(batch=6)
    batch = replace(batch, group=3)

    def loss(model, part):
        seen.append(len(part))
        return by_rows(model, part)

    fit(model, [batch], loss, lr=0.1, over="rows", microbatches=4)
    assert seen == [3, 3]


def test_metrics_are_means_over_parts_and_what_is_equal_stays_what_it_is():
    def loss(model, part):
        return by_rows(model, part)[0], {"rows": len(part), "third": 1 / 3}

    model, batch = credited()
    history = fit(model, [batch], loss, lr=0.1, over="rows", microbatches=2)
    assert history["rows"] == [pytest.approx((4 * 4 + 3 * 3) / 7, rel=1e-12)]
    assert history["third"] == [1 / 3]


HALF = "torch.bfloat16, torch.float16 or None"
UNKNOWN = "over: got None, wanted 'rows' or 'tokens', "
UNKNOWN += "what the loss is a mean over, to read it in parts"


def test_what_cannot_be_read_in_parts_is_refused_by_name(refuses):
    model, batch = credited()
    for knobs, refusal in (
        ({"microbatches": 0}, "microbatches: got 0, wanted an int of at least 1"),
        ({"over": "all"}, "over: got 'all', wanted one of 'rows', 'tokens'"),
        ({"microbatches": 2}, UNKNOWN),
        ({"precision": torch.float64}, f"precision: got torch.float64, wanted {HALF}"),
    ):
        with refuses(refusal):
            fit(model, [batch], by_rows, lr=0.1, **knobs)
    with refuses("over: got 'tokens', wanted 'rows', since the batches have no mask"):
        fit(model, [torch.arange(4)], along, lr=0.1, over="tokens", microbatches=2)
    wanted = "row numbers, or something with rows(index) and a length"
    with refuses(f"batches: got tuple, wanted {wanted}"):
        fit(model, [(1.0, 2.0)], along, lr=0.1, over="rows", microbatches=2)


# ---------------------------------------------------------------- less precision


class Line(nn.Module):
    """One weight in float32, read by a matrix product, which autocast narrows."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, 1, bias=False)
        nn.init.constant_(self.line.weight, 0.5)

    def forward(self, x):
        return self.line(x)


def squared(model, batch):
    seen.append(model(batch).dtype)
    return model(batch).float().square().mean(), {}


seen = []


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_model_is_read_in_less_and_its_weights_stay_as_they_are(half):
    seen.clear()
    model, x = Line(), torch.ones(3, 4)
    history = fit(model, [x] * 12, squared, lr=0.01, precision=half)
    assert set(seen) == {half} and model.line.weight.dtype == torch.float32
    assert history["loss"][-1] < history["loss"][0] == 4
    first = next(norm for norm in history["grad_norm"] if math.isfinite(norm))
    assert first == pytest.approx(8, rel=1e-2)  # unscaled again
    assert (model.line.weight < 0.5).all()


def test_an_update_that_overflows_in_float16_is_skipped_and_learning_goes_on():
    model, x = Line(), torch.ones(3, 4) * 30
    weights = []

    def loss(model, batch):
        weights.append(model.line.weight[0, 0].item())
        return model(batch).float().sum() * 3, {}

    history = fit(model, [x] * 12, loss, lr=0.01, precision=torch.float16)
    norms = torch.tensor(history["grad_norm"])
    assert not norms[0].isfinite() and norms[-1].isfinite()
    assert weights[0] == weights[1] == 0.5 > weights[-1]


def test_a_loss_that_is_not_finite_stops_in_float16_too():
    def loss(model, batch):
        return model(batch).float().sum() * math.nan, {}

    with pytest.raises(FloatingPointError, match="update 0: loss nan"):
        fit(Line(), [torch.ones(1, 4)], loss, lr=0.01, precision=torch.float16)


def test_float16_goes_on_from_a_checkpoint_with_its_scale(tmp_path):
    x = torch.ones(3, 4)
    knobs = {"lr": 0.01, "precision": torch.float16, "every": 2}
    whole, path = Line(), tmp_path / "run.pt"
    fit(whole, [x] * 6, squared, **knobs)
    fit(Line(), [x] * 4, squared, checkpoint=path, **knobs)
    again = Line()
    fit(again, [x] * 6, squared, checkpoint=path, **knobs)
    assert torch.equal(again.line.weight, whole.line.weight)
    assert 1 < checkpoint.load(path)["scaler"]["scale"] < 65536


def test_nothing_is_touched_when_a_knob_is_refused(tmp_path, refuses):
    model = Weights()
    with refuses("every: got 0, wanted an int of at least 1"):
        fit(model, [(1.0, 1.0)], along, lr=0.1, checkpoint=tmp_path / "run.pt", every=0)
    assert model.w.tolist() == [1, 2] and list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- going on


class Stop(Exception):
    """Somebody pulled the plug."""


def learn(path, *, updates=9, stop=None, seed=0, **knobs):
    """REINFORCE on CartPole for some updates; pulls the plug before update `stop`."""
    generator = torch.Generator().manual_seed(seed)
    model = MLP(4, 8, 2, generator=generator)

    def batches(start):
        for update in range(start, updates):
            if update == stop:
                raise Stop
            yield play(model, cartpole.world(horizon=30), batch=3, generator=generator)

    def loss(model, seen):
        logps = token_logps(model(seen.states), seen.actions)
        return reinforce(logps, seen.returns, seen.mask)

    knobs = {"lr": lambda update: 0.05 / (1 + update), "every": 2, **knobs}
    history = fit(
        model, batches, loss, checkpoint=path, generators=[generator], **knobs
    )
    return model, generator, history


@pytest.mark.parametrize("stop", [1, 2, 5, 6, 8])
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, stop):
    whole, generator, history = learn(None)
    path = tmp_path / "run.pt"
    with pytest.raises(Stop):
        learn(path, stop=stop)
    again, resumed, same = learn(path)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(generator.get_state(), resumed.get_state())
    assert same == history
    assert len(history["loss"]) == 9


def test_a_finished_run_is_read_and_not_repeated(tmp_path):
    path = tmp_path / "run.pt"
    first, generator, history = learn(path)
    written = path.read_bytes()
    again, resumed, same = learn(path)
    assert same == history
    assert torch.equal(resumed.get_state(), generator.get_state())
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert checkpoint.load(path)["done"] == 9 and len(written) > 0


def test_a_finished_run_can_be_made_longer(tmp_path):
    path = tmp_path / "run.pt"
    learn(path, updates=4)
    longer, _, history = learn(path)
    whole, _, want = learn(None)
    assert history == want
    assert torch.equal(next(longer.parameters()), next(whole.parameters()))


def test_a_list_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "run.pt"
    batches = [(1.0, 0.5), (0.2, -0.3), (0.1, 0.1), (0.4, -0.9)]
    fit(Weights(), batches[:2], along, lr=0.1, checkpoint=str(path))
    resumed = Weights()
    history = fit(resumed, batches, along, lr=0.1, checkpoint=str(path))
    whole = Weights()
    assert history == fit(whole, batches, along, lr=0.1)
    assert torch.equal(resumed.w, whole.w)


def test_a_checkpoint_is_written_after_each_so_many_updates_and_at_the_end(tmp_path):
    path, found = tmp_path / "run.pt", []

    def loss(model, batch):
        found.append(checkpoint.load(path)["done"] if path.exists() else None)
        return along(model, batch)

    fit(Weights(), [(1.0, 0.0)] * 7, loss, lr=0.1, checkpoint=path, every=3)
    assert found == [None, None, None, 3, 3, 3, 6]
    assert checkpoint.load(path)["done"] == 7


def test_by_default_a_checkpoint_is_written_after_each_hundred_updates(tmp_path):
    path = tmp_path / "run.pt"

    def batches(start):
        for update in range(start, 150):
            if update == 130:
                raise Stop
            assert path.exists() == (update >= 100)
            yield (1.0, 0.0)

    with pytest.raises(Stop):
        fit(Weights(), batches, along, lr=0.1, checkpoint=path)
    assert checkpoint.load(path)["done"] == 100


def test_a_checkpoint_holds_what_a_resume_needs(tmp_path):
    path = tmp_path / "run.pt"
    generator = torch.Generator().manual_seed(3)
    model = Weights()
    fit(model, [(1.0, 0.0)], along, lr=0.1, checkpoint=path, generators=[generator])
    state = checkpoint.load(path)
    assert set(state) == {"model", "optimiser", "generators", "history", "done", "run"}
    assert torch.equal(state["model"]["w"], model.w)
    assert torch.equal(state["generators"][0], generator.get_state())
    assert state["history"]["loss"] == [1.0]


def test_a_generator_of_batches_cannot_be_resumed_and_is_refused(tmp_path, refuses):
    wanted = "a sequence, or a function start -> iterable, to resume"
    with refuses(f"batches: got list_iterator, wanted {wanted}"):
        fit(
            Weights(), iter([(1.0, 0.0)]), along, lr=0.1, checkpoint=tmp_path / "run.pt"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    [
        {"model": Weights(1.0, 2.0, 3.0)},
        {"model": Weights(0.5, 0.0)},
        {"generators": [torch.Generator()]},
        {"weight_decay": 0.1},
        {"max_grad_norm": 2.0},
        {"run": "seed 1"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, other):
    path = tmp_path / "run.pt"
    mine = {"model": Weights(), "lr": 0.1, "checkpoint": path, "run": "seed 0"}
    fit(batches=[(1.0, 0.0)], loss_fn=along, **mine)
    kept = path.read_bytes()
    with pytest.raises(checkpoint.CheckpointError, match="not of this run"):
        fit(batches=[(1.0, 0.0)], loss_fn=along, **{**mine, **other})
    assert path.read_bytes() == kept
    again = fit(batches=[(1.0, 0.0)], loss_fn=along, **{**mine, "model": Weights()})
    assert again["loss"] == [1.0]


def test_a_corrupt_checkpoint_stops_the_run_and_is_kept(tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(b"something else")
    with pytest.raises(checkpoint.CheckpointError, match=re.escape(str(path))):
        fit(Weights(), [(1.0, 0.0)], along, lr=0.1, checkpoint=path)
    assert path.read_bytes() == b"something else"


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(Weights(), [(1.0, 0.0)] * 3, along, lr=0.1, every=1)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- minibatches


def test_every_epoch_sees_each_example_once_in_an_order_of_its_own(seeded):
    parts = list(minibatches(10, epochs=3, batch=4, generator=seeded(1)))
    assert [len(part) for part in parts] == [4, 4, 2] * 3
    orders = [torch.cat(parts[i : i + 3]).tolist() for i in (0, 3, 6)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3 and [*range(10)] not in orders


def test_the_order_is_the_generators(seeded):
    runs = [
        torch.cat(
            [*minibatches(50, epochs=2, batch=7, generator=seeded(seed))]
        ).tolist()
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1] != runs[2]
    draw = seeded(3)
    want = [torch.randperm(50, generator=draw).tolist() for _ in range(2)]
    assert runs[0] == [*want[0], *want[1]]


def test_a_batch_may_be_all_there_is_and_an_order_is_drawn_when_it_is_needed(seeded):
    draw = seeded(0)
    before = draw.get_state()
    parts = minibatches(3, epochs=2, batch=8, generator=draw)
    assert torch.equal(draw.get_state(), before)
    first, second = parts
    assert sorted(first.tolist()) == sorted(second.tolist()) == [0, 1, 2]


# ---------------------------------------------------------------- the progress bar


def test_progress_is_shown_when_it_has_a_name_and_only_then(capsys):
    fit(Weights(), [(1.0, 0.0)] * 3, along, lr=0.1)
    assert capsys.readouterr() == ("", "")
    fit(Weights(), [(1.0, 0.0)] * 3, along, lr=0.1, progress="learning")
    out, err = capsys.readouterr()
    assert out == "" and "learning: 100%" in err and "3/3" in err
    fit(Weights(), iter([(1.0, 0.0)] * 3), along, lr=0.1, progress="learning")
    assert "learning: 3it" in capsys.readouterr().err  # nobody knows how many there are


def test_progress_of_a_resumed_run_begins_where_it_stopped(tmp_path, capsys):
    path = tmp_path / "run.pt"
    fit(Weights(), [(1.0, 0.0)] * 2, along, lr=0.1, checkpoint=path)
    fit(
        Weights(), [(1.0, 0.0)] * 5, along, lr=0.1, checkpoint=path, progress="learning"
    )
    said = capsys.readouterr().err
    assert "2/5" in said and "5/5" in said and "0/5" not in said


def test_the_history_lists_metrics_in_the_order_in_which_they_came():
    history = fit(Weights(), [(1.0, 0.0)] * 2, along, lr=0.1)
    assert list(history)[:2] == ["loss", "grad_norm"]


def test_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    learn(None, updates=2)
    assert torch.equal(torch.random.get_rng_state(), before)
