"""One update of a tiny language model: the book's loops beside TRL's trainers.

The same architecture and weights (a Llama of 4 × 128), vocabulary 64, prompts of 32
tokens and answers of 32, batches of 64, float32, one thread; both optimise with AdamW
at norm 1. SFT: 64 answers. DPO: 64 pairs. GRPO and RLOO: 8 prompts, 8 answers to each,
sampled, rewarded and learned from once; nothing ends an answer early. Both take turns
of a few updates in one process; an update is timed from its end to the end of the next,
with the collation of its batch, and without any tokenisation beforehand.
Run from the repository's root: python -m benchmarks.training
"""

import argparse
import contextlib
import copy
import io
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import datasets
import torch
import transformers
import trl
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from benchmarks.llama import llama
from lib.algorithms import ALGORITHMS
from lib.direct import with_reference
from lib.logps import action_logps
from lib.losses.preference import dpo
from lib.losses.supervised import sft
from lib.models.transformer import Config, Transformer
from lib.on_policy import PolicyWithCritic, RLConfig, loss_of, make_batch
from lib.preference_data import PreferencePairs, pair_logps
from lib.rollout import Batch, Rollout
from lib.sampling import complete
from lib.train import fit, minibatches

PROMPT, ANSWER, BATCH, GROUP, LR = 32, 32, 64, 8, 1e-4
SIZE = Config(64, context=64, layers=4, width=128, heads=4, hidden=344)
PAD, END = 0, 1
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
WARM, STEPS = 2, 5  # updates of a turn: before the clock counts, and then
BETA = {"GRPO": 0.0, "RLOO": 0.05}  # TRL's defaults; the latter needs a reference
Turn = Callable[[], list[float]]  # CPU seconds of each update


class Endless(Transformer):
    """A policy that never ends: `END` is not drawn."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = super().logits(hidden)
        end = torch.arange(SIZE.vocabulary) == END
        return scores.masked_fill(end, -torch.inf)


def text(draw: random.Random, letters: int) -> str:
    return "".join(draw.choices(LETTERS, k=letters))


def ids(letters: str) -> list[int]:
    return [LETTERS.index(letter) + 2 for letter in letters]


def gaps(stamps: list[float]) -> list[float]:
    """Seconds from the end of each update to the end of the next, but for the first."""
    return [b - a for a, b in zip(stamps[WARM - 1 :], stamps[WARM:])]


# --- the book -------------------------------------------------------------------------


def rows(prompts: list[str], answers: list[str]) -> Rollout:
    """Texts as a record: 32 tokens, 31 more and an end."""
    tokens = torch.tensor(
        [[*ids(p), *ids(a), END] for p, a in zip(prompts, answers, strict=True)]
    )
    mask = (torch.arange(tokens.shape[1] - 1) >= PROMPT - 1).expand(len(tokens), -1)
    nothing = torch.zeros(mask.shape)
    return Rollout(
        states=tokens[:, :-1],
        actions=tokens[:, 1:],
        logps=nothing,
        rewards=nothing,
        mask=mask,
        last_states=tokens[:, -1],
        terminated=torch.ones(len(tokens), dtype=torch.bool),
    )


def turn(model: torch.nn.Module, batches: Callable, loss_fn: Callable) -> list[float]:
    """One turn of the book's loop."""
    stamps: list[float] = []

    def timed(stream: Iterable) -> Iterator:
        for batch in stream:
            stamps.append(time.process_time())
            yield batch
        stamps.append(time.process_time())

    fit(model, timed(batches()), loss_fn, lr=LR)
    return gaps(stamps[1:])


def shuffled(count: int) -> Iterator[torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    yield from minibatches(count, epochs=1, batch=BATCH, generator=draw)


def book_sft(model: Transformer, data: dict[str, list[str]]) -> Turn:
    shown = rows(data["prompt"], data["chosen"])

    def loss_fn(model: Transformer, some: torch.Tensor):  # noqa: ANN202
        batch = shown.rows(some)
        return sft(action_logps(model, batch), batch.mask)

    return partial(turn, model, partial(shuffled, len(shown)), loss_fn)


def book_dpo(model: Transformer, data: dict[str, list[str]], *, prepared: bool) -> Turn:
    """The reference is asked once, beforehand, or again in each update."""
    sides = [rows(data["prompt"], data[side]) for side in ("chosen", "rejected")]
    gold = torch.zeros(len(sides[0]))
    pairs = PreferencePairs([None] * len(sides[0]), *sides, gold, gold)
    reference = copy.deepcopy(model)

    def each_time(model: Transformer, some: torch.Tensor):  # noqa: ANN202
        batch = pairs.rows(some)
        with torch.no_grad():
            ref = pair_logps(reference, batch)
        return dpo(*pair_logps(model, batch), *ref)

    course = with_reference(pairs, dpo, reference, per_token=False)
    loss_fn = course.loss if prepared else each_time
    return partial(turn, model, partial(shuffled, len(pairs)), loss_fn)


def book_rl(model: Transformer, data: dict[str, list[str]], *, name: str) -> Turn:
    algorithm, learner = ALGORITHMS[name], PolicyWithCritic(model)
    reference = copy.deepcopy(model)
    knobs = RLConfig(group=GROUP, beta=BETA[name], max_tokens=ANSWER)
    draw, good = torch.Generator().manual_seed(4), ids("a")[0]
    prompts, count = [ids(p) for p in data["prompt"]], BATCH // GROUP
    written = {"end": END, "max_tokens": ANSWER, "group": GROUP, "generator": draw}

    def stream() -> Iterator[Batch]:
        for step in range(WARM + STEPS + 1):
            asked = prompts[step * count : (step + 1) * count]
            rollout = complete(model, asked, **written)
            assert rollout.lengths.sum() == BATCH * ANSWER
            hits = ((rollout.actions == good) & rollout.mask).sum(1) / ANSWER
            seen = hits.double().reshape(-1, GROUP)
            yield make_batch(learner, algorithm, rollout, seen, reference, knobs)

    return partial(turn, learner, stream, loss_of(algorithm))


# --- TRL ------------------------------------------------------------------------------


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A letter a token."""
    vocabulary = {"<pad>": PAD, "<end>": END, **{c: ids(c)[0] for c in LETTERS}}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", eos_token="<end>"
    )


class Stopwatch(transformers.TrainerCallback):
    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_step_end(self, *given, **more) -> None:  # noqa: ANN002, ANN003
        self.stamps.append(time.process_time())


def trl_turn(trainer: transformers.Trainer, watch: Stopwatch) -> list[float]:
    watch.stamps.clear()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return gaps(watch.stamps)


def peer(kind: str, start: Transformer, data: dict, defaults: bool, **more) -> Turn:  # noqa: ANN003
    """A trainer of TRL as a user without a GPU would set it, or with its defaults."""
    folder = tempfile.mkdtemp()
    llama(start).save_pretrained(folder)  # where a reference is read from again
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    texts = {"prompt": data["prompt"]}
    if kind == "SFT":
        texts["completion"] = data["chosen"]
    elif kind == "DPO":
        texts |= {side: data[side] for side in ("chosen", "rejected")}
        more["max_length"] = PROMPT + ANSWER
    else:
        more |= {"num_generations": GROUP, "max_completion_length": ANSWER}
        more |= {"beta": BETA[kind], "generation_kwargs": {"min_new_tokens": ANSWER}}
    if not defaults:
        more |= {"bf16": False, "gradient_checkpointing": False}
    config = getattr(trl, f"{kind}Config")(
        output_dir=folder,
        per_device_train_batch_size=BATCH,
        max_steps=WARM + STEPS,
        learning_rate=LR,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **more,
    )
    judge = {"reward_funcs": rewarded} if kind in BETA else {}
    watch = Stopwatch()
    trainer = getattr(trl, f"{kind}Trainer")(
        model,
        args=config,
        train_dataset=datasets.Dataset.from_dict(texts),
        processing_class=tokenizer(),
        callbacks=[watch],
        **judge,
    )
    return partial(trl_turn, trainer, watch)


def rewarded(completions: list[str], **more) -> list[float]:  # noqa: ANN003
    return [each.count("a") / ANSWER for each in completions]


# --- in turns -------------------------------------------------------------------------


def contestants(kind: str, defaults: bool) -> dict[str, Turn]:
    """name -> a turn; of each pair the first is TRL's."""
    start = Endless(SIZE, generator=torch.Generator().manual_seed(1))
    draw, count = random.Random(2), BATCH * (WARM + STEPS + 1)
    sizes = {"prompt": PROMPT, "chosen": ANSWER - 1, "rejected": ANSWER - 1}
    data = {n: [text(draw, size) for _ in range(count)] for n, size in sizes.items()}
    plain = Transformer(SIZE, generator=torch.Generator().manual_seed(1))
    theirs = partial(peer, kind, plain)
    if kind == "SFT":
        runs = {"TRL": theirs(data, False), "book": book_sft(plain, data)}
    elif kind == "DPO":
        known = {"precompute_ref_log_probs": True}
        runs = {
            "TRL": theirs(data, False),
            "book": book_dpo(copy.deepcopy(plain), data, prepared=False),
            "TRL, reference asked before": theirs(data, False, **known),
            "book, reference asked before": book_dpo(plain, data, prepared=True),
        }
    else:
        ours = book_rl(start, data, name=kind)
        runs = {"TRL": theirs(data, False), "book": ours}
    if defaults:
        runs["TRL, its defaults"] = theirs(data, True)
    return runs


def the_same() -> None:
    """Both sides begin as one model."""
    ours = Transformer(SIZE, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(2, 64, (8, 64), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        apart = (ours(tokens) - llama(ours)(tokens).logits).abs().max().item()
    assert apart < 1e-4, f"not the same model: logits differ by {apart}"


def main() -> None:
    """Every kind of update, all contestants in turns, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kinds = ["SFT", "DPO", "GRPO", "RLOO"]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--defaults", action="store_true", help="and TRL's defaults")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    the_same()
    print(f"{platform.machine()}, Python {platform.python_version()}", end="")
    for package in ("torch", "transformers", "trl"):
        print(f", {package} {version(package)}", end="")
    print(
        "\n\n| update | who | samples per CPU s | × TRL | quarters |\n|---|---|---|---|---|"
    )
    for kind in asked.kinds:
        runs = contestants(kind, asked.defaults)
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(asked.rounds):
            for name, run in runs.items():
                spent[name] += run()
            print(f"{kind}: round {number + 1}", file=sys.stderr, flush=True)
        peers = [name for name in runs if name.startswith("TRL")]
        for name, taken in spent.items():
            other = name.replace("book", "TRL") if name not in peers else "TRL"
            middle = statistics.median(taken)
            ratio = statistics.median(spent[other]) / middle
            low, _, high = (BATCH / x for x in statistics.quantiles(taken, n=4))
            print(
                f"| {kind} | {name} | {BATCH / middle:,.0f} | {ratio:.2f} "
                f"| {high:,.0f} – {low:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
