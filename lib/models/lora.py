"""LoRA: a model learns through two thin matrices beside each of its wide ones.

W x becomes W x + (alpha / rank) · B A x with A (rank, in), B (out, rank); W stays as it
is, and B is 0 at first, so that nothing has changed yet (Hu et al. 2022, Section 4.1).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import require


class LoRA(nn.Module):
    """A linear layer (..., in) -> (..., out) whose change has rank `rank`."""

    def __init__(
        self, inner: nn.Linear, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        require.count("rank", rank)
        self.inner, self.scale = inner.requires_grad_(False), alpha / rank
        shape, like = (rank, inner.in_features), {"dtype": torch.float64}
        drawn = torch.randn(shape, generator=generator, **like) * shape[1] ** -0.5
        self.a = nn.Parameter(drawn.to(inner.weight))
        self.b = nn.Parameter(inner.weight.new_zeros(inner.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.inner(x) + F.linear(F.linear(x, self.a), self.b) * self.scale


def add_lora(
    model: nn.Module,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    generator: torch.Generator,
) -> nn.Module:
    """The model itself, with LoRA beside every linear layer and all else frozen."""
    require.positive("alpha", alpha)
    model.requires_grad_(False)
    inside = [(m, n) for m in model.modules() for n in m._modules]
    for parent, name in inside:
        if isinstance(layer := parent._modules[name], nn.Linear):
            setattr(parent, name, LoRA(layer, rank, alpha, generator))
    return model


@torch.no_grad()
def merge_lora(model: nn.Module) -> nn.Module:
    """The model itself, each change added to the weights that it stood beside."""
    for parent in [*model.modules()]:
        for name, layer in [*parent._modules.items()]:
            if isinstance(layer, LoRA):
                layer.inner.weight += layer.b @ layer.a * layer.scale
                setattr(parent, name, layer.inner)
    return model.requires_grad_(True)
