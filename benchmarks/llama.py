"""The book's transformer in transformers' clothes: the same weights in its Llama.

The benchmark of sampling races the two; a test holds that they give the same logits.
"""

import transformers

from lib.models.transformer import Transformer


def llama(ours: Transformer) -> transformers.LlamaForCausalLM:
    """The same weights, in the same dtype, in transformers' Llama."""
    size = ours.config
    config = transformers.LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.context,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    dtype = ours.embedding.weight.dtype
    theirs = transformers.LlamaForCausalLM(config).to(dtype).eval()
    weights = {
        "model.embed_tokens.weight": ours.embedding.weight,
        "model.norm.weight": ours.norm.weight,
        "lm_head.weight": ours.embedding.weight,
    }
    for i, block in enumerate(ours.blocks):
        gate, up = block.wide.weight.chunk(2)
        names = {
            "input_layernorm": block.norm1.weight,
            "post_attention_layernorm": block.norm2.weight,
            "self_attn.o_proj": block.out.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.down.weight,
        }
        for name, part in zip("qkv", block.qkv.weight.chunk(3), strict=True):
            names[f"self_attn.{name}_proj"] = part
        weights |= {f"model.layers.{i}.{n}.weight": w for n, w in names.items()}
    theirs.load_state_dict(weights)
    return theirs
