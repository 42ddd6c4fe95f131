"""What to take along to TRL: the same tasks, reward and settings for its trainers.

A run that has outgrown one process moves to a library that has engines, adapters and
sharding. Here each setting of this book is named as TRL 1.16 names it, and each default
of TRL that would change the gradient is set to what the book does. On one batch TRL's
loss and gradient then equal the book's: to a millionth on fresh answers, to a hundred
thousandth on old ones, whose log-probabilities TRL keeps in float32 (tests/real).

    from trl import GRPOConfig, GRPOTrainer
    ask = task_stream("facts", count=16, seed=0)
    trainer = GRPOTrainer(
        model,
        reward_funcs=reward_function(verified, tokenizer=TOKENIZER),
        args=GRPOConfig("out", **grpo("GRPO", config, prompts=16, updates=100, lr=1e-5)),
        train_dataset=prompts(ask, updates=100),
        processing_class=fast_tokenizer(TOKENIZER),
    )

With beta above 0 TRL reads the reference from where the model's config says it came
from, a folder or a name on the Hub: save the model first, and load it from there.

What does not go along: dynamic sampling (TRL has none; DAPO's loss alone is handed
over), a KL penalty in the reward, PPO's critic, the seed's luck, and a rate that falls
to a tenth (TRL has `cosine_with_min_lr`, which starts at 0 and ends elsewhere).
"""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lib import require
from lib.models.tokenizer import CONTROL, Tokenizer
from lib.on_policy import DEFAULT, RLConfig
from lib.rewards import Reward, judge
from lib.rollout import of_tokens
from lib.worlds.task import Task, TaskSampler

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

Settings = dict[str, Any]

# What `lib.train.fit` does, in the words of TRL's trainers.
FIT = {
    "gradient_accumulation_steps": 1,  # one batch, one update
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "optim": "adamw_torch",  # betas .9 and .999, epsilon 1e-8: the defaults of both
    "lr_scheduler_type": "constant",  # TRL's default falls to 0
    "warmup_steps": 0,
    "bf16": False,  # TRL's default is True
    "gradient_checkpointing": False,  # TRL's default: the same gradient, 20 % slower
    "disable_dropout": True,  # what a policy drew at, it must find again
    "report_to": "none",
}

# Loss and credit of `lib.algorithms`. "token" ratios are TRL's default.
LOSSES = {
    "GRPO": {"loss_type": "grpo", "epsilon": 0.2},
    "DAPO": {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28},
    "Dr. GRPO": {"loss_type": "dr_grpo", "epsilon": 0.2, "scale_rewards": "none"},
    "GSPO": {
        "loss_type": "grpo",
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
        "importance_sampling_level": "sequence",
    },
    "CISPO": {"loss_type": "cispo", "epsilon_high": 5.0},  # of the ratio, not of 1 + it
    "SAPO": {
        "loss_type": "sapo",
        "sapo_temperature_pos": 1.0,
        "sapo_temperature_neg": 1.05,
    },
}


# --- settings -------------------------------------------------------------------------


def grpo(
    algorithm: str,
    config: RLConfig = DEFAULT,
    *,
    prompts: int,
    updates: int,
    lr: float,
) -> Settings:
    """Arguments of TRL's `GRPOConfig` for a run of `lib.on_policy.train`.

    `algorithm` is a name of LOSSES, `prompts` how many an update asks. beta is handed
    over for GRPO alone: the others' penalty is in the reward, which TRL does not have.
    """
    require.one_of("algorithm", algorithm, tuple(LOSSES))
    require.count("prompts", prompts)
    require.count("updates", updates)
    require.positive("lr", lr)
    if config.beta and algorithm != "GRPO":
        wanted = f"0 for {algorithm}: TRL's penalty is in the loss"
        require.refuse("config.beta", config.beta, wanted)
    return {
        **FIT,
        "scale_rewards": "group",  # credit over the group's deviation, plus 1e-4
        **LOSSES[algorithm],
        "learning_rate": lr,
        "max_steps": updates,
        "num_generations": config.group,
        "per_device_train_batch_size": prompts * config.group,  # on one process
        "steps_per_generation": 1,  # all answers in one update
        "num_iterations": config.epochs,
        "max_completion_length": config.max_tokens,  # Dr. GRPO divides by it
        "temperature": config.temperature,  # of drawing and of scoring, as here
        "top_p": 1.0,
        "top_k": 0,
        "beta": config.beta,
        "use_bias_correction_kl": False,  # TRL's default weights k3 by the ratio
        "mask_truncated_completions": False,  # what was cut off counts as it stands
        "shuffle_dataset": False,  # `prompts` are in the order of the updates
    }


def dpo(*, beta: float = 0.1, epochs: int = 1, batch: int = 32, lr: float) -> Settings:
    """Arguments of TRL's `DPOConfig` for `lib.direct.align` with `preference.dpo`."""
    require.non_negative("beta", beta)
    return {
        **_supervised(epochs, batch, lr),
        "loss_type": ["sigmoid"],
        "beta": beta,
    }


def sft(*, epochs: int = 3, batch: int = 32, lr: float) -> Settings:
    """Arguments of TRL's `SFTConfig` for `lib.sft.instruct`."""
    told = _supervised(epochs, batch, lr)
    told.pop("disable_dropout")  # SFT has no such setting: set it in the model's config
    return {
        **told,
        "loss_type": "nll",
        "completion_only_loss": True,  # answers, not questions
        "packing": False,  # one demonstration a row
    }


def _supervised(epochs: int, batch: int, lr: float) -> Settings:
    require.count("epochs", epochs)
    require.count("batch", batch)
    require.positive("lr", lr)
    return {
        **FIT,
        "learning_rate": lr,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch,
        "max_length": None,  # TRL's default cuts at 1,024 tokens without a word
    }


# --- data -----------------------------------------------------------------------------


def prompts(ask: TaskSampler, *, updates: int) -> "Dataset":
    """The tasks of so many updates, one after the other, as TRL's prompts.

    Beside "prompt" each row has a task's fields, so that a reward can see the answer.
    """
    require.count("updates", updates)
    tasks = [task for update in range(updates) for task in ask(update)]
    rows = [{"prompt": task.prompt, **dataclasses.asdict(task)} for task in tasks]
    return _need("datasets").Dataset.from_list(rows)


def pairs(
    asked: Sequence[Task], chosen: Sequence[str], rejected: Sequence[str]
) -> "Dataset":
    """Pairs of texts for `DPOTrainer`, which adds end-of-text to each."""
    each = zip(asked, chosen, rejected, strict=True)
    rows = [
        {"prompt": task.prompt, "chosen": _spaced(a), "rejected": _spaced(b)}
        for task, a, b in each
    ]
    return _need("datasets").Dataset.from_list(rows)


def demonstrations(shown: Sequence[tuple[Task, str]]) -> "Dataset":
    """Demonstrations for `SFTTrainer`, which adds end-of-text to each."""
    rows = [{"prompt": t.prompt, "completion": _spaced(text)} for t, text in shown]
    return _need("datasets").Dataset.from_list(rows)


def _spaced(text: str) -> str:
    """As `lib.sft.written` writes it: an answer begins with a space."""
    return text if text.startswith(" ") else f" {text}"


# --- reward and tokenizer -------------------------------------------------------------


def reward_function(
    reward: Reward, *, tokenizer: Tokenizer, kind: type = Task
) -> Callable[..., list[float]]:
    """A reward of the book as TRL calls it: lists of an answer each, numbers back.

    Answers are read from the token ids, so that an end that was drawn is told from an
    answer that was cut off. `kind` is the record that the rows of `prompts` were.
    """
    names = [field.name for field in dataclasses.fields(kind)]

    def judged(
        *, completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        fields = (columns[name] for name in names)
        asked = [kind(*each) for each in zip(*fields, strict=True)]
        told = [tokenizer.encode(task.prompt) for task in asked]
        rollout = of_tokens(
            [[tokenizer.begin, *ids] for ids in told],
            completion_ids,
            end=tokenizer.end,
            pad=tokenizer.pad,
        )
        return judge(reward, asked, rollout).tolist()

    judged.__name__ = getattr(reward, "__name__", "reward")  # TRL logs it by name
    return judged


def fast_tokenizer(tokenizer: Tokenizer) -> "PreTrainedTokenizerFast":
    """The book's tokenizer as one of transformers': the same ids, `begin` in front.

    One difference is by design of transformers: a text that spells "<|end|>" becomes
    that token. Texts of a reader are to be cleaned of it first.
    """
    made, fast = _need("tokenizers"), _need("transformers").PreTrainedTokenizerFast
    ids = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    core = made.Tokenizer(made.models.WordLevel(ids, unk_token=CONTROL[0]))
    cut = made.Regex(tokenizer._cut.pattern)
    core.pre_tokenizer = made.pre_tokenizers.Split(cut, behavior="isolated")
    core.decoder = made.decoders.Fuse()
    pad, begin, end = CONTROL
    core.post_processor = made.processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.begin)]
    )
    return fast(tokenizer_object=core, pad_token=pad, bos_token=begin, eos_token=end)


def _need(package: str) -> ModuleType:
    """A package that only some readers have, or one line that says how to get it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        line = f"{package} is missing: pip install -r requirements-trl.txt"
        raise ModuleNotFoundError(line) from error
