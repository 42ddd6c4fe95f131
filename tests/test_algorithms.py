"""Ten algorithms, one Lesson: what each makes of the same credit, worked by hand."""

import inspect
import math
from dataclasses import FrozenInstanceError, replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from lib import algorithms
from lib.kl import k3
from lib.rollout import Batch, Rollout

close = partial(assert_close, rtol=0, atol=1e-12)
T, F = True, False
ROOM = 5  # tokens that an answer might have taken
MASK = torch.tensor([[F, T, T, T], [F, T, F, F], [T, T, F, F]])
LENGTHS = MASK.sum(1, keepdim=True).double()  # 3, 1, 2
TOKENS, ROWS = 6, 3
CREDIT = torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64).expand(3, 4)
EACH = torch.arange(12, dtype=torch.float64).reshape(3, 4) / 4 - 1  # a token its own


def f64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


OLD = -f64([7, 0.5, 1, 2], [7, 0.25, 7, 7], [1.5, 3, 7, 7])


def lesson(advantages=CREDIT, *, beta=0.0, ref_logps=None):
    """Three answers with this credit; garbage stands behind the mask."""
    old = OLD.masked_fill(~MASK, math.nan)
    tokens = torch.zeros(3, 4, dtype=torch.int64)
    rollout = Rollout(
        states=tokens,
        actions=tokens,
        logps=old,
        rewards=torch.zeros(3, 4),
        mask=MASK,
        last_states=tokens[:, 0],
        terminated=torch.ones(3, dtype=torch.bool),
    )
    return Batch(
        rollout=rollout,
        group=3,
        advantages=advantages,
        length=ROOM,
        beta=beta,
        ref_logps=ref_logps,
    )


def learn(name, seen, ratio=None):
    """Loss, metrics and d loss / d logps at π = ratio · π_old."""
    logps = OLD if ratio is None else OLD + ratio.log()
    logps = logps.masked_fill(~MASK, math.nan).requires_grad_()
    loss, metrics = algorithms.ALGORITHMS[name].policy_loss(logps, seen)
    return loss.detach(), metrics, torch.autograd.grad(loss, logps)[0]


# ---------------------------------------------------------------- on-policy


WEIGHT = {  # of a token in an answer, by the mean that is taken
    "REINFORCE": 1 / ROWS,  # a sum over each answer, a mean over answers
    "RLOO": 1 / ROWS,
    "MaxRL": 1 / ROWS,
    "PPO": 1 / TOKENS,  # a mean over tokens
    "DAPO": 1 / TOKENS,
    "CISPO": 1 / TOKENS,
    "GRPO": 1 / (ROWS * LENGTHS),  # a mean over each answer, then over answers
    "GSPO": 1 / (ROWS * LENGTHS),
    "SAPO": 1 / (ROWS * LENGTHS),
    "Dr. GRPO": 1 / (ROWS * ROOM),  # by a constant
}


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_on_policy_every_gradient_is_reinforces_but_for_the_mean(name):
    _, _, slope = learn(name, lesson())
    weight = torch.as_tensor(WEIGHT[name], dtype=torch.float64)
    close(slope, torch.where(MASK, -CREDIT * weight, 0.0))
    _, _, reinforce = learn("REINFORCE", lesson())
    close(slope, reinforce * ROWS * weight)


BY_TOKEN = ["REINFORCE", "PPO", "GRPO", "Dr. GRPO", "DAPO", "CISPO", "SAPO", "MaxRL"]


@pytest.mark.parametrize("name", BY_TOKEN)
def test_each_token_may_have_its_own_credit(name):
    _, _, slope = learn(name, lesson(EACH.masked_fill(~MASK, math.nan)))
    weight = torch.as_tensor(WEIGHT[name], dtype=torch.float64)
    close(slope, torch.where(MASK, -EACH * weight, 0.0))


@pytest.mark.parametrize("name", ["RLOO", "GSPO"])
def test_who_clips_whole_answers_credits_whole_answers(name):
    _, _, slope = learn(name, lesson())
    _, _, other = learn(name, lesson(CREDIT.contiguous()))
    close(slope, other)
    assert {*BY_TOKEN, "RLOO", "GSPO"} == set(algorithms.ALGORITHMS)


def test_groups_of_zero_variance_have_no_gradient_and_others_a_loss_of_zero():
    for name in ("GRPO", "GSPO"):
        assert (learn(name, lesson(0 * CREDIT))[2] == 0).all()
        centred = f64([0.5], [-1.0], [0.5]).expand(3, 4)
        loss, _, slope = learn(name, lesson(centred))
        assert loss.abs() < 1e-12 and slope.abs().max() > 0.1


# ---------------------------------------------------------------- off-policy


def at(ratio):
    """This ratio at the very first token of the first answer, 1 elsewhere."""
    ratios = torch.ones(3, 4, dtype=torch.float64)
    ratios[0, 1] = ratio
    return ratios


SLOPES = {  # of that token, times -weight · credit: below, above and far above the clip
    "REINFORCE": (1, 1, 1, 1),
    "MaxRL": (1, 1, 1, 1),
    "RLOO": (0.5, 1.1, 0, 0),
    "PPO": (0.5, 1.1, 0, 0),
    "GRPO": (0.5, 1.1, 0, 0),
    "Dr. GRPO": (0.5, 1.1, 0, 0),
    "DAPO": (0.5, 1.1, 1.25, 0),  # more room upwards
    "GSPO": (0.5 ** (1 / 3), 0, 0, 0),  # its clip is far narrower
    "CISPO": (0.5, 1.1, 1.25, 5.0),  # the gradient goes on, its weight is held
    "SAPO": tuple(
        r * 4 / (1 + math.exp(1 - r)) / (1 + math.exp(r - 1))
        for r in (0.5, 1.1, 1.25, 6)
    ),
}


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_off_policy_each_has_its_own_idea_of_too_far(name):
    for ratio, want in zip((0.5, 1.1, 1.25, 6.0), SLOPES[name], strict=True):
        _, _, slope = learn(name, lesson(), at(ratio))
        weight = torch.as_tensor(WEIGHT[name], dtype=torch.float64).expand(3, 4)
        close(slope[0, 1], -weight[0, 1] * CREDIT[0, 1] * want)


@pytest.mark.parametrize(
    "name", set(algorithms.ALGORITHMS) - {"REINFORCE", "MaxRL", "SAPO"}
)
def test_the_clipped_tell_how_many_they_clipped(name):
    _, metrics, _ = learn(name, lesson(), at(6.0))
    share = 1 / ROWS if name in ("RLOO", "GSPO") else 1 / TOKENS
    assert metrics["clip_fraction"] == pytest.approx(share)


# ---------------------------------------------------------------- the penalty


REF = (OLD - 0.3).masked_fill(~MASK, math.nan)


def test_grpos_penalty_stands_in_its_loss():
    without, _, plain = learn("GRPO", lesson())
    loss, metrics, slope = learn("GRPO", lesson(beta=0.5, ref_logps=REF))
    each = k3(f64(0.3), f64(0.0)).item()  # the same at every token
    close(loss, without + 0.5 * each)
    assert metrics["kl"] == pytest.approx(each, abs=1e-12)
    pull = 0.5 * (1 - math.exp(-0.3))  # k3's slope
    weight = WEIGHT["GRPO"] * torch.ones(3, 4)
    close(slope, plain + torch.where(MASK, pull * weight.double(), 0.0))


@pytest.mark.parametrize("name", set(algorithms.ALGORITHMS) - {"GRPO"})
def test_nobody_elses_does(name):
    assert not algorithms.ALGORITHMS[name].penalty_in_loss
    one, other = (learn(name, seen) for seen in (lesson(), lesson(ref_logps=REF)))
    assert torch.equal(one[2], other[2])


# ---------------------------------------------------------------- credit, and who has what


HALF = 0.5 / (math.sqrt(1 / 3) + 1e-4)
REWARDS = f64([1, 0, 0, 1], [1, 1, 1, 1])
CREDITED = {  # to the first answer and the second, which was right and which was wrong
    "REINFORCE": (1, 0, 1),
    "PPO": (1, 0, 1),  # where a critic will compare
    "RLOO": (2 / 3, -2 / 3, 0),
    "GRPO": (HALF, -HALF, 0),
    "Dr. GRPO": (0.5, -0.5, 0),
    "DAPO": (HALF, -HALF, 0),
    "GSPO": (HALF, -HALF, 0),
    "CISPO": (HALF, -HALF, 0),
    "SAPO": (HALF, -HALF, 0),
    "MaxRL": (1, -1, 0),
}


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_credit_is_by_comparison_or_not_at_all(name):
    right, wrong, equal = CREDITED[name]
    got = algorithms.ALGORITHMS[name].credit(REWARDS)
    close(got, f64([right, wrong, wrong, right], [equal] * 4))


def test_who_has_a_critic_who_resamples_and_whose_penalty_is_in_the_loss():
    def those(flag):
        return [
            name for name, each in algorithms.ALGORITHMS.items() if getattr(each, flag)
        ]

    assert those("critic") == ["PPO"]
    assert those("resample") == ["DAPO"]
    assert those("penalty_in_loss") == ["GRPO"]


def test_the_ladder_has_ten_rungs_and_their_papers():
    assert {name: each.paper for name, each in algorithms.ALGORITHMS.items()} == {
        "REINFORCE": "Williams 1992",
        "RLOO": "Ahmadian et al. 2024",
        "PPO": "Schulman et al. 2017",
        "GRPO": "Shao et al. 2024",
        "Dr. GRPO": "Liu et al. 2025",
        "DAPO": "Yu et al. 2025",
        "GSPO": "Zheng et al. 2025",
        "CISPO": "MiniMax 2025",
        "SAPO": "Gao et al. 2025",
        "MaxRL": "Tajwar et al. 2026",
    }


def test_nobody_changes_an_algorithm_or_a_batch():
    with pytest.raises(FrozenInstanceError):
        algorithms.ALGORITHMS["PPO"].critic = False
    seen = lesson()
    with pytest.raises(FrozenInstanceError):
        seen.beta = 1.0
    assert replace(seen, beta=1.0).beta == 1.0


# ---------------------------------------------------------------- what a loss is given


class Counted:
    """A loss that knows how often somebody asked what its arguments are."""

    def __init__(self):
        self.asked = 0

    @property
    def __signature__(self):
        self.asked += 1
        return inspect.signature(lambda logps, mask, length: None)

    def __call__(self, **given):
        return given["logps"].sum(), dict.fromkeys(given, 0.0)


def test_an_algorithm_reads_what_its_loss_takes_once_and_gives_it_that():
    loss = Counted()
    algorithm = algorithms.Algorithm("a paper", algorithms.as_they_are, loss)
    once = loss.asked
    for _ in range(5):
        _, given = algorithm.policy_loss(OLD, lesson())
        assert list(given) == ["logps", "mask", "length"]
    assert loss.asked == once > 0
    other = replace(algorithm, loss=lambda logps: (logps.sum(), {}))
    assert other.takes == {"logps"} and algorithm.takes == {"logps", "mask", "length"}


def test_what_an_algorithm_is_does_not_depend_on_how_it_was_made():
    for rung in algorithms.ALGORITHMS.values():
        assert rung == replace(rung) and hash(rung) == hash(replace(rung))
        assert "takes" not in repr(rung)
