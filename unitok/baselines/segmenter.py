"""Segmenters of transformers: SAM and SAM 2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from unitok.baselines.complete import PROCESSOR, check_complete
from unitok.baselines.extra import need
from unitok.baselines.parts import find_device, open_model, open_processor
from unitok.baselines.protocols import Segmentation
from unitok.pictures import PictureLike, open_picture

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class SamSegmenter:
    """Segment Anything (https://arxiv.org/abs/2304.02643).

    Attributes:
        name: The folder's name.
    """

    model_class: ClassVar[str] = "SamModel"

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights and the processor's file.
            device: "auto" is a GPU if there is one.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
        """
        check_complete(folder, PROCESSOR)
        library, self.name, self._device = need("transformers"), folder.name, find_device(device)
        self._processor = open_processor(library.AutoProcessor, folder)
        kind = getattr(library, self.model_class)
        self._model = open_model(kind, folder).to(self._device)

    @torch.no_grad()
    def segment(
        self, image: PictureLike, points: Sequence[Point] = (), boxes: Sequence[Box] = ()
    ) -> Segmentation:
        """Cut things out.

        Args:
            image: The picture.
            points: Each (x, y) lies on a thing.
            boxes: Each (left, top, right, bottom) holds a thing.

        Returns:
            A mask of each point, then one of each box. A point may mean a thing or a part of it, so
            the model gives three masks of it, of which the one with the best score is taken.

        Raises:
            ValueError: There is neither a point nor a box, or one lies outside of the picture.
        """
        picture = open_picture(image)
        check_inside(picture.size, points, boxes)
        seen = self._model.get_image_embeddings(self._pixels(picture))
        parts: list[Any] = []
        if points:
            parts += self._masks(picture, seen, True, input_points=[[[list(p)] for p in points]])
        if boxes:
            parts += self._masks(picture, seen, False, input_boxes=[[list(b) for b in boxes]])
        masks, scores = zip(*parts, strict=True)
        return Segmentation(torch.stack(masks), tuple(scores))

    def _pixels(self, picture: Any) -> Tensor:
        return self._processor(images=picture, return_tensors="pt")["pixel_values"].to(self._device)

    def _masks(self, picture: Any, seen: Any, several: bool, **where: Any) -> list[Any]:
        """The best mask of each point or box, with its score."""
        inputs = self._processor(images=picture, return_tensors="pt", **where)
        given = {name: inputs[name].to(self._device) for name in where}
        out = self._model(image_embeddings=seen, multimask_output=several, **given)
        masks = self._full_size(out.pred_masks.cpu(), inputs)
        scores, best = out.iou_scores[0].cpu().max(-1)
        return [(mask[i], float(s)) for mask, i, s in zip(masks, best, scores, strict=True)]

    def _full_size(self, masks: Tensor, inputs: Any) -> Tensor:
        """Masks [things, masks of each, H, W] in the picture's own size, as bool."""
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        return self._processor.image_processor.post_process_masks(masks, *sizes)[0]


class Sam2Segmenter(SamSegmenter):
    """SAM 2 (https://arxiv.org/abs/2408.00714) for pictures. Its processor needs torchvision."""

    model_class = "Sam2Model"

    def _full_size(self, masks: Tensor, inputs: Any) -> Tensor:
        return self._processor.post_process_masks(masks, inputs["original_sizes"])[0]


def check_inside(size: tuple[int, int], points: Sequence[Point], boxes: Sequence[Box]) -> None:
    """Check what is asked for.

    Args:
        size: Width and height of the picture, in pixels.
        points: Each (x, y).
        boxes: Each (left, top, right, bottom).

    Raises:
        ValueError: Nothing is asked for, or something that is outside of the picture.
    """
    if not points and not boxes:
        raise ValueError("give points or boxes of the things to cut out")
    width, height = size
    for x, y in points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"point ({x}, {y}) is outside of a picture of {width} x {height}")
    for left, top, right, bottom in boxes:
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"box ({left}, {top}, {right}, {bottom}) is none of left, top, right, bottom "
                f"inside a picture of {width} x {height}"
            )
