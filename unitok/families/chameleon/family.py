"""Chameleon behind the API: prompts, plans, pictures, and its folders opened."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.adapter import renaming
from unitok.checkpoints.settings import read_config
from unitok.checkpoints.weights import Dtype
from unitok.families.chameleon import files
from unitok.families.chameleon.config import config_from_json
from unitok.families.chameleon.files import ARCHITECTURE, architecture, find_file, is_unitoken
from unitok.families.chameleon.image_ids import check_text
from unitok.families.chameleon.loading import Additions, load_original, load_transformers
from unitok.families.chameleon.original import WEIGHT_FILES, find_model
from unitok.families.chameleon.preprocessing import check_preprocessor
from unitok.families.chameleon.prompts import Template
from unitok.families.chameleon.weights import TRANSFORMERS
from unitok.families.common.decoding import GridDecoder
from unitok.families.common.family import (
    Defaults,
    GenerationSpec,
    ImageOptions,
    check_image_size,
    read_defaults,
)
from unitok.families.common.preprocessing import centre_square, to_pixels
from unitok.nn.model import UnifiedModel
from unitok.prompt import EncodedImage, Message
from unitok_engine import Branch, FreePlan

DEFAULTS = Defaults(
    temperature=0.7, top_k=0, top_p=0.9, guidance=3.0, question="What do you see?", system=""
)


class Chameleon:
    """A loaded Chameleon; see `unitok.families.Family`.

    Args:
        name: For people.
        model: The weights.
        template: The prompts.
        defaults: How the checkpoint samples and is asked.
    """

    weight_names = (renaming(TRANSFORMERS),)
    can_be_saved = False

    def __init__(
        self, name: str, model: UnifiedModel, template: Template, defaults: Defaults
    ) -> None:
        self.name, self.model, self.template, self.defaults = name, model, template, defaults
        self.tokenizer = template.tokenizer
        self.image_range = model.vocabulary.image_range
        self.text_mask = self.make_text_mask()
        self.max_context = model.config.decoder.max_positions
        self.picture_size = (model.image_tokenizer.config.image_size,) * 2
        self.plan = template.image_plan(model.image_tokenizer.config.grid)
        self.picture_tokens = self.plan.max_length

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """The ids of the picture's middle, between their marks."""
        opened = self.template.opened_picture(self.image_ids(image))
        return EncodedImage(((*opened, self.tokenizer.id(self.template.end_of_image)),))

    def fit(self, image: Image.Image) -> Image.Image:
        """An RGB picture -> what the VQGAN sees."""
        return centre_square(image, self.picture_size[0], Image.Resampling.LANCZOS)

    def picture_pixels(self, image: Image.Image) -> Tensor:
        """The picture's middle, [3, S, S] in [0, 1], as the VQGAN sees it."""
        return to_pixels(self.fit(image))

    def image_ids(self, image: Image.Image) -> Tensor:
        """An RGB picture -> the ids of its middle, [grid, grid]."""
        codes = self.model.image_tokenizer.encode(self.picture_pixels(image)[None])[0]
        return self.model.vocabulary.code_to_id(codes)

    def chat_prompt(self, messages: Sequence[Message], system: str | None) -> Branch:
        """The prompt that the model answers; ValueError for a system prompt."""
        if system:
            raise ValueError(f"{self.name} has no system prompt; say it in the message")
        return self.template.conversation(messages).branch()

    def answer_ids(self, text: str) -> list[int]:
        """The ids of the text, and its end: of the sequence or, for UniToken, of the turn."""
        check_text(text)
        end = self.template.text_ends[-1]
        return [*self.tokenizer.encode_plain(text), self.tokenizer.id(end)]

    def text_plan(self, max_tokens: int) -> FreePlan:
        """Text up to the end of the sequence."""
        stops = frozenset(map(self.tokenizer.id, self.template.text_ends))
        return FreePlan(self.model.vocabulary.text_range, stops, max_tokens, self.text_mask)

    def make_text_mask(self) -> Tensor:
        """Which ids an answer may hold, bool [vocabulary]: those of text, and its end.

        Text is what has no name that begins with `<`, but for `<` itself (VocabInfo.text_tokens of
        chameleon/inference/vocab.py, TextDecoder of chameleon/inference/chameleon.py).
        """
        names = self.tokenizer.vocabulary().items()
        text = [id for name, id in names if name == "<" or not name.startswith("<")]
        mask = torch.zeros(self.model.vocabulary.text_range.size, dtype=torch.bool)
        mask[text] = True
        mask[self.image_range.start : self.image_range.stop] = False
        mask[self.tokenizer.id(self.template.eos)] = True
        return mask.to(self.model.device)

    def generation_spec(self, messages: Sequence[Message], options: ImageOptions) -> GenerationSpec:
        """A picture after the whole conversation; ValueError without a VQ decoder."""
        check_image_size(options, self.picture_size)
        if not self.model.image_tokenizer.can_decode:
            raise ValueError(
                f"{self.name} has no VQ decoder, so it cannot draw; put Meta's vqgan.ckpt into "
                "its folder"
            )
        branches = self.template.guided(messages, options)
        return GenerationSpec(branches, self.plan, self.decode_images)

    def decode_images(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """What the plan emitted for B pictures -> pictures [B, 3, S, S] in [0, 1]."""
        return GridDecoder(self.model, self.plan)(ids)

    def save(self, folder: Path, layout: str | None) -> None:
        """Raise ValueError: the family is only read."""
        raise ValueError(f"{self.name} cannot be written; unitok only reads this family")


def matches(config: Mapping[str, Any], names: frozenset[str], folder: Path) -> bool:
    """Whether a folder is transformers' Chameleon, one model of Meta's, or Meta's download."""
    if config:
        return config.get("model_type") == "chameleon" and not is_unitoken(config)
    is_weights = any(WEIGHT_FILES.fullmatch(name) for name in names)
    return (is_weights and "params.json" in names) or {"models", "tokenizer"} <= names


def load(folder: Path, device: str, dtype: Dtype, strict: bool = False) -> Chameleon:
    """Open a folder of transformers' format or of Meta's; see `open_folder`."""
    if (folder / "config.json").is_file():
        config = read_config(folder, strict)
        if architecture(config.data) != ARCHITECTURE:
            raise ValueError(
                f"{folder}: config.json is of {architecture(config.data)}, whose pictures are laid "
                "out otherwise; unitok reads Chameleon, Anole and UniToken"
            )
        tokenizer, vqgan = files.load_tokenizer(folder), find_file(folder, "vqgan.ckpt")
        sizes, added = config_from_json(config), Additions()
        check_preprocessor(folder, sizes[1].image_size, strict)
        defaults = read_defaults(folder, DEFAULTS)
        model = load_transformers(folder, config, sizes, tokenizer, vqgan, device, dtype, added)
    else:
        defaults = DEFAULTS
        model, tokenizer = load_original(find_model(folder), device, dtype, strict)
    template = Template(tokenizer, model.vocabulary.image_range)
    return Chameleon(folder.name, model, template, defaults)
