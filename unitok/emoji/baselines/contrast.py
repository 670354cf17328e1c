"""Contrastive training of a picture tower and a text tower, as CLIP's.

CLIP: https://arxiv.org/abs/2103.00020.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.emoji.baselines.pairs import PairBatch
from unitok.pictures import PictureLike, open_picture
from unitok.training.losses import Loss

LARGEST_SCALE = 100.0
FIRST_SCALE = math.log(1 / 0.07)


class TwoTowers(Protocol):
    """What is trained."""

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of what cosines are multiplied by."""
        ...

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings [B, d] of pictures [B, 3, 64, 64] in [0, 1]."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, d] of texts."""
        ...


def contrastive_loss(logits: Tensor, true: Tensor) -> Tensor:
    """The mean cross-entropy of finding each picture's text, and each text's picture.

    Args:
        logits: [B, B], rows are pictures.
        true: [B, B], bool. What is true of a picture beside its own text is no negative of it.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(true.to(logits.device) & ~own, -math.inf)
    wanted = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


class ContrastiveLoss:
    """The loss of a batch of pairs."""

    def __init__(self, towers: TwoTowers) -> None:
        self.towers = towers

    def __call__(self, batch: PairBatch, step: int) -> Loss:
        """The loss of a batch; the number of updates so far makes no difference."""
        pictures = F.normalize(self.towers.encode_pixels(batch.pixels).float(), dim=-1)
        texts = F.normalize(self.towers.encode_texts(batch.texts).float(), dim=-1)
        scale = self.towers.logit_scale.exp().clamp(max=LARGEST_SCALE)
        loss = contrastive_loss(scale * pictures @ texts.T, batch.true)
        return Loss(loss, {"contrastive": loss}, len(batch.texts))


class TowerScorer:
    """Two towers as an `ImageTextScorer`, for those that no adapter opens.

    Attributes:
        name: What it is called in reports.
        towers: The towers.
        batch: The most pictures or texts at once.
    """

    def __init__(self, name: str, towers: TwoTowers, batch: int = 128) -> None:
        self.name, self.towers, self.batch = name, towers, batch

    @torch.no_grad()
    def image_features(self, images: Sequence[PictureLike]) -> Tensor:
        """Embeddings of unit length [n, d] of pictures of 64 x 64 pixels."""
        pixels = torch.stack([pixels_of(open_picture(image)) for image in images])
        found = [self.towers.encode_pixels(part) for part in pixels.split(self.batch)]
        return F.normalize(torch.cat(found).float(), dim=-1)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of unit length [m, d] of texts."""
        parts = (texts[i : i + self.batch] for i in range(0, len(texts), self.batch))
        found = [self.towers.encode_texts(part) for part in parts]
        return F.normalize(torch.cat(found).float(), dim=-1)

    @torch.no_grad()
    def score(self, images: Sequence[PictureLike], texts: Sequence[str]) -> Tensor:
        """Cosines [n, m], multiplied by the learned scale."""
        cosines = self.image_features(images) @ self.text_features(texts).T
        return self.towers.logit_scale.exp() * cosines

    def classify(self, images: Sequence[PictureLike], labels: Sequence[str]) -> Tensor:
        """The probability [n, labels] of each label."""
        return self.score(images, labels).softmax(-1)


def pixels_of(image: Image.Image) -> Tensor:
    """An image as a tensor [3, H, W] in [0, 1]."""
    levels = np.array(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(levels).permute(2, 0, 1) / 255
