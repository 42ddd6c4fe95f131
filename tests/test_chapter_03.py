"""What chapter 3 claims: one closure for a pole and a text, and one gradient for both views."""

from collections.abc import Iterator

import pytest
import torch

from labs import agents, rl_to_rlhf
from lib import villagers
from lib.advantages import leave_one_out, reward_to_go
from lib.models.transformer import Config, Transformer
from lib.ops import token_logps
from lib.rollout import Batch
from lib.sampling import complete
from lib.train import fit
from lib.worlds import cartpole, exact
from lib.worlds.environment import play
from lib.worlds.village.tasks import tasks

END = rl_to_rlhf.END


def writer(seed: int) -> Transformer:
    config = Config(vocabulary=8, context=12, layers=1, width=16, heads=2, hidden=32)
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


def fives(rollout) -> torch.Tensor:
    """The share of an answer's tokens that are a 5."""
    return ((rollout.actions == 5) & rollout.mask).sum(1) / rollout.lengths


@pytest.mark.parametrize("seed", [0, 1])
def test_one_and_the_same_closure_trains_cartpole_and_a_language_model(seed, seeded):
    closure, draw, earned = agents.policy_loss, seeded(seed), []
    agent = agents.Agent(credit=agents.to_go, loss=closure)
    world = cartpole.world()
    pole, history = agents.train(agent, world, seed=seed, steps=10_000)
    assert sum(history["length"][:2]) / 2 < 40
    assert agents.evaluate(pole, world, batch=32) > 60

    def stream(model: Transformer) -> Iterator[Batch]:
        for _ in range(40):
            rollout = complete(
                model, [[2, 3]] * 4, end=END, max_tokens=6, group=4, generator=draw
            )
            rewards = fives(rollout)  # (B,)
            earned.append(rewards.mean().item())
            credit = leave_one_out(rewards.reshape(4, 4)).reshape(-1, 1)
            credit = credit.expand(rollout.mask.shape)  # (B, T)
            yield Batch(rollout, credit, credit, credit)

    model = writer(seed)
    fit(model, stream(model), closure, lr=1e-2)
    assert sum(earned[:5]) / 5 < 0.4
    assert sum(earned[-5:]) / 5 > 0.7
    assert agent.loss is closure is agents.LADDER["reward-to-go"].loss


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_token_view_and_bandit_view_are_one_gradient_if_nothing_is_discounted(
    seed, gamma, seeded
):
    draw = seeded(seed)
    rows = exact.every_completion([0], tokens=range(3), end=2, max_tokens=4)
    policy = exact.PrefixTable(3, 4)
    torch.nn.init.normal_(policy.logits, generator=draw)
    reward = torch.rand(len(rows), dtype=torch.float64, generator=draw)
    logps = exact.completion_logps(policy, rows)
    to_go = reward_to_go(rows.ends * reward[:, None], rows.mask, gamma=gamma)
    each = token_logps(policy(rows.states), rows.actions)
    tokens = exact.gradient(
        exact.expected((to_go * each).sum(1), logps.detach()), policy
    )
    answers = exact.gradient(exact.expected(reward * logps, logps.detach()), policy)
    true = exact.gradient(exact.expected(reward, logps), policy)
    assert (answers - true).abs().max() < 1e-12
    assert ((tokens - true).abs().max() < 1e-12) == (gamma == 1)
    if gamma == 1:
        credit = reward[:, None].expand(rows.mask.shape)
        assert torch.equal(to_go[rows.mask], credit[rows.mask])


@pytest.mark.parametrize("seed", range(3))
def test_to_append_a_token_is_a_world_and_play_writes_what_complete_writes(
    seed, seeded
):
    model = exact.Restricted(writer(seed).double(), range(1, 8))

    text = rl_to_rlhf.text_world([2, 3], lambda tokens: tokens.sum(1).double(), room=8)
    played = play(rl_to_rlhf.Reader(model), text, batch=40, generator=seeded(seed))
    written = complete(
        model, [[2, 3]], group=40, end=END, max_tokens=8, generator=seeded(seed)
    )
    for name in ("actions", "logps"):
        one, other = getattr(played, name), getattr(written, name)
        torch.testing.assert_close(
            one[played.mask], other[written.mask], rtol=0, atol=1e-12
        )
    assert torch.equal(played.terminated, written.terminated)
    assert played.terminated.any() and not played.terminated.all()


@pytest.mark.parametrize(
    ("shared", "baseline", "end", "each"),
    [
        (False, False, 191.3, 87.8),
        (False, True, 47.1, 27.0),
        (True, False, 8.7, 3.5),
        (True, True, 2.7, 1.0),
    ],
)
def test_payment_at_the_end_costs_what_the_chapter_says_for_six_tokens(
    shared, baseline, end, each
):
    found = [
        rl_to_rlhf.noise(6, at_end=at_end, shared=shared, baseline=baseline)
        for at_end in (True, False)
    ]
    assert found == pytest.approx([end, each], abs=0.05)
    assert 1.7 < found[0] / found[1] < 2.7
    assert rl_to_rlhf.noise(1, at_end=True) == rl_to_rlhf.noise(1, at_end=False)


def test_training_a_row_for_each_prefix_takes_more_answers_if_paid_at_the_end():
    needed = {
        at_end: sum(
            rl_to_rlhf.answers_needed(6, at_end=at_end, seed=s) for s in range(5)
        )
        for at_end in (True, False)
    }
    assert needed[True] > 1.2 * needed[False]


def test_a_pole_that_is_always_pushed_to_one_side_stands_for_about_nine_steps():
    def push(states: torch.Tensor) -> torch.Tensor:
        return 1000 * torch.tensor([-1.0, 1.0]).double().expand(*states.shape[:-1], 2)

    assert 9 <= agents.evaluate(push, cartpole.world(), batch=1000) < 10


def test_practice_on_knowledge_repeats_a_few_questions():
    practised = {
        task.request
        for seed in range(3)
        for update in range(75)
        for task in tasks("know", count=12, seed=1000 * seed + update)
    }
    examined = villagers.exam(count=40)
    asked = {task.request for task in examined if task.skill == "know"}
    assert (len(practised), len(asked)) == (35, 13) and not practised & asked
