"""What a family of checkpoints offers, so that the API needs no `if`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.adapter import StateDictAdapter
from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import Settings, is_float, is_int
from unitok.nn.config import DecoderConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import EncodedImage, Message
from unitok.requests import MAX_GUIDANCE
from unitok.shown import shown
from unitok_engine import Branch, FreePlan, Plan, Sampling
from unitok_tokenizers.text import TextTokenizer


@dataclass(frozen=True)
class Defaults:
    """A model's own way to sample and to be asked; part of the checkpoint, not of the code.

    Attributes:
        temperature: For pictures, as all of the sampling; text is greedy unless asked otherwise.
        top_k: How many of the likeliest ids are sampled from; 0 for all.
        top_p: The probability that the ids sampled from have together.
        guidance: The guidance scale.
        question: What `caption` asks.
        system: The system prompt.
        known_words: All words the model ever saw, if it saw few.
        cpu_dtype: The type in which it is to be loaded on a CPU; None leaves that open.
        dropped_prompt: What stands for a prompt of a picture that is dropped in training; None for
            the prompt that guidance steers away from.
    """

    temperature: float
    top_k: int
    top_p: float
    guidance: float
    question: str
    system: str
    known_words: frozenset[str] | None = None
    cpu_dtype: torch.dtype | None = None
    dropped_prompt: str | None = None


def read_defaults(folder: Path, defaults: Defaults) -> Defaults:
    """The defaults of a family, with what the folder's generation_config.json says of sampling."""
    return with_sampling(defaults, read_json(folder / "generation_config.json", optional=True))


def with_sampling(defaults: Defaults, generation: Mapping[str, Any]) -> Defaults:
    """The defaults, but for what generation_config.json says of sampling; null says nothing.

    Raises:
        ValueError: A value is no number, or out of range.
    """
    where = "generation_config.json"
    keys = {key: key for key in ("temperature", "top_k", "top_p")} | {"guidance_scale": "guidance"}
    stated = {
        ours: generation[key] for key, ours in keys.items() if generation.get(key) is not None
    }
    for key, value in stated.items():
        if not (is_int(value, 0) if key == "top_k" else is_float(value)):
            raise ValueError(f"{where}: {key} must be a number, not {shown(value)}")
    if abs(stated.get("guidance", 0)) > MAX_GUIDANCE:
        raise ValueError(
            f"{where}: guidance_scale must be from {-MAX_GUIDANCE} to {MAX_GUIDANCE}, not "
            f"{shown(generation['guidance_scale'])}"
        )
    if not Settings(generation, where).bool_setting("do_sample", True):
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

    Attributes:
        guidance: The guidance scale.
        negative: Words to steer away from.
        size: Width and height in pixels.
    """

    guidance: float
    negative: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class GenerationSpec:
    """A picture to be generated.

    Attributes:
        branches: The prompts that it follows.
        plan: What may be emitted.
        decode: What the plan emitted for n pictures -> pictures [n, 3, H, W] in [0, 1]. Drawings
            with an equal one and as many ids are decoded together, perhaps in another thread.
    """

    branches: tuple[Branch, ...]
    plan: Plan
    decode: Callable[[Sequence[Sequence[int]]], Tensor]


class Family(Protocol):
    """A loaded checkpoint: model, text tokenizer, prompts and plans.

    Attributes:
        name: For people.
        model: The weights.
        tokenizer: Of text.
        defaults: How the checkpoint samples and is asked.
        max_context: How many ids a sequence may have.
        picture_size: Width and height of a drawing in pixels, unless asked otherwise.
        picture_tokens: How many ids such a drawing takes.
    """

    name: str
    model: UnifiedModel
    tokenizer: TextTokenizer
    defaults: Defaults
    max_context: int
    picture_size: tuple[int, int]
    picture_tokens: int

    @property
    def can_be_saved(self) -> bool:
        """Whether `save` writes the checkpoint, or the family is only read."""
        ...

    @property
    def weight_names(self) -> Sequence[StateDictAdapter]:
        """Where its parameters are in the classes that low-rank adapters are made with.

        The first one, transformers' if there is one, is for writing, and all are for reading.
        """
        ...

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """How an RGB picture enters a prompt; the costly part waits until it is needed."""
        ...

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        """The prompt that the model answers.

        Raises:
            ValueError: The family cannot have such a conversation.
        """
        ...

    def answer_ids(self, text: str) -> list[int]:
        """What the model emits when it answers with this text, its end included.

        Raises:
            ValueError: The family cannot say such a text.
        """
        ...

    def picture_pixels(self, image: Image.Image) -> Tensor:
        """An RGB picture as the image tokenizer sees it when it is to be drawn.

        Returns:
            Pixels [3, H, W] in [0, 1], in the size of a drawing. A picture of that size stays as it
            is.
        """
        ...

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        """What it takes to generate the picture that the last message asks for.

        Raises:
            ValueError: This checkpoint cannot generate pictures, or not of this size.
        """
        ...

    def text_plan(self, max_tokens: int) -> FreePlan:
        """What an answer of at most so many ids may be."""
        ...

    def save(self, folder: Path, layout: str | None) -> None:
        """Write the checkpoint into a folder.

        Args:
            folder: Where it is written.
            layout: Whose names and files it has, None for the usual ones.

        Raises:
            ValueError: The family cannot be written, or knows no such layout.
        """
        ...


@runtime_checkable
class DrawsFromText(Protocol):
    """What a family has beside `Family` if the prompt of a drawing can hold no pictures.

    Attributes:
        draws_from_text: That it is so.
    """

    draws_from_text: Literal[True]


class ImageSizeError(ValueError):
    """A model generates no pictures of the size that is asked for."""


def check_image_size(options: ImageOptions, size: tuple[int, int]) -> None:
    """Raise ImageSizeError if another size is asked for than the only one a family generates."""
    if options.size is not None and options.size != size:
        raise ImageSizeError(
            f"this model draws {size[0]} x {size[1]} pixels only, "
            f"not {options.size[0]} x {options.size[1]}"
        )


def check_ids(folder: Path, tokenizer: TextTokenizer, decoder: DecoderConfig) -> None:
    """Raise ValueError if the text tokenizer has ids that the model has not."""
    if tokenizer.size > decoder.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, the model {decoder.vocab_size}"
        )
