"""One thing is worse, gold knows it, and nothing else differs."""

import pytest
import torch

from labs import minimal_pairs
from lib.models.transformer import Config, Transformer
from lib.sft import written
from lib.worlds.village import ANIMALS, TOKENIZER, animal_in
from lib.worlds.village.tasks import Task
from lib.worlds.village.taste import gold


@pytest.mark.parametrize("edit", minimal_pairs.EDITS)
def test_gold_prefers_the_first_version_of_every_pair(edit):
    asked, better, worse = minimal_pairs.pairs(edit)
    assert len(asked) == len(better) == len(worse) == 48
    assert len({task.request for task in asked}) == 48
    for task, one, other in zip(asked, better, worse):
        assert gold(task, one) > gold(task, other)
        assert animal_in(task.request).name in one and (task.skill, task.level) == (
            "talk",
            1,
        )


def test_the_fox_s_versions_are_those_of_the_page():
    def fox(edit):
        _, better, worse = minimal_pairs.pairs(edit)
        return better[0], worse[0]

    asked = [task.request for task in minimal_pairs.pairs("a kind word")[0][:3]]
    assert asked == ["Tell me about the fox.", "Describe the fox.", "Who is the fox?"]
    plain = "The fox is red. It lives in the forest."
    assert fox("true, not false") == (plain, "The fox is red. It lives in the barn.")
    right = ("The fox is very sweet.", "The owl is very sweet.")
    assert fox("the right animal") == right
    assert fox("one fact more") == (plain, "The fox lives in the forest.")
    assert fox("a kind word")[1] == plain + " It was here today."
    assert fox("not said twice") == (plain, plain + " It lives in the forest.")
    assert fox("not too kind")[1].endswith("a sweet, dear, lovely, happy name.")


def test_a_false_home_is_somebody_else_s():
    asked, better, worse = minimal_pairs.pairs("true, not false")
    for task, one, other in zip(asked, better, worse):
        home = animal_in(task.request).home
        assert one.split()[:-1] == other.split()[:-1]
        said = other.split()[-1].removesuffix(".")
        assert said != home and said in {a.home for a in ANIMALS}


def test_an_unknown_edit_is_refused():
    with pytest.raises(ValueError, match="edit: got 'taste', wanted one of 'true"):
        minimal_pairs.pairs("taste")


def test_sees_counts_how_often_the_better_version_scores_strictly_higher():
    def long(rollout):
        return rollout.lengths

    assert minimal_pairs.sees(long, "one fact more") == 1
    assert minimal_pairs.sees(long, "not said twice") == 0
    assert minimal_pairs.sees(lambda r: 0 * r.lengths, "one fact more") == 0

    def ends_in_barn(rollout):  # the next animal that lives elsewhere
        return (rollout.actions != TOKENIZER.encode(" barn")[0]).all(1).double()

    barns = sum(t.endswith("barn.") for t in minimal_pairs.pairs("true, not false")[2])
    owls = 3  # their true home
    want = barns / 48
    assert 0 < minimal_pairs.sees(ends_in_barn, "true, not false") == want
    assert owls == sum("barn" in t for t in minimal_pairs.pairs("true, not false")[1])


def test_the_likelihood_of_an_answer_is_that_of_its_tokens_alone():
    config = Config(vocabulary=len(TOKENIZER), layers=1, width=16, heads=2, hidden=16)
    draw = torch.Generator().manual_seed(0)
    model = Transformer(config, generator=draw, dtype=torch.float64)
    asked = [Task("talk", 1, "Tell me about the fox.", "")] * 2
    rollout = written(asked, ["It is red.", "The fox eats berries. It is old."])
    got = minimal_pairs.likelihood(model, rollout)
    assert not got.requires_grad
    for row in range(2):
        total, logps = 0.0, model(rollout.states)[row].log_softmax(-1)
        for place in rollout.mask[row].nonzero()[:, 0]:
            total += logps[place, rollout.actions[row, place]].item()
        assert got[row].item() == pytest.approx(total)
