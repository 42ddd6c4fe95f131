"""Two answers to one request, and which of them somebody preferred.

The raw material of reward models and of direct alignment: where pairs come from (samples
of a policy, put before somebody who compares them), what is refused of them, and what a
policy makes of them.

Shapes: N pairs, T tokens. Log-probabilities are in nats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import evaluate, require
from lib.evaluate import Answer
from lib.logps import answer_logps
from lib.rollout import Rollout, _wide, concat
from lib.worlds.task import Task


@dataclass(frozen=True)
class PreferencePairs:
    """Two answers to each of N requests, the preferred one first.

    The gold scores are there to measure with; no model sees them.
    """

    asked: Sequence[Task]  # N
    chosen: Rollout  # (N, T)
    rejected: Rollout  # (N, T)
    chosen_gold: Tensor  # (N,) float64
    rejected_gold: Tensor  # (N,) float64

    def __post_init__(self) -> None:
        for name in ("chosen", "rejected", "chosen_gold", "rejected_gold"):
            found = len(getattr(self, name))
            if found != len(self.asked):
                require.refuse(name, f"{found} rows", f"{len(self.asked)}, as in asked")

    @property
    def identical(self) -> Tensor:
        """(N,) bool: both answers are the same, token for token."""
        width = max(self.chosen.mask.shape[1], self.rejected.mask.shape[1])
        both = (self.chosen, self.rejected)
        one, other = (_wide(r.actions.masked_fill(~r.mask, -1), width) for r in both)
        return (one == other).all(1)

    def rows(self, index: Tensor) -> "PreferencePairs":
        """These comparisons only (a minibatch)."""
        return PreferencePairs(
            [self.asked[i] for i in index.tolist()],
            self.chosen.rows(index),
            self.rejected.rows(index),
            self.chosen_gold[index],
            self.rejected_gold[index],
        )

    def first(self, count: int) -> "PreferencePairs":
        """The first `count` of these comparisons."""
        return self.rows(torch.arange(count, device=self.chosen.mask.device))

    def __add__(self, more: "PreferencePairs") -> "PreferencePairs":
        """These comparisons and then those."""
        return PreferencePairs(
            [*self.asked, *more.asked],
            concat(self.chosen, more.chosen),
            concat(self.rejected, more.rejected),
            torch.cat((self.chosen_gold, more.chosen_gold)),
            torch.cat((self.rejected_gold, more.rejected_gold)),
        )

    def __len__(self) -> int:
        return len(self.asked)


Preference = Callable[[Task, Answer, Answer], bool]  # is the first answer preferred?


def compared(
    asked: Sequence[Task],
    answers: Rollout,
    prefer: Preference,
    *,
    count: int | None = None,
) -> PreferencePairs:
    """Two answers to each request (rows 2k and 2k + 1), put before somebody who compares.

    The same answer twice leaves nothing to prefer: such requests are dropped. Of the
    others the first `count` are compared, in order (all, if it is None).
    """
    if len(answers) != 2 * len(asked):
        require.refuse("answers", f"{len(answers)} rows", f"{2 * len(asked)}, two each")
    if count is not None:
        require.count("count", count)
    gold = evaluate.scores(asked, answers)
    said = evaluate.answers(answers, asked[0].tokenizer)
    kept = [k for k in range(len(asked)) if said[2 * k] != said[2 * k + 1]][:count]
    if not kept:
        require.refuse("answers", "the same one twice, always", "some that differ")
    won = [prefer(asked[k], said[2 * k], said[2 * k + 1]) for k in kept]
    place, first = (torch.tensor(x, device=gold.device).long() for x in (kept, won))
    chosen, rejected = 2 * place + 1 - first, 2 * place + first
    texts = answers.rows(chosen), answers.rows(rejected)
    some = [asked[k] for k in kept]
    return PreferencePairs(some, *texts, gold[chosen], gold[rejected])


def pair_logps(
    policy: nn.Module, pairs: PreferencePairs, *, per_token: bool = False
) -> tuple[Tensor, Tensor]:
    """The same for the chosen and for the rejected answers: (N,) each."""
    both = concat(pairs.chosen, pairs.rejected)
    order = torch.arange(len(both), device=both.mask.device)
    side_by_side = order.reshape(2, -1).T.flatten()  # 0, N, 1, N + 1
    logps = answer_logps(policy, both.rows(side_by_side), group=2, per_token=per_token)
    return logps[0::2], logps[1::2]


@torch.no_grad()
def frozen_logps(
    model: nn.Module, pairs: PreferencePairs, *, per_token: bool = False
) -> Tensor:
    """`pair_logps` without gradient: (2, N), the chosen answers' first."""
    parts = torch.arange(len(pairs), device=pairs.chosen.mask.device).split(64)
    found = (pair_logps(model, pairs.rows(part), per_token=per_token) for part in parts)
    return torch.cat([torch.stack(both) for both in found], 1)


# --- answers without partners ---------------------------------------------------------


def unpaired(pairs: PreferencePairs) -> tuple[Rollout, Tensor]:
    """All answers of the pairs one by one, (2N, T), and which were chosen, (2N,) bool."""
    both = concat(pairs.chosen, pairs.rejected)
    return both, torch.arange(len(both), device=both.mask.device) < len(pairs)


def mismatched(answers: Rollout) -> Rollout:
    """Each row's prompt with the answer of the row before it; the first has the last's.

    Nobody wrote these: their logps and rewards are 0.
    """
    require.every_row_true(answers.mask)
    begins = answers.mask.long().argmax(1)  # (B,) the state of the first action
    order = torch.arange(len(answers), device=answers.mask.device)
    before = answers.rows(order.roll(1))
    tokens = torch.cat((answers.states[:, :1], answers.actions), 1)
    said = zip(tokens, begins, before.actions, before.mask)
    texts = [torch.cat((text[: b + 1], a[m])) for text, b, a, m in said]
    rows = nn.utils.rnn.pad_sequence(texts, batch_first=True)  # (B, T + 1)
    last = begins + before.lengths  # (B,) place of each last token
    at = torch.arange(rows.shape[1] - 1, device=rows.device)
    mask = (at >= begins.unsqueeze(1)) & (at < last.unsqueeze(1))
    return Rollout(
        states=rows[:, :-1],
        actions=rows[:, 1:],
        logps=answers.logps.new_zeros(mask.shape),
        rewards=answers.rewards.new_zeros(mask.shape),
        mask=mask,
        last_states=rows.gather(1, last.unsqueeze(1)).squeeze(1),
        terminated=before.terminated,
    )


# --- what is refused ------------------------------------------------------------------


def check_pairs(pairs: PreferencePairs, context: int | None) -> None:
    """Refuse pairs that teach nothing, or something else than they say.

    An answer without a token; one that does not fit the context with its prompt (who
    cuts it off must look again at what is left: `PreferencePairs.identical`); equal answers.
    """
    if context is not None:
        require.count("context", context)
    for name in ("chosen", "rejected"):
        check_answers(f"pairs.{name}", getattr(pairs, name), context)
    same = pairs.identical.nonzero()
    if len(same):
        got = f"twice the same answer in pair {same[0].item()}"
        require.refuse("pairs", got, "two different answers in each")


def check_answers(name: str, answers: Rollout, context: int | None) -> None:
    """Every answer has a token, and fits the context together with its prompt."""
    empty = (~answers.mask.any(1)).nonzero()
    if len(empty):
        require.refuse(name, f"no token in answer {empty[0].item()}", "at least one")
    if context is None:
        return
    lengths = answers.ends.long().argmax(1) + 1  # (N,) states that are read
    long = (lengths > context).nonzero()
    if len(long):
        row = long[0].item()
        got = f"{lengths[row].item()} tokens to read in row {row}"
        require.refuse(name, got, f"at most {context}, the model's context")
