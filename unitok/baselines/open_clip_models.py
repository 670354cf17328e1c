"""CLIP and CoCa, opened with open_clip, which needs the environment of make install-vision.

A folder is as open_clip saves it for the hub: open_clip_config.json and the weights.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from unitok.baselines.captioners import Captioner
from unitok.baselines.parts import NEEDS_TORCHVISION, errors_named
from unitok.baselines.scorers import BATCH_SIZE, ClipScorer
from unitok.extras import need
from unitok.pictures import open_picture
from unitok.requests import Caption
from unitok.results import TextResult

END = 49407  # token id of the end of a text, in CLIP's tokenizer
LEAST = 5  # tokens of a caption, if so many are allowed, as open_clip itself has it


def import_open_clip() -> Any:
    """The library.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return import_module("open_clip")
    except ImportError:
        raise ImportError(f"this model needs open_clip, {NEEDS_TORCHVISION}") from None


def open_folder(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """The model of a folder, what makes pixels [3, H, W] of a picture, and its tokenizer.

    Raises:
        ValueError: It cannot be opened.
        ImportError: open_clip is not installed.
    """
    library, name = import_open_clip(), f"local-dir:{folder}"
    with errors_named(folder, "open_clip cannot open it"):
        model, prepare = library.create_model_from_pretrained(name, device=device)
        return model.eval(), prepare, library.get_tokenizer(name)


class OpenClipScorer(ClipScorer):
    """A folder of open_clip's CLIP, SigLIP or CoCa."""

    def __init__(self, folder: Path, device: str = "auto", batch_size: int = BATCH_SIZE) -> None:
        """Open a folder.

        Args:
            folder: It holds open_clip_config.json and the weights.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures or texts are encoded at once.

        Raises:
            ValueError: It cannot be opened.
            ImportError: open_clip is not installed.
        """
        super().__init__(folder, device, batch_size)
        enable_sampling()

    def _load(self, dtype: str) -> None:
        self._model, self._images, self._tokenizer = open_folder(self.folder, self.device)

    def prepare_image(self, image: Image.Image) -> Mapping[str, Tensor]:
        """The pixels of a picture."""
        return {"image": self._images(image)[None]}

    def encode_images(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Projected embeddings [B, d]."""
        return self._model.encode_image(inputs["image"])

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Projected embeddings [B, d]. What is longer than the model reads is cut off."""
        return self._model.encode_text(self._tokenizer(list(texts)).to(self.device))


class CocaCaptioner(Captioner):
    """A folder of open_clip's CoCa (https://arxiv.org/abs/2205.01917), which captions."""

    honoured = frozenset("max_tokens temperature top_k top_p repetition_penalty seed".split())

    def __init__(self, folder: Path, device: str = "auto", batch_size: int = 8) -> None:
        """Open a folder.

        Args:
            folder: It holds open_clip_config.json and the weights.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures are captioned at once.

        Raises:
            ValueError: It cannot be opened.
            ImportError: open_clip is not installed.
        """
        super().__init__(folder, device, batch_size)
        enable_sampling()

    def _load(self, dtype: str) -> None:
        self._model, self._prepare, self._tokenizer = open_folder(self.folder, self.device)

    def prompt(self, question: str | None) -> str | None:
        """None: it is not asked anything."""
        return None

    def ends(self) -> Any:
        """The end of a text in CLIP's tokenizer."""
        return END

    def _key(self, asked: Caption) -> Hashable:
        key = super()._key(asked)
        if asked.top_k and asked.top_p < 1:
            raise ValueError(f"{self.name} takes top_k or top_p, not both")
        return key

    def _inputs(self, asked: Sequence[Caption]) -> Mapping[str, Any]:
        pixels = [self._prepare(open_picture(one.image)) for one in asked]
        return {"pixel_values": torch.stack(pixels).to(self.device)}

    def _generate(self, inputs: Mapping[str, Any], asked: Caption) -> list[list[int]]:
        # The start of a text counts, too.
        length = self._longest(asked) + 1
        ids = self._model.generate(
            inputs["pixel_values"],
            seq_len=length,
            max_seq_len=self._model.context_length,
            min_seq_len=min(LEAST, length - 1),
            repetition_penalty=float(asked.repetition_penalty),
            **sampler_options(asked),
        )
        return [row[1:] for row in ids.tolist()]

    def _longest(self, asked: Caption) -> int:
        """The most tokens of a caption; it is no longer than the model's context."""
        return min(asked.max_tokens, self._model.context_length - 1)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def _result(self, asked: Caption, ids: list[int], *known: Any) -> TextResult:
        made = super()._result(asked, ids, *known)
        # The library cuts off the longest ones by an end.
        cut = made.completion_tokens == self._longest(asked)
        return replace(made, finish_reason="length") if cut else made


def enable_sampling() -> None:
    """Give open_clip its samplers.

    When it is imported, open_clip 3.3 looks for a beam search that transformers 5 has no more, and
    then uses none of its samplers. They are as they were.

    Raises:
        ImportError: transformers is not installed.
    """
    library, coca = (
        need("transformers", "baselines"),
        cast("Any", import_module("open_clip.coca_model")),
    )
    coca.GENERATION_TYPES["top_k"] = library.TopKLogitsWarper
    coca.GENERATION_TYPES["top_p"] = library.TopPLogitsWarper
    coca._has_transformers = True


def sampler_options(asked: Caption) -> dict[str, Any]:
    """How open_clip samples: the likeliest token, or from some of them."""
    if not asked.temperature:
        return {"generation_type": "top_k", "top_k": 1}
    if asked.top_k:
        return {"generation_type": "top_k", "top_k": asked.top_k, "temperature": asked.temperature}
    return {"generation_type": "top_p", "top_p": asked.top_p, "temperature": asked.temperature}
