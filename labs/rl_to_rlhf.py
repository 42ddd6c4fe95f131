"""Chapter 3: from CartPole's step to a world of text, one change at a time.

`standard`, `learned`, `prompted` and `appended` are the step of a world before and
after each modification; to be read side by side. Below them, what each costs.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from labs.agents import policy_loss
from lib import require
from lib.advantages import reward_to_go
from lib.rollout import Batch, Rollout
from lib.train import fit
from lib.worlds import cartpole, exact
from lib.worlds.environment import World

PAD, END = 0, 1  # tokens of the small world of text
Judge = Callable[..., Tensor]  # states, or states and actions -> rewards (B,)
Step = tuple[Tensor, Tensor, Tensor]  # next states, rewards (B,), ended (B,) bool


def standard(states: Tensor, actions: Tensor, judge: Judge) -> Step:
    """CartPole's step; the judge is not asked. states (B, 4), actions (B,)."""
    after, rewards, ended = cartpole.step(states, actions)
    return after, rewards, ended


def learned(states: Tensor, actions: Tensor, judge: Judge) -> Step:
    """Modification 1: somebody else says what a state is worth."""
    after, _, ended = cartpole.step(states, actions)
    return after, judge(states), ended


def prompted(states: Tensor, actions: Tensor, judge: Judge) -> Step:
    """Modification 2: one action, and it is over; states (B,) are prompts."""
    ended = torch.ones_like(actions, dtype=torch.bool)
    return states, judge(states, actions), ended


def appended(states: Tensor, actions: Tensor, judge: Judge) -> Step:
    """Modification 3: an action is the next token, and the last one is paid for.

    states (B, n): tokens, then PAD, which is never an action. A text ends with END.
    """
    length = (states != PAD).sum(1, keepdim=True)  # (B, 1)
    after = states.scatter(1, length, actions[:, None])
    ended = actions == END
    return after, judge(after) * ended, ended


def text_world(prompt: list[int], judge: Judge, *, room: int) -> World:
    """`appended` to be played: every text begins with `prompt`, `room` tokens follow."""
    require.count("room", room)
    start = torch.tensor([*prompt, *[PAD] * room])
    return World(
        lambda batch, generator: start.repeat(batch, 1),
        lambda states, actions, generator: appended(states, actions, judge),
        room,
    )


class Reader(nn.Module):
    """A language model as a policy for `play`, which shows it one state at a time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, states: Tensor) -> Tensor:
        """(B, 1, n) tokens and PAD -> (B, 1, A): what follows the last token."""
        tokens = states[:, 0]
        last = (tokens != PAD).sum(1) - 1
        return self.model(tokens)[torch.arange(len(tokens)), last].unsqueeze(1)


# --- what it costs to be paid once ----------------------------------------------------


def strings(length: int) -> tuple[Rollout, Tensor]:
    """All 3^length strings of three tokens, and where token 1, the good one, stands."""
    rows = exact.every_completion([0], tokens=range(3), end=None, max_tokens=length)
    return rows, (rows.actions == 1).double()  # (K, T)


def credited(good: Tensor, *, at_end: bool) -> Tensor:
    """Reward-to-go of a point a good token, (B, T); or of their sum, paid at the end."""
    to_go = reward_to_go(good, torch.ones_like(good, dtype=torch.bool))
    return to_go[:, :1].expand_as(to_go) if at_end else to_go


def noise(
    length: int, *, at_end: bool, shared: bool = False, baseline: bool = False
) -> float:
    """tr Cov / |∇J|² of a one-string gradient of the uniform policy, exactly.

    So many strings must be averaged until the noise is as small as the signal
    (McCandlish et al. 2018, their B_simple). Every prefix has a row of logits of its
    own, or one row is `shared` by all; `baseline`: credit less its mean over all strings.
    """
    rows, good = strings(length)
    credit = credited(good, at_end=at_end)
    if baseline:
        credit = credit - credit.mean(0)
    slope = torch.eye(3).double()[rows.actions] - 1 / 3  # (K, T, 3) of log π
    digits = (rows.actions + 1) * 3 ** torch.arange(length)
    prefix = digits.cumsum(1) - digits  # (K, T), its number among all prefixes
    place = (torch.arange(len(rows))[:, None], 0 * prefix if shared else prefix)
    each = torch.zeros(len(rows), 3**length, 3).double()  # a gradient a string
    each = each.index_put(place, credit[..., None] * slope, accumulate=True)
    return (each.var(0, correction=0).sum() / each.mean(0).square().sum()).item()


def answers_needed(length: int, *, at_end: bool, seed: int, batch: int = 16) -> int:
    """Strings that a table must see until it earns 90 % of the best possible.

    Learnt by `fit` and `policy_loss`; the baseline is the mean over the batch.
    """
    (rows, good), policy = strings(length), exact.PrefixTable(3, length)
    draw, count = torch.Generator().manual_seed(seed), 0

    def stream() -> Iterator[Batch]:
        nonlocal count
        while True:
            chances = exact.completion_logps(policy, rows).detach().exp()  # (K,)
            if chances @ good.sum(1) >= 0.9 * length:
                return
            pick = torch.multinomial(chances, batch, True, generator=draw)
            credit = credited(good[pick], at_end=at_end)
            count += batch
            yield Batch(rows.rows(pick), credit - credit.mean(0), credit, credit)

    fit(policy, stream(), policy_loss, lr=0.1)
    return count
