"""Reading the JSON files of a checkpoint so that nothing in them is silently ignored.

A setting is read, or must have the one value whose maths we do, or is known not to matter; any
other is an error, since we cannot know what it changes. What is read must have the right type.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from unitok.checkpoints.folders import read_json

# What transformers writes into any config and what is of use in training or in its own code alone.
# A decoder reads its tie_word_embeddings itself; parts that hold no head have it as well.
HARMLESS = frozenset(
    """_name_or_path _attn_implementation _attn_implementation_autoset _attn_implementation_internal
    _commit_hash _from_model_config attn_implementation architectures attention_dropout auto_map
    bos_token_id cls dropout dtype eos_token_id initializer_factor initializer_range
    is_encoder_decoder name pad_token_id pretraining_tp problem_type return_dict
    output_attentions output_hidden_states processor_class tie_word_embeddings tokenizer_class
    torch_dtype transformers_version unk_token_id sep_token_id use_cache chunk_size_feed_forward
    id2label label2id is_decoder add_cross_attention cross_attention_hidden_size
    decoder_start_token_id finetuning_task gradient_checkpointing pruned_heads prefix suffix
    task_specific_params tf_legacy_loss torchscript use_bfloat16 tie_encoder_decoder bad_words_ids
    begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty
    max_length min_length no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_scores remove_invalid_values repetition_penalty
    return_dict_in_generate suppress_tokens temperature top_k top_p typical_p
    attention_probs_dropout_prob hidden_dropout_prob layer_norm_type""".split()
)

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "hidden_act": ("silu",),
    "sliding_window": (None,),
    "use_sliding_window": (None, False),
    "layer_types": (None,),
    "partial_rotary_factor": (None, 1.0),
    "rope_parameters": (None,),
    "rope_scaling": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "residual_multiplier": (None, 1.0),
    "embedding_multiplier": (None, 1.0),
    "attention_multiplier": (None,),
}


def check_settings(
    config: Mapping[str, Any],
    where: str,
    read: Collection[str],
    neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL,
    model_type: str | None = None,
) -> None:
    """Raise ValueError for a setting whose maths we do not do, or that we do not know.

    where: the file, and the part of it, for messages. read: the settings that the caller reads
    itself. model_type: what this setting must be if it is there.
    """
    stated = config.get("model_type")
    if stated not in (None, model_type):
        raise ValueError(f"{where}: model_type is {brief(stated)}, not {model_type!r}")
    for key, values in neutral.items():
        if key in config and key not in read and config[key] not in values:
            if key == "quantization_config":
                raise ValueError(f"{where}: {key} is set; load the unquantised checkpoint instead")
            raise ValueError(
                f"{where}: {key} = {brief(config[key])} is not supported; it must be {values[-1]!r}"
            )
    known = {*read, *neutral, *HARMLESS, "model_type"}
    if unknown := sorted(config.keys() - known):
        names = ", ".join(unknown[:5]) + (", ..." if unknown[5:] else "")
        raise ValueError(
            f"{where} has {names}, which unitok does not know; take it out if it does not matter"
        )


# --- values --------------------------------------------------------------------------------------


def section(config: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """An object inside an object; empty if it is absent or null.

    Raises:
        ValueError: it is something else.
    """
    value = config.get(key)
    if not isinstance(value, Mapping | None):
        raise ValueError(f"{where}: {key} must be an object, not {brief(value)}")
    return value or {}


def whole(config: Mapping[str, Any], key: str, absent: int, where: str) -> int:
    """A setting that is a whole number above 0; ValueError if it is not."""
    value = config.get(key, absent)
    if not is_whole(value, 1):
        raise ValueError(f"{where}: {key} must be a whole number above 0, not {brief(value)}")
    return value


def wholes(
    config: Mapping[str, Any], key: str, absent: Collection[int], where: str, least: int = 1
) -> tuple[int, ...]:
    """A setting that is a list of whole numbers of at least `least`; ValueError if it is not."""
    value = config.get(key, absent)
    if not isinstance(value, list | tuple) or not all(is_whole(v, least) for v in value):
        raise ValueError(f"{where}: {key} must be a list of whole numbers, not {brief(value)}")
    return tuple(value)


def is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def real(config: Mapping[str, Any], key: str, absent: float, where: str) -> float:
    """A setting that is a number above 0; ValueError if it is not."""
    value = config.get(key, absent)
    if not is_real(value) or value <= 0:
        raise ValueError(f"{where}: {key} must be a number above 0, not {brief(value)}")
    return value


def is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flag(config: Mapping[str, Any], key: str, absent: bool, where: str) -> bool:
    """A setting that is true or false, null for the absent value; ValueError if it is not."""
    value = config.get(key)
    if not isinstance(value, bool | None):
        raise ValueError(f"{where}: {key} must be true or false, not {brief(value)}")
    return absent if value is None else value


# --- preprocessor_config.json --------------------------------------------------------------------

# What an image processor has for its own code, or what we do to any picture.
PIXELS_HARMLESS = """image_processor_type feature_extractor_type background_color do_convert_rgb
    data_format input_data_format device return_tensors disable_grouping default_to_square
    image_seq_length num_image_tokens _valid_processor_keys""".split()
PIXELS_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "do_resize": (None, True),
    "do_rescale": (None, True),
    "do_normalize": (None, True),
    "do_center_crop": (None, False),
    "crop_size": (None,),
    "pad_size": (None,),
}


def read_pixels(folder: Path) -> tuple[Mapping[str, Any], str]:
    """What a folder says of its image processor, and where: inside processor_config.json, as
    transformers 5 writes it and prefers it, or in preprocessor_config.json; empty if in neither."""
    outer, file = folder / "processor_config.json", folder / "preprocessor_config.json"
    if inside := section(read_json(outer, optional=True), "image_processor", str(outer)):
        return inside, f"{outer}: image_processor"
    return read_json(file, optional=True), str(file)


def need_pixels(folder: Path) -> tuple[Mapping[str, Any], str]:
    """As `read_pixels`; FileNotFoundError if neither file is there: a guess would silently change
    what the model sees."""
    data, where = read_pixels(folder)
    return data or read_json(folder / "preprocessor_config.json"), where


def check_pixels(
    data: Mapping[str, Any],
    where: str,
    read: Collection[str],
    neutral: Mapping[str, tuple[Any, ...]],
) -> None:
    """As `check_settings`, of an image processor that resizes, scales and normalises."""
    known = {"rescale_factor", "image_mean", "image_std", *read, *PIXELS_HARMLESS}
    check_settings(data, where, known, {**PIXELS_NEUTRAL, **neutral})


def read_scale(data: Mapping[str, Any], where: str) -> float:
    """What bytes are multiplied with."""
    return real(data, "rescale_factor", 1 / 255, where)


def check_scale(data: Mapping[str, Any], where: str) -> None:
    """Raise ValueError unless bytes come to lie in [0, 1]."""
    if not math.isclose(scale := read_scale(data, where), 1 / 255, rel_tol=1e-6):
        raise ValueError(f"{where}: rescale_factor must be 1/255, not {scale}")


Colour = tuple[float, float, float]


def read_colours(data: Mapping[str, Any], where: str) -> tuple[Colour, Colour]:
    """Mean and standard deviation of each channel, which a file may give once for all.

    Raises:
        ValueError: they are missing (a guess would silently change what the model sees), no
            numbers, or the deviation is not above 0.
    """
    keys = ("image_mean", "image_std")
    if missing := [key for key in keys if data.get(key) is None]:
        raise ValueError(f"{where} has no {' and no '.join(missing)}")
    mean, std = (three(data, key, where) for key in keys)
    if min(std) <= 0:
        raise ValueError(f"{where}: image_std must be above 0, not {brief(data['image_std'])}")
    return mean, std


def three(data: Mapping[str, Any], key: str, where: str) -> Colour:
    value = data[key]
    values = [value] * 3 if is_real(value) else value
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(is_real, values)):
        raise ValueError(f"{where}: {key} must be one number or three, not {brief(value)}")
    return values[0], values[1], values[2]


def read_side(size: object, where: str) -> int:
    """The side of square pictures: a number, or an object with as much height as width.

    Raises:
        ValueError: neither.
    """
    sides = [size]
    if isinstance(size, Mapping):
        sides = [size.get("height"), size.get("width")]
    side = sides[0]
    if not isinstance(side, int) or not is_whole(side, 1) or sides[-1] != side:
        raise ValueError(f"{where}: pictures must be square, of a size in pixels, not {size!r}")
    return side
