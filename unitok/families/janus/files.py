"""The smaller files of a Janus folder, read and written: how it samples, is asked and named."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.saving import write_json
from unitok.checkpoints.settings import Settings
from unitok.families.common.family import Defaults, with_sampling
from unitok.families.janus.prompts import PLAIN_ROLES, Template
from unitok.precision import name_of, read_cpu_dtype
from unitok.shown import shown

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
QUESTION = "Describe the picture."  # of ours: the papers name none
TOKENIZER_FILES = """tokenizer.json tokenizer.model tokenizer_config.json special_tokens_map.json
    added_tokens.json chat_template.jinja chat_template.json""".split()


def defaults_from_json(generation: Mapping[str, Any], extra: Mapping[str, Any]) -> Defaults:
    """Read the defaults.

    Args:
        generation: generation_config.json, which says how to sample.
        extra: unitok.json, which says what only we know.
    """
    own = Defaults(
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        guidance=5.0,
        question=read_text_of(extra, "question", QUESTION),
        system=read_text_of(extra, "system", SYSTEM),
        known_words=read_known_words(extra),
        cpu_dtype=read_cpu_dtype(extra),
    )
    return with_sampling(own, generation)


OWN_FILE = "unitok.json"
OWN_KEYS = ("question", "system", "known_words", "cpu_dtype", "family")


def read_own_file(folder: Path, strict: bool) -> Mapping[str, Any]:
    """unitok.json, empty if there is none; unknown keys as in any `Settings`."""
    extra = read_json(folder / OWN_FILE, optional=True)
    Settings(extra, OWN_FILE, strict, str(folder)).check(OWN_KEYS, required={})
    return extra


def read_text_of(extra: Mapping[str, Any], key: str, default: str) -> str:
    """A text of unitok.json; ValueError if it is something else."""
    text = extra.get(key, default)
    if not isinstance(text, str):
        raise ValueError(f"{OWN_FILE}: {key} must be text, not {shown(text)}")
    return text


def read_known_words(extra: Mapping[str, Any]) -> frozenset[str] | None:
    """All words that the model ever saw, if unitok.json lists them.

    Raises:
        ValueError: They are no list of texts.
    """
    words = extra.get("known_words")
    if words is None:
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{OWN_FILE}: known_words must be a list of words")
    return frozenset(words)


def extra_to_json(defaults: Defaults) -> dict[str, Any]:
    """unitok.json: what differs from any Janus's ways and has no place in the other files."""
    extra: dict[str, Any] = {}
    if defaults.question != QUESTION:
        extra["question"] = defaults.question
    if defaults.system != SYSTEM:
        extra["system"] = defaults.system
    if defaults.cpu_dtype is not None:
        extra["cpu_dtype"] = name_of(defaults.cpu_dtype)
    if defaults.known_words is not None:
        extra["known_words"] = sorted(defaults.known_words)
    return extra


def processor_to_json(template: Template, defaults: Defaults, layout: str) -> dict[str, Any]:
    """processor_config.json: what JanusProcessor, or DeepSeek's VLChatProcessor, asks for."""
    if layout == "original":
        plain = (template.user, template.assistant) == PLAIN_ROLES
        return {
            "processor_class": "VLChatProcessor",
            "image_tag": template.placeholder,
            "num_image_tokens": template.picture_length,
            "sft_format": "deepseek_old" if plain else "deepseek",
        }
    return {
        "processor_class": "JanusProcessor",
        "num_image_tokens": template.picture_length,
        "use_default_system_prompt": defaults.system == SYSTEM,
    }


def generation_to_json(template: Template, defaults: Defaults) -> dict[str, Any]:
    """generation_config.json, as transformers reads it."""
    ids, samples = template.tokenizer.id, defaults.temperature > 0
    sampling = {"top_k": defaults.top_k, "top_p": defaults.top_p} if samples else {}
    return {
        "bos_token_id": ids(template.bos),
        "eos_token_id": ids(template.eos),
        "pad_token_id": ids(template.pad),
        "do_sample": samples,
        "temperature": defaults.temperature or 1.0,
        **sampling,
        "guidance_scale": defaults.guidance,
        "generation_kwargs": {"boi_token_id": ids(template.begin_of_image)},
    }


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files that make text ids and prompts, those that are there."""
    if source.resolve() == folder.resolve():
        return
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def name_tokens(path: Path, template: Template) -> None:
    """Say in tokenizer_config.json which tokens are which, for JanusProcessor, if nothing does."""
    config = dict(read_json(path, optional=True))
    if "image_token" not in config and not config.get("extra_special_tokens"):
        config["extra_special_tokens"] = {
            "image_token": template.placeholder,
            "boi_token": template.begin_of_image,
            "eoi_token": template.end_of_image,
        }
        write_json(path, config)
