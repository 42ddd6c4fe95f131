"""The batched pole against gymnasium's own, the environment of record."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lib.worlds import cartpole


@pytest.fixture(scope="module")
def gym():
    """gymnasium's CartPole-v1, without wrappers: its state can be set."""
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    yield env
    env.close()


def judge(env, state, action):
    """gymnasium's step from `state`: next state, reward, terminated."""
    env.state, env.steps_beyond_terminated = tuple(state), None
    _, reward, terminated, *_ = env.step(action)
    return env.state, reward, terminated


def test_every_step_equals_gymnasiums_to_1e_12(gym, seeded):
    n = 4000
    spread = torch.tensor([3.0, 4.0, 0.3, 4.0], dtype=torch.float64)
    states = (
        torch.rand(n, 4, dtype=torch.float64, generator=seeded()) * 2 - 1
    ) * spread
    actions = torch.randint(2, (n,), generator=seeded(1))
    after, rewards, terminated = cartpole.step(states, actions)
    want = [
        judge(gym, s, a) for s, a in zip(states.tolist(), actions.tolist(), strict=True)
    ]
    theirs = torch.tensor(np.array([w[0] for w in want]))
    assert_close(after, theirs, rtol=0, atol=1e-12)
    assert rewards.tolist() == [w[1] for w in want]
    assert rewards.dtype == torch.float64
    assert terminated.tolist() == [w[2] for w in want]
    assert 0.2 < terminated.double().mean() < 0.8


def test_whole_episodes_equal_gymnasiums_to_1e_12(gym, seeded):
    steps = 0
    for episode in range(40):
        state = cartpole.reset(1, seeded(episode))[0]
        theirs, ended = tuple(state.tolist()), False
        for action in torch.randint(2, (500,), generator=seeded(100 + episode)):
            state, _, over = cartpole.step(state, action)
            theirs, _, ended = judge(gym, theirs, action.item())
            assert (
                max(abs(a - b) for a, b in zip(state.tolist(), theirs, strict=True))
                < 1e-12
            )
            assert over.item() == ended
            steps += 1
            if ended:
                break
    assert steps > 500


def test_the_constants_are_those_of_the_environment_of_record(gym):
    assert gym.gravity == cartpole.GRAVITY
    assert (gym.masscart, gym.masspole) == (cartpole.CART, cartpole.POLE)
    assert (gym.length, gym.force_mag, gym.tau) == (
        cartpole.HALF_LENGTH,
        cartpole.FORCE,
        cartpole.DT,
    )
    assert gym.x_threshold == cartpole.X_LIMIT
    assert gym.theta_threshold_radians == cartpole.THETA_LIMIT
    assert pytest.approx(12) == math.degrees(cartpole.THETA_LIMIT)
    assert gymnasium.spec("CartPole-v1").max_episode_steps == cartpole.HORIZON


def test_at_rest_a_push_gives_hand_worked_accelerations():
    # temp = 10/1.1; θ̈ = -temp / (0.5·(4/3 - 0.1/1.1)); ẍ = temp - 0.05·θ̈/1.1
    zero = np.zeros(1)
    theta_acc, x_acc = cartpole.accelerations(zero, zero, np.full(1, 10.0))
    temp = 10 / 1.1
    want = -temp / (0.5 * (4 / 3 - 0.1 / 1.1))
    assert theta_acc[0] == pytest.approx(want, abs=1e-12)
    assert x_acc[0] == pytest.approx(temp - 0.05 * want / 1.1, abs=1e-12)


def test_left_and_right_are_mirror_images(seeded):
    states = cartpole.reset(20, seeded())
    actions = torch.randint(2, (20,), generator=seeded(1))
    after, *_ = cartpole.step(states, actions)
    mirrored, *_ = cartpole.step(-states, 1 - actions)
    assert_close(mirrored, -after, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("state", "over"),
    [
        ([2.4, 0, 0, 0], False),  # on the line is still inside
        ([2.4001, 0, 0, 0], True),
        ([-2.4, 0, 0, 0], False),
        ([-2.4001, 0, 0, 0], True),
        ([0, 0, cartpole.THETA_LIMIT, 0], False),
        ([0, 0, cartpole.THETA_LIMIT + 1e-9, 0], True),
        ([0, 0, -cartpole.THETA_LIMIT - 1e-9, 0], True),
    ],
)
def test_an_episode_ends_beyond_the_track_or_beyond_twelve_degrees(state, over):
    # speeds are 0, so Euler leaves position and angle where they are
    after, reward, ended = cartpole.step(
        torch.tensor(state, dtype=torch.float64), torch.tensor(1)
    )
    assert ended.item() is over
    assert reward.item() == 1.0


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,)])
def test_any_leading_shape_is_stepped(shape):
    states, actions = torch.zeros(*shape, 4), torch.zeros(shape).long()
    after, rewards, ended = cartpole.step(states, actions)
    assert (after.shape, rewards.shape, ended.shape) == ((*shape, 4), shape, shape)
    assert ended.dtype == torch.bool


def test_a_batch_is_its_rows_stepped_one_by_one(seeded):
    states = cartpole.reset(6, seeded())
    actions = torch.tensor([0, 1, 1, 0, 1, 0])
    after, *_ = cartpole.step(states, actions)
    for row in range(6):
        assert torch.equal(cartpole.step(states[row], actions[row])[0], after[row])


def test_float32_stays_float32(seeded):
    states, actions = cartpole.reset(4, seeded()), torch.tensor([0, 1, 0, 1])
    single, rewards, _ = cartpole.step(states.float(), actions)
    assert single.dtype == rewards.dtype == torch.float32
    assert_close(single, cartpole.step(states, actions)[0].float(), rtol=0, atol=1e-6)


def test_a_step_leaves_its_arguments_alone(seeded):
    states, actions = cartpole.reset(4, seeded()), torch.tensor([0, 1, 0, 1])
    kept = states.clone()
    after, *_ = cartpole.step(states, actions)
    after += 1
    assert torch.equal(states, kept)
    small = cartpole.step(states, actions.to(torch.uint8))[0]
    assert torch.equal(small, cartpole.step(states, actions)[0])


def test_no_gradient_flows_through_the_world(seeded):
    states, actions = cartpole.reset(2, seeded()), torch.tensor([0, 1])
    learned = states.clone().requires_grad_()
    after, *_ = cartpole.step(learned, actions)
    assert not after.requires_grad
    assert torch.equal(after, cartpole.step(states, actions)[0])


def test_step_says_what_is_wrong(refuses):
    good = torch.zeros(2, 4)
    with refuses("states: got list, wanted a Tensor"):
        cartpole.step([0, 0, 0, 0], torch.tensor(0))
    with refuses("states: got shape (2, 3), wanted shape (..., 4)"):
        cartpole.step(good[:, :3], torch.tensor([0, 1]))
    with refuses("states: got shape (), wanted shape (..., 4)"):
        cartpole.step(torch.tensor(0.0), torch.tensor(0))
    with refuses("actions: got shape (3,), wanted shape (2,)"):
        cartpole.step(good, torch.tensor([0, 1, 0]))
    with refuses("actions: got 2 at index (1,), wanted integers in 0 … 1"):
        cartpole.step(good, torch.tensor([0, 2]))
    with refuses("actions: got torch.float32, wanted integers"):
        cartpole.step(good, torch.zeros(2))
    with refuses("states: got nan at index (0, 2), wanted finite numbers"):
        cartpole.step(torch.tensor([[0, 0, math.nan, 0]]), torch.tensor([0]))


def test_starts_are_uniform_within_a_twentieth(seeded):
    starts = cartpole.reset(5000, seeded())
    assert starts.shape == (5000, 4)
    assert starts.dtype == torch.float64
    assert starts.abs().max() <= 0.05
    assert (starts.amin(0) < -0.049).all() and (starts.amax(0) > 0.049).all()
    # variance of a uniform of width 0.1: 0.01/12
    assert_close(starts.var(0), torch.full((4,), 0.01 / 12).double(), rtol=0.06, atol=0)
    assert starts.mean(0).abs().max() < 0.002


def test_starts_depend_on_the_generator_alone(seeded, refuses):
    before = torch.random.get_rng_state()
    assert torch.equal(cartpole.reset(3, seeded(1)), cartpole.reset(3, seeded(1)))
    assert not torch.equal(cartpole.reset(3, seeded(1)), cartpole.reset(3, seeded(2)))
    assert torch.equal(torch.random.get_rng_state(), before)
    with refuses("batch: got 0, wanted an int of at least 1"):
        cartpole.reset(0, seeded())


def test_the_world_steps_like_step_and_cuts_off_at_five_hundred(seeded):
    world = cartpole.world()
    assert world.horizon == 500
    assert cartpole.world(horizon=7).horizon == 7
    states = world.reset(5, seeded(4))
    assert torch.equal(states, cartpole.reset(5, seeded(4)))
    actions = torch.tensor([0, 1, 1, 0, 1])
    for ours, same in zip(
        world.step(states, actions, seeded()),
        cartpole.step(states, actions),
        strict=True,
    ):
        assert torch.equal(ours, same)


def test_the_units_make_the_four_numbers_comparable():
    assert cartpole.UNITS == (1.0, 1.0, 0.1, 1.0)
    at_the_limit = torch.tensor([cartpole.X_LIMIT, 0, cartpole.THETA_LIMIT, 0])
    scaled = at_the_limit / torch.tensor(cartpole.UNITS)
    assert 2 < scaled[2] < scaled[0] < 2.5
