"""CartPole from preferences: an agent that never sees the environment's reward.

Somebody looks at two films of the agent and says which is better. A reward model learns
to agree, the agent learns from the reward model, and new films are shown (Christiano et
al. 2017). The agent and its loop are chapter 2's, unchanged: `judged` hands it a world
whose rewards are the model's, and `Annotation` is a `watch`.

Shapes: N pairs of films, the preferred one first: (N, 2, F, 4), F frames; B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labs import agents
from lib import require
from lib.losses.reward import Loss, bradley_terry
from lib.models.mlp import MLP, ActorCritic
from lib.rollout import Rollout
from lib.seeds import generator as stream
from lib.train import History, fit
from lib.worlds import cartpole
from lib.worlds.environment import World, play

LENGTH = 400  # steps: a film of eight seconds
GRAIN = 2**-10  # of a reward model's weights
CONTENT = 395  # steps upright in the mean film: the annotator asks for nothing more


def film(
    policy: nn.Module,
    world: World,
    *,
    batch: int,
    generator: torch.Generator,
    length: int = LENGTH,
    every: int = 20,
) -> tuple[Tensor, Tensor]:
    """`batch` films of `length` steps: frames (B, F, 4), true returns (B,).

    F = length / every: one frame in `every` steps is shown. After a fall the film runs
    on and shows the pole where it lies. The returns are for the annotator alone.
    """
    require.count("length", length)
    require.count("every", every)
    if length % every:
        require.refuse("every", every, f"a divisor of length {length}")
    seen = play(policy, world, batch=batch, generator=generator, horizon=length)
    frames = seen.last_states.unsqueeze(1).repeat(1, length, 1)  # (B, length, 4)
    frames[:, : seen.mask.shape[1]][seen.mask] = seen.states[seen.mask]
    return frames[:, every - 1 :: every], seen.returns


def fallen(frames: Tensor) -> Tensor:
    """(..., 4) -> (...) bool: the pole lies, or the cart has left the track."""
    x, theta = frames[..., 0].abs(), frames[..., 2].abs()
    return (x > cartpole.X_LIMIT) | (theta > cartpole.THETA_LIMIT)


def prefer(
    first: Tensor,
    second: Tensor,
    *,
    generator: torch.Generator,
    temperature: float = 5.0,
    error: float = 0.05,
) -> Tensor:
    """A simulated annotator: does he prefer the first film? (N,), (N,) -> (N,) bool.

    `first`, `second`: true returns (steps upright). P(first) = σ(difference /
    `temperature`), Bradley–Terry; then, with probability `error`, the other button is
    pressed. Equal films are a coin flip.
    """
    require.tensor("first", first)
    require.tensor("second", second, first.shape)
    require.positive("temperature", temperature)
    require.unit_interval("error", error)
    p = torch.sigmoid((first - second).double() / temperature)
    p = (1 - error) * p + error * (1 - p)
    return torch.rand(p.shape, dtype=p.dtype, generator=generator) < p


def pair(films: Tensor, prefers: Tensor) -> Tensor:
    """Film k against film N + k: (2N, F, 4), (N,) bool, True where k won -> (N, 2, F, 4)."""
    require.tensor("prefers", prefers, (len(films) // 2,))
    both = torch.stack(films.split(len(prefers)), 1)  # (N, 2, F, 4)
    return torch.where(prefers[:, None, None, None], both, both.flip(1))


class FilmRewardModel(nn.Module):
    """r(s), learned. Called, it is (raw - `zero`) / `unit`, without gradient.

    Comparisons of equally long films fix neither zero nor unit; `settle` does.
    """

    def __init__(self, generator: torch.Generator, *, hidden: int = 32) -> None:
        super().__init__()
        self.net = MLP(4, hidden, 1, generator=generator, units=cartpole.UNITS)
        self.register_buffer("zero", torch.zeros((), dtype=torch.float64))
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))

    def raw(self, states: Tensor) -> Tensor:
        """(..., 4) -> (...): what Bradley–Terry trains."""
        return self.net(states).squeeze(-1)

    @torch.no_grad()
    def forward(self, states: Tensor) -> Tensor:
        """(..., 4) -> (...): the reward that the agent gets."""
        return (self.raw(states) - self.zero) / self.unit

    @torch.no_grad()
    def settle(self, frames: Tensor) -> None:
        """0 = the mean over fallen frames, 1 = the mean over upright ones; (..., 4).

        Nothing follows a fall, which the agent's return counts as 0 for ever. So the
        model must call a fallen pole 0, else the agent is paid to fall or not to.
        """
        raw, down = self.raw(frames), fallen(frames)
        if down.any() and not down.all():
            self.zero.copy_(raw[down].mean())
            self.unit.copy_((raw[~down].mean() - self.zero).abs().clamp(min=1e-8))


def preference_loss(model: FilmRewardModel, pairs: Tensor) -> Loss:
    """A film's score is the sum of r over its frames; then Bradley–Terry."""
    chosen, rejected = model.raw(pairs).sum(-1).unbind(1)  # (N,) each
    return bradley_terry(chosen, rejected)


def judged(world: World, reward: Callable[[Tensor], Tensor]) -> World:
    """The same world, but the rewards are what `reward` says of the states (B, ...)."""

    def step(
        states: Tensor, actions: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        after, _, ended = world.step(states, actions, generator)
        return after, reward(states), ended

    return World(world.reset, step, world.horizon)


def fit_reward_model(
    reward: FilmRewardModel,
    pairs: Tensor,
    *,
    generator: torch.Generator,
    updates: int = 60,
    batch: int = 64,
) -> History:
    """Fit the reward model to `updates` random minibatches of pairs; settle its zero.

    Its weights are rounded to GRAIN: their last digits differ between processors, and
    round by round the difference would grow until it turns a push.
    """
    require.count("updates", updates)
    sizes = [(batch,)] * updates
    draws = (torch.randint(len(pairs), size, generator=generator) for size in sizes)
    batches = (pairs[some] for some in draws)
    found = fit(reward, batches, preference_loss, lr=1e-2, weight_decay=1e-3)
    with torch.no_grad():
        for weight in reward.parameters():
            weight.copy_((weight / GRAIN).round() * GRAIN)
    reward.settle(pairs)
    return found


@dataclass(frozen=True)
class Note:
    """One round of questions, as things were before the model learnt from it."""

    comparisons: int  # asked so far, these included
    agreement: float  # share of the new answers that the old model predicted
    truth: float  # mean true return of the films


class Annotation:
    """A `watch` for `agents.train`: at times show films, ask, and fit the reward.

    Up to `comparisons` questions in `rounds` parts: the first before training, the others
    spread evenly over the first three quarters of `steps`. The training ends early once
    nearly every film lasts. `answer(first, second, generator=…) -> (N,) bool` is the
    annotator. Keeps `pairs` and `notes`.
    """

    def __init__(
        self,
        reward: FilmRewardModel,
        world: World,
        *,
        generator: torch.Generator,
        comparisons: int = 750,
        rounds: int = 15,
        steps: int = 25_000,
        answer: Callable[..., Tensor] = prefer,
    ) -> None:
        require.count("rounds", rounds)
        require.count("comparisons", comparisons, least=rounds)
        self.reward, self.world, self.draw = reward, world, generator
        self.comparisons, self.rounds, self.steps = comparisons, rounds, steps
        self.answer, self.notes = answer, list[Note]()
        self.pairs = torch.zeros(0, 2, 20, 4).double()  # none yet

    def __call__(self, model: nn.Module, taken: int, rollout: Rollout) -> bool:
        """Ask if it is time; True once the annotator is content."""
        due = 0.75 * self.steps * len(self.notes) / self.rounds
        if len(self.notes) == self.rounds or taken < due:
            return False
        self.ask(model)
        return self.notes[-1].truth >= CONTENT

    def ask(self, policy: nn.Module) -> None:
        """Film what the policy does, ask, note what the model thought, learn."""
        asked = len(self.pairs)
        new = (self.comparisons - asked) // (self.rounds - len(self.notes))
        frames, returns = film(policy, self.world, batch=2 * new, generator=self.draw)
        first, second = returns.split(new)
        pairs = pair(frames, self.answer(first, second, generator=self.draw))
        with torch.no_grad():
            _, told = preference_loss(self.reward, pairs)
        truth = returns.mean().item()
        self.notes.append(Note(asked + new, told["accuracy"], truth))
        self.pairs = torch.cat([self.pairs, pairs])
        fit_reward_model(self.reward, self.pairs, generator=self.draw)


def from_preferences(
    seed: int, *, steps: int = 25_000, **settings: Any
) -> tuple[ActorCritic, Annotation]:
    """Chapter 2's PPO on CartPole, paid by a model of what an annotator prefers.

    `settings` are the settings of `Annotation`; the result holds its reward and its notes.
    """
    world, draw = cartpole.world(), stream("films", seed)
    reward = FilmRewardModel(draw)
    teacher = Annotation(reward, world, generator=draw, steps=steps, **settings)
    teacher.ask(agents.actor_critic(draw, gamma=0.99))
    agent, place = agents.LADDER["PPO"], judged(world, reward)
    model, _ = agents.train(agent, place, seed=seed, steps=steps, watch=teacher)
    return model, teacher
