"""Encoders of clips, of transformers: ViViT and V-JEPA 2.

A clip becomes one vector, as a picture does in `encoders`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from unitok.baselines.encoders import PatchEncoder
from unitok.baselines.protocols import Video


class ClipEncoder(PatchEncoder):
    """What encoders of clips share."""

    frames_key: ClassVar[str]  # in config.json

    def features(self, clips: Sequence[Video]) -> Tensor:
        """Compute features.

        Args:
            clips: Of each, as many frames are taken as the model was trained with, at even
                distances from the first to the last. Of a shorter clip, some are taken twice.

        Returns:
            [n, width], on the CPU in float32.

        Raises:
            ValueError: A clip has no frames.
        """
        return self._features(clips)

    def _prepare(self, items: Sequence[Any]) -> Any:
        count = getattr(self._model.config, self.frames_key)
        return self._processor([spread(clip, count) for clip in items], return_tensors="pt")


class VivitEncoder(ClipEncoder):
    """ViViT (https://arxiv.org/abs/2103.15691)."""

    model_class, frames_key = "VivitModel", "num_frames"

    def _options(self) -> dict[str, Any]:
        return {"add_pooling_layer": False}


class VJepa2Encoder(ClipEncoder):
    """V-JEPA 2 (https://arxiv.org/abs/2506.09985). Its video processor needs torchvision."""

    model_class, frames_key = "VJEPA2Model", "frames_per_clip"
    processor_class = "AutoVideoProcessor"
    poolings = ("mean",)

    def _encode(self, inputs: Any) -> Tensor:
        return self._model.get_vision_features(inputs["pixel_values_videos"]).mean(1)


def spread(clip: Video, count: int) -> list[Image.Image]:
    """Frames of a clip at even distances, from the first to the last.

    Raises:
        ValueError: It has none.
    """
    if not clip.frames:
        raise ValueError("a clip has no frames")
    chosen = np.linspace(0, len(clip.frames) - 1, count).round().astype(int)
    return [clip.frames[i].convert("RGB") for i in chosen]
