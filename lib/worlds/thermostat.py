"""The thermostat: a room to be kept at 70 °F, as a finite decision process.

State: the room's temperature in whole °F (and, where the heater lags, the commands
still on their way). Action 1 = heater on. Reward: 1 for each step that starts within
the band.
"""

import torch
from torch import Tensor

from lib import require
from lib.worlds.mdp import FiniteMDP

TARGET = 70  # °F
BAND = 2  # °F either side, ends included


def thermostat(
    *,
    low: int = 60,
    high: int = 80,
    start: int = 65,
    draught: float = 0.1,
    lag: int = 0,
    gamma: float = 0.95,
) -> FiniteMDP:
    """A room of `low` … `high` °F: +1 °F a step with the heater on, -1 °F with it off.

    With probability `draught` a window lets out 1 °F more. The heat that is asked for
    arrives `lag` steps later; the commands on their way are part of the state, and the
    episode starts with all of them off. States ascend in °F: index = (°F - low)·2^lag +
    the pending commands as a binary number, the next to arrive in its highest bit.
    """
    _check(low, high, start, lag)
    require.unit_interval("draught", draught)
    rooms, queues = high - low + 1, 2**lag
    shape = (rooms, queues, 2, rooms, queues)
    transition = torch.zeros(shape, dtype=torch.float64)
    for room in range(rooms):
        for queue in range(queues):
            for action in (0, 1):
                line = 2 * queue + action  # the command joins the line at its end
                heat, pending = divmod(line, queues)  # and the front of it arrives
                calm = room + (1 if heat else -1)
                for after, p in ((calm, 1 - draught), (calm - 1, draught)):
                    after = min(max(after, 0), rooms - 1)
                    transition[room, queue, action, after, pending] += p
    states = rooms * queues
    degrees = temperatures(low=low, high=high, lag=lag)  # (S,) °F
    inside = ((degrees - TARGET).abs() <= BAND).double()
    begin = torch.zeros(states, dtype=torch.float64)
    begin[(start - low) * queues] = 1
    return FiniteMDP(
        transition.reshape(states, 2, states),
        inside.unsqueeze(-1).expand(-1, 2).clone(),
        begin,
        gamma,
    )


def temperatures(*, low: int = 60, high: int = 80, lag: int = 0) -> Tensor:
    """(S,) the temperature of each state in °F, ascending."""
    _check(low, high, low, lag)
    rooms = torch.arange(low, high + 1, dtype=torch.float64)
    return rooms.repeat_interleave(2**lag)


def rule(temperature: Tensor, *, below: float = TARGET) -> Tensor:
    """The rule on the wall: on below `below` °F. (S,) °F -> policy (S, 2)."""
    on = (temperature < below).double()
    return torch.stack((1 - on, on), -1)


def _check(low: int, high: int, start: int, lag: int) -> None:
    require.count("lag", lag, least=0)
    for name, value in (("low", low), ("high", high), ("start", start)):
        if isinstance(value, bool) or not isinstance(value, int):
            require.refuse(name, repr(value), "whole °F")
    if not low < high:
        require.refuse("high", high, f"more than low = {low}")
    if not low <= start <= high:
        require.refuse("start", start, f"a temperature in {low} … {high}")
