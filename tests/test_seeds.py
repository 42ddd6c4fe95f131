"""Streams of luck: named, the same everywhere, and never met twice."""

import itertools

import pytest
import torch

from labs import deepseek_r1
from lib.on_policy import task_stream
from lib.seeds import generator, seed_of


def test_a_name_gives_the_same_seed_on_every_machine():
    # sha256("('answers', 0, 0)"), its first eight bytes without their lowest bit
    assert seed_of("answers", 0, 0) == 3731147317588380976


def test_streams_of_different_names_never_meet():
    names = itertools.product(("tasks", "answers"), range(30), range(2000))
    seeds = [seed_of(*name) for name in names]
    assert len({*seeds}) == len(seeds)


def test_a_later_update_of_one_seed_is_not_an_early_one_of_the_next():
    """10,000 · (seed + 1) + update gave seed 0 at 10,000 the tasks of seed 1 at 0."""
    first, second = (task_stream("cups", count=8, seed=seed) for seed in (0, 1))
    assert first(10_000) != second(0)
    assert first(1_000_000) != task_stream("cups", count=8, seed=100)(0)


def test_a_number_and_its_digits_name_different_streams():
    assert seed_of("3") != seed_of(3) and seed_of("a", "b") != seed_of("ab")


def test_a_generator_begins_where_its_name_says():
    one, two = generator("answers", 7), generator("answers", 7)
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=two))
    assert one.initial_seed() == seed_of("answers", 7)


@pytest.mark.parametrize("name", [1.0, True, None, ("a",)])
def test_what_is_no_text_or_whole_number_is_refused(name, refuses):
    with refuses(f"names: got {name!r}, wanted texts and whole numbers"):
        seed_of("answers", name)


def test_pairs_of_one_seed_are_not_those_of_another_some_blocks_later(monkeypatch):
    """1,000 · seed + block gave seed 0 at block 1,000 the requests of seed 1."""
    asked = []

    def requests(skill, *, count, seed, split):
        asked.append(seed)
        raise StopIteration

    monkeypatch.setattr(deepseek_r1.tasks, "tasks", requests)
    for seed in (0, 1):
        with pytest.raises(StopIteration):
            deepseek_r1.compared(None, count=1, seed=seed)
    assert asked == [seed_of("compared", seed, 0) for seed in (0, 1)]
