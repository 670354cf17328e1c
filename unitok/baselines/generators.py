"""Image generators of diffusers: Stable Diffusion, DiT, DDPM, unCLIP and Wan."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image

from unitok.baselines.diffusion import (
    SCHEDULERS,
    Diffusion,
    Job,
    Sample,
    check_size,
    generators_of,
    given,
    prompts_of,
    seeds_of,
)
from unitok.baselines.pipelines import as_pipeline, open_controlnet
from unitok.baselines.protocols import Video
from unitok.checkpoints.folders import find_folder
from unitok.pictures import PictureLike, open_picture
from unitok.preparer import as_list
from unitok.requests import Draw, Edit, Option
from unitok.results import DrawResult, pixels_of
from unitok.shown import shown
from unitok.signatures import one_or_many

MAX_FRAMES = 257
DEFAULT_STEPS = 50  # of Stable Diffusion's pipelines


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
    """Stable Diffusion and SDXL: text to image, image to image, inpainting, ControlNet.

    A drawing with `images` shows the ControlNet this one picture. The `freedom` of an edit is the
    strength of diffusers, above 0 and up to 1.
    """

    honoured = frozenset({"guidance", "negative_prompt", "width", "height", "freedom"})
    schedulers = tuple(SCHEDULERS)
    edits = True

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
            ValueError, ImportError: As `Diffusion`.
        """
        super().__init__(folder, device, **options)
        self._strength = strength
        check_strength(strength)
        self._others: dict[str, Any] = {}  # pipelines by their class
        self._controlnet = getattr(self._pipeline, "controlnet", None)
        if controlnet is not None:
            found = find_folder(controlnet, what="a ControlNet")
            self._controlnet = open_controlnet(found, self._dtype).to(self._device)

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
        self._controlnet, self._others = None, {}

    @property
    def _multiple(self) -> int:
        return self._pipeline.vae_scale_factor

    @property
    def _family(self) -> str:
        return (
            "StableDiffusionXL" if self._kind.startswith("StableDiffusionXL") else "StableDiffusion"
        )

    def _job(self, asked: Draw | Edit, index: int = 0) -> Job:
        self._check(asked)
        if isinstance(asked, Edit):
            return self._edit_job(asked, index)
        return self._draw_job(asked, index)

    def _draw_job(self, asked: Draw, index: int) -> Job:
        self._check_draws()
        pictures = {}
        if control := as_list(asked.images):
            if len(control) > 1:
                raise ValueError(f"images: a ControlNet is shown one picture, not {len(control)}")
            pictures["image"] = self._control(control[0])
        kind = "ControlNet" if control else ""
        return self._new_job(asked, index, kind, pictures, asked.size)

    def _edit_job(self, asked: Edit, index: int) -> Job:
        self._check_steps(asked.freedom)
        image = open_picture(asked.image)
        pictures = {"image": self._fitted(image)}
        mask, control = getattr(asked, "mask", None), getattr(asked, "control", None)
        self._check_mask(mask)
        if mask is not None:
            pictures["mask_image"] = self._fitted(mask_of(mask, image))
        if control is not None:
            pictures["control_image"] = self._control(control)
        kind = ("" if control is None else "ControlNet") + (
            "Img2Img" if mask is None else "Inpaint"
        )
        # Image to image takes no size, and has that of the picture.
        size = None if kind == "Img2Img" else pictures["image"].size
        return self._new_job(asked, index, kind, pictures, size)

    def _new_job(
        self,
        asked: Draw | Edit,
        index: int,
        kind: str,
        pictures: dict[str, Image.Image],
        size: tuple[int, int] | None,
    ) -> Job:
        if size is not None:
            check_size(size, self._multiple)
        name = f"{self._family}{kind}Pipeline"
        return Job(asked, index, seeds_of(asked), pictures, size, name)

    def _check_draws(self) -> None:
        if self._inpaints_only:
            raise ValueError(f"{self.name} only inpaints: edit(image, prompt, mask=...)")
        if self._pipeline.text_encoder is None:
            raise ValueError(f"{self.name} only refines pictures: edit(image, prompt)")

    def _check_mask(self, mask: PictureLike | None) -> None:
        if mask is None and self._inpaints_only:
            raise ValueError(f"{self.name} only inpaints: give a mask, white where it shall paint")

    @property
    def _inpaints_only(self) -> bool:
        parts = self._pipeline
        return parts.unet.config.in_channels != parts.vae.config.latent_channels

    def _check_steps(self, freedom: float | None) -> None:
        check_strength(freedom)
        strength = self._strength if freedom is None else freedom
        steps = self._steps or DEFAULT_STEPS
        if strength is not None and int(steps * strength) < 1:
            raise ValueError(
                f"freedom {strength:g} of {steps} steps leaves none: give more of either"
            )

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
        if name not in self._others:
            made = as_pipeline(self._pipeline, name, controlnet=self._controlnet)
            self._others[name] = self._ready(made)
        return self._others[name]

    def _paint(self, samples: Sequence[Sample]) -> list[Any]:
        job = samples[0].job
        width, height = job.size or (None, None)
        negative = [sample.job.negative_prompt for sample in samples]
        strength = self._strength if job.strength is None else job.strength
        pictures = {name: [s.job.pictures[name] for s in samples] for name in job.pictures}
        made = self._call(
            self._as(job.pipeline),
            samples,
            prompt=prompts_of(samples),
            negative_prompt=None if negative[0] is None else negative,
            strength=strength if isinstance(job.asked, Edit) else None,
            width=width,
            height=height,
            **pictures,
        )
        refused = getattr(made, "nsfw_content_detected", None) or [False] * len(samples)
        return [None if bad else image for image, bad in zip(made.images, refused, strict=True)]


class DiT(Diffusion):
    """DiT: pictures of a class. The prompt is the class's name, or its number."""

    honoured = frozenset({"guidance"})
    schedulers = ("ddim", "dpm", "euler", "heun", "pndm", "unipc")  # those without noise

    def _check_prompt(self, prompt: str) -> None:
        self._class_of(prompt)

    def _class_of(self, prompt: str) -> int:
        """The number of a class.

        Raises:
            ValueError: There is no such class.
        """
        name, classes = prompt.strip(), self._pipeline.transformer.config.num_embeds_ada_norm
        known = {str(number): number for number in range(classes)} | self._pipeline.labels
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, self._pipeline.labels, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        wanted = f"the name of a class, or a number below {classes}"
        raise ValueError(f"the prompt must be {wanted}, not {shown(prompt)}{hint}")

    def _choose_scheduler(self, name: str | None) -> None:
        super()._choose_scheduler(name)
        own = type(self._pipeline.scheduler).__name__
        if own not in {SCHEDULERS[name] for name in self.schedulers}:
            raise ValueError(f"{self._kind} gives its {own} no seed: give scheduler='ddim'")

    def _paint(self, samples: Sequence[Sample]) -> list[Any]:
        labels = [self._class_of(prompt) for prompt in prompts_of(samples)]
        return self._call(self._pipeline, samples, class_labels=labels).images


class DDPM(Diffusion):
    """DDPM and DDIM without a condition. The prompt must be empty."""

    schedulers = ("ddim", "ddpm", "dpm")

    def _ready(self, pipeline: Any) -> Any:
        return super()._ready(as_pipeline(pipeline, "DDPMPipeline"))

    def _check_prompt(self, prompt: str) -> None:
        if prompt.strip():
            raise ValueError(f"{self._kind} draws without a prompt: give an empty one")

    def _paint(self, samples: Sequence[Sample]) -> list[Any]:
        return self._call(self._pipeline, samples, batch_size=len(samples)).images


class UnCLIP(Diffusion):
    """unCLIP, as DALL-E 2 is: a prior, a decoder, and two networks for more pixels.

    Steps and guidance are those of the prior and of the decoder.
    """

    honoured = frozenset({"guidance"})

    def _paint(self, samples: Sequence[Sample]) -> list[Any]:
        guidance = samples[0].job.asked.guidance
        options = given(
            prior_num_inference_steps=self._steps,
            decoder_num_inference_steps=self._steps,
            prior_guidance_scale=guidance,
            decoder_guidance_scale=guidance,
        )
        return self._pipeline(
            prompt=prompts_of(samples), generator=generators_of(samples), **options
        ).images


class Wan(Diffusion):
    """Wan: text to video. `draw` makes clips of one frame, and `film` longer ones."""

    honoured = frozenset({"guidance", "negative_prompt", "width", "height"})
    gpu_dtype = torch.bfloat16
    rate = 16.0

    def film(self, prompt: str, frames: int = 81, **options: Any) -> Video:
        """Make a clip of a prompt.

        Args:
            prompt: What happens in it.
            frames: How many; one more than a multiple of the model's step in time, which is 4.
            **options: Of `draw`, for one clip.

        Raises:
            ValueError, TypeError, RuntimeError: As `draw`.
        """
        self._check_open()
        job = self._job(Draw(prompt, **options))
        step = self._pipeline.vae_scale_factor_temporal
        if not 1 <= frames <= MAX_FRAMES or frames % step != 1 % step:
            raise ValueError(
                f"frames must be one more than a multiple of {step}, up to {MAX_FRAMES}, not "
                f"{shown(frames)}"
            )
        if len(job.seeds) > 1:
            raise ValueError(f"film makes one clip, not {len(job.seeds)}: leave out n")
        clips = self._clips([Sample(job, *job.seeds)], frames)
        return Video(tuple(clips[0]), self.rate)

    @property
    def _multiple(self) -> int:
        patch = self._pipeline.transformer.config.patch_size
        return self._pipeline.vae_scale_factor_spatial * max(*patch)

    def _paint(self, samples: Sequence[Sample]) -> list[Any]:
        return [clip[0] for clip in self._clips(samples, 1)]

    def _clips(self, samples: Sequence[Sample], frames: int) -> list[list[Image.Image]]:
        job = samples[0].job
        width, height = job.size or (None, None)
        negative = [sample.job.negative_prompt for sample in samples]
        return self._call(
            self._pipeline,
            samples,
            prompt=prompts_of(samples),
            negative_prompt=None if negative[0] is None else negative,
            num_frames=frames,
            width=width,
            height=height,
            output_type="pil",
        ).frames


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
    """Check how far an edit may go; ValueError if it is not in (0, 1]."""
    if strength is not None and not 0 < strength <= 1:
        raise ValueError(f"freedom must be above 0 and at most 1, not {shown(strength)}")
