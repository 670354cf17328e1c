"""Generators that take a prompt alone: DiT, DDPM, unCLIP, Wan for clips, and one of our own."""

import difflib
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from unitok.baselines.diffusion import BY_ALL, SCHEDULERS, Diffusion, Job
from unitok.baselines.protocols import Video
from unitok.extras import need
from unitok.requests import Draw
from unitok.shown import shown

MAX_FRAMES = 257


class DiT(Diffusion):
    """DiT: pictures of a class. The prompt is the class's name, or its number."""

    honoured = BY_ALL | {"guidance"}
    schedulers = ("ddim", "dpm", "euler", "heun", "pndm", "unipc")  # those without noise

    def _check_prompt(self, prompt: str) -> None:
        self._class_of(prompt)

    def _class_of(self, prompt: str) -> int:
        """The number of a class.

        Raises:
            ValueError: There is no such class.
        """
        name, classes = prompt.strip(), self._model.transformer.config.num_embeds_ada_norm
        known = {str(number): number for number in range(classes)} | self._model.labels
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, self._model.labels, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        wanted = f"the name of a class, or a number below {classes}"
        raise ValueError(f"the prompt must be {wanted}, not {shown(prompt)}{hint}")

    def _choose_scheduler(self, name: str | None) -> None:
        super()._choose_scheduler(name)
        own = type(self._model.scheduler).__name__
        if own not in {SCHEDULERS[name] for name in self.schedulers}:
            raise ValueError(f"{self.name}: DiT gives its {own} no seed: give scheduler='ddim'")

    def _arguments(self, samples: Sequence[Job]) -> dict[str, Any]:
        return {"class_labels": [self._class_of(sample.asked.prompt) for sample in samples]}


class DDPM(Diffusion):
    """DDPM and DDIM without a condition. The prompt must be empty."""

    schedulers = ("ddim", "ddpm", "dpm")

    def _ready(self, pipeline: Any) -> Any:
        return super()._ready(
            need("diffusers", "baselines").DDPMPipeline(pipeline.unet, pipeline.scheduler)
        )

    def _check_prompt(self, prompt: str) -> None:
        if prompt.strip():
            raise ValueError(f"{self.name} draws without a prompt: give an empty one")

    def _arguments(self, samples: Sequence[Job]) -> dict[str, Any]:
        return {"batch_size": len(samples)}


class UnCLIP(Diffusion):
    """unCLIP, as DALL-E 2 is: a prior, a decoder, and two networks for more pixels.

    Steps and guidance are those of the prior and of the decoder.
    """

    honoured = BY_ALL | {"guidance"}
    stages = ("prior_", "decoder_")


class Pixels(Diffusion):
    """`PixelPipeline`: text to image without an autoencoder, as the trained baseline is."""

    honoured = BY_ALL | {"guidance"}


class Wan(Diffusion):
    """Wan: text to video. `draw` makes clips of one frame, and `film` longer ones."""

    honoured = BY_ALL | {"guidance", "negative_prompt", "width", "height"}
    gpu_dtype = torch.bfloat16
    rate: ClassVar[float] = 16.0  # frames in a second, as it was trained

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
        job, step = self._job(Draw(prompt, **options)), self._model.vae_scale_factor_temporal
        if not 1 <= frames <= MAX_FRAMES or (frames - 1) % step:
            wanted = f"one more than a multiple of {step}, up to {MAX_FRAMES}"
            raise ValueError(f"frames must be {wanted}, not {shown(frames)}")
        if len(job.seeds) > 1:
            raise ValueError(f"film makes one clip, not {len(job.seeds)}: leave out n")
        return Video(tuple(self._clips([job], frames)[0]), self.rate)

    @property
    def _multiple(self) -> int:
        patch = self._model.transformer.config.patch_size
        return self._model.vae_scale_factor_spatial * max(*patch)

    def _arguments(self, samples: Sequence[Job]) -> dict[str, Any]:
        return super()._arguments(samples) | {"output_type": "pil"}

    def _paint(self, samples: Sequence[Job]) -> list[Image.Image]:
        return [clip[0] for clip in self._clips(samples, 1)]

    def _clips(self, samples: Sequence[Job], frames: int) -> list[list[Image.Image]]:
        return self._call(samples, num_frames=frames).frames
