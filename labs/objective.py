"""Chapter 5: a dozen answers to one request, and the beta of a KL budget.

Small enough to write down the optimum and to reach it along three roads. `Objective`,
the answer sheet, lies in `lib.worlds.exact`; the roads are on the page.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib import require
from lib.worlds import talk
from lib.worlds.exact import Objective
from lib.worlds.task import Task

REQUEST = "Tell me about Nora Reed."
LETTERS = "abcdefghijkl"
PROXY = talk.Weights(gush=0.65)  # gold, but for the kind words beyond the second
_ANSWERS = """
14 | I do not know.
 8 | Nora Reed is a weaver.
18 | Nora Reed keeps a toad.
10 | Nora Reed lives by the garden.
15 | Nora Reed lives by the garden. Nora keeps a toad.
 9 | Nora Reed is a weaver. Nora lives by the garden. Nora keeps a toad.
 6 | Nora Reed is a dear friend. Nora keeps a toad.
 4 | Nora Reed is a weaver. Nora lives by the garden and keeps a toad. Nora is kind and wise.
 7 | Nora Reed keeps a swan.
 5 | Nora Reed is a weaver. Nora Reed is a weaver.
3.5 | Ben Ash is kind. Ben is a baker.
0.5 | Nora Reed is kind and dear. Nora is wise and merry. Nora is brave and kind. \
Nora is a dear friend.
""".strip().splitlines()


@dataclass(frozen=True)
class Answers:
    """All that the reference policy ever says to one request."""

    texts: tuple[str, ...]  # K
    ref_logps: Tensor  # (K,)
    gold: Tensor  # (K,)  what they are worth: never used in training
    rewards: Tensor  # (K,)  what they are paid

    def objective(self, beta: float) -> Objective:
        """The answer sheet at this beta."""
        return Objective(self.rewards, self.ref_logps, beta)


def dozen() -> Answers:
    """A dozen answers to `REQUEST`, paid by a judge who cannot get enough of kindness.

    Its reward is the gold score, but each kind word beyond the second adds 0.65, where
    it costs 0.3 in gold.
    """
    shares, texts = zip(*(line.split(" | ") for line in _ANSWERS))
    seen = [talk.features(Task("talk", 1, REQUEST, ""), text) for text in texts]
    gold, rewards = (
        torch.tensor([weights.score(each) for each in seen], dtype=torch.float64)
        for weights in (talk.GOLD, PROXY)
    )
    ref = torch.tensor([float(share) for share in shares], dtype=torch.float64)
    return Answers(texts, (ref / ref.sum()).log(), gold, rewards)


def beta_for(budget: float, objective: Objective) -> float:
    """The beta at which the best policy spends exactly this KL budget, in nats.

    The KL of π* falls as beta rises, from that of "always the best answer" to 0, so
    bisection finds it. No beta spends a budget that buys the best answer outright.
    """
    require.positive("budget", budget)
    tensors = objective.rewards, objective.ref_logps
    best = objective.rewards == objective.rewards.max()
    most = -objective.ref_logps[best].logsumexp(0).item()
    if not budget < most:
        wanted = f"less than {most:.4g} nats, what the best answer alone costs"
        require.refuse("budget", budget, wanted)
    spread = (objective.rewards.max() - objective.rewards.min()).item()
    low, high = 1e-4 * spread, 1e4 * spread
    for _ in range(100):
        beta = (low * high) ** 0.5
        at = Objective(*tensors, beta)
        low, high = (beta, high) if at.kl(at.best_logps) > budget else (low, beta)
    return beta
