"""What chapter 3 says of slopes, of payment at the end and of five bases, by other means."""

import pytest
import torch
from torch import nn

from labs import agents, rl_to_rlhf
from lib.advantages import reward_to_go
from lib.kl import exact_kl
from lib.ops import token_logps
from lib.worlds import cartpole, exact

# ------------------------------------------------------------ 3.4: two views, one slope


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_token_view_and_bandit_view_are_one_gradient_if_nothing_is_discounted(
    seed, gamma, seeded
):
    draw = seeded(seed)
    rows = exact.every_completion([0], tokens=range(3), end=2, max_tokens=4)
    policy = exact.PrefixTable(3, 4)
    nn.init.normal_(policy.logits, generator=draw)
    reward = torch.rand(len(rows), dtype=torch.float64, generator=draw)
    logps = exact.completion_logps(policy, rows)
    to_go = reward_to_go(rows.ends * reward[:, None], rows.mask, gamma=gamma)
    each = token_logps(policy(rows.states), rows.actions)
    tokens = exact.gradient(
        exact.expected((to_go * each).sum(1), logps.detach()), policy
    )
    answers = exact.gradient(exact.expected(reward * logps, logps.detach()), policy)
    true = exact.gradient(exact.expected(reward, logps), policy)
    assert (answers - true).abs().max() < 1e-12
    assert ((tokens - true).abs().max() < 1e-12) == (gamma == 1)
    if gamma == 1:
        credit = reward[:, None].expand(rows.mask.shape)
        assert torch.equal(to_go[rows.mask], credit[rows.mask])


# --------------------------------------------------- 3.4: what payment at the end costs


class Shared(nn.Module):
    """One row of logits for all prefixes, or one for each position."""

    def __init__(self, rows):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(rows, 3, dtype=torch.float64))

    def forward(self, states):
        rows = torch.arange(states.shape[1]).clamp(max=len(self.logits) - 1)
        return self.logits[rows].expand(*states.shape, 3)


def needed(policy, length, *, at_end, baseline):
    """n* by autograd, one string at a time, of a uniform policy."""
    rows = exact.every_completion([0], tokens=range(3), end=None, max_tokens=length)
    good = (rows.actions == 1).double()
    total = good.sum(1, keepdim=True)
    before = good.cumsum(1) - good
    credit = total.expand_as(good) if at_end else total - before
    if baseline:
        credit = credit - credit.mean(0)
    logps = token_logps(policy(rows.states), rows.actions)
    each = [exact.gradient(loss, policy) for loss in (credit * logps).sum(1)]
    each = torch.stack(each)
    mean = each.mean(0)
    return ((each - mean).square().sum(1).mean() / mean.square().sum()).item()


@pytest.mark.parametrize(
    ("rows", "baseline", "end", "each"),
    [
        ("prefix", False, 63.8, 32.7),
        ("prefix", True, 20.6, 12.5),
        ("position", False, 23.0, 11.5),
        ("position", True, 7.0, 4.0),
        ("one", False, 6.5, 2.9),
        ("one", True, 2.5, 1.0),
    ],
)
def test_payment_at_the_end_costs_what_the_table_says_of_four_tokens(
    rows, baseline, end, each
):
    policy = {
        "prefix": lambda: exact.PrefixTable(3, 4),
        "position": lambda: Shared(4),
        "one": lambda: Shared(1),
    }[rows]
    found = [needed(policy(), 4, at_end=a, baseline=baseline) for a in (True, False)]
    assert found == pytest.approx([end, each], abs=0.06)


@pytest.mark.parametrize("length", range(1, 6))
def test_with_one_row_and_a_baseline_the_cost_stays_below_3(length):
    cost = needed(Shared(1), length, at_end=True, baseline=True)
    assert cost == pytest.approx(3 - 2 / length)


# ---------------------------------------------------------------- 3.6: the KL penalty


def test_the_mean_log_ratio_over_answers_is_the_kl_token_by_token(seeded):
    rows = exact.every_completion([0], tokens=range(3), end=2, max_tokens=3)
    policy, reference = exact.PrefixTable(3, 3), exact.PrefixTable(3, 3)
    for table in (policy, reference):
        nn.init.normal_(table.logits, generator=seeded(1))
    nn.init.normal_(policy.logits, generator=seeded(2))
    law, ref = (
        exact.completion_logps(p, rows).detach().exp() for p in (policy, reference)
    )
    whole = (law * (law / ref).log()).sum()
    steps = exact_kl(policy(rows.states), reference(rows.states)).masked_fill(
        ~rows.mask, 0
    )
    assert whole.item() == pytest.approx((law * steps.sum(1)).sum().item(), rel=1e-12)


# ------------------------------------------------------------ 3.2 and 3.8: what was run


@pytest.fixture(scope="module")
def runs():
    return rl_to_rlhf.RECORD.read()["runs"]


def test_a_pole_that_is_always_pushed_to_one_side_stands_for_about_nine_steps():
    def push(states: torch.Tensor) -> torch.Tensor:
        return 1000 * torch.tensor([-1.0, 1.0]).double().expand(*states.shape[:-1], 2)

    assert 9 <= agents.evaluate(push, cartpole.world(), batch=1000) < 10


def test_four_of_five_poles_were_balanced_from_comparisons(runs):
    poles = runs["pole"].values()
    assert len(poles) == 5 and sum(p["judge"] >= 475 for p in poles) == 4
    assert all(p["comparisons"][-1] <= 750 for p in poles)


def test_an_agent_falls_at_once_where_no_posture_pays(runs):
    for pole in runs["pole"].values():
        pays = max(pole["leaning"]) > 1.5  # a pole that stands straight, less 1.5
        assert (pole["shifted"]["-1.5"] < 20) == (not pays)


def test_gold_rises_on_every_base_with_the_penalty(runs):
    def gold(base, when):
        return sum(base[when]["gold"]) / 200

    assert len(runs["RLHF"]) == 5
    for base in runs["RLHF"].values():
        assert gold(base, "with penalty") > max(
            gold(base, "before"), gold(base, "without")
        )
        assert base["without"]["reward"] > base["with penalty"]["reward"]
        assert base["without"]["kl"] > base["with penalty"]["kl"]
