"""Scorers of pictures and texts: CLIP and SigLIP, opened with transformers.

CLIP (https://arxiv.org/abs/2103.00020) was trained with a softmax over the texts of a batch, SigLIP
(https://arxiv.org/abs/2303.15343) and SigLIP 2 (https://arxiv.org/abs/2502.14786) with a sigmoid
for each pair. Those have a bias beside the scale of their logits.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from unitok.baselines.adapter import Adapter, batches, check_count, check_finite, joined
from unitok.baselines.feature_store import FeatureStore
from unitok.baselines.parts import PROCESSOR, TOKENIZER
from unitok.batch.keys import model_identity
from unitok.pictures import PictureLike, open_picture
from unitok.requests import check_is_text
from unitok.shown import shown

BATCH_SIZE = 32


@dataclass(frozen=True)
class Hit:
    """What a search found.

    Attributes:
        index: Its place among what was searched.
        score: Its logit: the higher, the better it matches.
    """

    index: int
    score: float


class ClipScorer(Adapter):
    """A folder of CLIPModel, SiglipModel or Siglip2Model, which keeps the shape of pictures.

    Pictures are prepared one at a time, so that no more than one is held at its full size.

    Attributes:
        batch_size: How many pictures or texts are encoded at once.
    """

    _images: Any  # what prepares pictures
    _tokenizer: Any

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
            FileNotFoundError: A part of the folder is missing.
            ValueError: It cannot be opened.
            ImportError: transformers is not installed.
        """
        super().__init__(folder, device)
        self.batch_size = check_count("batch_size", batch_size)
        self._load(dtype)

    # -- what differs between libraries

    def _load(self, dtype: str) -> None:
        self._open("AutoModel", PROCESSOR, TOKENIZER, dtype=dtype)
        self._images, self._tokenizer = self._processor.image_processor, self._processor.tokenizer
        self._length: int = self._model.config.text_config.max_position_embeddings

    def prepare_image(self, image: Image.Image) -> Mapping[str, Tensor]:
        """What the encoder takes of a picture; the first dimension of each tensor is 1."""
        return self._images(images=image, return_tensors="pt")

    def encode_images(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embeddings [B, d] of prepared pictures, of any length."""
        kind = self._model.dtype
        typed = {n: i.to(kind) if i.is_floating_point() else i for n, i in inputs.items()}
        return self._model.get_image_features(**typed).pooler_output

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, d] of texts, of any length. Long texts are cut off, with a warning."""
        self._warn_of_long(texts)
        inputs: Any = self._tokenizer(
            list(texts),
            # A SigLIP was trained on texts that are padded to its length.
            padding=True if self._number("logit_bias") is None else "max_length",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        return self._model.get_text_features(**inputs.to(self.device)).pooler_output

    def _warn_of_long(self, texts: Sequence[str]) -> None:
        for text, tokens in zip(texts, self._tokenizer(list(texts))["input_ids"], strict=True):
            if len(tokens) > self._length:
                counts = f"{len(tokens)} tokens; the model reads the first {self._length}"
                warnings.warn(f"{text[:40]!r}... has {counts}", stacklevel=2)

    # -- what all do

    @property
    def fingerprint(self) -> str:
        """What decides about the features of a picture.

        That is a digest of all files of the folder, what prepares pictures, which is another where
        torchvision is installed, and the type that the model computes in.
        """
        prepares, dtype = type(self._images).__name__, self._model.logit_scale.dtype
        return f"{model_identity(self.folder)}-{prepares}-{dtype}"

    def image_features(self, images: Iterable[PictureLike]) -> Tensor:
        """Embeddings of unit length [n, d] of pictures, on the CPU in float32.

        Raises:
            OSError, ValueError, TypeError: As `unitok.pictures.open_picture`.
        """
        prepared = (self.prepare_image(open_picture(image)) for image in images)
        return joined(map(self.features_of, batches(prepared, self.batch_size)))

    @torch.inference_mode()
    def features_of(self, prepared: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Embeddings of unit length [n, d] of a batch of prepared pictures."""
        names = prepared[0].keys()
        inputs = {name: torch.cat([one[name] for one in prepared]) for name in names}
        on_device = {name: one.to(self.device) for name, one in inputs.items()}
        return self._unit(self.encode_images(on_device))

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of unit length [m, d] of texts, on the CPU in float32.

        Raises:
            TypeError: They are no list, or one is no text.
        """
        if isinstance(texts, str):
            raise TypeError(f"give a list of texts, such as [{shown(texts)}]")
        for text in texts:
            check_is_text("each text", text)
        return joined(self._unit(self.encode_texts(b)) for b in batches(texts, self.batch_size))

    def _unit(self, features: Tensor) -> Tensor:
        """Features [n, d] at unit length, on the CPU in float32; ValueError if they are none."""
        return normalize(check_finite(self.name, features.float()), dim=-1).cpu()

    def score(self, images: Sequence[PictureLike], texts: Sequence[str]) -> Tensor:
        """Logits [n, m], as the model was trained with: its scale and bias are in them."""
        seen, told = self.image_features(images), self.text_features(texts)
        if not (len(seen) and len(told)):  # none of these has a width
            return torch.zeros(len(seen), len(told))
        return self.logits(seen @ told.T)

    def classify(self, images: Sequence[PictureLike], labels: Sequence[str]) -> Tensor:
        """The probability [n, labels] of each label.

        A CLIP's sum to one for each picture. A SigLIP judges each label alone.
        """
        logits = self.score(images, labels)
        return logits.softmax(-1) if self._number("logit_bias") is None else logits.sigmoid()

    def logits(self, similarity: Tensor) -> Tensor:
        """Logits of cosines, with the scale and the bias that the model has learned, if any."""
        scale, bias = self._number("logit_scale"), self._number("logit_bias")
        assert scale is not None
        return similarity * scale.exp() + (0 if bias is None else bias)

    def _number(self, name: str) -> Tensor | None:
        found = getattr(self._model, name, None)
        return None if found is None else found.detach().float().cpu().squeeze()

    # -- searches

    def search(
        self,
        text: str,
        images: Sequence[PictureLike],
        k: int = 10,
        store: FeatureStore | None = None,
    ) -> list[Hit]:
        """The best k pictures for a text, the best first.

        Args:
            text: What to look for.
            images: The pictures; with a store they are files.
            k: How many to find.
            store: Keeps the features of files for the next search.

        Raises:
            ValueError: k is below 1, or a picture cannot be read.
            OSError: There is no such picture.
            TypeError: A picture is no path, and there is a store.
        """
        features = store.features(self, images) if store else self.image_features(images)
        return self.search_features(text, features, k)

    def search_features(self, text: str, features: Tensor, k: int = 10) -> list[Hit]:
        """`search` among features [n, d] of pictures, which were computed before."""
        return self._best(features, self.text_features([text])[0], k)

    def search_texts(self, image: PictureLike, texts: Sequence[str], k: int = 10) -> list[Hit]:
        """The best k texts for a picture, the best first.

        Raises:
            ValueError: k is below 1, or the picture cannot be read.
            OSError: There is no such picture.
        """
        return self._best(self.text_features(texts), self.image_features([image])[0], k)

    def _best(self, features: Tensor, wanted: Tensor, k: int) -> list[Hit]:
        """The k of features [n, d] nearest to one [d]; of equal ones the first comes first."""
        check_count("k", k)
        if not len(features):
            return []
        scores, places = self.logits(features @ wanted).sort(descending=True, stable=True)
        best = zip(places[:k].tolist(), scores[:k].tolist(), strict=True)
        return [Hit(place, score) for place, score in best]
