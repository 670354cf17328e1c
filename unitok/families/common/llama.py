"""Decoders of the Llama type, as transformers stores them: settings and names of weights."""

from collections.abc import Collection
from dataclasses import replace

from unitok.checkpoints.settings import Settings
from unitok.nn.config import DecoderConfig
from unitok.shown import shown

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
LLAMA_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "norm_eps",
}
ALSO_READ = ("rope_theta", "rope_parameters", "rope_scaling", "tie_word_embeddings")
ROPE_READ = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def read_decoder(
    config: Settings, absent: DecoderConfig, model_type: str, also: Collection[str] = ()
) -> DecoderConfig:
    """Read the settings of a Llama-type decoder.

    Args:
        config: The settings.
        absent: What holds for absent ones, as transformers' class of that family defines it.
        model_type: The name of that class.
        also: Further settings that the caller reads itself.

    Raises:
        ValueError: Rope scaling, quantisation, biases or other maths that we do not do; a value of
            the wrong type.
    """
    config.check({*LLAMA_FIELDS, *ALSO_READ, *also}, model_type=model_type)
    heads = config.int_setting("num_attention_heads", absent.heads)
    derived = {
        "head_dim": config.int_setting("hidden_size", absent.hidden_size) // heads,
        "num_key_value_heads": heads if absent.heads == absent.kv_heads else absent.kv_heads,
    }
    # Null is as good as absent where transformers works the number out of others.
    stated = {k: v for k, v in config.data.items() if v is not None or k not in derived}
    sizes = replace(config, data=derived | stated).fields(LLAMA_FIELDS, absent)
    decoder = replace(absent, **sizes, rope_theta=read_rope_theta(config, absent.rope_theta))
    if decoder.head_dim % 2:
        raise ValueError(
            f"{config.where}: heads of {decoder.head_dim} numbers cannot be rotated in pairs"
        )
    return decoder


def read_rope_theta(config: Settings, absent: float) -> float:
    """The base of the rotary frequencies; ValueError if they are scaled in any way."""
    theta = config.float_setting("rope_theta", absent)
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.section(key)
        is_plain = rope.data.get("rope_type", rope.data.get("type", "default")) == "default"
        if not is_plain or rope.data.keys() - ROPE_READ:
            raise ValueError(
                f"{config.where}: rope scaling {shown(dict(rope.data))} is not supported"
            )
        if rope.data.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(f"{config.where}: a partial rotary embedding is not supported")
        theta = rope.float_setting("rope_theta", theta)
    return float(theta)


def llama_names(trunk: str, head: str) -> tuple[tuple[str, str], ...]:
    """Our names of a decoder's parameters -> a checkpoint's, for `renaming`.

    Args:
        trunk: What the decoder is called there.
        head: What its head is called there.
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
