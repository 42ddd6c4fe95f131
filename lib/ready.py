"""Models that come ready: weights committed beside the code that made them.

Weights are kept in float32 (safetensors) and used in float64: a ten-millionth of a weight
is nothing to a model, and a page's digits stay the same on every processor.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lib import require

FOLDER = Path(__file__).parent / "weights"


def path_of(name: str) -> Path:
    """Where the weights of this name lie."""
    return FOLDER / f"{name}.safetensors"


def save(model: nn.Module, name: str) -> Path:
    """Write a model's trainable weights, rounded to float32."""
    FOLDER.mkdir(exist_ok=True)
    weights = {k: v.detach().float().contiguous() for k, v in _trainable(model).items()}
    save_file(weights, path_of(name))
    return path_of(name)


def load(model: nn.Module, name: str) -> nn.Module:
    """Fill a model of the right shape with committed weights, in float64."""
    if not path_of(name).exists():
        known = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
        require.refuse("name", repr(name), f"one of {', '.join(known) or 'none yet'}")
    weights = load_file(path_of(name))
    wanted = {key: tuple(weight.shape) for key, weight in _trainable(model).items()}
    there = {key: tuple(weight.shape) for key, weight in weights.items()}
    if wanted != there:
        other = sorted(k for k in wanted | there if wanted.get(k) != there.get(k))
        got = f"one that differs in {', '.join(other)}"
        require.refuse("model", got, f"one of the shape of {name!r}")
    model = model.double()
    with torch.no_grad():
        for key, weight in _trainable(model).items():
            weight.copy_(weights[key])
    return model


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {key: w for key, w in model.named_parameters() if w.requires_grad}


def rounded(model: nn.Module) -> nn.Module:
    """The same model, its weights rounded to float32 as `save` would write them."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.float())
    return model
