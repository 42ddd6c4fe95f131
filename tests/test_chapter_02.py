"""What chapter 2 says of a few seeds and of one small room, held over others."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labs import agents, cartpole_runs
from lib.advantages import gae
from lib.ops import whiten
from lib.worlds import cartpole, mdp
from lib.worlds.environment import play
from lib.worlds.thermostat import thermostat

# ---------------------------------------------- 2.4 to 2.8: slopes in a listed room

STEPS = 5


@pytest.fixture(scope="module")
def room() -> mdp.FiniteMDP:
    """The plain room, in which each step has two actions and two answers."""
    return thermostat(gamma=0.9)


class Listed:
    """All trajectories of a policy (S, A), given by its logits, over STEPS steps."""

    def __init__(self, room: mdp.FiniteMDP, logits: Tensor) -> None:
        bits = torch.cartesian_prod(*[torch.arange(2)] * (2 * STEPS))  # (4^T, 2T)
        self.actions, draughts = bits[:, :STEPS], bits[:, STEPS:]
        states = [torch.full((len(bits),), 5)]  # 65 °F
        for action, draught in zip(self.actions.T, draughts.T, strict=True):
            states.append((states[-1] + 2 * action - 1 - draught).clamp(0, 20))
        self.states = torch.stack(states, 1)  # (N, T + 1)
        now = self.states[:, :-1]
        pi = logits.softmax(1)
        answers = 0.9 - 0.8 * draughts.double()  # a draught: one time in ten
        self.p = (pi[now, self.actions] * answers).prod(1)
        self.rewards = room.reward[now, self.actions]
        self.discount = room.gamma ** torch.arange(STEPS).double()
        taken = torch.nn.functional.one_hot(self.actions, 2) - pi[now]  # (N, T, A)
        place = torch.nn.functional.one_hot(now, 21).double()  # (N, T, S)
        self.scores = place.unsqueeze(-1) * taken.unsqueeze(-2)  # (N, T, S, A)
        self.values = torch.zeros(STEPS + 1, 21).double()
        for t in reversed(range(STEPS)):
            q = mdp.action_values(room, self.values[t + 1])
            self.values[t] = (pi * q).sum(1)

    def ahead(self) -> Tensor:
        """γ^t G_t: (N, T)."""
        return (self.discount * self.rewards).flip(1).cumsum(1).flip(1)

    def mean_and_variance(self, credit: Tensor) -> tuple[Tensor, Tensor]:
        """Of Σ_t credit · score: (S, A), and summed over all entries."""
        each = torch.einsum("nt,ntsa->nsa", credit, self.scores)
        mean = torch.einsum("n,nsa->sa", self.p, each)
        return mean, (self.p * (each - mean).square().sum((1, 2))).sum()


@pytest.fixture(params=range(4))
def listed(request, room, seeded) -> tuple[Listed, Tensor]:
    """A random policy's trajectories, and the exact slope of its expected return."""
    logits = torch.randn(21, 2, dtype=torch.float64, generator=seeded(request.param))
    logits.requires_grad_()
    J = mdp.expected_return(room, logits.softmax(1), STEPS)
    (slope,) = torch.autograd.grad(J, logits)
    return Listed(room, logits.detach()), slope


def test_every_credit_that_the_chapter_calls_unbiased_has_the_exact_slope(listed):
    world, exact = listed
    assert world.p.sum().item() == pytest.approx(1)
    whole = world.ahead()[:, :1].expand(-1, STEPS)
    times, now = torch.arange(STEPS), world.states[:, :-1]
    less_v = world.ahead() - world.discount * world.values[times, now]
    less_anything = world.ahead() - torch.arange(21.0)[now]
    for credit in (whole, world.ahead(), less_v, less_anything):
        assert_close(world.mean_and_variance(credit)[0], exact, rtol=0, atol=1e-9)


def test_without_the_discount_of_the_start_the_slope_is_another(listed):
    world, exact = listed
    mean, _ = world.mean_and_variance(world.ahead() / world.discount)
    assert (mean - exact).abs().max() > 1e-3
    assert torch.cosine_similarity(mean.flatten(), exact.flatten(), dim=0) > 0.9


def test_the_exact_value_as_a_baseline_takes_noise_away(listed):
    world, _ = listed
    times, now = torch.arange(STEPS), world.states[:, :-1]
    less_v = world.ahead() - world.discount * world.values[times, now]
    noise = world.mean_and_variance(world.ahead())[1]
    assert world.mean_and_variance(less_v)[1] < noise


def test_gae_is_unbiased_with_the_exact_value_and_biased_with_none(listed):
    world, exact = listed
    times, now, after = torch.arange(STEPS), world.states[:, :-1], world.states[:, 1:]
    never = torch.zeros(len(now), STEPS, dtype=torch.bool)
    end = never.clone()
    end[:, -1] = True
    for values, lam, unbiased in (
        (world.values, 0.0, True),
        (world.values, 0.7, True),
        (0 * world.values, 1.0, True),
        (0 * world.values, 0.0, False),
    ):
        at = world.rewards, values[times, now], values[times + 1, after], end, never
        credit, _ = gae(*at, gamma=0.9, lam=lam)
        mean, _ = world.mean_and_variance(world.discount * credit)
        assert ((mean - exact).abs().max() < 1e-9).item() == unbiased


# ------------------------------------------------------------------- 2.9: PPO


@pytest.mark.parametrize("seed", range(3))
def test_ppos_first_slope_is_the_actor_critics_with_whitened_advantages(seed, seeded):
    model = agents.actor_critic(seeded(seed), gamma=0.99)
    rollout = play(model, cartpole.world(), batch=8, generator=seeded(seed))
    seen = agents.generalised(model, rollout, 0.99)
    white = replace(seen, advantages=whiten(seen.advantages, rollout.mask))
    ppo, raw, whitened = (
        agents.gradients(model, loss, one)[0]
        for loss, one in (
            (agents.ppo_loss, seen),
            (agents.policy_loss, seen),
            (agents.policy_loss, white),
        )
    )
    per_action = len(rollout) / rollout.mask.sum().item()  # a mean over actions
    assert_close(ppo, whitened * per_action, rtol=1e-9, atol=1e-12)
    assert torch.cosine_similarity(ppo, raw, dim=0) < 1 - 1e-6  # and not the same


def test_a_random_direction_has_a_cosine_of_one_over_the_root_of_226(seeded):
    policy = agents.actor_critic(seeded(0), gamma=0.99).policy
    weights = sum(w.numel() for w in policy.parameters())
    one, other = torch.randn(2, 10_000, weights, generator=seeded(1)).double()
    spread = torch.cosine_similarity(one, other, dim=-1).std().item()
    assert weights == 226
    assert spread == pytest.approx(226**-0.5, rel=0.05)


# ------------------------------------------------------------ 2.11: the long run


def test_a_mark_is_tested_with_the_agent_that_was_there_before_it(seeded):
    """A rollout that crosses a mark is not counted; two marks in one jump are alike."""
    first, second, third = (
        agents.actor_critic(seeded(seed), gamma=0.99) for seed in range(3)
    )
    tests = cartpole_runs.Tests(first)
    assert not tests(second, 3_000, None)
    assert tests.steps == []
    assert not tests(third, 9_000, None)  # crosses 4,000 and 8,000
    world = cartpole.world()
    want = [
        agents.evaluate(second, world, batch=32, seed=1_000_000 + mark) * 32
        for mark in range(2)
    ]
    assert tests.steps == [round(steps) for steps in want]
    assert tests(third, 20_001, None)
    assert len(tests.steps) == len(cartpole_runs.MARKS)


def test_a_mark_that_is_met_to_the_action_still_counts_the_last_rollout(seeded):
    models = [agents.actor_critic(seeded(seed), gamma=0.99) for seed in range(2)]
    tests = cartpole_runs.Tests(models[0])
    assert not tests(models[1], cartpole_runs.MARKS[0], None)
    assert tests.steps == []
    tests(models[1], cartpole_runs.MARKS[0] + 1, None)
    want = agents.evaluate(models[1], cartpole.world(), batch=32, seed=1_000_000) * 32
    assert tests.steps == [round(want)]


def test_ppo_without_nothing_is_ppo(seeded):
    model = agents.actor_critic(seeded(0), gamma=0.99)
    rollout = play(model, cartpole.world(), batch=8, horizon=20, generator=seeded(1))
    seen = agents.generalised(model, rollout, 0.99)
    moved = agents.actor_critic(seeded(3), gamma=0.99)
    with torch.no_grad():
        for weights in moved.parameters():
            weights *= 5  # far enough for the clip to act
    ours, theirs = (
        f(moved, seen)[0] for f in (cartpole_runs.ppo_without, agents.ppo_loss)
    )
    assert_close(ours, theirs)
    for less in ({"clip": cartpole_runs.FAR}, {"whitened": False}):
        assert cartpole_runs.ppo_without(moved, seen, **less)[0] != theirs


def test_the_confused_agent_takes_every_cut_for_a_fall(seeded):
    model = agents.actor_critic(seeded(0), gamma=0.99)
    rollout = play(model, cartpole.world(), batch=8, horizon=5, generator=seeded(1))
    assert not rollout.terminated.any()
    credit = cartpole_runs.confused(model, rollout, 0.99).advantages[:, -1]
    assert_close(credit, 1 - model.values(rollout.states)[:, -1].detach())


def test_the_best_rate_is_the_one_with_the_highest_mean_over_marks_and_swept_seeds():
    seeds = [str(seed) for seed in cartpole_runs.SWEPT]
    runs = {
        f"PPO, lr {lr}": {seed: {"steps": [k, k + 2]} for seed in seeds}
        for k, lr in enumerate(cartpole_runs.RATES)
    }
    assert cartpole_runs.best_rate("PPO", runs) == cartpole_runs.RATES[-1]
    runs[f"PPO, lr {cartpole_runs.RATES[2]}"]["0"]["steps"] = [1000, 1000]
    assert cartpole_runs.best_rate("PPO", runs) == cartpole_runs.RATES[2]


def test_the_record_compares_each_agent_at_the_best_rate_of_its_sweep():
    runs = json.loads(cartpole_runs.RECORD.path.read_text("utf-8"))["runs"]
    for name in cartpole_runs.AGENTS:
        rates = {found["lr"] for found in runs[name].values()}
        assert rates == {cartpole_runs.best_rate(name, runs)}
    fresh = {int(seed) for name in cartpole_runs.AGENTS for seed in runs[name]}
    assert not fresh & {*cartpole_runs.SWEPT}
