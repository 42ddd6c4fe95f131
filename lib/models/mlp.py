"""Small policies and values for states that are numbers or indices.

A policy is any module `states (B, T, ...) -> logits (B, T, A)`. These act on each time
step by itself; a language model (later) reads all the steps before it. Weights are
drawn in float64, so that the same seed gives the same start on every processor.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib import require


class MLP(nn.Module):
    """tanh layers acting pointwise in time: (B, T, inputs) -> (B, T, outputs), float64.

    `sizes` = (inputs, hidden …, outputs). `units` divides each input first, so that
    they arrive comparable in size. The last layer starts small, so a policy starts near
    uniform and a value near 0.
    """

    def __init__(
        self,
        *sizes: int,
        generator: torch.Generator,
        units: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2:
            require.refuse("sizes", sizes, "inputs, hidden layers, outputs")
        for size in sizes:
            require.count("sizes", size)
        if units is None:
            units = (1.0,) * sizes[0]
        if len(units) != sizes[0]:
            require.refuse(
                "units", f"{len(units)} numbers", f"{sizes[0]}, one an input"
            )
        for unit in units:
            require.positive("units", unit)
        self.register_buffer("units", torch.tensor(units, dtype=torch.float64))
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
            gain = (0.1 if len(layers) == 2 * len(sizes) - 4 else 1.0) / fan_in**0.5
            layers += [_linear(fan_in, fan_out, gain, generator), nn.Tanh()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, states: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.layers(states / self.units)


def _linear(
    fan_in: int, fan_out: int, gain: float, generator: torch.Generator
) -> nn.Linear:
    """Normal weights of standard deviation `gain`, zero biases; no other RNG used."""
    layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=torch.float64)
    draw = torch.randn(fan_out, fan_in, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        layer.weight.copy_(gain * draw)
        layer.bias.zero_()
    return layer


class Greedy(nn.Module):
    """The same policy without its doubts: all probability on its best action."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, ...) -> logits (B, T, A): 0 for the best action, -inf elsewhere."""
        logits = self.policy(states)
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, 0.0)


class Tabular(nn.Module):
    """One row of logits for each state, all 0 at first: (B, T) indices -> (B, T, A)."""

    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        require.count("states", states)
        require.count("actions", actions)
        self.logits = nn.Parameter(torch.zeros(states, actions, dtype=torch.float64))

    def forward(self, states: Tensor) -> Tensor:
        """(B, T) state indices -> (B, T, A) logits."""
        return self.logits[states]


class ActorCritic(nn.Module):
    """A policy and a value that share no weights. Called, it is the policy.

    The value is `scale` times what its network says, so that a network which starts
    near 0 can reach returns of the order of `scale`.
    """

    def __init__(
        self, policy: nn.Module, value: nn.Module, *, scale: float = 1.0
    ) -> None:
        super().__init__()
        require.positive("scale", scale)
        self.policy, self.value, self.scale = policy, value, scale

    def forward(self, states: Tensor) -> Tensor:
        """states (B, T, ...) -> logits (B, T, A)."""
        return self.policy(states)

    def values(self, states: Tensor) -> Tensor:
        """states (..., inputs) -> V (...), in units of return."""
        return self.scale * self.value(states).squeeze(-1)
