"""What a checkpoint family has to say for itself, so that the API needs no `if`.

A family is a module of this package with a function `matches(config, names)`, which tells by
config.json (empty if there is none) and the file names of a folder whether it is of this family,
and a function `load(folder, device, dtype)`, which opens it. `open_folder` finds the module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.settings import flag, is_real, is_whole
from unitok.nn.config import DecoderConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import EncodedImage, Message
from unitok_engine import Branch, Plan, Sampling
from unitok_tokenizers.text import TextTokenizer


@dataclass(frozen=True)
class Defaults:
    """A model's own way to sample and to be asked; part of the checkpoint, not of the code.

    temperature, top_k, top_p, guidance: for pictures (text is greedy unless asked otherwise).
    question: what `caption` asks. known_words: all words the model ever saw, if it saw few.
    cpu_dtype: in which it is to be loaded on a CPU; None leaves that open.
    """

    temperature: float
    top_k: int
    top_p: float
    guidance: float
    question: str
    system: str
    known_words: frozenset[str] | None = None
    cpu_dtype: torch.dtype | None = None


def with_sampling(defaults: Defaults, generation: Mapping[str, Any]) -> Defaults:
    """The defaults, but for what generation_config.json says of sampling; null says nothing.

    Raises:
        ValueError: a value is no number, or out of range.
    """
    where = "generation_config.json"
    keys = {key: key for key in ("temperature", "top_k", "top_p")} | {"guidance_scale": "guidance"}
    stated = {
        ours: generation[key] for key, ours in keys.items() if generation.get(key) is not None
    }
    for key, value in stated.items():
        if not (is_whole(value, 0) if key == "top_k" else is_real(value)):
            raise ValueError(f"{where}: {key} must be a number, not {value!r}")
    if not flag(generation, "do_sample", True, where):
        stated["temperature"] = 0.0
    made = replace(defaults, **stated)
    try:
        Sampling(made.temperature, made.top_k, made.top_p)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return made


@dataclass(frozen=True)
class ImageOptions:
    """What a caller may ask of a drawing, beside its words; None follows the family.

    size: width and height in pixels. negative: words to steer away from.
    """

    guidance: float
    negative: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class GenerationSpec:
    """A picture to be painted.

    branches: after which the model paints. plan: what it may emit.
    decode: what the plan emitted for n pictures -> pictures [n, 3, H, W] in [0, 1]. Drawings with an
    equal one and as many ids are painted together, perhaps in another thread.
    """

    branches: tuple[Branch, ...]
    plan: Plan
    decode: Callable[[Sequence[Sequence[int]]], Tensor]


class Family(Protocol):
    """A loaded checkpoint: model, words, pictures, prompts and plans."""

    name: str
    model: UnifiedModel
    tokenizer: TextTokenizer
    defaults: Defaults
    max_context: int
    picture_size: tuple[int, int]  # width and height of a drawing, in pixels, unless asked
    picture_tokens: int  # of such a drawing

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """An RGB picture -> what it is in a line; the costly part waits until it is needed."""
        ...

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        """The line after which the model writes.

        Raises:
            ValueError: the family cannot have such a conversation.
        """
        ...

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        """What it takes to paint the last message's options.

        Raises:
            ValueError: this checkpoint cannot paint, or not at this size.
        """
        ...

    def text_plan(self, max_tokens: int) -> Plan: ...

    def save(self, folder: Path, layout: str | None) -> None:
        """Write the checkpoint into a folder; layout: whose names, None for the usual ones.

        Raises:
            ValueError: the family cannot be written, or knows no such layout.
        """
        ...


def check_image_size(options: ImageOptions, size: tuple[int, int]) -> None:
    """Raise ValueError if a options asks for another size than the only one a family paints."""
    if options.size is not None and options.size != size:
        raise ValueError(
            f"this model paints {size[0]} x {size[1]} pixels only, "
            f"not {options.size[0]} x {options.size[1]}"
        )


def check_ids(folder: Path, tokenizer: TextTokenizer, decoder: DecoderConfig) -> None:
    """Raise ValueError if the text tokenizer has ids that the model has not."""
    if tokenizer.size > decoder.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, the model {decoder.vocab_size}"
        )
