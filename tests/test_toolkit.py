"""The toolkit's claims by enumeration: where each algorithm leads, in expectation.

A world of the four strings of two letters, so that nothing is estimated: every group of
answers that could be drawn is, with its probability.
"""

import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from lib.advantages import gae
from lib.algorithms import ALGORITHMS
from lib.losses.policy_gradient import reinforce
from lib.losses.preference import dpo
from lib.ops import token_logps
from lib.rollout import Batch
from lib.worlds import exact

close = partial(assert_close, rtol=0, atol=1e-12)
LENGTH, ROOM, G = 2, 5, 3
ROWS = exact.every_completion([0], tokens=range(2), end=None, max_tokens=LENGTH)
RIGHT = torch.tensor([1.0, 0, 0, 1]).double()  # the doubles are right
GROUPS = torch.tensor(list(product(range(4), repeat=G)))  # (64, 3)


def table(seed=0):
    """Any policy over these strings."""
    made = exact.PrefixTable(2, LENGTH)
    draws = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(made.logits, generator=draws)
    return made


def logps_of(policy):
    """(4, 2) each letter's log-probability."""
    return token_logps(policy(ROWS.states), ROWS.actions)


def lesson(rows, credit, old):
    rollout = replace(ROWS.rows(rows), logps=old[rows])
    return Batch(
        rollout=rollout,
        group=G,
        advantages=credit.reshape(-1, 1).expand(rollout.mask.shape),
        length=ROOM,
        beta=0.0,
        ref_logps=None,
    )


def expected_step(name, rewards, policy):
    """Minus the expected gradient of an algorithm's loss over all groups of three."""
    algorithm, logps = ALGORITHMS[name], logps_of(policy)
    old = logps.detach()
    law = old.sum(1).exp()  # (4,)
    total = 0
    for rows in GROUPS:
        credit = algorithm.credit(rewards[rows].unsqueeze(0))
        loss, _ = algorithm.policy_loss(logps[rows], lesson(rows, credit, old))
        total = total + law[rows].prod() * loss
    return -exact.gradient(total, policy)


def true_gradient(rewards, policy):
    """∇J."""
    logps = exact.completion_logps(policy, ROWS)
    return exact.gradient(exact.expected(rewards, logps), policy)


def normalised_scale(p):
    """What division by the standard deviation does to ∇p, of 0 or 1 right in G.

    With k right each of them gets (1 - k/G) / s and pushes by ∇p / p in the mean, each
    wrong one -(k/G) / s by -∇p / (1 - p).
    """
    total = 0.0
    for k in range(1, G):
        spread = math.sqrt(k * (1 - k / G) / (G - 1)) + 1e-4
        chance = math.comb(G, k) * p**k * (1 - p) ** (G - k)
        push = k * (1 - k / G) / p + (G - k) * (k / G) / (1 - p)
        total += chance * push / (G * spread)
    return total


def scale(name, p):
    """Expected step over ∇J where answers are right (1) or wrong (0), p of them right."""
    if name in ("REINFORCE", "PPO", "RLOO"):  # PPO: without its critic
        return 1 / LENGTH if name == "PPO" else 1.0
    if name == "Dr. GRPO":  # a baseline that holds one's own reward; a constant length
        return (G - 1) / G / ROOM
    if name == "MaxRL":  # 1 + (1 - p) + … up to the power G - 2: towards ∇ log p
        return (1 - (1 - p) ** (G - 1)) / p
    return normalised_scale(p) / LENGTH


@pytest.mark.parametrize("name", ALGORITHMS)
def test_on_policy_every_algorithm_climbs_j_in_expectation_up_to_its_scaling(name):
    for seed in (0, 1, 2):
        policy = table(seed)
        want = true_gradient(RIGHT, policy)
        p = exact.expected(RIGHT, exact.completion_logps(policy, ROWS)).item()
        assert want.norm() > 0.01 and 0.1 < p < 0.9
        close(expected_step(name, RIGHT, policy), scale(name, p) * want)


def test_leaving_one_out_is_exact_for_rewards_of_any_kind():
    rewards = torch.randn(4, generator=torch.Generator().manual_seed(3)).double()
    policy = table()
    want = true_gradient(rewards, policy)
    for name, factor in (("REINFORCE", 1), ("RLOO", 1), ("Dr. GRPO", 2 / 3 / ROOM)):
        close(expected_step(name, rewards, policy), factor * want)
    got = expected_step("GRPO", rewards, policy)  # and with a spread it is another way
    assert torch.cosine_similarity(got, want, 0) < 0.9999


def test_maxrl_takes_hard_questions_for_more_important_and_grpo_both_ends():
    assert [round(scale("MaxRL", p), 3) for p in (0.01, 0.5, 0.99)] == [1.99, 1.5, 1.01]
    ends, middle = normalised_scale(0.001), normalised_scale(0.5)
    assert normalised_scale(0.999) == pytest.approx(ends) and ends > middle


# ---------------------------------------------------------------- critics


def test_any_critic_of_states_leaves_the_expected_gradient_alone():
    policy = table()
    values = torch.randn(4, 2, generator=torch.Generator().manual_seed(4)).double()
    values[:, 0] = values[0, 0]  # the first state is the same for all
    values[:, 1] = values[::2, 1].repeat_interleave(2)  # the second knows one letter
    assert ROWS.states[:, 1].tolist() == [0, 0, 1, 1]
    paid = torch.stack((torch.zeros(4).double(), RIGHT), 1)
    ends = torch.tensor([False, True]).expand(4, 2)
    after = torch.stack((values[:, 1], torch.zeros(4).double()), 1)
    logps = logps_of(policy)
    law = logps.detach().sum(1).exp()

    def step(lam):
        credit, _ = gae(paid, values, after, ends, ~ends & False, gamma=1.0, lam=lam)
        each = [
            chance
            * reinforce(logps[i : i + 1], credit[i : i + 1], ROWS.mask[i : i + 1])[0]
            for i, chance in enumerate(law)
        ]
        return -exact.gradient(torch.stack(each).sum(), policy)

    want = true_gradient(RIGHT, policy)
    close(step(1.0), want)
    assert (step(0.9) - want).abs().max() > 1e-3  # less noise for some bias


# ---------------------------------------------------------------- DPO


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_what_minimises_dpo_on_all_pairs_is_the_optimum_of_the_regularised_objective(
    beta,
):
    """Bradley–Terry labels of every pair of strings; the policy writes letter by letter."""
    ref = logps_of(table(5)).detach().sum(1)
    rewards = torch.randn(4, generator=torch.Generator().manual_seed(6)).double()
    i, j = (x.flatten() for x in torch.meshgrid(*[torch.arange(4)] * 2, indexing="ij"))
    chance = torch.sigmoid(rewards[i] - rewards[j])
    policy = table()
    optimiser = torch.optim.LBFGS(
        policy.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimiser.zero_grad()
        logps = exact.completion_logps(policy, ROWS)
        total = sum(
            p
            * dpo(*(x[None] for x in (logps[a], logps[b], ref[a], ref[b])), beta=beta)[
                0
            ]
            for a, b, p in zip(i, j, chance, strict=True)
        )
        total.backward()
        return total

    optimiser.step(loss)
    found = exact.completion_logps(policy, ROWS).detach()
    best = exact.Objective(rewards, ref, beta).best_logps
    assert (best - ref).abs().max() > 0.2
    assert_close(found, best, rtol=0, atol=1e-6)
