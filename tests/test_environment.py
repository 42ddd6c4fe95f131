"""`play` writes down what happened: nothing before, nothing after, nothing twice."""

import pytest
import torch
from torch import nn

from lib.models.mlp import MLP
from lib.ops import token_logps
from lib.worlds import cartpole
from lib.worlds.environment import World, clips, episodes, play

T, F = True, False


class Uniform(nn.Module):
    """Logits 0 for two actions, whatever the state; keeps the shapes that it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, states):
        """(B, T, ...) -> (B, T, 2)."""
        self.shown.append(tuple(states.shape))
        return torch.zeros(*states.shape[:2], 2, dtype=torch.float64)


def countdown(horizon, *, width=2, ends=True):
    """Row b starts at b + 1 and counts down by one a step; it ends at 0, paying its count.

    A row that is stepped after its end would go below 0 and pay a NaN.
    """

    def reset(batch, generator):
        return torch.arange(1.0, batch + 1)[:, None].expand(batch, width).clone()

    def step(states, actions, generator):
        after = states - 1
        count = states[:, 0]
        ended = (after[:, 0] == 0) & ends  # said once
        return after, torch.where(count > 0, count, torch.nan), ended

    return World(reset, step, horizon)


def test_an_episode_is_masked_after_its_end_and_stays_where_it_ended(seeded):
    seen = play(Uniform(), countdown(horizon=3), batch=4, generator=seeded())
    assert seen.mask.tolist() == [[T, F, F], [T, T, F], [T, T, T], [T, T, T]]
    assert seen.lengths.tolist() == [1, 2, 3, 3]
    assert seen.states[..., 0].tolist() == [[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert seen.rewards.tolist() == [[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert seen.last_states.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]


def test_an_episode_that_the_clock_cut_off_is_not_terminated(seeded):
    seen = play(Uniform(), countdown(horizon=3), batch=4, generator=seeded())
    assert seen.terminated.tolist() == [T, T, T, F]
    endless = play(Uniform(), countdown(3, ends=False), batch=4, generator=seeded())
    assert endless.terminated.tolist() == [F, F, F, F]
    assert endless.mask.all() and endless.mask.shape == (4, 3)


def test_play_stops_when_every_episode_has_ended(seeded):
    policy = Uniform()
    seen = play(policy, countdown(horizon=100), batch=3, generator=seeded())
    assert seen.mask.shape == (3, 3)
    assert seen.terminated.all()
    assert len(policy.shown) == 3


def test_the_policy_sees_one_step_at_a_time(seeded):
    policy = Uniform()
    play(policy, countdown(horizon=2, width=5), batch=4, generator=seeded())
    assert policy.shown == [(4, 1, 5), (4, 1, 5)]


def test_states_may_be_indices(seeded):
    def step(states, actions, generator):
        return states + 1, states.double(), states >= 1

    world = World(lambda batch, generator: torch.zeros(batch).long(), step, 5)
    policy = Uniform()
    seen = play(policy, world, batch=2, generator=seeded())
    assert policy.shown == [(2, 1)] * 2
    assert seen.states.tolist() == [[0, 1], [0, 1]]
    assert seen.last_states.tolist() == [2, 2]


def test_recorded_log_probabilities_are_those_of_the_policy_rescored(seeded):
    policy = MLP(4, 16, 2, generator=seeded(1))
    seen = play(policy, cartpole.world(), batch=6, generator=seeded(2))
    rescored = token_logps(policy(seen.states), seen.actions)
    assert (rescored - seen.logps)[seen.mask].abs().max() < 1e-12
    assert not seen.logps.requires_grad


def test_the_recorded_steps_are_steps_of_the_world(seeded):
    policy = MLP(4, 16, 2, generator=seeded(1))
    seen = play(policy, cartpole.world(), batch=6, generator=seeded(2))
    after, rewards, ended = cartpole.step(seen.states, seen.actions)
    following = torch.cat((seen.states[:, 1:], seen.last_states[:, None]), 1)
    inside = seen.mask & ~seen.ends
    assert torch.equal(following[inside], after[inside])
    assert torch.equal(seen.last_states, after[seen.ends])
    assert torch.equal(seen.rewards[seen.mask], rewards[seen.mask])
    assert (seen.rewards[~seen.mask] == 0).all()
    assert torch.equal(ended[seen.ends], seen.terminated)
    assert not ended[inside].any()
    assert torch.equal(seen.returns.long(), seen.lengths)


def test_the_first_states_and_actions_come_from_the_generator_in_order(seeded):
    seen = play(Uniform(), cartpole.world(), batch=5, generator=seeded(7))
    generator = seeded(7)
    assert torch.equal(seen.states[:, 0], cartpole.reset(5, generator))
    uniform = torch.rand(5, dtype=torch.float64, generator=generator)
    assert torch.equal(seen.actions[:, 0], (uniform >= 0.5).long())


def test_the_world_is_handed_the_same_generator(seeded):
    handed = []

    def step(states, actions, generator):
        handed.append(generator)
        return states, states, torch.zeros(len(states)).bool()

    generator = seeded()
    world = World(lambda batch, g: (handed.append(g), torch.zeros(batch))[1], step, 2)
    play(Uniform(), world, batch=1, generator=generator)
    assert [g is generator for g in handed] == [True] * 3


def test_a_seed_decides_everything_and_the_global_generator_is_untouched(seeded):
    policy = MLP(4, 8, 2, generator=seeded(1))
    before = torch.random.get_rng_state()
    first, same, other = (
        play(policy, cartpole.world(), batch=3, generator=seeded(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first.states, same.states)
    assert torch.equal(first.actions, same.actions)
    assert not torch.equal(first.states[:, 0], other.states[:, 0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_row_touches_another(seeded):
    policy = MLP(4, 8, 2, generator=seeded(1))
    seen = play(policy, cartpole.world(), batch=8, generator=seeded(3))
    for row in range(8):
        length = seen.lengths[row]
        states, actions = seen.states[row, :length], seen.actions[row, :length]
        assert torch.equal(cartpole.step(states, actions)[0][:-1], states[1:])


def test_a_policy_that_says_nan_is_refused(seeded):
    class Broken(Uniform):
        def forward(self, states):
            return super().forward(states) * torch.nan

    with pytest.raises(ValueError, match=r"^logits: got no distribution in row \(0,\)"):
        play(Broken(), countdown(2), batch=2, generator=seeded())


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_a_batch_is_at_least_one_episode(batch, seeded, refuses):
    with refuses(f"batch: got {batch!r}, wanted an int of at least 1"):
        play(Uniform(), countdown(2), batch=batch, generator=seeded())


# ---------------------------------------------------------------- other starts and clocks


def test_a_start_replaces_the_first_states_and_draws_nothing(seeded):
    start = torch.tensor([[2.0, 9.0], [1.0, 9.0]])
    seen = play(Uniform(), countdown(5), batch=2, generator=seeded(), start=start)
    assert seen.states[:, 0].tolist() == [[2, 9], [1, 9]]
    assert seen.lengths.tolist() == [2, 1]
    uniform = torch.rand(2, dtype=torch.float64, generator=seeded())
    assert torch.equal(seen.actions[:, 0], (uniform >= 0.5).long())


def test_a_horizon_replaces_the_clock_of_the_world(seeded):
    short = play(Uniform(), countdown(5), batch=4, generator=seeded(), horizon=2)
    assert short.mask.shape == (4, 2)
    assert short.terminated.tolist() == [T, T, F, F]
    longer = play(Uniform(), countdown(2), batch=4, generator=seeded(), horizon=4)
    assert longer.mask.shape == (4, 4)


def test_a_wrong_start_or_horizon_is_refused(seeded, refuses):
    def run(**knobs):
        play(Uniform(), countdown(5), batch=2, generator=seeded(), **knobs)

    with refuses("start: got shape (3, 2), wanted shape (2, 2)"):
        run(start=torch.zeros(3, 2))
    with refuses("horizon: got 0, wanted an int of at least 1"):
        run(horizon=0)


def test_episodes_go_on_for_ever_with_new_ones(seeded):
    stream = episodes(
        Uniform(), cartpole.world(horizon=9), batch=3, generator=seeded(1)
    )
    generator = seeded(1)
    for _ in range(3):
        want = play(Uniform(), cartpole.world(horizon=9), batch=3, generator=generator)
        assert torch.equal(next(stream).states, want.states)


def ticking(horizon):
    """States are (age, name): the age grows; name 1 terminates at age 4.

    Names are handed out in order, so that each new episode is known by its name.
    """
    names = iter(range(100))

    def reset(batch, generator):
        return torch.tensor([[0.0, next(names)] for _ in range(batch)])

    def step(states, actions, generator):
        after = states + torch.tensor([1.0, 0.0])
        ended = (after[:, 0] >= 4) & (states[:, 1] == 1)
        return after, torch.ones(len(states)), ended

    return World(reset, step, horizon)


def test_clips_go_on_where_the_last_one_stopped(seeded):
    stream = clips(Uniform(), ticking(6), batch=2, length=3, generator=seeded())
    first, second, third, fourth, fifth = (next(stream) for _ in range(5))
    # names 0 and 1; 1 terminates at age 4, 0 is cut off at age 6
    assert first.states[..., 1].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert first.states[..., 0].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert second.states[0, :, 0].tolist() == [3, 4, 5]
    assert second.lengths.tolist() == [3, 1] and second.terminated.tolist() == [F, T]
    assert second.states[1, 0].tolist() == [3, 1]
    # both are over now: new names, age 0
    assert (third.states[:, 0, 0] == 0).all() and (third.states[:, 0, 1] > 1).all()
    # and neither is over after half of its time
    assert fourth.states[:, 0, 0].tolist() == [3, 3]
    assert torch.equal(fourth.states[:, 0, 1], third.states[:, 0, 1])
    assert fifth.states[:, 0, 0].tolist() == [0, 0]  # but after six steps they are


def test_a_clip_that_outlives_the_clock_is_followed_by_a_new_episode(seeded):
    stream = clips(Uniform(), ticking(4), batch=1, length=3, generator=seeded())
    ages = [next(stream).states[0, :, 0].tolist() for _ in range(4)]
    # the clock of four steps is looked at after each clip: 3 < 4, 6 >= 4
    assert ages == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]]


def test_only_the_episode_that_is_over_begins_anew(seeded):
    stream = clips(Uniform(), ticking(100), batch=2, length=5, generator=seeded())
    first, second = next(stream), next(stream)
    assert first.lengths.tolist() == [5, 4] and first.terminated.tolist() == [F, T]
    assert second.states[:, 0].tolist() == [[5, 0], [0, 3]]  # names 2 and 3 were drawn


def test_clips_are_steps_of_the_world_drawn_from_the_generator_alone(seeded):
    def run(seed):
        stream = clips(
            Uniform(), cartpole.world(), batch=3, length=8, generator=seeded(seed)
        )
        return [next(stream) for _ in range(5)]

    before = torch.random.get_rng_state()
    first, same, other = run(1), run(1), run(2)
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(first, same, strict=True):
        assert torch.equal(a.states, b.states) and torch.equal(a.actions, b.actions)
    assert not torch.equal(first[0].states, other[0].states)
    for earlier, later in zip(first, first[1:], strict=False):
        goes_on = ~earlier.terminated
        assert torch.equal(later.states[goes_on, 0], earlier.last_states[goes_on])
        assert (later.states[~goes_on, 0].abs() <= 0.05).all()
