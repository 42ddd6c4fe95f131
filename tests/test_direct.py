"""Direct alignment: what a objective hands to its loss, and what training makes of it."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from test_on_policy import Bigram
from test_pair_logps import model, pairs
from torch.testing import assert_close

from lib import direct, preference_data, train
from lib import logps as logps_module
from lib.logps import answer_logps
from lib.losses import preference
from lib.losses.preference import dpo, kto, orpo, simpo
from lib.preference_data import unpaired
from lib.train import warm_cosine
from lib.worlds.language import TOKENIZER

close = partial(assert_close, rtol=0, atol=1e-12)
ROWS = torch.tensor([2, 0])


def spy():
    """A loss that notes what it is given."""
    seen = []

    def loss(*given):
        seen.append(given)
        return given[0].sum(), {}

    return loss, seen


def weights(policy):
    return torch.cat([w.detach().flatten() for w in policy.parameters()])


# ------------------------------------------------------------------------- the courses


@pytest.mark.parametrize("per_token", [False, True])
def test_a_compared_course_gives_the_loss_policy_and_reference_of_its_rows(per_token):
    policy, start, (loss, seen) = model(1), model(0), spy()
    objective = direct.with_reference(pairs(), loss, start, per_token=per_token)
    objective.loss(policy, ROWS)
    assert objective.count == 3
    for place, who in ((0, policy), (2, start)):
        for side, want in enumerate(
            preference_data.pair_logps(who, pairs(), per_token=per_token)
        ):
            close(seen[0][place + side], want[ROWS])
    assert seen[0][0].requires_grad and not seen[0][2].requires_grad


def test_an_uncompared_course_gives_means_per_token():
    policy, (loss, seen) = model(1), spy()
    objective = direct.without_reference(pairs(), loss, context=32)
    objective.loss(policy, ROWS)
    assert objective.count == 3 and len(seen[0]) == 2
    for got, want in zip(
        seen[0], preference_data.pair_logps(policy, pairs(), per_token=True)
    ):
        close(got, want[ROWS])


def test_a_judged_course_scores_mismatched_answers_anew():
    policy, start, (loss, seen) = model(1), model(0), spy()
    answers, good = preference_data.unpaired(pairs())
    objective = direct.unpaired_objective(answers, good, start, loss)
    objective.loss(policy, ROWS)
    logps, ref, desirable, kl = seen[0]
    assert objective.count == 6
    close(logps, answer_logps(policy, answers)[ROWS])
    close(ref, answer_logps(start, answers)[ROWS].detach())
    assert desirable.tolist() == [True, True]
    strangers = preference_data.mismatched(answers)
    drift = answer_logps(policy, strangers)
    drift = (drift - answer_logps(start, strangers))[ROWS]
    close(kl, drift.mean().detach())
    assert not kl.requires_grad and not ref.requires_grad and logps.requires_grad


def test_kto_is_what_a_judged_course_teaches_unless_told_otherwise():
    answers, good = preference_data.unpaired(pairs())
    found = direct.unpaired_objective(answers, good, model()).loss(model(), ROWS)[0]
    assert found.item() == pytest.approx(0.5)  # at the reference r = z = 0


def test_the_reference_is_asked_once_and_never_again(monkeypatch):
    start, asked = model(0), []
    honest = logps_module.action_logps

    def counted(who, *rest, **more):
        asked.append(who is start)
        return honest(who, *rest, **more)

    monkeypatch.setattr(logps_module, "action_logps", counted)
    direct.align(start, pairs(), dpo, epochs=4, lr=1e-3, batch=2, seed=0)
    assert asked == [True] + 8 * [False]


# ---------------------------------------------------------------------------- training


def test_the_first_update_starts_from_log_2_and_the_model_stays_as_it_was():
    start = model()
    before = weights(start)
    policy, history = direct.align(start, pairs(), dpo, lr=1e-3, seed=0)
    assert history["loss"] == [pytest.approx(0.6931471805599453)]
    assert torch.equal(weights(start), before)
    assert not torch.equal(weights(policy), before)


@pytest.mark.parametrize(
    "name",
    ["dpo", "cdpo", "robust_dpo", "ipo", "slic_hinge", "apo_zero", "apo_down"],
)
def test_every_paired_loss_learns_to_tell_the_pairs_apart(name):
    loss = partial(getattr(preference, name), beta=0.5)
    knobs = {"epochs": 30, "lr": 3e-3, "seed": 0}
    _, history = direct.align(model(), pairs(), loss, **knobs)
    assert history["accuracy"][-1] == 1
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("loss", [simpo, orpo])
def test_so_do_those_without_a_reference(loss):
    objective = direct.without_reference(pairs(), loss, context=32)
    _, history = direct.train(model(), objective, epochs=30, lr=3e-3, seed=0)
    assert history["accuracy"][-1] == 1
    assert history["loss"][-1] < history["loss"][0]


def test_so_does_kto_without_the_pairs():
    objective = direct.unpaired_objective(
        *preference_data.unpaired(pairs()), model(), partial(kto, beta=0.5)
    )
    _, history = direct.train(model(), objective, epochs=60, lr=3e-3, seed=0)
    assert history["margin"][-1] > 1
    assert history["loss"][-1] < 0.4 < history["loss"][0]


def test_another_reference_is_another_loss():
    knobs = {"lr": 1e-3, "seed": 0}
    _, own = direct.align(model(0), pairs(), dpo, **knobs)
    _, other = direct.align(model(0), pairs(), dpo, reference=model(1), **knobs)
    assert own["loss"] != other["loss"]
    _, same = direct.align(model(0), pairs(), dpo, reference=model(0), **knobs)
    assert own["loss"] == same["loss"]


def test_per_token_is_handed_on():
    knobs = {"lr": 1e-3, "seed": 0, "epochs": 2}
    _, sums = direct.align(model(), pairs(), dpo, **knobs)
    _, means = direct.align(model(), pairs(), dpo, per_token=True, **knobs)
    assert abs(means["margin"][1]) < abs(sums["margin"][1])


def test_the_rate_climbs_and_falls_and_the_order_is_the_seed_s(monkeypatch):
    rates, rows = [], []
    honest = train.fit

    def spied(policy, stream, loss, *, lr, **more):
        rates.append(lr)
        rows.append([part.tolist() for part in stream(0)])
        return honest(policy, stream, loss, lr=lr, **more)

    monkeypatch.setattr(direct, "fit", spied)
    for seed in (0, 0, 1):
        direct.align(model(), pairs(), dpo, epochs=3, lr=0.01, batch=2, seed=seed)
    want = warm_cosine(0.01, 6, warm=10)
    assert [rates[0](i) for i in range(7)] == [want(i) for i in range(7)]
    assert rows[0] == rows[1] != rows[2]
    assert [len(part) for part in rows[0]] == [2, 1] * 3
    assert sorted(sum(rows[0][:2], [])) == [0, 1, 2]


def test_whoever_watches_sees_every_update_and_the_end():
    seen = []
    policy, _ = direct.align(
        model(),
        pairs(),
        dpo,
        epochs=2,
        lr=1e-3,
        batch=2,
        seed=0,
        watch=lambda update, policy: seen.append((update, weights(policy))),
    )
    assert [update for update, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[0][1], weights(model()))
    assert torch.equal(seen[-1][1], weights(policy))
    assert not torch.equal(seen[1][1], seen[2][1])


def test_training_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    place = tmp_path / "dpo.pt"
    knobs = {"epochs": 3, "lr": 1e-3, "batch": 2, "seed": 0}
    whole, history = direct.align(model(), pairs(), dpo, **knobs)

    class Stop(Exception):
        pass

    def stop(update, policy):
        if update == 4:
            raise Stop

    kept = {"checkpoint": place, "every": 2}
    with pytest.raises(Stop):
        direct.align(model(), pairs(), dpo, watch=stop, **kept, **knobs)
    seen = []
    resumed, found = direct.align(
        model(),
        pairs(),
        dpo,
        watch=lambda update, _: seen.append(update),
        **kept,
        **knobs,
    )
    assert seen == [4, 5, 6]
    assert torch.equal(weights(whole), weights(resumed))
    assert history == found


# ---------------------------------------------------------------------------- refusals


def test_unsound_pairs_are_refused_before_anything_is_trained(refuses):
    same = pairs(bad=("Ada Ash is kind.", "No.", "I do not know."))
    said = "pairs: got twice the same answer in pair 0, wanted two different answers in"
    with refuses(f"{said} each"):
        direct.align(model(), same, dpo, lr=1e-3, seed=0)
    with refuses(f"{said} each"):
        direct.without_reference(same, simpo, context=32)


def test_a_pair_longer_than_the_context_is_refused():
    with pytest.raises(
        ValueError, match=r"pairs.chosen: got 2\d tokens to read in row"
    ):
        direct.without_reference(pairs(), simpo, context=20)


def test_answers_and_verdicts_come_in_the_same_number(refuses):
    answers, good = preference_data.unpaired(pairs())
    with refuses("desirable: got shape (5,), wanted shape (6,)"):
        direct.unpaired_objective(answers, good[:5], model())


def test_mismatched_answers_must_fit_as_well():
    answers, good = pairs().rejected, torch.tensor([True, False, False])
    longest = int((answers.ends.long().argmax(1) + 1).max())
    strangers = preference_data.mismatched(answers)
    needed = int((strangers.ends.long().argmax(1) + 1).max())
    assert needed > longest
    start = model()
    start.config = replace(start.config, context=longest)
    with pytest.raises(ValueError, match=rf"mismatched answers: got {needed} tokens"):
        direct.unpaired_objective(answers, good, start)
    start.config = replace(start.config, context=longest - 1)
    with pytest.raises(ValueError, match=rf"^answers: got {longest} tokens"):
        direct.unpaired_objective(answers, good, start)


@pytest.mark.parametrize("name", ["epochs", "batch"])
def test_there_is_at_least_one_of_everything(name, refuses):
    with refuses(f"{name}: got 0, wanted an int of at least 1"):
        direct.align(model(), pairs(), dpo, **{"lr": 1e-3, "seed": 0, name: 0})


def test_a_batch_has_32_rows_and_there_is_one_epoch_unless_told_otherwise():
    rows = pairs().rows(torch.arange(65) % 3)
    _, history = direct.align(model(), rows, dpo, lr=1e-3, seed=0)
    assert len(history["loss"]) == 3
    _, history = direct.align(
        model(), rows.rows(torch.arange(64)), dpo, lr=1e-3, seed=0
    )
    assert len(history["loss"]) == 2


def test_any_causal_model_can_be_aligned():
    start, some = Bigram(len(TOKENIZER)), pairs()
    policy, history = direct.align(start, some, dpo, lr=0.1, epochs=8, seed=0)
    assert history["loss"][0] == pytest.approx(math.log(2))
    assert history["loss"][-1] < history["loss"][0] and (start.table == 0).all()
    single, _ = unpaired(some)
    kto_on = direct.unpaired_objective(
        single, torch.arange(len(single)) % 2 == 0, start
    )
    assert direct.train(start, kto_on, lr=0.1, seed=0)[0].table.abs().sum() > 0
