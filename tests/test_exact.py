"""The exact world: every completion once, and estimators held against their sums."""

import itertools
import math
from dataclasses import FrozenInstanceError, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lib.advantages import group_centred, leave_one_out, reward_to_go
from lib.kl import k1, k2, k3, penalised_rewards
from lib.losses.policy_gradient import reinforce
from lib.models.mlp import Tabular
from lib.models.transformer import Config, Transformer
from lib.ops import sequence_logps
from lib.sampling import complete
from lib.worlds.exact import (
    Objective,
    PrefixTable,
    Restricted,
    bandit,
    completion_logps,
    every_completion,
    expected,
    gradient,
)

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape
INF = math.inf
PROMPT, TOKENS, END = [1, 0], [0, 1, 2], 2
WORDS = every_completion(PROMPT, tokens=TOKENS, end=END, max_tokens=3)  # 15 of them


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


def scalar(x):
    """A float64 tensor without axes."""
    return torch.tensor(x, dtype=torch.float64)


def scattered(policy, seed=0, scale=1.0):
    """The same policy with random weights."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.copy_(
                scale * torch.randn(weight.shape, dtype=torch.float64, generator=draw)
            )
    return policy


def table(seed=0):
    return scattered(PrefixTable(3, 5), seed)


def transformer(seed=0, vocabulary=3):
    config = Config(vocabulary, context=8, layers=1, width=8, heads=2, hidden=8)
    draw = torch.Generator().manual_seed(seed)
    return scattered(
        Transformer(config, generator=draw, dtype=torch.float64), seed, 0.5
    )


def texts(completions):
    """Each row's completion as a tuple."""
    rows = zip(completions.actions, completions.mask, strict=True)
    return [tuple(actions[mask].tolist()) for actions, mask in rows]


def judged(completions, scores):
    """The same rows with the score on the last token of each."""
    return replace(completions, rewards=scores.unsqueeze(1) * completions.ends)


REWARDS = torch.randn(
    15, dtype=torch.float64, generator=torch.Generator().manual_seed(9)
)
POLICIES = {"table": table, "transformer": transformer}


# ---------------------------------------------------------------- the set


def test_every_completion_once_and_shorter_ones_first():
    two = every_completion([1], tokens=[0, 2], end=2, max_tokens=3)
    assert texts(two) == [(2,), (0, 2), (0, 0, 2), (0, 0, 0)]
    assert two.terminated.tolist() == [True, True, True, False]
    every = [
        string
        for length in (1, 2, 3)
        for string in itertools.product(TOKENS, repeat=length)
        if END not in string[:-1] and (string[-1] == END or length == 3)
    ]
    assert texts(WORDS) == sorted(
        every, key=lambda string: (string[-1] != END, len(string))
    )
    assert len(WORDS) == len(every) == 15  # 1 + 2 + 4 that end, 8 that do not


def test_a_row_is_prompt_completion_padding():
    rows = every_completion([5, 6], tokens=[7, 9], end=9, max_tokens=2)
    # 5 6 9 0 | 5 6 7 9 | 5 6 7 7
    assert rows.states.tolist() == [[5, 6, 9], [5, 6, 7], [5, 6, 7]]
    assert rows.actions.tolist() == [[6, 9, 0], [6, 7, 9], [6, 7, 7]]
    assert rows.mask.tolist() == [
        [False, True, False],
        [False, True, True],
        [False, True, True],
    ]
    assert rows.last_states.tolist() == [9, 9, 7]
    assert rows.terminated.tolist() == [True, True, False]
    assert rows.lengths.tolist() == [1, 2, 2]
    for empty in (rows.logps, rows.rewards):
        assert empty.dtype == torch.float64 and (empty == 0).all()
    assert rows.logps is not rows.rewards


def test_without_an_end_all_have_full_length():
    rows = every_completion([0], tokens=[0, 1], end=None, max_tokens=2)
    assert texts(rows) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert rows.mask.all() and not rows.terminated.any()


def test_a_set_of_the_end_alone_is_one_completion_however_long_the_clock():
    rows = every_completion([0], tokens=[3], end=3, max_tokens=10**12)
    assert texts(rows) == [(3,)]


def test_too_many_completions_are_refused_before_they_are_written(refuses):
    wanted = "wanted at most 1000000: fewer or shorter strings"
    with refuses(f"tokens: got 1966082 tokens to write by length 16, {wanted}"):
        every_completion([0], tokens=[0, 1], end=None, max_tokens=10**9)  # Σ t·2^t
    for size in (1_000_001, 10**15):
        with refuses(f"tokens: got {size} tokens, wanted 1 … 1000000 of them"):
            bandit(size)
    with refuses(f"tokens: got 1001000 tokens to write by length 1000, {wanted}"):
        every_completion([0], tokens=[0, 1], end=1, max_tokens=10**9)
    assert len(every_completion([0], tokens=[0, 1], end=1, max_tokens=999)) == 1000


def test_every_completion_says_what_it_refuses(refuses):
    def call(prompt=(1,), tokens=(0, 2), end=2, max_tokens=2):
        return every_completion(prompt, tokens=tokens, end=end, max_tokens=max_tokens)

    with refuses("prompt: got 0 tokens, wanted 1 … 1000000 of them"):
        call(prompt=[])
    with refuses("prompt: got -1, wanted an int of at least 0"):
        call(prompt=[0, -1])
    with refuses("tokens: got 0 tokens, wanted 1 … 1000000 of them"):
        call(tokens=[])
    with refuses("tokens: got 1.0, wanted an int of at least 0"):
        call(tokens=[1.0, 2])
    with refuses("tokens: got [2, 2], wanted each token once"):
        call(tokens=(2, 2))
    with refuses("end: got 7, wanted one of the tokens [0, 2], or None"):
        call(end=7)
    with refuses("max_tokens: got 0, wanted an int of at least 1"):
        call(max_tokens=0)


def test_a_bandit_writes_a_whole_completion_at_once():
    rows = bandit(3, prompt=2)
    assert rows.states.tolist() == [[2], [2], [2]]
    assert rows.actions.tolist() == [[0], [1], [2]]
    assert (
        rows.mask.all()
        and rows.terminated.all()
        and rows.terminated.dtype == torch.bool
    )
    assert bandit(2).states.tolist() == [[0], [0]]


def test_a_bandit_has_completions(refuses):
    with refuses("completions: got 0, wanted an int of at least 1"):
        bandit(0)


# ---------------------------------------------------------------- probabilities


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_probabilities_of_all_completions_sum_to_one(kind, temperature):
    policy = POLICIES[kind]()
    logps = completion_logps(policy, WORDS, temperature=temperature)
    assert logps.shape == (15,) and logps.requires_grad
    close(logps.exp().sum().detach(), scalar(1.0))


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_completion_is_as_probable_as_its_tokens_one_by_one(kind, temperature):
    policy = POLICIES[kind]()
    got = completion_logps(policy, WORDS, temperature=temperature)
    for logp, text in zip(got.tolist(), texts(WORDS), strict=True):
        prefix, total = list(PROMPT), 0.0
        for token in text:
            logits = policy(torch.tensor([prefix]))[0, -1]
            weights = [math.exp(z / temperature) for z in logits.tolist()]
            total += math.log(weights[token] / sum(weights))
            prefix.append(token)
        assert logp == pytest.approx(total, abs=1e-12)


def test_the_default_temperature_is_one():
    policy = table()
    same = completion_logps(policy, WORDS, temperature=1.0)
    assert torch.equal(completion_logps(policy, WORDS), same)


def test_a_tabular_policy_over_whole_completions():
    policy = scattered(Tabular(2, 4))
    for prompt in (0, 1):
        logps = completion_logps(policy, bandit(4, prompt=prompt))
        close(logps, policy.logits[prompt].log_softmax(0))


def test_probability_outside_the_set_is_missed_and_refused(refuses):
    policy = transformer(vocabulary=5)
    logps = completion_logps(policy, WORDS)
    total = logps.exp().sum().item()
    assert total < 0.9
    wanted = "wanted all the completions there are, summing to 1"
    with refuses(f"logps: got probabilities that sum to {total:.6g}, {wanted}"):
        expected(REWARDS, logps)


def test_a_restricted_policy_renormalises_every_step():
    policy = transformer(vocabulary=5)
    fenced = Restricted(policy, TOKENS)
    logps = completion_logps(fenced, WORDS)
    close(logps.exp().sum().detach(), scalar(1.0))
    states = torch.tensor([[1, 0, 4]])
    inside = policy(states)[..., :3].softmax(-1)
    probabilities = fenced(states).softmax(-1)
    close(probabilities[..., :3], inside)
    assert (probabilities[..., 3:] == 0).all()
    slope = gradient(expected(REWARDS, logps), fenced)
    assert slope.isfinite().all() and (slope != 0).any()


def test_a_restricted_policy_says_what_it_refuses(refuses):
    with refuses("tokens: got 0 tokens, wanted 1 … 1000000 of them"):
        Restricted(table(), [])
    with refuses("tokens: got -1, wanted an int of at least 0"):
        Restricted(table(), [-1])
    with refuses("tokens: got 3 at index (1,), wanted integers in 0 … 2"):
        Restricted(table(), [0, 3])(torch.tensor([[0]]))


def test_a_table_has_one_row_for_each_prefix():
    policy = PrefixTable(2, 3)
    assert policy.logits.shape == (14, 2)  # 2 + 4 + 8 prefixes
    assert (policy.logits == 0).all() and policy.logits.dtype == torch.float64
    with torch.no_grad():
        policy.logits[:, 0] = torch.arange(14)
    seen = {}
    for states in itertools.product((0, 1), repeat=3):
        rows = policy(torch.tensor([states]))[0, :, 0].tolist()
        for length, row in enumerate(rows, start=1):
            assert (
                seen.setdefault(states[:length], row) == row
            )  # the past alone decides
    order = sorted(seen, key=lambda prefix: (len(prefix), prefix))
    assert [seen[prefix] for prefix in order] == list(range(14))
    assert policy(torch.tensor([[0, 1], [1, 1]])).shape == (2, 2, 2)


def test_a_table_says_what_it_refuses(refuses):
    with refuses("vocabulary: got 0, wanted an int of at least 1"):
        PrefixTable(0, 2)
    with refuses("context: got 0, wanted an int of at least 1"):
        PrefixTable(2, 0)
    wanted = "wanted at most 1000000 logits: a smaller vocabulary or context"
    with refuses(f"context: got 10100 prefixes of up to 2 tokens, {wanted}"):
        PrefixTable(100, 10**9)
    assert PrefixTable(1000, 1).logits.shape == (1000, 1000)  # a million logits
    with refuses("states: got 3 at index (0, 1), wanted integers in 0 … 2"):
        PrefixTable(3, 2)(torch.tensor([[0, 3]]))
    with refuses("states: got 3 tokens, wanted at most context = 2"):
        PrefixTable(3, 2)(torch.tensor([[0, 0, 0]]))


def test_what_is_sampled_is_one_of_the_completions_with_its_probability(seeded):
    policy = transformer()
    sampled = complete(
        policy, [PROMPT], end=END, max_tokens=3, generator=seeded(), group=64
    )
    known = dict(
        zip(texts(WORDS), completion_logps(policy, WORDS).tolist(), strict=True)
    )
    logps = sequence_logps(sampled.logps, sampled.mask)
    drawn = texts(sampled)
    assert len(set(drawn)) > 5
    for text, logp in zip(drawn, logps.tolist(), strict=True):
        assert logp == pytest.approx(known[text], abs=1e-12)
    rows = [texts(WORDS).index(text) for text in drawn]
    width = sampled.mask.shape[1]
    for name in ("states", "actions", "mask", "last_states", "terminated"):
        ours, theirs = getattr(WORDS, name)[rows], getattr(sampled, name)
        assert torch.equal(ours[:, :width] if ours.ndim > 1 else ours, theirs)


def test_a_float32_policy_gives_float32_within_the_tolerance_of_the_sums():
    policy = transformer().float()
    logps = completion_logps(policy, WORDS)
    assert logps.dtype == torch.float32
    value = expected(REWARDS, logps)
    exact = expected(REWARDS, completion_logps(transformer(), WORDS))
    assert value.item() == pytest.approx(exact.item(), abs=1e-6)


# ---------------------------------------------------------------- expectations


def test_an_expectation_is_a_weighted_sum_and_ignores_what_cannot_happen(grad_of):
    logps, values = f64(0.25, 0.75, 0).log(), f64(4, 8, math.nan)
    close(expected(values, logps), scalar(7.0))
    assert expected(torch.stack([values, 2 * values]), logps.expand(2, 3)).tolist() == [
        7,
        14,
    ]
    by_value, by_logp = grad_of(expected, values, logps)
    close(by_value, f64(0.25, 0.75, 0))
    close(by_logp, f64(1, 6, 0))  # π · value
    assert expected(f64(1, INF, 0), f64(0.5, 0.5, 0).log()).item() == INF


def test_an_expectation_says_what_it_refuses(refuses):
    half = f64(0.5, 0.5).log()
    with refuses("values: got shape (3,), wanted shape (2,)"):
        expected(f64(1, 2, 3), half)
    with refuses("values: got float, wanted a Tensor"):
        expected(1.0, half)
    with refuses("value: got shape (2,), wanted shape ()"):
        gradient(half, table())


def test_a_gradient_is_one_vector_over_all_weights_that_learn():
    layers = nn.Linear(2, 1).double()
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    layers.unused, layers.frozen = unused, frozen
    value = layers(f64(3, 5)).sum()
    for _ in range(2):  # the graph is kept
        got = gradient(value, layers)
        by_name = dict(
            zip([n for n, _ in layers.named_parameters()], range(4), strict=True)
        )
        assert list(by_name)[:2] == ["weight", "bias"]
        assert got.tolist() == [3, 5, 1, 0, 0]


@pytest.mark.parametrize("kind", POLICIES)
def test_the_gradient_of_j_agrees_with_finite_differences(kind):
    policy = POLICIES[kind]()
    sheet = Objective(REWARDS, completion_logps(table(5), WORDS).detach(), beta=0.3)

    def value():
        return sheet.value(completion_logps(policy, WORDS))

    exact = gradient(value(), policy)
    weights = list(policy.parameters())
    draw = torch.Generator().manual_seed(3)
    for _ in range(5):
        ways = [torch.randn(w.shape, dtype=w.dtype, generator=draw) for w in weights]
        ends = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for weight, way in zip(weights, ways, strict=True):
                    weight += step * way
            ends.append(value().item())
        with torch.no_grad():
            for weight, way in zip(weights, ways, strict=True):
                weight += 1e-5 * way
        slope = (exact * torch.cat([way.flatten() for way in ways])).sum().item()
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, abs=1e-7)


# ---------------------------------------------------------------- the answer sheet


def test_reward_kl_and_value_agree_with_plain_sums():
    logps, ref = (completion_logps(table(seed), WORDS).detach() for seed in (1, 2))
    sheet = Objective(REWARDS, ref, beta=0.7)
    terms = list(zip(logps.tolist(), ref.tolist(), REWARDS.tolist(), strict=True))
    reward = sum(math.exp(a) * r for a, _, r in terms)
    distance = sum(math.exp(a) * (a - b) for a, b, _ in terms)
    close(sheet.reward(logps), scalar(reward))
    close(sheet.kl(logps), scalar(distance))
    close(sheet.value(logps), scalar(reward - 0.7 * distance))
    z = sum(math.exp(b + r / 0.7) for _, b, r in terms)
    close(sheet.log_z, scalar(math.log(z)))
    close(sheet.best_value, scalar(0.7 * math.log(z)))
    best = [b + r / 0.7 - math.log(z) for _, b, r in terms]
    close(sheet.best_logps, f64(*best))


def test_the_kl_of_completions_is_the_sum_of_the_kls_along_the_way():
    policy, other = table(1), table(2)
    logps, ref = completion_logps(policy, WORDS), completion_logps(other, WORDS)
    gap = policy(WORDS.states).log_softmax(-1) - other(WORDS.states).log_softmax(-1)
    steps = (policy(WORDS.states).softmax(-1) * gap).sum(-1)  # (K, T) KL of each step
    along = expected((steps * WORDS.mask).sum(-1), logps)
    close(Objective(REWARDS, ref.detach(), 1.0).kl(logps), along)


def test_the_optimum_reaches_beta_log_z_and_every_other_policy_less():
    ref = completion_logps(table(2), WORDS).detach()
    sheet = Objective(REWARDS, ref, beta=0.5)
    close(sheet.value(sheet.best_logps), sheet.best_value)
    close(sheet.value(ref), sheet.reward(ref))
    for seed in range(50):
        logps = completion_logps(table(seed), WORDS).detach()
        gap = sheet.best_value - sheet.value(logps)
        assert gap > 0.01
        distance = (logps.exp() * (logps - sheet.best_logps)).sum()
        close(gap, 0.5 * distance)


def test_a_per_token_policy_climbs_to_the_optimum():
    ref = completion_logps(table(2), WORDS).detach()
    sheet, policy = Objective(REWARDS, ref, beta=0.5), table(2)
    optimiser = torch.optim.LBFGS(
        policy.parameters(), max_iter=300, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = -sheet.value(completion_logps(policy, WORDS))
        loss.backward()
        return loss

    optimiser.step(closure)
    logps = completion_logps(policy, WORDS).detach()
    assert_close(sheet.value(logps), sheet.best_value, rtol=0, atol=1e-6)
    assert_close(logps.exp(), sheet.best_logps.exp(), rtol=0, atol=1e-3)


def test_without_a_penalty_the_value_is_the_reward(refuses):
    certain = f64(0, -INF)  # its KL is finite, the other's is not
    sheet = Objective(f64(1, 5), certain, beta=0.0)
    assert sheet.value(f64(0.5, 0.5).log()).item() == 3
    assert sheet.kl(f64(0.5, 0.5).log()).item() == INF
    assert sheet.kl(certain).item() == 0
    with refuses("beta: got 0.0, wanted a number above 0"):
        _ = sheet.best_value
    with refuses("beta: got 0.0, wanted a number above 0"):
        _ = sheet.best_logps
    assert Objective(f64(1, 5), certain, 1.0).value(f64(-INF, 0)).item() == -INF


def test_the_sheet_of_many_prompts_is_that_of_each():
    rewards, ref = f64([1, 0, 2], [0, 3, 1]), f64([1, 2, 3], [0, 0, 1]).log_softmax(-1)
    logps = f64([0, 0, 0], [3, 1, 2]).log_softmax(-1)
    both = Objective(rewards, ref, 0.4)
    for row in (0, 1):
        one = Objective(rewards[row], ref[row], 0.4)
        for name in ("reward", "kl", "value"):
            close(getattr(both, name)(logps)[row], getattr(one, name)(logps[row]))
        for name in ("best_logps", "best_value", "log_z"):
            close(getattr(both, name)[row], getattr(one, name))


def test_an_answer_sheet_cannot_be_rewritten():
    with pytest.raises(FrozenInstanceError):
        Objective(f64(1, 2), f64(0.5, 0.5).log(), 1.0).beta = 2.0


def test_the_answer_sheet_says_what_it_refuses(refuses):
    half = f64(0.5, 0.5).log()
    wanted = "wanted all the completions there are, summing to 1"
    with refuses(f"ref_logps: got probabilities that sum to 2, {wanted}"):
        Objective(f64(1, 2), f64(0, 0), 1.0)
    with refuses("rewards: got shape (3,), wanted shape (2,)"):
        Objective(f64(1, 2, 3), half, 1.0)
    with refuses("rewards: got nan at index (1,), wanted finite numbers"):
        Objective(f64(1, math.nan), half, 1.0)
    with refuses("beta: got -1.0, wanted a number of at least 0"):
        Objective(f64(1, 2), half, -1.0)
    for ask in ("reward", "kl", "value"):
        with refuses(f"logps: got probabilities that sum to 2, {wanted}"):
            getattr(Objective(f64(1, 2), half, 1.0), ask)(f64(0, 0))


# ---------------------------------------------------------------- estimators


def losses(policy, advantages, completions=WORDS):
    """The REINFORCE loss of each completion by itself: (K,)."""
    logits = policy(completions.states).log_softmax(-1)
    logps = logits.gather(-1, completions.actions.unsqueeze(-1)).squeeze(-1)
    rows = range(len(completions))
    each = [
        reinforce(logps[[k]], advantages[[k]], completions.mask[[k]])[0] for k in rows
    ]
    return torch.stack(each)


@pytest.mark.parametrize("kind", POLICIES)
def test_reinforce_with_reward_to_go_is_the_bandit_view_and_the_gradient_of_j(kind):
    policy = POLICIES[kind]()
    logps = completion_logps(policy, WORDS)
    exact = gradient(expected(REWARDS, logps), policy)
    world = judged(WORDS, REWARDS)
    to_go = reward_to_go(world.rewards, world.mask)  # one reward at the end, gamma 1 …
    close(
        to_go, REWARDS.unsqueeze(1) * world.mask
    )  # … so every token has the whole score
    per_token, whole = losses(policy, to_go), losses(policy, REWARDS)
    close(per_token, whole)
    close(whole, -logps * REWARDS)  # a completion as one action
    for loss in (per_token, whole):
        close(gradient(expected(loss, logps.detach()), policy), -exact)


def test_a_table_of_whole_completions_learns_the_same_distribution():
    logps = completion_logps(table(), WORDS).detach()
    arms, rows = Tabular(1, 15), bandit(15)
    with torch.no_grad():
        arms.logits[0] = logps
    exact = gradient(expected(REWARDS, completion_logps(arms, rows)), arms)
    loss = losses(arms, REWARDS, rows)
    close(gradient(expected(loss, logps), arms), -exact)
    p = logps.exp()
    close(exact, p * (REWARDS - (p * REWARDS).sum()))  # π (r - J)


def test_a_baseline_that_ignores_the_action_changes_no_gradient_and_one_that_reads_it_does():
    policy = table()
    logps = completion_logps(policy, WORDS)
    exact = gradient(expected(REWARDS, logps), policy)
    for baseline in (0.0, 0.37, -5.0):
        loss = losses(policy, REWARDS - baseline)
        close(gradient(expected(loss, logps.detach()), policy), -exact)
    cheat = losses(policy, REWARDS - REWARDS.square())
    biased = gradient(expected(cheat, logps.detach()), policy)
    assert (biased + exact).abs().max() > 0.01


@pytest.mark.parametrize(
    ("baseline", "factor"), [(leave_one_out, 1), (group_centred, 1 / 2)]
)
def test_a_group_s_own_baseline_leaves_the_direction_of_the_gradient(baseline, factor):
    policy = table()
    logps = completion_logps(policy, WORDS)
    exact = gradient(expected(REWARDS, logps), policy)
    first, second = torch.cartesian_prod(torch.arange(15), torch.arange(15)).unbind(1)
    groups = torch.stack([REWARDS[first], REWARDS[second]], 1)  # (K², 2) every pair
    advantages = baseline(groups)
    loss = -(logps[first] * advantages[:, 0] + logps[second] * advantages[:, 1]) / 2
    both = (logps[first] + logps[second]).detach()  # drawn independently
    # a mean that contains the own reward shrinks the gradient by (G - 1) / G
    close(gradient(expected(loss, both), policy), -factor * exact)


def test_the_kl_penalty_in_the_reward_has_the_gradient_of_the_objective():
    policy, ref = table(1), completion_logps(table(2), WORDS).detach()
    logps = completion_logps(policy, WORDS)
    sheet = Objective(REWARDS, ref, beta=0.3)
    tokens = [
        p(WORDS.states)
        .log_softmax(-1)
        .gather(-1, WORDS.actions.unsqueeze(-1))
        .squeeze(-1)
        for p in (policy, table(2))
    ]
    penalised = penalised_rewards(REWARDS, *tokens, WORDS.mask, beta=0.3)
    close(penalised.sum(-1), REWARDS - 0.3 * (logps.detach() - ref))
    exact = gradient(sheet.value(logps), policy)
    loss = losses(policy, reward_to_go(penalised, WORDS.mask))
    close(gradient(expected(loss, logps.detach()), policy), -exact)


def test_estimators_of_the_kl_over_whole_completions():
    policy, ref = table(1), completion_logps(table(2), WORDS).detach()
    logps = completion_logps(policy, WORDS)
    truth = Objective(REWARDS, ref, 1.0).kl(logps)
    law = logps.detach()
    for estimator in (k1, k3):
        close(expected(estimator(logps, ref), law), truth)
    slopes = [gradient(expected(k(logps, ref), law), policy) for k in (k1, k2, k3)]
    other_way = (ref.exp() * (ref - logps)).sum()  # KL(ref ‖ π)
    close(slopes[0], torch.zeros_like(slopes[0]))
    close(slopes[1], gradient(truth, policy))
    close(slopes[2], gradient(other_way, policy))


# ---------------------------------------------------------------- properties


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_any_set_is_complete(size, max_tokens, ends, seed):
    tokens = list(range(size))
    end = size - 1 if ends else None
    rows = every_completion([0], tokens=tokens, end=end, max_tokens=max_tokens)
    letters = size - 1 if ends else size
    shorter = sum(letters**t for t in range(max_tokens)) if ends else 0
    assert len(rows) == len(set(texts(rows))) == shorter + letters**max_tokens
    policy = scattered(PrefixTable(size, max_tokens), seed)
    logps = completion_logps(policy, rows).detach()
    assert_close(logps.exp().sum(), scalar(1.0), rtol=0, atol=1e-12)
    assert torch.equal(
        rows.terminated, rows.last_states == (-1 if end is None else end)
    )
