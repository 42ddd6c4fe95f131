"""RLOO on a leash: what an answer earns, how far it went, and what is refused."""

import copy
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from labs import regularised
from labs.agents import policy_loss
from lib import evaluate
from lib.advantages import leave_one_out
from lib.kl import AdaptiveKL, k1, k2, k3
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.rollout import Rollout
from lib.train import fit
from lib.worlds import taste
from lib.worlds.village import TOKENIZER


def writer(seed: int = 0) -> Transformer:
    config = Config(
        vocabulary=len(TOKENIZER), context=96, layers=1, width=16, heads=2, hidden=32
    )
    draws = torch.Generator().manual_seed(seed)
    return Transformer(config, generator=draws, dtype=torch.float64)


def brevity(asked, rollout: Rollout) -> torch.Tensor:
    """A reward that depends on the answer: fewer tokens are better."""
    return -rollout.lengths.double()


def even(asked, rollout: Rollout) -> torch.Tensor:
    """The share of an answer's tokens whose number is even."""
    good = (rollout.actions % 2 == 0) & rollout.mask
    return good.sum(1).double() / rollout.lengths


def equal(asked, rollout: Rollout) -> torch.Tensor:
    return torch.full((len(rollout),), 0.7, dtype=torch.float64)


SMALL = {"requests": 2, "group": 3}


def one(policy, reference, reward, **knobs):
    """The first batch of a stream, and its notes."""
    notes = []
    knobs = {"seed": 0, "updates": 1, **SMALL, "notes": notes, **knobs}
    (seen,) = regularised.rloo(policy, reference, reward, **knobs)
    return seen, notes


# ---------------------------------------------------------------- how far


def record() -> tuple[Rollout, torch.Tensor]:
    """Two answers of two tokens and one, and the reference's log-probabilities."""
    logps = torch.tensor([[-1.0, -2.0], [-0.5, torch.nan]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    whole = torch.zeros(2, 2, dtype=torch.long)
    rollout = Rollout(
        states=whole,
        actions=whole,
        logps=logps,
        rewards=torch.zeros(2, 2),
        mask=mask,
        last_states=whole[:, 0],
        terminated=torch.ones(2, dtype=torch.bool),
    )
    return rollout, torch.tensor([[-1.5, -1.0], [-0.7, torch.inf]]).double()


def test_the_kl_of_an_answer_is_the_sum_over_its_tokens_by_hand():
    rollout, ref = record()
    got = regularised.sequence_kl(rollout, ref)
    assert got.tolist() == pytest.approx([0.5 - 1.0, 0.2])
    third = regularised.sequence_kl(rollout, ref, estimator=k3)
    want = [math.exp(-0.5) - 1 + 0.5 + math.exp(1) - 1 - 1, math.exp(-0.2) - 1 + 0.2]
    assert third.tolist() == pytest.approx(want)


def test_reference_log_probabilities_are_those_of_the_actions_without_gradient(seeded):
    policy, reference = writer(0), writer(1)
    seen, _ = one(policy, reference, brevity)
    rollout = seen.rollout
    got = regularised.ref_logps(reference, rollout)
    assert not got.requires_grad
    want = token_logps(reference(rollout.states), rollout.actions)
    torch.testing.assert_close(got, want.detach())


# ---------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_credit_is_reward_less_beta_k1_against_the_others(beta):
    policy, reference = writer(0), writer(1)
    seen, notes = one(policy, reference, brevity, beta=beta)
    rollout = seen.rollout
    assert len(rollout) == 6
    ref = regularised.ref_logps(reference, rollout)
    moved = regularised.sequence_kl(rollout, ref)
    paid = brevity(None, rollout) - beta * moved
    want = leave_one_out(paid.reshape(2, 3)).reshape(-1, 1)
    for row in (0, 3, 5):
        kept = seen.advantages[row][rollout.mask[row]]
        torch.testing.assert_close(
            kept.double(), want[row].expand(len(kept)), atol=1e-4, rtol=1e-4
        )
    assert torch.equal(seen.values, torch.zeros_like(seen.advantages))
    assert torch.equal(seen.returns, seen.advantages)
    (note,) = notes
    assert note.proxy == pytest.approx(-rollout.lengths.double().mean().item())
    assert note.k1 == pytest.approx(moved.mean().item(), abs=1e-4)
    each = regularised.sequence_kl(rollout, ref, estimator=k3)
    assert note.k3 == pytest.approx(each.mean().item(), rel=1e-4)
    assert note.k3 >= 0 and note.k3 != note.k1
    with pytest.raises(FrozenInstanceError):
        note.gold = 3.0
    assert note.length == rollout.lengths.double().mean().item()
    assert note.beta == beta
    assert all(type(value) is float for value in vars(note).values())


def test_a_stream_asks_anew_in_each_update_and_again_the_same_from_its_seed():
    def asked(seed):
        found = []

        def reward(tasks, rollout):
            found.append([task.request for task in tasks])
            return equal(tasks, rollout)

        stream = regularised.rloo(
            writer(), writer(), reward, seed=seed, updates=2, **SMALL
        )
        lengths = [seen.rollout.lengths.tolist() for seen in stream]
        return found, lengths

    first, again, other = asked(0), asked(0), asked(1)
    assert first == again
    assert first[0][0] != first[0][1] and first[0] != other[0]
    assert [len(each) for each in first[0]] == [2, 2]
    for seed, found in ((0, first[0]), (1, other[0])):
        for update, requests in enumerate(found):
            number = 10_000 * (seed + 1) + update
            wanted = taste.requests(count=2, seed=number)
            assert requests == [task.request for task in wanted]


def test_the_defaults_are_sixty_updates_of_sixteen_requests_and_four_answers():
    sizes = []

    def reward(tasks, rollout):
        sizes.append((len(tasks), len(rollout)))
        return equal(tasks, rollout)

    stream = regularised.rloo(writer(), writer(), reward, seed=0)
    next(stream)
    assert sizes == [(16, 64)]
    assert regularised.rloo.__kwdefaults__["updates"] == 60
    assert regularised.optimise.__kwdefaults__["updates"] == 60
    defaults = regularised.optimise.__kwdefaults__
    assert (defaults["requests"], defaults["group"], defaults["lr"]) == (16, 4, 1e-3)


def test_a_negative_beta_is_refused_before_anything_is_asked(refuses):
    with refuses("beta: got -0.1, wanted a number of at least 0"):
        next(regularised.rloo(None, None, None, seed=0, beta=-0.1))


def test_equal_rewards_teach_nothing_at_all():
    model = writer()
    policy, notes = regularised.optimise(model, equal, seed=0, updates=2, **SMALL)
    for before, after in zip(model.parameters(), policy.parameters()):
        assert torch.equal(before, after)
    assert [note.k1 for note in notes] == pytest.approx([0, 0], abs=1e-4)
    seen, _ = one(model, model, equal)
    assert (seen.advantages == 0).all()


def test_a_reward_is_learnt_and_the_reference_stays_as_it_was():
    model = writer()
    before = [weight.clone() for weight in model.parameters()]
    knobs = {"seed": 1, "updates": 12, "requests": 6, "group": 8, "lr": 2e-2}
    looks = []
    policy, notes = regularised.optimise(
        model, even, watch=lambda update, p: looks.append((update, p)), **knobs
    )
    assert notes[-1].proxy > notes[0].proxy + 0.1
    assert notes[-1].k1 > 0.1
    assert [update for update, _ in looks] == list(range(13))
    assert all(each is policy for _, each in looks)
    for old, new in zip(before, model.parameters()):
        assert torch.equal(old, new)
    held, tight = regularised.optimise(model, even, beta=100.0, **knobs)
    assert tight[-1].k3 < notes[-1].k3


def test_gold_is_the_mean_over_the_answers():
    asked = taste.requests(count=2, seed=10_000)
    seen, (note,) = one(writer(), writer(), equal)
    assert note.gold == pytest.approx(
        evaluate.scores(asked, seen.rollout).mean().item()
    )


def test_optimising_hands_every_knob_on_to_its_stream():
    model, sizes = writer(), []

    def reward(tasks, rollout):
        sizes.append((len(tasks), len(rollout)))
        return even(tasks, rollout)

    knobs = {"seed": 3, "updates": 2, "requests": 3, "group": 2}
    policy, notes = regularised.optimise(model, reward, beta=0.3, lr=1e-3, **knobs)
    assert sizes == [(3, 6), (3, 6)] and [note.beta for note in notes] == [0.3, 0.3]
    by_hand, same = copy.deepcopy(model), []
    stream = regularised.rloo(by_hand, model, even, beta=0.3, notes=same, **knobs)
    fit(by_hand, stream, policy_loss, lr=1e-3)
    assert same == notes
    for ours, theirs in zip(policy.parameters(), by_hand.parameters()):
        assert torch.equal(ours, theirs)


def test_a_controller_moves_beta_by_what_it_sees():
    leash = AdaptiveKL(0.1, target=6.0, horizon=12.0)
    seen, notes = one(writer(0), writer(0), brevity, beta=leash)
    assert notes[0].beta == 0.1
    assert leash.beta == pytest.approx(
        0.1 * (1 - 0.2 * 6 / 12)
    )  # KL 0: as slow as may be


@pytest.mark.parametrize(("estimator", "factor"), [(k1, 1.0), (k2, None), (k3, None)])
def test_the_leash_in_the_loss_adds_beta_times_the_estimate(estimator, factor):
    policy, reference = writer(0), writer(1)
    seen, _ = one(policy, reference, even)
    plain, _ = policy_loss(policy, seen)
    assert plain.abs() > 1e-2
    loss_fn = regularised.kl_in_loss(reference, beta=0.5, estimator=estimator)
    loss, metrics = loss_fn(policy, seen)
    rollout = seen.rollout
    ref = regularised.ref_logps(reference, rollout)
    want = regularised.sequence_kl(rollout, ref, estimator=estimator).mean().item()
    assert metrics["kl"] == pytest.approx(want, rel=1e-4, abs=1e-4)
    assert (loss - plain).item() == pytest.approx(0.5 * want, rel=1e-3, abs=1e-3)
    grads = torch.autograd.grad(loss - plain, list(policy.parameters()))
    assert any((grad != 0).any() for grad in grads)
    assert all(weight.grad is None for weight in reference.parameters())


# ---------------------------------------------------------------- what is refused


def test_broken_rewards_never_reach_a_weight(refuses):
    model = writer()
    for broken in (torch.nan, torch.inf):

        def reward(asked, rollout, broken=broken):
            values = equal(asked, rollout)
            values[1] = broken
            return values

        stream = regularised.rloo(model, model, reward, seed=0, updates=1, **SMALL)
        with pytest.raises(ValueError, match="reward: got .* at index"):
            next(stream)


def test_impossible_knobs_are_refused(refuses):
    def start(**knobs):
        knobs = {"seed": 0, "updates": 1, **SMALL, **knobs}
        next(regularised.rloo(writer(), writer(), equal, **knobs))

    with refuses("beta: got -0.1, wanted a number of at least 0"):
        start(beta=-0.1)
    with refuses("beta: got nan, wanted a finite number"):
        start(beta=math.nan)
    with refuses("group: got 1, wanted an int of at least 2"):
        start(group=1)
    with refuses("updates: got 0, wanted an int of at least 1"):
        start(updates=0)
    with refuses("requests: got 0, wanted an int of at least 1"):
        start(requests=0)
    with refuses("beta: got -1, wanted a number of at least 0"):
        regularised.kl_in_loss(writer(), beta=-1, estimator=k2)


def test_gold_is_measured_on_the_text_and_a_better_text_gets_more():
    asked = evaluate.taste.requests(count=2, seed=0)
    seen, notes = one(writer(), writer(), equal)
    assert notes[0].gold < -1
    assert replace(notes[0], gold=1.0).gold == 1.0
    assert len(asked) == 2
