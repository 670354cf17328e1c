"""Reading config.json so that nothing in it is silently ignored.

A setting is read, or must have the one value whose maths we do, or is known not to matter; any
other is warned of, since we cannot know what it changes.
"""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from unitok.config import DecoderConfig

# What transformers writes into any config and what is of use in training or in its own code alone.
HARMLESS = frozenset(
    """_name_or_path _attn_implementation architectures attention_dropout auto_map bos_token_id cls
    dropout dtype eos_token_id initializer_factor initializer_range is_encoder_decoder
    model_type name pad_token_id pretraining_tp problem_type return_dict output_attentions
    output_hidden_states processor_class tokenizer_class torch_dtype transformers_version
    unk_token_id sep_token_id use_cache chunk_size_feed_forward id2label label2id is_decoder
    add_cross_attention cross_attention_hidden_size decoder_start_token_id finetuning_task
    gradient_checkpointing pruned_heads prefix suffix task_specific_params tf_legacy_loss
    torchscript use_bfloat16 tie_encoder_decoder bad_words_ids begin_suppress_tokens
    diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty
    max_length min_length no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_scores remove_invalid_values repetition_penalty
    return_dict_in_generate suppress_tokens temperature top_k top_p typical_p
    attention_probs_dropout_prob hidden_dropout_prob layer_norm_type""".split()
)

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "hidden_act": ("silu",),
    "sliding_window": (None,),
    "use_sliding_window": (False,),
    "layer_types": (None,),
    "partial_rotary_factor": (None, 1.0),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "residual_multiplier": (None, 1.0),
    "embedding_multiplier": (None, 1.0),
    "attention_multiplier": (None,),
}

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


def check_settings(
    config: Mapping[str, Any],
    where: str,
    read: Collection[str],
    neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL,
) -> None:
    """Raise ValueError for a setting whose maths we do not do; warn of one that we do not know.

    where: the part of config.json, for messages. read: the settings that the caller reads itself.
    """
    for key, values in neutral.items():
        if key in config and key not in read and config[key] not in values:
            if key == "quantization_config":
                raise ValueError(f"{where}: {key} is set; load the unquantised checkpoint instead")
            raise ValueError(
                f"{where}: {key} = {config[key]!r} is not supported; it must be {values[-1]!r}"
            )
    if unknown := sorted(config.keys() - set(read) - neutral.keys() - HARMLESS):
        names = ", ".join(unknown)
        warnings.warn(
            f"{where}: unitok does not know the setting {names}; if it changes the maths, results "
            "will be wrong",
            UserWarning,
            stacklevel=2,
        )


def read_decoder(
    config: Mapping[str, Any],
    where: str,
    absent: DecoderConfig,
    also: Collection[str] = (),
) -> DecoderConfig:
    """The settings of a Llama-type decoder.

    absent: what holds for absent settings, as transformers' class of that family defines it.
    also: further settings that the caller reads itself.

    Raises:
        ValueError: rope scaling, quantisation, biases or another setting that we do not do.
    """
    check_settings(config, where, {*READ, *also})
    hidden = config.get("hidden_size", absent.hidden_size)
    heads = config.get("num_attention_heads", absent.heads)
    same_heads = absent.heads == absent.kv_heads
    kv_heads = config.get("num_key_value_heads")
    if kv_heads is None:
        kv_heads = heads if same_heads else absent.kv_heads
    return replace(
        absent,
        vocab_size=config.get("vocab_size", absent.vocab_size),
        hidden_size=hidden,
        intermediate_size=config.get("intermediate_size", absent.intermediate_size),
        layers=config.get("num_hidden_layers", absent.layers),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=config.get("head_dim") or hidden // heads,
        max_positions=config.get("max_position_embeddings", absent.max_positions),
        rope_theta=read_rope_theta(config, where, absent.rope_theta),
        norm_eps=config.get("rms_norm_eps", absent.norm_eps),
    )


def read_rope_theta(config: Mapping[str, Any], where: str, absent: float) -> float:
    """The base of the rotary frequencies; ValueError if they are scaled in any way."""
    theta = config.get("rope_theta") or absent
    for rope in (config.get("rope_scaling") or {}, config.get("rope_parameters") or {}):
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError(f"{where}: rope scaling {dict(rope)} is not supported")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(f"{where}: a partial rotary embedding is not supported")
        theta = rope.get("rope_theta", theta)
    return float(theta)
