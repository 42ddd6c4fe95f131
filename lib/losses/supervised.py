"""Imitation: make the tokens that somebody wrote more probable.

Instruction tuning and pretraining are this one line; what differs is the mask, which
says whose tokens are to be learned (the answer's, not the prompt's).
"""

from torch import Tensor

from lib.ops import fill_masked, filled_mean, narrow

Loss = tuple[Tensor, dict[str, float]]


def sft(logps: Tensor, mask: Tensor) -> Loss:
    """-log π(token | prefix) in nats, `token_mean`: cross-entropy on what is shown.

    logps, mask: (B, T). The metric `perplexity` = exp(loss) is the size of the die that
    would be as uncertain, taken in float64: infinite beyond 709 nats. A token of
    probability 0 makes both infinite.
    """
    (now,) = fill_masked(mask, logps=logps, infinite="logps")
    loss = -filled_mean(now, mask)
    perplexity = loss.detach().double().exp().item()
    return narrow(loss, logps), {"perplexity": perplexity}
