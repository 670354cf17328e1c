"""Stable Diffusion and SDXL: text to image, image to image, inpainting, ControlNet."""

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from unitok.baselines.asking import check_request
from unitok.baselines.diffusion import (
    BATCH_SIZE,
    BY_ALL,
    SCHEDULERS,
    Diffusion,
    Job,
    check_size,
    negatives_of,
    prompts_of,
)
from unitok.baselines.pipelines import as_pipeline, open_controlnet
from unitok.checkpoints.folders import find_folder
from unitok.pictures import PictureLike, open_picture
from unitok.preparer import as_list
from unitok.requests import Draw, Edit, Option
from unitok.results import DrawResult, pixels_of
from unitok.shown import shown
from unitok.signatures import one_or_many

DEFAULT_STEPS = 50  # of all these pipelines


@dataclass(frozen=True)
class DiffusionEdit(Edit):
    """An `Edit` with what Stable Diffusion takes beside it.

    Attributes:
        mask: White where the picture is painted anew, black where it stays.
        control: What a ControlNet is shown.
        negative_prompt: What guidance steers away from.
    """

    _: KW_ONLY
    mask: PictureLike | None = None
    control: PictureLike | None = None
    negative_prompt: Annotated[
        str | None, Option("What guidance steers away from.", metavar="TEXT", unset="")
    ] = None


class StableDiffusion(Diffusion):
    """A folder of Stable Diffusion or SDXL, with or without a ControlNet.

    The one picture in `images` of a drawing is shown to the ControlNet. The `freedom` of an edit is
    the strength of diffusers, above 0 and up to 1.
    """

    honoured = frozenset({"guidance", "negative_prompt", "width", "height", "freedom"})
    schedulers = tuple(SCHEDULERS)

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        *,
        controlnet: str | os.PathLike[str] | None = None,
        strength: float | None = None,
        steps: int | None = None,
        scheduler: str | None = None,
        dtype: str = "auto",
        batch_size: int = BATCH_SIZE,
        bars: bool = False,
    ) -> None:
        """Open the pipeline of a folder.

        Args:
            folder: It holds model_index.json.
            device: "auto" is a GPU if there is one.
            controlnet: The folder or hub id of a ControlNet.
            strength: The freedom of edits that do not say theirs; None for the pipeline's own.
            steps: This and those that follow are as `Diffusion` has them.
            scheduler: A name of `SCHEDULERS`.
            dtype: The type to compute in.
            batch_size: The most pictures that are made at once.
            bars: Whether diffusers shows a bar of the steps.

        Raises:
            FileNotFoundError: There is no such ControlNet.
            ValueError, ImportError: As `Diffusion`.
        """
        check_strength(strength)
        super().__init__(
            folder,
            device,
            steps=steps,
            scheduler=scheduler,
            dtype=dtype,
            batch_size=batch_size,
            bars=bars,
        )
        self._strength = strength
        self._pipelines: dict[str, Any] = {}  # by their class
        self._controlnet = getattr(self._pipeline, "controlnet", None)
        if controlnet is not None:
            found = find_folder(controlnet, what="a ControlNet")
            self._controlnet = open_controlnet(found, self._dtype)

    @one_or_many(DiffusionEdit)
    def edit(self, asked: Sequence[Edit]) -> list[DrawResult]:
        """Change a picture as a prompt says. A list of pictures is edited in batches.

        The result has the picture's size, rounded down to what the model can make. With a `mask`,
        what is white in it is painted anew.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A picture cannot be opened, the prompt is empty, or an option is out of its
                range or cannot be honoured.
            RuntimeError: The model failed, or it is closed.
        """
        return self._all(asked)

    def close(self) -> None:
        """Free the models. Closing again does nothing."""
        super().close()
        self._controlnet, self._pipelines = None, {}

    @property
    def _multiple(self) -> int:
        return self._pipeline.vae_scale_factor

    def _check(self, asked: object) -> None:
        kind = type(asked) if isinstance(asked, Edit) else Draw
        check_request(asked, kind, self.honoured | BY_ALL, self.name)

    def _shown(self, job: Job) -> Job:
        pictures = (
            self._drawn(job.asked) if isinstance(job.asked, Draw) else self._edited(job.asked)
        )
        self._check_fits(pictures)
        follows = "control_image" in pictures
        kind = "Inpaint" if "mask_image" in pictures else "Img2Img" if "image" in pictures else ""
        if follows and not kind:
            pictures = {"image": pictures["control_image"]}
        family = "StableDiffusionXL" if "XL" in type(self._pipeline).__name__ else "StableDiffusion"
        name = f"{family}{'ControlNet' if follows else ''}{kind}Pipeline"
        # Image to image takes no size, and has that of the picture.
        own = pictures["image"].size if kind and (follows or kind == "Inpaint") else job.size
        return replace(job, pictures=pictures, pipeline=name, size=own)

    def _drawn(self, asked: Draw) -> dict[str, Image.Image]:
        images = as_list(asked.images)
        if len(images) > 1:
            raise ValueError(f"images: a ControlNet is shown one picture, not {len(images)}")
        return {"control_image": self._control(images[0])} if images else {}

    def _edited(self, asked: Edit) -> dict[str, Image.Image]:
        self._check_steps(asked)
        image = open_picture(asked.image)
        pictures = {"image": self._fitted(image)}
        if (mask := getattr(asked, "mask", None)) is not None:
            pictures["mask_image"] = self._fitted(mask_of(mask, image))
        if (control := getattr(asked, "control", None)) is not None:
            pictures["control_image"] = self._control(control)
        return pictures

    def _check_fits(self, pictures: dict[str, Image.Image]) -> None:
        """Check that the model was trained for what is asked; ValueError if it was not."""
        parts = self._pipeline
        if parts.unet.config.in_channels != parts.vae.config.latent_channels:
            if "mask_image" not in pictures:
                raise ValueError(f"{self.name} only inpaints: edit(image, prompt, mask=...)")
        elif parts.text_encoder is None and "image" not in pictures:
            raise ValueError(f"{self.name} only refines pictures: edit(image, prompt)")

    def _check_steps(self, asked: Edit) -> None:
        check_strength(asked.freedom)
        strength, steps = self._strength_of(asked), self._steps or DEFAULT_STEPS
        if strength is not None and int(steps * strength) < 1:
            raise ValueError(f"freedom {strength:g} of {steps} steps leaves none: give more")

    def _strength_of(self, asked: Edit) -> float | None:
        return self._strength if asked.freedom is None else asked.freedom

    def _control(self, source: PictureLike) -> Image.Image:
        if self._controlnet is None:
            raise ValueError("a picture to follow needs a ControlNet: load with controlnet=FOLDER")
        return self._fitted(open_picture(source))

    def _fitted(self, image: Image.Image) -> Image.Image:
        """A picture of the nearest smaller size that the model can make."""
        width, height = (max(1, side // self._multiple) * self._multiple for side in image.size)
        check_size((width, height), self._multiple)
        return image if image.size == (width, height) else image.resize((width, height))

    def _as(self, name: str) -> Any:
        """The pipeline of a class, which shares its parts with the folder's own."""
        if name not in self._pipelines:
            made = as_pipeline(self._pipeline, name, controlnet=self._controlnet)
            self._pipelines[name] = self._ready(made)
        return self._pipelines[name]

    def _paint(self, samples: Sequence[Job]) -> list[Image.Image | None]:
        first = samples[0]
        width, height = first.size or (None, None)
        made = self._call(
            self._as(first.pipeline),
            samples,
            prompt=prompts_of(samples),
            negative_prompt=negatives_of(samples),
            strength=self._strength_of(first.asked) if isinstance(first.asked, Edit) else None,
            width=width,
            height=height,
            **{name: [s.pictures[name] for s in samples] for name in first.pictures},
        )
        refused = getattr(made, "nsfw_content_detected", None) or [False] * len(samples)
        return [None if bad else image for image, bad in zip(made.images, refused, strict=True)]


def mask_of(source: PictureLike, image: Image.Image) -> Image.Image:
    """A mask in shades of grey.

    Raises:
        ValueError: It has not the size of its picture.
    """
    mask = open_picture(source)
    if mask.size != image.size:
        raise ValueError(f"the mask has {pixels_of(mask)}, and its picture {pixels_of(image)}")
    return mask.convert("L")


def check_strength(strength: float | None) -> None:
    """Check how far an edit may go; ValueError if it is not above 0 and up to 1."""
    if strength is not None and not 0 < strength <= 1:
        raise ValueError(f"freedom must be above 0 and at most 1, not {shown(strength)}")
