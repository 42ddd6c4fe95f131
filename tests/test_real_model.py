"""What a real model is asked in chapter 15, without one: tasks, splits, rewards, pairs."""

import math

import pytest
import torch

from labs import real_model as real
from labs import real_model_runs as runs
from lib.evaluate import Answer
from lib.models.byte_pairs import BytePairTokenizer, byte_pairs
from lib.models.transformer import Config, Transformer
from lib.sft import written

LETTERS = [*"0123456789abcdefghijklmnopqrstuvwxyzWQ?.,:+=!'", "Ġ", "Ċ"]
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS]
LINE = WORDS.index("Ċ")


@pytest.fixture
def tokenizer() -> BytePairTokenizer:
    """Letters alone; a line's end ends an answer."""
    return BytePairTokenizer(byte_pairs(WORDS, [], [0, 1, 2]), begin=0, end=LINE, pad=2)


@pytest.fixture
def model(seeded) -> Transformer:
    """A tiny random model over these letters."""
    config = Config(vocabulary=len(WORDS), context=128, width=16, heads=2, hidden=16)
    return Transformer(config, generator=seeded(1), dtype=torch.float64)


def test_no_sum_and_no_mirror_image_of_one_is_in_both_splits():
    every = [(a, b) for a in real.NUMBERS for b in real.NUMBERS]
    sides = {split: [p for p in every if real.split_of(*p) == split] for split in SIDES}
    assert all(real.split_of(a, b) == real.split_of(b, a) for a, b in every)
    assert len(sides["test"]) + len(sides["train"]) == len(every) == 1600
    assert 300 < len(sides["test"]) < 500


SIDES = ("train", "test")


def test_an_exam_holds_200_distinct_sums_that_no_update_asks(tokenizer):
    exam = {task.prompt for task in real.sums(200, tokenizer, seed=0, split="test")}
    ask = real.sum_stream(8, tokenizer, seed=3)
    asked = {task.prompt for update in range(400) for task in ask(update)}
    assert len(exam) == 200 and len(asked) > 900 and not exam & asked
    for task in real.sums(20, tokenizer, seed=1):
        head, last = task.prompt.split("\n")
        a, b = last.removesuffix(" =").split(" + ")
        assert head == real.EXAMPLE and int(a) + int(b) == int(task.answer)


def test_topics_held_out_have_nouns_of_their_own(tokenizer):
    train = real.topics(300, tokenizer, seed=0)
    test = real.topics(200, tokenizer, seed=0, split="test")
    assert (
        len({t.prompt for t in test}) == 200 and len({t.prompt for t in train}) == 300
    )
    assert not {t.answer for t in train} & {t.answer for t in test}
    assert all(t.prompt.endswith(f" {t.answer}") for t in (*train, *test))
    assert len(set(real.THINGS)) == len(real.THINGS)


@pytest.mark.parametrize(
    ("text", "finished", "right"),
    [
        (" 42\n", True, 1.0),
        ("42", True, 1.0),
        (" 42", False, 0.0),
        (" 42.\n", True, 0.0),
        (" 42 or 43\n", True, 0.0),
        (" 43\n", True, 0.0),
        ("\n", True, 0.0),
    ],
)
def test_a_sum_is_right_when_its_result_is_all_that_the_line_says(
    tokenizer, text, finished, right
):
    task = real.Asked("40 + 2 =", "42", tokenizer)
    assert real.is_right(task, Answer(text, finished)) == right


@pytest.mark.parametrize(
    ("text", "begins"),
    [(" 42 apples", 1.0), (" 42. 7", 1.0), (" 421", 0.0), (" = 42", 0.0), ("", 0.0)],
)
def test_a_sum_begins_right_however_it_goes_on(tokenizer, text, begins):
    asked = [real.Asked("40 + 2 =", "42", tokenizer)]
    rollout = written(asked, [text or "a"])
    assert real.begins_right(asked, rollout).tolist() == [begins]


def test_what_is_shown_answers_the_sums_that_reinforcement_learning_asks(tokenizer):
    batches = real.shown(3, tokenizer, seed=5)
    ask = real.sum_stream(8, tokenizer, seed=5)
    for update, rollout in enumerate(batches):
        said = [tokenizer.decode(a[m]) for a, m in zip(rollout.actions, rollout.mask)]
        assert said == [f" {task.answer}\n" for task in ask(update)]


def test_a_sentence_names_its_topic_or_does_not(tokenizer):
    asked = real.topics(2, tokenizer, seed=0)
    rollout = written(asked, [f"an old {asked[0].answer}.", "so happy!"])
    assert real.names_it(asked, rollout).tolist() == [1.0, 0.0]


def test_pairs_are_the_best_and_the_worst_of_a_topic_s_samples(model, tokenizer):
    asked = real.topics(6, tokenizer, seed=0)

    def length(asked, rollout):
        return rollout.lengths.double()

    pairs = real.best_and_worst(model, asked, seed=1, group=4, reward=length)
    assert 0 < len(pairs) <= 6
    assert (pairs.chosen.lengths > pairs.rejected.lengths).all()
    assert torch.equal(pairs.chosen_gold, pairs.chosen.lengths.double())
    with pytest.raises(ValueError, match="at least one entry"):
        real.best_and_worst(
            model, asked, seed=1, reward=lambda asked, r: torch.zeros(len(r))
        )


def test_an_exam_of_the_start_itself_has_no_kl(model, tokenizer):
    found = real.examined(model, model, tokenizer)
    assert math.isclose(found.pop("kl"), 0.0, abs_tol=1e-9)
    assert all(0 <= x <= 1 for name, x in found.items() if name != "length")
    assert "greedy" not in real.examined(model, model, tokenizer, greedy=False)


def test_best_of_n_by_a_score_counts_what_nobody_rewarded():
    gold = torch.tensor([[1.0, 3.0, 2.0, 0.0, 5.0, 4.0, 6.0, 7.0]]).double()
    names = (gold < 4).double()
    found = runs.ranked(gold, gold, names)
    assert found["cheer"][0] == 3.5 and found["cheer"][-1] == 7.0
    assert found["names it"][0] == 0.5 and found["names it"][-1] == 0.0


def test_costs_are_counted():
    with real.costs() as spent:
        sum(range(200_000))
    assert 0 < spent["cpu_minutes"] < 1 and spent["peak_gb"] > 0.01
