"""Encoders of pictures and of clips, opened with transformers.

The features of a picture or a clip are one vector, made of the last layer's in one of two ways, the
pooling:

- "cls": the vector of the class token, which stands for the whole picture.
- "mean": the mean of the vectors of the patches.

Each encoder has the pooling by default that its authors probe it with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.baselines.adapter import Adapter, batches, check_count, check_finite, joined
from unitok.baselines.parts import PROCESSOR
from unitok.baselines.protocols import Video
from unitok.checkpoints.folders import read_json
from unitok.pictures import open_picture
from unitok.shown import shown

Pooling = Literal["auto", "cls", "mean"]


@dataclass(frozen=True)
class Kind:
    """What is particular to a kind of encoder.

    Attributes:
        poolings: Those that it has, the default first.
        opened: Options of the model's class.
        called: Options of a call of the model.
        frames: What config.json calls the number of frames of a clip.
        processor: The class of what prepares its inputs.
    """

    poolings: tuple[str, ...] = ("cls", "mean")
    opened: dict[str, Any] = field(default_factory=dict)
    called: dict[str, Any] = field(default_factory=dict)
    frames: str = ""
    processor: str = "AutoImageProcessor"


UNPOOLED = {"add_pooling_layer": False}  # it is a layer of pre-training that few folders have
KINDS = {
    "vit": Kind(opened=UNPOOLED),  # https://arxiv.org/abs/2010.11929
    "vit_mae": Kind(opened={"mask_ratio": 0.0}),  # https://arxiv.org/abs/2111.06377
    "beit": Kind(("mean", "cls")),  # https://arxiv.org/abs/2106.08254
    "dinov2": Kind(),  # https://arxiv.org/abs/2304.07193
    "dinov2_with_registers": Kind(),  # https://arxiv.org/abs/2309.16588
    "dinov3_vit": Kind(),  # https://arxiv.org/abs/2508.10104; its processor needs torchvision
    "ijepa": Kind(("mean",), UNPOOLED),  # https://arxiv.org/abs/2301.08243; it has no class token
    "vivit": Kind(opened=UNPOOLED, frames="num_frames"),  # https://arxiv.org/abs/2103.15691
    "vjepa2": Kind(  # https://arxiv.org/abs/2506.09985; its video processor needs torchvision
        ("mean",),
        called={"skip_predictor": True},
        frames="frames_per_clip",
        processor="AutoVideoProcessor",
    ),
}
"""By the `model_type` of config.json."""


class Encoder(Adapter):
    """An encoder of pictures.

    Attributes:
        pooling: "cls" or "mean".
        width: How many numbers the features are.
    """

    def __init__(
        self, folder: Path, device: str = "auto", pooling: Pooling = "auto", batch_size: int = 16
    ) -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights and the image processor's file.
            device: "auto" is a GPU if there is one.
            pooling: "cls" or "mean"; "auto" is the encoder's own.
            batch_size: How many pictures or clips are encoded at once.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
            ValueError: The encoder has no such pooling, or the batch is empty.
        """
        super().__init__(folder, device)
        self._kind = KINDS[read_json(folder / "config.json")["model_type"]]
        self._batch = check_count("batch_size", batch_size)
        self.pooling = self._choose_pooling(pooling)
        self._open("AutoModel", PROCESSOR, processor=self._kind.processor, **self._options())
        self.width: int = self._model.config.hidden_size

    @torch.no_grad()
    def features(self, images: Sequence[Any]) -> Tensor:
        """Features [n, width] of pictures, on the CPU in float32."""
        return joined(map(self._encode, batches(images, self._batch)), self.width)

    def _encode(self, images: Sequence[Any]) -> Tensor:
        features = self._pooled(self._call(self._inputs(images).to(self.device)))
        return check_finite(self.name, features)

    def _inputs(self, images: Sequence[Any]) -> Any:
        """What the model takes."""
        pictures = [open_picture(image) for image in images]
        return self._processor(images=pictures, return_tensors="pt")

    def _call(self, inputs: Any) -> Any:
        return self._model(**inputs, **self._kind.called)

    def _pooled(self, out: Any) -> Tensor:
        states = out.last_hidden_state
        return states[:, 0] if self.pooling == "cls" else states[:, self._prefix :].mean(1)

    @property
    def _prefix(self) -> int:
        """Vectors before those of the patches: a class token, and in some models registers."""
        registers = getattr(self._model.config, "num_register_tokens", 0)
        return ("cls" in self._kind.poolings) + registers

    def _options(self) -> dict[str, Any]:
        """Options of the model's class."""
        return self._kind.opened

    def _choose_pooling(self, pooling: str) -> str:
        known = self._kind.poolings
        if pooling not in ("auto", *known):
            allowed = " or ".join(("auto", *known))
            raise ValueError(f"{self.folder}: pooling must be {allowed}, not {shown(pooling)}")
        return known[0] if pooling == "auto" else pooling


class MaeEncoder(Encoder):
    """The encoder of a masked autoencoder, without masking."""

    def _call(self, inputs: Any) -> Any:
        count = self._model.embeddings.patch_embeddings.num_patches
        # Patches are put in the order of this noise, which is random if none is given.
        noise = torch.arange(count, device=self.device).expand(len(inputs["pixel_values"]), -1)
        return self._model(**inputs, noise=noise)


class BeitEncoder(Encoder):
    """BEiT, which has a layer of its own for the mean."""

    def _options(self) -> dict[str, Any]:
        return {"add_pooling_layer": self.pooling == "mean"}

    def _pooled(self, out: Any) -> Tensor:
        if self.pooling == "mean" and self._model.config.use_mean_pooling:
            return out.pooler_output  # the mean, normalised
        return super()._pooled(out)


class ClipEncoder(Encoder):
    """An encoder of clips, each a `Video`.

    Of each, as many frames are taken as the model was trained with, at even distances from the
    first to the last. Of a shorter clip, some are taken twice.
    """

    def _inputs(self, images: Sequence[Any]) -> Any:
        count = getattr(self._model.config, self._kind.frames)
        return self._processor([spread(clip, count) for clip in images], return_tensors="pt")


def spread(clip: Video, count: int) -> list[Image.Image]:
    """Frames of a clip at even distances, from the first to the last.

    Raises:
        ValueError: It has none.
    """
    if not clip.frames:
        raise ValueError("a clip has no frames")
    chosen = np.linspace(0, len(clip.frames) - 1, count).round().astype(int)
    return [open_picture(clip.frames[i]) for i in chosen]
