"""Tensor verbs: means under a mask, log-probabilities, entropy, sampling.

Every loss in the book is "something per token, then a mean". *Which* mean is not a
detail: `sequence_mean`, `token_mean` and `fixed_length_mean` weigh the same token
differently once completions differ in length, and whole papers turn on the difference.

Shapes: B batch, T time (always the last axis), A actions. `mask` is bool, True where
the policy chose. What lies behind a False may be NaN or infinite and reaches nothing.
"""

import torch
from torch import Tensor, nn

from lib import require

HALVES = (torch.float16, torch.bfloat16)


def masked(x: Tensor, mask: Tensor, name: str = "x") -> Tensor:
    """`x` where the mask is True, 0 elsewhere, in value and in gradient.

    Filling comes *before* any arithmetic: NaN · 0 is NaN, so a product with the mask
    would let the garbage through. Refuses a NaN where the mask is True.
    """
    require.mask_of(x, mask, name)
    require.no_nan(name, x, mask)
    return x.masked_fill(~mask, 0)


def fill_masked(
    mask: Tensor, *, infinite: str = "", every_row: bool = False, **named: Tensor
) -> list[Tensor]:
    """`masked` for many, which must be finite too (but for the one named by `infinite`).

    Refuses a mask without any True, with `every_row` a row without one. One look at the
    device (one host sync) sees whether all is well; only if not, more name what is not.
    """
    for name, x in named.items():
        require.mask_of(x, mask, name)
    filled = [x.masked_fill(~mask, 0) for x in named.values()]
    wrong = [~(mask.any(-1).all() if every_row else mask.any())]
    for name, x in zip(named, filled, strict=True):
        x = x.detach()
        wrong.append((x.isnan() if name == infinite else x * 0).any())  # 0 · inf is NaN
    if torch.stack(wrong).any():
        for name, x in named.items():
            require.no_nan(name, x, mask)
            if name != infinite:
                require.finite(name, x, mask)
        require.every_row_true(mask) if every_row else require.some_true(mask)
    return filled


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum over True / count of True, over all axes or along `dim`.

    Refuses a mask that leaves nothing to average (anywhere along `dim`).
    """
    filled = masked(x, mask)
    require.some_true(mask, dim)
    return narrow(filled_mean(filled, mask, dim), x)


def sequence_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over each row's True tokens, then over rows (GRPO; Shao et al. 2024, Eq. 3).

    A token in a short row weighs more than one in a long row. x, mask: (B, T).
    """
    (filled,) = fill_masked(mask, x=x, infinite="x", every_row=True)
    return narrow(filled_mean(filled, mask, -1).mean(), x)


def token_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Sum over all True tokens / their number in the batch (DAPO; Yu et al. 2025, Eq.
    12).

    Every token weighs the same, so a long row weighs more. x, mask: (B, T).
    """
    (filled,) = fill_masked(mask, x=x, infinite="x")
    return narrow(filled_mean(filled, mask), x)


def fixed_length_mean(x: Tensor, mask: Tensor, *, length: int) -> Tensor:
    """Sum over True / (rows × `length`) (Dr. GRPO; Liu et al. 2025, Sec. 3.2).

    The divisor is constant: a token's weight depends on no length. x, mask: (B, T).
    """
    require.count("length", length)
    (filled,) = fill_masked(mask, x=x, infinite="x")
    return narrow(wide(filled).sum() / (mask[..., 0].numel() * length), x)


def filled_mean(filled: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """`masked_mean` of what is known to be sound, and 0 where the mask is False."""
    return wide(filled).sum(dim) / mask.sum(dim)


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-8) over the True entries, 0 elsewhere.

    The variance is the sample variance (ddof 1), so two True entries are needed.
    `shift_mean=False` adds the mean back: the scale changes, the centre stays.
    """
    filled = wide(masked(x, mask))
    count = mask.sum()
    if count < 2:
        require.refuse(
            "mask", f"{count.item()} True", "at least two for a sample variance"
        )
    mean = filled.sum() / count
    centred = (filled - mean).masked_fill(~mask, 0)
    scaled = centred * torch.rsqrt(centred.square().sum() / (count - 1) + 1e-8)
    return narrow(scaled if shift_mean else (scaled + mean).masked_fill(~mask, 0), x)


def wide(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, in which their sums and products are taken."""
    return x.float() if x.dtype in HALVES else x


def narrow(x: Tensor, like: Tensor) -> Tensor:
    """Back to float16 or bfloat16, if what went in was one."""
    return x.to(like.dtype) if like.dtype in HALVES else x


def to_floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    """Scalars as floats, in one transfer from the device."""
    numbers = torch.stack([*metrics.values()]).tolist()
    return dict(zip(metrics, numbers, strict=True))


def token_logps(logits: Tensor, actions: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log π(action | state) in nats: (B, T, A), (B, T) -> (B, T).

    `temperature` must be the one that the actions were sampled with: another one scores
    another distribution. A logit of -inf is a probability of 0.
    """
    require.positive("temperature", temperature)
    require.tensor("logits", logits)
    require.tensor("actions", actions, logits.shape[:-1])
    require.integers("actions", actions, logits.shape[-1])
    logps = torch.log_softmax(logits / temperature, dim=-1)  # (B, T, A)
    return logps.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)  # (B, T)


def sequence_logps(logps: Tensor, mask: Tensor) -> Tensor:
    """log π(completion): the sum over a row's True tokens, (B, T) -> (B,)."""
    return masked(logps, mask, "logps").sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """H(π) = -Σ π log π in nats: (..., A) -> (...). Where π is 0 it contributes 0."""
    require.tensor("logits", logits)
    logps = torch.log_softmax(logits, dim=-1)
    finite = logps.masked_fill(logps == -torch.inf, 0)  # 0 · -inf would be NaN
    return -(logps.exp() * finite).sum(-1)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters lie; the CPU, if it has none."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def sample(logits: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw one action per row from softmax(logits): (..., A) -> (...) int64.

    Inverse of the cumulative distribution at one float64 uniform, so that the same seed
    draws the same actions on every processor (a float32 `multinomial` does not).
    """
    require.tensor("logits", logits)
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(-1)  # (..., A)
    broken = cumulative.isnan()
    if broken.any():
        row = tuple(broken.nonzero()[0, :-1].tolist())
        wanted = "at least one finite logit a row, no NaN, no +inf"
        require.refuse("logits", f"no distribution in row {row}", wanted)
    shape = (*logits.shape[:-1], 1)
    like = {"dtype": torch.float64, "device": generator.device}
    uniform = torch.rand(shape, generator=generator, **like).to(logits.device)
    return (cumulative[..., :-1] <= uniform).sum(-1)
