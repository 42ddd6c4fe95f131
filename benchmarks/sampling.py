"""Sampling from a tiny language model: `complete` beside transformers' `generate`.

The same weights (a Llama), the same prompts (32 random tokens), the same number of new
tokens (32: nothing ever ends a completion), temperature 1, no filter, one thread. Both
return tokens; the book's `complete` also returns their log-probabilities. With groups,
eight completions share a prompt; `generate` is given each prompt eight times, which is
what its num_return_sequences does. All take turns, round by round, in one process.
Run from the repository's root: python -m benchmarks.sampling
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch
import transformers

from benchmarks.llama import llama
from lib.models.transformer import Config, Transformer
from lib.sampling import complete

PROMPT, NEW, GROUP = 32, 32, 8
END = 0  # its logit is pushed to where no draw reaches it
SIZES = {
    "4 × 128": Config(64, context=64, layers=4, width=128, heads=4, hidden=344),
    "6 × 256": Config(64, context=64, layers=6, width=256, heads=8, hidden=688),
}


class Endless(torch.nn.Module):
    """A policy whose `END` is never drawn, so that all completions are equally long."""

    def __init__(self, policy: Transformer) -> None:
        super().__init__()
        self.policy = policy

    def prefill(self, *given, **knobs):  # noqa: ANN002, ANN003, ANN201
        logits, cache = self.policy.prefill(*given, **knobs)
        logits[:, END] = -torch.inf
        return logits, cache

    def extend(self, tokens, cache):  # noqa: ANN001, ANN201
        logits = self.policy.extend(tokens, cache)
        logits[:, END] = -torch.inf
        return logits


def contestants(config: Config, batch: int) -> dict[str, Callable[[], None]]:
    """name -> a function that makes batch × NEW new tokens."""
    ours = Transformer(config, generator=torch.Generator().manual_seed(1))
    theirs = llama(ours)
    theirs.generation_config.eos_token_id = None  # never stop
    draws = torch.Generator().manual_seed(2)
    prompts = torch.randint(1, config.vocabulary, (batch, PROMPT), generator=draws)
    with torch.no_grad():
        apart = (ours(prompts) - theirs(prompts).logits).abs().max().item()
    assert apart < 1e-4, f"not the same model: logits differ by {apart}"
    endless = Endless(ours)

    def book(group: int) -> None:
        rows = prompts[: batch // group].tolist()
        knobs = {"end": END, "max_tokens": NEW, "generator": draws, "group": group}
        assert complete(endless, rows, **knobs).lengths.sum() == batch * NEW

    def generate(group: int, **knobs: str) -> None:
        rows = prompts[: batch // group].repeat_interleave(group, 0)
        knobs |= {"do_sample": True, "top_k": 0, "max_new_tokens": NEW}
        knobs |= {"attention_mask": torch.ones_like(rows), "pad_token_id": 0}
        assert theirs.generate(rows, **knobs).shape == (batch, PROMPT + NEW)

    return {
        "generate": lambda: generate(1),
        "book": lambda: book(1),
        "generate, static cache": lambda: generate(1, cache_implementation="static"),
        f"book, groups of {GROUP}": lambda: book(GROUP),
        f"generate, groups of {GROUP}": lambda: generate(GROUP),
    }


def seconds(run: Callable[[], None]) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    """Every size and batch, all contestants in turns, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    print(f"{platform.machine()}, Python {platform.python_version()}", end="")
    for package in ("torch", "transformers"):
        print(f", {package} {version(package)}", end="")
    print("\n\n| model | batch | who | tokens per CPU s | × generate, same grouping |")
    print("|---|---|---|---|---|")
    for size in asked.sizes:
        for batch in asked.batches:
            runs = contestants(SIZES[size], batch)
            spent: dict[str, list[float]] = {name: [] for name in runs}
            for turn in range(asked.rounds + 1):
                for name, run in runs.items():
                    taken = seconds(run)
                    if turn:  # the first is for warming up
                        spent[name].append(taken)
                print(f"{size}, {batch}: round {turn}", file=sys.stderr, flush=True)
            speed = {n: batch * NEW / statistics.median(s) for n, s in spent.items()}
            for name, value in speed.items():
                grouped = f", groups of {GROUP}" if "groups" in name else ""
                ratio = value / speed[f"generate{grouped}"]
                print(f"| {size} | {batch} | {name} | {value:,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
