"""DeepSeek-R1 after R1-Zero: four stages that make a readable, general model of a base.

Cold start, reinforcement learning on reasoning, rejection sampling and fine-tuning of the
base, reinforcement learning on everything; and the reward model that the last one needs.
A recipe is a row of names of STEPS. Ablations leave some out.
"""

import copy
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from labs.r1_zero import LEVELS, LR, MEASURES, TOKENS, faithful
from lib import (
    evaluate,
    on_policy,
    preference_data,
    pretrain,
    ready,
    rejection,
    rewards,
)
from lib.algorithms import ALGORITHMS
from lib.evaluate import Answer
from lib.models.transformer import Transformer
from lib.on_policy import RLConfig
from lib.preference_data import PreferencePairs
from lib.reward_model import (
    RewardModel,
    SurprisalRewardModel,
    fit_reward_model,
    score,
)
from lib.rewards import Reward
from lib.rollout import Rollout, concat
from lib.seeds import generator, seed_of
from lib.sft import instruct, written
from lib.train import History, fit, warm_cosine
from lib.worlds import cups, tasks
from lib.worlds.annotators import Annotators, believed
from lib.worlds.language import KINDS, Split
from lib.worlds.people import PREDICATES, person_in
from lib.worlds.talk import features
from lib.worlds.task import Task, TaskSampler

# --- the base -------------------------------------------------------------------------

RARE, COMMON = 0.001, 0.01  # worked answers among the documents read last
READ = 2_000  # updates
PAGES = {"pages_on_people": 0.85, "facts_answered": 0.1}  # about half of the documents


def base(seed: int, worked: float, *, progress: str | None = None) -> Transformer:
    """Base model `seed` after it has read on: half of it pages on people.

    The committed bases know every second fact; this one knows most. `worked` is the
    share of worked answers among what it reads: the fewer, the more rarely it thinks.
    """
    model = pretrain.base_model(seed=seed)
    number = seed_of("read on", seed)
    text = pretrain.corpus(seed=number, updates=READ, cups_worked=worked, **PAGES)
    batches, lr = list(text.split(pretrain.BATCH)), warm_cosine(2e-3, READ)
    fit(model, batches, pretrain.next_token_loss, lr=lr, progress=progress)
    return ready.rounded(model)


def ready_base() -> Transformer:
    """`base(0, RARE)` as it is committed."""
    return ready.load(pretrain.blank(), "rare-base-0")


# --- what is shown --------------------------------------------------------------------

Shown = Sequence[tuple[Task, str]]  # tasks and answers to imitate
GENERAL = ("facts", "strings", "constraints", "talk")  # all that is no game


def demonstrations(count: int, *, seed: int) -> Shown:
    """`count` answers of people to each general skill."""
    if count == 0:
        return []
    every = [tasks.tasks(skill, count=count, seed=seed) for skill in GENERAL]
    return [(task, task.answer) for some in every for task in some]


def readable(count: int, *, seed: int) -> Shown:
    """`count` games worked by people of the hill."""
    asked = tasks.tasks("cups", count=count, seed=seed, levels=LEVELS)
    return [(task, cups.worked(cups.game_of(task), "hill")) for task in asked]


# --- who judges -----------------------------------------------------------------------

LANGUAGE = 0.5  # what a thought all in the other dialect costs


def foreign(task: Task, answer: Answer) -> float:
    """The share of number words that are not of the hill; 0 if there are none."""
    return cups.dialects(answer.text)["lake"]


def right_and_readable(asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """1 for a right answer, less LANGUAGE times the share of foreign number words."""
    share = rewards.of_text(foreign)(asked, rollout)
    return rewards.verified(asked, rollout) - LANGUAGE * share


def by_kind(liked: Reward) -> Reward:
    """A verifier where there is one, and `liked` for open requests."""

    def reward(asked: Sequence[Task], rollout: Rollout) -> Tensor:
        group = len(rollout) // len(asked)
        is_open = torch.tensor([task.skill == "talk" for task in asked])
        found = torch.zeros(len(rollout), dtype=torch.float64)
        for which, rule in ((is_open, liked), (~is_open, right_and_readable)):
            some, rows = which.nonzero()[:, 0], which.repeat_interleave(group)
            if len(some):
                found[rows] = rule([asked[i] for i in some], rollout.rows(rows))
        return found

    return reward


# --- the reward model -----------------------------------------------------------------

COMPARED, PANEL = 6_000, Annotators()


def assistant(
    model: Transformer, *, seed: int, progress: str | None = None
) -> Transformer:
    """A copy that answers general requests: it writes what annotators compare."""
    pupil = copy.deepcopy(model)
    shown = demonstrations(1_000, seed=seed_of("assistant", seed))
    instruct(pupil, shown, epochs=2, lr=1e-3, seed=seed, progress=progress)
    return ready.rounded(pupil)


def compared(
    policy: nn.Module, *, count: int, seed: int, split: Split = "train"
) -> PreferencePairs:
    """`count` open requests with two different answers each, which a panel compares."""
    luck = generator("compared", seed)
    draw = random.Random(seed_of("panel", seed))
    found: list[PreferencePairs] = []
    have = block = 0

    def prefer(task: Task, a: Answer, b: Answer) -> bool:
        ends = a.finished, b.finished
        return PANEL.prefer(task, a.text, b.text, draw, finished=ends)

    while have < count:
        number = seed_of("compared", seed, block)
        asked = tasks.tasks("talk", count=512, seed=number, split=split)
        rollout = evaluate.ask(policy, asked, generator=luck, group=2)
        found.append(preference_data.compared(asked, rollout, prefer))
        have, block = have + len(found[-1]), block + 1
    whole = found[0]
    for more in found[1:]:
        whole = whole + more
    return whole.first(count)


def reward_model(
    writer: Transformer, *, seed: int, progress: str | None = None
) -> tuple[RewardModel, History]:
    """A reward model from COMPARED comparisons of the writer's answers.

    Its scores have mean 0 and standard deviation 1 on them.
    """
    pairs = compared(writer, count=COMPARED, seed=seed)
    model, history = fit_reward_model(
        writer,
        pairs,
        kind=SurprisalRewardModel,
        epochs=2,
        batch=16,
        lr=3e-3,
        seed=seed,
        progress=progress,
    )
    said = torch.cat([score(model, some) for some in (pairs.chosen, pairs.rejected)])
    with torch.no_grad():
        model.head.weight.div_(said.std())
        model.head.bias.sub_(said.mean()).div_(said.std())
    return ready.rounded(model), history


def ready_assistant() -> Transformer:
    """`assistant(ready_base(), seed=0)` as it is committed."""
    return ready.load(pretrain.blank(), "assistant-0")


def ready_reward_model() -> RewardModel:
    """`reward_model(ready_assistant(), seed=0)` as it is committed."""
    return ready.load(SurprisalRewardModel(ready_assistant()), "reward-0")


# --- the stages -----------------------------------------------------------------------

COLD = 40  # worked answers of the cold start
REASONING, EVERYTHING = 24, 48  # updates of the two stages of reinforcement learning
GAMES, TRIES = 1_000, 4  # rejection sampling: questions, and answers to each
SHARE = 0.75  # of reasoning in the mixture
MIXTURE = 1_200  # answers in it
MIX = {"cups": 8, "facts": 4, "strings": 2, "constraints": 2, "talk": 16}  # an update


def cold_start(model: nn.Module, *, seed: int) -> nn.Module:
    """A copy that has imitated COLD readable thoughts."""
    pupil = copy.deepcopy(model)
    shown = readable(COLD, seed=seed_of("cold start", seed))
    instruct(pupil, shown, epochs=4, batch=8, lr=1e-3, seed=seed)
    return pupil


def reasoning(
    policy: nn.Module,
    *,
    seed: int,
    reward: Reward = right_and_readable,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
) -> tuple[nn.Module, History]:
    """Reinforcement learning on games: R1-Zero's, with a reward for the language."""
    return on_policy.train(
        policy,
        ALGORITHMS["Dr. GRPO"],
        reward,
        on_policy.task_stream("cups", count=16, seed=seed, levels=LEVELS),
        seed=seed,
        updates=REASONING,
        lr=LR,
        config=RLConfig(group=16, max_tokens=TOKENS),
        measures=MEASURES,
        watch=watch,
        progress=progress,
    )


def keeps(task: Task, answer: Answer) -> bool:
    """Right, thought out, and all of the thought in the hill's words."""
    right = answer.finished and tasks.verify(task, answer.text)
    return right and cups.dialects(answer.text)["hill"] == 1


worth_keeping = rewards.of_text(keeps)


def chosen(policy: nn.Module, *, seed: int, count: int) -> Rollout | None:
    """Up to `count` answers that are worth keeping, one a game; None if there are none."""
    number = seed_of("chosen", seed)
    asked = tasks.tasks("cups", count=GAMES, seed=number, levels=LEVELS)
    config = rejection.RejectionConfig(group=TRIES, max_tokens=TOKENS)
    rollout, found = rejection.sample_and_score(
        policy, worth_keeping, asked, seed=number, config=config
    )
    best = rejection.passing(rejection.top_per_prompt(found), found)[:count]
    return rejection.selected(rollout, best, group=TRIES) if len(best) else None


def imitation(
    start: nn.Module, policy: nn.Module, *, seed: int, share: float = SHARE
) -> tuple[nn.Module, int]:
    """A copy of `start` that imitates the policy's best and people's general answers.

    Also how many of the policy's answers there were to imitate.
    """
    general = round((1 - share) * MIXTURE)
    best = chosen(policy, seed=seed, count=MIXTURE - general)
    people = demonstrations(general // len(GENERAL), seed=seed_of("general", seed))
    parts = [written(*zip(*people))] if people else []
    shown = concat(*([] if best is None else [best]), *parts)
    config = rejection.RejectionConfig(epochs=2, batch=32, lr=1e-3)
    pupil, _ = rejection.finetune_on(start, shown, seed=seed, config=config)
    return pupil, 0 if best is None else len(best)


def of_all_skills(seed: int, mix: dict[str, int]) -> TaskSampler:
    """For each update so many new training tasks of each skill."""

    def ask(update: int) -> list[Task]:
        number = seed_of("mix", seed, update)
        return [
            task
            for skill, count in mix.items()
            for task in tasks.tasks(
                skill,
                count=count,
                seed=number,
                levels=LEVELS if skill == "cups" else None,
            )
        ]

    return ask


def everything(
    policy: nn.Module,
    liked: Reward,
    *,
    seed: int,
    mix: dict[str, int] = MIX,
    updates: int = EVERYTHING,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: str | None = None,
) -> tuple[nn.Module, History]:
    """Reinforcement learning on all skills: verifiers, and a reward model for talk."""
    return on_policy.train(
        policy,
        ALGORITHMS["Dr. GRPO"],
        by_kind(liked),
        of_all_skills(seed, mix),
        seed=seed,
        updates=updates,
        lr=LR,
        config=RLConfig(group=8, max_tokens=TOKENS),
        watch=watch,
        progress=progress,
    )


# --- the exam -------------------------------------------------------------------------


def report(policy: nn.Module) -> dict[str, float]:
    """Sampled answers to 200 test tasks of each skill and level, and what is in them.

    "cups" is the mean over 3, 4 and 5 swaps, "hill" the share of number words that are
    of the hill, over thoughts that have any; "facts", "strings" and "constraints" are
    means over levels, "talk" is gold's score.
    """
    asked = {
        (s, n): evaluate.exam(s, level=n) for s in tasks.LEVELS for n in _levels(s)
    }
    found: dict[str, list[float]] = {}
    for (skill, level), some in asked.items():
        luck = generator("report", skill, level)
        rollout = evaluate.ask(policy, some, generator=luck, max_tokens=TOKENS)
        found.setdefault(skill, []).extend(evaluate.scores(some, rollout).tolist())
        if skill == "cups":
            said = evaluate.answers(rollout)
            found.setdefault("thinks", []).extend("<think>" in a.text for a in said)
            found.setdefault("faithful", []).extend(map(faithful, some, said))
            told = [cups.dialects(a.text) for a in said]
            hill = [each["hill"] for each in told if sum(each.values())]
            found.setdefault("hill", []).extend(hill)
            found.setdefault("length", []).extend(rollout.lengths.tolist())
    return {name: sum(x) / len(x) if x else 0.0 for name, x in found.items()}


def _levels(skill: str) -> Sequence[int]:
    return (3, 4, 5) if skill == "cups" else tasks.LEVELS[skill]


def noticed(policy: nn.Module, liked: Reward) -> dict[str, float]:
    """Answers to 200 open requests: who likes them, and what is true in them."""
    asked = evaluate.exam("talk")
    rollout = evaluate.ask(policy, asked, generator=generator("noticed"))
    seen = [
        features(t, a.text, finished=a.finished)
        for t, a in zip(asked, evaluate.answers(rollout))
    ]
    panel = [a.weights.score(believed(s)) for s in seen for a in PANEL.panel]
    count = len(seen)
    return {
        "reward": liked(asked, rollout).mean().item(),
        "gold": evaluate.scores(asked, rollout).mean().item(),
        "panel": sum(panel) / len(panel),
        "true": sum(s.true for s in seen) / count,
        "false pets": sum(s.false_pets for s in seen) / count,
        "other false": sum(s.false - s.false_pets for s in seen) / count,
        "kind": sum(s.kind for s in seen) / count,
        "words": sum(s.words for s in seen) / count,
    }


def samples(policy: nn.Module, *, count: int = 2) -> dict[str, str]:
    """One answer each to `count` test requests of every skill, games of 4 swaps."""
    found = {}
    for skill in tasks.LEVELS:
        asked = evaluate.exam(skill, level=4 if skill == "cups" else 1, count=count)
        luck = generator("samples", skill)
        rollout = evaluate.ask(policy, asked, generator=luck, max_tokens=TOKENS)
        for task, answer in zip(asked, evaluate.answers(rollout)):
            found[task.request] = f"{answer.text}{'' if answer.finished else ' …'}"
    return found


def believes(model: RewardModel, kind: str, *, count: int = 200) -> float:
    """How often a true home, job or pet scores higher than a false one, all else equal."""
    asked = evaluate.exam("talk", count=count)
    draw = random.Random(seed_of("believes", kind))
    true, false = [], []
    for task in asked:
        person, said = person_in(task.request), PREDICATES[kind][0]
        fact = getattr(person, kind)
        other = draw.choice([word for word in KINDS[kind] if word != fact])
        true.append(f"{person.name} {said.format(fact)}.")
        false.append(f"{person.name} {said.format(other)}.")
    better = score(model, written(asked, true)) > score(model, written(asked, false))
    return better.double().mean().item()
