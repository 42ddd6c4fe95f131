"""What an estimator of the KL does to the policy: each is a weight on ∇ log π(y).

Whether an estimator is differentiated (a term of the *loss*) or multiplies a policy
gradient (a term of the *reward*), a sampled answer y contributes w(y) · ∇ log π(y) with
a number w(y). Over K answers that are all known, its expectation is a sum, and can be
held against the gradient of the KL it estimates.

Log-probabilities are (K,), in nats, and gradients are (K,), by K logits. At the end:
which way round a KL is measured, and what changes when an answer is many tokens.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from lib import require
from lib.advantages import reward_to_go
from lib.kl import exact_kl, k1, k2, k3, penalised_rewards
from lib.ops import masked, sample, token_logps
from lib.rollout import Rollout
from lib.worlds.exact import (
    PrefixTable,
    completion_logps,
    every_completion,
    expected,
    gradient,
)

Loss = tuple[Tensor, dict[str, float]]
Estimator = Callable[[Tensor, Tensor], Tensor]  # log π, log ref -> a number each
Place = Callable[[Estimator, Tensor, Tensor], Tensor]  # `in_reward` or `as_loss`

# --- as a meter -----------------------------------------------------------------------


def meter(
    estimator: Estimator, logps: Tensor, ref_logps: Tensor
) -> tuple[float, float, float]:
    """Mean and standard deviation of one sample's estimate; how often it is below 0."""
    values = estimator(logps, ref_logps)
    mean = expected(values, logps)
    variance = expected((values - mean).square(), logps)
    below = expected(values < 0, logps)
    return mean.item(), variance.sqrt().item(), below.item()


# --- as a motor -----------------------------------------------------------------------


def in_reward(estimator: Estimator, logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The estimator itself (K,): what multiplies ∇ log π(y) in a policy gradient."""
    return estimator(logps, ref_logps).detach()


def as_loss(estimator: Estimator, logps: Tensor, ref_logps: Tensor) -> Tensor:
    """d estimator / d log π (K,): what multiplies ∇ log π(y) if one differentiates it."""
    leaf = logps.detach().requires_grad_()
    return torch.autograd.grad(estimator(leaf, ref_logps).sum(), leaf)[0]


def slope(weights: Tensor, logps: Tensor, law: Tensor | None = None) -> Tensor:
    """E[w(y) ∇ log π(y)] over answers from `law` (π itself, if none): (K,) -> (K,).

    ∇ log π(y) = e_y - π, so the sum over y is law · w - π · Σ law · w.
    """
    drawn = (logps if law is None else law).exp() * weights
    return drawn - logps.exp() * drawn.sum()


def sampled_slope(
    weights: Tensor, logps: Tensor, *, batch: int, generator: torch.Generator
) -> Tensor:
    """The same as a mean over `batch` answers drawn from π: (K,)."""
    pick = sample(logps.expand(batch, -1), generator=generator)  # (B,)
    drawn = torch.zeros_like(logps).index_add(0, pick, weights[pick] / batch)
    return drawn - logps.exp() * drawn.sum()


def kl_slope(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """∇ KL(π ‖ ref), by automatic differentiation of the sum: (K,)."""
    logits = logps.detach().requires_grad_()
    return torch.autograd.grad(exact_kl(logits, ref_logps), logits)[0]


def noise(weights: Tensor, logps: Tensor) -> float:
    """The root of tr Cov of one answer's gradient w(y) ∇ log π(y), y from π."""
    chances = logps.exp()
    squares = 1 - 2 * chances + chances.square().sum()  # |e_y - π|², (K,)
    total = (chances * weights.square() * squares).sum()
    return (total - slope(weights, logps).square().sum()).clamp(min=0).sqrt().item()


def push(
    estimator: Estimator, place: Place, logps: Tensor, ref_logps: Tensor
) -> tuple[float, float, float, float]:
    """What an estimator does in this place, in expectation, against ∇ KL(π ‖ ref).

    Its length and its noise in units of that gradient; its cosine with ∇ KL(π ‖ ref)
    and with ∇ KL(ref ‖ π), the other direction: 0 where there is no gradient.
    """
    weights, true = place(estimator, logps, ref_logps), kl_slope(logps, ref_logps)
    got, other = slope(weights, logps), logps.exp() - ref_logps.exp()
    unit = true.norm()
    got = got.masked_fill(got.norm() < 1e-12 * unit, 0)
    cosines = (torch.cosine_similarity(got, way, -1).item() for way in (true, other))
    return (got.norm() / unit).item(), *cosines, noise(weights, logps) / unit.item()


def penalties(logps: Tensor, old_logps: Tensor, ref_logps: Tensor) -> dict[str, Tensor]:
    """Expected gradients (K,) of KL penalties on answers that an older π sampled.

    In the reward the log-ratio is the old one, and a ratio π / π_old corrects for who
    sampled; in the loss it is the present one, as a rule without the ratio.
    """
    ratio, now = (logps - old_logps).exp(), logps - ref_logps
    weights = {
        "reward: ratio · d_old": ratio * (old_logps - ref_logps),
        "loss: k2": now,
        "loss: k3": 1 - (-now).exp(),
        "loss: ratio · k2": ratio * now,
    }
    return {name: slope(w, logps, old_logps) for name, w in weights.items()}


def staleness(path: Tensor, ref_logps: Tensor) -> dict[str, list[float]]:
    """Relative errors of `penalties` along a path (N, K) that began where it sampled."""
    errors: dict[str, list[float]] = {}
    for logps in path:
        true = kl_slope(logps, ref_logps)
        for name, got in penalties(logps, path[0], ref_logps).items():
            errors.setdefault(name, []).append(
                ((got - true).norm() / true.norm()).item()
            )
    return errors


def descend(
    logps: Tensor, direction: Callable[[Tensor], Tensor], *, steps: int, lr: float = 0.1
) -> Tensor:
    """Probabilities along logits -= lr · direction(log π): (K,) -> (steps + 1, K)."""
    require.count("steps", steps)
    seen = [logps.log_softmax(-1)]
    for _ in range(steps):
        seen.append((seen[-1] - lr * direction(seen[-1])).log_softmax(-1))
    return torch.stack(seen).exp()


# --- which way round ------------------------------------------------------------------


def hills(x: Tensor, centres: Tensor, widths: Tensor) -> Tensor:
    """All policies with one hill over ordered answers x (n,): log π (C · W, n)."""
    away = x - centres[:, None, None]  # (C, 1, n)
    return (-((away / widths[:, None]) ** 2) / 2).log_softmax(-1).flatten(0, 1)


def two_hills(x: Tensor, apart: float) -> Tensor:
    """log π (n,) of two hills of width 3, the left one e^0.2 times as high."""
    middle = (x[0] + x[-1]) / 2
    left, right = (hills(x, middle[None] + s * apart / 2, x.new_tensor([3.0]))[0]
                   for s in (-1, 1))  # fmt: skip
    return torch.logaddexp(left + 0.2, right).log_softmax(-1)


def nearest(target: Tensor, family: Tensor) -> tuple[Tensor, Tensor]:
    """Of a family (F, n), the nearest to target (n,): by KL(π ‖ target), by the other."""
    reverse = exact_kl(family, target.expand_as(family))  # (F,)
    forward = exact_kl(target.expand_as(family), family)
    return family[reverse.argmin()], family[forward.argmin()]


# --- many tokens ----------------------------------------------------------------------


def texts(max_tokens: int) -> tuple[Rollout, Tensor]:
    """All strings of three tokens, 2 being the end, and 1 for those that begin with 1.

    Their `logps` are those of the reference, which is uniform at every prefix.
    """
    rows = every_completion([0], tokens=range(3), end=2, max_tokens=max_tokens)
    table = PrefixTable(3, max_tokens)
    logps = token_logps(table(rows.states), rows.actions).detach()
    return replace(rows, logps=logps), (rows.actions[:, 0] == 1).double()


def token_loss(
    policy: nn.Module, rows: Rollout, rewards: Tensor, *, beta: float, average: bool
) -> Loss:
    """Expected policy gradient with a per-token penalty, over all completions (K,).

    `rows.logps` are the reference's. `average` is a bug in the wild: the mean of the
    log-ratio over an answer's tokens in place of its sum.
    """
    logps = token_logps(policy(rows.states), rows.actions)
    paid = penalised_rewards(rewards, logps, rows.logps, rows.mask, beta=beta).sum(1)
    if average:
        paid = rewards + (paid - rewards) / rows.lengths
    whole = completion_logps(policy, rows)  # (K,)
    return -(whole.detach().exp() * paid * whole).sum(), {}


def token_pushes(policy: nn.Module, rows: Rollout) -> dict[str, Tensor]:
    """∇ KL(π ‖ ref) of whole completions by the weights, and three attempts at it.

    Expectations over all rows (K, T), sampled by π; `rows.logps` are the reference's.
    A token's own log-ratio, differentiated, forgets that a token also decides which
    prefixes follow, and so how far from the reference the rest will be.
    """
    now = masked(token_logps(policy(rows.states), rows.actions), rows.mask)  # (K, T)
    ref = masked(rows.logps, rows.mask)
    whole, whole_ref = now.sum(1), ref.sum(1)
    to_come = reward_to_go((now - ref).detach(), rows.mask)
    means = {
        "true": exact_kl(whole, whole_ref),
        "k1 in the reward, to go": expected((to_come * now).sum(1), whole.detach()),
        "k2 of the answer in the loss": expected(k2(whole, whole_ref), whole.detach()),
        "k2 per token in the loss": expected(k2(now, ref).sum(1), whole.detach()),
    }
    return {name: gradient(mean, policy) for name, mean in means.items()}


def estimates(
    logps: Tensor,
    ref_logps: Tensor,
    *,
    tokens: int,
    answers: int,
    repeats: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """KL estimates of answers whose tokens are drawn alike from log π (A,): (repeats,).

    Each is the mean over `answers` of an answer's k1, of the sum of its tokens' k3, and
    of k3 of the answer as a whole.
    """
    shape = repeats, answers, tokens
    pick = sample(logps.expand(repeats * answers * tokens, -1), generator=generator)
    d = (logps - ref_logps)[pick].reshape(shape)
    zero = torch.zeros_like(d)
    return {
        "k1": k1(d, zero).sum(2).mean(1),
        "k3 per token": k3(d, zero).sum(2).mean(1),
        "k3 per answer": k3(d.sum(2), zero.sum(2)).mean(1),
    }
