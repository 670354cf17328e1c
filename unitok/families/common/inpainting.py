"""Painting a part of a picture anew: its other image tokens are known, and stay as they are.

It needs nothing of a family but what `Family` offers, and a plan that paints a grid.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unitok.edit_part import EditPart
from unitok.families.common.family import Family, GenerationSpec
from unitok_engine import GridPlan

BORDER = 2  # the border between old and new pixels is as wide as a cell divided by this


@dataclass(frozen=True, eq=False)
class FittedPart:
    """A picture in the size of a drawing, and what of it is painted anew.

    Attributes:
        pixels: The picture, [3, H, W] in [0, 1].
        is_new: Bool [H, W], True where it is painted anew.
    """

    pixels: Tensor
    is_new: Tensor

    @classmethod
    def of(cls, part: EditPart, family: Family) -> FittedPart:
        """Fit a picture and its mask alike, as the family fits a picture that is to be drawn.

        Raises:
            ValueError: A part of a margin would be cut off, or what is painted anew lies in what
                the model does not see.
        """
        fitted = cls(family.picture_pixels(part.image), family.picture_pixels(part.mask)[0] >= 0.5)
        height, width = fitted.is_new.shape
        if part.has_margin:
            check_shape(part.image, width, height)
        if not fitted.is_new.any():
            raise ValueError(
                f"nothing white of the mask is left at {width} x {height} pixels, where "
                f"{family.name} sees the middle of the picture: make it larger, or crop the picture"
            )
        return fitted

    @property
    def image(self) -> Image.Image:
        """The picture in RGB."""
        array = self.pixels.mul(255).round().byte().permute(1, 2, 0).numpy()
        return Image.fromarray(array)

    def cells(self, rows: int, columns: int) -> list[bool]:
        """Which cells are painted anew, row by row: those in which anything is."""
        grid = F.adaptive_max_pool2d(self.is_new[None].float(), (rows, columns))
        return grid.flatten().bool().tolist()


def check_shape(image: Image.Image, width: int, height: int) -> None:
    """Raise ValueError if fitting a picture to a size would cut a pixel off."""
    scale = max(width / image.width, height / image.height)
    if image.width * scale - width >= 1 or image.height * scale - height >= 1:
        raise ValueError(
            f"with its margin the picture has {image.width} x {image.height} pixels, and would be "
            f"cut off to the shape of {width} x {height}: choose a margin that gives it that shape"
        )


def chosen(cells: Sequence[bool], strength: float | None, seed: int) -> list[bool]:
    """A share of the cells that are painted anew, at random places; at least one.

    Args:
        cells: Which cells may be painted anew.
        strength: The share; None for all.
        seed: Decides on the places. More of them are painted at a higher strength, and those of a
            lower one are among them.
    """
    places = [place for place, is_new in enumerate(cells) if is_new]
    random.Random(f"cells {seed}").shuffle(places)
    count = len(places) if strength is None else max(1, round(strength * len(places)))
    kept = set(places[:count])
    return [place in kept for place in range(len(cells))]


def inpainting_specs(
    family: Family,
    spec: GenerationSpec,
    part: FittedPart,
    strength: float | None,
    seeds: Sequence[int],
    decode_all: bool,
) -> list[GenerationSpec]:
    """What it takes to paint a part of a picture anew: of each seed, or of all if that is the same.

    Args:
        family: Whose drawing it is.
        spec: The drawing of the same prompt.
        part: The picture, and what of it is painted anew.
        strength: The share of that; None for all.
        seeds: Each decides where the share lies.
        decode_all: Whether what stays is decoded too, instead of having its own pixels.

    Raises:
        ValueError: The family paints no grid of image tokens, or nothing of the picture stays.
    """
    plan = spec.plan
    if not isinstance(plan, GridPlan):
        raise ValueError(
            f"{family.name} cannot paint a part of a picture: it does not draw a grid of tokens"
        )
    cells = part.cells(plan.rows, plan.columns)
    places = [chosen(cells, strength, seed) for seed in seeds[: None if strength else 1]]
    if all(places[0]):
        raise ValueError(
            f"nothing of the picture would stay: each of its {plan.cells} cells is painted anew; "
            "use draw for a new picture"
        )
    ids = encoded(family, part.pixels)
    return [painting(spec, plan, part, ids, is_new, decode_all) for is_new in places]


def painting(
    spec: GenerationSpec,
    plan: GridPlan,
    part: FittedPart,
    ids: Sequence[int],
    is_new: Sequence[bool],
    decode_all: bool,
) -> GenerationSpec:
    """A drawing in which some cells are painted anew, and the others keep their image tokens."""
    known = tuple(None if new else id for new, id in zip(is_new, ids, strict=True))
    decode = spec.decode if decode_all else Pasted(spec.decode, part.pixels, plan, is_new)
    return replace(spec, plan=replace(plan, known=known), decode=decode)


@torch.inference_mode()
def encoded(family: Family, pixels: Tensor) -> list[int]:
    """The image token ids of a picture [3, H, W] in [0, 1], row by row."""
    codes = family.model.image_tokenizer.encode(pixels[None])[0]
    return family.model.vocabulary.code_to_id(codes).flatten().tolist()


@dataclass(frozen=True, eq=False)
class Pasted:
    """Decodes pictures, and puts the old pixels back around the cells that were painted anew.

    The new pixels fade out within a border around these.

    Attributes:
        decode: What the plan emitted for n pictures -> pictures [n, 3, H, W] in [0, 1].
        pixels: The old picture, [3, H, W].
        plan: Its grid.
        is_new: Which cells are painted anew, row by row.
    """

    decode: Callable[[Sequence[Sequence[int]]], Tensor]
    pixels: Tensor
    plan: GridPlan
    is_new: Sequence[bool]

    def __call__(self, emitted: Sequence[Sequence[int]]) -> Tensor:
        """What the plan emitted for n pictures -> pictures [n, 3, H, W] in [0, 1]."""
        new = self.decode(emitted)
        share = self._share().to(new)
        # Half a level more, so that cutting off fractions gives the old bytes back.
        old = (self.pixels.to(new) * 255 + 0.5) / 255
        return torch.where(share > 0, share * new + (1 - share) * old, old)

    def _share(self) -> Tensor:
        """The share of the new pixels, [H, W] in [0, 1]."""
        (height, width), rows = self.pixels.shape[1:], self.plan.rows
        grid = torch.tensor(self.is_new).float().view(1, 1, rows, self.plan.columns)
        inside = F.interpolate(grid, (height, width), mode="nearest")
        return faded(inside, height // rows // BORDER)[0, 0]


def faded(inside: Tensor, border: int) -> Tensor:
    """A mask [1, 1, H, W] that falls from 1 to 0 within so many pixels around what is inside."""
    steps = [F.max_pool2d(inside, 2 * step + 1, 1, step) for step in range(max(border, 1))]
    return torch.stack(steps).mean(0)
