"""Pairs of answers as a policy sees them: one log-probability for each answer.

What direct alignment asks of its data is here, too: what is refused, and the mismatched
answers with which KTO finds its zero.

Shapes: N pairs or answers, T tokens. Log-probabilities are in nats.
"""

import torch
from torch import Tensor, nn

from lib import require
from lib.comparisons import Comparisons, together
from lib.models.transformer import Transformer
from lib.rollout import Rollout
from lib.shared import action_logps

# --- one number for each answer -------------------------------------------------------


def answer_logps(
    policy: Transformer, answers: Rollout, *, group: int = 1, per_token: bool = False
) -> Tensor:
    """log π(answer | prompt) of each row, or its mean per token: (N,), with gradient.

    `group` neighbouring rows share a prompt, which is then read once.
    """
    total = action_logps(policy, answers, group=group).sum(1)
    return total / answers.lengths if per_token else total


def pair_logps(
    policy: Transformer, pairs: Comparisons, *, per_token: bool = False
) -> tuple[Tensor, Tensor]:
    """The same for the chosen and for the rejected answers: (N,) each."""
    both = together(pairs.chosen, pairs.rejected)
    side_by_side = torch.arange(len(both)).reshape(2, -1).T.flatten()  # 0, N, 1, N + 1
    logps = answer_logps(policy, both.rows(side_by_side), group=2, per_token=per_token)
    return logps[0::2], logps[1::2]


@torch.no_grad()
def frozen_logps(
    model: Transformer, pairs: Comparisons, *, per_token: bool = False
) -> Tensor:
    """`pair_logps` without gradient: (2, N), the chosen answers' first."""
    parts = torch.arange(len(pairs)).split(64)
    found = (pair_logps(model, pairs.rows(part), per_token=per_token) for part in parts)
    return torch.cat([torch.stack(both) for both in found], 1)


# --- answers without partners ---------------------------------------------------------


def unpaired(pairs: Comparisons) -> tuple[Rollout, Tensor]:
    """All answers of the pairs one by one, (2N, T), and which were chosen, (2N,) bool."""
    good = torch.arange(2 * len(pairs)) < len(pairs)
    return together(pairs.chosen, pairs.rejected), good


def mismatched(answers: Rollout) -> Rollout:
    """Each row's prompt with the answer of the row before it; the first has the last's.

    Nobody wrote these: their logps and rewards are 0.
    """
    require.every_row_true(answers.mask)
    begins = answers.mask.long().argmax(1)  # (B,) the state of the first action
    before = answers.rows(torch.arange(len(answers)).roll(1))
    tokens = torch.cat((answers.states[:, :1], answers.actions), 1)
    said = zip(tokens, begins, before.actions, before.mask)
    texts = [torch.cat((text[: b + 1], a[m])) for text, b, a, m in said]
    rows = nn.utils.rnn.pad_sequence(texts, batch_first=True)  # (B, T + 1)
    last = begins + before.lengths  # (B,) place of each last token
    at = torch.arange(rows.shape[1] - 1)
    mask = (at >= begins.unsqueeze(1)) & (at < last.unsqueeze(1))
    return Rollout(
        states=rows[:, :-1],
        actions=rows[:, 1:],
        logps=torch.zeros(mask.shape),
        rewards=torch.zeros(mask.shape),
        mask=mask,
        last_states=rows.gather(1, last.unsqueeze(1)).squeeze(1),
        terminated=before.terminated,
    )


# --- what is refused ------------------------------------------------------------------


def checked(pairs: Comparisons, context: int) -> None:
    """Refuse pairs that teach nothing, or something else than they say.

    An answer without a token; one that does not fit the context with its prompt (who
    cuts it off must look again at what is left: `Comparisons.identical`); equal answers.
    """
    require.count("context", context)
    for name in ("chosen", "rejected"):
        fits(f"pairs.{name}", getattr(pairs, name), context)
    same = pairs.identical.nonzero()
    if len(same):
        got = f"twice the same answer in pair {same[0].item()}"
        require.refuse("pairs", got, "two different answers in each")


def fits(name: str, answers: Rollout, context: int) -> None:
    """Every answer has a token, and fits the context together with its prompt."""
    empty = (~answers.mask.any(1)).nonzero()
    if len(empty):
        require.refuse(name, f"no token in answer {empty[0].item()}", "at least one")
    lengths = answers.ends.long().argmax(1) + 1  # (N,) states that are read
    long = (lengths > context).nonzero()
    if len(long):
        row = long[0].item()
        got = f"{lengths[row].item()} tokens to read in row {row}"
        require.refuse(name, got, f"at most {context}, the model's context")
