"""Janus behind the API: prompts, plans, pictures, and its folder opened and written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.saving import write_json
from unitok.checkpoints.weights import Dtype
from unitok.families.common.decoding import GridDecoder
from unitok.families.common.family import (
    Defaults,
    GenerationSpec,
    ImageOptions,
    check_image_size,
)
from unitok.families.common.guidance import guided
from unitok.families.common.preprocessing import centre_square, to_pixels
from unitok.families.janus import files, original, weights
from unitok.families.janus.config import config_to_json
from unitok.families.janus.folder import read_folder
from unitok.families.janus.preprocessing import Preprocessor
from unitok.families.janus.prompts import Template
from unitok.families.janus.weights import FORMATS, MODEL_TYPES
from unitok.nn.model import UnifiedModel
from unitok.pictures import digest
from unitok.precision import name_of
from unitok.prompt import EncodedImage, Message
from unitok_engine import Branch, FreePlan, GridPlan


class Janus:
    """A loaded Janus; see `unitok.families.Family`.

    Args:
        name: For people.
        model: The weights.
        template: The prompts.
        preprocess: What is done to pictures that are read.
        defaults: How the checkpoint samples and is asked.
        source: The folder of its tokenizer's files, which `save` copies.
    """

    can_be_saved = True
    weight_names = (weights.adapter, original.adapter)

    def __init__(
        self,
        name: str,
        model: UnifiedModel,
        template: Template,
        preprocess: Preprocessor,
        defaults: Defaults,
        source: Path | None = None,
    ) -> None:
        self.name, self.model, self.template, self.source = name, model, template, source
        self.tokenizer, self.preprocess, self.defaults = template.tokenizer, preprocess, defaults
        self.max_context = model.config.decoder.max_positions
        codes = model.image_tokenizer.config
        self.plan = GridPlan(model.vocabulary.image_range, codes.grid, codes.grid)
        self.picture_size = (codes.image_size, codes.image_size)
        self.picture_tokens = self.plan.max_length

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Embeddings of the picture between their marks."""
        pixels = self.preprocess(image)
        return self.template.picture(pixels, digest(pixels, self.name), self.features)

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] -> embeddings [B, patches, d]."""
        return self.model.encode_images(pixels)

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        """The prompt that the model answers."""
        system = self.defaults.system if system is None else system
        return self.template.answer(messages, system)

    def answer_ids(self, text: str) -> list[int]:
        """A blank and the text, as after the speaker's name, and the end of the sentence."""
        ids = self.tokenizer.encode_plain(f" {text.strip()}") if text.strip() else []
        return [*ids, self.tokenizer.id(self.template.eos)]

    def picture_pixels(self, image: Image.Image) -> Tensor:
        """The picture's middle, [3, S, S] in [0, 1], in the size of a drawing."""
        return to_pixels(centre_square(image, self.picture_size[0], Image.Resampling.BICUBIC))

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        """A picture after the whole conversation; guidance steers away from its last request."""
        check_image_size(options, self.picture_size)
        against = (
            self.template.unconditional(self.template.draw(messages[-1:]))
            if options.negative is None
            else self.template.negative(options.negative)
        )
        branches = guided(self.template.draw(messages), against, options.guidance)
        return GenerationSpec(branches, self.plan, self.decode_images)

    def text_plan(self, max_tokens: int) -> FreePlan:
        """Text up to the end of the sentence."""
        stop = frozenset([self.tokenizer.id(self.template.eos)])
        return FreePlan(self.model.vocabulary.text_range, stop, max_tokens)

    def decode_images(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """What the plan emitted for B pictures -> pictures [B, 3, S, S] in [0, 1]."""
        return GridDecoder(self.model, self.plan)(ids)

    def save(
        self, folder: Path, layout: str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Write a folder.

        Args:
            folder: Where it is written.
            layout: "transformers", the usual one, or "original", DeepSeek's.
            dtype: Of the weights, by default the model's own.

        Raises:
            ValueError: There is no such layout, or it cannot hold this model; or the model came
                from no folder, so that its tokenizer's files are not known.
        """
        layout = layout or "transformers"
        if layout not in FORMATS:
            raise ValueError(f"layout must be one of {', '.join(FORMATS)}, not {layout!r}")
        if self.source is None:
            raise ValueError("this model came from no folder: there is no tokenizer to go with it")
        dtype = dtype or self.model.dtype
        stated = {
            "config.json": self._config_to_json(layout, name_of(dtype)),
            "preprocessor_config.json": self.preprocess.to_json(layout),
            "processor_config.json": files.processor_to_json(self.template, self.defaults, layout),
            "generation_config.json": files.generation_to_json(self.template, self.defaults),
        }
        if extra := files.extra_to_json(self.defaults):
            stated["unitok.json"] = extra
        weights.save_weights(self.model, folder, dtype, FORMATS[layout].adapter)
        files.copy_tokenizer(self.source, folder)
        if layout == "transformers":
            files.name_tokens(folder / "tokenizer_config.json", self.template)
        for file, data in stated.items():
            write_json(folder / file, data)

    def _config_to_json(self, layout: str, dtype: str) -> dict[str, Any]:
        config, tied = self.model.config, weights.is_tied(self.model)
        if layout == "original":
            return original.config_to_json(config, dtype, tied)
        return config_to_json(config, self.tokenizer.id(self.template.placeholder), dtype, tied)


def matches(config: Mapping[str, Any], names: frozenset[str], folder: Path) -> bool:
    """Whether config.json is of transformers' Janus or of DeepSeek's."""
    return config.get("model_type") in MODEL_TYPES


def load(folder: Path, device: str, dtype: Dtype, strict: bool = False) -> Janus:
    """Open a folder in transformers' format, or one of DeepSeek's own; see `open_folder`."""
    read = read_folder(folder, strict)
    model = weights.load_weights(folder, read.sizes, dtype, device, read.format, read.tied)
    return Janus(folder.name, model, read.template, read.preprocess, read.defaults, source=folder)
