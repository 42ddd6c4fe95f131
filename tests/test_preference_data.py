"""Two answers, and who is preferred: by whom, and never one against itself."""

import random

import pytest
import torch

from lib.evaluate import Answer, answers, ask, scores
from lib.models.transformer import Config, Transformer
from lib.preference_data import PreferencePairs, compared
from lib.rollout import concat
from lib.sft import written
from lib.worlds.annotators import Annotators
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task
from lib.worlds.tasks import gold, tasks

ADA = Task("talk", 1, "Tell me about Ada Ash.", "")  # tower, doctor, hare
KIND, TRUE, FALSE = "Ada is kind.", "Ada Ash is a doctor.", "Ada Ash is a baker."


def small(seed: int = 0) -> Transformer:
    size = {"layers": 1, "width": 16, "heads": 2, "hidden": 16}
    config = Config(vocabulary=len(TOKENIZER), **size)
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


def answered(*texts, asked=None, **finished):
    """Requests, and two of these texts to each."""
    asked = asked or tasks("talk", count=len(texts) // 2, seed=0)
    return asked, written([t for t in asked for _ in range(2)], texts, **finished)


def said(rollout):
    return [answer.text.strip() for answer in answers(rollout)]


def longer(task, one, other):
    return len(one.text) > len(other.text)


def by_gold(task, one, other):
    first, second = (gold(task, a.text, finished=a.finished) for a in (one, other))
    return first > second


# ------------------------------------------------------------------ who is preferred


def test_what_is_preferred_is_chosen_and_gold_stands_beside_it():
    texts = TRUE, FALSE, "Ada.", f"{TRUE} {KIND}"
    asked, rollout = answered(*texts, asked=[ADA, ADA])
    pairs = compared(asked, rollout, by_gold)
    assert said(pairs.chosen) == [texts[0], texts[3]]
    assert said(pairs.rejected) == [texts[1], texts[2]]
    worth = scores(asked, rollout)
    assert len({*worth.tolist()}) == 4
    assert torch.equal(pairs.chosen_gold, worth[[0, 3]])
    assert torch.equal(pairs.rejected_gold, worth[[1, 2]])
    assert pairs.asked == asked and len(pairs) == 2


def test_who_compares_may_follow_something_else_than_gold():
    asked, rollout = answered(TRUE, FALSE, asked=[ADA])
    right, wrong = (compared(asked, rollout, lambda *_, x=x: x) for x in (True, False))
    assert right.chosen_gold > right.rejected_gold
    assert wrong.chosen_gold < wrong.rejected_gold
    assert said(wrong.chosen) == said(right.rejected) == [FALSE]


def test_who_compares_sees_the_task_and_both_answers_as_a_reader_does():
    texts, ends = (KIND, "Ada", "No.", f"{TRUE} {KIND}"), [True, False, True, True]
    asked, rollout = answered(*texts, finished=ends)
    seen = []
    compared(asked, rollout, lambda *given: seen.append(given) or True)
    one, two, three, four = (Answer(f" {t}", end) for t, end in zip(texts, ends))
    assert seen == [(asked[0], one, two), (asked[1], three, four)]


def test_an_answer_that_ended_differs_from_one_that_was_cut_off():
    asked, rollout = answered(KIND, KIND, finished=[True, False])
    pairs = compared(asked, rollout, lambda task, one, other: one.finished)
    assert pairs.chosen.terminated.tolist() == [True]
    assert pairs.rejected.terminated.tolist() == [False]
    assert not pairs.identical.any()


def test_the_same_answer_twice_is_dropped_and_the_others_keep_their_order():
    texts = KIND, KIND, TRUE, "Ada.", "No.", "No.", "No.", KIND, TRUE, FALSE
    asked, rollout = answered(*texts)
    seen = []

    def prefer(task, one, other):
        seen.append(task)
        return longer(task, one, other)

    pairs = compared(asked, rollout, prefer)
    assert pairs.asked == seen == [asked[1], asked[3], asked[4]]
    assert said(pairs.chosen) == [TRUE, KIND, TRUE]
    assert said(pairs.rejected) == ["Ada.", "No.", FALSE]
    assert not pairs.identical.any()
    assert torch.equal(pairs.chosen_gold, scores(pairs.asked, pairs.chosen))
    assert torch.equal(pairs.rejected_gold, scores(pairs.asked, pairs.rejected))


def test_no_more_are_compared_than_were_wanted_and_they_are_the_first():
    texts = KIND, KIND, TRUE, "Ada.", "No.", KIND, TRUE, FALSE
    asked, rollout = answered(*texts)
    seen = []
    pairs = compared(asked, rollout, lambda t, *_: not seen.append(t), count=2)
    assert pairs.asked == seen == asked[1:3] and said(pairs.chosen) == [TRUE, "No."]
    for count in (None, 3, 100):  # there are only three
        assert compared(asked, rollout, longer, count=count).asked == asked[1:]


def test_annotators_err_as_often_as_their_probabilities_say():
    asked, rollout = answered(*[TRUE, FALSE] * 2000, asked=[ADA] * 2000)
    people, draw = Annotators(), random.Random(0)

    def prefer(task, one, other):
        return people.prefer(task, one.text, other.text, draw)

    pairs = compared(asked, rollout, prefer)
    share = (pairs.chosen_gold > pairs.rejected_gold).double().mean()
    want = people.probability(ADA, TRUE, FALSE)
    assert abs(share - want) < 4 * (0.25 / 2000) ** 0.5 < want - 0.5


def test_a_policy_answers_twice_and_its_own_answers_are_compared(seeded):
    asked = tasks("talk", count=5, seed=3)
    rollout = ask(small(), asked, group=2, generator=seeded(3), max_tokens=8)
    pairs = compared(asked, rollout, by_gold)
    assert pairs.asked == asked  # an untrained model does not repeat itself
    assert (pairs.chosen_gold >= pairs.rejected_gold).all()
    for side in (pairs.chosen, pairs.rejected):
        for state, task in zip(side.states, asked):
            assert TOKENIZER.decode(state.tolist()).startswith(task.prompt)
    both = sorted(said(pairs.chosen) + said(pairs.rejected))
    assert both == sorted(said(rollout))


# --------------------------------------------------------------------------- refusals


def test_two_answers_to_each_request_are_wanted(refuses):
    rollout = written([ADA] * 3, [KIND, TRUE, FALSE])
    with refuses("answers: got 3 rows, wanted 2, two each"):
        compared([ADA], rollout, longer)
    with refuses("answers: got 3 rows, wanted 4, two each"):
        compared([ADA] * 2, rollout, longer)


def test_nothing_but_the_same_answer_twice_is_refused(refuses):
    asked, rollout = answered(KIND, KIND, "No.", "No.")
    with refuses("answers: got the same one twice, always, wanted some that differ"):
        compared(asked, rollout, longer)


# --------------------------------------------------------------------------- the pairs


def test_identical_means_token_for_token_whatever_the_padding():
    asked = tasks("talk", count=4, seed=0)
    one = written(asked, ["Ada is kind.", "Ada is kind.", "Ada is wise.", "No." * 20])
    other = written(
        asked,
        ["Ada is kind.", "Ada is kind. Ada is", "Ada is kind.", "Ada is kind."],
        finished=[True, True, True, False],
    )
    gold = torch.zeros(4).double()
    pairs = PreferencePairs(asked, one, other, gold, gold)
    assert pairs.identical.tolist() == [True, False, False, False]
    swapped = PreferencePairs(asked, other, one, gold, gold)
    assert swapped.identical.tolist() == [True, False, False, False]
    cut = written(asked[:1], ["Ada is kind."], finished=[False])
    left = PreferencePairs(
        asked[:1], one.rows(torch.tensor([0])), cut, gold[:1], gold[:1]
    )
    assert not left.identical.any(), "one ended and the other did not"


def test_rows_and_sums_of_comparisons_keep_everything_together():
    asked = tasks("talk", count=2, seed=0)
    short = written(asked, ["Ada is kind.", "Ada is wise."])
    long = written(asked, ["Ada is kind. Ada is wise. I do not know.", "No."])
    gold = torch.tensor([1.0, 2.0]).double()
    pairs = PreferencePairs(asked, short, long, gold, -gold)
    both = pairs + PreferencePairs(asked, long, short, 10 * gold, -10 * gold)
    assert len(both) == 4 and both.asked == [*asked, *asked]
    assert both.chosen_gold.tolist() == [1, 2, 10, 20]
    assert both.rejected_gold.tolist() == [-1, -2, -10, -20]
    texts = [a.text for a in answers(both.chosen)]
    assert texts == [a.text for r in (short, long) for a in answers(r)]
    last = both.rows(torch.tensor([3, 0]))
    assert last.asked == [asked[1], asked[0]]
    assert last.chosen_gold.tolist() == [20, 1] and last.rejected_gold[0] == -20
    assert [a.text for a in answers(last.rejected)] == [
        answers(short)[1].text,
        answers(long)[0].text,
    ]


def test_rollouts_together_are_padded_behind_their_masks():
    asked = tasks("talk", count=1, seed=0)
    one, other = written(asked, ["Ada."]), written(asked, ["Ada is kind. Ada is wise."])
    both = concat(one, other)
    assert len(both) == 2 and both.mask.shape == (2, other.mask.shape[1])
    assert both.lengths.tolist() == [*one.lengths.tolist(), *other.lengths.tolist()]
    assert (both.actions[0, one.mask.shape[1] :] == TOKENIZER.pad).all()
    assert both.terminated.tolist() == [True, True]
    assert torch.equal(both.last_states, torch.tensor([TOKENIZER.end] * 2))


@pytest.mark.parametrize("name", ["chosen_gold", "rejected_gold", "chosen", "rejected"])
def test_parts_that_do_not_fit_are_refused(name, refuses):
    asked = tasks("talk", count=2, seed=0)
    rollout, gold = written(asked, ["Ada."] * 2), torch.zeros(2).double()
    parts = {"chosen": rollout, "rejected": rollout}
    parts |= {"chosen_gold": gold, "rejected_gold": gold}
    one = torch.tensor([0])
    parts[name] = gold[:1] if "gold" in name else rollout.rows(one)
    with refuses(f"{name}: got 1 rows, wanted 2, as in asked"):
        PreferencePairs(asked, **parts)
