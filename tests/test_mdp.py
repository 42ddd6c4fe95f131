"""Finite processes: every exact answer held against brute force, loops and samples."""

import dataclasses
import itertools
import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from lib.losses.policy_gradient import reinforce
from lib.ops import token_logps
from lib.worlds import mdp as m
from lib.worlds.environment import play

close = partial(assert_close, rtol=0, atol=1e-12)  # value, dtype and shape


def f64(*rows):
    """A float64 tensor of these rows."""
    return torch.tensor(rows, dtype=torch.float64)


def a_random_process(seed, *, states=3, actions=2, gamma=0.9):
    """Transition, reward and start drawn at random; some transitions are impossible."""
    draw = partial(
        torch.rand, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    transition = draw(states, actions, states)
    transition[0, 0, -1] = 0
    start = draw(states)
    return m.FiniteMDP(
        transition / transition.sum(-1, keepdim=True),
        draw(states, actions) * 2 - 1,
        start / start.sum(),
        gamma,
    )


def a_random_policy(seed, mdp):
    """A policy (S, A) without zeros."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(mdp.reward.shape, dtype=torch.float64, generator=generator)
    return logits.softmax(-1)


def stay_or_go(gamma=0.5):
    """Two states. Action 0 stays and pays 1 in state 0, 2 in state 1; action 1 crosses."""
    stay, go = [[1, 0], [0, 1]], [[0, 1], [1, 0]]
    transition = torch.stack((f64(*stay), f64(*go)), 1)  # (S, A, S)
    return m.FiniteMDP(transition, f64([1, 0], [2, 0]), f64(1, 0), gamma)


def every_trajectory(mdp, horizon):
    """All states (N, T+1) and actions (N, T)."""
    states, actions = mdp.reward.shape
    s = torch.tensor(list(itertools.product(range(states), repeat=horizon + 1)))
    a = torch.tensor(list(itertools.product(range(actions), repeat=horizon)))
    return s.repeat_interleave(len(a), 0), a.repeat(len(s), 1)


# ---------------------------------------------------------------- the record


def test_a_process_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        stay_or_go().gamma = 1


GOOD = {
    "transition": torch.full((2, 3, 2), 0.5).double(),
    "reward": torch.zeros(2, 3).double(),
    "start": f64(1, 0),
    "gamma": 0.9,
}
LEAKY = torch.full((2, 3, 2), 0.5).double()
LEAKY[1, 2, 0] = 0.25
REFUSED = [
    ("gamma", 1.5, "got 1.5, wanted a number in [0, 1]"),
    ("gamma", math.nan, "got nan, wanted a finite number"),
    ("reward", None, "got NoneType, wanted a Tensor"),
    ("reward", torch.zeros(3), "got shape (3,), wanted shape (S, A)"),
    ("reward", torch.zeros(0, 2), "got shape (0, 2), wanted shape (S, A)"),
    ("reward", torch.zeros(2, 3).long(), "got torch.int64, wanted {one}"),
    (
        "reward",
        f64([0, 0, 0], [0, math.nan, 0]),
        "got nan at index (1, 1), wanted {fin}",
    ),
    ("transition", f64([1, 0], [0, 1]), "got shape (2, 2), wanted shape (2, 3, 2)"),
    ("transition", torch.full((2, 3, 2), 0.5), "got torch.float32, wanted {one}"),
    ("transition", LEAKY, "got probabilities that miss 1 by 0.25, wanted a sum of 1"),
    ("start", f64(1), "got shape (1,), wanted shape (2,)"),
    ("start", torch.tensor([1.0, 0.0]), "got torch.float32, wanted {one}"),
    ("start", f64(-0.5, 1.5), "got a probability of -0.5, wanted probabilities >= 0"),
    ("start", f64(0.5, 0.6), "got probabilities that miss 1 by 0.1, wanted a sum of 1"),
    ("start", f64(1, math.inf), "got inf at index (1,), wanted {fin}"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_an_impossible_process_is_refused_by_name(name, value, message, refuses):
    words = {"fin": "finite numbers", "one": "one floating-point type for all three"}
    with refuses(f"{name}: {message.format(**words)}"):
        m.FiniteMDP(**{**GOOD, name: value})


def test_rounding_in_the_probabilities_is_no_error():
    thirds = torch.full((3,), 1 / 3, dtype=torch.float32)
    reward = torch.zeros(3, 1)
    process = m.FiniteMDP(thirds.expand(3, 1, 3), reward, thirds, 0.5)
    assert m.policy_values(process, torch.ones(3, 1)).dtype == torch.float32
    with pytest.raises(
        ValueError, match="^start: got probabilities that miss 1 by 0.001"
    ):
        m.FiniteMDP(thirds.expand(3, 1, 3), reward, thirds + 0.001 / 3, 0.5)
    with pytest.raises(
        ValueError, match="^start: got probabilities that miss 1 by 1e-07"
    ):
        m.FiniteMDP(**{**GOOD, "start": f64(0.5, 0.5 + 1e-7)})
    assert m.FiniteMDP(**{**GOOD, "start": f64(0.5, 0.5 + 1e-9)}).gamma == 0.9


@pytest.mark.parametrize("gamma", [0, 1])
def test_both_ends_of_the_discount_are_legal(gamma):
    assert m.FiniteMDP(**{**GOOD, "gamma": gamma}).gamma == gamma


# ---------------------------------------------------------------- policy values


def test_policy_values_on_a_hand_worked_chain():
    # always stay: V0 = 1/(1 - 1/2) = 2, V1 = 2/(1 - 1/2) = 4
    close(m.policy_values(stay_or_go(), f64([1, 0], [1, 0])), f64(2, 4))
    # cross, then stay: V0 = 0 + V1/2 = 2
    close(m.policy_values(stay_or_go(), f64([0, 1], [1, 0])), f64(2, 4))
    # a fair coin: V0 = 1/2 + (V0 + V1)/4, V1 = 1 + (V0 + V1)/4, sum 3
    close(m.policy_values(stay_or_go(), f64([0.5, 0.5], [0.5, 0.5])), f64(1.25, 1.75))


@pytest.mark.parametrize("seed", range(3))
def test_policy_values_are_a_fixed_point_of_bellmans_equation(seed):
    process = a_random_process(seed)
    policy = a_random_policy(seed, process)
    values = m.policy_values(process, policy)
    for s in range(3):
        backed_up = sum(
            policy[s, a]
            * (process.reward[s, a] + 0.9 * (process.transition[s, a] * values).sum())
            for a in range(2)
        )
        close(values[s], backed_up)


def test_policy_values_carry_the_gradient_of_the_policy():
    process = a_random_process(1)
    policy = a_random_policy(2, process).requires_grad_()
    # the gradient along a direction that keeps rows at 1, against a central difference
    direction = f64([1, -1], [0, 0], [-2, 2])
    m.policy_values(process, policy).sum().backward()
    slope = (policy.grad * direction).sum()
    with torch.no_grad():
        ahead, behind = (
            m.policy_values(process, policy + h * direction).sum()
            for h in (1e-6, -1e-6)
        )
    assert slope.item() == pytest.approx(((ahead - behind) / 2e-6).item(), rel=1e-6)


def test_a_policy_in_float32_is_taken_for_what_it_says():
    even = torch.full((2, 2), 0.5)
    close(m.policy_values(stay_or_go(), even), f64(1.25, 1.75))
    assert m.expected_return(stay_or_go(), even, 1).item() == 0.5


def test_under_mixes_rewards_and_transitions_by_the_policy():
    reward, move = m.under(stay_or_go(), f64([0.25, 0.75], [0.5, 0.5]))
    close(reward, f64(0.25, 1))
    close(move, f64([0.25, 0.75], [0.5, 0.5]))


def test_action_values_back_up_with_the_discount_of_the_process():
    values = f64(10, 20)
    close(m.action_values(stay_or_go(), values), f64([6, 10], [12, 5]))
    close(m.action_values(stay_or_go(0), values), f64([1, 0], [2, 0]))
    close(m.action_values(stay_or_go(1), values), f64([11, 20], [22, 10]))


def test_the_greedy_policy_takes_the_best_action_and_of_equals_the_first():
    q = f64([1, 3, 2], [0, 0, -1], [-2, -1, -1])
    assert m.greedy(q).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert m.greedy(q).dtype == torch.float64
    assert m.greedy(q.float()).dtype == torch.float32


def test_policy_iteration_ends_at_a_policy_that_is_greedy_for_its_own_values():
    process = a_random_process(11, states=5, actions=3)
    values, backup = m.policy_iteration(process)
    close(m.policy_values(process, m.greedy(backup)), values, atol=1e-10)
    assert torch.equal(values, backup.max(-1).values)


def test_value_iteration_is_the_same_optimum_under_its_other_name():
    process = a_random_process(12)
    for one, other in zip(
        m.value_iteration(process), m.policy_iteration(process), strict=True
    ):
        assert torch.equal(one, other)


def test_bellmans_sweeps_come_to_the_same_optimum():
    process = a_random_process(13)
    values = torch.zeros_like(process.start)
    for _ in range(400):  # 0.9 ** 400 is below 1e-18
        values = m.action_values(process, values).max(-1).values
    close(values, m.policy_iteration(process)[0], atol=1e-10)


# ---------------------------------------------------------------- the optimum


def test_value_iteration_on_a_hand_worked_chain():
    # gamma = 3/4: stay in 1 is worth 8; from 0, staying 1/(1/4) = 4, crossing 6
    values, backup = m.value_iteration(stay_or_go(0.75))
    close(values, f64(6, 8), atol=1e-10)
    close(backup, f64([1 + 0.75 * 6, 0.75 * 8], [2 + 0.75 * 8, 0.75 * 6]), atol=1e-10)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("gamma", [0, 0.5, 0.99])
def test_value_iteration_equals_the_best_of_all_deterministic_policies(seed, gamma):
    process = a_random_process(seed, states=3, actions=3, gamma=gamma)
    values, backup = m.value_iteration(process)
    every = [
        m.policy_values(process, torch.eye(3).double()[list(choice)])
        for choice in itertools.product(range(3), repeat=3)
    ]
    close(values, torch.stack(every).max(0).values, atol=1e-10)
    want = process.reward + gamma * torch.einsum(
        "sat,t->sa", process.transition, values
    )
    close(backup, want, atol=1e-10)


def test_the_optimum_beats_every_policy_in_every_state():
    process = a_random_process(7, states=4, actions=3)
    values, _ = m.value_iteration(process)
    for seed in range(10):
        policy = a_random_policy(seed, process)
        assert (m.policy_values(process, policy) <= values + 1e-10).all()


@pytest.mark.parametrize("seed", range(40))
def test_value_iteration_ends_where_rounding_makes_equal_actions_differ(seed):
    # four actions that do the same up to float32's rounding
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(20, 1, 20, generator=generator) ** 2
    transition = base * (1 + torch.rand(20, 4, 1, generator=generator))
    transition = transition / transition.sum(-1, keepdim=True)
    reward = torch.rand(20, 1, generator=generator).expand(20, 4).clone()
    process = m.FiniteMDP(transition, reward, torch.full((20,), 0.05), 0.9)
    values, _ = m.value_iteration(process)
    uniform = m.policy_values(process, torch.full((20, 4), 0.25))
    assert_close(values, uniform, rtol=1e-5, atol=0)


def test_without_discount_there_is_no_fixed_point_and_the_finite_horizon_is_named(
    refuses,
):
    process = stay_or_go(1)
    wanted = "wanted gamma < 1, or a finite horizon: expected_return, optimal_return"
    with refuses(f"gamma: got 1, {wanted}"):
        m.value_iteration(process)
    with refuses(f"gamma: got 1, {wanted}"):
        m.policy_values(process, f64([1, 0], [1, 0]))
    assert m.expected_return(process, f64([1, 0], [1, 0]), 3).item() == 3


def test_optimal_return_on_a_hand_worked_chain():
    # gamma 1: with one step to go stay (1); with two, stay-stay 2 or cross-stay 2;
    # with three, cross, stay, stay = 4
    best, choices = m.optimal_return(stay_or_go(1), 3)
    assert best.item() == 4
    assert choices.shape == (3, 2)
    assert choices[0].tolist() == [1, 0]
    assert choices[-1].tolist() == [0, 0]
    assert m.optimal_return(stay_or_go(0.5), 1)[0].item() == 1


@pytest.mark.parametrize("seed", range(3))
def test_optimal_return_equals_the_best_of_all_plans(seed):
    process = a_random_process(seed, states=2)
    best, choices = m.optimal_return(process, 3)

    def value_of(plan):  # plan: (3, 2) one action for each time and state
        values = torch.zeros(2).double()
        for row in reversed(plan):
            values = torch.stack(
                [
                    process.reward[s, a] + 0.9 * process.transition[s, a] @ values
                    for s, a in enumerate(row)
                ]
            )
        return process.start @ values

    plans = itertools.product(itertools.product(range(2), repeat=2), repeat=3)
    close(best, max(value_of(plan) for plan in plans))
    close(value_of(choices.tolist()), best)


# ---------------------------------------------------------------- trajectories


def test_trajectory_logp_on_a_hand_worked_trajectory():
    process = m.FiniteMDP(
        torch.stack((f64([0.5, 0.5], [0.2, 0.8]), f64([0.1, 0.9], [1, 0])), 1),
        torch.zeros(2, 2).double(),
        f64(0.25, 0.75),
        1,
    )
    policy = f64([0.4, 0.6], [0.7, 0.3])
    # 0.75 · [0.7 · 0.2] · [0.6 · 0.9]
    got = m.trajectory_logp(
        process, policy, torch.tensor([1, 0, 1]), torch.tensor([0, 1])
    )
    assert got.shape == () and got.dtype == torch.float64
    assert got.item() == pytest.approx(
        math.log(0.75 * 0.7 * 0.2 * 0.6 * 0.9), abs=1e-12
    )
    impossible = m.trajectory_logp(
        process, policy, torch.tensor([1, 1]), torch.tensor([1])
    )  # p(1 | 1, 1) = 0
    assert impossible.item() == -math.inf


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_the_probabilities_of_all_trajectories_sum_to_one(horizon):
    process = a_random_process(3)
    logp = m.trajectory_logp(
        process, a_random_policy(4, process), *every_trajectory(process, horizon)
    )
    assert logp.shape == (3 ** (horizon + 1) * 2**horizon,)
    assert logp.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.9, 1])
def test_expected_return_is_the_mean_over_all_trajectories(gamma):
    process = a_random_process(5, gamma=gamma)
    policy = a_random_policy(6, process)
    states, actions = every_trajectory(process, 3)
    p = m.trajectory_logp(process, policy, states, actions).exp()
    rewards = process.reward[states[:, :-1], actions]  # (N, 3)
    total = (rewards * f64(1, gamma, gamma**2)).sum(-1)
    close(m.expected_return(process, policy, 3), (p * total).sum())


def test_expected_return_on_a_hand_worked_chain():
    stay, cross = f64([1, 0], [1, 0]), f64([0, 1], [1, 0])
    assert m.expected_return(stay_or_go(0.5), stay, 1).item() == 1
    assert m.expected_return(stay_or_go(0.5), stay, 3).item() == 1.75  # 1 + 1/2 + 1/4
    assert m.expected_return(stay_or_go(0.5), cross, 3).item() == 1.5  # 0 + 2/2 + 2/4


def test_a_long_horizon_approaches_the_endless_one():
    process = a_random_process(8)
    policy = a_random_policy(9, process)
    endless = process.start @ m.policy_values(process, policy)
    close(m.expected_return(process, policy, 400), endless)


def test_the_expected_gradient_of_reinforce_is_minus_the_gradient_of_the_return():
    process = a_random_process(10)
    horizon, gamma = 3, process.gamma
    states, actions = every_trajectory(process, horizon)
    rewards = process.reward[states[:, :-1], actions] * f64(1, gamma, gamma**2)
    mask = torch.ones_like(actions).bool()

    def gradient_of_expected_loss(advantages):
        logits = torch.zeros(3, 2).double().requires_grad_()
        with torch.no_grad():
            policy = (logits + f64([0, 1], [0.5, 0], [-1, 0])).softmax(-1)
            p = m.trajectory_logp(process, policy, states, actions).exp()
        moved = logits + f64([0, 1], [0.5, 0], [-1, 0])
        logps = token_logps(moved[states[:, :-1]], actions)
        weighted = (advantages * (p * len(p)).unsqueeze(-1)).expand(-1, horizon)
        loss, _ = reinforce(logps, weighted, mask)  # a mean over rows, each p·N
        (slope,) = torch.autograd.grad(loss, logits)
        return slope

    logits = f64([0, 1], [0.5, 0], [-1, 0]).requires_grad_()
    m.expected_return(process, logits.softmax(-1), horizon).backward()
    total = rewards.sum(-1, keepdim=True)
    close(gradient_of_expected_loss(total), -logits.grad)
    to_go = rewards.flip(-1).cumsum(-1).flip(-1)  # (N, T), already discounted
    close(gradient_of_expected_loss(to_go), -logits.grad)
    baseline = f64([3], [-2], [0.5])[states[:, :-1]].squeeze(-1)  # any function of s
    close(gradient_of_expected_loss(to_go - baseline), -logits.grad)
    biased = to_go - f64([3, -3], [0, 1], [0, 0])[states[:, :-1], actions]  # of a: not
    assert (gradient_of_expected_loss(biased) + logits.grad).abs().max() > 0.1


def test_trajectory_logp_says_what_is_wrong(refuses):
    process = stay_or_go()
    even = torch.full((2, 2), 0.5).double()
    s, a = torch.tensor([0, 0, 1]), torch.tensor([0, 1])
    with refuses("states: got 2 at index (2,), wanted integers in 0 … 1"):
        m.trajectory_logp(process, even, torch.tensor([0, 0, 2]), a)
    with refuses("actions: got 2 at index (0,), wanted integers in 0 … 1"):
        m.trajectory_logp(process, even, s, a + 2)
    with refuses("states: got shape (2,), wanted shape (3,)"):
        m.trajectory_logp(process, even, s[:2], a)
    with refuses("actions: got shape (0,), wanted at least one step"):
        m.trajectory_logp(process, even, s[:1], a[:0])
    with refuses("actions: got shape (), wanted at least one step"):
        m.trajectory_logp(process, even, s[:1], a[0])
    with refuses("policy: got shape (2,), wanted shape (2, 2)"):
        m.trajectory_logp(process, even[0], s, a)


def test_numbers_of_states_and_of_actions_are_not_confused(refuses):
    process = a_random_process(1, states=3, actions=2)
    even = torch.full((3, 2), 0.5).double()
    assert m.trajectory_logp(
        process, even, torch.tensor([2, 2]), torch.tensor([1])
    ).isfinite()
    with refuses("actions: got 2 at index (0,), wanted integers in 0 … 1"):
        m.trajectory_logp(process, even, torch.tensor([2, 2]), torch.tensor([2]))


def test_small_integer_types_index_like_large_ones():
    process = a_random_process(2)
    even = torch.full((3, 2), 0.5).double()
    s, a = torch.tensor([[0, 1, 2]]), torch.tensor([[1, 0]])
    want = m.trajectory_logp(process, even, s, a)
    for kind in (torch.int32, torch.uint8):
        close(m.trajectory_logp(process, even, s.to(kind), a.to(kind)), want)


@pytest.mark.parametrize(
    "function",
    [
        m.policy_values,
        partial(m.expected_return, horizon=2),
        partial(
            m.trajectory_logp, states=torch.tensor([0, 0]), actions=torch.tensor([0])
        ),
    ],
)
def test_a_policy_is_a_table_of_probabilities(function, refuses):
    process = stay_or_go()
    with refuses("policy: got list, wanted a Tensor"):
        function(process, policy=[[1, 0], [1, 0]])
    with refuses("policy: got shape (2, 3), wanted shape (2, 2)"):
        function(process, policy=torch.ones(2, 3))
    with refuses("policy: got a probability of -1.0, wanted probabilities >= 0"):
        function(process, policy=f64([2, -1], [1, 0]))
    with refuses("policy: got probabilities that miss 1 by 0.5, wanted a sum of 1"):
        function(process, policy=f64([1, 0], [0.5, 0]))
    with refuses("policy: got nan at index (0, 1), wanted finite numbers"):
        function(process, policy=f64([1, math.nan], [1, 0]))


@pytest.mark.parametrize("horizon", [0, -1, 1.0, True])
def test_a_horizon_is_at_least_one_step(horizon, refuses):
    message = f"horizon: got {horizon!r}, wanted an int of at least 1"
    with refuses(message):
        m.expected_return(stay_or_go(), f64([1, 0], [1, 0]), horizon)
    with refuses(message):
        m.optimal_return(stay_or_go(), horizon)
    with refuses(message):
        m.world(stay_or_go(), horizon=horizon)


# ---------------------------------------------------------------- the process, played


class Table(torch.nn.Module):
    """A policy that reads its logits from a table of probabilities."""

    def __init__(self, probabilities):
        super().__init__()
        self.logits = probabilities.log()

    def forward(self, states):
        """(B, T) -> (B, T, A)."""
        return self.logits[states]


def test_sampled_frequencies_agree_with_the_trajectory_distribution(seeded):
    process = a_random_process(11, states=2)
    policy = a_random_policy(12, process)
    n = 20_000
    seen = play(Table(policy), m.world(process, horizon=2), batch=n, generator=seeded())
    states, actions = every_trajectory(process, 2)
    p = m.trajectory_logp(process, policy, states, actions).exp()
    path = torch.cat((seen.states, seen.last_states[:, None]), 1)
    code = (path * torch.tensor([16, 8, 4])).sum(-1) + seen.actions @ torch.tensor(
        [2, 1]
    )
    wanted = (states * torch.tensor([16, 8, 4])).sum(-1) + actions @ torch.tensor(
        [2, 1]
    )
    counts = torch.bincount(code, minlength=32)[wanted] / n
    assert ((counts - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt()).all()
    assert (counts[p == 0] == 0).all() and (p == 0).any()


def test_a_played_process_pays_its_rewards_and_never_terminates(seeded):
    process = a_random_process(13)
    seen = play(
        Table(a_random_policy(1, process)),
        m.world(process, horizon=5),
        batch=50,
        generator=seeded(),
    )
    assert seen.states.shape == (50, 5)
    assert torch.equal(seen.rewards, process.reward[seen.states, seen.actions])
    assert not seen.terminated.any() and seen.mask.all()
    assert m.world(process, horizon=7).horizon == 7
