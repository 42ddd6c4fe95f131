"""New tensors lie where the model's or the arguments' do, not on torch's default device.

No graphics card is needed to see it: with "meta" as the default device, whatever is made
without saying where cannot be computed with.
"""

import pytest
import torch

from lib import direct, evaluate, preference_data, rejection, reward_model, sft
from lib.algorithms import ALGORITHMS
from lib.losses.preference import dpo
from lib.models.transformer import Config, Transformer
from lib.on_policy import RLConfig, task_stream, train
from lib.rewards import drift
from lib.worlds.language import TOKENIZER
from lib.worlds.tasks import tasks


@pytest.fixture(scope="module")
def model():
    config = Config(len(TOKENIZER), context=96, layers=1, width=16, heads=2, hidden=16)
    return Transformer(config, generator=torch.Generator().manual_seed(0))


def sampled(model, count):
    """So many requests, and the longer of two answers is preferred."""
    luck = torch.Generator("cpu").manual_seed(count)
    asked = tasks("talk", count=count, seed=0)
    rollout = evaluate.ask(model, asked, generator=luck, group=2)

    def longer(task, one, other):
        return len(one.text) > len(other.text)

    return preference_data.compared(asked, rollout, longer)


@pytest.fixture(scope="module")
def pairs(model):
    return sampled(model, 4)


@pytest.fixture
def elsewhere():
    """A default device on which nothing can be read."""
    with torch.device("meta"):
        yield


def short(asked, rollout):
    """1 for an answer that came to an end, else 0."""
    return rollout.terminated.double()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_reinforcement_learning_follows_the_model(model, elsewhere, name):
    ask = task_stream("strings", count=2, seed=0)
    beta = 0.0 if name == "MaxRL" else 0.1  # its rewards must stay 0 or 1
    config = RLConfig(group=2, max_tokens=4, beta=beta)
    measures = {"drift": drift(model)}
    settings = {"seed": 0, "updates": 2, "lr": 1e-3}
    policy, history = train(
        model,
        ALGORITHMS[name],
        short,
        ask,
        config=config,
        measures=measures,
        **settings,
    )
    assert {w.device.type for w in policy.parameters()} == {"cpu"}
    assert len(history["reward"]) == 2


def test_direct_alignment_follows_the_model(model, pairs, elsewhere):
    direct.align(model, pairs, dpo, lr=1e-3, seed=0)
    answers, good = preference_data.unpaired(pairs)
    kto = direct.unpaired_objective(answers, good, model)
    assert len(direct.train(model, kto, lr=1e-3, seed=0)[1]["loss"]) == 1


def test_imitation_reward_models_and_selections_follow_the_model(
    model, pairs, elsewhere
):
    asked = tasks("strings", count=2, seed=0)
    shown = sft.written(asked, ["ab", "ba"])
    assert torch.isfinite(sft.sft_loss(model, shown)[0])
    found, _ = reward_model.fit_reward_model(model, pairs, epochs=1, batch=2)
    assert reward_model.score(found, pairs.chosen).isfinite().all()
    config = rejection.RejectionConfig(group=2, max_tokens=4)
    _, notes = rejection.rejection_round(
        model, short, asked, rejection.top_per_prompt, seed=0, config=config
    )
    assert notes["kept"] == 2


def test_answers_are_drawn_by_the_generator_where_it_is(model, elsewhere):
    asked = tasks("strings", count=2, seed=0)
    luck = torch.Generator("cpu").manual_seed(1)
    rollout = evaluate.ask(model, asked, generator=luck, max_tokens=4, group=2)
    assert rollout.actions.device.type == "cpu" and len(rollout) == 4


def test_pairs_are_sampled_and_judged_where_the_model_is(model, elsewhere):
    some = sampled(model, 3)
    assert len(some) == 3 and some.chosen.mask.device.type == "cpu"
    assert reward_model.accuracy(reward_model.RewardModel(model), some) == 0  # ties
