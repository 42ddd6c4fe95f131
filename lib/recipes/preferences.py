"""On-policy preferences: which of its own answers to prefer, told to the model itself."""

from functools import partial

import torch
from torch import nn

from lib import direct, evaluate, require
from lib.comparisons import PEOPLE, Comparisons
from lib.losses.preference import dpo
from lib.recipes.prompts import Asks
from lib.recipes.stages import Outcome, Run, Work
from lib.worlds.taste import Annotators

ROWS = 128  # prompts that are asked at once


def gathered(
    policy: nn.Module,
    asks: Asks,
    *,
    count: int,
    seed: int,
    group: int = 4,
    annotators: Annotators = PEOPLE,
) -> tuple[Comparisons, int]:
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
        asked = asks(ROWS, 1000 * seed + blocks)
        rollout = evaluate.ask(policy, asked, group=group, generator=draw)
        gold = evaluate.scores(asked, rollout).reshape(-1, group)
        order = annotators.rank(gold, generator=draw)
        other = torch.randint(1, group, (len(asked),), generator=draw)
        pair = torch.stack((order[:, 0], order.gather(1, other[:, None])[:, 0]), 1)
        scores = gold.gather(1, pair)
        told = (scores[:, 0] != scores[:, 1]).nonzero()[:, 0]
        blocks, in_vain = blocks + 1, 0 if len(told) else in_vain + 1
        if in_vain == 9:
            require.refuse("policy", "answers of one score, always", "some that differ")
        if not len(told):
            continue
        rows = pair[told] + told[:, None] * group
        texts = rollout.rows(rows[:, 0]), rollout.rows(rows[:, 1])
        some = [asked[i] for i in told.tolist()]
        found.append(Comparisons(some, *texts, *scores[told].unbind(1)))
        kept += len(some)
    pairs = sum(found[1:], found[0]).rows(torch.arange(count))
    return pairs, blocks * ROWS * group


def preferred(
    asks: Asks,
    *,
    beta: float,
    lr: float,
    group: int = 4,
    epochs: int = 1,
    batch: int = 32,
    annotators: Annotators = PEOPLE,
) -> Run:
    """Length-normalised DPO on preferences between answers of the model itself.

    If the stage uses another model, the answers are that one's (off-policy).
    """

    def run(work: Work) -> Outcome:
        pairs, answers = gathered(
            work.start if work.used is None else work.used,
            asks,
            count=work.amount,
            seed=work.seed,
            group=group,
            annotators=annotators,
        )
        model, history = direct.align(
            work.start,
            pairs,
            partial(dpo, beta=beta),
            epochs=epochs,
            lr=lr,
            batch=batch,
            seed=work.seed,
            per_token=True,
            progress=work.progress,
            checkpoint=work.checkpoint,
            every=10,
        )
        fallen = pairs.chosen_gold < pairs.rejected_gold
        return Outcome(
            model, history, answers, {"erred": fallen.double().mean().item()}
        )

    return run
