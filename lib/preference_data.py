"""Two answers to one request, and which of them somebody preferred.

The raw material of reward models and of direct alignment: where pairs come from (samples
of a policy, put before the village's annotators, who follow a gold score with noise),
what is refused of them, and what a policy makes of them.

Shapes: N pairs, T tokens. Log-probabilities are in nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib import require
from lib.evaluate import ask, scores
from lib.logps import answer_logps
from lib.rollout import Rollout, _wide, concat
from lib.seeds import seed_of
from lib.worlds.language import Split
from lib.worlds.task import Task, TaskSource
from lib.worlds.village import taste
from lib.worlds.village.taste import Annotators

PEOPLE = Annotators()  # who answers unless told otherwise


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


def annotated(
    asked: Sequence[Task],
    answers: Rollout,
    *,
    generator: torch.Generator,
    annotators: Annotators = PEOPLE,
    seen: Tensor | None = None,
) -> PreferencePairs:
    """Two answers to each request (rows 2k and 2k + 1), put before the annotators.

    They follow the gold scores, or `seen`, (2N,): what they take for the gold score, if
    their taste is another.
    """
    if len(answers) != 2 * len(asked):
        require.refuse("answers", f"{len(answers)} rows", f"{2 * len(asked)}, two each")
    gold = scores(asked, answers)
    seen = gold if seen is None else seen
    require.tensor("seen", seen, gold.shape)
    first = torch.arange(0, len(answers), 2, device=answers.mask.device)
    won = annotators.prefer(seen[first], seen[first + 1], generator=generator)
    chosen = torch.where(won, first, first + 1)
    rejected = torch.where(won, first + 1, first)
    texts = answers.rows(chosen), answers.rows(rejected)
    return PreferencePairs(asked, *texts, gold[chosen], gold[rejected])


def sample_pairs(
    policy: nn.Module,
    *,
    count: int,
    seed: int,
    annotators: Annotators = PEOPLE,
    split: Split = "train",
    progress: str | None = None,
) -> PreferencePairs:
    """`count` open requests, two samples of the policy for each, annotated.

    Where both samples are the same there is nothing to prefer: another request is drawn.
    `progress` names a progress bar.
    """
    require.count("count", count)
    require.count("seed", seed, least=0)
    draw = torch.Generator().manual_seed(seed)
    found, blocks, in_vain = None, 0, 0
    bar = tqdm(total=count, desc=progress, disable=progress is None)
    while found is None or len(found) < count:
        number = seed_of("pairs", seed, blocks)
        asked = taste.requests(count=min(count, 512), seed=number, split=split)
        answers = ask(policy, asked, group=2, generator=draw)
        new = annotated(asked, answers, generator=draw, annotators=annotators)
        different = (~new.identical).nonzero().squeeze(1)
        blocks, in_vain = blocks + 1, 0 if len(different) else in_vain + 1
        if in_vain == 9:
            require.refuse("policy", "the same answer twice, always", "one that varies")
        if len(different):
            new = new.rows(different)
            found = new if found is None else found + new
            bar.update(min(len(found), count) - bar.n)
    bar.close()
    return found.first(count)


def ceiling(
    first: Tensor, second: Tensor, annotators: Annotators = PEOPLE
) -> tuple[float, float]:
    """How far the annotators let anyone come, exactly: gold scores (N,), (N,).

    The accuracy of the gold taste itself against their answers, which no model can
    exceed but by luck; and how often two of them agree on a pair.
    """
    p = annotators.probabilities(first, second)
    best, each_other = torch.maximum(p, 1 - p), p.square() + (1 - p).square()
    return best.mean().item(), each_other.mean().item()


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


PROMPTS_AT_ONCE = 128  # prompts that are asked at once


def ranked_pairs(
    policy: nn.Module,
    asks: TaskSource,
    *,
    count: int,
    seed: int,
    group: int = 4,
    annotators: Annotators = PEOPLE,
) -> tuple[PreferencePairs, int]:
    """`count` pairs of the policy's answers, and how many answers it wrote for them.

    Of `group` answers to a prompt the one ranked first is preferred to another, drawn at
    random, as in UltraFeedback and Tülu 3 (Lambert et al. 2024, §5.2). Two answers with
    the same gold score leave nothing to prefer: such pairs are dropped.
    """
    require.count("count", count)
    require.count("group", group, least=2)
    draw = torch.Generator().manual_seed(seed)
    found, kept, blocks, in_vain = [], 0, 0, 0
    while kept < count:
        asked = asks(PROMPTS_AT_ONCE, seed_of("pairs", seed, blocks))
        rollout = ask(policy, asked, group=group, generator=draw)
        gold = scores(asked, rollout).reshape(-1, group)
        order = annotators.rank(gold, generator=draw)
        other = torch.randint(
            1, group, (len(asked),), generator=draw, device=draw.device
        )
        other = other.to(order.device)
        pair = torch.stack((order[:, 0], order.gather(1, other[:, None])[:, 0]), 1)
        worth = gold.gather(1, pair)
        told = (worth[:, 0] != worth[:, 1]).nonzero()[:, 0]
        blocks, in_vain = blocks + 1, 0 if len(told) else in_vain + 1
        if in_vain == 9:
            require.refuse("policy", "answers of one score, always", "some that differ")
        if not len(told):
            continue
        rows = pair[told] + told[:, None] * group
        texts = rollout.rows(rows[:, 0]), rollout.rows(rows[:, 1])
        some = [asked[i] for i in told.tolist()]
        found.append(PreferencePairs(some, *texts, *worth[told].unbind(1)))
        kept += len(some)
    pairs = sum(found[1:], found[0]).first(count)
    return pairs, blocks * PROMPTS_AT_ONCE * group
