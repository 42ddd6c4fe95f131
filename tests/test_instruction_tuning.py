"""The decisions in instruction tuning, and the measures of what they do."""

import inspect
import random

import pytest
import torch

from labs import instruction_tuning
from labs.instruction_tuning import (
    as_written,
    ask_as,
    everything,
    reading,
    rehearsed,
    rehearsed_loss,
    tuned,
    well_formed,
    without_end,
)
from lib import evaluate, sft, train, villagers
from lib.evaluate import Answer
from lib.models.transformer import Config, Transformer
from lib.sft import sft_loss, written
from lib.train import fit
from lib.villagers import demonstrations
from lib.worlds.village import TOKENIZER
from lib.worlds.village.corpus import FORMS
from lib.worlds.village.tasks import SKILLS, Task, reasoning, tasks

TINY = Config(vocabulary=307, context=128, layers=1, width=16, heads=2, hidden=16)
SHORT, LONG = Task("know", 1, "A?", "b"), Task("know", 1, "A long one?", "c")


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def weights(model):
    return torch.cat([w.flatten() for w in model.state_dict().values()])


# ------------------------------------------------------------- whose tokens are learned


def test_everything_is_each_row_up_to_its_end_and_no_padding():
    shown = written([SHORT, LONG], ["no", "no"])
    got = everything(shown)
    said = len(TOKENIZER.encode(" no"))  # and the end; the first token is no action
    sizes = [len(evaluate.prompt_ids(task)) + said for task in (SHORT, LONG)]
    at = torch.arange(shown.mask.shape[1])
    assert torch.equal(got.mask, at < torch.tensor(sizes)[:, None])
    assert got.actions is shown.actions
    assert shown.mask.sum() == 2 * (said + 1)  # the record that was given is as it was


def test_without_end_only_the_end_is_hidden():
    shown = written([SHORT, LONG], ["no", "no no"], finished=[True, False])
    got = without_end(shown)
    hidden = shown.mask & ~got.mask
    assert hidden.sum() == 1
    assert (shown.actions[hidden] == TOKENIZER.end).all()
    assert not (got.mask & ~shown.mask).any()
    assert as_written(shown) is shown


@pytest.mark.parametrize("edit", [as_written, everything, without_end])
def test_tuned_is_fit_on_edited_batches_and_leaves_the_model_alone(edit):
    shown = demonstrations(count=1, seed=0)  # 7 of them: batches of 3, 3, 1
    model, by_hand = tiny(), tiny()
    got = tuned(model, shown, updates=5, edit=edit, batch=3, lr=0.01, seed=4)
    stream = list(sft.shuffled(shown, epochs=2, batch=3, seed=4))[:5]
    batches = [edit(each) for each in stream]
    fit(by_hand, batches, sft_loss, lr=train.warm_cosine(0.01, 5, warm=20))
    assert torch.equal(weights(got), weights(by_hand))
    assert torch.equal(weights(model), weights(tiny()))


def test_tuned_has_the_settings_of_instruct():
    ours, theirs = (
        {n: p.default for n, p in inspect.signature(f).parameters.items()}
        for f in (tuned, sft.instruct)
    )
    for name in ("batch", "lr", "seed"):
        assert ours[name] == theirs[name]
    assert ours["edit"] is as_written


def test_few_demonstrations_are_shown_again_until_all_updates_are_made(monkeypatch):
    seen = []

    def spy(model, batches, loss_fn, **knobs):
        seen.extend(batches)

    monkeypatch.setattr(instruction_tuning, "fit", spy)
    tuned(tiny(), demonstrations(count=1, seed=0), updates=9)
    assert [len(batch) for batch in seen] == [7] * 9


def test_impossible_tuning_is_refused(refuses):
    with refuses("updates: got 0, wanted an int of at least 1"):
        tuned(tiny(), demonstrations(count=1, seed=0), updates=0)
    with refuses("shown: got none, wanted at least one demonstration"):
        tuned(tiny(), [], updates=1)


# ------------------------------------------------------------------------ asked otherwise


def test_the_book_s_own_template_asks_as_ask_does(seeded):
    asked = tasks("know", count=5, seed=0)
    ours = ask_as(tiny(), asked, "Q: {}\nA:", generator=seeded(1), max_tokens=6)
    theirs = evaluate.ask(tiny(), asked, generator=seeded(1), max_tokens=6)
    assert torch.equal(ours.actions, theirs.actions)
    assert torch.equal(ours.mask, theirs.mask)


def test_another_template_is_another_prompt(seeded):
    got = ask_as(tiny(), [SHORT], "Say {}!", generator=seeded(1), max_tokens=3)
    prompt = [TOKENIZER.begin, *TOKENIZER.encode("Say A?!")]
    assert got.states[0, : len(prompt)].tolist() == prompt
    assert got.mask[0].sum() <= 3


def test_a_template_without_a_place_is_refused(refuses):
    for template in ("Q: \nA:", "Q: {}{}"):
        wanted = "one with one {} for the request"
        with refuses(f"template: got {template!r}, wanted {wanted}"):
            ask_as(tiny(), [SHORT], template, generator=torch.Generator())


# ----------------------------------------------------------------- what is gained and lost


def a_task(skill: str) -> Task:
    if skill == "talk":
        return Task("talk", 1, "Describe the fox.", "The fox is red.")
    return tasks(skill, count=1, seed=0)[0]


@pytest.mark.parametrize("skill", [*SKILLS, "talk"])
def test_a_right_answer_is_well_formed_if_it_is_finished(skill):
    for task, text in demonstrations(count=12, seed=1):
        if task.skill == skill:
            assert well_formed(task, Answer(f" {text}", True)) or skill == "talk"
            assert not well_formed(task, Answer(f" {text}", False))


@pytest.mark.parametrize(
    ("skill", "text"),
    [
        ("sum", " 99"),
        ("sum", " 99."),
        ("sum", "<think> 1 + 1 = 3. </think> 3"),
        ("reverse", " kab"),
        ("repeat", " moon moon"),
        ("repeat", " pie pie pie."),
        ("list", " fox, bread, red"),
        ("know", " The fox is blue."),
        ("words", " I saw the owl."),
        ("talk", " The fox. It is old."),
    ],
)
def test_a_wrong_answer_may_be_well_formed(skill, text):
    assert well_formed(a_task(skill), Answer(text, True))


@pytest.mark.parametrize(
    ("skill", "text"),
    [
        ("sum", " seven"),
        ("sum", " 4 5"),
        ("sum", " <think> 4"),
        ("sum", " 4\nQ: What"),
        ("reverse", " kab kab"),
        ("reverse", " Kab"),
        ("reverse", ""),
        ("repeat", " moon"),
        ("repeat", " moon star"),
        ("list", " fox"),
        ("list", " fox, moon"),
        ("list", " fox bee"),
        ("know", " Who can say?"),
        ("know", " The fox is red"),
        ("know", " It is red."),
        ("words", " I do not know."),
        ("talk", " Foxes are red."),
    ],
)
def test_another_kind_of_answer_is_not(skill, text):
    assert not well_formed(a_task(skill), Answer(text, True))


def test_a_worked_sum_is_well_formed():
    task = a_task("sum")
    assert well_formed(task, Answer(f" {reasoning(task)}", True))


def test_reading_is_perplexity_on_each_form_of_the_old_text():
    model = tiny()
    got = reading(model, count=5, seed=3)
    assert list(got) == list(FORMS)
    for name in ("page", "song"):
        draw = random.Random(f"reading {name} 3")
        text = villagers.rows([FORMS[name][0](draw) for _ in range(5)])
        want = villagers.next_token_loss(model, text)[0].exp().item()
        assert got[name] == pytest.approx(want)
    assert reading(model, count=5, seed=4) != got
    assert len(reading(model)) == len(FORMS)
    assert all(w.grad is None for w in model.parameters())


def test_the_measures_have_frozen_sizes(refuses):
    knobs = inspect.signature(reading).parameters
    assert (knobs["count"].default, knobs["seed"].default) == (60, 0)
    with refuses("count: got 0, wanted an int of at least 1"):
        reading(tiny(), count=0)


def test_old_text_comes_after_every_so_many_demonstrations(refuses):
    got = list(rehearsed(iter("abcde"), iter("XYZ"), every=2))
    assert got == ["a", "b", "X", "c", "d", "Y", "e"]
    assert list(rehearsed(iter("ab"), iter("XYZ"), every=1)) == ["a", "X", "b", "Y"]
    with refuses("every: got 0, wanted an int of at least 1"):
        list(rehearsed(iter("ab"), iter("XYZ"), every=0))


def test_each_batch_has_the_loss_of_its_kind():
    model = tiny()
    text = villagers.rows(["The fox is red.", "No."])
    assert rehearsed_loss(model, text) == villagers.next_token_loss(model, text)
    shown = written([SHORT], ["no"])
    assert rehearsed_loss(model, shown) == sft_loss(model, shown)
