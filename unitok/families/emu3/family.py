"""Emu3 behind the API: prompts, plans, pictures of any size, and its folders opened."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.weights import Dtype
from unitok.families.common.decoding import GridDecoder
from unitok.families.common.family import (
    Defaults,
    GenerationSpec,
    ImageOptions,
    ImageSizeError,
    check_ids,
    with_sampling,
)
from unitok.families.common.guidance import guided
from unitok.families.common.loading import build_model
from unitok.families.common.preprocessing import centre_square, to_pixels
from unitok.families.emu3.folders import find_image_start, read_folder
from unitok.families.emu3.preprocessing import Preprocessor
from unitok.families.emu3.prompts import NEGATIVE, SYSTEM, Template
from unitok.families.emu3.weights import LINEAR_NAMES
from unitok.nn.config import ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import EncodedImage, Message
from unitok_engine import Branch, FreePlan, IdRange


class Emu3:
    """A loaded Emu3; see `unitok.families.Family`.

    Args:
        name: For people.
        model: The weights.
        template: The prompts.
        preprocess: What is done to pictures that are read.
        defaults: How the checkpoint samples and is asked.
        area: Of a drawing in pixels, unless asked otherwise.
    """

    weight_names = LINEAR_NAMES
    can_be_saved = False
    draws_from_text: Literal[True] = True

    def __init__(
        self,
        name: str,
        model: UnifiedModel,
        template: Template,
        preprocess: Preprocessor,
        defaults: Defaults,
        area: int,
    ) -> None:
        self.name, self.model, self.template = name, model, template
        self.tokenizer, self.preprocess, self.defaults = template.tokenizer, preprocess, defaults
        self.max_context = model.config.decoder.max_positions
        self.step = model.config.image_tokenizer.downsample
        side = round(math.sqrt(area) / self.step) * self.step
        self.picture_size = (side, side)
        plan = template.image_plan(model.vocabulary.image_range, *self.grid(None))
        self.picture_tokens = plan.max_length

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """The ids of the picture. It is read as ids, so all of the work is done here."""
        with torch.inference_mode():
            codes = self.model.image_tokenizer.encode(self.preprocess(image)[None])[0]
        return self.template.picture(self.model.vocabulary.code_to_id(codes))

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        """The prompt that the model answers."""
        return self.template.answer(messages, self.defaults.system if system is None else system)

    def answer_ids(self, text: str) -> list[int]:
        """A blank and the text, as after the speaker's name, and the end."""
        ids = self.tokenizer.encode_plain(f" {text}")
        return [*ids, self.tokenizer.id(self.template.eos)]

    def picture_pixels(self, image: Image.Image) -> Tensor:
        """The picture's middle, [3, S, S] in [0, 1], in the size of a drawing."""
        return to_pixels(centre_square(image, self.picture_size[0], Image.Resampling.BICUBIC))

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        """A picture of the last message alone: Emu3 draws from one text.

        Raises:
            ValueError: The message has pictures, or the sides are no multiples of a code's.
        """
        if messages[-1].pictures:
            raise ValueError(f"{self.name} draws from text alone; leave the pictures out")
        grid = self.grid(options.size)
        plan = self.template.image_plan(self.model.vocabulary.image_range, *grid)
        negative = NEGATIVE if options.negative is None else options.negative
        prompt, against = (self.template.draw(t, *grid) for t in (messages[-1].text, negative))
        branches = guided(prompt, against, options.guidance)
        return GenerationSpec(branches, plan, GridDecoder(self.model, plan))

    def grid(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Rows and columns of a drawing of a width and height in pixels.

        Raises:
            ImageSizeError: The sides are no multiples of a code's.
        """
        sides = self.picture_size if size is None else size
        columns, rows = (max(1, round(side / self.step)) for side in sides)
        nearest = columns * self.step, rows * self.step
        if nearest != tuple(sides):
            raise ImageSizeError(
                f"this model draws sides in multiples of {self.step} pixels, not {sides[0]} x "
                f"{sides[1]}; {nearest[0]} x {nearest[1]} is the nearest"
            )
        return rows, columns

    def text_plan(self, max_tokens: int) -> FreePlan:
        """Ids below those of codes: an answer holds no picture."""
        stop = frozenset([self.tokenizer.id(self.template.eos)])
        return FreePlan(IdRange(0, self.model.vocabulary.image_start), stop, max_tokens)

    def save(self, folder: Path, layout: str | None) -> None:
        """Raise ValueError: the family is only read."""
        raise ValueError("Emu3 checkpoints are read but not written; copy their folder instead")


def matches(config: Mapping[str, Any], names: frozenset[str], folder: Path) -> bool:
    """Whether config.json is of transformers' Emu3 or of BAAI's."""
    return config.get("model_type") in ("emu3", "Emu3")


def load(folder: Path, device: str, dtype: Dtype, strict: bool = False) -> Emu3:
    """Open a folder of either format; see `open_folder`.

    The image tokenizer stays in float32, as in BAAI's script: in fewer bits it gives other ids.
    """
    contents = read_folder(folder, strict)
    step, factor = contents.image_tokenizer.downsample, contents.preprocess.factor
    if factor != step:
        raise ValueError(f"{folder}: the preprocessor has spatial_factor {factor}, not {step}")
    generation = read_json(folder / "generation_config.json", optional=True)
    defaults = defaults_from_json(generation, contents.template.full_stop)
    start, template = find_image_start(contents), contents.template
    check_ids(folder, template.tokenizer, contents.decoder)
    sizes = ModelConfig(contents.decoder, None, contents.image_tokenizer, image_start=start)
    model = build_model(sizes, contents.weights, dtype, device, exact_codes=True)
    return Emu3(folder.name, model, template, contents.preprocess, defaults, contents.area)


def defaults_from_json(generation: Mapping[str, Any], full_stop: str) -> Defaults:
    """generation_config.json; for what it leaves open, the original's image_generation.py."""
    question = "Please describe the image" + ("" if full_stop else ".")
    own = Defaults(
        temperature=1.0,
        top_k=2048,
        top_p=1.0,
        guidance=3.0,
        question=question,
        system=SYSTEM,
        dropped_prompt="",  # the words that it steers away from ask for bad pictures
    )
    return with_sampling(own, generation)
