"""Stable Diffusion and SDXL: text to image, image to image, inpainting, ControlNet."""

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from unitok.baselines.diffusion import BY_ALL, SCHEDULERS, Diffusion, Job, check_size
from unitok.baselines.pipelines import open_controlnet
from unitok.checkpoints.folders import find_folder
from unitok.edit_part import mask_of
from unitok.extras import need
from unitok.pictures import PictureLike, open_picture
from unitok.preparer import as_list
from unitok.requests import Draw, Edit, Option
from unitok.results import DrawResult
from unitok.shown import shown
from unitok.signatures import one_or_many
from unitok_engine.user_warnings import warn

DEFAULT_STEPS = 50  # of all these pipelines


@dataclass(frozen=True)
class DiffusionEdit(Edit):
    """An `Edit` with what Stable Diffusion takes beside it.

    Attributes:
        control: What a ControlNet is shown.
        negative_prompt: What guidance steers away from.
    """

    _: KW_ONLY
    control: PictureLike | None = None
    negative_prompt: Annotated[
        str | None, Option("What guidance steers away from.", metavar="TEXT", unset="")
    ] = None


class StableDiffusion(Diffusion):
    """A folder of Stable Diffusion or SDXL, with or without a ControlNet.

    The one picture in `images` of a drawing is shown to the ControlNet. The `freedom` of an edit is
    the strength of diffusers, above 0 and up to 1.
    """

    takes = (Draw, Edit)
    honoured = BY_ALL | {"guidance", "negative_prompt", "width", "height", "freedom", "mask"}
    schedulers = tuple(SCHEDULERS)

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        *,
        controlnet: str | os.PathLike[str] | None = None,
        strength: float | None = None,
        **options: Any,
    ) -> None:
        """Open the pipeline of a folder.

        Args:
            folder: It holds model_index.json.
            device: "auto" is a GPU if there is one.
            controlnet: The folder or hub id of a ControlNet.
            strength: The freedom of edits that do not say theirs; None for the pipeline's own.
            **options: Of `Diffusion`.

        Raises:
            FileNotFoundError: There is no such ControlNet.
            ValueError, ImportError: As `Diffusion`.
        """
        check_strength(strength)
        super().__init__(folder, device, **options)
        self._strength = strength
        self._pipelines: dict[tuple[str, bool], Any] = {}  # by their task
        self._controlnet = getattr(self._model, "controlnet", None)
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

    def _check_prompt(self, prompt: str) -> None:
        super()._check_prompt(prompt)
        tokenizer = self._model.tokenizer
        tokens, most = len(tokenizer(prompt)["input_ids"]), tokenizer.model_max_length
        if tokens > most:
            warn(f"{prompt[:40]!r}... has {tokens} tokens; {self.name} reads the first {most}")

    @property
    def _multiple(self) -> int:
        return self._model.vae_scale_factor

    def _shown(self, job: Job) -> Job:
        asked = job.asked
        job = self._drawing(job, asked) if isinstance(asked, Draw) else self._edit(job, asked)
        # What the model was trained for.
        parts = self._model
        if parts.unet.config.in_channels != parts.vae.config.latent_channels:
            if job.task != "Inpainting":
                raise ValueError(f"{self.name} only inpaints: edit(image, prompt, mask=...)")
        elif parts.text_encoder is None and job.task == "Text2Image":
            raise ValueError(f"{self.name} only refines pictures: edit(image, prompt)")
        return job

    def _drawing(self, job: Job, asked: Draw) -> Job:
        images = as_list(asked.images)
        if len(images) > 1:
            raise ValueError(f"images: a ControlNet is shown one picture, not {len(images)}")
        if not images:
            return job
        return replace(job, pictures={"image": self._control(images[0])}, follows=True)

    def _edit(self, job: Job, asked: Edit) -> Job:
        strength, image, task = self._strength_of(asked), open_picture(asked.image), "Image2Image"
        pictures = {"image": self._fitted(image)}
        if asked.mask is not None:
            task, pictures["mask_image"] = "Inpainting", self._fitted(mask_of(asked.mask, image))
        if follows := (control := getattr(asked, "control", None)) is not None:
            pictures["control_image"] = self._control(control)
        # Image to image alone takes no size, and has that of the picture.
        size = pictures["image"].size if len(pictures) > 1 else None
        return replace(
            job, pictures=pictures, task=task, follows=follows, size=size, strength=strength
        )

    def _strength_of(self, asked: Edit) -> float | None:
        """How far an edit may go; ValueError if it is too far, or leaves no step."""
        check_strength(asked.freedom)
        strength = self._strength if asked.freedom is None else asked.freedom
        steps = self._steps or DEFAULT_STEPS
        if strength is not None and int(steps * strength) < 1:
            raise ValueError(f"freedom {strength:g} of {steps} steps leaves none: give more")
        return strength

    def _control(self, source: PictureLike) -> Image.Image:
        if self._controlnet is None:
            raise ValueError("a picture to follow needs a ControlNet: load with controlnet=FOLDER")
        return self._fitted(open_picture(source))

    def _fitted(self, image: Image.Image) -> Image.Image:
        """A picture of the nearest smaller size that the model can make."""
        width, height = (max(1, side // self._multiple) * self._multiple for side in image.size)
        check_size((width, height), self._multiple)
        return image if image.size == (width, height) else image.resize((width, height))

    def _pipeline(self, job: Job) -> Any:
        """The pipeline of a task, which shares its parts with the folder's own."""
        place, followed = (job.task, job.follows), self._controlnet if job.follows else None
        if place not in self._pipelines:
            kind = getattr(need("diffusers", "baselines"), f"AutoPipelineFor{job.task}")
            self._pipelines[place] = self._ready(kind.from_pipe(self._model, controlnet=followed))
        return self._pipelines[place]

    def _arguments(self, samples: Sequence[Job]) -> dict[str, Any]:
        shown = {name: [s.pictures[name] for s in samples] for name in samples[0].pictures}
        return super()._arguments(samples) | {"strength": samples[0].strength} | shown


def check_strength(strength: float | None) -> None:
    """Check how far an edit may go; ValueError if it is not above 0 and up to 1."""
    if strength is not None and not 0 < strength <= 1:
        raise ValueError(f"freedom must be above 0 and at most 1, not {shown(strength)}")
