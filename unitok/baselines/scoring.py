"""What every scorer does with embeddings of pictures and texts: score, classify, search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unitok.baselines.batches import batches
from unitok.baselines.feature_store import FeatureStore
from unitok.pictures import PictureLike, open_picture
from unitok.requests import check_is_text

if TYPE_CHECKING:
    from PIL import Image

BATCH_SIZE = 32


@dataclass(frozen=True)
class Match:
    """What a search found.

    Attributes:
        index: Its place among what was searched.
        score: Its logit: the higher, the better it matches.
    """

    index: int
    score: float


class Scorer(ABC):
    """A model with an encoder of pictures and one of texts, whose embeddings are compared.

    A subclass has the encoders. Pictures are prepared one at a time, so that no more than one is
    held at its full size.

    Attributes:
        folder: Where the model lies.
        device: Where it computes.
        batch_size: How many pictures or texts are encoded at once.
    """

    def __init__(self, folder: Path, device: str, batch_size: int = BATCH_SIZE) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.folder, self.device, self.batch_size = folder, device, batch_size

    # -- what a subclass has

    @abstractmethod
    def prepare_image(self, image: Image.Image) -> Mapping[str, Tensor]:
        """What the encoder takes of a picture; the first dimension of each tensor is 1."""

    @abstractmethod
    def encode_images(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embeddings [B, d] of prepared pictures, of any length."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, d] of texts, of any length."""

    @abstractmethod
    def logits(self, similarity: Tensor) -> Tensor:
        """Logits of cosines, with the scale and the bias that the model has learned."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities [n, labels] of logits, as the model was trained with."""

    @property
    def fingerprint(self) -> str:
        """What decides about the features of a picture: a digest of all files of the folder."""
        from unitok.batch.keys import model_identity

        return model_identity(self.folder)

    # -- what all do

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.folder.resolve().name

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
        return unit(self.encode_images({n: i.to(self.device) for n, i in inputs.items()}))

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of unit length [m, d] of texts, on the CPU in float32.

        Raises:
            TypeError: One is no text.
        """
        for text in texts:
            check_is_text("each text", text)
        return joined(unit(self.encode_texts(b)) for b in batches(texts, self.batch_size))

    def score(self, images: Sequence[PictureLike], texts: Sequence[str]) -> Tensor:
        """Logits [n, m], as the model was trained with: its scale and bias are in them."""
        return self.logits(self.image_features(images) @ self.text_features(texts).T)

    def classify(self, images: Sequence[PictureLike], labels: Sequence[str]) -> Tensor:
        """The probability [n, labels] of each label.

        A CLIP's sum to one for each picture. A SigLIP judges each label alone.
        """
        return self.probabilities(self.score(images, labels))

    def search(
        self,
        text: str,
        images: Sequence[PictureLike],
        k: int = 10,
        store: FeatureStore | None = None,
    ) -> list[Match]:
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
        features = store.features(self, paths(images)) if store else self.image_features(images)
        return self.search_features(text, features, k)

    def search_features(self, text: str, features: Tensor, k: int = 10) -> list[Match]:
        """`search` among features [n, d] of pictures, which were computed before."""
        return self._best(features, self.text_features([text])[0], k)

    def search_texts(self, image: PictureLike, texts: Sequence[str], k: int = 10) -> list[Match]:
        """The best k texts for a picture, the best first.

        Raises:
            ValueError: k is below 1, or the picture cannot be read.
            OSError: There is no such picture.
        """
        return self._best(self.text_features(texts), self.image_features([image])[0], k)

    def _best(self, features: Tensor, wanted: Tensor, k: int) -> list[Match]:
        """The k of features [n, d] nearest to one [d]; of equal ones the first comes first."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if not len(features):
            return []
        scores, places = self.logits(features @ wanted).sort(descending=True, stable=True)
        best = zip(places[:k].tolist(), scores[:k].tolist(), strict=True)
        return [Match(place, score) for place, score in best]


def paths(images: Iterable[PictureLike]) -> list[str | Path]:
    """Pictures that are files; TypeError if one is something else."""
    for image in images:
        if not isinstance(image, str | Path):
            kind = type(image).__name__
            raise TypeError(f"features are kept of files alone: give paths, not {kind}")
    return [image for image in images if isinstance(image, str | Path)]


def unit(features: Tensor) -> Tensor:
    """Features [n, d] at unit length, on the CPU in float32."""
    return normalize(features.float(), dim=-1).cpu()


def joined(parts: Iterable[Tensor]) -> Tensor:
    """Features [n, d] of parts; [0, 0] of none."""
    found = list(parts)
    return torch.cat(found) if found else torch.zeros(0, 0)
