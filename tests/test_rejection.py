"""Rejection sampling: what is kept, in which order, and the random controls."""

import math

import pytest
import torch

from lib.rejection import (
    random_k_overall,
    random_per_prompt,
    top_k_overall,
    top_per_prompt,
)

REWARDS = torch.tensor([[0.1, 0.9, 0.9], [0.2, -1.0, 0.15], [0.9, 0.3, 2.0]])


def test_the_best_of_each_prompt_the_first_of_equals():
    got = top_per_prompt(REWARDS)
    assert got.tolist() == [[0, 1], [1, 0], [2, 2]] and got.dtype == torch.int64
    assert top_per_prompt(torch.zeros(2, 4)).tolist() == [[0, 0], [1, 0]]
    assert top_per_prompt(torch.tensor([[1, 3, 2]])).tolist() == [[0, 1]]


def test_the_best_of_all_best_first_ties_in_index_order():
    order = [[2, 2], [0, 1], [0, 2], [2, 0], [2, 1], [1, 0], [1, 2], [0, 0], [1, 1]]
    for k in range(1, 10):
        got = top_k_overall(REWARDS, k)
        assert got.tolist() == order[:k] and got.dtype == torch.int64
    equal = top_k_overall(torch.zeros(40, 30), 1200)  # a sort that is not stable fails
    assert equal.tolist() == [[p, g] for p in range(40) for g in range(30)]


def test_any_of_each_prompt_is_uniform(seeded):
    draws = seeded(0)
    rewards = torch.rand(3000, 3, generator=draws)
    got = random_per_prompt(rewards, generator=draws)
    assert got[:, 0].tolist() == list(range(3000)) and got.dtype == torch.int64
    counts = got[:, 1].bincount(minlength=3)
    assert len(counts) == 3 and (counts - 1000).abs().max() < 130  # 5 sd
    again = random_per_prompt(rewards, generator=seeded(1))
    assert torch.equal(again, random_per_prompt(rewards, generator=seeded(1)))
    assert not torch.equal(again, got)


def test_any_k_of_all_are_uniform_and_none_is_kept_twice(seeded):
    draws, counts = seeded(0), torch.zeros(2, 3)
    for _ in range(3000):
        got = random_k_overall(torch.zeros(2, 3), 4, generator=draws)
        assert got.shape == (4, 2) and got.dtype == torch.int64
        assert len({tuple(pair) for pair in got.tolist()}) == 4
        counts[got[:, 0], got[:, 1]] += 1
    assert (counts - 2000).abs().max() < 130  # 5 sd
    first = [random_k_overall(REWARDS, 5, generator=seeded(2)) for _ in range(2)]
    assert torch.equal(*first)
    everything = random_k_overall(REWARDS, 9, generator=draws)
    assert sorted(everything.tolist()) == [[p, g] for p in range(3) for g in range(3)]


SELECTIONS = {
    "top_per_prompt": top_per_prompt,
    "top_k_overall": lambda r: top_k_overall(r, 1),
    "random_per_prompt": lambda r: random_per_prompt(r, generator=torch.Generator()),
    "random_k_overall": lambda r: random_k_overall(r, 1, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_rewards_that_cannot_be_ranked_are_refused(name, refuses):
    select = SELECTIONS[name]
    for shape in ((3,), (0, 2), (2, 0), (1, 2, 3)):
        with refuses(f"rewards: got shape {shape}, wanted shape (P, G), not empty"):
            select(torch.zeros(shape))
    for bad in (math.nan, math.inf):
        with refuses(f"rewards: got {bad} at index (0, 1), wanted finite numbers"):
            select(torch.tensor([[0, bad]]))
    with refuses("rewards: got list, wanted a Tensor"):
        select([[1.0]])


@pytest.mark.parametrize("name", ["top_k_overall", "random_k_overall"])
def test_more_than_there_are_cannot_be_kept(name, refuses, seeded):
    knobs = {"generator": seeded()} if "random" in name else {}
    select = {"top_k_overall": top_k_overall, "random_k_overall": random_k_overall}[
        name
    ]
    with refuses("k: got 10, wanted at most 9, all completions there are"):
        select(REWARDS, 10, **knobs)
    with refuses("k: got 0, wanted an int of at least 1"):
        select(REWARDS, 0, **knobs)
