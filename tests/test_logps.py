"""Answers that share a prompt: the same log-probabilities as row by row, for less."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from test_on_policy import Bigram
from torch.testing import assert_close

from lib.logps import action_logps
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.rollout import Rollout
from lib.sampling import complete

close = partial(assert_close, rtol=0, atol=1e-12)
SIZES = Config(11, context=16, layers=2, width=16, heads=2, hidden=16)


def model(*, seed=0, loud=4.0, dtype=torch.float64):
    """Weights `loud` times as large as at the start, so that everything matters."""
    draws = torch.Generator().manual_seed(seed)
    made = Transformer(SIZES, generator=draws, dtype=dtype)
    with torch.no_grad():
        for weight in made.parameters():
            weight *= loud if weight.ndim == 2 else 1.3
    return made


def written(*texts, fill=0):
    """A rollout of (prompt, answer) texts, `fill` behind each."""
    width = max(len(prompt) + len(answer) for prompt, answer in texts)
    tokens = torch.full((len(texts), width), fill)
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(texts):
        n, end = len(prompt), len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor([*prompt, *answer])
        mask[row, n:end] = True
    nothing = torch.zeros(mask[:, 1:].shape, dtype=torch.float64)
    return Rollout(
        states=tokens[:, :-1],
        actions=tokens[:, 1:],
        logps=nothing,
        rewards=nothing,
        mask=mask[:, 1:],
        last_states=tokens[:, -1],
        terminated=torch.ones(len(texts), dtype=torch.bool),
    )


def slow(policy, rollout, *, temperature=1.0):
    """What `action_logps` promises, row by row from its beginning."""
    logits = policy(rollout.states)
    logps = token_logps(logits, rollout.actions, temperature=temperature)
    return logps.masked_fill(~rollout.mask, 0)


def slopes(policy, logps):
    """The gradient of a sum in which every token has a weight of its own."""
    weights = torch.linspace(1, 2, logps.numel(), dtype=logps.dtype)
    return torch.autograd.grad(
        (logps * weights.reshape(logps.shape)).sum(), list(policy.parameters())
    )


def the_same(policy, rollout, *, group=1, temperature=1.0):
    """Values and gradients are those of the slow way."""
    got = action_logps(policy, rollout, group=group, temperature=temperature)
    want = slow(policy, rollout, temperature=temperature)
    close(got, want)
    assert (want[rollout.mask] < -1e-3).all()  # there is something to compare
    assert got.shape == rollout.mask.shape and (got[~rollout.mask] == 0).all()
    for ours, theirs in zip(slopes(policy, got), slopes(policy, want), strict=True):
        assert theirs.abs().max() > 1e-3
        close(ours, theirs, atol=1e-11)


FIRST, SECOND, SHORT, ONE = [1, 4, 9, 2], [1, 3, 3, 7, 8, 5], [1, 6], [1]


# ---------------------------------------------------------------- the same numbers


def test_a_row_alone_is_read_as_it_always_was():
    the_same(model(), written((FIRST, [5, 6, 2])))


def test_answers_of_different_lengths_to_one_prompt():
    texts = [
        (FIRST, [5, 6, 2]),
        (FIRST, [2]),
        (FIRST, [3, 3, 3, 10, 2]),
        (FIRST, [9, 2]),
    ]
    for group in (1, 2, 4):
        the_same(model(), written(*texts), group=group)


def test_prompts_of_different_lengths():
    texts = [
        (SECOND, [5, 6, 2]),
        (SECOND, [2, 4]),
        (SHORT, [3, 3, 3, 10, 7, 7, 2]),
        (SHORT, [9]),
        (FIRST, [8]),
        (FIRST, [4, 2]),
    ]
    for group in (1, 2):
        the_same(model(), written(*texts), group=group)


def test_a_prompt_of_one_token_is_nothing_but_the_first_state():
    texts = [(ONE, [5, 6, 2]), (ONE, [2]), (ONE, [1, 1, 4, 2]), (ONE, [10, 2])]
    for group in (1, 2, 4):
        the_same(model(), written(*texts), group=group)


def test_a_prompt_of_one_token_beside_a_longer_one():
    texts = [(ONE, [5, 6, 2]), (ONE, [2]), (FIRST, [7, 2]), (FIRST, [3, 4, 4, 2])]
    the_same(model(), written(*texts), group=2)


def test_the_same_prompt_may_be_asked_in_two_groups():
    texts = [(FIRST, [5, 2]), (FIRST, [6, 2]), (FIRST, [7]), (FIRST, [8, 8, 2])]
    the_same(model(), written(*texts), group=2)


def test_a_row_may_fill_the_context_to_its_last_place():
    texts = [(SECOND, list(range(1, 11))), (SECOND, [2])]
    the_same(model(), written(*texts), group=2)  # 6 + 10 = 16 tokens
    texts = [(SECOND, list(range(11))), (SECOND, [2])]
    the_same(model(), written(*texts), group=2)  # 17, of which the last is not read


def test_groups_of_eight_that_a_policy_has_sampled(seeded):
    policy = model(loud=2.0)
    knobs = {"end": 2, "max_tokens": 8, "generator": seeded(3), "group": 8}
    rollout = complete(policy, [FIRST, ONE, SECOND], **knobs)
    assert len(set(rollout.lengths.tolist())) > 3
    the_same(policy, rollout, group=8)
    found = action_logps(policy, rollout, group=8).detach()
    close(found[rollout.mask], rollout.logps[rollout.mask])  # what was drawn with


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_divides_the_logits(temperature, seeded):
    texts = [(FIRST, [5, 6, 2]), (FIRST, [2]), (SHORT, [3, 4]), (SHORT, [9, 2, 2])]
    the_same(model(), written(*texts), group=2, temperature=temperature)
    knobs = {"end": 2, "max_tokens": 5, "generator": seeded(1), "group": 2}
    policy = model(loud=2.0)
    rollout = complete(policy, [FIRST, SHORT], temperature=temperature, **knobs)
    found = action_logps(policy, rollout, group=2, temperature=temperature)
    close(found[rollout.mask], rollout.logps[rollout.mask])


def test_a_critic_may_ask_without_a_gradient_and_in_single_precision():
    policy = model(dtype=torch.float32)
    rollout = written((FIRST, [5, 6, 2]), (FIRST, [2]))
    with torch.no_grad():
        got = action_logps(policy, rollout, group=2)
    assert got.dtype == torch.float32 and not got.requires_grad
    assert_close(got, slow(policy, rollout).detach())


def test_any_stretch_of_a_row_may_be_the_answer():
    """As when only the tokens after a prompt of two turns are learned."""
    rollout = written((FIRST, [5, 6, 2, 3]), (FIRST, [5, 7, 9, 9]))
    mask = rollout.mask.clone()
    mask[:, 3] = mask[0, 6] = False  # the first token of both is now part of the prompt
    the_same(model(), replace(rollout, mask=mask), group=2)


# ---------------------------------------------------------------- what is read, and how


@pytest.mark.parametrize("group", [1, 2])
def test_nothing_behind_the_mask_reaches_a_value_or_a_gradient(group):
    policy = model()
    texts = [(SECOND, [5, 6, 2]), (SECOND, [2]), (SHORT, [3]), (SHORT, [9])]
    clean = written(*texts)
    want = action_logps(policy, clean, group=group)
    moves = slopes(policy, want)
    for fill in (7, -5, 10**6):  # the last two are no tokens at all
        dirty = written(*texts, fill=fill)
        actions = dirty.actions.masked_fill(~dirty.mask, fill)
        got = action_logps(policy, replace(dirty, actions=actions), group=group)
        assert torch.equal(got, want)
        pairs = zip(slopes(policy, got), moves, strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def thoughts(policy, monkeypatch):
    """How many tokens each block thinks about is written down, block after block."""
    counts = []
    for block in policy.blocks:
        think = block.think
        monkeypatch.setattr(
            block, "think", lambda x, t=think: counts.append(x.shape[:-1]) or t(x)
        )
    return counts


def test_a_group_reads_its_prompt_once_and_ends_with_its_answers(monkeypatch):
    policy = model()
    counts = thoughts(policy, monkeypatch)
    texts = [(FIRST, [5, 6, 2]), (FIRST, [2]), (SHORT, [3, 4]), (SHORT, [9, 2, 2])]
    action_logps(policy, written(*texts), group=2)
    # two prompts of 4 - 1 places (their last state belongs to the answers), 4 answers of 3
    assert counts == [(2 * 3 + 4 * 3,), (3 + 1 + 2 + 3,)]


def test_rows_without_a_group_are_read_side_by_side_up_to_the_longest(monkeypatch):
    policy = model()
    counts = thoughts(policy, monkeypatch)
    rollout = written((FIRST, [5, 6, 2, 4]), (SHORT, [3]))
    action_logps(policy, rollout.rows(torch.tensor([1])))  # two states of seven
    action_logps(policy, rollout)
    ones = written((ONE, [5, 6]), (ONE, [5]))
    action_logps(policy, ones, group=2)  # nothing to share
    assert counts == [(1, 2), (1,), (2, 7), (5,), (2, 2), (3,)]


def test_a_prompt_of_one_token_beside_a_longer_one_hinders_no_sharing(monkeypatch):
    policy = model()
    counts = thoughts(policy, monkeypatch)
    texts = [(ONE, [5]), (ONE, [6, 2]), (FIRST, [7]), (FIRST, [3, 4])]
    action_logps(policy, written(*texts), group=2)
    assert counts == [(2 * 3 + 4 * 2,), (6,)]


def test_only_answers_are_scored(monkeypatch):
    policy, scored = model(), []
    logits = policy.logits
    monkeypatch.setattr(policy, "logits", lambda x: scored.append(x.shape) or logits(x))
    action_logps(policy, written((FIRST, [5, 6, 2]), (FIRST, [2])), group=2)
    assert scored == [(4, 16)]


def test_a_policy_that_does_not_move_gives_the_ratio_one(seeded):
    policy = model(loud=2.0)
    knobs = {"end": 2, "max_tokens": 6, "generator": seeded(0), "group": 4}
    rollout = complete(policy, [FIRST, SHORT], **knobs)
    ratio = (action_logps(policy, rollout, group=4) - rollout.logps).exp()
    close(ratio[rollout.mask], torch.ones_like(ratio[rollout.mask]))


# ---------------------------------------------------------------- what is refused


TWO = written((FIRST, [5, 6, 2]), (FIRST, [2]))


def test_a_group_with_two_prompts_is_refused(refuses):
    message = "rollout: got two prompts in a group, wanted 2 answers to each"
    other = [1, 4, 8, 2]  # differs within
    last = [1, 4, 9, 3]  # differs in the state of the first action only
    for prompt in (other, last, FIRST[:3], [*FIRST, 1]):
        for texts in (
            [(FIRST, [5, 2]), (prompt, [5, 2])],
            [(prompt, [5]), (FIRST, [2])],
        ):
            with refuses(message):
                action_logps(model(), written(*texts), group=2)
    good = [(FIRST, [5]), (FIRST, [2])]
    with refuses(message):
        action_logps(model(), written(*good, (FIRST, [5]), (other, [2])), group=2)
    the_same(model(), written((FIRST, [5, 2]), (other, [5, 2])), group=1)


def test_a_group_that_does_not_divide_the_rows_is_refused(refuses):
    with refuses("group: got 3, wanted a divisor of 2 rows"):
        action_logps(model(), TWO, group=3)
    with refuses("group: got 4, wanted a divisor of 2 rows"):
        action_logps(model(), TWO, group=4)
    with refuses("group: got 0, wanted an int of at least 1"):
        action_logps(model(), TWO, group=0)


def test_a_row_beyond_the_context_is_refused(refuses):
    message = "rollout: got a row of 17, wanted at most 16 tokens"
    eleven = list(range(11))
    with refuses(message):
        action_logps(model(), written((SECOND, [*eleven, 2])))
    with refuses(message):
        action_logps(model(), written((SECOND, eleven), ([*SECOND, 1], eleven)))


def test_an_answer_without_a_token_is_refused(refuses):
    with refuses("mask: got no True in row 1, wanted a True in every row"):
        action_logps(model(), written((FIRST, [5, 6, 2]), (FIRST, [])), group=2)


def test_a_mask_with_a_hole_is_refused(refuses):
    message = "rollout: got a mask with a hole, wanted one stretch a row"
    for hole in ((0, 4), (1, 5)):
        rollout = written((FIRST, [5, 6, 2]), (FIRST, [2, 2, 4, 6]))
        mask = rollout.mask.clone()
        mask[hole] = False
        with refuses(message):
            action_logps(model(), replace(rollout, mask=mask), group=2)


def test_a_row_by_itself_may_hold_several_answers():
    rollout = written((FIRST, [5, 6, 2]), (SECOND, [2, 2, 4, 6]))
    for hole in ((0, 4), (1, 5)):
        rollout.mask[hole] = False
    the_same(model(), rollout, group=1)


def test_a_temperature_of_zero_is_refused(refuses):
    with refuses("temperature: got 0, wanted a number above 0"):
        action_logps(model(), TWO, temperature=0)


def test_a_token_that_is_none_is_refused(refuses):
    states = TWO.states.clone()
    states[:, 1] = 11
    with refuses("tokens: got 11 at index (0, 1), wanted integers in 0 … 10"):
        action_logps(model(), replace(TWO, states=states), group=2)
    actions = TWO.actions.clone()
    actions[0, 3] = 11
    with refuses("actions: got 11 at index (0,), wanted integers in 0 … 10"):
        action_logps(model(), replace(TWO, actions=actions), group=2)


def test_the_defaults_are_single_rows_at_temperature_one():
    policy, rollout = model(), written((FIRST, [5, 2]), (SHORT, [3]))
    want = action_logps(policy, rollout, group=1, temperature=1.0)
    assert torch.equal(action_logps(policy, rollout), want)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_any_causal_model_is_read_row_by_row_and_is_0_behind_the_mask(temperature):
    rollout, any_model = written((FIRST, [5, 6, 2]), (FIRST, [2])), Bigram(11)
    draws = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(any_model.table, generator=draws)
    got = action_logps(any_model, rollout, group=2, temperature=temperature)
    logits = any_model.table[rollout.states] / temperature
    every = logits.log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
    assert_close(got[rollout.mask], every[rollout.mask], rtol=0, atol=1e-12)
    assert (got[~rollout.mask] == 0).all() and (every[~rollout.mask] != 0).all()
