"""What chapter 7 claims: imitation is a KL divergence and a policy gradient; ends matter."""

import pytest
import torch
from torch.testing import assert_close

from labs import agents, instruction_tuning, instruction_tuning_runs
from lib import sft, villagers
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.rollout import Batch
from lib.sft import sft_loss, written
from lib.train import fit
from lib.villagers import demonstrations
from lib.worlds import exact
from lib.worlds.village import TOKENIZER
from lib.worlds.village.tasks import SKILLS
from tools import notebooks

TINY = Config(vocabulary=307, context=128, layers=1, width=16, heads=2, hidden=16)
RECORD = instruction_tuning_runs.RECORD.read()


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def slope(loss, model):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, model.parameters())]
    )


@pytest.mark.parametrize("seed", range(5))
def test_imitation_is_a_policy_gradient_with_reward_1_on_somebody_else_s_actions(seed):
    shown, model = written(*zip(*demonstrations(count=2, seed=seed))), tiny(seed)
    one = torch.ones_like(shown.rewards)
    paid = agents.policy_loss(model, Batch(shown, one, one, one))[0]
    imitated = sft_loss(model, shown)[0] * shown.mask.sum() / len(shown)
    assert_close(slope(paid, model), slope(imitated, model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_kl_plus_entropy_and_the_people_themselves_are_its_minimum(
    seed, seeded
):
    draw = seeded(seed)
    every = exact.every_completion([0], tokens=range(3), end=2, max_tokens=3)
    people = torch.randn(len(every), dtype=torch.float64, generator=draw).log_softmax(0)
    policy = exact.PrefixTable(3, 3)
    torch.nn.init.normal_(policy.logits, generator=draw)

    def loss(model, _):
        return -exact.expected(exact.completion_logps(model, every), people), {}

    logps = exact.completion_logps(policy, every)
    kl = (people.exp() * (people - logps)).sum()
    entropy = -(people.exp() * people).sum()
    assert_close(loss(policy, None)[0], kl + entropy, rtol=0, atol=1e-12)
    fit(policy, [None] * 600, loss, lr=0.1)
    assert loss(policy, None)[0] - entropy < 1e-3
    fitted = exact.completion_logps(policy, every)
    assert_close(fitted.exp(), people.exp(), rtol=0, atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_to_imitate_oneself_teaches_nothing_and_the_chosen_teach_the_policy_gradient(
    seed, seeded
):
    draw = seeded(seed)
    every = exact.every_completion([0], tokens=range(3), end=2, max_tokens=3)
    policy = exact.PrefixTable(3, 3)
    torch.nn.init.normal_(policy.logits, generator=draw)
    chosen = torch.rand(len(every), dtype=torch.float64, generator=draw)
    logps = exact.completion_logps(policy, every)
    own = exact.gradient((logps.exp().detach() * logps).sum(), policy)
    assert own.abs().max() < 1e-12
    J = exact.expected(chosen, logps)
    law = (chosen * logps.exp() / J).detach()
    kept = exact.gradient((law * logps).sum(), policy)
    assert_close(kept, exact.gradient(J, policy) / J.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_with_the_end_hidden_the_loss_falls_and_the_model_does_not_learn_to_stop(seed):
    shown, ends = demonstrations(count=8, seed=seed), {}
    rows = written(*zip(*shown))
    last = rows.mask & (rows.actions == TOKENIZER.end)
    for edit in (instruction_tuning.as_written, instruction_tuning.without_end):
        model = instruction_tuning.tuned(
            tiny(seed), shown, updates=60, edit=edit, lr=0.02
        )
        with torch.no_grad():
            before, after = (sft_loss(m, edit(rows))[0] for m in (tiny(seed), model))
            logps = token_logps(model(rows.states), rows.actions)
        assert after < before - 1
        ends[edit] = logps[last].exp().mean()
    assert (
        ends[instruction_tuning.as_written]
        > 0.2
        > 0.01
        > ends[instruction_tuning.without_end]
    )


# ------------------------------------------------------------------------ the record


def column(sweep, what, **only):
    """(seeds, settings)."""
    found = [r for r in RECORD[sweep] if all(r[k] == v for k, v in only.items())]
    return torch.tensor([[r[what] for r in found if r["seed"] == s] for s in range(3)])


def test_the_record_says_what_made_it():
    made = RECORD["made"]
    assert made["command"] == "python -m tools.record_tuning"
    assert len(made["code"]) == 12 and made["date"] >= "2026-11-22"
    assert made["updates"] == instruction_tuning_runs.UPDATES
    assert (made["batch"], made["lr"]) == (sft.BATCH, sft.LR)


def test_the_record_holds_every_setting_on_every_seed():
    wanted = {
        "sizes": len(instruction_tuning_runs.SIZES),
        "masks": 5,
        "epochs": 1 + len(instruction_tuning_runs.LOOKS),
        "rates": len(instruction_tuning_runs.RATES),
        "rehearsals": len(instruction_tuning_runs.REHEARSALS),
        "alone": 2,
    }
    for sweep, settings in wanted.items():
        assert len(RECORD[sweep]) == 3 * settings
        assert set(RECORD["before"]) < set(RECORD[sweep][0])


def test_the_sweeps_can_be_made_again(monkeypatch):
    monkeypatch.setattr(instruction_tuning_runs, "UPDATES", 3)
    monkeypatch.setattr(instruction_tuning_runs, "SIZES", (1,))
    [found] = instruction_tuning_runs.sizes(tiny().float(), 0)
    assert found["shown"] == 7
    assert set(found) == {"shown", *RECORD["before"]}
    assert all(skill in found for skill in SKILLS)


def test_longer_questions_hold_the_question_and_fit_the_context():
    asked = [task for task, _ in demonstrations(count=5, seed=0)]
    put = instruction_tuning_runs.longer(asked, seed=0)
    for task, long in zip(asked, put):
        assert long.request.endswith(task.request)
        assert len(long.request) > len(task.request) + 10
        assert long.answer == task.answer
    assert put == instruction_tuning_runs.longer(asked, seed=0)


def test_half_of_a_short_demonstration_is_its_answer_and_a_sixth_of_a_long_one():
    asked, texts = zip(*demonstrations(count=30, seed=0))
    found = []
    for put in (asked, instruction_tuning_runs.longer(asked, seed=0)):
        rows = written(put, texts)
        found.append(
            (rows.mask.sum() / instruction_tuning.everything(rows).mask.sum()).item()
        )
    assert found == [pytest.approx(0.46, abs=0.01), pytest.approx(0.16, abs=0.01)]


def test_the_pages_count_what_is_different_among_the_demonstrations_and_the_prompts():
    def different(found):
        return len({*found})

    for seed, whole in enumerate((2123, 2176, 2164)):
        shown = demonstrations(count=600, seed=seed)
        pairs = [(task.request, text) for task, text in shown]
        assert len(pairs) == 4200 and different(pairs) == whole
        asked = {task.request for task, _ in shown if task.skill == "know"}
        assert len(asked) == 35
    for count, most, about in ((20, 140, 127), (100, 700, 515), (200, 1400, 890)):
        for seed in range(3):
            shown = demonstrations(count=count, seed=seed)
            pairs = [(task.request, text) for task, text in shown]
            assert len(pairs) == most
            assert different(pairs) == pytest.approx(about, rel=0.02)
    exam = {}
    for count in (40, 64):
        for task in villagers.exam(count=count):
            exam.setdefault((count, task.skill), set()).add(task.request)
    sizes = {name: len(found) for name, found in exam.items()}
    assert (sizes[64, "know"], sizes[64, "list"]) == (13, 17)
    assert sizes[64, "repeat"] == sizes[64, "words"] == 14
    assert min(sizes[64, skill] for skill in ("sum", "reverse", "talk")) >= 49
    verified = [sizes[40, skill] for skill in SKILLS]
    assert (min(verified), max(verified), sum(verified)) == (13, 35, 123)


def test_form_comes_after_seven_and_skill_long_after():
    form, right = column("sizes", "form"), column("sizes", "right")
    before = RECORD["before"]
    assert (form[:, 0] > before["form"] + 0.25).all()
    assert (right[:, 0] < before["right"]).all()
    assert (right[:, 2:] > 3 * before["right"]).all()
    assert (right[:, 4] > right[:, 2]).all()
    assert (right[:, 4] > right[:, 3] + 0.05).sum() == 2  # on two seeds of three


def test_to_learn_the_questions_costs_most_where_they_are_long():
    gap = {}
    for long in (False, True):
        answers, every = (
            column("masks", "right", long=long, learned=edit)
            for edit in ("as_written", "everything")
        )
        assert (answers > every).all()
        gap[long] = (answers - every).mean()
    assert gap[True] > 1.5 * gap[False]


def test_with_the_end_hidden_the_tuned_models_run_on():
    bug = column("masks", "finished", learned="without_end")
    assert RECORD["before"]["finished"] > 0.99
    assert (column("masks", "finished", learned="as_written") > 0.99).all()
    assert (bug < 0.7).all()


def test_after_sixteen_epochs_the_loss_is_worse_and_the_answers_are_better():
    early, late = 3, 8  # after 3 epochs and after 16
    loss, right, talk = (column("epochs", what) for what in ("loss", "right", "talk"))
    assert (loss[:, late] > loss[:, early]).all()
    assert (loss.argmin(1) < late).all()
    assert (right[:, late] > right[:, early] + 0.15).all()
    assert (talk[:, late] > talk[:, early] + 0.25).all()


def test_the_learning_rate_that_wins_the_exam_has_lost_the_language():
    for what in ("right", "talk", "form"):
        at = {lr: column("rates", what, lr=lr) for lr in instruction_tuning_runs.RATES}
        assert (at[1e-2] > at[3e-3]).all() and (at[1e-2] > at[3e-2]).all()
    assert (column("rates", "text: letter", lr=1e-2) > len(TOKENIZER)).all()
    assert (column("rates", "text: letter", lr=3e-3) < 5).all()


def test_rehearsal_brings_the_old_text_back_at_no_price_that_can_be_seen():
    for form in ("page", "story", "letter"):
        none, some, much = (
            column("rehearsals", f"text: {form}", every=every) for every in (0, 4, 1)
        )
        assert (none > some).all() and (some > much).all()
        assert (much < 1.05 * RECORD["before"][f"text: {form}"]).all()
    right = [column("rehearsals", "right", every=every).mean() for every in (0, 4, 1)]
    assert max(right) - min(right) < 0.03


def test_the_page_reads_this_record():
    page = notebooks.read(notebooks.ROOT / "notebooks/07_instruction_tuning.ipynb")
    assert any(
        instruction_tuning_runs.RECORD.path.name in cell.source for cell in page.cells
    )
