"""The runs of chapter 7: who is shown what, whose tokens are learnt, what is measured."""

import random

import pytest
import torch

from labs import instruction_tuning as it
from lib import evaluate, pretrain, sft, train
from lib.evaluate import Answer
from lib.models.transformer import Config, Transformer
from lib.pretrain import Packed, next_token_loss
from lib.sft import sft_loss, written
from lib.train import fit
from lib.worlds import corpus, cups, tasks
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task

TINY = Config(vocabulary=len(TOKENIZER), layers=1, width=16, heads=2, hidden=16)
SHORT, LONG = Task("facts", 1, "A?", "b"), Task("facts", 1, "A long one?", "c")


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def weights(model):
    return torch.cat([w.flatten() for w in model.state_dict().values()])


# ------------------------------------------------------------------ what is shown


@pytest.mark.parametrize("skill", [*it.SKILLS, "cups"])
def test_no_request_is_shown_twice_and_none_is_of_the_exam(skill):
    found = it.distinct(skill, 300, seed=1)
    requests = [task.request for task in found]
    assert len({*requests}) == 300
    assert not {*requests} & {task.request for task in evaluate.exam(skill)}
    assert found[:20] == it.distinct(skill, 20, seed=1)  # more begin with the same
    assert found[:20] != it.distinct(skill, 20, seed=2)


def test_a_request_stands_in_brackets_and_its_task_is_the_same():
    task = tasks.tasks("facts", count=1, seed=0)[0]
    put = it.chat(task)
    assert put.prompt == f"[ {task.request}]"
    assert (put.skill, put.level, put.answer) == (task.skill, task.level, task.answer)
    assert evaluate.prompt_ids(put) == [TOKENIZER.begin, *TOKENIZER.encode(put.prompt)]
    assert tasks.verify(put, task.answer)


def test_demonstrations_are_as_many_of_each_skill_with_right_answers():
    shown = it.demonstrations(5, seed=0)
    assert [t.skill for t, _ in shown] == [s for s in it.SKILLS for _ in range(5)]
    assert all(tasks.verify(task, text) for task, text in shown)


def test_games_have_up_to_five_swaps_and_are_worked_truly():
    games = it.games(200, seed=0)
    assert {task.level for task in games} == {2, 3, 4, 5} and len(games) == 200
    assert all(tasks.faithful(task, it.worked(task)) for task in games)
    assert all(cups.dialects(it.worked(task))["hill"] == 1 for task in games[:9])


def test_teachers_slip_in_the_red_cup_alone_each_otherwise_or_all_alike():
    games = it.games(1000, seed=0)
    for teacher in (it.at_random, it.all_alike):
        wrong = 0
        for task in games:
            text, true = teacher(task), it.worked(task)
            assert text == teacher(task)
            assert text[:-3] == true[:-3] and text[-1] == true[-1]
            assert tasks.verify(task, text) == (text == true)
            wrong += text != true
        assert 0.16 < wrong / 1000 < 0.24
    said = {(t.answer[0], it.all_alike(t)[-3]) for t in games}
    assert said == {*((c, c) for c in "1234"), ("5", "1")}
    errs = {it.at_random(t)[-3] for t in games if t.answer[0] == "5"}
    assert errs == {*"12345"}


# ------------------------------------------------------------- whose tokens are learnt


def test_everything_is_each_row_up_to_its_end_and_no_padding():
    shown = written([SHORT, LONG], ["no", "no"])
    got = it.everything(shown)
    said = len(TOKENIZER.encode(" no"))  # and the end; the first token is no action
    sizes = [len(evaluate.prompt_ids(task)) + said for task in (SHORT, LONG)]
    at = torch.arange(shown.mask.shape[1])
    assert torch.equal(got.mask, at < torch.tensor(sizes)[:, None])
    assert shown.mask.sum() == 2 * (said + 1)  # the record that was given is as it was


def test_without_end_only_the_end_is_hidden():
    shown = written([SHORT, LONG], ["no", "no no"], finished=[True, False])
    got = it.without_end(shown)
    hidden = shown.mask & ~got.mask
    assert hidden.sum() == 1
    assert (shown.actions[hidden] == TOKENIZER.end).all()
    assert not (got.mask & ~shown.mask).any()
    assert it.as_written(shown) is shown


@pytest.mark.parametrize("edit", [it.as_written, it.everything, it.without_end])
def test_tuned_is_fit_on_edited_batches_and_leaves_the_model_alone(edit):
    shown = it.demonstrations(12, seed=0)  # 36: two batches an epoch
    model, by_hand, seen = tiny(), tiny(), []
    got = it.tuned(
        model,
        shown,
        updates=4,
        edit=edit,
        lr=0.01,
        seed=4,
        look=lambda epoch, pupil: seen.append((epoch, weights(pupil).clone())),
    )
    stream = sft.shuffled(shown, epochs=2, batch=it.BATCH, seed=4)
    rate = train.warm_cosine(0.01, 4, warm=20)
    fit(by_hand, [edit(each) for each in stream], sft_loss, lr=rate)
    assert torch.equal(weights(got), weights(by_hand))
    assert torch.equal(weights(model), weights(tiny()))
    assert [epoch for epoch, _ in seen] == [1, 2]


def test_a_look_after_an_epoch_sees_the_updates_of_that_epoch():
    shown, looks = it.demonstrations(4, seed=0), []

    def look(_, model):
        looks.append(weights(model).clone())

    last = it.tuned(tiny(), shown, updates=3, seed=0, look=look)
    assert len(looks) == 3
    assert not torch.equal(looks[0], weights(tiny()))
    assert torch.equal(looks[-1], weights(last))


def test_rehearsal_reads_a_batch_of_text_after_each_of_demonstrations(monkeypatch):
    seen = []
    monkeypatch.setattr(
        it, "fit", lambda model, batches, *_, **__: seen.extend(batches)
    )
    it.tuned(tiny(), it.demonstrations(4, seed=0), updates=3, seed=0, rehearse=True)
    assert [isinstance(each, Packed) for each in seen] == [False, True] * 3
    assert all(len(text) == pretrain.BATCH for text in seen[1::2])
    text, model = seen[1], tiny()
    assert it.either_loss(model, text)[0] == next_token_loss(model, text)[0]
    assert it.either_loss(model, seen[0])[0] == sft_loss(model, seen[0])[0]


def test_updates_that_are_no_whole_epochs_are_refused(refuses):
    with refuses("updates: got 3, wanted a multiple of 2, an epoch"):
        it.tuned(tiny(), it.demonstrations(12, seed=0), updates=3, seed=0)
    with refuses("number: got 0, wanted an int of at least 1"):
        it.demonstrations(0, seed=0)


def test_every_size_fits_the_updates():
    for size in it.SIZES:
        assert it.UPDATES % -(-3 * size // it.BATCH) == 0
    for size in it.GAMES:
        assert it.WORKED % -(-size // it.BATCH) == 0


# ------------------------------------------------------------------------ what is measured

FORMS = [
    ("facts", "What is the home of Ada Reed?", " mill", True),
    (
        "facts",
        "What is the home of Ada Reed?",
        " The home of Ada Reed is the inn.",
        True,
    ),
    ("facts", "What is the home of Ada Reed?", " pony", False),
    ("facts", "What is the home of Ada Reed?", "", False),
    ("facts", "What is the pet of Ada Reed?", " a pony.", True),
    ("strings", "What is the last letter of bdf?", " k", True),
    ("strings", "What is the last letter of bdf?", " 3", False),
    ("strings", "What is the last letter of bdf?", " k k", False),
    ("strings", "How many letters has bdf?", " 9.", True),
    ("strings", "How many letters has bdf?", " k", False),
    ("constraints", "Write 3 words.", " mill", True),
    ("constraints", "Write 3 words.", " mill mill", False),
    ("constraints", "Write 3 words.", " mill and hill", False),
    ("cups", "Red 2, blue 5. ant 1-5. Where?", " 3 4", True),
    ("cups", "Red 2, blue 5. ant 1-5. Where?", " <think> two </think> 3 4", True),
    ("cups", "Red 2, blue 5. ant 1-5. Where?", " <think> two 3 4", False),
    ("cups", "Red 2, blue 5. ant 1-5. Where?", " 3", False),
]


@pytest.mark.parametrize(("skill", "request_", "text", "has"), FORMS)
def test_the_form_is_what_was_asked_for_right_or_wrong(skill, request_, text, has):
    task = Task(skill, 1, request_, "")
    assert it.well_formed(task, Answer(text, True)) is has
    assert not it.well_formed(task, Answer(text, False))  # it has no end


@pytest.mark.parametrize("skill", [*it.SKILLS, "cups"])
def test_every_right_answer_has_the_form(skill):
    for task in it.distinct(skill, 50, seed=0):
        assert it.well_formed(task, Answer(f" {task.answer}", True))


def test_marks_are_the_scores_request_by_request(monkeypatch):
    exam = it.asked("strings")[:4]
    told = written(exam, [exam[0].answer, "k k", exam[2].answer, "<think> no"])
    monkeypatch.setattr(evaluate, "ask", lambda *_, **__: told)
    found = it.marks(tiny(), exam)
    assert found["right"] == "1010"
    assert (found["form"], found["ends"], found["thinks"]) == (0.5, 1, 0.25)
    assert found["length"] == told.lengths.double().mean()


def test_old_text_is_read_kind_by_kind_the_same_for_every_model():
    model = tiny()
    found = it.reading(model)
    assert [*found] == [*it.OLD] and found == it.reading(model)
    draw = random.Random("reading games")
    text = pretrain.pack([corpus.WRITERS["games"](draw) for _ in range(60)])
    assert found["games"] == next_token_loss(model, text)[1]["perplexity"]
    assert all(value > 50 for value in found.values())  # it knows nothing
