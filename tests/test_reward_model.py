"""The score of an answer is read at its last token, and comparisons teach it."""

import math

import pytest
import torch

from lib import preference_data, reward_model
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.reward_model import RewardModel, SurprisalRewardModel
from lib.sft import written
from lib.worlds.language import TOKENIZER
from lib.worlds.tasks import tasks

KINDS = [RewardModel, SurprisalRewardModel]


def small(seed: int = 0, dtype: torch.dtype = torch.float64) -> Transformer:
    size = {"layers": 1, "width": 16, "heads": 2, "hidden": 16}
    config = Config(vocabulary=len(TOKENIZER), **size)
    draw = torch.Generator().manual_seed(seed)
    return Transformer(config, generator=draw, dtype=dtype)


def awake(model: RewardModel, seed: int = 0) -> RewardModel:
    """A model whose head and ear say something."""
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if name.startswith(("head", "ear")):
            torch.nn.init.normal_(weight, generator=draw)
    return model


def pairs_of(better: list[str], worse: list[str]) -> preference_data.PreferencePairs:
    asked = tasks("talk", count=len(better), seed=3)
    gold = torch.zeros(len(better), dtype=torch.float64)
    texts = written(asked, better), written(asked, worse)
    return preference_data.PreferencePairs(asked, *texts, gold + 1, gold)


def test_a_new_head_draws_nothing_and_lies_where_the_trunk_does():
    before = torch.get_rng_state()
    RewardModel(small())
    assert torch.equal(torch.get_rng_state(), before)
    elsewhere = RewardModel(small().to("meta"))
    assert elsewhere.head.weight.device.type == "meta"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_new_reward_model_says_nothing_about_anything(kind, outputs):
    model = kind(small(), outputs=outputs)
    tokens = torch.tensor([[1, 9, 12, 2], [1, 7, 0, 0]])
    said = model(tokens)
    assert said.shape == ((2, 4) if outputs == 1 else (2, 4, 3))
    assert (said == 0).all()
    assert said.dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_copy_that_leaves_the_trunk_alone(kind):
    trunk = small()
    before = trunk.embedding.weight.clone()
    model = kind(trunk)
    with torch.no_grad():
        model.trunk.embedding.weight.add_(1)
    assert torch.equal(trunk.embedding.weight, before)


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_look_ahead(kind):
    model = awake(kind(small()))
    tokens = torch.randint(3, 280, (2, 9), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 6:] = 5
    one, other = model(tokens), model(changed)
    assert torch.equal(one[:, :6], other[:, :6])
    assert not torch.equal(one[:, 6:], other[:, 6:])


def test_the_head_is_linear_in_what_the_trunk_makes_of_each_token():
    trunk = small()
    model = awake(RewardModel(trunk, outputs=2))
    tokens = torch.tensor([[1, 20, 30]])
    want = trunk.hidden(tokens) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(tokens), want)


def test_the_informed_model_hears_minus_log_p_of_each_token_that_was_read():
    trunk, tokens = small(), torch.tensor([[1, 20, 30, 40], [1, 50, 60, 2]])
    model = awake(SurprisalRewardModel(trunk))
    want = -token_logps(trunk(tokens[:, :-1]), tokens[:, 1:])
    got = model.surprise(tokens)
    assert (got[:, 0] == 0).all()
    torch.testing.assert_close(got[:, 1:], want)
    assert got[:, 1:].min() > 0 and not got.requires_grad
    assert torch.equal(model.surprise(tokens[:, :1]), torch.zeros(2, 1).double())
    heard = trunk.embedding(tokens) + got[..., None] * model.ear
    trunk.embedding.register_forward_hook(lambda m, i, out: heard)
    want = (trunk.hidden(tokens) @ model.head.weight.T + model.head.bias)[..., 0]
    torch.testing.assert_close(model(tokens), want)


def test_the_first_reader_of_an_informed_model_is_not_trained():
    model = awake(SurprisalRewardModel(small()))
    model(torch.tensor([[1, 20, 30]])).sum().backward()
    assert all(w.grad is None for w in model.first.parameters())
    assert model.ear.grad.abs().sum() > 0


def test_read_finds_the_last_token_of_every_row_and_cuts_the_padding():
    asked = tasks("talk", count=3, seed=0)
    texts = ["Ada is kind.", "Ada is kind. Ada is wise. Ada is kind.", "Ada"]
    rollout = written(asked, texts, finished=[True, True, False])
    tokens, last = reward_model.read(rollout)
    rows = torch.arange(3)
    ends = [TOKENIZER.end, TOKENIZER.end, TOKENIZER.encode(" Ada")[0]]
    assert tokens[rows, last].tolist() == ends
    assert tokens.shape[1] == last.max() + 1
    for row, task, text in zip(tokens, asked, texts):
        assert TOKENIZER.decode(row.tolist()) == f"{task.prompt} {text}"
    alone, end = reward_model.read(rollout.rows(torch.tensor([2])))
    assert alone.shape[1] == end + 1 < tokens.shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_scores_the_same_whoever_stands_beside_it(kind):
    model = awake(kind(small()))
    asked = tasks("talk", count=4, seed=0)
    texts = [
        "Ada is kind.",
        "Ada " * 30 + "is.",
        "Ada is wise. Ada is kind.",
        "I do not know.",
    ]
    together = reward_model.score(model, written(asked, texts))
    assert together.dtype == torch.float64 and not together.requires_grad
    for batch in (1, 3):
        again = reward_model.score(model, written(asked, texts), batch=batch)
        torch.testing.assert_close(again, together)
    for task, text, want in zip(asked, texts, together):
        rollout = written([task], [text])
        tokens, _ = reward_model.read(rollout)
        torch.testing.assert_close(model(tokens)[0, -1], want)
        torch.testing.assert_close(reward_model.at_last(model, rollout)[0], want)
    assert len({round(x, 6) for x in together.tolist()}) == 4


def test_an_answer_without_a_token_is_refused():
    rollout = written(tasks("talk", count=2, seed=0), ["Ada is kind.", "Ada."])
    rollout.mask[1] = False
    with pytest.raises(ValueError, match="mask"):
        reward_model.score(RewardModel(small()), rollout)


def test_the_loss_is_bradley_terry_on_the_last_tokens_and_the_gradient_flows():
    model = awake(RewardModel(small()))
    pairs = pairs_of(["Ada is kind.", "Ada is wise. Ada is kind."], ["No.", "Ada."])
    loss, metrics = reward_model.preference_loss(model, pairs, centre=0.1)
    one, other = (reward_model.score(model, x) for x in (pairs.chosen, pairs.rejected))
    want = sum(math.log1p(math.exp(b - a)) for a, b in zip(one, other)) / 2
    want += 0.1 * ((one + other) ** 2).mean().item()
    assert loss.item() == pytest.approx(want, abs=1e-12)
    assert metrics["accuracy"] == (one > other).double().mean()
    loss.backward()
    assert model.trunk.embedding.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_it_learns_what_is_always_preferred(kind, seed):
    pairs = pairs_of(["Ada is merry."] * 12, ["Ada is wise."] * 12)
    model, history = reward_model.fit_reward_model(
        small(seed), pairs, kind=kind, epochs=20, batch=6, lr=1e-2, seed=seed
    )
    assert type(model) is kind
    assert len(history["loss"]) == 40
    assert history["loss"][0] == pytest.approx(math.log(2))
    assert history["accuracy"][0] == 0, "a tie is wrong"
    assert reward_model.accuracy(model, pairs) == 1
    assert (
        reward_model.accuracy(model, pairs_of(["Ada is wise."], ["Ada is merry."])) == 0
    )
    again, _ = reward_model.fit_reward_model(
        small(seed), pairs, kind=kind, epochs=20, batch=6, lr=1e-2, seed=seed
    )
    assert torch.equal(again.head.weight, model.head.weight)


class Loud(RewardModel):
    """One that likes everything at first."""

    def __init__(self, trunk):
        super().__init__(trunk)
        torch.nn.init.constant_(self.head.bias, 0.1)


def test_every_comparison_is_seen_once_an_epoch_and_centring_holds_the_scores():
    pairs = pairs_of(["Ada is merry.", "Ada is dear.", "Ada is brave."], ["No."] * 3)
    knobs = {"epochs": 2, "batch": 2, "lr": 1e-2}
    _, history = reward_model.fit_reward_model(small(), pairs, **knobs)
    assert len(history["loss"]) == 4
    sums = []
    for centre in (0.0, 10.0):
        model, _ = reward_model.fit_reward_model(
            small(), pairs, kind=Loud, epochs=30, batch=3, lr=1e-2, centre=centre
        )
        both = (reward_model.score(model, x) for x in (pairs.chosen, pairs.rejected))
        sums.append(sum(both).abs().mean().item())
    assert sums[1] < sums[0] / 5


def test_the_order_of_the_batches_is_the_seed_s():
    pairs = pairs_of(["Ada is merry.", "Ada is dear.", "Ada is brave."], ["No."] * 3)
    losses = [
        reward_model.fit_reward_model(small(), pairs, epochs=4, batch=1, seed=seed)[1]
        for seed in (0, 0, 1)
    ]
    assert losses[0]["loss"] == losses[1]["loss"] != losses[2]["loss"]


def test_two_equal_answers_are_no_comparison_and_are_refused():
    pairs = pairs_of(["Ada is merry.", "Ada is wise."], ["No.", "Ada is wise."])
    with pytest.raises(
        ValueError, match="comparisons: got twice .* pair 1, wanted two"
    ):
        reward_model.fit_reward_model(small(), pairs)


@pytest.mark.parametrize(("knob", "value"), [("epochs", 0), ("batch", 0), ("lr", 0.0)])
def test_impossible_knobs_are_refused(knob, value):
    pairs = pairs_of(["Ada is merry."], ["No."])
    with pytest.raises(ValueError):
        reward_model.fit_reward_model(small(), pairs, **{knob: value})
    with pytest.raises(ValueError, match="outputs"):
        RewardModel(small(), outputs=0)
    with pytest.raises(ValueError, match="batch"):
        reward_model.score(RewardModel(small()), pairs.chosen, batch=0)


def test_a_pair_with_two_equal_scores_counts_as_wrong():
    pairs = pairs_of(["Ada is kind."], ["Ada is wise."])
    silent = RewardModel(small())  # its head is 0: every answer scores the same
    assert reward_model.accuracy(silent, pairs) == 0
