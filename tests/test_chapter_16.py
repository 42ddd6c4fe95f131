"""What chapter 16 says of ranks, bytes and deaths, held by other means than the page's."""

import math

import pytest

from labs import many_processes as mp
from labs import many_processes_runs as runs

# ------------------------------------------------------------- ranks from a notebook


def sums(add):
    import torch
    from torch import distributed as dist

    mine = torch.tensor([float(dist.get_rank() + add)])
    dist.all_reduce(mine)
    return [dist.get_rank(), dist.get_world_size(), mine.item()]


def pid():
    import os

    return os.getpid()


def fails():
    raise ValueError("no rows")


def test_ranks_see_each_other_answer_in_order_and_keep_for_the_next_call():
    ranks = mp.Ranks(2)
    try:
        assert ranks.run(sums, add=1) == [[0, 2, 3.0], [1, 2, 3.0]]
        assert ranks.run(sums, add=2) == [[0, 2, 5.0], [1, 2, 5.0]]
        running = [*ranks.running]
        assert ranks.run(pid) == [process.pid for process in running]
    finally:
        ranks.close()
    assert all(process.poll() is not None for process in running)
    with pytest.raises(ValueError, match="ranks: got closed ones"):
        ranks.run(pid)


def test_a_rank_that_fails_says_why_and_is_the_end_of_all():
    ranks = mp.Ranks(1)
    running, place = [*ranks.running], ranks.place
    with pytest.raises(
        mp.RankFailed, match="rank 0 ended with 1 .*ValueError: no rows"
    ):
        ranks.run(fails)
    assert all(process.poll() is not None for process in running)
    assert ranks.running == [] and not place.exists()


def test_a_rank_that_is_late_is_ended():
    ranks = mp.Ranks(1, seconds=0.01)
    running = [*ranks.running]
    with pytest.raises(mp.RankFailed, match=r"ranks \[0\] were not ready after 0.01"):
        ranks.run(pid)
    assert all(process.poll() is not None for process in running)


def test_ranks_end_where_the_notebook_that_started_them_does():
    ranks = mp.Ranks(1)
    (process,) = ranks.running
    assert ranks.run(pid) == [process.pid]
    process.stdin.close()  # what the system does for a process that dies
    assert process.wait(timeout=60) == 0
    ranks.running = []
    ranks.folder.cleanup()


@pytest.mark.parametrize(
    ("given", "name"),
    [({"count": 0}, "count"), ({"count": 1, "seconds": 0}, "seconds")],
)
def test_no_ranks_and_no_time_are_refused(given, name):
    with pytest.raises(ValueError, match=name):
        mp.Ranks(**given)


# ------------------------------------------------------------------- held and sent


@pytest.mark.parametrize(
    ("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)]
)
def test_a_rank_holds_what_figure_1_of_zero_says(stage, gigabytes):
    found = sum(mp.held(stage, 64).values()) * 7.5
    assert round(found, 1) == gigabytes


def test_alone_every_stage_holds_everything_and_sends_nothing():
    for stage in mp.STAGES:
        assert sum(mp.held(stage, 1).values()) == 16
        assert mp.sent(stage, 1) == 0


def test_stage_3_sends_half_as_much_again_and_never_more_than_three_times_the_weights():
    for ranks in (2, 8, 1024):
        assert mp.sent(0, ranks) == mp.sent(1, ranks) == mp.sent(2, ranks) < 4
        assert mp.sent(3, ranks) == pytest.approx(1.5 * mp.sent(2, ranks))
        assert mp.sent(3, ranks) < 6


@pytest.mark.parametrize("count", [mp.held, mp.sent])
def test_a_stage_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match="stage: got 4"):
        count(4, 8)
    with pytest.raises(ValueError, match="ranks: got 0"):
        count(1, 0)


# --------------------------------------------------------------------- what is read


def test_four_of_the_eight_answers_are_thought_aloud_and_all_are_right():
    from lib import evaluate
    from lib.worlds import tasks

    batch = mp.eight_answers()
    lengths = [19 if aloud else 3 for aloud in mp.ALOUD]
    assert batch.lengths.tolist() == lengths and sum(mp.ALOUD) == 4
    asked = tasks.tasks("cups", count=8, seed=16, levels=(3,))
    assert evaluate.scores(asked, batch).tolist() == [1.0] * 8


# ------------------------------------------------------------------ ranks are killed


def recorded():
    return [
        (name, found)
        for name, seeds in runs.RECORD.read()["runs"].items()
        for found in seeds.values()
    ]


def test_killed_runs_end_with_the_weights_of_an_undisturbed_process():
    assert len(recorded()) >= 4
    for _, found in recorded():
        assert found["apart"] < 1e-10 < 1e-3 < found["moved"]


def test_each_attempt_goes_on_from_the_last_checkpoint():
    for name, found in recorded():
        deaths, reached = runs.DEATHS[name], 0
        assert len(found["attempts"]) == len(deaths) + 1
        for attempt, death in zip(found["attempts"], [*deaths, (None, None)]):
            assert attempt["from"] == reached - reached % runs.EVERY
            assert (attempt["killed at"], attempt["rank"]) == death
            reached = death[0]


def test_five_deaths_are_tried_of_both_ranks_and_before_the_first_checkpoint():
    deaths = runs.DEATHS["five times"]
    assert len(deaths) == 5 and {rank for _, rank in deaths} == {0, 1}
    assert deaths[0][0] < runs.EVERY


# ------------------------------------------------------------------------ on paper


def test_saving_at_youngs_interval_loses_least():
    write, between = 60.0, 3600.0 * 5

    def lost(tau):
        return write / tau + tau / (2 * between)

    best = min(range(100, 10_000, 10), key=lost)
    assert best == pytest.approx(math.sqrt(2 * write * between), rel=0.01)


def test_the_longest_of_64_lognormal_answers_is_some_seven_times_the_mean():
    """The page integrates; here they are drawn."""
    import torch

    from lib.seeds import generator

    draw = torch.randn(20_000, 64, generator=generator("stragglers"))
    longest = draw.double().exp().max(1).values.mean()
    assert (longest / math.exp(0.5)).item() == pytest.approx(7.1, rel=0.05)
