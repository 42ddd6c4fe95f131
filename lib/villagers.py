"""The village's language models, their lessons and their exams.

They serve the chapters that have not moved to the second world yet, and go with the last
of them. Each model is made by code and kept on this computer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib import checkpoint, evaluate, require, reward_model, sft
from lib.evaluate import Answer, ask, scores
from lib.losses import supervised
from lib.losses.supervised import Loss
from lib.models.transformer import Config, Transformer
from lib.ops import device_of, token_logps
from lib.preference_data import sample_pairs
from lib.reward_model import (
    RewardModel,
    SurprisalRewardModel,
    fit_reward_model,
)
from lib.rollout import Rollout
from lib.seeds import seed_of
from lib.train import History, fit, warm_cosine
from lib.worlds.task import TaskSampler
from lib.worlds.village import TOKENIZER, Split, taste
from lib.worlds.village.corpus import documents
from lib.worlds.village.tasks import SKILLS, Task, reasoning, tasks, verify_reasoning

CONFIG = Config(vocabulary=len(TOKENIZER))
ROW = 64  # tokens in a row of pretraining text
BATCH = 8  # rows
UPDATES = 1800
LR = 5e-3


def rows(texts: Sequence[str], length: int = ROW) -> Tensor:
    """Documents packed into rows: (N, length + 1) token ids, padded on the right.

    Each document stands between begin and end. A row takes whole documents while they
    fit; what is longer than a row is cut.
    """
    require.count("length", length)
    if not texts:
        require.refuse("texts", "none", "at least one")
    packed: list[list[int]] = [[]]
    for text in texts:
        ids = [TOKENIZER.begin, *TOKENIZER.encode(text), TOKENIZER.end]
        if packed[-1] and len(packed[-1]) + len(ids) > length + 1:
            packed.append([])
        packed[-1] += ids[: length + 1]
    filled = torch.full((len(packed), length + 1), TOKENIZER.pad)
    for row, ids in zip(filled, packed):
        row[: len(ids)] = torch.tensor(ids)
    return filled


def next_token_loss(model: nn.Module, batch: Tensor) -> Loss:
    """Pretraining: predict every token but padding. batch: (B, length + 1)."""
    batch = batch.to(device_of(model))
    actions = batch[:, 1:]
    logps = token_logps(model(batch[:, :-1]), actions)
    return supervised.sft(logps, actions != TOKENIZER.pad)


def pretrain(
    *,
    seed: int = 0,
    config: Config = CONFIG,
    updates: int = UPDATES,
    progress: str | None = None,
) -> tuple[Transformer, History]:
    """A model from nothing: one pass over freshly written documents."""
    require.count("seed", seed, least=0)
    require.count("updates", updates)
    model = Transformer(config, generator=torch.Generator().manual_seed(seed))
    fill = 19.5  # tokens a document takes, begin and end included
    text = documents(count=int(1.2 * updates * BATCH * ROW / fill), seed=seed)
    batches = rows(text)[: updates * BATCH].split(BATCH)
    lr = warm_cosine(LR, updates)
    return model, fit(model, batches, next_token_loss, lr=lr, progress=progress)


# --- kept on this computer ------------------------------------------------------------


def base_model(*, seed: int = 0, progress: str | None = None) -> Transformer:
    """The base model of this seed: read from the cache, or made and put there.

    While it is made a bar shows how far it is, named `progress` ("base model", if None).
    """
    return base_run(seed=seed, progress=progress)[0]


def base_run(
    *, seed: int = 0, progress: str | None = None
) -> tuple[Transformer, History]:
    """The same with its training history (loss, grad_norm and perplexity, an update)."""
    require.count("seed", seed, least=0)

    def make() -> checkpoint.State:
        bar = progress or "base model"
        made, history = pretrain(
            seed=seed, config=CONFIG, updates=UPDATES, progress=bar
        )
        return {"model": made.state_dict(), "history": history}

    about, made_of = "the base model, which takes about 30 s", (CONFIG, UPDATES)
    state = checkpoint.cached(
        f"base-{seed}", make, file=__file__, of=made_of, about=about
    )
    model = Transformer(CONFIG, generator=torch.Generator().manual_seed(seed))
    model.load_state_dict(state["model"])
    return model, state["history"]


# --- instruction tuning ---------------------------------------------------------------

COMPARISONS = 4096  # that the book's proxy has seen
DEMONSTRATIONS = 600  # of each skill, and of talk


def demonstrations(
    *, count: int, seed: int, split: Split = "train"
) -> list[tuple[Task, str]]:
    """`count` tasks of every skill and as many open requests, each with an answer.

    Half of the sums are worked step by step, inside <think>.
    """
    shown = [
        (task, reasoning(task) if skill == "sum" and i % 2 else task.answer)
        for skill in SKILLS
        for i, task in enumerate(tasks(skill, count=count, seed=seed, split=split))
    ]
    talk = taste.requests(count=count, seed=seed, split=split)
    return [*shown, *((task, task.answer) for task in talk)]


def instructed_model(*, seed: int = 0, progress: str | None = None) -> Transformer:
    """The book's instruction-tuned model: the base model, shown how to answer.

    Read from the cache, or made and put there (see `checkpoint.cached`), with a bar.
    """

    def make() -> checkpoint.State:
        model = base_model(seed=seed, progress=progress)
        shown = demonstrations(count=DEMONSTRATIONS, seed=seed)
        knobs = {"epochs": sft.EPOCHS, "batch": sft.BATCH, "lr": sft.LR, "seed": seed}
        sft.instruct(model, shown, **knobs, progress=progress or "instruction tuning")
        return {"model": model.state_dict()}

    made_of = (CONFIG, DEMONSTRATIONS, sft.EPOCHS, sft.BATCH, sft.LR)
    about = "the instruction-tuned model, which takes about 15 s"
    name = f"instructed-{seed}"
    state = checkpoint.cached(name, make, file=__file__, of=made_of, about=about)
    model = Transformer(CONFIG, generator=torch.Generator().manual_seed(seed))
    model.load_state_dict(state["model"])
    return model


# --- exams and tasks ------------------------------------------------------------------


def exam(*, count: int = 64, seed: int = 0, split: Split = "test") -> list[Task]:
    """`count` tasks of every skill, then as many open-ended requests."""
    verified = [tasks(skill, count=count, seed=seed, split=split) for skill in SKILLS]
    return [*sum(verified, []), *taste.requests(count=count, seed=seed, split=split)]


def skills(
    policy: nn.Module,
    *,
    count: int = 64,
    seed: int = 0,
    split: Split = "test",
    top_k: int | None = None,
) -> dict[str, float]:
    """The table's column for one model: the mean score in each skill, then in talk.

    Verified skills in [0, 1]; "talk" is the mean gold score. Answers are sampled at
    temperature 1 (top_k=1: greedy), the same questions for every model.
    """
    asked = exam(count=count, seed=seed, split=split)
    generator = torch.Generator().manual_seed(seed)
    rollout = ask(policy, asked, generator=generator, top_k=top_k)
    means = scores(asked, rollout).reshape(-1, count).mean(1).tolist()
    return dict(zip((*SKILLS, "talk"), means))


def task_stream(
    skill: str, *, count: int, seed: int, levels: Sequence[int] | None = None
) -> TaskSampler:
    """`count` training tasks of one skill for each update, always new ones.

    The skill "talk" stands for open requests, which have no levels.
    """

    def ask(update: int) -> Sequence[Task]:
        number = seed_of("tasks", skill, seed, update)
        if skill == "talk" and levels is None:
            return taste.requests(count=count, seed=number)
        return tasks(skill, count=count, seed=number, levels=levels)

    return ask


def answers(rollout: Rollout) -> list[Answer]:
    """The completions of a rollout, as text of the village."""
    return evaluate.answers(rollout, TOKENIZER)


def reasoned(asked: Sequence[Task], rollout: Rollout) -> Tensor:
    """1 for an answer of one <think> block of true sums, then an answer; else 0."""
    written = (verify_reasoning(answer.text) for answer in answers(rollout))
    found = [float(good) for good in written]
    return torch.tensor(found, dtype=torch.float64, device=rollout.mask.device)


# --- reward model ---------------------------------------------------------------------


def proxy_model(
    *,
    seed: int = 0,
    kind: type[RewardModel] = SurprisalRewardModel,
    progress: str | None = None,
) -> RewardModel:
    """The book's reward model: 4,096 comparisons of the instruction-tuned model's answers.

    `seed` draws the answers, the annotators' choices and the order; the model whose
    answers they are, and whose copy it is, is always `instructed_model()`. Read from the
    cache, or made in half a minute and put there.
    """
    trunk = instructed_model(progress=progress)

    def make() -> checkpoint.State:
        bar = progress or "comparisons"
        comparisons = sample_pairs(trunk, count=COMPARISONS, seed=seed, progress=bar)
        bar = progress or "reward model"
        found, _ = fit_reward_model(
            trunk, comparisons, kind=kind, seed=seed, progress=bar
        )
        return {"model": found.state_dict()}

    settings = reward_model
    made_of = COMPARISONS, settings.EPOCHS, settings.LR, settings.BATCH, settings.CENTRE
    name = f"proxy-{kind.__name__.lower()}-{seed}"
    about = f"a reward model ({kind.__name__}), which takes about 25 s"
    state = checkpoint.cached(name, make, file=__file__, of=made_of, about=about)
    model = kind(trunk)
    model.load_state_dict(state["model"])
    return model
