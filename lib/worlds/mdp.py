"""Finite Markov decision processes: every question has an exact answer.

Small enough to write down, so the trajectory distribution, J(π), the best policy and
its gradient come from linear algebra, not from samples. The book's answer sheet.

Shapes: S states, A actions; a policy is an (S, A) table of probabilities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib import require
from lib.ops import sample
from lib.worlds.environment import World


@dataclass(frozen=True)
class FiniteMDP:
    """Transition p(s' | s, a), expected reward r(s, a), start ρ0 and discount."""

    transition: Tensor  # (S, A, S)  sums to 1 over the last axis
    reward: Tensor  # (S, A)     expected reward of taking a in s
    start: Tensor  # (S,)       sums to 1
    gamma: float  # in [0, 1]

    def __post_init__(self) -> None:
        require.unit_interval("gamma", self.gamma)
        require.tensor("reward", self.reward)
        if self.reward.ndim != 2 or self.reward.numel() == 0:
            require.refuse(
                "reward", f"shape {tuple(self.reward.shape)}", "shape (S, A)"
            )
        states, actions = self.reward.shape
        require.tensor("transition", self.transition, (states, actions, states))
        require.tensor("start", self.start, (states,))
        for name in ("reward", "transition", "start"):
            found, wanted = getattr(self, name).dtype, self.reward.dtype
            if not wanted.is_floating_point or found != wanted:
                require.refuse(name, found, "one floating-point type for all three")
        require.finite("reward", self.reward)
        _distribution("transition", self.transition)
        _distribution("start", self.start)


def action_values(mdp: FiniteMDP, values: Tensor) -> Tensor:
    """Bellman's backup r(s, a) + gamma · Σ p(s' | s, a) V(s'): (S,) -> (S, A)."""
    return mdp.reward + mdp.gamma * mdp.transition @ values


def policy_iteration(mdp: FiniteMDP) -> tuple[Tensor, Tensor]:
    """The optimum to 1e-10 (float64): (values V* (S,), action values Q* (S, A)).

    Howard (1960): solve for the values of a policy, take the best action in each state,
    and repeat until no state gains; a handful of rounds for any gamma < 1.
    """
    values = torch.full_like(mdp.start, -torch.inf)
    policy = torch.zeros_like(mdp.reward)
    policy[:, 0] = 1
    while True:
        better = policy_values(mdp, policy)
        if (better <= values).all():
            backup = action_values(mdp, values)
            return backup.max(-1).values, backup
        values = torch.maximum(better, values)  # rounding must not make it go round
        policy = greedy(action_values(mdp, values))


def value_iteration(mdp: FiniteMDP) -> tuple[Tensor, Tensor]:
    """V* (S,) and Q* (S, A), found by `policy_iteration`, of which this is a second name.

    Value iteration proper (Bellman 1957) repeats V <- max_a Q: its error shrinks by
    gamma a sweep, which near gamma = 1 takes too long to reach 1e-10. Chapter 1 shows it.
    """
    return policy_iteration(mdp)


def greedy(action_values: Tensor) -> Tensor:
    """The policy (S, A) that takes the best action, of equals the first."""
    best = action_values.argmax(-1)  # (S,)
    one_hot = torch.nn.functional.one_hot(best, action_values.shape[-1])
    return one_hot.to(action_values.dtype)


def policy_values(mdp: FiniteMDP, policy: Tensor) -> Tensor:
    """V of acting by `policy` (S, A) for ever: solves (I - gamma · P_π) V = r_π."""
    _refuse_undiscounted(mdp)
    _check_policy(mdp, policy)
    reward, move = under(mdp, policy)
    eye = torch.eye(len(reward), dtype=reward.dtype, device=reward.device)
    return torch.linalg.solve(eye - mdp.gamma * move, reward)


def expected_return(mdp: FiniteMDP, policy: Tensor, horizon: int) -> Tensor:
    """J(π) = E[Σ_{t < horizon} gamma^t r_t], exact and differentiable in `policy`."""
    require.count("horizon", horizon)
    _check_policy(mdp, policy)
    reward, move = under(mdp, policy)
    values = torch.zeros_like(reward)
    for _ in range(horizon):
        values = reward + mdp.gamma * move @ values
    return mdp.start @ values


def optimal_return(mdp: FiniteMDP, horizon: int) -> tuple[Tensor, Tensor]:
    """J* over a finite horizon and the best action at each time: ((), (horizon, S)).

    Backward induction (Bellman 1957): with one step to go the best is the best reward;
    with n, the best reward plus the best of n - 1.
    """
    require.count("horizon", horizon)
    values, choices = torch.zeros_like(mdp.start), []
    for _ in range(horizon):
        values, best = action_values(mdp, values).max(-1)
        choices.append(best)
    return mdp.start @ values, torch.stack(choices[::-1])


def trajectory_logp(
    mdp: FiniteMDP, policy: Tensor, states: Tensor, actions: Tensor
) -> Tensor:
    """log p_π(τ) = log ρ0(s_0) + Σ_t log π(a_t | s_t) + log p(s_{t+1} | s_t, a_t), in
    nats.

    states (..., T+1), actions (..., T) -> (...). An impossible trajectory has -inf.
    """
    _check_policy(mdp, policy)
    require.integers("states", states, policy.shape[0])
    require.integers("actions", actions, policy.shape[1])
    if actions.ndim == 0 or actions.shape[-1] == 0:
        require.refuse("actions", f"shape {tuple(actions.shape)}", "at least one step")
    require.tensor("states", states, (*actions.shape[:-1], actions.shape[-1] + 1))
    here, after = states[..., :-1].long(), states[..., 1:].long()
    actions = actions.long()
    steps = policy[here, actions].log() + mdp.transition[here, actions, after].log()
    return mdp.start[states[..., 0].long()].log() + steps.sum(-1)


def under(mdp: FiniteMDP, policy: Tensor) -> tuple[Tensor, Tensor]:
    """The Markov chain that a policy makes of the process: r_π (S,), P_π (S, S)."""
    policy = policy.to(mdp.reward.dtype)
    reward = (policy * mdp.reward).sum(-1)
    return reward, torch.einsum("sa,sat->st", policy, mdp.transition)


def world(mdp: FiniteMDP, *, horizon: int) -> World:
    """The same process to be played: states are indices (B,), nothing terminates."""
    start, transition = mdp.start.log(), mdp.transition.log()

    def reset(batch: int, generator: torch.Generator) -> Tensor:
        return sample(start.expand(batch, -1), generator=generator)

    def step(
        states: Tensor, actions: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        after = sample(transition[states, actions], generator=generator)
        return after, mdp.reward[states, actions], torch.zeros_like(states).bool()

    return World(reset, step, horizon)


def _distribution(name: str, p: Tensor) -> None:
    require.finite(name, p)
    if (p < 0).any():
        require.refuse(name, f"a probability of {p.min().item()}", "probabilities >= 0")
    total = p.sum(-1)
    worst = (total - 1).abs().max().item()
    if not worst <= torch.finfo(p.dtype).eps ** 0.5:
        require.refuse(name, f"probabilities that miss 1 by {worst:.3g}", "a sum of 1")


def _check_policy(mdp: FiniteMDP, policy: Tensor) -> None:
    require.tensor("policy", policy, mdp.reward.shape)
    _distribution("policy", policy.detach())


def _refuse_undiscounted(mdp: FiniteMDP) -> None:
    if mdp.gamma == 1:
        wanted = "gamma < 1, or a finite horizon: expected_return, optimal_return"
        require.refuse("gamma", mdp.gamma, wanted)
