"""Ask, judge, credit, update: the loop of every algorithm, and that it may stop anywhere."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.testing import assert_close

from lib import checkpoint as files
from lib import evaluate, on_policy
from lib.advantages import leave_one_out
from lib.algorithms import ALGORITHMS
from lib.kl import AdaptiveKL, k3
from lib.logps import action_logps
from lib.models.transformer import Config, Transformer
from lib.on_policy import (
    TRIES,
    PolicyWithCritic,
    RLConfig,
    collect,
    loss_of,
    make_batch,
    task_stream,
    train,
    training_batches,
)
from lib.ops import masked
from lib.reward_model import RewardModel
from lib.rewards import drift, verified
from lib.rollout import concat
from lib.seeds import generator, seed_of
from lib.train import fit
from lib.worlds.language import TOKENIZER
from lib.worlds.tasks import tasks

VOCABULARY = len(TOKENIZER)
FEW = RLConfig(group=4, max_tokens=3)


def model(seed=0, *, layers=1, dtype=torch.float64):
    draws = torch.Generator().manual_seed(seed)
    config = Config(VOCABULARY, context=32, layers=layers, width=16, heads=2, hidden=16)
    return Transformer(config, generator=draws, dtype=dtype)


def low(asked, rollout):
    """The share of an answer's tokens from the first half of the vocabulary."""
    good = (rollout.actions < VOCABULARY // 2) & rollout.mask
    return good.sum(1).double() / rollout.lengths


def first_is_low(asked, rollout):
    """1 where the first token is from the first half of the vocabulary, else 0."""
    first = rollout.actions.gather(1, rollout.mask.long().argmax(1, keepdim=True))
    return (first.squeeze(1) < VOCABULARY // 2).double()


def same(first, second):
    """Two rollouts, field by field, bit for bit."""
    return all(torch.equal(getattr(second, n), x) for n, x in vars(first).items())


def the_same_weights(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


ASK = task_stream("strings", count=2, seed=0, levels=[1])


# ---------------------------------------------------------------- tasks


def test_a_stream_gives_training_tasks_of_one_skill_new_ones_for_each_update():
    ask = task_stream("cups", count=3, seed=4, levels=[3])
    name = seed_of("tasks", "cups", 4, 7)
    assert ask(7) == tasks("cups", count=3, seed=name, levels=[3])
    assert ask(7) == ask(7) and ask(7) != ask(8)
    assert task_stream("cups", count=3, seed=5, levels=[3])(7) != ask(7)
    every = task_stream("strings", count=40, seed=0)(0)
    assert {task.level for task in every} == {1, 2, 3, 4} and len(every) == 40
    assert every == tasks("strings", count=40, seed=seed_of("tasks", "strings", 0, 0))
    talk = task_stream("talk", count=3, seed=4)
    assert talk(7) == tasks("talk", count=3, seed=seed_of("tasks", "talk", 4, 7))


# ---------------------------------------------------------------- answers


def asked_and_judged(reward, ask, config=FEW, *, resample, seed=0, update=5):
    given = {"seed": seed, "config": config, "resample": resample}
    return collect(model(), reward, ask, update, **given)


def test_answers_are_sampled_and_judged_side_by_side():
    rollout, rewards, told = asked_and_judged(low, ASK, resample=False)
    luck = generator("answers", 0, 5)
    want = evaluate.ask(model(), ASK(5), generator=luck, group=4, max_tokens=3)
    assert same(rollout, want) and rewards.shape == (2, 4)
    assert torch.equal(rewards.flatten(), low(None, want))
    plainly = collect(model(), low, ASK, 5, seed=0, config=FEW)  # no dynamic sampling
    assert same(rollout, plainly[0])
    assert told["answers"] == 8 and told["reward"] == rewards.mean()


class Judge:
    """Differing rewards to the groups that it is told to, in the order of asking."""

    def __init__(self, *telling):
        self.telling, self.heard, self.updates = telling, 0, []

    def ask(self, update):
        self.updates.append(update)
        return tasks("strings", count=2, seed=update)

    def __call__(self, asked, rollout):
        rewards = torch.ones(len(asked), len(rollout) // len(asked)).double()
        for group in rewards:
            group[0] = 0.0 if self.telling[self.heard] else 1.0
            group *= 1 + self.heard  # to tell the groups apart
            self.heard += 1
        return rewards.flatten()


def test_dynamic_sampling_keeps_only_groups_that_tell():
    judge = Judge(False, True, False, False, True, True)
    rollout, rewards, _ = asked_and_judged(judge, judge.ask, resample=True)
    tries = [seed_of("try", 5, attempt) for attempt in (1, 2)]
    assert judge.updates == [5, *tries]  # the fourth is spared
    assert rewards.tolist() == [[0, 2, 2, 2], [0, 5, 5, 5]]  # one too many: the last
    draw, all_of_them = generator("answers", 0, 5), []
    for update in judge.updates:
        asked = tasks("strings", count=2, seed=update)
        all_of_them.append(
            evaluate.ask(model(), asked, generator=draw, group=4, max_tokens=3)
        )
    rows = torch.tensor([4, 5, 6, 7, 16, 17, 18, 19])
    want = concat(*all_of_them).rows(rows)
    assert len(rollout) == 8
    assert torch.equal(rollout.actions[rollout.mask], want.actions[want.mask])
    assert torch.equal(rollout.logps[rollout.mask], want.logps[want.mask])
    assert torch.equal(rollout.mask.sum(1), want.mask.sum(1))


def test_dynamic_sampling_is_content_with_one_try_where_all_groups_tell():
    judge = Judge(True, True)
    rollout, rewards, _ = asked_and_judged(judge, judge.ask, resample=True)
    assert judge.updates == [5] and rewards.tolist() == [[0, 1, 1, 1], [0, 2, 2, 2]]
    once, *_ = asked_and_judged(low, judge.ask, resample=False)
    assert same(rollout, once)


def test_dynamic_sampling_gives_up_after_four_tries_with_what_it_has():
    judge = Judge(*[False] * 5, True, False, False)
    rollout, rewards, _ = asked_and_judged(judge, judge.ask, resample=True)
    assert TRIES == 4 and len(judge.updates) == 4
    assert rewards.tolist() == [[0, 6, 6, 6]] and len(rollout) == 4


def test_where_no_group_tells_the_last_try_is_returned_and_teaches_nothing():
    judge = Judge(*[False] * 8)
    rollout, rewards, _ = asked_and_judged(judge, judge.ask, resample=True)
    assert rewards.tolist() == [[7] * 4, [8] * 4]
    learner = PolicyWithCritic(model())
    seen = make_batch(learner, ALGORITHMS["DAPO"], rollout, rewards, None, FEW)
    loss, metrics = loss_of(ALGORITHMS["DAPO"])(learner, seen)
    loss.backward()
    assert metrics["zero_variance"] == 1 and loss == 0
    assert all((weight.grad == 0).all() for weight in learner.policy.parameters())


def test_without_dynamic_sampling_groups_of_zero_variance_stay():
    judge = Judge(False, True)
    _, rewards, _ = asked_and_judged(judge, judge.ask, resample=False)
    assert rewards.tolist() == [[1] * 4, [0, 2, 2, 2]] and judge.updates == [5]


# ---------------------------------------------------------------- batches


def stream(name="RLOO", *, seed=0, updates=4, start=0, reward=low, ask=ASK, **knobs):
    learner = PolicyWithCritic(model(), RewardModel(model()) if name == "PPO" else None)
    knobs = RLConfig(**{"group": 4, "max_tokens": 3} | knobs)
    made = training_batches(
        learner, ALGORITHMS[name], reward, ask, seed=seed, updates=updates, config=knobs
    )
    return list(made(start))


def test_an_updates_luck_is_its_seeds_and_its_numbers():
    first = stream(updates=3)
    assert len(first) == 3
    later = stream(updates=3, start=2)
    assert len(later) == 1 and same(first[2].rollout, later[0].rollout)
    want, rewards, _ = collect(model(), low, ASK, 2, seed=0, config=FEW)
    assert same(first[2].rollout, want)
    assert first[2].metrics["reward"] == rewards.mean()
    other = stream(updates=3, seed=1)
    assert same(other[0].rollout, collect(model(), low, ASK, 0, seed=1, config=FEW)[0])
    assert not torch.equal(other[0].rollout.actions, first[0].rollout.actions)


def test_each_set_of_answers_serves_its_epochs_and_no_more_updates_than_asked():
    asked = []

    def ask(update):
        asked.append(update)
        return ASK(update)

    seen = stream(updates=5, epochs=2, ask=ask)
    assert asked == [0, 2, 4]
    first, again, second, same_again, last = seen
    assert first.rollout is again.rollout and second.rollout is same_again.rollout
    assert [batch.metrics["answers"] for batch in seen] == [8, 0, 8, 0, 8]
    assert not torch.equal(second.rollout.actions, last.rollout.actions)
    assert len(stream(updates=4, epochs=4)) == 4
    asked.clear()
    assert len(stream(updates=5, epochs=2, start=2, ask=ask)) == 3
    assert asked == [2, 4]


def test_only_an_algorithm_that_resamples_does_so():
    for name, tries in (("DAPO", 4), ("GRPO", 1)):
        judge = Judge(*[False] * 8)
        stream(name, updates=1, reward=judge, ask=judge.ask)
        assert len(judge.updates) == tries


def test_what_cannot_be_taught_is_refused(refuses):
    with refuses("updates: got 0, wanted an int of at least 1"):
        stream(updates=0)
    message = "a model to stay near to, since beta > 0"
    with refuses(f"reference: got None, wanted {message}"):
        stream(beta=0.1)
    with refuses("start: got 3, wanted a multiple of 2 epochs"):
        stream(updates=5, epochs=2, start=3)
    assert stream(updates=5, epochs=2, start=5) == []  # a run that is finished
    with refuses(
        "prompts: got 16 tokens and room for 17 more, wanted at most 32 in all"
    ):
        stream(max_tokens=17)
    with refuses("reward: got shape (2,), wanted shape (8,)"):
        stream(reward=lambda asked, rollout: torch.zeros(2))
    with refuses("reward: got nan at index (0,), wanted finite numbers"):
        stream(reward=lambda asked, rollout: torch.full((8,), math.nan))


# ---------------------------------------------------------------- training


def trained(name="RLOO", *, updates=4, seed=0, start=None, reward=low, **more):
    knobs = RLConfig(
        **{"group": 4, "max_tokens": 3}
        | {k: more.pop(k) for k in ("epochs", "beta") if k in more}
    )
    return train(
        start or model(),
        ALGORITHMS[name],
        reward,
        ASK,
        seed=seed,
        updates=updates,
        lr=0.01,
        config=knobs,
        **more,
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_raises_the_reward_of_a_tiny_policy(name):
    reward = first_is_low
    ask = task_stream("strings", count=4, seed=3)
    knobs = RLConfig(group=8, max_tokens=1)
    start = model()
    after, history = train(
        start, ALGORITHMS[name], reward, ask, seed=3, updates=25, lr=0.02, config=knobs
    )
    assert history["reward"][0] < 0.75
    exam = ask(10_000)

    def held_out(policy):
        draw = torch.Generator().manual_seed(9)
        rows = evaluate.ask(policy, exam, generator=draw, group=64, max_tokens=1)
        return reward(exam, rows).mean().item()

    assert held_out(after) > held_out(start) + 0.2


def test_the_model_itself_is_left_as_it_is():
    start, critic = model(), RewardModel(model(1))
    kept = RewardModel(model(1))
    after, _ = trained("PPO", start=start, critic=critic)
    assert the_same_weights(start, model()) and not the_same_weights(start, after)
    assert the_same_weights(critic, kept)
    assert isinstance(after, Transformer)


def test_training_is_fit_on_the_batches():
    after, history = trained(updates=3)
    learner = PolicyWithCritic(model())
    knobs = RLConfig(group=4, max_tokens=3)
    made = training_batches(
        learner, ALGORITHMS["RLOO"], low, ASK, seed=0, updates=3, config=knobs
    )
    want = fit(learner, made(0), loss_of(ALGORITHMS["RLOO"]), lr=0.01)
    assert history == want and the_same_weights(after, learner.policy)
    assert {"loss", "grad_norm", "reward", "zero_variance", "entropy", "length"} <= set(
        history
    )
    assert all(len(column) == 3 for column in history.values())


def test_a_seed_is_a_run_and_another_seed_another():
    first, again, other = (trained(seed=seed)[0] for seed in (0, 0, 1))
    assert the_same_weights(first, again) and not the_same_weights(first, other)
    before = torch.random.get_rng_state()
    trained(updates=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_reference_is_the_model_unless_another_is_given():
    for name in ("RLOO", "GRPO"):
        _, itself = trained(name, beta=0.1, updates=2)
        _, given = trained(name, beta=0.1, updates=2, reference=model())
        _, other = trained(name, beta=0.1, updates=2, reference=model(5))
        assert itself == given and itself["kl"][0] == pytest.approx(0, abs=1e-12)
        assert abs(other["kl"][0]) > 0.01
        assert itself["kl"][1] != 0  # after one update the policy has left it


def test_the_critic_begins_as_the_model_with_a_head_of_zeros_unless_one_is_given():
    _, fresh = trained("PPO", updates=2)
    _, given = trained("PPO", updates=2, critic=RewardModel(model()))
    assert fresh == given
    loud = RewardModel(model())
    with torch.no_grad():
        loud.head.bias.fill_(3.0)
    _, other = trained("PPO", updates=2, critic=loud)
    assert other["value_loss"][0] > fresh["value_loss"][0] + 1
    _, without = trained("RLOO", updates=2, critic=loud)  # nobody asks it
    assert "value_loss" not in without and without == trained(updates=2)[1]


def test_the_critic_learns():
    _, history = trained("PPO", updates=20, epochs=4)
    assert history["value_loss"][3] < history["value_loss"][0]


def test_watchers_see_the_policy_before_each_update_and_after_the_last():
    for more in ({}, {"epochs": 2}):
        seen = []

        def watch(update, policy, seen=seen):
            seen.append((update, policy.embedding.weight.detach().clone()))

        after, _ = trained(updates=3, watch=watch, **more)
        assert [update for update, _ in seen] == [0, 1, 2, 3]
        assert torch.equal(seen[0][1], model().embedding.weight)
        assert torch.equal(seen[-1][1], after.embedding.weight)
        assert all(not torch.equal(a[1], b[1]) for a, b in zip(seen, seen[1:]))


def test_progress_has_a_name(capsys):
    trained(updates=1)
    assert capsys.readouterr() == ("", "")
    trained(updates=1, progress="RLOO")
    assert "RLOO: 1it" in capsys.readouterr().err


# ---------------------------------------------------------------- stop, and go on


class PulledPlugError(Exception):
    """The power is gone."""


@pytest.mark.parametrize(
    ("name", "epochs", "stop"),
    [("RLOO", 1, 3), ("PPO", 1, 2), ("PPO", 2, 3), ("DAPO", 1, 4), ("GRPO", 3, 4)],
)
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    name, epochs, stop, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_policy, "EVERY", 1)  # a file for each set of answers
    more = {"updates": 6, "epochs": epochs, "beta": 0.1 if name == "GRPO" else 0.0}
    want, history = trained(name, **more)
    path = tmp_path / "run.pt"

    def pull(update, policy):
        if update == stop:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        trained(name, **more, watch=pull, checkpoint=path)
    seen = []
    got, told = trained(
        name, **more, checkpoint=path, watch=lambda update, _: seen.append(update)
    )
    begun = stop // epochs * epochs
    assert seen == list(range(begun, 7))  # it did not begin anew, and repeats no more
    assert the_same_weights(got, want) and told.keys() == history.keys()
    for column in history:
        assert_close(told[column], history[column], rtol=0, atol=0, equal_nan=True)


def test_a_finished_run_is_read_and_can_be_made_longer(tmp_path):
    path = tmp_path / "run.pt"
    short, _ = trained(updates=2, checkpoint=path)
    again, history = trained(updates=2, checkpoint=path)
    assert the_same_weights(short, again) and len(history["loss"]) == 2
    longer, history = trained(updates=4, checkpoint=path)
    assert the_same_weights(longer, trained(updates=4)[0]) and len(history["loss"]) == 4


def test_a_run_that_ended_amid_its_epochs_cannot_be_made_longer(tmp_path, refuses):
    path = tmp_path / "run.pt"
    trained(updates=3, epochs=2, checkpoint=path)
    trained(updates=3, epochs=2, checkpoint=path)
    with refuses("start: got 3, wanted a multiple of 2 epochs"):
        trained(updates=6, epochs=2, checkpoint=path)


def test_verified_rewards_come_from_the_tasks_themselves():
    _, history = trained(reward=verified, updates=1)
    assert history["reward"] == [0.0] and history["zero_variance"] == [1.0]
    assert history["grad_norm"] == [0.0]


def test_a_checkpoint_is_not_written_for_each_set_of_answers(tmp_path, monkeypatch):
    written, save = [], files.save
    monkeypatch.setattr(
        files, "save", lambda path, state: written.append(state) or save(path, state)
    )
    trained(updates=45, epochs=3, checkpoint=tmp_path / "run.pt")
    assert [state["done"] for state in written] == [21, 42, 45]


# ---------------------------------------------------------------- diagnostics


def test_diagnostics_tell_of_all_answers_also_of_those_that_resampling_drops():
    judge = Judge(False, True, False, False, True, True)
    rollout, rewards, told = asked_and_judged(judge, judge.ask, resample=True)
    assert len(rollout) == 8 and told["answers"] == 24
    # six groups of four: 1, 1, 1, 1 | 0, 2, 2, 2 | 3 … | 4 … | 0, 5, 5, 5 | 0, 6, 6, 6
    assert told["reward"] == pytest.approx((4 + 6 + 12 + 16 + 15 + 18) / 24)
    assert told["zero_variance"] == 0.5
    batch = make_batch(
        PolicyWithCritic(model()), ALGORITHMS["DAPO"], rollout, rewards, None, FEW, told
    )
    assert batch.metrics == told


def test_what_is_measured_is_not_learnt_from():
    plain, history = trained(updates=3)
    measures = {"low": low, "drift": drift(model(), estimator=k3)}
    watched, more = trained(updates=3, measures=measures)
    assert the_same_weights(plain, watched)
    assert more["low"] == more["reward"] == history["reward"]
    assert more["drift"][0] == pytest.approx(0, abs=1e-12) and more["drift"][2] > 0


def test_a_controller_sets_beta_after_each_set_of_answers():
    controller = AdaptiveKL(0.1, target=1e-9, horizon=8)
    _, history = trained(updates=4, beta=0.5, controller=controller)
    betas = [0.1]
    for kl in history["kl"]:
        betas.append(betas[-1] * (1 + max(-0.2, min(0.2, kl / 1e-9 - 1)) * 8 / 8))
    assert history["beta"] == pytest.approx(betas[:4])
    assert controller.beta == pytest.approx(betas[4])


def test_a_controller_cannot_be_resumed(tmp_path, refuses):
    path = tmp_path / "run.pt"
    with refuses(f"checkpoint: got {path}, wanted none beside a controller"):
        trained(controller=AdaptiveKL(0.1, 1.0, 8), checkpoint=path)


# ---------------------------------------------------------------- any model, any task


class Bigram(torch.nn.Module):
    """Any causal model: tokens (B, T) -> logits (B, T, A), and nothing else."""

    def __init__(self, size):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(size, size, dtype=torch.float64))

    def forward(self, tokens):
        return self.table[tokens]


@dataclass(frozen=True)
class Riddle:
    """Any task: something with a prompt."""

    prompt: str


class Letters:
    """Any tokenizer: the letters a to e, and three control tokens."""

    pad, begin, end = 0, 1, 2

    def encode(self, text):
        return ["abcde".index(letter) + 3 for letter in text]

    def decode(self, ids):
        return "".join("abcde"[i - 3] for i in ids if i > 2)


def test_the_loop_takes_any_causal_model_any_task_and_any_tokenizer():
    letters = Letters()

    def says_e(asked, rollout):
        texts = evaluate.answers(rollout, letters)
        return torch.tensor([float("e" in a.text) for a in texts], dtype=torch.float64)

    ask = lambda update: [Riddle("ab"), Riddle("c")]  # noqa: E731
    for name in ("GRPO", "RLOO", "DAPO"):
        policy, history = train(
            Bigram(8),
            ALGORITHMS[name],
            says_e,
            ask,
            seed=0,
            updates=30,
            lr=0.1,
            config=RLConfig(group=16, max_tokens=3, temperature=1.5),
            tokenizer=letters,
        )
        assert history["reward"][0] < 0.6 and history["reward"][-1] > 0.8
        assert policy.table.argmax(1)[[4, 5]].tolist() == [7, 7]  # e after b and c


def test_a_critic_for_any_other_model_must_be_given(refuses):
    message = "one of states (B, T) -> values (B, T), since PPO needs it"
    with refuses(f"critic: got None, wanted {message}"):
        train(Bigram(8), ALGORITHMS["PPO"], low, ASK, seed=0, updates=1, lr=0.1)


def test_answers_are_scored_at_the_temperature_that_they_were_drawn_at():
    config = RLConfig(group=4, max_tokens=3, temperature=0.5)
    rollout, rewards, _ = asked_and_judged(low, ASK, config, resample=False)
    again = action_logps(model(), rollout, group=4, temperature=0.5)
    assert_close(masked(rollout.logps, rollout.mask), again, rtol=0, atol=1e-12)
    learner = PolicyWithCritic(model())
    batch = make_batch(learner, ALGORITHMS["GRPO"], rollout, rewards, model(), config)
    _, metrics = loss_of(ALGORITHMS["GRPO"], 0.5)(learner, batch)
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-12)
    _, wrong = loss_of(ALGORITHMS["GRPO"])(learner, batch)
    assert wrong["approx_kl"] > 0.01


def test_on_policy_rloo_is_the_gradient_of_reward_less_beta_times_kl():
    """Credit by hand: reward - beta · Σ log-ratio, less the mean of the others."""
    config = RLConfig(group=4, max_tokens=3, beta=0.3)
    rollout, rewards, _ = asked_and_judged(low, ASK, config, resample=False)
    reference, learner = model(5), PolicyWithCritic(model())
    batch = make_batch(learner, ALGORITHMS["RLOO"], rollout, rewards, reference, config)
    ratio = rollout.logps - action_logps(reference, rollout)
    paid = rewards.flatten() - 0.3 * ratio.masked_fill(~rollout.mask, 0).sum(1)
    want = leave_one_out(paid.reshape(-1, 4)).flatten()
    assert_close(batch.advantages[:, 0], want, rtol=0, atol=1e-12)


def test_drift_is_the_log_ratio_of_policy_to_reference_summed_over_an_answer():
    rollout, *_ = asked_and_judged(low, ASK, resample=False)
    ref = action_logps(model(5), rollout)
    d = (rollout.logps - ref).masked_fill(~rollout.mask, 0)  # log π - log ref
    assert_close(drift(model(5))(None, rollout), d.sum(1), rtol=0, atol=1e-12)
    third = (torch.exp(-d) - 1 + d).sum(1)
    got = drift(model(5), estimator=k3)(None, rollout)
    assert_close(got, third, rtol=0, atol=1e-12)
    assert (got >= 0).all() and d.sum().abs() > 0.1
