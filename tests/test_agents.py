"""The ladder: each rung's credit by hand, the loop by seed, the judge by gymnasium."""

from dataclasses import replace

import gymnasium
import pytest
import torch
from torch.testing import assert_close

from labs import agents
from lib import train
from lib.models.mlp import Greedy
from lib.ops import token_logps, token_mean, whiten
from lib.rollout import Rollout
from lib.worlds import cartpole
from lib.worlds.environment import World, play


def numbers(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


class Known(torch.nn.Module):
    """An actor–critic whose value is the first number of the state."""

    scale = 1.0

    def forward(self, states):
        return torch.zeros(*states.shape[:-1], 2, dtype=states.dtype)

    def values(self, states):
        return states[..., 0]


@pytest.fixture
def rollout():
    """Two rows: one was cut off after 3 steps, one fell after 2 (padded, V = 99 there)."""
    states = torch.zeros(2, 3, 4, dtype=torch.float64)
    states[..., 0] = numbers([2, 3, 1], [4, 5, 99])
    last = torch.zeros(2, 4, dtype=torch.float64)
    last[:, 0] = torch.tensor([6.0, 7.0])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return Rollout(
        states=states,
        actions=torch.tensor([[0, 1, 1], [1, 0, 0]]),
        logps=torch.full((2, 3), -0.5, dtype=torch.float64),
        rewards=mask.double(),
        mask=mask,
        last_states=last,
        terminated=torch.tensor([False, True]),
    )


def test_the_first_rung_credits_every_action_with_the_whole_return(rollout):
    seen = agents.whole_return(Known(), rollout, 0.5)
    # 1 + 1/2 + 1/4 and 1 + 1/2
    assert seen.advantages.tolist() == [[1.75] * 3, [1.5] * 3]
    assert seen.rollout is rollout


def test_the_second_credits_an_action_with_what_came_after(rollout):
    seen = agents.to_go(Known(), rollout, 0.5)
    assert seen.advantages.tolist() == [[1.75, 1.5, 1], [1.5, 1, 0]]
    assert torch.equal(seen.returns, seen.advantages)
    assert (seen.values == 0).all()


def test_the_third_subtracts_the_value(rollout):
    seen = agents.to_go_less_value(Known(), rollout, 0.5)
    assert seen.advantages[rollout.mask].tolist() == [-0.25, -1.5, 0, -2.5, -4]
    assert seen.values.tolist() == [[2, 3, 1], [4, 5, 99]]
    assert seen.returns.tolist() == [[1.75, 1.5, 1], [1.5, 1, 0]]


def test_gae_bootstraps_a_row_that_was_cut_before_the_others_ended(rollout):
    both_cut = replace(rollout, terminated=torch.tensor([False, False]))
    seen = agents.generalised(Known(), both_cut, 0.5, 0.5)
    # second row: V = 4, 5, then 7 where it was cut; what lies in the padding (99) is not
    # looked at. 1 + 7/2 - 5 = -0.5; (1 + 5/2 - 4) + 1/4 · -0.5 = -0.625
    assert seen.advantages[1, :2].tolist() == [-0.625, -0.5]
    assert seen.returns[1, :2].tolist() == [3.375, 4.5]


def test_gae_looks_beyond_a_cut_and_not_beyond_a_fall(rollout):
    seen = agents.generalised(Known(), rollout, 0.5, 0.5)
    # row 0, cut off: δ = 1+3/2-2, 1+1/2-3, 1+6/2-1 = 0.5, -1.5, 3; carried by 1/4
    # row 1, fell:    δ = 1+5/2-4, 1-5 = -0.5, -4
    want = [0.5 + (-1.5 + 3 / 4) / 4, -1.5 + 3 / 4, 3, -0.5 - 4 / 4, -4]
    assert_close(seen.advantages[rollout.mask], torch.tensor(want).double())
    assert_close(seen.returns, seen.advantages + seen.values)


def test_gae_with_lambda_1_is_the_third_rung_where_every_episode_ended(rollout):
    ended = replace(rollout, terminated=torch.ones(2, dtype=torch.bool))
    gae = agents.generalised(Known(), ended, 0.9, 1.0).advantages
    third = agents.to_go_less_value(Known(), ended, 0.9).advantages
    assert_close(gae[rollout.mask], third[rollout.mask])


@pytest.mark.parametrize("rung", agents.LADDER)
def test_credit_carries_no_gradient(rung, seeded):
    model = agents.actor_critic(seeded(), gamma=0.99)
    rollout = play(model, cartpole.world(horizon=12), batch=3, generator=seeded(1))
    seen = agents.LADDER[rung].credit(model, rollout, 0.99)
    given = (seen.advantages, seen.values, seen.returns)
    assert not any(x.requires_grad for x in given)


def test_rows_of_experience_are_rows_of_all_its_parts(rollout):
    seen = agents.to_go_less_value(Known(), rollout, 0.5)
    one = seen.rows(torch.tensor([1]))
    assert torch.equal(one.rollout.actions, rollout.actions[1:])
    for name in ("advantages", "values", "returns"):
        assert torch.equal(getattr(one, name), getattr(seen, name)[1:])


@pytest.fixture
def seen(seeded):
    """What a new agent lived through, credited by GAE, and the agent."""
    model = agents.actor_critic(seeded(), gamma=0.9)
    rollout = play(model, cartpole.world(horizon=12), batch=4, generator=seeded(1))
    return model, agents.generalised(model, rollout, 0.9)


def test_the_policy_loss_is_minus_credit_times_log_probability_per_row(seen):
    model, seen = seen
    logps = token_logps(model(seen.rollout.states), seen.rollout.actions)
    want = -(logps * seen.advantages)[seen.rollout.mask].sum() / 4
    assert_close(agents.policy_loss(model, seen)[0], want)


def test_the_critic_s_loss_is_half_its_squared_error_in_units_of_the_scale(seen):
    model, seen = seen
    assert model.scale == pytest.approx(10)
    error = (model.values(seen.rollout.states) - seen.returns) / 10
    want = 0.5 * token_mean(error.square(), seen.rollout.mask)
    loss, metrics = agents.actor_critic_loss(model, seen)
    assert_close(loss - agents.policy_loss(model, seen)[0], want)
    assert metrics["value_loss"] == pytest.approx(want.item())
    assert set(metrics) == {"nll", "value_loss"}


def test_in_the_first_epoch_ppo_s_gradient_is_actor_critic_s_on_whitened_credit(seen):
    model, seen = seen
    mask = seen.rollout.mask
    logps = token_logps(model(seen.rollout.states), seen.rollout.actions)
    plain = -token_mean(logps * whiten(seen.advantages, mask), mask)
    weights = list(model.policy.parameters())
    want = torch.autograd.grad(plain, weights)
    loss, metrics = agents.ppo_loss(model, seen)
    for got, wanted in zip(torch.autograd.grad(loss, weights), want, strict=True):
        assert_close(got, wanted)
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-12)
    assert metrics["clip_fraction"] == 0


def test_ppo_s_value_is_held_near_what_it_said(seen):
    model, seen = seen
    mask = seen.rollout.mask
    far = replace(seen, values=seen.values - 5, returns=seen.values + 1)  # units of 10
    # V - V_old = 0.5, clipped to 0.2: errors (-0.1)² and (0.2 - 0.6)², the larger counts
    loss, metrics = agents.ppo_loss(model, far)
    assert metrics["value_loss"] == pytest.approx(0.5 * 0.4**2)
    policy = loss.item() - metrics["value_loss"]
    assert policy == pytest.approx(0, abs=1e-9) and mask.any()  # whitened: mean 0


def test_policy_and_value_start_alike_for_a_seed_and_share_no_weights(seeded):
    one, two = (agents.actor_critic(seeded(3), gamma=0.98, hidden=5) for _ in range(2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.scale == pytest.approx(50)
    shared = {id(p) for p in one.policy.parameters()} & {
        id(p) for p in one.value.parameters()
    }
    assert not shared
    assert one.policy.layers[0].out_features == 5
    assert one.policy.units.tolist() == pytest.approx(list(cartpole.UNITS))


def test_gradients_are_one_estimate_for_each_group_of_rows(seen):
    model, seen = seen
    found = agents.gradients(model, agents.policy_loss, seen, rows=2)
    weights = list(model.policy.parameters())
    whole = torch.autograd.grad(agents.policy_loss(model, seen)[0], weights)
    assert found.shape == (2, sum(p.numel() for p in weights))
    assert_close(found.mean(0), torch.cat([g.flatten() for g in whole]))


# ------------------------------------------------------------------------ training


@pytest.mark.parametrize("rung", agents.LADDER)
def test_training_is_the_same_for_the_same_seed_and_not_for_another(rung):
    world = cartpole.world()
    before = torch.get_rng_state()
    runs = [
        agents.train(agents.LADDER[rung], world, seed=seed, steps=700, batch=8)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    (one, history), (two, again), (other, _) = runs
    assert history == again
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    same = [
        torch.equal(a, b)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    ]
    assert not all(same)


@pytest.mark.parametrize(("rung", "steps"), [*zip(agents.LADDER, [9, 7, 7, 5, 4])])
def test_every_rung_improves_in_a_few_thousand_actions(rung, steps):
    world = cartpole.world(horizon=200)
    model, history = agents.train(
        agents.LADDER[rung], world, seed=0, steps=1000 * steps, batch=32
    )
    assert agents.evaluate(model, world, batch=50) > 1.5 * 22  # a coin lasts 22 steps
    assert history["steps"][-1] >= 1000 * steps


def test_training_counts_actions_updates_and_lengths():
    agent = agents.LADDER["PPO"]
    calls = []
    _, history = agents.train(
        agent,
        cartpole.world(),
        seed=0,
        steps=500,
        batch=8,
        watch=lambda model, taken, rollout: calls.append((taken, rollout)),
    )
    taken = [n for n, _ in calls]
    assert taken[-1] >= 500 > taken[-2]  # the last rollout is watched too
    assert taken == sorted(set(history["steps"]))
    assert len(history["loss"]) == agent.epochs * len(calls)
    counts = [int(rollout.mask.sum()) for _, rollout in calls]
    assert torch.tensor(counts).cumsum(0).tolist() == taken
    assert all(rollout.mask.shape[1] <= agent.clip_length for _, rollout in calls)
    assert history["length"][:: agent.epochs] == [n / 8 for n in counts]


def test_a_watch_that_says_true_ends_the_training():
    world = cartpole.world()
    _, history = agents.train(
        agents.LADDER["reward-to-go"], world, seed=0, watch=lambda *now: True
    )
    assert len(history["loss"]) == 1


def test_the_learning_rate_falls_to_nothing(monkeypatch):
    rates = []
    kept = train.fit

    def spy(model, batches, loss, *, lr, progress):
        def noted(update):
            rates.append(lr(update))
            return rates[-1]

        return kept(model, batches, loss, lr=noted, progress=progress)

    monkeypatch.setattr(agents, "fit", spy)
    agent = agents.LADDER["actor–critic"]
    _, history = agents.train(agent, cartpole.world(), seed=0, steps=400, batch=4)
    taken = [0, *history["steps"]]
    # fit asks once to build the optimiser, then once an update; one update a rollout
    want = [agent.lr * max(0, 1 - n / 400) for n in taken[:-1]]
    assert rates[1:] == pytest.approx(want)
    assert rates[0] == agent.lr


def test_no_actions_are_refused(refuses):
    with pytest.raises(ValueError, match="steps"):
        agents.train(agents.LADDER["PPO"], cartpole.world(), seed=0, steps=0)


# ---------------------------------------------------------------- measuring, stopping


class Blend(torch.nn.Module):
    """Push to where the pole leans and falls; keeps it up for ever."""

    def forward(self, states):
        right = states[..., 2] + 0.5 * states[..., 3]
        return torch.stack((-right, right), -1)


def test_evaluation_is_the_mean_return_and_the_same_each_time():
    world = cartpole.world(horizon=50)
    assert agents.evaluate(Greedy(Blend()), world, batch=7) == 50
    coin = torch.nn.Linear(4, 2, dtype=torch.float64)
    torch.nn.init.zeros_(coin.weight)
    one, two = (agents.evaluate(coin, world, batch=20, seed=3) for _ in range(2))
    assert one == two != agents.evaluate(coin, world, batch=20, seed=4)


def graded(monkeypatch, scores):
    """A Solved whose examinations give these scores."""
    left = iter(scores)
    monkeypatch.setattr(agents, "evaluate", lambda *a, **k: next(left))
    return agents.Solved(cartpole.world(), target=475, every=100)


def test_solved_ends_after_three_passes_in_a_row(monkeypatch):
    scores = [480, 480, 470, 475, 476, 500]
    solved = graded(monkeypatch, scores)
    said = [solved(None, 100 * k, None) for k in range(1, 7)]
    assert said == [False] * 5 + [True]
    assert solved.curve == [(100 * k, s) for k, s in enumerate(scores, 1)]


def test_solved_examines_once_in_every_stretch_of_actions(monkeypatch):
    solved = graded(monkeypatch, [1, 2, 3])
    for taken in (40, 99, 100, 150, 199, 350, 399, 400):
        solved(None, taken, None)
    assert [taken for taken, _ in solved.curve] == [100, 350, 400]


def test_solved_examines_greedily_in_the_world_it_was_given():
    solved = agents.Solved(cartpole.world(horizon=30), target=30, every=1, batch=5)
    said = [solved(Blend(), taken, None) for taken in (1, 2, 3)]
    assert said == [False, False, True]
    assert [score for _, score in solved.curve] == [30, 30, 30]


def test_the_judge_returns_what_gymnasium_pays():
    policy = Greedy(Blend())
    assert agents.gymnasium_returns(policy, episodes=2) == [500, 500]

    class Right(torch.nn.Module):
        def forward(self, states):
            return torch.tensor([0.0, 1.0]).expand(*states.shape[:-1], 2)

    mode = "vector_entry_point"
    vector = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode=mode)
    vector.reset(seed=10)
    want = []
    for start in vector.unwrapped.state.T:  # in the environment of record, one by one
        env, over, paid = gymnasium.make("CartPole-v1"), False, 0.0
        env.reset(seed=0)
        env.unwrapped.state = start.copy()
        while not over:
            _, reward, terminated, truncated, _ = env.step(1)
            paid, over = paid + reward, terminated or truncated
        want.append(paid)
        env.close()
    assert len(set(want)) > 1
    assert agents.gymnasium_returns(Right(), episodes=4, seed=10) == want
    with pytest.raises(ValueError, match="episodes"):
        agents.gymnasium_returns(Right(), episodes=0)


def test_a_value_told_that_cuts_are_ends_cannot_see_the_future(seeded):
    """The chapter's confusion, on a pole that never falls: 100, and less than 20."""
    ever = World(
        lambda batch, generator: torch.zeros(batch, 4, dtype=torch.float64),
        lambda s, a, generator: (
            s,
            torch.ones(len(s)).double(),
            torch.zeros(len(s)) > 0,
        ),
        32,
    )

    class Guess(Known):
        guess = 0.0

        def values(self, states):
            return torch.full(states.shape[:-1], self.guess, dtype=torch.float64)

    for confused, want in ((False, 100), (True, 17.8)):
        model = Guess()
        rollout = play(model, ever, batch=1, generator=seeded())
        if confused:
            rollout = replace(rollout, terminated=torch.ones(1, dtype=torch.bool))
        for _ in range(300):
            returns = agents.generalised(model, rollout, 0.99).returns
            model.guess = returns.mean().item()
        assert model.guess == pytest.approx(want, abs=0.05)
