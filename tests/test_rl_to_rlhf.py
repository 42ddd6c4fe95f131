"""Chapter 3's steps by hand, and what payment at the end costs, against enumeration."""

import pytest
import torch
from torch.testing import assert_close

from labs import rl_to_rlhf
from lib.ops import token_logps
from lib.worlds import cartpole, exact
from lib.worlds.environment import play


def test_the_learned_step_is_the_standard_one_but_for_its_rewards():
    states = torch.tensor([[0, 0, 0.1, 0], [0, 0, 0.205, 2]], dtype=torch.float64)
    actions = torch.tensor([0, 1])
    judge = lambda states: 7 * states[:, 2]  # noqa: E731
    was, now = (
        step(states, actions, judge)
        for step in (rl_to_rlhf.standard, rl_to_rlhf.learned)
    )
    assert all(map(torch.equal, was, cartpole.step(states, actions)))
    assert torch.equal(was[0], now[0]) and torch.equal(was[2], now[2])
    assert was[1].tolist() == [1, 1] and was[2].tolist() == [False, True]
    assert torch.equal(now[1], 7 * states[:, 2])


def test_a_prompt_is_answered_once_and_stays_as_it_is():
    prompts = torch.tensor([3, 4])
    after, rewards, ended = rl_to_rlhf.prompted(
        prompts, torch.tensor([1, 0]), lambda s, a: 10 * s + a
    )
    assert after.tolist() == [3, 4] and rewards.tolist() == [31, 40]
    assert ended.tolist() == [True, True] and ended.dtype == torch.bool


def test_a_token_is_appended_to_its_own_row_and_the_last_one_is_paid():
    texts = torch.tensor([[4, 5, 0, 0], [4, 5, 6, 0]])
    after, rewards, ended = rl_to_rlhf.appended(
        texts, torch.tensor([5, 1]), lambda tokens: tokens.sum(1)
    )
    assert after.tolist() == [[4, 5, 5, 0], [4, 5, 6, 1]]
    assert rewards.tolist() == [0, 16] and ended.tolist() == [False, True]
    assert texts.tolist() == [[4, 5, 0, 0], [4, 5, 6, 0]]


class Always(torch.nn.Module):
    """A language model that writes 5 after 4, 6 after 5, and after 6 the end."""

    def forward(self, states):
        following = torch.tensor([7, 7, 7, 7, 5, 6, 1, 7])[states]
        return torch.nn.functional.one_hot(following, 8) * 1000.0


def test_a_text_is_played_until_its_end_and_paid_once(seeded):
    world = rl_to_rlhf.text_world([2, 4], lambda tokens: tokens.sum(1).double(), room=5)
    seen = play(rl_to_rlhf.Reader(Always()), world, batch=2, generator=seeded())
    assert world.horizon == 5
    assert seen.states[0].tolist() == [
        [2, 4, 0, 0, 0, 0, 0], [2, 4, 5, 0, 0, 0, 0], [2, 4, 5, 6, 0, 0, 0],
    ]  # fmt: skip
    assert seen.actions.tolist() == [[5, 6, 1]] * 2
    assert seen.rewards.tolist() == [[0, 0, 2 + 4 + 5 + 6 + 1]] * 2
    assert seen.terminated.all()


def test_a_text_without_room_is_cut_off_unpaid(seeded, refuses):
    world = rl_to_rlhf.text_world([2, 4], lambda tokens: tokens.sum(1).double(), room=2)
    seen = play(rl_to_rlhf.Reader(Always()), world, batch=1, generator=seeded())
    assert seen.rewards.tolist() == [[0, 0]] and not seen.terminated.any()
    with refuses("room: got 0, wanted an int of at least 1"):
        rl_to_rlhf.text_world([2], lambda tokens: tokens, room=0)


def test_strings_are_all_there_and_the_good_token_is_1():
    rows, good = rl_to_rlhf.strings(2)
    assert rows.actions.tolist() == [[a, b] for a in range(3) for b in range(3)]
    assert good.sum().item() == 6 and good.dtype == torch.float64
    assert good[3].tolist() == [1, 0] and good[1].tolist() == [0, 1]


def test_all_strings_begin_with_token_0():
    rows, _ = rl_to_rlhf.strings(2)
    assert (rows.states[:, 0] == 0).all()


def test_credit_is_what_follows_or_the_whole_sum():
    good = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    assert rl_to_rlhf.credited(good, at_end=False).tolist() == [[2, 1, 1], [1, 1, 0]]
    assert rl_to_rlhf.credited(good, at_end=True).tolist() == [[2, 2, 2], [1, 1, 1]]


class OneRow(torch.nn.Module):
    """The same logits after every prefix."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, states):
        return self.logits.expand(*states.shape, 3)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("baseline", [False, True])
def test_noise_is_that_of_every_single_gradient(length, at_end, shared, baseline):
    rows, good = rl_to_rlhf.strings(length)
    policy = OneRow() if shared else exact.PrefixTable(3, length)
    logps = token_logps(policy(rows.states), rows.actions)
    credit = rl_to_rlhf.credited(good, at_end=at_end)
    credit = credit - credit.mean(0) if baseline else credit
    losses = (credit * logps).sum(1)
    each = torch.stack([exact.gradient(loss, policy) for loss in losses])  # (K, N)
    mean = each.mean(0)  # the uniform policy: all strings are equally likely
    wanted = (each - mean).square().sum(1).mean() / mean.square().sum()
    got = rl_to_rlhf.noise(length, at_end=at_end, shared=shared, baseline=baseline)
    assert_close(got, wanted.item(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("length", range(1, 7))
def test_with_one_row_and_a_baseline_noise_does_not_grow_with_length(length):
    each, once = (
        rl_to_rlhf.noise(length, at_end=at_end, shared=True, baseline=True)
        for at_end in (False, True)
    )
    assert each == pytest.approx(1) and once == pytest.approx(3 - 2 / length)


def test_one_token_costs_the_same_and_four_cost_more_if_paid_at_the_end():
    assert rl_to_rlhf.noise(1, at_end=True) == rl_to_rlhf.noise(1, at_end=False)
    needed = {
        (length, at_end): [
            rl_to_rlhf.answers_needed(length, at_end=at_end, seed=seed)
            for seed in range(3)
        ]
        for length in (1, 4)
        for at_end in (True, False)
    }
    assert needed[1, True] == needed[1, False]
    assert all(count % 16 == 0 for counts in needed.values() for count in counts)
    assert sum(needed[4, True]) > 1.1 * sum(needed[4, False])
    assert rl_to_rlhf.answers_needed(1, at_end=True, seed=0, batch=5) % 5 == 0


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize(("length", "batch"), [(1, 8), (3, 16)])
def test_answers_are_counted_until_nine_tenths_are_earned(length, batch, at_end):
    def by_hand(seed):
        rows, good = rl_to_rlhf.strings(length)
        policy = exact.PrefixTable(3, length)
        optimiser = torch.optim.Adam(policy.parameters(), lr=0.1)
        draw, count = torch.Generator().manual_seed(seed), 0
        while True:
            logits = exact.completion_logps(policy, rows)  # (K,)
            chances = logits.detach().exp()
            if (chances * good.sum(1)).sum() > 0.9 * length:
                return count
            pick = torch.multinomial(chances, batch, True, generator=draw)
            count += batch
            to_go = good[pick].flip(1).cumsum(1).flip(1)
            credit = to_go[:, :1].expand_as(to_go) if at_end else to_go
            credit = credit - credit.mean(0)
            each = token_logps(policy(rows.states[pick]), rows.actions[pick])
            optimiser.zero_grad()
            (-(credit * each).sum(1).mean()).backward()
            optimiser.step()

    counts = []
    for seed in range(3):
        got = rl_to_rlhf.answers_needed(length, at_end=at_end, seed=seed, batch=batch)
        assert got == by_hand(seed)
        counts.append(got)
    if length == 3 and at_end:
        assert len(set(counts)) > 1  # the seed decides
