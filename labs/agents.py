"""Chapter 2's ladder: five agents, each a few lines from the last.

An agent is three choices: which stretches of play it learns from, how it credits the
actions in them, and which loss turns that credit into a gradient. `train` is the same
for all: play, credit, update.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gymnasium
import torch
from torch import Tensor, nn

from lib import require
from lib.advantages import gae, reward_to_go
from lib.losses.policy_gradient import Loss, clipped_value, ppo_clip, reinforce
from lib.models.mlp import MLP, ActorCritic, Greedy
from lib.ops import token_logps, token_mean, whiten
from lib.rollout import Batch, Rollout
from lib.train import History, fit
from lib.worlds.cartpole import UNITS
from lib.worlds.environment import World, clips, episodes, play

# --- how actions are credited: (model, rollout, gamma) -> Batch ----------------


def whole_return(model: ActorCritic, rollout: Rollout, gamma: float) -> Batch:
    """Rung 1, REINFORCE (Williams 1992): each action gets the whole return."""
    returns = reward_to_go(rollout.rewards, rollout.mask, gamma=gamma)  # (B, T)
    credit = returns[:, :1].expand_as(returns)
    return Batch(rollout, credit, torch.zeros_like(returns), returns)


def to_go(model: ActorCritic, rollout: Rollout, gamma: float) -> Batch:
    """Rung 2, reward-to-go: no credit for what was over before the action."""
    returns = reward_to_go(rollout.rewards, rollout.mask, gamma=gamma)  # (B, T)
    credit = returns
    return Batch(rollout, credit, torch.zeros_like(returns), returns)


@torch.no_grad()
def to_go_less_value(model: ActorCritic, rollout: Rollout, gamma: float) -> Batch:
    """Rung 3, a baseline: better or worse than V(s) expected?"""
    returns = reward_to_go(rollout.rewards, rollout.mask, gamma=gamma)  # (B, T)
    values = model.values(rollout.states)
    credit = returns - values
    return Batch(rollout, credit, values, returns)


@torch.no_grad()
def generalised(
    model: ActorCritic, rollout: Rollout, gamma: float, lam: float = 0.95
) -> Batch:
    """Rungs 4 and 5, GAE (Schulman et al. 2016): V stands in for what was not seen."""
    values = model.values(rollout.states)  # (B, T)
    last = model.values(rollout.last_states).unsqueeze(-1)  # (B, 1)
    after = torch.cat((values[:, 1:], last), 1)
    after = torch.where(rollout.ends, last, after)  # V of the true successor
    ended = rollout.ends & rollout.terminated.unsqueeze(-1)
    cut = rollout.ends & ~ended
    credit, returns = gae(
        rollout.rewards, values, after, ended, cut, gamma=gamma, lam=lam
    )
    return Batch(rollout, credit, values, returns)


# --- how credit becomes a gradient: (model, experience) -> (loss, metrics) ----------


def policy_loss(model: nn.Module, seen: Batch) -> Loss:
    """Rungs 1 and 2: make what was credited more probable."""
    logps = token_logps(model(seen.rollout.states), seen.rollout.actions)
    return reinforce(logps, seen.advantages, seen.rollout.mask)


def actor_critic_loss(model: ActorCritic, seen: Batch) -> Loss:
    """Rungs 3 and 4: the same, and V learns to predict the returns."""
    loss, metrics = policy_loss(model, seen)
    error = (model.values(seen.rollout.states) - seen.returns) / model.scale
    value_loss = 0.5 * token_mean(error.square(), seen.rollout.mask)
    return loss + value_loss, {**metrics, "value_loss": value_loss.item()}


def ppo_loss(model: ActorCritic, seen: Batch) -> Loss:
    """Rung 5, PPO (Schulman et al. 2017): old data may be used again, within limits."""
    mask = seen.rollout.mask
    logps = token_logps(model(seen.rollout.states), seen.rollout.actions)
    advantages = whiten(seen.advantages, mask)
    loss, metrics = ppo_clip(logps, seen.rollout.logps, advantages, mask)
    value_loss, _ = clipped_value(
        model.values(seen.rollout.states) / model.scale,
        seen.values / model.scale,
        seen.returns / model.scale,
        mask,
    )
    return loss + value_loss, {**metrics, "value_loss": value_loss.item()}


# --- the five agents, and the loop that trains any of them ---------------------------


@dataclass(frozen=True)
class Agent:
    """One rung of the ladder."""

    credit: Callable[[ActorCritic, Rollout, float], Batch]
    loss: Callable[[ActorCritic, Batch], Loss]
    clip_length: int | None = None  # None: learns from whole episodes
    epochs: int = 1  # updates per rollout
    lr: float = 1e-2


LADDER = {
    "REINFORCE": Agent(whole_return, policy_loss),
    "reward-to-go": Agent(to_go, policy_loss),
    "baseline": Agent(to_go_less_value, actor_critic_loss),
    "actor–critic": Agent(generalised, actor_critic_loss, clip_length=32),
    "PPO": Agent(generalised, ppo_loss, clip_length=32, epochs=10, lr=5e-3),
}


def actor_critic(
    generator: torch.Generator, *, gamma: float, hidden: int = 32
) -> ActorCritic:
    """An untrained agent for CartPole; its values in units of 1 / (1 - gamma)."""
    policy = MLP(4, hidden, 2, generator=generator, units=UNITS)
    value = MLP(4, hidden, 1, generator=generator, units=UNITS)
    return ActorCritic(policy, value, scale=1 / (1 - gamma))


def train(
    agent: Agent,
    world: World,
    *,
    seed: int,
    steps: int = 40_000,
    batch: int = 32,
    gamma: float = 0.99,
    watch: Callable[[ActorCritic, int, Rollout], bool | None] | None = None,
    progress: str | None = None,
) -> tuple[ActorCritic, History]:
    """Play, credit, update, until `steps` actions have been taken.

    The learning rate falls linearly to 0 over those steps. `watch(model, actions taken,
    last rollout)` is called after each rollout has been learnt from; it ends the
    training by returning True. Returns the model and fit's history, with "steps"
    (actions taken so far) and "length" (mean length of the rollout's rows) for each
    update.
    """
    require.count("steps", steps)
    generator = torch.Generator().manual_seed(seed)
    model = actor_critic(generator, gamma=gamma)
    taken: list[int] = [0]

    def stream() -> Iterator[Batch]:
        for rollout in _rollouts(agent, model, world, batch, generator):
            taken.append(taken[-1] + rollout.lengths.sum().item())
            seen = agent.credit(model, rollout, gamma)
            for _ in range(agent.epochs):
                yield seen
            stop = watch is not None and watch(model, taken[-1], rollout)
            if stop or taken[-1] >= steps:
                return

    def loss(model: ActorCritic, seen: Batch) -> Loss:
        value, metrics = agent.loss(model, seen)
        length = seen.rollout.lengths.double().mean().item()
        return value, {**metrics, "steps": taken[-1], "length": length}

    def lr(update: int) -> float:
        before = taken[-2] if len(taken) > 1 else 0
        return agent.lr * max(0.0, 1 - before / steps)

    return model, fit(model, stream(), loss, lr=lr, progress=progress)


def gradients(
    model: ActorCritic,
    loss: Callable[[ActorCritic, Batch], Loss],
    seen: Batch,
    *,
    rows: int = 8,
) -> Tensor:
    """The policy's gradient, estimated by each `rows` rows: (estimates, weights)."""
    parts = [seen.rows(some) for some in torch.arange(len(seen.rollout)).split(rows)]
    weights = list(model.policy.parameters())
    each = [torch.autograd.grad(loss(model, part)[0], weights) for part in parts]
    return torch.stack([torch.cat([g.flatten() for g in one]) for one in each])


def evaluate(
    policy: nn.Module, world: World, *, batch: int = 100, seed: int = 0
) -> float:
    """Mean return of `batch` whole episodes, drawn from a stream of its own."""
    generator = torch.Generator().manual_seed(seed)
    return play(policy, world, batch=batch, generator=generator).returns.mean().item()


class Solved:
    """A `watch` that ends the training once three evaluations in a row reach `target`.

    Each plays `batch` episodes greedily in the training world, `every` actions apart;
    `curve` keeps (actions taken, mean return).
    """

    def __init__(
        self, world: World, *, target: float = 475, every: int = 1024, batch: int = 100
    ) -> None:
        self.world, self.target, self.every, self.batch = world, target, every, batch
        self.curve: list[tuple[int, float]] = []

    def __call__(self, model: ActorCritic, taken: int, rollout: Rollout) -> bool:
        """Evaluate if it is time; True once the last three evaluations passed."""
        then = self.curve[-1][0] if self.curve else 0
        if taken // self.every > then // self.every:
            mean = evaluate(Greedy(model), self.world, batch=self.batch, seed=taken)
            self.curve.append((taken, mean))
        last = [mean for _, mean in self.curve[-3:]]
        return len(last) == 3 and min(last) >= self.target


def gymnasium_returns(
    policy: nn.Module, *, episodes: int = 100, seed: int = 0
) -> list[float]:
    """Returns of greedy episodes in gymnasium's own CartPole-v1, the judge."""
    require.count("episodes", episodes)
    mode = "vector_entry_point"  # gymnasium's own batched CartPole, a tenth of the time
    envs = gymnasium.make_vec("CartPole-v1", num_envs=episodes, vectorization_mode=mode)
    observations, _ = envs.reset(seed=seed)
    alive, returns = torch.ones(episodes, dtype=torch.bool), torch.zeros(episodes)
    while alive.any():
        with torch.no_grad():
            actions = policy(torch.as_tensor(observations).double()).argmax(-1)
        observations, rewards, terminated, truncated, _ = envs.step(actions.numpy())
        returns += torch.as_tensor(rewards) * alive
        alive &= ~torch.as_tensor(terminated | truncated)
    envs.close()
    return returns.tolist()


def _rollouts(
    agent: Agent, model: ActorCritic, world: World, batch: int, draw: torch.Generator
) -> Iterator[Rollout]:
    length = agent.clip_length
    if length is None:
        return episodes(model, world, batch=batch, generator=draw)
    return clips(model, world, batch=batch, length=length, generator=draw)
