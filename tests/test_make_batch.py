"""Credit where it is due, worked by hand: what each token of a judged answer has earned."""

import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lib import evaluate
from lib.algorithms import ALGORITHMS
from lib.logps import action_logps
from lib.losses.policy_gradient import clipped_value
from lib.models.transformer import Config, Transformer
from lib.on_policy import (
    PolicyWithCritic,
    RLConfig,
    gae_advantages,
    loss_of,
    make_batch,
)
from lib.ops import token_logps
from lib.reward_model import RewardModel
from lib.rollout import Rollout, rollout_metrics, zero_variance

SIZES = Config(9, context=8, layers=1, width=16, heads=2, hidden=16)
END, G = 2, 4
TEXTS = [
    ([1, 5], [3, 4, END]),
    ([1, 5], [END]),
    ([1, 5], [6, 7, 8]),  # cut off
    ([1, 5], [3, END]),
    ([1, 6], [4, END]),
    ([1, 6], [8, 8, END]),
    ([1, 6], [4, 4]),  # cut off
    ([1, 6], [END]),
]
REWARDS = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.float64)


def f64(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def model(seed=0):
    draws = torch.Generator().manual_seed(seed)
    made = Transformer(SIZES, generator=draws, dtype=torch.float64)
    with torch.no_grad():
        for weight in made.parameters():
            weight *= 4 if weight.ndim == 2 else 1
    return made


def answered(*texts, policy=None):
    """A rollout of (prompt, answer) texts; the policy's log-probabilities, or -1."""
    width = max(len(prompt) + len(answer) for prompt, answer in texts)
    tokens = torch.zeros(len(texts), width, dtype=torch.int64)
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(texts):
        n, end = len(prompt), len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor([*prompt, *answer])
        mask[row, n:end] = True
    states, actions, mask = tokens[:, :-1], tokens[:, 1:], mask[:, 1:]
    logps = -torch.ones(mask.shape, dtype=torch.float64)
    if policy is not None:
        logps = token_logps(policy(states), actions).detach()
    return Rollout(
        states=states,
        actions=actions,
        logps=logps.masked_fill(~mask, 0),
        rewards=torch.zeros_like(logps),
        mask=mask,
        last_states=tokens[:, -1],
        terminated=torch.tensor([answer[-1:] == [END] for _, answer in texts]),
    )


def learnt(name, *, rewards=REWARDS, reference=None, critic=None, **knobs):
    """The batch of this algorithm on the eight answers."""
    policy = model()
    rollout = answered(*TEXTS, policy=policy)
    learner = PolicyWithCritic(policy, critic)
    knobs = RLConfig(group=G, **knobs)
    return make_batch(learner, ALGORITHMS[name], rollout, rewards, reference, knobs)


class Table(nn.Module):
    """A critic that looks at the last token only: tokens (B, n) -> (B, n)."""

    def __init__(self, *values):
        super().__init__()
        self.values = nn.Parameter(f64(*values))

    def forward(self, tokens):
        return self.values[tokens]


# ---------------------------------------------------------------- credit


SPREAD = math.sqrt(1 / 3) + 1e-4  # of 1, 0, 0, 1: sample variance 4 · ¼ / 3
HALF = 0.5 / SPREAD
CREDIT = {
    "REINFORCE": [1, 0, 0, 1],
    "RLOO": [2 / 3, -2 / 3, -2 / 3, 2 / 3],  # the others' mean: 1/3 or 2/3
    "GRPO": [HALF, -HALF, -HALF, HALF],
    "Dr. GRPO": [0.5, -0.5, -0.5, 0.5],
    "DAPO": [HALF, -HALF, -HALF, HALF],
    "GSPO": [HALF, -HALF, -HALF, HALF],
    "CISPO": [HALF, -HALF, -HALF, HALF],
    "SAPO": [HALF, -HALF, -HALF, HALF],
    "MaxRL": [1, -1, -1, 1],  # (r - ½) / ½
}


@pytest.mark.parametrize("name", CREDIT)
def test_credit_by_hand(name):
    seen = learnt(name)
    want = f64(*CREDIT[name], 0, 0, 0, 0).unsqueeze(1).expand(8, 4)
    assert_close(seen.advantages, want, rtol=0, atol=1e-12)
    assert not seen.advantages.requires_grad
    assert seen.group == 4 and seen.beta == 0 and seen.length == evaluate.ANSWER == 48
    assert seen.ref_logps is None and seen.values is None and seen.returns is None


def test_every_algorithm_is_worked_by_hand():
    assert {*CREDIT, "PPO"} == set(ALGORITHMS)


def test_a_batch_knows_how_long_an_answer_might_have_been():
    assert learnt("Dr. GRPO", max_tokens=5).length == 5


def test_groups_of_zero_variance_are_those_of_equal_rewards():
    rewards = f64([1, 0, 0], [0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 0])
    assert zero_variance(rewards).tolist() == [False, True, True, False]


def test_what_is_noted_by_hand():
    rollout = answered(*TEXTS)
    logps = rollout.logps.masked_fill(rollout.mask, -2.0)
    logps[0, 1] = -6  # one of 17 tokens
    dirty = replace(rollout, logps=logps.masked_fill(~rollout.mask, math.nan))
    notes = rollout_metrics(dirty, f64([1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]))
    assert notes == pytest.approx(
        {
            "reward": 0.5,
            "zero_variance": 0.5,
            "length": 17 / 8,
            "entropy": (16 * 2 + 6) / 17,
            "finished": 6 / 8,
        },
        abs=1e-12,
    )
    assert all(type(value) is float for value in notes.values())
    assert learnt("RLOO").metrics.keys() == notes.keys()  # no kl without a reference


# ---------------------------------------------------------------- the reference


def moved():
    """Σ log π - log ref of each of the eight answers, (8,), and log ref, (8, 4)."""
    policy, reference = model(), model(1)
    rollout = answered(*TEXTS, policy=policy)
    ref = action_logps(reference, rollout, group=G).detach()
    return (rollout.logps - ref).sum(1), ref  # both are 0 behind the mask


def test_the_price_of_having_moved_is_taken_off_the_reward():
    far, _ = moved()
    assert far.abs().min() > 0.01
    seen = learnt("RLOO", reference=model(1), beta=0.3)
    paid = (REWARDS.flatten() - 0.3 * far).reshape(2, 4)
    others = (paid.sum(1, keepdim=True) - paid) / 3
    want = (paid - others).reshape(8, 1).expand(8, 4)
    assert_close(seen.advantages, want, rtol=0, atol=1e-12)
    assert seen.beta == 0 and seen.ref_logps is None
    assert seen.metrics["kl"] == pytest.approx(far.mean().item(), abs=1e-12)
    assert type(seen.metrics["kl"]) is float


def test_grpo_leaves_the_kl_penalty_to_its_loss():
    far, ref = moved()
    seen = learnt("GRPO", reference=model(1), beta=0.3)
    want = f64(*CREDIT["GRPO"], 0, 0, 0, 0).unsqueeze(1).expand(8, 4)
    assert_close(seen.advantages, want, rtol=0, atol=1e-12)
    assert seen.beta == 0.3
    assert_close(seen.ref_logps, ref, rtol=0, atol=1e-12)
    assert seen.metrics["kl"] == pytest.approx(far.mean().item(), abs=1e-12)


def test_without_a_price_the_reference_is_not_asked():
    for name in ("RLOO", "GRPO"):
        seen = learnt(name, reference=nn.Identity())  # it could not answer
        assert seen.ref_logps is None and "kl" not in seen.metrics


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_what_lies_behind_the_mask_reaches_no_credit(beta):
    policy, reference = model(), model(1)
    clean = answered(*TEXTS, policy=policy)
    dirty = replace(clean, logps=clean.logps.masked_fill(~clean.mask, math.nan))
    knobs = RLConfig(group=G, beta=beta)
    for name in ("RLOO", "GRPO", "PPO"):
        learner = PolicyWithCritic(policy, Table(*range(9)))
        got, want = (
            make_batch(learner, ALGORITHMS[name], rollout, REWARDS, reference, knobs)
            for rollout in (dirty, clean)
        )
        assert torch.equal(got.advantages, want.advantages)
        assert got.metrics == want.metrics


# ---------------------------------------------------------------- a critic


def test_gae_by_hand():
    # states 5 3 4 | 5; values 0.5, 0.25, 1 | 0.5; gamma 1, lambda 0.95
    rollout = answered(([1, 5], [3, 4, END]), ([1, 5], [8]))
    critic = Table(9, 9, 9, 0.25, 1, 0.5, 9, 9, 9)
    paid = f64([0, 0, 0, 1], [0, 0, 0, 0])
    credit, values, returns = gae_advantages(critic, rollout, paid)
    last = 1 - 1.0  # nothing comes after the end
    middle = (0 + 1 - 0.25) + 0.95 * last
    first = (0 + 0.25 - 0.5) + 0.95 * middle
    cut_off = 0 - 0.5  # that answer has ended, too
    raw = f64(first, middle, last, cut_off)
    assert raw.tolist() == pytest.approx([0.4625, 0.75, 0, -0.5], abs=1e-15)
    white = (raw - raw.mean()) / (raw.var() + 1e-8).sqrt()
    want = f64([0, *white[:3]], [0, white[3], 0, 0])
    assert_close(credit, want, rtol=0, atol=1e-12)
    assert_close(values, f64([0, 0.5, 0.25, 1], [0, 0.5, 0, 0]), rtol=0, atol=0)
    spent = f64([0.9625, 1, 1], [0, 0, 0])  # advantage + value
    assert_close(returns[0, 1:], spent[0], rtol=0, atol=1e-12)
    assert returns[1, 1].abs() < 1e-12


def test_a_reward_on_the_way_counts_from_where_it_is_paid():
    rollout = answered(([1], [3, 4, END]), ([1], [END]))
    _, _, returns = gae_advantages(Table(*[0] * 9), rollout, f64([1, -2, 4], [0, 0, 0]))
    want = [1 + 0.95 * (-2 + 0.95 * 4), -2 + 0.95 * 4, 4]
    assert returns[0].tolist() == pytest.approx(want, abs=1e-12)


def test_ppo_is_paid_token_by_token_and_compared_with_a_critic():
    _, ref = moved()
    critic = Table(0, 0.5, 0, 0.25, 1, -0.5, 0.75, 2, -1)
    seen = learnt("PPO", reference=model(1), critic=critic, beta=0.3)
    rollout = seen.rollout
    paid = 0.3 * (ref - rollout.logps)
    rows = torch.arange(8)
    paid[rows, rollout.lengths] += (
        REWARDS.flatten()
    )  # prompts of two: ends at its length
    want = gae_advantages(critic, rollout, paid)
    got = seen.advantages, seen.values, seen.returns
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs.detach(), rtol=0, atol=1e-12)
        assert not ours.requires_grad
    assert (seen.advantages[~rollout.mask] == 0).all() and seen.beta == 0
    white = seen.advantages[rollout.mask]
    assert abs(white.mean()) < 1e-12 and white.std().item() == pytest.approx(
        1, abs=1e-6
    )


def test_a_learner_is_all_that_is_trained():
    policy, critic = model(), RewardModel(model())
    alone, both = (PolicyWithCritic(policy, c) for c in (None, critic))
    assert len([*alone.parameters()]) == len([*policy.parameters()])
    assert len([*both.parameters()]) == len(
        [*policy.parameters(), *critic.parameters()]
    )
    assert alone.critic is None and PolicyWithCritic(policy).critic is None


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_loss_is_the_algorithms_on_the_answers_and_tells_what_was_noted(name):
    critic = Table(*range(9)) if name == "PPO" else None
    seen = learnt(name, critic=critic)
    policy, critic = model(2), Table(*[0.5] * 9)
    learner = PolicyWithCritic(policy, critic if name == "PPO" else None)
    loss, metrics = loss_of(ALGORITHMS[name])(learner, seen)
    logps = action_logps(policy, seen.rollout, group=4)
    want, told = ALGORITHMS[name].policy_loss(logps, seen)
    if name == "PPO":
        value = clipped_value(
            critic(seen.rollout.states), seen.values, seen.returns, seen.rollout.mask
        )[0]
        want = want + value
        told["value_loss"] = value.item()
    assert_close(loss, want, rtol=0, atol=1e-12)
    assert metrics == pytest.approx({**told, **seen.metrics}, abs=1e-12)
    assert loss.requires_grad


def test_two_prompts_in_a_group_are_noticed(refuses):
    seen = replace(learnt("RLOO"), group=8)
    with refuses("rollout: got two prompts in a group, wanted 8 answers to each"):
        loss_of(ALGORITHMS["RLOO"])(PolicyWithCritic(model()), seen)


def test_policy_and_critic_learn_from_their_own_part_of_the_loss():
    said = [value / 10 for value in range(9)]
    seen = learnt("PPO", critic=Table(*said))
    learner = PolicyWithCritic(model(2), Table(*[value + 0.1 for value in said]))
    loss, _ = loss_of(ALGORITHMS["PPO"])(learner, seen)
    loss.backward()
    logps = action_logps(learner.policy, seen.rollout, group=4)
    alone, _ = ALGORITHMS["PPO"].policy_loss(logps, seen)
    slopes = torch.autograd.grad(alone, list(learner.policy.parameters()))
    for weight, slope in zip(learner.policy.parameters(), slopes, strict=True):
        assert_close(weight.grad, slope, rtol=0, atol=1e-12)
    mask = seen.rollout.mask
    wrong = (seen.values + 0.1 - seen.returns).masked_fill(~mask, 0)  # within the clip
    want = torch.zeros(9, dtype=torch.float64)
    want.index_add_(0, seen.rollout.states.flatten(), wrong.flatten() / mask.sum())
    assert want.abs().max() > 0.01
    assert_close(learner.critic.values.grad, want, rtol=0, atol=1e-12)


def test_the_kl_that_is_told_is_that_of_whole_answers_also_where_the_loss_has_its_own():
    seen = learnt("GRPO", reference=model(1), beta=0.3)
    _, metrics = loss_of(ALGORITHMS["GRPO"])(PolicyWithCritic(model()), seen)
    assert metrics["kl"] == seen.metrics["kl"]


# ---------------------------------------------------------------- knobs, and what is refused


def test_the_knobs_have_defaults_and_stay():
    knobs = RLConfig()
    sizes = {"group": 8, "epochs": 1, "beta": 0.0, "max_tokens": 48}
    assert vars(knobs) == {**sizes, "temperature": 1.0}
    with pytest.raises(FrozenInstanceError):
        knobs.group = 2


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("group", 1, "an int of at least 2"),  # nothing to compare with
        ("epochs", 0, "an int of at least 1"),
        ("max_tokens", 0, "an int of at least 1"),
        ("beta", -0.1, "a number of at least 0"),
        ("temperature", 0, "a number above 0"),
    ],
)
def test_knobs_without_sense_are_refused(name, value, wanted, refuses):
    with refuses(f"{name}: got {value}, wanted {wanted}"):
        RLConfig(**{name: value})
    RLConfig(group=2, epochs=1, max_tokens=1, beta=0)


def test_an_answer_without_a_token_is_refused(refuses):
    rollout = answered(([1, 5], [3, END]), ([1, 5], []))
    learner = PolicyWithCritic(model(), Table(*range(9)))
    for name in ALGORITHMS:
        with refuses("mask: got no True in row 1, wanted a True in every row"):
            make_batch(
                learner, ALGORITHMS[name], rollout, f64([1, 0]), None, RLConfig(group=2)
            )


def test_rewards_that_are_not_those_of_the_groups_are_refused(refuses):
    for wrong in (REWARDS.flatten(), REWARDS[:1], REWARDS.reshape(4, 2)):
        got = tuple(wrong.shape)
        with refuses(f"rewards: got shape {got}, wanted shape (2, 4)"):
            learnt("RLOO", rewards=wrong)
    rewards = REWARDS.clone()
    rewards[0, 3] = math.nan
    with refuses("scores: got nan at index (3,), wanted finite numbers"):
        learnt("RLOO", rewards=rewards)


def test_what_an_algorithm_needs_and_has_not_is_refused(refuses):
    message = "a model to stay near to, since beta > 0"
    for name in ("RLOO", "GRPO"):
        with refuses(f"reference: got None, wanted {message}"):
            learnt(name, beta=0.1)
    with refuses("learner: got no critic, wanted one that says what to expect"):
        learnt("PPO")


def test_maxrl_wants_right_or_wrong(refuses):
    with refuses("rewards: got a value other than 0 and 1, wanted rewards of 0 or 1"):
        learnt("MaxRL", rewards=REWARDS / 2)
