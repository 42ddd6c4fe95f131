"""Answers as eight numbers: a world in which over-optimisation costs a second to see.

An answer is a point x of eight normal coordinates, which is how the reference writes.
The first is its length, the others are its merits. Gold likes merit without end, and
length up to a point: beyond it, twice as much is much worse. Like every gold score of
this book it is there for judging comparisons and for measuring, and no model sees it.

A policy that writes x ~ N(μ, 1) is |μ|²/2 nats from the reference, and what gold makes
of it is known in closed form: nothing here needs to be estimated.
"""

import math

import torch
from torch import Tensor

from lib import require

DIM = 8  # coordinates: length, then seven merits
MERIT = 0.7  # what a standard deviation of merit is worth; of length it is 1
BEND = 1.0  # the length beyond which more is worse


def draw(count: int, *, generator: torch.Generator) -> Tensor:
    """`count` answers of the reference, x ~ N(0, 1): (count, 8) float64."""
    require.count("count", count)
    return torch.randn(count, DIM, dtype=torch.float64, generator=generator)


def gold(answers: Tensor) -> Tensor:
    """MERIT · merit + length - 2 · max(0, length - BEND)²: (..., 8) -> (...).

    In standard deviations of the reference's answers, whose mean is 0.
    """
    length, merit = _read(answers)
    raw = MERIT * merit + length - 2 * (length - BEND).clamp(min=0).square()
    return (raw - _CENTRE) / _SCALE


def expected_gold(mean: Tensor) -> Tensor:
    """E[gold(x)] for x ~ N(mean, 1), exactly: (..., 8) -> (...)."""
    length, merit = _read(mean)
    a = length - BEND
    over = (a.square() + 1) * torch.special.ndtr(a) + a * _density(a)  # E max(0, ·)²
    return (MERIT * merit + length - 2 * over - _CENTRE) / _SCALE


def _read(answers: Tensor) -> tuple[Tensor, Tensor]:
    """Length and merit of each answer: (..., 8) -> (...), (...)."""
    require.tensor("answers", answers)
    require.tensor("answers", answers, (*answers.shape[:-1], DIM))
    return answers[..., 0], answers[..., 1:].sum(-1) / math.sqrt(DIM - 1)


def _density(a: Tensor) -> Tensor:
    return torch.exp(-a.square() / 2) / math.sqrt(2 * math.pi)


def _moments() -> tuple[float, float]:
    """Mean and standard deviation of raw gold under the reference, from φ(1) and Q(1).

    With u = max(0, ℓ - 1): E u = φ - Q, E u² = 2Q - φ, E u⁴ = 10Q - 6φ, and by Stein's
    identity E ℓu² = 2 E u.
    """
    phi = math.exp(-0.5) / math.sqrt(2 * math.pi)
    tail = math.erfc(math.sqrt(0.5)) / 2
    first, second, fourth = phi - tail, 2 * tail - phi, 10 * tail - 6 * phi
    variance = MERIT**2 + 1 + 4 * (fourth - second**2) - 8 * first
    return -2 * second, math.sqrt(variance)


_CENTRE, _SCALE = _moments()
