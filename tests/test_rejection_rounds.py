"""Rounds of rejection sampling: which row is whose, who learns what, and from what luck."""

import inspect
import math

import pytest
import torch
from torch.testing import assert_close

from lib import evaluate, rejection, train
from lib.models.transformer import Config, Transformer
from lib.rejection import (
    RejectionConfig,
    every_passing,
    finetune_on,
    passing,
    rejection_round,
    sample_and_score,
    selected,
)
from lib.rollout import concat, rollout_metrics
from lib.seeds import seed_of
from lib.sft import sft_loss, written
from lib.train import fit, minibatches
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import tasks

TINY = Config(
    vocabulary=len(TOKENIZER), context=128, layers=1, width=16, heads=2, hidden=16
)
SMALL = RejectionConfig(group=2, max_tokens=4, epochs=2, batch=3, lr=0.01)
ASKED = tasks("facts", count=5, seed=0)


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def weights(model):
    return torch.cat([w.flatten() for w in model.state_dict().values()])


def longest(asked, rollout):
    """A reward that anything can earn: the length, and a bit of the first token."""
    first = rollout.actions[torch.arange(len(rollout)), rollout.mask.long().argmax(1)]
    return rollout.lengths.double() + first.double() / 1000


def shown(count=7):
    texts = ["The fox is red.", "No.", "It is.", "A bee.", "Yes.", "I do.", "Red."]
    return written(
        [Task("facts", 1, f"{c}?", "") for c in "abcdefg"][:count], texts[:count]
    )


# ---------------------------------------------------------------------------- the settings


def test_a_plan_has_frozen_defaults():
    got = {
        n: p.default for n, p in inspect.signature(RejectionConfig).parameters.items()
    }
    assert got == {
        "group": 8,
        "temperature": 1.0,
        "max_tokens": evaluate.ANSWER,
        "epochs": 2,
        "batch": 32,
        "lr": 1e-3,
    }
    for function in (
        sample_and_score,
        finetune_on,
        rejection_round,
        rejection.rejection_rounds,
    ):
        assert (
            inspect.signature(function).parameters["config"].default
            == RejectionConfig()
        )


def test_an_impossible_plan_is_refused(refuses):
    for name in ("group", "max_tokens", "epochs", "batch"):
        with refuses(f"{name}: got 0, wanted an int of at least 1"):
            RejectionConfig(**{name: 0})
    for name in ("temperature", "lr"):
        with refuses(f"{name}: got 0, wanted a number above 0"):
            RejectionConfig(**{name: 0})
    assert RejectionConfig(group=1).group == 1


# ------------------------------------------------------------------------- the harvest


@pytest.mark.parametrize("rows", [1024, 5, 1])
def test_row_p_times_g_plus_g_is_answer_g_to_prompt_p(monkeypatch, rows):
    monkeypatch.setattr(rejection, "ROWS", rows)  # all at once; two prompts; one
    rollout, rewards = sample_and_score(tiny(), longest, ASKED, seed=3, config=SMALL)
    assert rewards.shape == (5, 2) and len(rollout) == 10
    each = longest(ASKED, rollout)
    for p, task in enumerate(ASKED):
        prompt = evaluate.prompt_ids(task)
        for g in range(2):
            row = rollout.states[2 * p + g]
            assert row[: len(prompt)].tolist() == prompt
            assert rewards[p, g] == each[2 * p + g]


@pytest.mark.parametrize(("rows", "first"), [(1024, 5), (5, 2), (4, 2), (3, 1), (1, 1)])
def test_so_many_prompts_are_asked_at_a_time_that_their_answers_fit(
    monkeypatch, rows, first
):
    monkeypatch.setattr(rejection, "ROWS", rows)
    got, _ = sample_and_score(tiny(), longest, ASKED, seed=3, config=SMALL)
    draw, parts = torch.Generator().manual_seed(3), []
    for i in range(0, 5, first):
        some = ASKED[i : i + first]
        parts.append(
            evaluate.ask(tiny(), some, generator=draw, group=2, max_tokens=4),
        )
    want = concat(*parts)
    for name in ("states", "actions", "logps", "mask", "terminated"):
        assert torch.equal(getattr(got, name), getattr(want, name))


def test_sampling_is_decided_by_its_config_and_its_seed_alone():
    before = torch.random.get_rng_state()
    first, _ = sample_and_score(tiny(), longest, ASKED, seed=3, config=SMALL)
    again, _ = sample_and_score(tiny(), longest, ASKED, seed=3, config=SMALL)
    other, _ = sample_and_score(tiny(), longest, ASKED, seed=4, config=SMALL)
    cold = RejectionConfig(group=2, max_tokens=4, temperature=0.01)
    sure, _ = sample_and_score(tiny(), longest, ASKED, seed=3, config=cold)
    assert torch.equal(first.actions, again.actions)
    assert first.actions.shape != other.actions.shape or not torch.equal(
        first.actions, other.actions
    )
    assert first.lengths.max() <= 4
    assert torch.equal(sure.rows(torch.tensor([0])).actions, sure.actions[1:2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_impossible_sampling_is_refused(refuses):
    with refuses("asked: got none, wanted at least one task"):
        sample_and_score(tiny(), longest, [], seed=0, config=SMALL)
    with refuses("seed: got -1, wanted an int of at least 0"):
        sample_and_score(tiny(), longest, ASKED, seed=-1, config=SMALL)


# --------------------------------------------------------------------------- selection

SCORES = torch.tensor([[0.0, 1, 1], [0, 0, 0], [0, 0, 1]])


def test_every_passing_answer_is_kept_prompt_by_prompt():
    assert every_passing(SCORES).tolist() == [[0, 1], [0, 2], [2, 2]]
    assert every_passing(SCORES, above=1.0).tolist() == []
    assert every_passing(SCORES, above=-0.5).shape == (9, 2)


def test_the_best_answer_of_a_prompt_that_nobody_answered_does_not_pass():
    best = rejection.top_per_prompt(SCORES)
    assert best.tolist() == [[0, 1], [1, 0], [2, 2]]
    assert passing(best, SCORES).tolist() == [[0, 1], [2, 2]]
    order = torch.tensor([[2, 2], [1, 1], [0, 2]])
    assert passing(order, SCORES).tolist() == [[2, 2], [0, 2]]  # its order is kept
    assert passing(order, SCORES, above=1.0).shape == (0, 2)


def test_selected_rows_are_those_of_the_pairs_in_their_order():
    answers = shown(6)  # two prompts of three answers, or three of two
    pairs = torch.tensor([[1, 0], [0, 2], [1, 0]])
    got = selected(answers, pairs, group=3)
    assert torch.equal(got.actions, answers.actions[[3, 2, 3]])
    assert torch.equal(got.mask, answers.mask[[3, 2, 3]])
    got = selected(answers, torch.tensor([[1, 0], [2, 1]]), group=2)
    assert torch.equal(got.actions, answers.actions[[2, 5]])


@pytest.mark.parametrize("pair", [(2, 0), (0, 3), (-1, 0), (0, -1)])
def test_pairs_that_point_nowhere_are_refused(pair, refuses):
    pairs = torch.tensor([[0, 0], pair])
    got = f"pairs: got {pair}, wanted places in (2, 3), (prompt, completion)"
    with refuses(got):
        selected(shown(6), pairs, group=3)
    with refuses(got):
        passing(pairs, torch.ones(2, 3))


def test_what_is_no_list_of_pairs_is_refused(refuses):
    for wrong, got in (
        (torch.zeros(3).long(), "torch.int64, shape (3,)"),
        (torch.zeros(3, 2), "torch.float32, shape (3, 2)"),
        (torch.zeros(2, 3).long(), "torch.int64, shape (2, 3)"),
    ):
        with refuses(f"pairs: got {got}, wanted int64, shape (N, 2)"):
            selected(shown(6), wrong, group=3)
    with refuses("group: got 4, wanted a divisor of 6 rows"):
        selected(shown(6), torch.zeros(1, 2).long(), group=4)
    with refuses("group: got 0, wanted an int of at least 1"):
        selected(shown(6), torch.zeros(1, 2).long(), group=0)
    with refuses("above: got nan, wanted a finite number"):
        every_passing(SCORES, above=math.nan)


# --------------------------------------------------------------------------- imitation


def test_imitation_is_fit_with_the_loss_of_instruction_tuning_on_shuffled_rows():
    rows, model, by_hand = shown(), tiny(), tiny()
    got, history = finetune_on(model, rows, seed=5, config=SMALL)
    draw = torch.Generator().manual_seed(5)
    order = list(minibatches(7, epochs=2, batch=3, generator=draw))
    assert [len(some) for some in order] == [3, 3, 1, 3, 3, 1]
    rate = train.warm_cosine(0.01, 6, warm=2)  # a fifth of 6, rounded up
    fit(by_hand, [rows.rows(some) for some in order], sft_loss, lr=rate)
    assert torch.equal(weights(got), weights(by_hand))
    assert len(history["loss"]) == 6
    assert torch.equal(weights(model), weights(tiny()))


def test_the_climb_of_the_learning_rate_is_never_longer_than_20_updates(monkeypatch):
    seen = []
    monkeypatch.setattr(rejection, "warm_cosine", lambda *a, **k: seen.append((a, k)))
    monkeypatch.setattr(rejection, "fit", lambda *a, **k: {})
    for epochs in (10, 43, 1):
        finetune_on(
            tiny(),
            shown(),
            seed=0,
            config=RejectionConfig(epochs=epochs, batch=3, lr=0.5),
        )
    assert seen == [
        ((0.5, 30), {"warm": 6}),
        ((0.5, 129), {"warm": 20}),
        ((0.5, 3), {"warm": 1}),
    ]


def test_an_interrupted_imitation_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole, history = finetune_on(tiny(), shown(), seed=5, config=SMALL)
    kept, calls = fit, []

    def in_pieces(model, batches, *args, **knobs):
        if not calls:  # the machine stops after four of the six updates
            calls.append(1)
            first = [batch for batch, _ in zip(batches(0), range(4))]
            kept(model, first, *args, **knobs)
            raise KeyboardInterrupt
        return kept(model, batches, *args, **knobs)

    monkeypatch.setattr(rejection, "fit", in_pieces)
    path = tmp_path / "imitation.pt"
    with pytest.raises(KeyboardInterrupt):
        finetune_on(tiny(), shown(), seed=5, config=SMALL, checkpoint=path)
    got, told = finetune_on(tiny(), shown(), seed=5, config=SMALL, checkpoint=path)
    assert torch.equal(weights(got), weights(whole))
    assert told == history


def test_another_seed_is_another_order():
    one, other = (finetune_on(tiny(), shown(), seed=s, config=SMALL)[0] for s in (5, 6))
    assert not torch.equal(weights(one), weights(other))


def test_there_must_be_something_to_imitate(refuses):
    with refuses("pairs: got none, wanted at least one answer to learn from"):
        selected(shown(6), torch.zeros(0, 2).long(), group=3)
    with refuses("seed: got -1, wanted an int of at least 0"):
        finetune_on(tiny(), shown(), seed=-1, config=SMALL)


# ------------------------------------------------------------------------------ rounds


def test_a_round_is_its_steps():
    got, notes = rejection_round(
        tiny(), longest, ASKED, rejection.top_per_prompt, seed=3, config=SMALL
    )
    rollout, rewards = sample_and_score(tiny(), longest, ASKED, seed=3, config=SMALL)
    pairs = rejection.top_per_prompt(rewards)
    by_hand, _ = finetune_on(
        tiny(), selected(rollout, pairs, group=2), seed=3, config=SMALL
    )
    assert torch.equal(weights(got), weights(by_hand))
    best = {"kept": 5.0, "kept_reward": rewards.max(1).values.mean(), "covered": 1.0}
    assert notes == {**rollout_metrics(rollout, rewards), **best}


def test_the_notes_say_how_many_prompts_are_still_in_the_data():
    def three(rewards):
        return torch.tensor([[0, 0], [0, 1], [4, 1]])

    _, notes = rejection_round(tiny(), longest, ASKED, three, seed=3, config=SMALL)
    _, rewards = sample_and_score(tiny(), longest, ASKED, seed=3, config=SMALL)
    assert (notes["kept"], notes["covered"]) == (3.0, 0.4)
    want = (rewards[0].sum() + rewards[4, 1]) / 3
    assert_close(notes["kept_reward"], want.item())


def test_the_pupil_learns_and_the_policy_only_answers(tmp_path):
    pupil, path = tiny(9), tmp_path / "round.pt"
    top = rejection.top_per_prompt
    knobs = {"seed": 3, "config": SMALL, "pupil": pupil, "checkpoint": path}
    got, _ = rejection_round(tiny(), longest, ASKED, top, **knobs)
    rollout, rewards = sample_and_score(tiny(), longest, ASKED, seed=3, config=SMALL)
    rows = selected(rollout, top(rewards), group=2)
    by_hand, _ = finetune_on(tiny(9), rows, seed=3, config=SMALL)
    assert torch.equal(weights(got), weights(by_hand))
    assert torch.equal(weights(pupil), weights(tiny(9)))
    assert path.exists()


def test_a_round_without_any_answer_to_learn_from_is_refused(refuses):
    def never(asked, rollout):
        return torch.zeros(len(rollout), dtype=torch.float64)

    got = "select: got none of 10 answers, rewards 0 to 0, wanted "
    wanted = "at least one to learn from: easier tasks, or more answers to each"
    with refuses(got + wanted):
        rejection_round(tiny(), never, ASKED, every_passing, seed=3, config=SMALL)


@pytest.mark.parametrize("afresh", [False, True])
def test_rounds_harvest_from_the_last_policy_and_teach_it_or_the_first(afresh):
    def ask(number):
        return tasks("facts", count=3, seed=number)

    seen, model, policy, told = [], tiny(), tiny(), []
    for number in range(3):
        policy, notes = rejection_round(
            policy,
            longest,
            ask(number),
            rejection.top_per_prompt,
            seed=seed_of("round", 7, number),
            config=SMALL,
            pupil=model if afresh else None,
        )
        told.append(notes)
    got, history = rejection.rejection_rounds(
        model,
        longest,
        ask,
        rejection.top_per_prompt,
        seed=7,
        count=3,
        config=SMALL,
        afresh=afresh,
        watch=lambda number, policy: seen.append((number, weights(policy))),
    )
    assert torch.equal(weights(got), weights(policy))
    assert history == {name: [notes[name] for notes in told] for name in told[0]}
    assert [number for number, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[0][1], weights(tiny()))
    assert torch.equal(seen[3][1], weights(got))
    assert torch.equal(weights(model), weights(tiny()))


def test_by_default_the_policy_goes_on_learning():
    assert (
        inspect.signature(rejection.rejection_rounds).parameters["afresh"].default
        is False
    )


def test_impossible_rounds_are_refused(refuses):
    for name, least in (("count", 1), ("seed", 0)):
        knobs = {"seed": 0, "count": 1, name: -1}
        with refuses(f"{name}: got -1, wanted an int of at least {least}"):
            rejection.rejection_rounds(
                tiny(), longest, lambda _: ASKED, every_passing, config=SMALL, **knobs
            )


def test_one_round_on_a_verified_skill_raises_what_is_sampled():
    """A toy: right is an answer that begins with one certain token."""
    asked = ASKED * 4
    config = RejectionConfig(group=16, max_tokens=2, epochs=4, batch=8, lr=0.02)

    def begins(asked, rollout):
        first = rollout.mask.long().argmax(1)
        token = rollout.actions[torch.arange(len(rollout)), first]
        return (token % 7 == 0).double()

    policy, history = rejection.rejection_rounds(
        tiny(), begins, lambda _: asked, every_passing, seed=0, count=2, config=config
    )
    _, after = sample_and_score(policy, begins, asked, seed=9, config=config)
    assert history["reward"][0] < 0.3 < 0.35 < history["reward"][1] < after.mean()
