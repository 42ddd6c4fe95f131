"""Chapter 9's sweeps on the village's language model.

Each loss on the same pairs, each price of a nat, whose answers are compared, how often
the annotators err, and reinforcement learning on what a reward model made of the same
pairs: about twenty minutes on one core.
"""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from labs.record import of_sweeps
from lib import direct, evaluate, on_policy, rewards, sft, villagers
from lib.algorithms import ALGORITHMS
from lib.evaluate import best_of
from lib.kl import best_of_n_kl_bound
from lib.logps import action_logps, answer_logps
from lib.losses import preference
from lib.models.transformer import Transformer
from lib.on_policy import RLConfig
from lib.ops import sequence_logps
from lib.preference_data import (
    PreferencePairs,
    annotated,
    pair_logps,
    sample_pairs,
    unpaired,
)
from lib.reward_model import RewardModel, SurprisalRewardModel, fit_reward_model, score
from lib.worlds import village
from lib.worlds.village import taste
from lib.worlds.village.taste import Annotators

COUNT = 1024  # pairs
LR = 1e-3
BETA = 0.3
BETAS = (0.1, 0.3, 1.0, 3.0)  # of DPO and of reinforcement learning
UPDATES = 60  # of reinforcement learning, 16 requests × 4 answers each
SIZES = (1, 2, 4, 8, 16, 32)  # best of so many
FLIPPED = 0.3  # share of labels that are wrong
KNOBS = {
    **dict.fromkeys(("cdpo", "robust_dpo", "slic_hinge"), (0.3,)),
    "ipo": (0.3, 1.0),
    "kto": (0.3, 1.0),
    **dict.fromkeys(("apo_zero", "apo_down"), (0.3,)),
    "dpo per token": (3.0, 10.0),
    "simpo": (2.0, 10.0),
    "orpo": (0.3, 1.0),
    "imitation": (0.0,),
}  # the losses beside DPO, and beta (orpo: weight) for each
Run = dict[str, Any]


# --- measured -------------------------------------------------------------------------


@torch.no_grad()
def measured(policy: Transformer, start: Transformer) -> Run:
    """What gold makes of 512 answers to 256 unseen requests, and what they cost."""
    asked = taste.requests(count=256, seed=0, split="test")
    draw = torch.Generator().manual_seed(0)
    said = evaluate.ask(policy, asked, group=2, generator=draw)
    ratio = sequence_logps(said.logps - action_logps(start, said, group=2), said.mask)
    return {
        "gold": evaluate.scores(asked, said).mean(),
        "kl": ratio.mean(),
        "length": said.lengths.double().mean(),
        "finished": said.terminated.double().mean(),
    }


@torch.no_grad()
def masses(policy: Transformer, start: Transformer, pairs: PreferencePairs) -> Run:
    """Mean log π / start of chosen, rejected and other answers; the pairs' probability."""
    now, before = (torch.stack(pair_logps(m, pairs)) for m in (policy, start))  # (2, N)
    draw = torch.Generator().manual_seed(7)
    asked = pairs.asked
    others = evaluate.ask(start, asked, generator=draw)
    own = evaluate.ask(policy, asked, generator=draw.manual_seed(8))
    return {
        "chosen": (now - before)[0].mean(),
        "rejected": (now - before)[1].mean(),
        "others": (answer_logps(policy, others) - answer_logps(start, others)).mean(),
        "own": (answer_logps(policy, own) - answer_logps(start, own)).mean(),
        "both": now.exp().sum(0).mean(),
        "both before": before.exp().sum(0).mean(),
        "accuracy": ((now - before)[0] > (now - before)[1]).double().mean(),
    }


# --- trained --------------------------------------------------------------------------


def trained(
    model: Transformer, pairs: PreferencePairs, name: str, beta: float, seed: int
) -> Transformer:
    """A loss of the book by its name, on these pairs, once over."""
    knobs = {"lr": LR, "seed": seed}
    if name == "imitation":
        course = direct.PreferenceObjective(
            len(pairs), lambda m, rows: sft.sft_loss(m, pairs.chosen.rows(rows))
        )
        return direct.train(model, course, **knobs)[0]
    if name in ("simpo", "orpo"):
        bound = {"simpo": "beta", "orpo": "weight"}[name]
        loss = partial(getattr(preference, name), **{bound: beta})
        course = direct.without_reference(pairs, loss, context=model.config.context)
        return direct.train(model, course, **knobs)[0]
    if name == "kto":
        loss = partial(preference.kto, beta=beta)
        course = direct.unpaired_objective(*unpaired(pairs), model, loss)
        return direct.train(model, course, batch=2 * direct.BATCH, **knobs)[0]
    each = name == "dpo per token"
    loss = partial(getattr(preference, "dpo" if each else name), beta=beta)
    return direct.align(model, pairs, loss, per_token=each, **knobs)[0]


def pairs_of(
    seed: int, count: int, model: Transformer, **knobs: Any
) -> PreferencePairs:
    """Pairs that no other seed has."""
    return sample_pairs(model, count=count, seed=100 + seed, **knobs)


# --- sweeps ---------------------------------------------------------------------------


def before(model: Transformer, seed: int) -> Iterator[Run]:
    """The model that all of them start from."""
    yield measured(model, model)


def frontier(model: Transformer, seed: int) -> Iterator[Run]:
    """The same pairs for DPO and for a reward model; then RLOO, and best of n, with it."""
    pairs = pairs_of(seed, COUNT, model)
    for beta in BETAS:
        policy = trained(model, pairs, "dpo", beta, seed)
        yield {"by": "DPO", "beta": beta, **measured(policy, model)}
    judge = judge_of(model, pairs, seed)
    yield from selected(model, judge, seed)
    for beta in BETAS if seed < 3 else ():
        policy = climbed(model, judge, beta, seed)
        yield {"by": "RLOO", "beta": beta, **measured(policy, model)}


def patience(model: Transformer, seed: int) -> Iterator[Run]:
    """The same reinforcement learning with twice the updates at half the rate."""
    judge = judge_of(model, pairs_of(seed, COUNT, model), seed)
    policy = climbed(model, judge, BETAS[0], seed, slower=2)
    yield {"beta": BETAS[0], **measured(policy, model)}


def judge_of(model: Transformer, pairs: PreferencePairs, seed: int) -> RewardModel:
    """The reward model of these pairs."""
    return fit_reward_model(model, pairs, kind=SurprisalRewardModel, seed=seed)[0]


def climbed(
    model: Transformer,
    judge: RewardModel,
    beta: float,
    seed: int,
    *,
    slower: int = 1,
) -> Transformer:
    """Chapter 8's RLOO on a reward model, with a KL penalty."""
    policy, _ = on_policy.train(
        model,
        ALGORITHMS["RLOO"],
        rewards.learned(judge),
        villagers.task_stream("talk", count=16, seed=seed),
        seed=seed,
        updates=slower * UPDATES,
        lr=LR / slower,
        config=RLConfig(group=4, beta=beta),
    )
    return policy


def selected(model: Transformer, judge: RewardModel, seed: int) -> Iterator[Run]:
    """Best of n by the judge, in expectation over which n of 32 answers were drawn."""
    asked = taste.requests(count=64, seed=0, split="test")
    draw = torch.Generator().manual_seed(seed)
    said = evaluate.ask(model, asked, group=32, generator=draw)
    by_judge = score(judge, said).reshape(-1, 32)
    by_gold = evaluate.scores(asked, said).reshape(-1, 32)
    for judged_by, scores in (("judge", by_judge), ("gold", by_gold)):
        gold = best_of(scores, by_gold, SIZES).mean(0).tolist()
        for n, worth in zip(SIZES, gold):
            kl = best_of_n_kl_bound(n)
            yield {"by": f"best of n, {judged_by}", "n": n, "gold": worth, "kl": kl}


def losses(model: Transformer, seed: int) -> Iterator[Run]:
    """Every other loss on the same pairs, with one or two values of its knob."""
    pairs = pairs_of(seed, COUNT, model)
    for name, values in KNOBS.items():
        for beta in values:
            policy = trained(model, pairs, name, beta, seed)
            yield {"loss": name, "beta": beta, **measured(policy, model)}


def writers(model: Transformer, seed: int) -> Iterator[Run]:
    """Whose answers are compared: one's own, once or again; another's."""
    first = pairs_of(seed, COUNT, model)
    policy = trained(model, first, "dpo", BETA, seed)
    yield {"pairs": "own", **measured(policy, model)}
    again = sample_pairs(policy, count=COUNT, seed=200 + seed)
    policy = trained(policy, again, "dpo", BETA, seed)
    yield {"pairs": "own, then own again", **measured(policy, model)}
    both = first + pairs_of(seed + 50, COUNT, model)
    policy = trained(model, both, "dpo", BETA, seed)
    yield {"pairs": "own, twice as many", **measured(policy, model)}
    for name, pairs in (
        ("the base model's", pairs_of(seed, COUNT, villagers.base_model())),
        ("the villagers'", written_pairs(seed)),
    ):
        policy = trained(model, pairs, "dpo", BETA, seed)
        gold = pairs.chosen_gold.mean(), pairs.rejected_gold.mean()
        found = dict(zip(("chosen", "rejected"), gold))
        yield {"pairs": name, **measured(policy, model), **found}


def written_pairs(seed: int) -> PreferencePairs:
    """Two villagers' answers to each request, which differ."""
    draw = random.Random(f"villagers {seed}")
    asked, texts = [], []
    for task in taste.requests(count=2 * COUNT, seed=100 + seed):
        two = [taste.villager(draw, village.animal_in(task.request)) for _ in range(2)]
        if two[0] != two[1] and len(asked) < COUNT:
            asked.append(task)
            texts += two
    each = [task for task in asked for _ in range(2)]
    generator = torch.Generator().manual_seed(seed)
    return annotated(asked, sft.written(each, texts), generator=generator)


def courses(model: Transformer, seed: int) -> Iterator[Run]:
    """Three times over the same pairs, with a look at the masses on the way."""
    pairs = pairs_of(seed, COUNT, model)
    some, found = pairs.rows(torch.arange(128)), []
    unseen = sample_pairs(model, count=128, seed=300 + seed, split="test")

    def watch(update: int, policy: Transformer) -> None:
        if update % 24 == 0:
            seen = {"update": update, **masses(policy, model, some)}
            fresh = masses(policy, model, unseen)
            seen |= {f"unseen {name}": value for name, value in fresh.items()}
            found.append({**seen, **measured(policy, model)})

    loss = partial(preference.dpo, beta=0.1)
    direct.align(model, pairs, loss, epochs=3, lr=LR, seed=seed, watch=watch)
    yield from found


def noise(model: Transformer, seed: int) -> Iterator[Run]:
    """Annotators who never err but for a share of labels that are flipped."""
    for flipped in (0.0, FLIPPED):
        people = Annotators(temperature=0, error_rate=2 * flipped)
        pairs = pairs_of(seed, COUNT, model, annotators=people)
        for name in ("dpo", "cdpo", "robust_dpo") if flipped else ("dpo",):
            more = {"label_smoothing": flipped} if name != "dpo" else {}
            loss = partial(getattr(preference, name), beta=BETA, **more)
            policy, _ = direct.align(model, pairs, loss, lr=LR, seed=seed)
            yield {"flipped": flipped, "loss": name, **measured(policy, model)}


def lengths(model: Transformer, seed: int) -> Iterator[Run]:
    """Annotators who take length for quality: 0.1 of gold a token."""
    fair = pairs_of(seed, COUNT, model)
    asked, draw = fair.asked, torch.Generator().manual_seed(seed)
    both, _ = unpaired(fair)  # chosen, then rejected
    both = both.rows(torch.arange(len(both)).reshape(2, -1).T.flatten())
    seen = evaluate.scores(asked, both) + 0.1 * both.lengths.double()
    biased = annotated(asked, both, generator=draw, seen=seen)
    longer = (biased.chosen.lengths - biased.rejected.lengths).double().mean()
    for name, beta in (("dpo", BETA), ("dpo per token", 10.0), ("simpo", 10.0)):
        policy = trained(model, biased, name, beta, seed)
        yield {"loss": name, "longer": longer, **measured(policy, model)}


SHORT = (courses, writers, losses, noise, lengths, patience)
SEEDS = {before: range(1), frontier: range(5), **dict.fromkeys(SHORT, range(3))}
RECORD = of_sweeps(
    "09_direct_alignment", villagers.instructed_model, SEEDS, file=__file__
)
