"""Generators that take a prompt alone: DiT, DDPM, unCLIP, Wan for clips, and one of our own."""

import difflib
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from unitok.baselines.diffusion import (
    SCHEDULERS,
    Diffusion,
    Job,
    generators_of,
    given,
    negatives_of,
    prompts_of,
)
from unitok.baselines.pipelines import as_pipeline
from unitok.baselines.protocols import Video
from unitok.requests import Draw
from unitok.shown import shown

MAX_FRAMES = 257


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
            raise ValueError(f"{self.name}: DiT gives its {own} no seed: give scheduler='ddim'")

    def _paint(self, samples: Sequence[Job]) -> list[Image.Image]:
        labels = [self._class_of(prompt) for prompt in prompts_of(samples)]
        return self._call(self._pipeline, samples, class_labels=labels).images


class DDPM(Diffusion):
    """DDPM and DDIM without a condition. The prompt must be empty."""

    schedulers = ("ddim", "ddpm", "dpm")

    def _ready(self, pipeline: Any) -> Any:
        return super()._ready(as_pipeline(pipeline, "DDPMPipeline"))

    def _check_prompt(self, prompt: str) -> None:
        if prompt.strip():
            raise ValueError(f"{self.name} draws without a prompt: give an empty one")

    def _paint(self, samples: Sequence[Job]) -> list[Image.Image]:
        return self._call(self._pipeline, samples, batch_size=len(samples)).images


class UnCLIP(Diffusion):
    """unCLIP, as DALL-E 2 is: a prior, a decoder, and two networks for more pixels.

    Steps and guidance are those of the prior and of the decoder.
    """

    honoured = frozenset({"guidance"})

    def _paint(self, samples: Sequence[Job]) -> list[Image.Image]:
        guidance = samples[0].asked.guidance
        options = given(
            prior_num_inference_steps=self._steps,
            decoder_num_inference_steps=self._steps,
            prior_guidance_scale=guidance,
            decoder_guidance_scale=guidance,
        )
        noise = generators_of(samples)
        return self._pipeline(prompts_of(samples), generator=noise, **options).images


class Pixels(Diffusion):
    """`PixelPipeline`: text to image without an autoencoder, as the trained baseline is."""

    honoured = frozenset({"guidance"})

    def _paint(self, samples: Sequence[Job]) -> list[Image.Image]:
        return self._call(self._pipeline, samples, prompt=prompts_of(samples)).images


class Wan(Diffusion):
    """Wan: text to video. `draw` makes clips of one frame, and `film` longer ones."""

    honoured = frozenset({"guidance", "negative_prompt", "width", "height"})
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
        job = self._job(Draw(prompt, **options))
        step = self._pipeline.vae_scale_factor_temporal
        if not 1 <= frames <= MAX_FRAMES or (frames - 1) % step:
            wanted = f"one more than a multiple of {step}, up to {MAX_FRAMES}"
            raise ValueError(f"frames must be {wanted}, not {shown(frames)}")
        if len(job.seeds) > 1:
            raise ValueError(f"film makes one clip, not {len(job.seeds)}: leave out n")
        return Video(tuple(self._clips([job], frames)[0]), self.rate)

    @property
    def _multiple(self) -> int:
        patch = self._pipeline.transformer.config.patch_size
        return self._pipeline.vae_scale_factor_spatial * max(*patch)

    def _paint(self, samples: Sequence[Job]) -> list[Image.Image]:
        return [clip[0] for clip in self._clips(samples, 1)]

    def _clips(self, samples: Sequence[Job], frames: int) -> list[list[Image.Image]]:
        width, height = samples[0].size or (None, None)
        return self._call(
            self._pipeline,
            samples,
            prompt=prompts_of(samples),
            negative_prompt=negatives_of(samples),
            num_frames=frames,
            width=width,
            height=height,
            output_type="pil",
        ).frames
