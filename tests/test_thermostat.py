"""The room at 70 °F: its dynamics spelled out, and what they make of the rule on the wall."""

import pytest
import torch
from torch.testing import assert_close

from lib.worlds.mdp import policy_values, value_iteration
from lib.worlds.thermostat import BAND, TARGET, rule, temperatures, thermostat


def test_the_target_is_seventy_give_or_take_two():
    assert (TARGET, BAND) == (70, 2)


def test_the_default_room_runs_from_sixty_to_eighty_and_starts_at_sixty_five():
    room = thermostat()
    assert temperatures().tolist() == list(range(60, 81))
    assert temperatures().dtype == torch.float64
    assert room.transition.shape == (21, 2, 21)
    assert room.start.nonzero().flatten().tolist() == [5]
    assert room.start[5] == 1
    assert room.gamma == 0.95
    assert {room.transition.dtype, room.reward.dtype, room.start.dtype} == {
        torch.float64
    }


def test_the_heater_warms_by_one_degree_and_a_draught_takes_one_away():
    room = thermostat(low=68, high=73, start=69, draught=0.25, gamma=0.5)
    # from 70 °F (state 2): on -> 71, off -> 69; with the window open 70 and 68
    assert room.transition[2, 1].tolist() == [0, 0, 0.25, 0.75, 0, 0]
    assert room.transition[2, 0].tolist() == [0.25, 0.75, 0, 0, 0, 0]
    # the walls of the world: off at 68 and at 69; on at 73
    assert room.transition[0, 0].tolist() == [1, 0, 0, 0, 0, 0]
    assert room.transition[1, 0].tolist() == [1, 0, 0, 0, 0, 0]
    assert room.transition[0, 1].tolist() == [0.25, 0.75, 0, 0, 0, 0]
    assert room.transition[5, 1].tolist() == [0, 0, 0, 0, 0, 1 - 0.25 + 0.25]
    assert room.start.tolist() == [0, 1, 0, 0, 0, 0]
    assert room.gamma == 0.5


def test_at_the_warm_wall_only_the_draught_cools():
    room = thermostat(low=68, high=73, draught=0.25, start=70)
    # on at 73: 74 is held at 73, 74 - 1 = 73
    assert room.transition[5, 1, 5] == 1
    # on at 72: 73 without, 72 with the draught; off at 73: 72 and 71
    assert room.transition[4, 1].tolist() == [0, 0, 0, 0, 0.25, 0.75]
    assert room.transition[5, 0].tolist() == [0, 0, 0, 0.25, 0.75, 0]


def test_the_default_draught_is_one_in_ten():
    assert thermostat().transition[10, 1, 11] == 0.9
    assert thermostat().transition[10, 1, 10] == 0.1


@pytest.mark.parametrize("draught", [0, 1])
def test_a_window_may_be_always_shut_or_always_open(draught):
    room = thermostat(draught=draught)
    assert room.transition[10, 1, 11 - draught] == 1
    assert room.transition[10, 0, 9 - draught] == 1


def test_a_step_that_starts_within_the_band_earns_one_whatever_the_action():
    degrees, reward = temperatures(), thermostat().reward
    assert degrees[reward[:, 0] == 1].tolist() == [68, 69, 70, 71, 72]
    assert (reward[:, 0] == reward[:, 1]).all()
    assert set(reward.flatten().tolist()) == {0, 1}
    reward[0, 0] = 7  # an entry of its own, not a view of its neighbour
    assert reward[0, 1] == 0


@pytest.mark.parametrize("lag", [0, 1, 2, 3])
def test_with_a_lag_the_commands_on_their_way_are_part_of_the_state(lag):
    room = thermostat(low=68, high=71, start=69, draught=0.25, lag=lag)
    queues = 2**lag
    degrees = temperatures(low=68, high=71, lag=lag)
    assert degrees.tolist() == [d for d in (68, 69, 70, 71) for _ in range(queues)]
    assert room.transition.shape == (4 * queues, 2, 4 * queues)
    for state in range(4 * queues):
        for action in (0, 1):
            degree, waiting = divmod(state, queues)
            line = [int(bit) for bit in f"{waiting:0{lag}b}"] if lag else []
            line.append(action)  # the first in line arrives now
            heat, waiting = line[0], sum(b << i for i, b in enumerate(line[:0:-1]))
            want = torch.zeros(4 * queues, dtype=torch.float64)
            for extra, p in ((0, 0.75), (1, 0.25)):
                after = degree + (1 if heat else -1) - extra
                want[min(max(after, 0), 3) * queues + waiting] += p
            assert torch.equal(room.transition[state, action], want)
    assert room.start.nonzero().flatten().tolist() == [queues]  # 69 °F, all off
    assert (room.reward[:, 0] == 1).all()  # all of 68 … 71 lies within the band


def test_the_band_counts_the_room_and_not_the_queue():
    room = thermostat(lag=2)
    inside = temperatures(lag=2)[room.reward[:, 0] == 1]
    assert inside.tolist() == [d for d in range(68, 73) for _ in range(4)]


def test_the_rule_on_the_wall_is_on_below_seventy_and_off_at_seventy():
    degrees = torch.tensor([69.0, 69.9, 70.0, 71.0], dtype=torch.float64)
    assert rule(degrees).tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]
    assert rule(degrees).dtype == torch.float64
    assert rule(degrees.reshape(2, 2)).tolist() == [[[0, 1]] * 2, [[1, 0]] * 2]
    assert rule(degrees, below=71).tolist() == [[0, 1], [0, 1], [0, 1], [1, 0]]


def test_without_a_lag_the_rule_is_optimal_and_with_one_it_is_not():
    gaps = []
    for lag in (0, 3):
        room = thermostat(lag=lag)
        best, _ = value_iteration(room)
        ruled = policy_values(room, rule(temperatures(lag=lag)))
        gaps.append((room.start @ (best - ruled)).item())
    assert abs(gaps[0]) < 1e-9
    assert gaps[1] > 0.1


def test_a_room_that_never_leaves_the_band_is_worth_its_rewards():
    room = thermostat(low=69, high=71, start=70, gamma=0.5)
    values, _ = value_iteration(room)
    assert_close(values, torch.full((3,), 2.0).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 60.0}, "low: got 60.0, wanted whole °F"),
        ({"high": "80"}, "high: got '80', wanted whole °F"),
        ({"start": True}, "start: got True, wanted whole °F"),
        ({"low": 80}, "high: got 80, wanted more than low = 80"),
        ({"start": 59}, "start: got 59, wanted a temperature in 60 … 80"),
        ({"start": 81}, "start: got 81, wanted a temperature in 60 … 80"),
        ({"lag": -1}, "lag: got -1, wanted an int of at least 0"),
        ({"lag": 1.5}, "lag: got 1.5, wanted an int of at least 0"),
        ({"draught": 1.5}, "draught: got 1.5, wanted a number in [0, 1]"),
        ({"draught": "no"}, "draught: got 'no', wanted a number"),
        ({"gamma": -1}, "gamma: got -1, wanted a number in [0, 1]"),
    ],
)
def test_an_impossible_room_is_refused_by_name(changes, message, refuses):
    with refuses(message):
        thermostat(**changes)


def test_the_smallest_room_has_two_temperatures(refuses):
    assert thermostat(low=69, high=70, start=70).start.tolist() == [0, 1]
    assert thermostat(low=69, high=70, start=69).start.tolist() == [1, 0]
    assert temperatures(low=69, high=70).tolist() == [69, 70]
    with refuses("high: got 69, wanted more than low = 69"):
        temperatures(low=69, high=69)
    with refuses("lag: got -1, wanted an int of at least 0"):
        temperatures(lag=-1)
