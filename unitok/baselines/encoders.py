"""Image encoders of transformers: ViT, MAE, BEiT, DINOv2, DINOv3, I-JEPA.

The features of a picture are one vector, made of the last layer's in one of two ways, the pooling:

- "cls": the vector of the class token, which stands for the whole picture.
- "mean": the mean of the vectors of the patches.

Each encoder has the pooling by default that its authors probe it with.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unitok.baselines.batches import batches
from unitok.baselines.complete import PROCESSOR, check_complete
from unitok.baselines.extra import need
from unitok.baselines.parts import find_device, open_model, open_processor
from unitok.pictures import PictureLike, open_picture
from unitok.shown import shown

Pooling = Literal["auto", "cls", "mean"]


class PatchEncoder:
    """What encoders of pictures and of clips share.

    Attributes:
        name: The folder's name.
        pooling: "cls" or "mean".
        width: How many numbers the features of a picture are.
    """

    model_class: ClassVar[str]
    processor_class: ClassVar[str] = "AutoImageProcessor"
    poolings: ClassVar[tuple[str, ...]] = ("cls", "mean")  # the default first

    def __init__(
        self, folder: Path, device: str = "auto", pooling: Pooling = "auto", batch: int = 16
    ) -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights and the image processor's file.
            device: "auto" is a GPU if there is one.
            pooling: "cls" or "mean"; "auto" is the encoder's own.
            batch: How many pictures or clips are encoded at once.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
            ValueError: The encoder has no such pooling, or the batch is empty.
        """
        self.name, self._device, self._batch = folder.name, find_device(device), batch
        self.pooling = self._choose_pooling(folder, pooling)
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        check_complete(folder, PROCESSOR)
        library = need("transformers")
        self._processor = open_processor(getattr(library, self.processor_class), folder)
        kind = getattr(library, self.model_class)
        self._model = open_model(kind, folder, **self._options()).to(self._device)
        self.width: int = self._model.config.hidden_size

    @torch.no_grad()
    def _features(self, items: Sequence[Any]) -> Tensor:
        parts = [
            self._encode(self._prepare(batch).to(self._device)).cpu()
            for batch in batches(items, self._batch)
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.width)

    def _prepare(self, items: Sequence[Any]) -> Any:
        """Inputs of the model."""
        raise NotImplementedError

    def _encode(self, inputs: Any) -> Tensor:
        states = self._model(**inputs).last_hidden_state
        return states[:, 0] if self.pooling == "cls" else states[:, self._prefix :].mean(1)

    @property
    def _prefix(self) -> int:
        """Vectors before those of the patches: a class token, and in some models registers."""
        registers = getattr(self._model.config, "num_register_tokens", 0)
        return ("cls" in self.poolings) + registers

    def _options(self) -> dict[str, Any]:
        """Options of the model's class."""
        return {}

    def _choose_pooling(self, folder: Path, pooling: str) -> str:
        if pooling == "auto":
            return self.poolings[0]
        if pooling not in self.poolings:
            allowed = " or ".join(self.poolings)
            raise ValueError(f"{folder}: pooling must be auto or {allowed}, not {shown(pooling)}")
        return pooling


class PictureEncoder(PatchEncoder):
    """What encoders of pictures share."""

    def features(self, images: Sequence[PictureLike]) -> Tensor:
        """Features [n, width] of pictures, on the CPU in float32."""
        return self._features(images)

    def _prepare(self, items: Sequence[Any]) -> Any:
        pictures = [open_picture(image) for image in items]
        return self._processor(images=pictures, return_tensors="pt")


class VitEncoder(PictureEncoder):
    """ViT (https://arxiv.org/abs/2010.11929)."""

    model_class = "ViTModel"

    def _options(self) -> dict[str, Any]:
        return {"add_pooling_layer": False}  # it is a layer of pre-training that few folders have


class MaeEncoder(PictureEncoder):
    """The encoder of a masked autoencoder (https://arxiv.org/abs/2111.06377), without masking."""

    model_class = "ViTMAEModel"

    def _options(self) -> dict[str, Any]:
        return {"mask_ratio": 0.0}

    def _encode(self, inputs: Any) -> Tensor:
        count = self._model.embeddings.patch_embeddings.num_patches
        # Patches are put in the order of this noise, which is random if none is given.
        inputs["noise"] = torch.arange(count, device=self._device).expand(
            len(inputs["pixel_values"]), -1
        )
        return super()._encode(inputs)


class BeitEncoder(PictureEncoder):
    """BEiT (https://arxiv.org/abs/2106.08254)."""

    model_class = "BeitModel"
    poolings = ("mean", "cls")

    def _options(self) -> dict[str, Any]:
        return {"add_pooling_layer": self.pooling == "mean"}

    def _encode(self, inputs: Any) -> Tensor:
        if self.pooling == "mean" and self._model.config.use_mean_pooling:
            return self._model(**inputs).pooler_output  # the mean, normalised
        return super()._encode(inputs)


class Dinov2Encoder(PictureEncoder):
    """DINOv2 (https://arxiv.org/abs/2304.07193)."""

    model_class = "Dinov2Model"


class Dinov2RegistersEncoder(PictureEncoder):
    """DINOv2 with registers (https://arxiv.org/abs/2309.16588)."""

    model_class = "Dinov2WithRegistersModel"


class Dinov3Encoder(PictureEncoder):
    """The ViT of DINOv3 (https://arxiv.org/abs/2508.10104), whose processor needs torchvision."""

    model_class = "DINOv3ViTModel"


class IJepaEncoder(PictureEncoder):
    """I-JEPA (https://arxiv.org/abs/2301.08243), which has no class token."""

    model_class = "IJepaModel"
    poolings = ("mean",)

    def _options(self) -> dict[str, Any]:
        return {"add_pooling_layer": False}
