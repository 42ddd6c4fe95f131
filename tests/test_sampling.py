"""What is drawn, how likely it was, and where it is written."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lib import ops
from lib.models.mlp import Greedy, Tabular
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.sampling import complete, filter_logits

close = partial(assert_close, rtol=0, atol=1e-12)
T, F = True, False
INF, NAN = math.inf, math.nan
FOUR = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64).log()
PROMPTS = [[3, 4, 5], [1], [6, 3, 4, 5, 6, 7], [9, 9]]


class Rereading(nn.Module):
    """The same policy with its cache taken away; counts the shapes that it was shown."""

    def __init__(self, policy):
        super().__init__()
        self.policy, self.shown = policy, []

    def forward(self, states):
        """(B, T) -> (B, T, A)."""
        self.shown.append(tuple(states.shape))
        return self.policy(states)


class Counting(nn.Module):
    """After token i comes i + 1, for certain; keeps what it was shown."""

    def __init__(self, size=8):
        super().__init__()
        self.size, self.shown = size, []

    def forward(self, states):
        """(B, T) -> (B, T, A): 0 for the next number, -inf elsewhere."""
        self.shown.append(tuple(states.shape))
        following = (states + 1) % self.size
        logits = torch.full((*states.shape, self.size), -INF)
        return logits.scatter(-1, following.unsqueeze(-1), 0.0)


def transformer(*, dtype=torch.float64, loud=4.0, seed=0):
    config = Config(12, context=24, layers=2, width=24, heads=3, hidden=32)
    made = Transformer(
        config, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight *= loud
    return made


def run(policy, prompts=PROMPTS, *, seed=1, end=2, max_tokens=9, **knobs):
    draws = torch.Generator().manual_seed(seed)
    return complete(
        policy, prompts, end=end, max_tokens=max_tokens, generator=draws, **knobs
    )


def completions(rollout):
    """What was drawn in each row."""
    pairs = zip(rollout.actions, rollout.mask, strict=True)
    return [actions[mask].tolist() for actions, mask in pairs]


# ---------------------------------------------------------------- filters


def kept(*args, **knobs):
    return (filter_logits(*args, **knobs) > -INF).tolist()


def test_temperature_alone_divides():
    logits = torch.tensor([[1.0, -3.0, 0.3]])
    assert torch.equal(filter_logits(logits, temperature=0.7), logits / 0.7)
    assert torch.equal(filter_logits(logits), logits)


def test_top_k_keeps_the_best_and_all_that_tie_with_the_last_of_them():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert kept(logits, top_k=1) == [[F, T, F, F], [T, T, T, T]]
    assert kept(logits, top_k=2) == [[F, T, T, T], [T, T, T, T]]
    assert kept(logits, top_k=3) == [[F, T, T, T], [T, T, T, T]]
    assert kept(logits, top_k=4) == kept(logits, top_k=99) == [[T] * 4] * 2


def test_top_p_keeps_the_fewest_that_reach_p():
    for p, count in ((0.01, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (0.9, 3)):
        assert sum(kept(FOUR, top_p=p)) == count
        assert sum(kept(FOUR.float(), top_p=p)) == count
        assert kept(FOUR.flip(0), top_p=p) == kept(FOUR, top_p=p)[::-1]
    assert kept(FOUR, top_p=0.95) == kept(FOUR, top_p=1) == [T] * 4
    assert kept(FOUR, top_p=1e-12) == kept(FOUR.float(), top_p=1e-12) == [T, F, F, F]


def test_top_p_of_one_keeps_even_what_rounds_to_nothing():
    logits = torch.tensor([0.0, -60.0, -INF], dtype=torch.float64)
    assert kept(logits, top_p=1.0) == [T, T, F]
    assert kept(logits, top_p=0.999) == [T, F, F]


def test_of_what_ties_at_the_border_of_top_p_the_first_is_kept():
    assert kept(torch.zeros(4), top_p=0.5) == [T, T, F, F]
    assert kept(torch.zeros(300), top_p=0.5) == [T] * 150 + [F] * 150


def test_top_p_is_measured_after_temperature_and_top_k():
    # of the best two, 0.5 and 0.25, the first holds two thirds
    assert kept(FOUR, top_k=2, top_p=0.6) == [T, F, F, F]
    assert kept(FOUR, top_p=0.6) == [T, T, F, F]
    assert kept(FOUR, top_k=2, top_p=0.7) == [T, T, F, F]
    # at temperature 1/2 the odds are squared: 0.25 of 0.345 = 0.725
    assert kept(FOUR, temperature=0.5, top_p=0.7) == [T, F, F, F]
    assert kept(FOUR, temperature=0.5, top_p=0.73) == [T, T, F, F]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=7),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.integers(1, 8),
    st.floats(0.01, 0.99),
)
def test_filters_by_their_definition(numbers, temperature, k, p):
    logits = torch.tensor(numbers, dtype=torch.float64)
    got = filter_logits(logits, temperature=temperature, top_k=k, top_p=p)
    scaled = logits / temperature
    best = sorted(numbers, reverse=True)[min(k, len(numbers)) - 1]
    left = [i for i, x in enumerate(numbers) if x >= best]
    mass = scaled[left].softmax(0).tolist()
    order = sorted(range(len(left)), key=lambda j: (-numbers[left[j]], j))
    want, held = set(), 0.0
    for j in order:
        if held >= p - 1e-12:
            break
        want.add(left[j])
        held += mass[j]
    for i, x in enumerate(got.tolist()):
        assert x == (scaled[i].item() if i in want else -INF)


def test_filters_keep_type_shape_and_gradient(grad_of):
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64):
        got = filter_logits(logits.to(dtype), temperature=2.0, top_k=3, top_p=0.9)
        assert got.dtype == dtype and got.shape == (2, 3, 5)
    (slope,) = grad_of(lambda x: filter_logits(x, temperature=2.0, top_k=2), logits)
    assert sorted(set(slope.flatten().tolist())) == [0, 0.5]
    assert (slope > 0).sum(-1).tolist() == [[2] * 3] * 2


BAD = [
    ({"temperature": 0}, "temperature: got 0, wanted a number above 0"),
    ({"temperature": -1.0}, "temperature: got -1.0, wanted a number above 0"),
    ({"temperature": NAN}, "temperature: got nan, wanted a finite number"),
    ({"top_k": 0}, "top_k: got 0, wanted an int of at least 1"),
    ({"top_k": 1.0}, "top_k: got 1.0, wanted an int of at least 1"),
    ({"top_p": 0}, "top_p: got 0, wanted a number in (0, 1]"),
    ({"top_p": -0.5}, "top_p: got -0.5, wanted a number in (0, 1]"),
    ({"top_p": 1.01}, "top_p: got 1.01, wanted a number in (0, 1]"),
    ({"top_p": "0.9"}, "top_p: got '0.9', wanted a number"),
    ({"top_p": NAN}, "top_p: got nan, wanted a finite number"),
]


@pytest.mark.parametrize(("knobs", "message"), BAD)
def test_impossible_filters_are_refused_wherever_they_are_given(
    knobs, message, refuses
):
    with refuses(message):
        filter_logits(FOUR, **knobs)
    with refuses(message):
        run(Counting(), **knobs)


def test_filter_logits_wants_a_tensor(refuses):
    with refuses("logits: got list, wanted a Tensor"):
        filter_logits([0.0, 1.0])


# ---------------------------------------------------------------- what is written where


def test_a_row_is_its_prompt_its_completion_and_padding():
    seen = run(Counting(), [[3], [1, 2], [0, 0, 4]], end=5, pad=7)
    rows = [[3, 4, 5, 7, 7], [1, 2, 3, 4, 5], [0, 0, 4, 5, 7]]
    assert seen.states.tolist() == [row[:-1] for row in rows]
    assert seen.actions.tolist() == [row[1:] for row in rows]
    assert seen.mask.tolist() == [[T, T, F, F], [F, T, T, T], [F, F, T, F]]
    assert seen.last_states.tolist() == [5, 5, 5]
    assert seen.terminated.tolist() == [T, T, T]
    assert (seen.logps == 0).all() and (seen.rewards == 0).all()
    assert seen.rewards.shape == seen.logps.shape == (3, 4)
    assert seen.lengths.tolist() == [2, 3, 1]


def test_padding_fills_a_row_that_is_shorter_than_another_prompt():
    seen = run(Counting(), [[4], [0, 0, 0, 4]], end=5, pad=7)
    assert seen.states.tolist() == [[4, 5, 7, 7], [0, 0, 0, 4]]
    assert seen.actions.tolist() == [[5, 7, 7, 7], [0, 0, 4, 5]]


def test_what_does_not_end_is_cut_off_at_max_tokens():
    seen = run(Counting(), [[3], [1, 2], [0, 0, 4]], end=5, max_tokens=2)
    assert completions(seen) == [[4, 5], [3, 4], [5]]
    assert seen.terminated.tolist() == [T, F, T]
    assert seen.last_states.tolist() == [5, 4, 5]
    assert seen.states.tolist() == [[3, 4, 5], [1, 2, 3], [0, 0, 4]]
    assert seen.actions.tolist() == [[4, 5, 0], [2, 3, 4], [0, 4, 5]]
    one = run(Counting(), [[3]], end=5, max_tokens=1)
    assert (one.states.tolist(), one.actions.tolist()) == ([[3]], [[4]])
    assert one.terminated.tolist() == [F]


def test_it_stops_when_every_row_has_ended():
    policy = Counting()
    run(policy, [[3], [1, 2]], end=5, max_tokens=500)
    assert policy.shown == [(2, 2), (2, 3), (2, 4)]
    policy = Counting()
    run(policy, [[3], [1, 2]], end=5, max_tokens=2)
    assert policy.shown == [(2, 2), (2, 3)]


def test_an_end_inside_a_prompt_ends_nothing():
    seen = run(Counting(), [[5, 3], [5]], end=5, max_tokens=20)
    assert completions(seen) == [[4, 5], [6, 7, 0, 1, 2, 3, 4, 5]]


def test_padding_with_the_end_token_loses_no_end():
    seen = run(Counting(), [[3], [1, 2]], end=5, pad=5)
    assert completions(seen) == [[4, 5], [3, 4, 5]]
    assert seen.actions.tolist() == [[4, 5, 5, 5], [2, 3, 4, 5]]
    assert seen.lengths.tolist() == [2, 3] and seen.last_states.tolist() == [5, 5]


def test_rows_are_prompt_major():
    for policy in (transformer(), Rereading(transformer())):
        seen = run(policy, group=3)
        assert len(seen) == 12
        for row in range(12):
            prompt = PROMPTS[row // 3]
            assert seen.states[row, : len(prompt)].tolist() == prompt
            assert (
                seen.mask[row, len(prompt) - 1]
                and not seen.mask[row, : len(prompt) - 1].any()
            )
        assert len({tuple(c) for c in completions(seen)[6:9]}) == 3


def test_end_is_counted_once_and_nothing_follows_it():
    seen = run(transformer(), group=40, max_tokens=12)
    tokens = torch.cat((seen.states[:, :1], seen.actions), 1)
    for row, drawn in enumerate(completions(seen)):
        n = len(PROMPTS[row // 40])
        assert 1 <= len(drawn) <= 12
        assert seen.terminated[row] == (drawn[-1] == 2) and 2 not in drawn[:-1]
        assert len(drawn) == 12 or drawn[-1] == 2
        assert seen.mask[row].nonzero().flatten().tolist() == list(
            range(n - 1, n - 1 + len(drawn))
        )
        assert (tokens[row, n + len(drawn) :] == 0).all()
        assert seen.last_states[row] == drawn[-1]
    assert 0 < seen.terminated.sum() < len(seen)
    assert (seen.logps[~seen.mask] == 0).all() and (seen.logps[seen.mask] < 0).all()
    assert seen.mask.any(0)[-1]  # no column is wasted


# ---------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("group", [1, 3, 16])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.float64, 1e-10)]
)
def test_logps_are_what_training_computes_again(temperature, group, dtype, tolerance):
    policy = transformer(dtype=dtype, loud=2.0)
    seen = run(policy, group=group, temperature=temperature)
    again = token_logps(policy(seen.states), seen.actions, temperature=temperature)
    assert (again - seen.logps)[seen.mask].abs().max() < tolerance
    assert seen.logps.dtype == seen.rewards.dtype == dtype
    assert not seen.logps.requires_grad
    (again * seen.mask).sum().backward()  # what came out serves for training


def test_logps_are_of_the_policy_before_it_was_filtered():
    policy = transformer()
    seen = run(policy, group=4, temperature=0.8, top_k=3, top_p=0.9)
    again = token_logps(policy(seen.states), seen.actions, temperature=0.8)
    close(again[seen.mask].detach(), seen.logps[seen.mask])


def test_filtered_tokens_are_never_drawn():
    policy = transformer()
    seen = run(policy, group=50, temperature=1.5, top_k=3, top_p=0.8)
    filtered = filter_logits(policy(seen.states), temperature=1.5, top_k=3, top_p=0.8)
    assert (token_logps(filtered, seen.actions)[seen.mask] > -INF).all()
    for knob in ({"top_k": 3}, {"top_p": 0.8}, {"top_p": 0.8, "temperature": 0.5}):
        alone = run(policy, group=50, **knob)
        filtered = filter_logits(policy(alone.states), **knob)
        assert (token_logps(filtered, alone.actions)[alone.mask] > -INF).all()
        assert not torch.equal(alone.actions, run(policy, group=50).actions)


# ---------------------------------------------------------------- what is drawn


def test_tokens_are_those_that_the_verb_sample_draws(seeded):
    policy, draws = Tabular(6, 6), seeded(3)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(6, 6, generator=seeded(1)))
    seen = run(
        policy, [[1], [2]], seed=3, end=5, max_tokens=7, group=2, temperature=0.7
    )
    state, rows = torch.tensor([1, 1, 2, 2]), []
    for _ in range(7):
        state = ops.sample(policy.logits[state] / 0.7, generator=draws)
        rows.append(state)
    for drawn, row in zip(
        completions(seen), torch.stack(rows, 1).tolist(), strict=True
    ):
        assert drawn == row[: len(drawn)]
    assert sum(len(drawn) for drawn in completions(seen)) > 8


def test_completions_have_the_probability_that_the_policy_gives_them():
    policy = transformer()
    n = 4000
    seen = run(policy, [[3, 4]], group=n, max_tokens=2, temperature=1.3)
    counts: dict[tuple, int] = {}
    for drawn in completions(seen):
        counts[tuple(drawn)] = counts.get(tuple(drawn), 0) + 1
    every = [[3, 4, 2, 0]] + [
        [3, 4, a, b] for a in range(12) if a != 2 for b in range(12)
    ]
    rows = torch.tensor(every)
    logps = token_logps(policy(rows[:, :-1]), rows[:, 1:], temperature=1.3)[:, 1:]
    logps[0, 1] = 0  # nothing is drawn after the end
    expected = n * logps.sum(1).exp()
    assert expected.sum().item() == pytest.approx(n)
    found = torch.tensor(
        [counts.get((2,) if r == [3, 4, 2, 0] else tuple(r[2:]), 0) for r in every]
    )
    assert found.sum() == n
    big = expected > 5
    chi2 = ((found - expected) ** 2 / expected)[big].sum()
    assert big.sum() > 30 and abs(chi2 - big.sum()) < 4 * (2 * big.sum()) ** 0.5


def test_the_last_token_is_drawn_as_often_as_it_is_likely(seeded):
    policy = Tabular(3, 3)
    with torch.no_grad():
        policy.logits.copy_(torch.tensor([[0.5, 0.25, 0.25]]).log().expand(3, 3))
    seen = run(policy, [[0]], group=4000, end=0, max_tokens=1)
    share = seen.actions.flatten().bincount(minlength=3) / 4000
    assert (share - torch.tensor([0.5, 0.25, 0.25])).abs().max() < 0.03


def test_a_token_without_probability_is_not_drawn_even_by_the_least_uniform(
    monkeypatch,
):
    monkeypatch.setattr(torch, "rand", lambda size, **knobs: torch.zeros(size).double())
    assert completions(run(Counting(), [[3]], end=5)) == [[4, 5]]


def test_the_generator_alone_decides():
    policy = transformer()
    before = torch.random.get_rng_state()
    first, same, other = (run(policy, group=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.actions, same.actions)
    assert torch.equal(first.logps, same.logps)
    assert completions(first) != completions(other)


def test_the_draws_taken_do_not_depend_on_when_rows_end(seeded):
    generators = seeded(1), seeded(1)
    for generator, end in zip(generators, (4, 0), strict=True):
        complete(Counting(), [[3]], end=end, max_tokens=6, generator=generator)
    states = [generator.get_state() for generator in generators]
    assert torch.equal(*states)


# ---------------------------------------------------------------- the cache, batches, padding


@pytest.mark.parametrize("knobs", [{}, {"group": 3}, {"top_k": 4, "temperature": 1.5}])
def test_a_policy_without_a_cache_writes_the_same(knobs):
    policy = transformer()
    plain = Rereading(policy)
    cached, reread = run(policy, **knobs), run(plain, **knobs)
    assert torch.equal(cached.actions, reread.actions)
    assert torch.equal(cached.mask, reread.mask)
    assert not reread.logps.requires_grad
    close(cached.logps, reread.logps)
    rows = len(cached)  # the longest prompt has 6 tokens, and each step is one longer
    assert plain.shown == [(rows, 6 + t) for t in range(len(plain.shown))]
    assert len(plain.shown) == cached.lengths.max()


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_completions_do_not_depend_on_their_neighbours(cache):
    policy = transformer() if cache else Rereading(transformer())
    together = completions(run(policy, top_k=1, max_tokens=15))
    alone = [completions(run(policy, [p], top_k=1, max_tokens=15))[0] for p in PROMPTS]
    assert together == alone
    assert together == completions(run(policy, seed=9, top_k=1, max_tokens=15))
    back = completions(run(policy, PROMPTS[::-1], top_k=1, max_tokens=15))
    assert back == alone[::-1]
    grouped = completions(run(policy, top_k=1, max_tokens=15, group=2))
    assert grouped == [c for c in alone for _ in range(2)]
    assert len({tuple(c) for c in alone}) > 1
    greedy = Greedy(policy)
    assert completions(run(greedy, max_tokens=15)) == alone


def test_the_pad_token_reaches_nothing():
    policy = transformer(dtype=torch.float32)
    runs = [run(policy, group=2, pad=pad) for pad in (0, 2, 11)]
    slopes = []
    for seen in runs:
        assert completions(seen) == completions(runs[0])
        assert torch.equal(seen.logps, runs[0].logps)
        assert torch.equal(seen.mask, runs[0].mask)
        policy.zero_grad()
        logps = token_logps(policy(seen.states), seen.actions)
        ops.token_mean(logps, seen.mask).backward()
        slopes.append([w.grad.clone() for w in policy.parameters()])
        for a, b in zip(slopes[0], slopes[-1], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(runs[0].actions, runs[1].actions)


def test_prompts_may_be_tensors():
    tensors = [torch.tensor(prompt) for prompt in PROMPTS]
    a, b = run(transformer(), tensors), run(transformer())
    assert torch.equal(a.actions, b.actions)


# ---------------------------------------------------------------- what is refused


def test_bad_prompts_are_refused(refuses):
    policy = transformer()
    with refuses("prompts: got none, wanted at least one"):
        run(policy, [])
    with refuses("prompts: got no token in prompt 1, wanted at least one"):
        run(policy, [[1], []])
    with refuses("prompts: got text as prompt 0, wanted lists of token ids"):
        run(policy, ["abc"])
    with refuses("tokens: got 12 at index (1, 0), wanted integers in 0 … 11"):
        run(policy, [[1], [12]])
    with refuses("tokens: got torch.float32, wanted integers"):
        run(policy, [[1.0]])


def test_what_does_not_fit_the_context_is_refused_before_anything_is_drawn(
    refuses, seeded
):
    generator = seeded(1)
    message = "prompts: got 20 tokens and room for 5 more, wanted at most 24 in all"
    with refuses(message):
        complete(
            transformer(), [[1], [3] * 20], end=2, max_tokens=5, generator=generator
        )
    assert torch.equal(generator.get_state(), seeded(1).get_state())
    seen = run(transformer(), [[3] * 20], end=2, max_tokens=4)
    assert seen.states.shape[1] <= 23


def test_bad_counts_and_tokens_are_refused(refuses):
    with refuses("max_tokens: got 0, wanted an int of at least 1"):
        run(Counting(), max_tokens=0)
    with refuses("group: got 0, wanted an int of at least 1"):
        run(Counting(), group=0)
    with refuses("end: got -1, wanted an int of at least 0"):
        run(Counting(), [[1]], end=-1)
    with refuses("end: got 8 at index (), wanted integers in 0 … 7"):
        run(Counting(), [[1]], end=8)
    with refuses("pad: got 8 at index (), wanted integers in 0 … 7"):
        run(Counting(), [[1]], end=7, pad=8)
    assert completions(run(Counting(), [[6]], end=7, pad=7)) == [[7]]
    assert completions(run(Counting(), [[7]], end=0)) == [[0]]


def test_a_policy_that_gives_no_distribution_is_refused(refuses):
    wanted = "wanted at least one finite logit a row, no NaN, no +inf"
    for bad in ([NAN, 0.0, 0.0], [-INF, -INF, -INF], [INF, 0.0, 0.0]):
        policy = Tabular(3, 3)
        with torch.no_grad():
            policy.logits[1] = torch.tensor(bad)
        with refuses(f"logits: got no distribution in row 1, {wanted}"):
            run(policy, [[0], [1]], end=2)


def test_a_nucleus_of_many_small_probabilities_counts_them_all():
    kept = filter_logits(torch.zeros(50_000), top_p=0.5)
    assert (kept == 0).sum() == 25_000


def test_log_probabilities_of_float32_logits_are_taken_in_float64():
    class Fixed(torch.nn.Module):
        def forward(self, states):
            return logits.expand(*states.shape, -1)

    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, generator=draws)
    rollout = complete(
        Fixed(), [[1]], end=0, max_tokens=3, generator=draws, group=400, temperature=0.7
    )
    exact = torch.softmax(logits.double() / 0.7, -1).log().float()
    assert torch.equal(
        rollout.logps[rollout.mask], exact[rollout.actions[rollout.mask]]
    )
