"""Instruction tuning: answers as rollouts, and what demonstrations teach."""

import inspect

import pytest
import torch
from torch.testing import assert_close

from lib import evaluate, sft, train
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.rollout import of_tokens
from lib.sft import sft_loss, shuffled, written
from lib.train import fit
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import LEVELS, tasks

TINY = Config(len(TOKENIZER), context=128, layers=1, width=16, heads=2, hidden=16)
SHORT = Task("facts", 1, "A?", "b")
LONG = Task("facts", 1, "A long one?", "c")


def tiny(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Transformer(TINY, generator=draws, dtype=torch.float64)


def demonstrations(count):
    """So many tasks of every skill, and their answers."""
    asked = [task for skill in LEVELS for task in tasks(skill, count=count, seed=0)]
    return [(task, task.answer) for task in asked]


def test_an_answer_is_prompt_space_text_and_end():
    got = written([SHORT], ["black."])
    prompt, answer = evaluate.prompt_ids(SHORT), TOKENIZER.encode(" black.")
    row = torch.tensor([*prompt, *answer, 2])
    assert got.states.tolist() == [row[:-1].tolist()]
    assert got.actions.tolist() == [row[1:].tolist()]
    before = [False] * (len(prompt) - 1)
    assert got.mask.tolist() == [before + [True] * (len(answer) + 1)]
    assert got.last_states.tolist() == [2] and got.terminated.tolist() == [True]
    assert (got.logps == 0).all() and (got.rewards == 0).all()


def test_rows_of_different_lengths_are_padded_on_the_right():
    got = written([SHORT, LONG], ["no", "no"])
    alone = written([SHORT], ["no"])
    width = alone.actions.shape[1]
    assert torch.equal(got.actions[:1, :width], alone.actions)
    assert torch.equal(got.mask[:1, :width], alone.mask)
    assert (got.actions[0, width:] == 0).all() and not got.mask[0, width:].any()
    assert got.lengths.tolist() == [alone.lengths.item()] * 2
    assert got.mask[1, -1]


def test_what_is_not_finished_has_no_end():
    got = written([SHORT, SHORT], ["no", "no"], finished=[True, False])
    assert got.terminated.tolist() == [True, False]
    assert got.lengths[0] == got.lengths[1] + 1
    assert got.last_states[0] == 2
    assert got.last_states[1] == TOKENIZER.encode(" no")[-1]


def test_what_a_model_sampled_can_be_written_again(seeded):
    asked = [SHORT, LONG, *tasks("facts", count=6, seed=0)]
    sampled = evaluate.ask(tiny(), asked, generator=seeded(3), max_tokens=6)
    said = evaluate.answers(sampled)
    plain = [i for i, answer in enumerate(said) if answer.text.startswith(" ")]
    texts = [answer.text if answer.text.startswith(" ") else "x" for answer in said]
    again = written(asked, texts, finished=[answer.finished for answer in said])
    for i in plain:
        kept = again.actions[i][again.mask[i]], sampled.actions[i][sampled.mask[i]]
        assert TOKENIZER.decode(kept[0].tolist()) == TOKENIZER.decode(kept[1].tolist())
    assert evaluate.answers(written([SHORT], [" two"]))[0].text == " two"
    assert evaluate.answers(written([SHORT], ["two"]))[0].text == " two"


def test_impossible_answers_are_refused(refuses):
    with refuses("texts: got 1, wanted 2, one for each task"):
        written([SHORT, LONG], ["a"])
    with refuses("finished: got 1, wanted 2, one for each task"):
        written([SHORT, LONG], ["a", "b"], finished=[True])
    with refuses("asked: got none, wanted at least one task"):
        written([], [])


def test_the_loss_is_the_mean_over_the_tokens_of_answers_only():
    shown = written([SHORT, LONG], ["no", "it is black"])
    model = tiny()
    logps = token_logps(model(shown.states), shown.actions)
    loss, metrics = sft_loss(model, shown)
    assert_close(loss, -logps[shown.mask].mean(), rtol=0, atol=1e-12)
    assert metrics["perplexity"] == pytest.approx(loss.exp().item())


def test_a_row_without_an_answer_has_no_part_in_the_loss():
    shown = of_tokens([[1, 3], [1, 4]], [[5, 2], []], end=2, pad=0)
    assert shown.mask.any(1).tolist() == [True, False]
    loss, _ = sft_loss(tiny(), shown)
    assert loss == sft_loss(tiny(), shown.rows(torch.tensor([0])))[0]


def test_tokens_without_a_prompt_are_refused(refuses):
    wanted = "at least one, of at least one token each"
    with refuses(f"prompts: got an empty one, wanted {wanted}"):
        of_tokens([[1], []], [[2], [2]], end=2, pad=0)
    with refuses(f"prompts: got none, wanted {wanted}"):
        of_tokens([], [], end=2, pad=0)


def test_every_epoch_shows_every_demonstration_once_in_another_order():
    shown = [(SHORT, text) for text in ("a", "b", "c", "d", "e")]
    batches = list(shuffled(shown, epochs=2, batch=2, seed=0))
    assert [len(batch) for batch in batches] == [2, 2, 1, 2, 2, 1]
    said = [a.text.strip() for batch in batches for a in evaluate.answers(batch)]
    assert sorted(said[:5]) == sorted(said[5:]) == ["a", "b", "c", "d", "e"]
    assert said[:5] != said[5:]
    again = list(shuffled(shown, epochs=2, batch=2, seed=0))
    assert all(torch.equal(a.actions, b.actions) for a, b in zip(batches, again))
    other = list(shuffled(shown, epochs=2, batch=2, seed=1))
    assert any(not torch.equal(a.actions, b.actions) for a, b in zip(batches, other))


def test_instruct_is_fit_with_a_warm_cosine_over_all_updates():
    shown = demonstrations(1)
    ours, by_hand = tiny(), tiny()
    history = sft.instruct(ours, shown, epochs=3, batch=3, lr=0.01, seed=5)
    rate = train.warm_cosine(0.01, 6, warm=20)
    batches = shuffled(shown, epochs=3, batch=3, seed=5)
    assert history == fit(by_hand, batches, sft_loss, lr=rate)
    assert len(history["loss"]) == 6
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, by_hand.state_dict()[name])
    defaults = {
        n: p.default for n, p in inspect.signature(sft.instruct).parameters.items()
    }
    assert (defaults["epochs"], defaults["batch"], defaults["lr"]) == (3, 32, 3e-3)
    assert (defaults["seed"], defaults["progress"]) == (0, None)


def test_impossible_tuning_is_refused(refuses):
    shown = demonstrations(1)
    with refuses("shown: got none, wanted at least one demonstration"):
        sft.instruct(tiny(), [])
    with refuses("epochs: got 0, wanted an int of at least 1"):
        sft.instruct(tiny(), shown, epochs=0)
    with refuses("batch: got 0, wanted an int of at least 1"):
        sft.instruct(tiny(), shown, batch=0)


def test_tuning_teaches_to_answer_and_to_stop():
    shown = demonstrations(4)
    model = tiny()
    history = sft.instruct(model, shown, epochs=20, batch=8, lr=0.01)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
