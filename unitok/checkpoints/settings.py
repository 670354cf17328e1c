"""Settings of a checkpoint: JSON objects of which nothing is silently ignored.

A setting is read, or must have the one value whose maths we do, or is known not to matter. Of any
other nobody can say what it changes, so it gives a warning, or an error where loading is strict.
"""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unitok.checkpoints.folders import read_json
from unitok.shown import shown
from unitok_engine.user_warnings import warn

# What transformers writes into any config and what is of use in training or in its own code alone.
# A decoder reads its tie_word_embeddings itself; parts that hold no head have it as well.
IGNORED_KEYS = frozenset(
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
    attention_probs_dropout_prob hidden_dropout_prob layer_norm_type model_type""".split()
)

# Settings that change the maths, and the values that leave it as we do it.
REQUIRED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "hidden_act": ("silu",),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "sliding_window", "layer_types"), (None,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (None,)),
    **dict.fromkeys(("attention_bias", "mlp_bias", "use_sliding_window"), (None, False)),
    **dict.fromkeys(("logit_scale", "logits_scaling", "partial_rotary_factor"), (None, 1.0)),
    **dict.fromkeys(("residual_multiplier", "embedding_multiplier"), (None, 1.0)),
    "attention_multiplier": (None,),
}


MAX_INT = 2**24
"""The largest whole number of any setting; sizes that are less absurd are compared with weights."""

MAX_INTS = 16
"""The most numbers in a list, such as one for each level of an image tokenizer."""

MAX_FIELDS: Mapping[str, int] = {
    "layers": 512,
    "res_blocks": 16,
    "max_positions": 2**20,
    "image_size": 4096,
    "min_pixels": 2**22,
    "max_pixels": 2**22,
}
"""The largest value of the fields that no stored tensor bounds, or that are loops."""


@dataclass(frozen=True)
class Settings:
    """A JSON object of a checkpoint, or a section of one.

    Attributes:
        data: What the object holds.
        where: The file, and the section of it, for messages.
        strict: Whether an unknown setting is an error.
        folder: The checkpoint's, which warnings name.
    """

    data: Mapping[str, Any]
    where: str = "config.json"
    strict: bool = False
    folder: str = ""

    def check(
        self,
        read: Collection[str],
        required: Mapping[str, tuple[Any, ...]] = REQUIRED_VALUES,
        model_type: str | None = None,
    ) -> None:
        """Check that nothing is ignored that may matter.

        Args:
            read: The settings that the caller reads itself.
            required: The values that further settings must have if they are there.
            model_type: What this setting must be if it is there.

        Raises:
            ValueError: A setting asks for maths that we do not do, or is unknown and loading is
                strict.
        """
        stated = self.data.get("model_type")
        if stated not in (None, model_type):
            raise ValueError(f"{self.where}: model_type is {shown(stated)}, not {model_type!r}")
        for key, values in required.items():
            if key in self.data and key not in read and self.data[key] not in values:
                raise ValueError(self._refusal(key, values[-1]))
        if unknown := sorted(self.data.keys() - {*read, *required, *IGNORED_KEYS}):
            self._report_unknown(unknown)

    def _refusal(self, key: str, value: object) -> str:
        if key == "quantization_config":
            return f"{self.where}: {key} is set; load the unquantised checkpoint instead"
        stated = shown(self.data[key])
        return f"{self.where}: {key} = {stated} is not supported; it must be {value!r}"

    def _report_unknown(self, keys: list[str]) -> None:
        names = ", ".join(keys[:5]) + (", ..." if keys[5:] else "")
        message = f"{self.where} has {names}, which unitok does not know"
        if self.strict:
            raise ValueError(f"{message}; take it out if it does not matter")
        place = f"{self.folder}: " if self.folder else ""
        text = f"{place}{message}, and ignores; strict loading refuses such a checkpoint"
        warn(text)

    def section(self, key: str, where: str | None = None) -> "Settings":
        """An object inside this one; empty if it is absent or null.

        Raises:
            ValueError: It is something else.
        """
        value = self.data.get(key)
        if not isinstance(value, Mapping | None):
            raise ValueError(f"{self.where}: {key} must be an object, not {shown(value)}")
        return replace(self, data=value or {}, where=where or f"{key} of {self.where}")

    def int_setting(self, key: str, default: int, most: int = MAX_INT) -> int:
        """A whole number above 0 and at most `most`; ValueError if it is something else."""
        value = self.data.get(key, default)
        if not is_int(value, 1):
            raise ValueError(
                f"{self.where}: {key} must be a whole number above 0, not {shown(value)}"
            )
        return self._check_most(key, value, most)

    def scaled_setting(self, key: str, default: float, size: int) -> int:
        """A size times the number above 0 that a setting is, rounded down; at most `MAX_INT`."""
        scaled = self.float_setting(key, default) * size
        self._check_most(key, scaled, MAX_INT)
        return int(scaled)

    def _check_most(self, key: str, value: Any, most: int) -> Any:
        if value > most:
            stated = shown(self.data.get(key))
            raise ValueError(f"{self.where}: {key} = {stated} is too large; the most is {most}")
        return value

    def ints_setting(self, key: str, default: Collection[int], least: int = 1) -> tuple[int, ...]:
        """A list of at most `MAX_INTS` whole numbers from `least` to `MAX_INT`.

        Raises:
            ValueError: It is something else.
        """
        value = self.data.get(key, default)
        if not isinstance(value, list | tuple) or not all(is_int(v, least) for v in value):
            raise ValueError(
                f"{self.where}: {key} must be a list of whole numbers, not {shown(value)}"
            )
        if len(value) > MAX_INTS:
            raise ValueError(
                f"{self.where}: {key} has {len(value)} numbers; the most is {MAX_INTS}"
            )
        self._check_most(key, max(value, default=0), MAX_INT)
        return tuple(value)

    def float_setting(self, key: str, default: float) -> float:
        """A number above 0; ValueError if it is something else."""
        value = self.data.get(key, default)
        if not is_float(value) or value <= 0:
            raise ValueError(f"{self.where}: {key} must be a number above 0, not {shown(value)}")
        return value

    def bool_setting(self, key: str, default: bool) -> bool:
        """True or false, and null for the default; ValueError if it is something else."""
        value = self.data.get(key)
        if not isinstance(value, bool | None):
            raise ValueError(f"{self.where}: {key} must be true or false, not {shown(value)}")
        return default if value is None else value

    def fields(self, names: Mapping[str, str], defaults: object) -> dict[str, Any]:
        """Several settings, as fields of a dataclass.

        Args:
            names: Which setting becomes which field.
            defaults: An instance with what holds for absent settings. The type of its fields is
                the type that the settings must have; text is left for the dataclass to check.

        Raises:
            ValueError: A setting has another type, or is larger than `MAX_FIELDS` or `MAX_INT` say.
        """
        return {
            field: self._typed(key, getattr(defaults, field), MAX_FIELDS.get(field, MAX_INT))
            for key, field in names.items()
        }

    def _typed(self, key: str, default: Any, most: int) -> Any:
        match default:
            case bool():
                return self.bool_setting(key, default)
            case int():
                return self.int_setting(key, default, most)
            case float():
                return self.float_setting(key, default)
            case tuple():
                return self.ints_setting(key, default)
            case _:
                return self.data.get(key, default)


def read_config(folder: Path, strict: bool) -> Settings:
    """The settings of a folder's config.json."""
    return Settings(read_json(folder / "config.json"), strict=strict, folder=str(folder))


def fields_to_json(names: Mapping[str, str], values: object) -> dict[str, Any]:
    """The inverse of `Settings.fields`: fields of a dataclass under the names of settings."""
    stated = {key: getattr(values, field) for key, field in names.items()}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in stated.items()}


def is_int(value: object, least: int) -> bool:
    """Whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_float(value: object) -> bool:
    """Whether a value is a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
