"""Chapter 9's runs: ten losses on the same pairs, what beta buys, whose answers, failures.

Every run starts from a base model of the valley, which answers open requests already, and
reads PAIRS comparisons. Seed s stands for the base model, the pairs and their order.
"""

import random
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import nn

from labs.record import Record, call
from lib import direct, evaluate, on_policy, preference_data, pretrain, rewards, sft
from lib.algorithms import ALGORITHMS
from lib.direct import PreferenceObjective
from lib.evaluate import Answer
from lib.kl import best_of_n_kl_bound
from lib.logps import answer_logps
from lib.losses import preference
from lib.models.transformer import Transformer
from lib.preference_data import PreferencePairs, pair_logps, unpaired
from lib.reward_model import SurprisalRewardModel, fit_reward_model, score
from lib.seeds import generator, seed_of
from lib.worlds import talk, tasks
from lib.worlds.annotators import PANEL, Annotators, believed
from lib.worlds.people import person_in
from lib.worlds.task import Task

PAIRS, BATCH, BETA, TOKENS = 512, 16, 0.3, 40
RATES, RL_RATES = (1e-4, 3e-4, 1e-3, 3e-3), (3e-4, 1e-3)
FAST, BETAS = 1e-3, (0.03, 0.3, 3.0)  # where it is about beta: one rate, so many betas
LOOKS, RL_BETA, SIZES = (4, 8, 12, 16), 0.1, (1, 2, 4, 8)
WRONG, PER_WORD = 0.3, 0.2  # labels flipped; what a word is worth to some
KNOBS: dict[str, dict[str, float]] = {
    "dpo": {"beta": BETA},
    "cdpo": {"beta": BETA, "label_smoothing": 0.1},
    "robust_dpo": {"beta": BETA, "label_smoothing": 0.1},
    "ipo": {"beta": BETA},
    "slic_hinge": {"beta": BETA},
    "simpo": {"beta": 2.0, "gamma": 0.5},
    "orpo": {"weight": 0.3},
    "kto": {"beta": BETA},
    "apo_zero": {"beta": BETA},
    "apo_down": {"beta": BETA},
    "imitation": {},
}  # of each loss; imitation is chapter 7's, of the chosen answers alone
Found = dict[str, Any]
Prefer = Callable[..., bool]  # as `Annotators.prefer`
Watch = Callable[[int, nn.Module], None] | None

# --- pairs ----------------------------------------------------------------------------


def one_who(*, per_word: float = 0.0, wrong: float = 0.0) -> Prefer:
    """Gold's own taste, and so much for each word; a share of the labels is flipped.

    Where the two answers are worth the same, a coin decides.
    """

    def worth(task: Task, text: str, end: bool) -> float:
        return talk.gold(task, text, finished=end) + per_word * len(text.split())

    def prefer(task: Task, *texts: Any, finished: tuple[bool, bool]) -> bool:
        one, two, draw = texts
        gap = worth(task, one, finished[0]) - worth(task, two, finished[1])
        coin, flip = draw.random(), draw.random()
        return (gap > 0 if abs(gap) > 1e-9 else coin < 0.5) != (flip < wrong)

    return prefer


def compared(
    writer: nn.Module | None,
    *,
    seed: int,
    count: int = PAIRS,
    prefer: Prefer | None = None,
    split: str = "train",
) -> PreferencePairs:
    """Two different answers to each open request, and which one somebody preferred.

    Without a writer, people wrote them; without `prefer`, the valley's annotators compare.
    """
    number, luck = seed_of("pairs", seed), generator("pairs", seed)
    draw, prefer = random.Random(number), prefer or Annotators().prefer
    asked = tasks.tasks("talk", count=count + count // 8, seed=number, split=split)
    if writer is None:
        twice = [task for task in asked for _ in range(2)]
        texts = [talk.answer(draw, person_in(task.request)) for task in twice]
        rollout = sft.written(twice, texts)
    else:
        settings = {"group": 2, "max_tokens": TOKENS}
        rollout = evaluate.ask(writer, asked, generator=luck, **settings)

    def first(task: Task, a: Answer, b: Answer) -> bool:
        return prefer(task, a.text, b.text, draw, finished=(a.finished, b.finished))

    return preference_data.compared(asked, rollout, first, count=count)


@lru_cache(maxsize=1)
def setting(seed: int) -> tuple[Transformer, PreferencePairs]:
    """The base model that a seed starts from, and comparisons of its answers."""
    model = pretrain.base_model(seed=seed % 5)
    return model, compared(model, seed=seed)


# --- training -------------------------------------------------------------------------


def trained(
    model: Transformer,
    pairs: PreferencePairs,
    name: str,
    *,
    lr: float,
    seed: int,
    epochs: int = 1,
    per_token: bool = False,
    watch: Watch = None,
    **knobs: float,
) -> nn.Module:
    """A copy of the model after it has read the pairs with the loss of this name."""
    if name == "imitation":
        shown = pairs.chosen
        objective = PreferenceObjective(
            len(pairs), lambda m, rows: sft.sft_loss(m, shown.rows(rows))
        )
    else:
        loss = partial(getattr(preference, name), **{**KNOBS[name], **knobs})
        if name in ("simpo", "orpo"):
            objective = direct.without_reference(pairs, loss, context=model.context)
        elif name == "kto":
            objective = direct.unpaired_objective(*unpaired(pairs), model, loss)
        else:
            objective = direct.with_reference(pairs, loss, model, per_token=per_token)
    batch = BATCH * objective.count // len(pairs)  # KTO has two rows a pair
    told = {"lr": lr, "batch": batch, "epochs": epochs, "seed": seed, "watch": watch}
    return direct.train(model, objective, **told)[0]


def judge_of(model: Transformer, pairs: PreferencePairs, seed: int) -> nn.Module:
    """A reward model of these pairs, whose scores on them have deviation 1."""
    settings = {"epochs": 2, "batch": BATCH, "lr": 3e-3, "seed": seed}
    judge, _ = fit_reward_model(model, pairs, kind=SurprisalRewardModel, **settings)
    said = torch.cat([score(judge, some) for some in (pairs.chosen, pairs.rejected)])
    with torch.no_grad():
        judge.head.weight.div_(said.std())
        judge.head.bias.sub_(said.mean()).div_(said.std())
    return judge


def climbed(
    model: Transformer, judge: nn.Module, *, lr: float, seed: int, watch: Watch = None
) -> nn.Module:
    """Chapter 8's RLOO on a reward model, with a KL penalty."""
    asks = on_policy.task_stream("talk", count=16, seed=seed)
    config = on_policy.RLConfig(group=8, beta=RL_BETA, max_tokens=TOKENS)
    told = {"updates": LOOKS[-1], "lr": lr, "config": config, "watch": watch}
    reward, algorithm = rewards.learned(judge), ALGORITHMS["RLOO"]
    return on_policy.train(model, algorithm, reward, asks, seed=seed, **told)[0]


# --- measured -------------------------------------------------------------------------


@cache
def exam(*, sweep: bool = False) -> list[Task]:
    """200 distinct test requests; a sweep has 200 others."""
    asked = evaluate.exam("talk", count=400)
    return asked[200:] if sweep else asked[:200]


@torch.no_grad()
def measured(
    policy: nn.Module, start: nn.Module, *, sweep: bool = False, each: bool = False
) -> Found:
    """Two answers to each exam request: gold (of `each` request), KL, what is in them."""
    asked, luck = exam(sweep=sweep), generator("exam", int(sweep))
    rollout = evaluate.ask(policy, asked, generator=luck, group=2, max_tokens=TOKENS)
    twice = [task for task in asked for _ in range(2)]
    said = zip(twice, evaluate.answers(rollout))
    seen = [talk.features(t, a.text, finished=a.finished) for t, a in said]
    gold = torch.tensor([talk.GOLD.score(s) for s in seen], dtype=torch.float64)
    panel = [a.weights.score(believed(s)) for s in seen for a in PANEL]
    moved = rollout.logps.sum(1) - answer_logps(start, rollout, group=2)
    return {
        "gold": gold.reshape(-1, 2).mean(1) if each else gold.mean().item(),
        "kl": moved.mean().item(),
        "length": rollout.lengths.double().mean().item(),
        "ended": rollout.terminated.double().mean().item(),
        "panel": sum(panel) / len(panel),
        "true": sum(s.true for s in seen) / len(seen),
        "false": sum(s.false - s.false_pets for s in seen) / len(seen),
        "false pets": sum(s.false_pets for s in seen) / len(seen),
        "kind": sum(s.kind for s in seen) / len(seen),
    }


@torch.no_grad()
def masses(policy: nn.Module, start: nn.Module, pairs: PreferencePairs) -> Found:
    """Mean log π / start of a pair's sides, of the start's and of the policy's answers.

    "both" is the probability of the two answers of a pair together.
    """
    now, before = (torch.stack(pair_logps(m, pairs)) for m in (policy, start))  # (2, N)
    chosen, rejected = (now - before).mean(1).tolist()
    found = {"chosen": chosen, "rejected": rejected}
    found["both"] = now.exp().sum(0).mean().item()
    for name, writer in (("start's", start), ("own", policy)):
        luck = generator("masses", name)
        said = evaluate.ask(writer, pairs.asked, generator=luck, max_tokens=TOKENS)
        ratio = answer_logps(policy, said) - answer_logps(start, said)
        found[name] = ratio.mean().item()
    return found


# --- what is run ----------------------------------------------------------------------


def sweep(seed: int) -> Found:
    """Every loss at every rate, on pairs and requests that no other run has."""
    model, pairs = setting(seed)
    found: Found = {name: {} for name in (*KNOBS, "rloo")}
    for name in KNOBS:
        for lr in RATES:
            policy = trained(model, pairs, name, lr=lr, seed=seed)
            found[name][f"{lr:g}"] = measured(policy, model, sweep=True)
    judge = judge_of(model, pairs, seed)
    for lr in RL_RATES:
        policy = climbed(model, judge, lr=lr, seed=seed)
        found["rloo"][f"{lr:g}"] = measured(policy, model, sweep=True)
    return found


def rates() -> dict[str, float]:
    """The rate of each loss whose gold score is best in the sweep."""
    [found] = SWEEP.read()["runs"]["sweep"].values()
    best = {name: max(at, key=lambda lr: at[lr]["gold"]) for name, at in found.items()}
    return {name: float(lr) for name, lr in best.items()}


def losses(seed: int) -> Found:
    """The start, and every loss on the same pairs, each at its own best rate."""
    model, pairs = setting(seed)
    found = {"start": measured(model, model, each=True)}
    for name in KNOBS:
        policy = trained(model, pairs, name, lr=rates()[name], seed=seed)
        found[name] = measured(policy, model, each=True)
    return found


def frontier(seed: int) -> Found:
    """DPO at each beta; RLOO on a reward model of the same pairs; best of n by it."""
    model, pairs = setting(seed)
    found: Found = {"dpo": {}, "rloo": {}, "best of n": {}}
    for beta in BETAS:
        policy = trained(model, pairs, "dpo", lr=FAST, seed=seed, beta=beta)
        found["dpo"][f"{beta:g}"] = measured(policy, model)
    judge, asked, luck = judge_of(model, pairs, seed), exam(), generator("best of n")

    def watch(update: int, policy: nn.Module) -> None:
        if update in LOOKS:
            found["rloo"][str(update)] = measured(policy, model)

    climbed(model, judge, lr=rates()["rloo"], seed=seed, watch=watch)
    rollout = evaluate.ask(model, asked, generator=luck, group=8, max_tokens=TOKENS)
    liked, gold = score(judge, rollout), evaluate.scores(asked, rollout)
    best = evaluate.best_of(liked.reshape(-1, 8), gold.reshape(-1, 8), SIZES).mean(0)
    for n, worth in zip(SIZES, best.tolist()):
        found["best of n"][str(n)] = {"gold": worth, "kl": best_of_n_kl_bound(n)}
    return found


def courses(seed: int) -> Found:
    """DPO three times over its pairs, with a look at the masses on the way."""
    model, pairs = setting(seed)
    unseen, found = compared(model, seed=100 + seed, count=64, split="test"), {}

    def watch(update: int, policy: nn.Module) -> None:
        if update % (PAIRS // BATCH) == 0:
            seen = masses(policy, model, unseen), measured(policy, model)
            found[str(update)] = seen[0] | seen[1]

    trained(model, pairs, "dpo", lr=FAST, seed=seed, beta=0.1, epochs=3, watch=watch)
    return found


def others(seed: int) -> Found:
    """DPO on other writers' pairs; then on gold's own labels, and with some flipped."""
    model, found = pretrain.base_model(seed=seed), {}
    other, lr = pretrain.base_model(seed=(seed + 1) % 5), rates()["dpo"]
    for name, writer, prefer, names in (
        ("another base's", other, None, ("dpo",)),
        ("people's", None, None, ("dpo",)),
        ("gold's labels", model, one_who(), ("dpo",)),
        ("flipped", model, one_who(wrong=WRONG), ("dpo", "cdpo", "robust_dpo")),
    ):
        pairs = compared(writer, seed=seed, prefer=prefer)
        gold = pairs.chosen_gold.mean().item(), pairs.rejected_gold.mean().item()
        found[name] = {"pairs' gold": gold}
        for loss in names:
            more = {} if loss == "dpo" else {"label_smoothing": WRONG}
            policy = trained(model, pairs, loss, lr=lr, seed=seed, **more)
            found[name][loss] = measured(policy, model, each=True)
    return found


def lengths(seed: int) -> Found:
    """Annotators who take length for quality; on sums and on means, along the way."""
    model = pretrain.base_model(seed=seed)
    pairs = compared(model, seed=seed, prefer=one_who(per_word=PER_WORD))
    longer = (pairs.chosen.lengths - pairs.rejected.lengths).double().mean().item()
    found: Found = {"longer": longer, "sums": [], "means": []}
    for name, beta in (("sums", BETA), ("means", 17 * BETA)):

        def watch(update: int, policy: nn.Module, name: str = name) -> None:
            if update % 8 == 0:
                found[name].append(measured(policy, model))

        knobs = {"beta": beta, "per_token": name == "means", "watch": watch}
        trained(model, pairs, "dpo", lr=FAST, seed=seed, **knobs)
    return found


SWEEP = Record("09_direct_alignment_sweep", call, {"sweep": sweep}, __file__, (5,))
RUNS = {f.__name__: f for f in (losses, frontier, courses, others, lengths)}
SEEDS = {name: range(3 if name == "lengths" else 5) for name in RUNS}
RECORD = Record("09_direct_alignment", call, RUNS, __file__, SEEDS)
