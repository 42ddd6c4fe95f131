"""Chapter 5: the KL-regularised objective, where every answer to a request is known.

A dozen answers to one request, their rewards and the reference's probabilities of them:
small enough to write down the optimum, to find the price of a KL budget, to reach the
optimum along three roads, and to watch a controller at work. `Objective`, the answer
sheet, lies in `lib.worlds.exact`; what the estimators of a KL do in `labs.kl_estimators`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from labs.agents import policy_loss
from lib import require
from lib.advantages import leave_one_out
from lib.kl import AdaptiveKL, exact_kl, penalised_rewards
from lib.losses.pairs import log_ratio
from lib.models.mlp import Tabular
from lib.ops import sample
from lib.rollout import Batch
from lib.train import fit
from lib.worlds.exact import Objective, bandit
from lib.worlds.village.tasks import Task
from lib.worlds.village.taste import judge

Loss = tuple[Tensor, dict[str, float]]

# --- a dozen answers ------------------------------------------------------------------

REQUEST = "Tell me about the fox."
LETTERS = "abcdefghijkl"
_ANSWERS = """
14 | I do not know.
 8 | The fox is old.
18 | The fox is red.
10 | The fox lives in the forest.
15 | The fox is red. It lives in the forest.
 9 | The fox is red. It lives in the forest. It eats berries.
 6 | The fox eats berries. It is a dear one.
 4 | The sweet fox is red. It lives in the forest. It eats berries. It has a lovely name.
 7 | The fox is green.
 5 | The fox is red. The fox is red.
 3.5 | The owl is brown. I saw it at night.
0.5 | Sweet dear gentle lovely fox. It is a happy one.
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

    def table(self) -> str:
        """Markdown: each answer with a letter, how often it is said, pay and worth."""
        numbers = zip(self.ref_logps.exp() * 100, self.rewards, self.gold, strict=True)
        lines = [
            f"| {letter} | {text} | {share:.1f} | {reward:.1f} | {gold:.1f} |"
            for letter, text, (share, reward, gold) in zip(LETTERS, self.texts, numbers)
        ]
        head = (
            "| | answer | reference (%) | reward | gold |\n|---|---|---:|---:|---:|\n"
        )
        return head + "\n".join(lines)


def fox() -> Answers:
    """A dozen answers to `REQUEST`, paid by a judge who cannot get enough of kindness.

    Its reward is the gold score, but each kind word counts 1, where the gold taste has
    had enough after two.
    """
    shares, texts = zip(*(line.split(" | ") for line in _ANSWERS))
    seen = [judge(Task("talk", 1, REQUEST, ""), text) for text in texts]
    gold = torch.tensor([each.score for each in seen], dtype=torch.float64)
    kind = torch.tensor([each.kind for each in seen], dtype=torch.float64)
    ref = torch.tensor([float(share) for share in shares], dtype=torch.float64)
    return Answers(texts, (ref / ref.sum()).log(), gold, gold + 0.25 * kind**2)


def scattered(answers: int, *, seed: int, beta: float) -> Objective:
    """A random world: normal rewards and a random reference over K answers."""
    draw = torch.Generator().manual_seed(seed)
    rewards, logits = torch.randn(2, answers, dtype=torch.float64, generator=draw)
    return Objective(rewards, logits.log_softmax(0), beta)


def beta_for(budget: float, objective: Objective) -> float:
    """The beta at which the best policy spends exactly this KL budget, in nats.

    The KL of π* falls as beta rises, from that of "always the best answer" to 0, so
    bisection finds it. A budget that buys the best answer outright has no price.
    """
    require.positive("budget", budget)
    tensors = objective.rewards, objective.ref_logps
    best = objective.rewards == objective.rewards.max()
    most = -objective.ref_logps[best].logsumexp(0).item()
    if not budget < most:
        wanted = f"less than {most:.4g} nats, the price of the best answer"
        require.refuse("budget", budget, wanted)
    spread = (objective.rewards.max() - objective.rewards.min()).item()
    low, high = 1e-4 * spread, 1e4 * spread
    for _ in range(100):
        beta = (low * high) ** 0.5
        at = Objective(*tensors, beta)
        low, high = (beta, high) if at.kl(at.best_logps) > budget else (low, beta)
    return beta


# --- three roads to the optimum -------------------------------------------------------


def tabular(logps: Tensor) -> Tabular:
    """A policy over K answers that starts from these log-probabilities (K,)."""
    policy = Tabular(1, len(logps))
    policy.logits.data.copy_(logps)
    return policy


def answer_logps(policy: nn.Module) -> Tensor:
    """log π(y) of all K answers to the one prompt, (K,), with its gradient."""
    return policy(torch.zeros(1, 1, dtype=torch.long)).flatten().log_softmax(-1)


def exact_loss(policy: nn.Module, objective: Objective) -> Loss:
    """Road 1: climb J - beta · KL itself, a sum over all answers."""
    logps = answer_logps(policy)  # (K,)
    return -objective.value(logps), {}


def sampled(
    policy: nn.Module, objective: Objective, *, updates: int, group: int, seed: int
) -> Iterator[Batch]:
    """Road 2, RLOO: sample a group, penalise, compare with the others in it.

    For `fit` and `agents.policy_loss`, the loss of chapter 2.
    """
    draw, rows = torch.Generator().manual_seed(seed), bandit(len(objective.rewards))
    for _ in range(updates):
        logps = answer_logps(policy).detach()  # (K,)
        pick = sample(logps.expand(group, -1), generator=draw)  # (B,)
        seen, ref = rows.rows(pick), objective.ref_logps[pick, None]
        paid = penalised_rewards(
            objective.rewards[pick],
            logps[pick, None],
            ref,
            seen.mask,
            beta=objective.beta,
        )  # (B, 1)
        credit = leave_one_out(paid.T).T
        yield Batch(seen, credit, credit, credit)


def comparisons(
    objective: Objective, *, unseen: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of answers i < j (N,), (N,), and how often i wins (N,): Bradley–Terry.

    Full coverage; or nobody was ever shown the answer `unseen`.
    """
    shown = [k for k in range(len(objective.rewards)) if k != unseen]
    i, j = torch.combinations(torch.tensor(shown)).unbind(1)
    return i, j, torch.sigmoid(objective.rewards[i] - objective.rewards[j])


def soft_dpo_loss(
    policy: nn.Module, objective: Objective, *, unseen: int | None = None
) -> Loss:
    """Road 3: DPO's loss as infinitely many annotators would make it.

    Each pair appears both ways round, as often as each wins: p · dpo(i, j) +
    (1 - p) · dpo(j, i), which is the cross-entropy of p and σ(beta · h).
    """
    i, j, first = comparisons(objective, unseen=unseen)
    ratio = log_ratio("", answer_logps(policy), objective.ref_logps)  # (K,)
    said = objective.beta * (ratio[i] - ratio[j])  # (N,)
    return binary_cross_entropy_with_logits(said, first), {}


ROADS = {
    "exact": (exact_loss, 300),
    "RLOO": (policy_loss, 400),
    "DPO": (soft_dpo_loss, 150),
}  # a loss, and how many updates


def walk(road: str, objective: Objective, *, seed: int) -> list[float]:
    """KL(π ‖ π*) along a road, from the reference, before each update and at the end.

    The learning rate falls from 0.2 to 0; `seed` is that of the sampled road.
    """
    require.one_of("road", road, tuple(ROADS))
    loss_fn, updates = ROADS[road]
    policy, stream = tabular(objective.ref_logps), [objective] * updates
    if road == "RLOO":
        stream = sampled(policy, objective, updates=updates, group=64, seed=seed)

    def watched(policy: nn.Module, batch: object) -> Loss:
        value, metrics = loss_fn(policy, batch)
        return value, {**metrics, "gap": gap(policy, objective)}

    seen = fit(policy, stream, watched, lr=lambda update: 0.2 * (1 - update / updates))
    return [*seen["gap"], gap(policy, objective)]


@torch.no_grad()
def gap(policy: nn.Module, objective: Objective) -> float:
    """KL(π ‖ π*) in nats: what is missing to the optimum, in units of beta."""
    return exact_kl(answer_logps(policy), objective.best_logps).item()


# --- steering -------------------------------------------------------------------------


def steer(
    objective: Objective, controller: AdaptiveKL, *, updates: int, lr: float = 0.1
) -> Tensor:
    """Climb by the exact gradient while a controller moves beta: (updates, 2).

    After each update the exact KL from the reference, in nats, and the new beta. The
    objective's own beta is not used.
    """
    policy, seen = tabular(objective.ref_logps), []

    def stream() -> Iterator[Objective]:
        for _ in range(updates):
            yield replace(objective, beta=controller.beta)
            kl = objective.kl(answer_logps(policy).detach()).item()
            controller.update(kl, 1)
            seen.append((kl, controller.beta))

    fit(policy, stream(), exact_loss, lr=lr)
    return torch.tensor(seen, dtype=torch.float64)
