"""The record that both worlds write into refuses what does not fit together."""

import dataclasses

import pytest
import torch

from lib.rollout import Rollout
from lib.worlds.environment import World

T, F = True, False


def a_rollout(**changes) -> Rollout:
    """Three episodes of at most four steps: lengths 2, 4 and 1, states of two numbers."""
    mask = torch.tensor([[T, T, F, F], [T, T, T, T], [T, F, F, F]])
    fields = {
        "states": torch.arange(24.0).reshape(3, 4, 2),
        "actions": torch.arange(12).reshape(3, 4),
        "logps": -torch.arange(12.0).reshape(3, 4),
        "rewards": torch.tensor([[1.0, 2, 50, 60], [1, 1, 1, 1], [7, torch.nan, 0, 0]]),
        "mask": mask,
        "last_states": torch.arange(6.0).reshape(3, 2),
        "terminated": torch.tensor([T, F, T]),
    }
    return Rollout(**{**fields, **changes})


def test_lengths_returns_and_ends_count_what_the_mask_holds():
    rollout = a_rollout()
    assert rollout.lengths.tolist() == [2, 4, 1]
    assert rollout.returns.tolist() == [3, 4, 7]  # 1 + 2; 1 + 1 + 1 + 1; 7
    assert rollout.ends.tolist() == [[F, T, F, F], [F, F, F, T], [T, F, F, F]]
    assert len(rollout) == 3


def test_a_prompt_before_the_completion_moves_no_end():
    mask = torch.tensor([[F, T, T, F], [F, F, T, T], [F, F, F, T]])
    rollout = a_rollout(mask=mask)
    assert rollout.ends.tolist() == [[F, F, T, F], [F, F, F, T], [F, F, F, T]]


def test_rows_picks_the_same_rows_of_every_field():
    rollout = a_rollout()
    picked = rollout.rows(torch.tensor([2, 0]))
    for field in dataclasses.fields(Rollout):
        whole, part = getattr(rollout, field.name), getattr(picked, field.name)
        assert torch.equal(part.nan_to_num(), whole[[2, 0]].nan_to_num())


def test_states_may_be_indices_or_have_many_axes():
    indices = a_rollout(
        states=torch.zeros(3, 4).long(), last_states=torch.zeros(3).long()
    )
    assert indices.states.shape == (3, 4)
    deep = a_rollout(states=torch.zeros(3, 4, 2, 5), last_states=torch.zeros(3, 2, 5))
    assert deep.rows(torch.tensor([1])).states.shape == (1, 4, 2, 5)


def test_a_rollout_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_rollout().mask = None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mask", None, "mask: got NoneType, wanted a Tensor"),
        ("mask", torch.ones(3, 4), "mask: got torch.float32, wanted torch.bool"),
        (
            "actions",
            torch.zeros(3, 3),
            "actions: got shape (3, 3), wanted shape (3, 4)",
        ),
        ("logps", torch.zeros(4, 3), "logps: got shape (4, 3), wanted shape (3, 4)"),
        ("rewards", torch.zeros(3), "rewards: got shape (3,), wanted shape (3, 4)"),
        ("terminated", torch.zeros(4), "terminated: got shape (4,), wanted shape (3,)"),
        (
            "states",
            torch.zeros(3, 4),
            "states: got shape (3, 4), wanted shape (3, 4, 2)",
        ),
        (
            "last_states",
            torch.zeros(2, 2),
            "last_states: got shape (2, 2), wanted shape (3, 2)",
        ),
        ("last_states", None, "last_states: got NoneType, wanted a Tensor"),
        ("states", None, "states: got NoneType, wanted a Tensor"),
    ],
)
def test_a_field_that_does_not_fit_is_named(field, value, message, refuses):
    with refuses(message):
        a_rollout(**{field: value})


def test_an_empty_rollout_is_refused(refuses):
    with refuses("mask: got an empty mask of shape (0, 4), wanted at least one entry"):
        a_rollout().rows(torch.tensor([], dtype=torch.int64))


def test_a_world_needs_a_clock(refuses):
    world = World(reset=len, step=len, horizon=1)
    assert world.horizon == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.horizon = 2
    with refuses("horizon: got 0, wanted an int of at least 1"):
        World(reset=len, step=len, horizon=0)
