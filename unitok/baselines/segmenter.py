"""Segmenters of transformers: SAM and SAM 2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unitok.baselines.adapter import Adapter, check_finite
from unitok.baselines.parts import PROCESSOR
from unitok.baselines.protocols import Segmentation
from unitok.checkpoints.folders import read_json
from unitok.pictures import PictureLike, open_picture

Point = tuple[float, float]
Box = tuple[float, float, float, float]

CLASSES = {"sam": "Sam", "sam2": "Sam2", "sam2_video": "Sam2"}
"""How classes begin, by the `model_type` of config.json. SAM 2 is published as a model of clips.
It is one of pictures, too."""


class SamSegmenter(Adapter):
    """Segment Anything (https://arxiv.org/abs/2304.02643), and SAM 2 for pictures.

    SAM 2 is https://arxiv.org/abs/2408.00714; its processor needs torchvision.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """Open a folder.

        Args:
            folder: It holds config.json, the weights and the processor's file.
            device: "auto" is a GPU if there is one.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
        """
        super().__init__(folder, device)
        kind = CLASSES[read_json(folder / "config.json")["model_type"]]
        self._open(f"{kind}Model", PROCESSOR, processor=f"{kind}Processor")

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
        pixels = self._processor(images=picture, return_tensors="pt")["pixel_values"]
        seen = self._model.get_image_embeddings(pixels.to(self.device))
        parts: list[Any] = []
        if points:
            parts += self._masks(picture, seen, True, input_points=[[[list(p)] for p in points]])
        if boxes:
            parts += self._masks(picture, seen, False, input_boxes=[[list(b) for b in boxes]])
        masks, scores = zip(*parts, strict=True)
        return Segmentation(torch.stack(masks), tuple(scores))

    def _masks(self, picture: Any, seen: Any, several: bool, **where: Any) -> list[Any]:
        """The best mask of each point or box, with its score."""
        inputs = self._processor(images=picture, return_tensors="pt", **where)
        given = {name: inputs[name].to(self.device) for name in where}
        out = self._model(image_embeddings=seen, multimask_output=several, **given)
        sizes = [inputs[n] for n in ("original_sizes", "reshaped_input_sizes") if n in inputs]
        # Of each thing several masks [H, W], in the picture's own size, as bool.
        masks = self._processor.post_process_masks(out.pred_masks.cpu(), *sizes)[0]
        scores, best = check_finite(self.name, out.iou_scores[0].cpu()).max(-1)
        return [(mask[i], float(s)) for mask, i, s in zip(masks, best, scores, strict=True)]


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
