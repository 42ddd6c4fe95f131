"""What chapter 2 says of PPO beside the clip: its first gradient, and what else changes."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from labs import agents
from lib.ops import whiten
from lib.worlds import cartpole
from lib.worlds.environment import play


@pytest.mark.parametrize("seed", range(3))
def test_ppos_first_gradient_is_the_actor_critics_with_whitened_advantages(
    seed, seeded
):
    model = agents.actor_critic(seeded(seed), gamma=0.99)
    rollout = play(model, cartpole.world(), batch=8, generator=seeded(seed))
    seen = agents.generalised(model, rollout, 0.99)
    white = replace(seen, advantages=whiten(seen.advantages, rollout.mask))
    ppo, raw, whitened = (
        agents.gradients(model, loss, one)[0]
        for loss, one in (
            (agents.ppo_loss, seen),
            (agents.policy_loss, seen),
            (agents.policy_loss, white),
        )
    )
    per_action = len(rollout) / rollout.mask.sum().item()  # a mean over actions
    assert_close(ppo, whitened * per_action, rtol=1e-9, atol=1e-12)
    assert torch.cosine_similarity(ppo, raw, dim=0) < 1 - 1e-6  # and not the same


def test_ppo_alone_has_another_learning_rate():
    rates = {name: agent.lr for name, agent in agents.LADDER.items()}
    assert rates.pop("PPO") == 0.005 and set(rates.values()) == {0.01}


def test_a_random_direction_has_a_cosine_of_one_over_the_root_of_226(seeded):
    policy = agents.actor_critic(seeded(0), gamma=0.99).policy
    weights = sum(w.numel() for w in policy.parameters())
    one, other = torch.randn(2, 10_000, weights, generator=seeded(1)).double()
    spread = torch.cosine_similarity(one, other, dim=-1).std().item()
    assert weights == 226
    assert spread == pytest.approx(226**-0.5, rel=0.05)
    assert 226**-0.5 == pytest.approx(0.067, abs=0.0005)
