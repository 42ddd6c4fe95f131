"""Thoughts about the shell game, and who picks the right ones: outcome, process, verifier.

An outcome reward model learns whether the answer came out right; a process reward model
whether each step is right, up to the first that is not. A base model that is made to
think writes the thoughts, at a temperature at which it errs, and a program marks them.

Shapes: B thoughts, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from labs.chain_of_thought import Piece, pieces
from labs.r1_zero import TOKENS, Begun
from labs.record import Record, call
from labs.reward_models_runs import likelihood
from lib import evaluate, pretrain
from lib.losses.reward import Loss, outcome
from lib.models.transformer import Transformer
from lib.reward_model import RewardModel, SurprisalRewardModel
from lib.rollout import Rollout
from lib.seeds import generator, seed_of
from lib.sft import written
from lib.train import LossFn, fit, minibatches, warm_cosine
from lib.worlds import cups, tasks
from lib.worlds.language import TOKENIZER
from lib.worlds.task import Task

LEVELS, TEMPERATURE = (2, 3, 4, 5), 1.5
GAMES, EXAM, TRIES, NS = 400, 100, 8, (1, 2, 4, 8)
LR, RATES = 1e-2, (3e-3, 1e-2, 3e-2)

Thought = tuple[Task, str, bool]  # the game, "<think> … </think> 4 5", whether it ended

# --- thoughts and their marks ---------------------------------------------------------


def thoughts(
    policy: nn.Module, asked: Sequence[Task], *, seed: int, group: int = 1
) -> list[Thought]:
    """`group` sampled thoughts about each game: the policy's answer is begun for it."""
    begun, luck = [Begun(task) for task in asked], generator("thoughts", seed)
    knobs = {"max_tokens": TOKENS, "temperature": TEMPERATURE}
    rollout = evaluate.ask(policy, begun, generator=luck, group=group, **knobs)
    each = [task for task in asked for _ in range(group)]
    said = evaluate.answers(rollout)
    return [(task, f"<think>{a.text}", a.finished) for task, a in zip(each, said)]


def games(count: int = GAMES, *, seed: int) -> list[Task]:
    """Training games of two to five swaps."""
    number = seed_of("marked games", seed)
    return tasks.tasks("cups", count=count, seed=number, levels=LEVELS)


def steps_of(task: Task, text: str) -> list[Piece]:
    """A thought in pieces, each with its mark; None: it claims nothing.

    As `chain_of_thought.pieces`, but to end the thought is a step too: right if every
    swap was told before, and wrong if it comes too early.
    """
    found: list[Piece] = []
    for words, verdict in pieces(task, text):
        if words == "</think>":
            told = sum(mark is not None for _, mark in found)
            verdict = told == 1 + len(cups.game_of(task).swaps)
        if words:
            found.append((words, verdict))
    return found


@dataclass(frozen=True)
class Marked:
    """Thoughts as text, with both kinds of marks."""

    rollout: Rollout
    right: Tensor  # (B,) bool: the answer came out right
    ends: Tensor  # (B, T) bool: True where a step ends; the answer is one, too
    true: Tensor  # (B, T) bool: True where a right step ends
    judged: Tensor  # (B, T) bool: True where a step ends, up to the first wrong one

    def rows(self, index: Tensor) -> "Marked":
        """These thoughts only (a minibatch)."""
        rest = (self.right, self.ends, self.true, self.judged)
        return Marked(self.rollout.rows(index), *(x[index] for x in rest))

    def __len__(self) -> int:
        return len(self.right)


def marked(said: Sequence[Thought]) -> Marked:
    """Thoughts put before both markers."""
    asked, texts, finished = zip(*said)
    rollout = written(asked, texts, finished=finished)
    ends, true, judged = (torch.zeros_like(rollout.mask) for _ in range(3))
    begins = rollout.mask.long().argmax(1).tolist()
    for row, (task, text, _) in enumerate(said):
        at, so_far = begins[row], True
        for words, verdict in steps_of(task, text):
            at += len(TOKENIZER.encode(f" {words}"))
            if verdict is not None:
                ends[row, at - 1], true[row, at - 1] = True, verdict
                judged[row, at - 1] = so_far
                so_far = so_far and verdict
    right = [done and tasks.verify(task, text) for task, text, done in said]
    return Marked(rollout, torch.tensor(right), ends, true, judged)


# --- two reward models ----------------------------------------------------------------


def at_actions(model: nn.Module, rollout: Rollout) -> Tensor:
    """What a reward model says when it has read each action: (B, T)."""
    tokens = torch.cat((rollout.states[:, :1], rollout.actions), 1)  # (B, T + 1)
    return model(tokens)[:, 1:]


def outcome_loss(model: nn.Module, seen: Marked) -> Loss:
    """Will the answer be right? Asked at every token (ORM)."""
    labels = seen.right.unsqueeze(1).expand(seen.ends.shape)
    return outcome(at_actions(model, seen.rollout), labels, seen.rollout.mask)


def process_loss(model: nn.Module, seen: Marked) -> Loss:
    """Is this step right? Asked at the end of each, up to the first wrong one (PRM)."""
    return outcome(at_actions(model, seen.rollout), seen.true, seen.judged)


def fit_marks(
    trunk: Transformer,
    seen: Marked,
    loss: LossFn,
    *,
    seed: int,
    epochs: int = 2,
    lr: float = LR,
) -> RewardModel:
    """An ORM (`outcome_loss`) or a PRM (`process_loss`), 16 thoughts an update."""
    model, draw = SurprisalRewardModel(trunk), generator("marks", seed)
    parts = minibatches(len(seen), epochs=epochs, batch=16, generator=draw)
    batches = [seen.rows(some) for some in parts]
    fit(model, batches, loss, lr=warm_cosine(lr, len(batches), warm=10))
    return model


@torch.no_grad()
def said_of(model: nn.Module, seen: Marked) -> Tensor:
    """(B, T) what a reward model says after each action, 400 thoughts at a time."""
    parts = torch.arange(len(seen)).split(400)
    return torch.cat([at_actions(model, seen.rollout.rows(part)) for part in parts])


def verdicts(orm_said: Tensor, prm_said: Tensor, seen: Marked) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B,): that an answer is right (ORM), that all steps are (PRM).

    The ORM's is read at the last token, the PRM's summed over the ends of steps.
    """
    last = logsigmoid(orm_said)[seen.rollout.ends]
    return last, logsigmoid(prm_said).masked_fill(~seen.ends, 0).sum(1)


def first_wrong(prm_said: Tensor, seen: Marked) -> Tensor:
    """(B,) the number of the first step that a PRM calls wrong, from 0; -1: none."""
    return _first(seen, prm_said < 0)


def true_first_wrong(seen: Marked) -> Tensor:
    """(B,) the number of the first step that is wrong, from 0; -1: none."""
    return _first(seen, ~seen.true)


def _first(seen: Marked, wrong: Tensor) -> Tensor:
    number = seen.ends.cumsum(1) - 1  # of the step that ends here
    beyond = seen.ends.shape[1]
    found = torch.where(wrong & seen.ends, number, beyond).min(1).values
    return found.masked_fill(found == beyond, -1)


# --- judges that learn nothing --------------------------------------------------------


def votes(said: Sequence[Thought], *, group: int) -> Tensor:
    """(B,) how many of its group gave the answer that this thought gave, 0: unfinished."""
    given = [text.rpartition("</think>")[2].strip() if e else "" for _, text, e in said]
    groups = [given[k : k + group] for k in range(0, len(given), group)]
    counts = [g.count(a) if a else 0 for g in groups for a in g]
    return torch.tensor(counts, dtype=torch.float64)


def voted(
    said: Sequence[Thought], right: Tensor, sizes: Sequence[int], *, group: int
) -> Tensor:
    """(games, len(sizes)) how often a vote of n thoughts is right, right: (B,).

    One is held in every subset of n of a group, among its own; answers that tie share
    alike.
    """
    rows, found = torch.arange(len(said)).reshape(-1, group), []
    for n in sizes:
        some = rows[:, [*combinations(range(group), n)]]  # (games, subsets, n)
        counts = votes([said[k] for k in some.flatten().tolist()], group=n)
        best = evaluate.best_of(counts.reshape(some.shape), right[some], [n])
        found.append(best[..., 0].mean(1))
    return torch.stack(found, 1)


# --- the record -----------------------------------------------------------------------


def exam_of(policy: nn.Module, *, seed: int, group: int = TRIES) -> list[Thought]:
    """`group` thoughts about each of 200 test games, half of four swaps, half of five."""
    asked = [t for n in (4, 5) for t in evaluate.exam("cups", level=n, count=EXAM)]
    return thoughts(policy, asked, seed=seed_of("exam", seed), group=group)


def why_wrong(said: Sequence[Thought]) -> dict[str, float]:
    """Shares of thoughts: right ones, and wrong ones by their first wrong step."""
    found = dict.fromkeys(("right", "swap", "early end", "answer"), 0)
    for task, text, done in said:
        steps = steps_of(task, text)
        wrong = [k for k, (_, mark) in enumerate(steps) if mark is False]
        if done and tasks.verify(task, text):
            found["right"] += 1
        elif wrong and steps[wrong[0]][0] == "</think>":
            found["early end"] += 1
        elif wrong and "</think>" in [words for words, _ in steps[: wrong[0]]]:
            found["answer"] += 1
        else:
            found["swap"] += 1
    return {name: count / len(said) for name, count in found.items()}


def choice(seed: int) -> dict[str, Any]:
    """An outcome and a process reward model choose among a base model's thoughts."""
    base = pretrain.base_model(seed=seed)
    learn = marked(thoughts(base, games(seed=seed), seed=seed))
    said = exam_of(base, seed=seed)
    test = marked(said)
    losses = (outcome_loss, process_loss)
    orm, prm = (fit_marks(base, learn, loss, seed=seed) for loss in losses)
    orm_said, prm_said = said_of(orm, test), said_of(prm, test)
    right, every = verdicts(orm_said, prm_said, test)
    judges = {
        "ORM": right,
        "PRM": every,
        "likelihood": likelihood(base, test.rollout),
        "verifier": test.right.double(),
    }
    truth = test.right.double().reshape(-1, TRIES)
    best = {  # (games, NS)
        name: evaluate.best_of(judge.reshape(-1, TRIES), truth, NS)
        for name, judge in judges.items()
    }
    best["vote"] = voted(said, test.right.double(), NS, group=TRIES)
    kept = {n: {"right": b.mean(0), "each at 8": b[:, -1]} for n, b in best.items()}
    first, named = true_first_wrong(test), first_wrong(prm_said, test)
    bad, sure = first >= 0, right.exp() > 0.5
    return {
        "thoughts": why_wrong(said),
        "marks": {"verdicts": len(learn), "steps": int(learn.judged.sum())},
        "chosen": kept,
        "ORM, answers": (sure == test.right).double().mean(),
        "PRM, answers": ((named < 0) == test.right).double().mean(),
        "PRM, first wrong step": (named == first)[bad].double().mean(),
        "PRM, false alarms": (named >= 0)[~bad].double().mean(),
    }


def sweep(seed: int) -> dict[str, list[float]]:
    """Loss on 200 fresh thoughts at RATES after one reading, from base 0."""
    base, found = pretrain.base_model(seed=0), {"ORM": [], "PRM": []}
    learn = marked(thoughts(base, games(seed=seed), seed=seed))
    number = seed_of("fresh", seed)
    exam = marked(thoughts(base, games(200, seed=number), seed=number))
    for lr in RATES:
        for name, loss in (("ORM", outcome_loss), ("PRM", process_loss)):
            model = fit_marks(base, learn, loss, seed=seed, lr=lr, epochs=1)
            with torch.no_grad():
                found[name].append(loss(model, exam)[0].item())
    return found


RECORD = Record(
    "04_process_rewards",
    call,
    runs={"sweep": sweep, "bases": choice},
    seeds={"sweep": [9], "bases": range(3)},
    file=__file__,
)
