"""CLIP and SigLIP, opened with transformers, as scorers of pictures and texts.

CLIP (https://arxiv.org/abs/2103.00020) was trained with a softmax over the texts of a batch, SigLIP
(https://arxiv.org/abs/2303.15343) and SigLIP 2 (https://arxiv.org/abs/2502.14786) with a sigmoid
for each pair.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from unitok.baselines.extra import need
from unitok.baselines.parts import (
    check_vocabulary,
    find_device,
    find_dtype,
    open_model,
    open_processor,
)
from unitok.baselines.scoring import BATCH_SIZE, Scorer


class ClipScorer(Scorer):
    """A folder of CLIPModel."""

    kind = "CLIPModel"

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        batch_size: int = BATCH_SIZE,
        dtype: str = "auto",
    ) -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights as safetensors, a tokenizer and
                preprocessor_config.json.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures or texts are encoded at once.
            dtype: "auto" is the checkpoint's own on a GPU, and float32 on a CPU.

        Raises:
            ValueError: The folder cannot be opened, or a part of it is missing.
            ImportError: transformers is not installed.
        """
        library, where = need("transformers"), find_device(device)
        super().__init__(folder, where, batch_size)
        check_vocabulary(folder)
        kind = getattr(library, self.kind)
        self._model: Any = open_model(kind, folder, find_dtype(dtype, where)).to(where)
        self._images = open_processor(library.AutoImageProcessor, folder)
        self._tokenizer = open_processor(library.AutoTokenizer, folder)

    @property
    def fingerprint(self) -> str:
        """What decides about the features of a picture.

        The library prepares pictures in another way where torchvision is installed.
        """
        return f"{super().fingerprint}-{type(self._images).__name__}"

    @property
    def text_length(self) -> int:
        """The most tokens of a text that the model reads."""
        return self._model.config.text_config.max_position_embeddings

    def prepare_image(self, image: Image.Image) -> Mapping[str, Tensor]:
        """The pixels of a picture, as the folder's preprocessor makes them."""
        return self._images(images=image, return_tensors="pt")

    def encode_images(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Projected embeddings [B, d]."""
        inputs = {
            n: i.to(self._model.dtype) if i.is_floating_point() else i for n, i in inputs.items()
        }
        return self._model.get_image_features(**inputs).pooler_output

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Projected embeddings [B, d]. What is longer than the model reads is cut off."""
        warn_of_long(texts, self._tokenizer(list(texts))["input_ids"], self.text_length)
        inputs = self.tokenize(texts).to(self.device)
        return self._model.get_text_features(**inputs).pooler_output

    def tokenize(self, texts: Sequence[str]) -> Any:
        """Token ids of texts, as the text encoder takes them."""
        return self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.text_length,
            return_tensors="pt",
        )

    def logits(self, similarity: Tensor) -> Tensor:
        """Cosines, multiplied by the learned scale."""
        return similarity * self._number("logit_scale").exp()

    def probabilities(self, logits: Tensor) -> Tensor:
        """A softmax over the labels."""
        return logits.softmax(-1)

    def _number(self, name: str) -> Tensor:
        return getattr(self._model, name).detach().float().cpu().squeeze()


class SiglipScorer(ClipScorer):
    """A folder of SiglipModel: SigLIP, and SigLIP 2 of a fixed size."""

    kind = "SiglipModel"

    def tokenize(self, texts: Sequence[str]) -> Any:
        """Token ids of texts. The model was trained on texts that are padded to its length."""
        return self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.text_length,
            return_tensors="pt",
        )

    def logits(self, similarity: Tensor) -> Tensor:
        """Cosines, multiplied by the learned scale, with the learned bias."""
        return super().logits(similarity) + self._number("logit_bias")

    def probabilities(self, logits: Tensor) -> Tensor:
        """A sigmoid of each label."""
        return logits.sigmoid()


class Siglip2Scorer(SiglipScorer):
    """A folder of Siglip2Model: SigLIP 2 that keeps the shape of pictures (NaFlex)."""

    kind = "Siglip2Model"


def warn_of_long(texts: Sequence[str], ids: Sequence[Sequence[int]], most: int) -> None:
    """Warn of texts that have more tokens than the model reads."""
    for text, tokens in zip(texts, ids, strict=True):
        if len(tokens) > most:
            warnings.warn(
                f"{text[:40]!r}... has {len(tokens)} tokens; the model reads the first {most}",
                stacklevel=2,
            )
