"""Imitation: make the tokens that somebody wrote more probable.

Instruction tuning and pretraining are this one line; what differs is the mask, which
says whose tokens are to be learned (the answer's, not the prompt's).
"""

from torch import Tensor

from lib.ops import masked, token_mean

Loss = tuple[Tensor, dict[str, float]]


def sft(logps: Tensor, mask: Tensor) -> Loss:
    """-log π(token | prefix) in nats, `token_mean`: cross-entropy on what is shown.

    logps, mask: (B, T). The metric `perplexity` = exp(loss) is the size of the die that
    would be as uncertain. A token of probability 0 makes both infinite.
    """
    loss = -token_mean(masked(logps, mask, "logps"), mask)
    return loss, {"perplexity": loss.exp().item()}
