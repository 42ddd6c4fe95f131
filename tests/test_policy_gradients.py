"""What the probes say of ten algorithms, against pushes worked by hand and expectations."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from labs import policy_gradients as probes
from lib import ops
from lib.advantages import group_normalised, group_relative_success, leave_one_out
from lib.algorithms import ALGORITHMS
from lib.worlds import exact

LAM = 0.95
ONE_EACH = torch.tensor([[1.0, 0]]).double()
WORLD = exact.every_completion([0], tokens=range(2), end=1, max_tokens=4)


def close(got, want, tol=1e-12):
    got, want = (torch.as_tensor(x, dtype=torch.float64) for x in (got, want))
    assert_close(got, want, rtol=0, atol=tol)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# --- literal answers ------------------------------------------------------------------


def test_literal_answers_have_their_lengths_and_end():
    rollout = probes.literal([2, 3])
    assert rollout.mask.tolist() == [[True, True, False], [True] * 3]
    assert rollout.lengths.tolist() == [2, 3]
    assert rollout.terminated.all()
    close(rollout.logps, [[-math.log(2)] * 2 + [0], [-math.log(2)] * 3])
    assert rollout.states.dtype == rollout.actions.dtype == torch.long


def test_an_answer_of_no_tokens_is_refused(refuses):
    with refuses("lengths: got 0, wanted an int of at least 1"):
        probes.literal([2, 0])


def test_the_critic_of_the_probes_knows_each_prompt_s_mean():
    critic = probes.Knowing(torch.tensor([[1.0, 0], [3, 4]]))
    found = critic(torch.zeros(4, 3))
    assert found.tolist() == [[0.5] * 3, [0.5] * 3, [3.5] * 3, [3.5] * 3]


# --- pushes ---------------------------------------------------------------------------

HALF = 0.5 / (math.sqrt(0.5) + 1e-4)  # GRPO's advantage of the better of two
PUSHED = {  # on a token of a right answer of 2 tokens, and of a wrong one of 10
    "REINFORCE": (1 / 2, 0),
    "RLOO": (1 / 2, -1 / 2),
    "GRPO": (HALF / 4, -HALF / 20),
    "Dr. GRPO": (0.5 / 20, -0.5 / 20),
    "DAPO": (HALF / 12, -HALF / 12),
    "GSPO": (HALF / 4, -HALF / 20),
    "CISPO": (HALF / 12, -HALF / 12),
    "SAPO": (HALF / 4, -HALF / 20),
    "MaxRL": (1 / 2, -1 / 2),
}


@pytest.mark.parametrize("name", PUSHED)
def test_the_push_on_every_token_is_the_one_worked_by_hand(name):
    got = probes.push(ALGORITHMS[name], ONE_EACH, [2, 10])
    right, wrong = PUSHED[name]
    close(got, [[right] * 2 + [0] * 8, [wrong] * 10])


def test_the_push_of_ppo_is_its_critic_s_surprise_handed_back():
    raw = [0.5 * LAM, 0.5] + [-0.5 * LAM ** (9 - t) for t in range(10)]
    mean = sum(raw) / 12
    spread = math.sqrt(sum((x - mean) ** 2 for x in raw) / 11 + 1e-8)
    want = [(x - mean) / spread / 12 for x in raw]
    got = probes.push(ALGORITHMS["PPO"], ONE_EACH, [2, 10])
    close(got, [want[:2] + [0] * 8, want[2:]])


def test_a_ratio_may_differ_from_token_to_token():
    ratio = torch.tensor([[1.1, 1.3], [1.3, 0.7]], dtype=torch.float64)
    got = probes.push(ALGORITHMS["Dr. GRPO"], ONE_EACH, [2, 2], ratio=ratio)
    close(got, [[1.1 / 40, 0], [-1.3 / 40, 0]])
    same = probes.push(ALGORITHMS["Dr. GRPO"], ONE_EACH, [2, 2], ratio=1.1)
    close(same, [[1.1 / 40] * 2, [-1.1 / 40] * 2])


AT = [  # name, good, ratio, push
    ("REINFORCE", True, 3, 1),
    ("PPO", True, 1.1, 1.1),
    ("PPO", True, 1.21, 0),
    ("PPO", False, 1.3, -1.3),
    ("GRPO", False, 0.79, 0),
    ("DAPO", True, 1.27, 1.27),
    ("DAPO", True, 1.29, 0),
    ("RLOO", True, 1.01, 1.01**10),
    ("RLOO", True, 1.02, 0),
    ("GSPO", True, 1.0003, 1.0003),
    ("GSPO", True, 1.0005, 0),
    ("GSPO", False, 0.9996, 0),
    ("CISPO", True, 4, 4),
    ("CISPO", False, 8, -5),
    ("SAPO", True, 2, 2 * 4 * sigmoid(1) * sigmoid(-1)),
    ("SAPO", False, 2, -2 * 4 * sigmoid(1.05) * sigmoid(-1.05)),
]


@pytest.mark.parametrize(("name", "good", "ratio", "want"), AT)
def test_the_push_on_an_answer_that_has_moved(name, good, ratio, want):
    ratios = torch.tensor([1.0, ratio]).double()
    got = probes.push_at(ALGORITHMS[name], ratios, good=good)
    close(got, [1 if good or name == "REINFORCE" else -1, want], 1e-6)


def test_of_one_token_rloo_is_ppo():
    ratios = torch.tensor([1.1, 1.19, 1.21]).double()
    rloo, ppo = (
        probes.push_at(ALGORITHMS[n], ratios, good=True, length=1)
        for n in ("RLOO", "PPO")
    )
    close(rloo, [1.1, 1.19, 0], 1e-6)
    close(ppo, [1.1, 1.19, 0], 1e-6)


# --- probes ---------------------------------------------------------------------------


def hard(credit):
    """Σ|A| of 1 right in 16 over Σ|A| of 8 in 16, for a credit (right, wrong)."""
    (a, b), (c, d) = (credit(n) for n in (1, 8))
    return (abs(a) + 15 * abs(b)) / (8 * abs(c) + 8 * abs(d))


def spread(n):
    p = n / 16
    return math.sqrt(p * (1 - p) * 16 / 15) + 1e-4


CREDITS = {
    "REINFORCE": lambda n: (1, 0),
    "RLOO": lambda n: (1 - n / 16, -n / 16),
    "GRPO": lambda n: ((1 - n / 16) / spread(n), -n / 16 / spread(n)),
    "MaxRL": lambda n: ((1 - n / 16) / (n / 16), -1),
}


@pytest.mark.parametrize(
    ("name", "like"),
    [(name, name) for name in CREDITS]
    + [("Dr. GRPO", "RLOO"), ("DAPO", "GRPO"), ("GSPO", "GRPO"), ("SAPO", "GRPO")],
)
def test_how_much_harder_an_algorithm_looks_at_hard_questions(name, like):
    close(probes.hard(ALGORITHMS[name]), hard(CREDITS[like]), 1e-9)


def test_who_minds_where_the_rewards_zero_is():
    moved = {name: probes.shifted(a) for name, a in ALGORITHMS.items()}
    assert moved.pop("REINFORCE") == pytest.approx(
        20
    )  # 10 · 2 / 1: four answers, one right
    assert math.isnan(moved.pop("MaxRL"))
    assert max(moved.values()) < 1e-12


def test_who_minds_the_rewards_scale():
    grown = {name: probes.scaled(a) for name, a in ALGORITHMS.items()}
    assert math.isnan(grown.pop("MaxRL"))
    for name in ("REINFORCE", "RLOO", "Dr. GRPO"):
        assert grown.pop(name) == pytest.approx(10)
    assert all(abs(x - 1) < 1e-3 for x in grown.values())


def test_who_minds_the_length_of_an_answer_and_who_that_of_its_neighbour():
    own = {name: probes.long(a) for name, a in ALGORITHMS.items()}
    for name in ("GRPO", "GSPO", "SAPO"):
        assert own.pop(name) == pytest.approx(0.2)
    assert all(x == pytest.approx(1) for x in own.values())
    other = {name: probes.neighbour(a) for name, a in ALGORITHMS.items()}
    for name in ("DAPO", "CISPO"):
        assert other.pop(name) == pytest.approx(4 / 12)
    assert 0.5 < other.pop("PPO") < 1
    assert all(x == pytest.approx(1) for x in other.values())


EDGES = {
    "REINFORCE": (math.inf, 0),
    "RLOO": (1.2**0.1, 0.8**0.1),
    "PPO": (1.2, 0.8),
    "GRPO": (1.2, 0.8),
    "Dr. GRPO": (1.2, 0.8),
    "DAPO": (1.28, 0.8),
    "GSPO": (1.0004, 0.9997),
    "CISPO": (math.inf, 0),
    "SAPO": (math.inf, 0),
    "MaxRL": (math.inf, 0),
}


@pytest.mark.parametrize("name", EDGES)
def test_the_ratio_at_which_each_push_ends(name):
    found = probes.highest(ALGORITHMS[name]), probes.lowest(ALGORITHMS[name])
    assert found == pytest.approx(EDGES[name], abs=1e-6)


def test_the_table_has_a_row_for_each_and_says_what_else_there_is():
    some = {name: ALGORITHMS[name] for name in ("PPO", "GRPO", "DAPO", "MaxRL")}
    rows = [line.split(" | ") for line in probes.table(some).splitlines()]
    assert " | ".join(rows[0]) == (
        "| algorithm | reward + 10 | reward × 10 | a hard question | a long answer"
        " | a long neighbour | pushed up to | pushed down to | also has |"
    )
    assert rows[2] == [
        "| PPO", "the same", "× 1", "0.23", "1", "0.81", "1.2", "0.8", "a critic |"
    ]  # fmt: skip
    assert rows[3][-1] == "KL penalty in the loss (off) |"
    assert rows[4][-1] == "groups drawn anew |" and rows[4][6:8] == ["1.28", "0.8"]
    assert rows[5][1:] == [
        "refused", "refused", "1.88", "1", "1", "no end", "no end", "– |"
    ]  # fmt: skip
    assert len(rows) == 2 + len(some)
    [*_, row] = probes.table({"R": ALGORITHMS["REINFORCE"]}).splitlines()
    assert row.startswith("| R | another gradient | × 10 |")


# --- expectations ---------------------------------------------------------------------


def test_groups_are_all_there_with_their_probability():
    law = torch.tensor([0.25, 0.75]).double()
    found = [(index.tolist(), chance.item()) for index, chance in probes.groups(law, 2)]
    assert found == [([0, 0], 0.0625), ([0, 1], 0.375), ([1, 1], 0.5625)]
    law = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    every = list(probes.groups(law / law.sum(), 4))
    assert len(every) == math.comb(8, 4)
    assert sum(chance for _, chance in every).item() == pytest.approx(1, abs=1e-12)


def drawn(seed):
    draw, policy = torch.Generator().manual_seed(seed), exact.PrefixTable(2, 4)
    torch.nn.init.normal_(policy.logits, generator=draw)
    return policy, torch.rand(5, dtype=torch.float64, generator=draw)


def slope_of_j(policy, rewards):
    logps = exact.completion_logps(policy, WORLD)
    return exact.gradient(exact.expected(rewards, logps), policy)


@pytest.mark.parametrize("name", ["DAPO", "GRPO"])
def test_the_expectation_is_that_over_all_ordered_groups(name):
    policy, rewards = drawn(0)
    logps = ops.token_logps(policy(WORLD.states), WORLD.actions)
    law = exact.completion_logps(policy, WORLD).exp().detach()
    want = 0
    for group in product(range(5), repeat=2):
        index = torch.tensor(group)
        rows = replace(WORLD.rows(index), logps=logps[index].detach())
        seen = probes.credited(ALGORITHMS[name], rows, rewards[index].unsqueeze(0))
        want = (
            want
            - law[index].prod() * ALGORITHMS[name].policy_loss(logps[index], seen)[0]
        )
    got = probes.expected_push(ALGORITHMS[name], policy, WORLD, rewards, group=2)
    close(got, exact.gradient(want, policy))


SCALE = {"REINFORCE": 1, "RLOO": 1, "Dr. GRPO": 2 / 3 / probes.ROOM}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", SCALE)
def test_these_three_climb_the_expected_reward_up_to_a_factor(name, seed):
    policy, rewards = drawn(seed)
    got = probes.expected_push(ALGORITHMS[name], policy, WORLD, rewards, group=3)
    close(got, SCALE[name] * slope_of_j(policy, rewards))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("group", [2, 4])
def test_maxrl_climbs_the_log_of_the_success_rate_up_to_a_term_of_its_series(
    group, seed
):
    policy, _ = drawn(seed)
    right = torch.tensor([0.0, 1, 0, 1, 0]).double()
    logps = exact.completion_logps(policy, WORLD)
    p = exact.expected(right, logps).detach()
    got = probes.expected_push(ALGORITHMS["MaxRL"], policy, WORLD, right, group=group)
    close(got, (1 - (1 - p) ** (group - 1)) / p * slope_of_j(policy, right), 1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_with_right_and_wrong_the_deviation_only_weighs_questions(seed):
    policy, _ = drawn(seed)
    right = torch.tensor([0.0, 1, 0, 1, 0]).double()
    scaled = replace(ALGORITHMS["REINFORCE"], credit=group_normalised)
    got = probes.expected_push(scaled, policy, WORLD, right, group=3)
    assert torch.cosine_similarity(got, slope_of_j(policy, right), 0) > 1 - 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_with_graded_rewards_the_deviation_turns_the_gradient(seed):
    policy, rewards = drawn(seed)
    scaled = replace(ALGORITHMS["REINFORCE"], credit=group_normalised)
    got = probes.expected_push(scaled, policy, WORLD, rewards, group=3)
    assert torch.cosine_similarity(got, slope_of_j(policy, rewards), 0) < 0.999


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["GRPO", "DAPO"])
def test_a_mean_over_an_answer_s_or_a_batch_s_tokens_turns_the_gradient(name, seed):
    policy, rewards = drawn(seed)
    only = replace(ALGORITHMS[name], credit=leave_one_out)
    got = probes.expected_push(only, policy, WORLD, rewards, group=3)
    assert torch.cosine_similarity(got, slope_of_j(policy, rewards), 0) < 0.9999


def test_there_is_a_reward_for_each_completion(refuses):
    policy, rewards = drawn(0)
    with refuses("rewards: got shape (4,), wanted shape (5,)"):
        probes.expected_push(ALGORITHMS["RLOO"], policy, WORLD, rewards[:4], group=2)
    with refuses("size: got 0, wanted an int of at least 1"):
        list(probes.groups(torch.ones(1), 0))
    with refuses("rewards: got a value other than 0 and 1, wanted rewards of 0 or 1"):
        maxrl = replace(ALGORITHMS["RLOO"], credit=group_relative_success)
        probes.expected_push(maxrl, policy, WORLD, rewards, group=2)


def test_alignment_is_the_cosine_and_the_factor_along_the_slope():
    policy, rewards = drawn(1)
    centred = probes.alignment(ALGORITHMS["Dr. GRPO"], policy, WORLD, rewards, group=4)
    assert centred == pytest.approx((1, 0.75 / probes.ROOM))
    pushed = probes.expected_push(ALGORITHMS["GRPO"], policy, WORLD, rewards, group=2)
    slope = slope_of_j(policy, rewards)
    found = probes.alignment(ALGORITHMS["GRPO"], policy, WORLD, rewards, group=2)
    along = (pushed * slope).sum() / slope.norm()
    close(found, [along / pushed.norm(), along / slope.norm()])
    assert found[0] < 0.999
