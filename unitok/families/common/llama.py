"""Decoders of the Llama type, as transformers stores them: their settings, the names of weights."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from reprlib import repr as brief
from typing import Any

from unitok.checkpoints.settings import check_settings, real, section, whole
from unitok.nn.config import DecoderConfig

LLAMA = DecoderConfig(  # what the Llama class of transformers takes for absent settings
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    max_positions=2048,
)

READ = frozenset(
    """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings rms_norm_eps rope_theta rope_parameters
    rope_scaling tie_word_embeddings""".split()
)
ROPE_READ = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def read_decoder(
    config: Mapping[str, Any],
    where: str,
    absent: DecoderConfig,
    model_type: str,
    also: Collection[str] = (),
) -> DecoderConfig:
    """The settings of a Llama-type decoder.

    absent: what holds for absent settings, as transformers' class of that family defines it.
    model_type: of that class. also: further settings that the caller reads itself.

    Raises:
        ValueError: rope scaling, quantisation, biases or another setting that we do not do or do
            not know; a value of the wrong type.
    """
    check_settings(config, where, {*READ, *also}, model_type=model_type)
    stated = {key: value for key, value in config.items() if value is not None}

    def size(key: str, default: int) -> int:
        # Null is as good as absent where transformers works the number out of others.
        is_derived = key in ("head_dim", "num_key_value_heads")
        return whole(stated if is_derived else config, key, default, where)

    hidden = size("hidden_size", absent.hidden_size)
    heads = size("num_attention_heads", absent.heads)
    head_dim = size("head_dim", hidden // heads)
    if head_dim % 2:
        raise ValueError(f"{where}: heads of {head_dim} numbers cannot be rotated in pairs")
    return replace(
        absent,
        vocab_size=size("vocab_size", absent.vocab_size),
        hidden_size=hidden,
        intermediate_size=size("intermediate_size", absent.intermediate_size),
        layers=size("num_hidden_layers", absent.layers),
        heads=heads,
        kv_heads=size(
            "num_key_value_heads", heads if absent.heads == absent.kv_heads else absent.kv_heads
        ),
        head_dim=head_dim,
        max_positions=size("max_position_embeddings", absent.max_positions),
        rope_theta=read_rope_theta(config, where, absent.rope_theta),
        norm_eps=real(config, "rms_norm_eps", absent.norm_eps, where),
    )


def read_rope_theta(config: Mapping[str, Any], where: str, absent: float) -> float:
    """The base of the rotary frequencies; ValueError if they are scaled in any way."""
    theta = real(config, "rope_theta", absent, where)
    for key in ("rope_scaling", "rope_parameters"):
        rope = section(config, key, where)
        is_plain = rope.get("rope_type", rope.get("type", "default")) == "default"
        if not is_plain or rope.keys() - ROPE_READ:
            raise ValueError(f"{where}: rope scaling {brief(dict(rope))} is not supported")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(f"{where}: a partial rotary embedding is not supported")
        theta = real(rope, "rope_theta", theta, f"{key} of {where}")
    return float(theta)


def llama_names(trunk: str, head: str) -> tuple[tuple[str, str], ...]:
    """Our names of a decoder's parameters -> a checkpoint's, for `unitok.checkpoints.weights.renaming`.

    trunk, head: what the decoder and its head are called there.
    """
    layer = rf"{trunk}.layers.\1."
    return (
        (r"^text_embedding\.", f"{trunk}.embed_tokens."),
        (r"^text_head\.", f"{head}."),
        (r"^decoder\.norm\.", f"{trunk}.norm."),
        (r"^decoder\.blocks\.(\d+)\.attention_norm\.", f"{layer}input_layernorm."),
        (r"^decoder\.blocks\.(\d+)\.mlp_norm\.", f"{layer}post_attention_layernorm."),
        (r"^decoder\.blocks\.(\d+)\.attention\.(\w)\.", rf"{layer}self_attn.\2_proj."),
        (r"^decoder\.blocks\.(\d+)\.mlp\.(\w+)\.", rf"{layer}mlp.\2_proj."),
    )
