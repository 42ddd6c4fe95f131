"""The tiny transformer: Llama's logits, causal, the same with and without its cache."""

from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from benchmarks.llama import llama
from lib.models.attention import causal
from lib.models.transformer import Config, RMSNorm, Transformer

close = partial(assert_close, rtol=0, atol=1e-12)
SMALL = Config(11, context=16, layers=2, width=24, heads=3, hidden=20)


def model(config=SMALL, *, seed=0, dtype=torch.float64, loud=4.0):
    """Weights `loud` times as large as at the start, so that everything matters."""
    made = Transformer(
        config, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )
    draws = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 1:
                noise = torch.randn(weight.shape, dtype=torch.float64, generator=draws)
                weight += 0.2 * noise
            else:
                weight *= loud
    return made


def tokens(*shape, seed=0, below=11):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dtype", "room"),
    [(torch.float64, 3e-5), (torch.float32, 3e-4)],  # their angles are float32 in both;
)  # float32 adds some 2,500 roundings (1.2e-7 each) of its own, in another order
def test_the_same_weights_give_the_same_logits_in_transformers_llama(dtype, room):
    config = Config(50, context=64, layers=3, width=48, heads=4, hidden=80)
    ours, x = model(config, dtype=dtype), tokens(4, 64, below=50)
    with torch.random.fork_rng(), torch.no_grad():
        got, want = ours(x), llama(ours)(x).logits
    assert got.std() > 0.5  # there is something to compare
    assert (got - want).abs().max() < room
    assert got.dtype == dtype and got.shape == (4, 64, 50)


def test_rms_norm_divides_by_the_root_mean_square():
    norm = RMSNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
        got = norm(torch.tensor([[3.0, 4.0], [3e-3, 4e-3]]))
    rms = (12.5**0.5, (12.5e-6 + 1e-6) ** 0.5)
    want = [[3 / rms[0], 40 / rms[0]], [3e-3 / rms[1], 4e-2 / rms[1]]]
    assert_close(got, torch.tensor(want))


# ---------------------------------------------------------------- first weights


def test_first_weights_are_the_generators_normals_drawn_in_float64(seeded):
    made = Transformer(SMALL, generator=seeded(3))
    draws = seeded(3)
    added = 0.5 / 4**0.5  # two layers: four terms are added to the stream
    spreads = {"qkv": 0.5, "out": added, "wide": 0.5, "down": added}
    for name, weight in made.named_parameters():
        assert weight.dtype == torch.float32 and weight.requires_grad
        if weight.ndim == 1:
            assert (weight == 1).all()
            continue
        draw = torch.randn(weight.shape, dtype=torch.float64, generator=draws)
        layer = name.split(".")[-2]
        spread = (
            0.05 if layer == "embedding" else spreads[layer] / weight.shape[1] ** 0.5
        )
        assert_close(weight.detach(), (spread * draw).float(), rtol=1e-6, atol=0)


def test_the_same_seed_makes_the_same_model_and_no_other_rng_moves(seeded):
    before = torch.random.get_rng_state()
    first, same, other = (Transformer(SMALL, generator=seeded(s)) for s in (1, 1, 2))
    double = Transformer(SMALL, generator=seeded(1), dtype=torch.float64)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = tokens(2, 5)
    assert torch.equal(first(x), same(x)) and not torch.equal(first(x), other(x))
    for a, b in zip(first.parameters(), double.parameters(), strict=True):
        assert torch.equal(a, b.float()) and b.dtype == torch.float64


def test_a_fresh_model_is_almost_uniform_and_its_weights_are_all_there_is(seeded):
    made = Transformer(SMALL, generator=seeded())
    chances = made(tokens(3, 16)).softmax(-1)
    assert (chances - 1 / 11).abs().max() < 0.15
    names = set(made.state_dict())
    assert names == {name for name, _ in made.named_parameters()}
    again = Transformer(SMALL, generator=seeded(9))
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(tokens(2, 6)), made(tokens(2, 6)))


def test_the_sizes_are_those_of_the_config():
    shapes = {n: tuple(w.shape) for n, w in model().named_parameters()}
    assert shapes["embedding.weight"] == (11, 24) and shapes["norm.weight"] == (24,)
    assert shapes["blocks.1.qkv.weight"] == (72, 24)
    assert shapes["blocks.1.out.weight"] == (24, 24)
    assert shapes["blocks.0.wide.weight"] == (40, 24)
    assert shapes["blocks.0.down.weight"] == (24, 20)
    assert len(shapes) == 2 + 2 * 6
    standard = Config(9)
    assert vars(standard) == {
        "vocabulary": 9,
        "context": 128,
        "layers": 2,
        "width": 64,
        "heads": 4,
        "hidden": 128,
        "kv_heads": 4,
        "theta": 10_000.0,
        "eps": 1e-6,
    }


# ---------------------------------------------------------------- what may be seen


def test_a_place_sees_itself_and_what_is_before_it_and_nothing_else():
    made, x = model(), tokens(2, 9)
    for t in range(9):
        changed = x.clone()
        changed[0, t] = (x[0, t] + 1) % 11
        moved = (made(changed) != made(x)).any(-1)
        assert not moved[0, :t].any() and moved[0, t:].all()
        assert not moved[1].any()


def test_padding_on_the_right_changes_no_bit_of_what_is_before_it_nor_a_gradient():
    made = model(dtype=torch.float32)
    x, real = tokens(3, 10), torch.arange(10) < torch.tensor([[10], [4], [7]])

    def run(fill):
        logits = made(x.where(real, fill))
        made.zero_grad()
        logits.logsumexp(-1)[real].sum().backward()
        return logits[real].detach(), [w.grad for w in made.parameters()]

    want, slopes = run(0)
    assert all((slope != 0).any() for slope in slopes)
    for fill in (1, 7, tokens(3, 10, seed=5)):
        got, others = run(torch.as_tensor(fill))
        assert torch.equal(got, want)
        assert all(torch.equal(a, b) for a, b in zip(slopes, others, strict=True))


def test_more_padding_changes_nothing_but_rounding():
    made, x = model(), tokens(3, 6)
    longer = torch.cat((x, tokens(3, 7, seed=1)), 1)
    close(made(longer)[:, :6], made(x))


def test_logits_are_hidden_vectors_scored_by_the_embedding():
    made, x = model(), tokens(2, 5)
    hidden = made.hidden(x)
    assert hidden.shape == (2, 5, 24)
    close(made(x), hidden @ made.embedding.weight.T)
    assert torch.equal(made.logits(hidden), made(x))


def test_any_integer_type_is_read():
    made, x = model(), tokens(2, 5)
    assert torch.equal(made(x.to(torch.uint8)), made(x))


# ---------------------------------------------------------------- tokens at places


def test_to_embed_is_to_look_up():
    made, x = model(), tokens(2, 5)
    assert torch.equal(made.embed(x), made.embedding.weight[x])


def test_reading_rows_from_their_beginning_is_hidden():
    made, x = model(), tokens(3, 7)
    got = made.read(made.embed(x), torch.arange(7), causal)
    assert torch.equal(got, made.hidden(x))


def test_only_how_far_apart_two_tokens_stand_matters():
    made, x = model(), tokens(2, 6)
    embedded = made.embed(x)
    close(made.read(embedded, torch.arange(6) + 10, causal), made.hidden(x))
    stretched = made.read(embedded, 2 * torch.arange(6), causal)
    assert (stretched - made.hidden(x)).abs().max() > 1e-3


def test_each_row_may_have_places_of_its_own():
    made, x = model(), tokens(2, 4)
    places = torch.tensor([[0, 1, 2, 3], [5, 7, 8, 15]])
    got = made.read(made.embed(x), places, causal)
    for row in range(2):
        alone = made.read(made.embed(x[row : row + 1]), places[row], causal)
        close(got[row], alone[0])


def test_a_list_of_tokens_is_read_as_attend_says():
    made, x = model(), tokens(2, 5)
    flat, places = made.embed(x).flatten(0, 1), torch.arange(5).repeat(2)

    def by_row(q, k, v):
        assert q.shape == k.shape == v.shape == (10, 3, 8)  # H heads of size D
        return causal(*(each.unflatten(0, (2, 5)) for each in (q, k, v))).flatten(0, 1)

    close(made.read(flat, places, by_row), made.hidden(x).flatten(0, 1))


def test_who_looks_only_at_himself_does_not_know_where_he_stands():
    made, x = model(), tokens(2, 5)
    alone = made.read(made.embed(x), torch.arange(5), lambda q, k, v: v)
    close(alone, made.hidden(x.reshape(10, 1)).reshape(2, 5, 24))
    assert (alone[:, 1:] - made.hidden(x)[:, 1:]).abs().max() > 1e-3


def test_embedding_refuses_what_reading_refuses(refuses):
    made = model()
    with refuses("tokens: got 11 at index (0, 0), wanted integers in 0 … 10"):
        made.embed(torch.tensor([[11]]))
    with refuses("tokens: got 17 in a row, wanted 1 … 16, the context"):
        made.embed(tokens(1, 17))


# ---------------------------------------------------------------- the cache


@pytest.mark.parametrize("group", [1, 2, 8, 9, 11, 16])
def test_the_cache_gives_the_logits_that_rereading_gives(group):
    made = model()
    lengths = torch.tensor([3, 7, 1, 5])
    prompts, later = tokens(4, 7), tokens(4 * group, 9, seed=2)
    got, cache = made.prefill(prompts, lengths, room=9, group=group)
    steps = [got] + [made.extend(later[:, t], cache) for t in range(9)]
    for row in range(4 * group):
        n = lengths[row // group]
        whole = torch.cat((prompts[row // group, :n], later[row]))
        want = made(whole[None])[0, n - 1 :]
        close(torch.stack([step[row] for step in steps]), want)
    assert not got.requires_grad and got.shape == (4 * group, 11)


def test_many_prompts_are_read_a_few_at_a_time():
    made, prompts = model(), tokens(70, 4)
    lengths = 1 + tokens(70, seed=3, below=4)
    got, cache = made.prefill(prompts, lengths, room=2)
    last = torch.arange(70), lengths - 1
    close(got, made(prompts)[last])
    after = made.extend(prompts[:, 0], cache)
    for row in (0, 31, 32, 63, 64, 69):
        whole = torch.cat((prompts[row, : lengths[row]], prompts[row, :1]))
        close(after[row], made(whole[None])[0, -1])


def test_the_padding_of_prompts_changes_no_bit():
    made = model(dtype=torch.float32)
    lengths, x = torch.tensor([2, 6]), tokens(2, 6)
    runs = []
    for fill in (0, 3, 10):
        padded = x.where(torch.arange(6) < lengths[:, None], fill)
        first, cache = made.prefill(padded, lengths, room=1, group=2)
        runs.append((first, made.extend(tokens(4, seed=1), cache)))
    for first, second in runs[1:]:
        assert torch.equal(first, runs[0][0]) and torch.equal(second, runs[0][1])


def test_a_row_sees_nothing_of_its_neighbours():
    made, prompts, lengths = model(), tokens(2, 4), torch.tensor([4, 3])
    for group in (1, 3):
        batch = 2 * group
        runs = []
        for other in (1, 2):
            _, cache = made.prefill(prompts, lengths, room=2, group=group)
            new = torch.full((batch,), 5)
            new[1] = other
            made.extend(new, cache)
            runs.append(made.extend(torch.full((batch,), 6), cache))
        same = (runs[0] == runs[1]).all(-1)
        assert not same[1] and same[torch.arange(batch) != 1].all()


# ---------------------------------------------------------------- what is refused


def test_sizes_that_fit_no_model_are_refused(refuses):
    with refuses("vocabulary: got 0, wanted an int of at least 1"):
        Config(0)
    with refuses("hidden: got 1.5, wanted an int of at least 1"):
        Config(9, hidden=1.5)
    with refuses("width: got 20, wanted a multiple of 8, twice the heads"):
        Config(9, width=20)
    assert Config(9, width=24).width == 24


def test_tokens_that_cannot_be_read_are_refused(refuses):
    made = model()
    with refuses("tokens: got 11 at index (0, 1), wanted integers in 0 … 10"):
        made(torch.tensor([[0, 11]]))
    with refuses("tokens: got -1 at index (0, 0), wanted integers in 0 … 10"):
        made(torch.tensor([[-1, 0]]))
    with refuses("tokens: got torch.float32, wanted integers"):
        made(torch.zeros(1, 2))
    with refuses("tokens: got shape (3,), wanted shape (B, T)"):
        made(torch.tensor([1, 2, 3]))
    with refuses("tokens: got list, wanted a Tensor"):
        made([[1, 2]])
    with refuses("tokens: got 17 in a row, wanted 1 … 16, the context"):
        made(tokens(1, 17))
    with refuses("tokens: got 0 in a row, wanted 1 … 16, the context"):
        made(tokens(1, 0))
    assert made(tokens(1, 16)).shape == (1, 16, 11)
    assert made(tokens(1, 1)).shape == (1, 1, 11)


def test_prompts_that_cannot_be_continued_are_refused(refuses):
    made, two = model(), torch.tensor([2, 1])
    with refuses(
        "prompts: got 12 tokens and room for 5 more, wanted at most 16 in all"
    ):
        made.prefill(tokens(2, 12), two, room=5)
    made.prefill(tokens(2, 12), two, room=4)
    with refuses("room: got 0, wanted an int of at least 1"):
        made.prefill(tokens(2, 3), two, room=0)
    with refuses("group: got 0, wanted an int of at least 1"):
        made.prefill(tokens(2, 3), two, room=1, group=0)
    with refuses("lengths: got shape (2,), wanted shape (3,)"):
        made.prefill(tokens(3, 3), two, room=1)
    with refuses("lengths: got 4 at index (1,), wanted integers in 0 … 3"):
        made.prefill(tokens(2, 3), torch.tensor([3, 4]), room=1)
    with refuses("lengths: got 0, wanted at least one token in every prompt"):
        made.prefill(tokens(2, 3), torch.tensor([3, 0]), room=1)
    with refuses("prompts: got list, wanted a Tensor"):
        made.prefill([[1]], two, room=1)


def test_extending_has_an_end_and_wants_one_token_a_row(refuses):
    made = model()
    _, cache = made.prefill(tokens(2, 3), torch.tensor([3, 3]), room=2, group=3)
    with refuses("tokens: got shape (2,), wanted shape (6,)"):
        made.extend(tokens(2), cache)
    with refuses("tokens: got 11 at index (0, 0), wanted integers in 0 … 10"):
        made.extend(torch.full((6,), 11), cache)
    made.extend(tokens(6), cache)
    made.extend(tokens(6), cache)
    with refuses("tokens: got one more, wanted no more than there was room for"):
        made.extend(tokens(6), cache)


def test_the_sizes_of_a_model_cannot_be_changed_afterwards():
    with pytest.raises(FrozenInstanceError):
        Config(9).width = 128
