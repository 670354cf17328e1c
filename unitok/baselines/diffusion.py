"""What the generators of diffusers share: requests in, pictures out, in batches."""

import time
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from unitok.api import checked
from unitok.baselines.adapter import batches, check_seeds
from unitok.baselines.asking import BatchRunner
from unitok.baselines.parts import find_dtype
from unitok.baselines.pipelines import open_pipeline
from unitok.extras import need
from unitok.preparer import as_list, check_text, pick_seed
from unitok.requests import Draw, Edit
from unitok.results import DrawResult, Picture, failure
from unitok.shown import shown
from unitok.signatures import one_or_many

BATCH_SIZE = 4
MAX_STEPS = 1000
MAX_PIXELS = 2**22
BY_ALL = frozenset({"prompt", "seed", "n"})
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


@dataclass(frozen=True)
class Job:
    """A request that was checked, and its pictures opened; or one of its samples.

    Attributes:
        asked: The request.
        seeds: One for each picture.
        size: Width and height of the result; None for the pipeline's own.
        pictures: What the pipeline is shown, by the names of its arguments.
        task: What diffusers calls what is done: "Text2Image", "Image2Image" or "Inpainting".
        follows: Whether a ControlNet is shown a picture.
        strength: How far an edit may go, in (0, 1]; None for the pipeline's own.
    """

    asked: Draw | Edit
    seeds: tuple[int, ...]
    size: tuple[int, int] | None = None
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    task: str = "Text2Image"
    follows: bool = False
    strength: float | None = None

    @property
    def negative_prompt(self) -> str | None:
        """What guidance steers away from."""
        return getattr(self.asked, "negative_prompt", None)

    @property
    def key(self) -> Hashable:
        """What is the same for all jobs of a batch."""
        sizes = tuple((name, image.size) for name, image in self.pictures.items())
        options = self.asked.guidance, self.negative_prompt is None, self.strength
        return *options, self.size, sizes, self.task, self.follows


class Diffusion(BatchRunner):
    """An image generator of diffusers. The picture of a seed is the same alone or in a batch.

    The first picture of a request has the request's seed, and each further one the next number.
    """

    takes = (Draw,)
    honoured = BY_ALL
    schedulers: ClassVar[tuple[str, ...]] = ()  # that may be chosen
    stages: ClassVar[tuple[str, ...]] = ("",)  # before the names of steps and guidance
    gpu_dtype: ClassVar[torch.dtype] = torch.float16

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        *,
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
            steps: How often noise is taken away; None for the pipeline's own number.
            scheduler: A name of `SCHEDULERS`; None for the folder's own.
            dtype: The type to compute in; "auto" is float32 on a CPU, and half of it on a GPU.
            batch_size: The most pictures that are made at once.
            bars: Whether diffusers shows a bar of the steps.

        Raises:
            ValueError: A part is missing or of a foreign class, or an option cannot be honoured.
            ImportError: diffusers or transformers is not installed.
        """
        if steps is not None and not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"steps must be from 1 to {MAX_STEPS}, not {shown(steps)}")
        super().__init__(folder, device, batch_size)
        self._steps, self._bars = steps, bars
        self._dtype = find_dtype(dtype, self.device, self.gpu_dtype)
        self._model = self._ready(open_pipeline(folder, self._dtype))
        self._choose_scheduler(scheduler)

    @one_or_many(Draw)
    def draw(self, asked: Sequence[Draw]) -> list[DrawResult]:
        """Generate pictures of a prompt. A list of prompts is drawn in batches.

        Raises:
            ValueError: A prompt is none of this model's, or an option is out of its range or cannot
                be honoured.
            RuntimeError: The model failed, or it is closed.
        """
        return self._all(asked)

    # -- what differs between pipelines

    def _check_prompt(self, prompt: str) -> None:
        check_text(prompt, "the prompt")

    @property
    def _multiple(self) -> int:
        """What width and height are multiples of."""
        return 1

    def _shown(self, job: Job) -> Job:
        """The job with the pictures that it shows; ValueError if they cannot be shown."""
        if as_list(getattr(job.asked, "images", ())):
            raise ValueError(f"{self.name} is shown no pictures: leave out images")
        return job

    def _arguments(self, samples: Sequence[Job]) -> dict[str, Any]:
        """What the pipeline is called with, beside steps, guidance and noise."""
        negatives = [text for sample in samples if (text := sample.negative_prompt) is not None]
        width, height = samples[0].size or (None, None)
        return {
            "prompt": [sample.asked.prompt for sample in samples],
            "negative_prompt": negatives or None,
            "width": width,
            "height": height,
        }

    def _pipeline(self, job: Job) -> Any:
        """The pipeline that does a job."""
        return self._model

    # -- what all do

    def _ready(self, pipeline: Any) -> Any:
        pipeline.set_progress_bar_config(disable=not self._bars, leave=False)
        return pipeline.to(self.device)

    def _choose_scheduler(self, name: str | None) -> None:
        if name is None:
            return
        if name not in self.schedulers:
            known = f"one of {', '.join(self.schedulers)}" if self.schedulers else "left out"
            raise ValueError(f"scheduler of {self.name} must be {known}, not {shown(name)}")
        made = getattr(need("diffusers", "baselines"), SCHEDULERS[name])
        self._model.scheduler = made.from_config(self._model.scheduler.config)

    def _all(self, asked: Sequence[Draw | Edit]) -> list[DrawResult]:
        return [*map(checked, super()._all(asked))]

    def _key(self, asked: Draw | Edit) -> Hashable:
        return self._job(asked).key

    def _job(self, asked: Draw | Edit) -> Job:
        """The job of a request.

        Raises:
            ValueError, TypeError, OSError: The request cannot be honoured.
        """
        self._check(asked)
        self._check_prompt(asked.prompt)
        if asked.guidance is not None and asked.guidance < 1:
            raise ValueError(f"guidance must be 1 or more, not {asked.guidance:g}")
        job = Job(asked, seeds_of(asked), getattr(asked, "size", None))
        if asked.guidance == 1 and job.negative_prompt is not None:
            raise ValueError("negative_prompt does nothing at guidance 1: leave it out")
        if job.size is not None:
            check_size(job.size, self._multiple)
        return self._shown(job)

    def _answer(self, asked: Sequence[Draw | Edit]) -> list[Any]:
        start, jobs = time.monotonic(), [self._job(one) for one in asked]
        samples = [replace(job, seeds=(seed,)) for job in jobs for seed in job.seeds]
        painted = [self._paint(batch) for batch in batches(samples, self.batch_size)]
        images = (image for batch in painted for image in batch)
        seconds = time.monotonic() - start
        return [self._result(job, [next(images) for _ in job.seeds], seconds) for job in jobs]

    def _paint(self, samples: Sequence[Job]) -> Sequence[Image.Image | None]:
        """The picture of each sample; None where a safety checker refuses it."""
        made = self._call(samples)
        refused = getattr(made, "nsfw_content_detected", None) or [False] * len(samples)
        return [None if bad else image for image, bad in zip(made.images, refused, strict=True)]

    def _call(self, samples: Sequence[Job], **more: Any) -> Any:
        """What the pipeline makes of samples. An option that is None is left to the pipeline."""
        options = self._arguments(samples) | more
        for stage in self.stages:
            options[f"{stage}num_inference_steps"] = self._steps
            options[f"{stage}guidance_scale"] = samples[0].asked.guidance
        # Each sample has its own noise, which no other changes.
        noise = [torch.Generator().manual_seed(sample.seeds[0]) for sample in samples]
        given = {name: value for name, value in options.items() if value is not None}
        with warnings.catch_warnings():
            # Else pixels that are no numbers become black ones.
            warnings.filterwarnings("error", "invalid value encountered in cast", RuntimeWarning)
            try:
                return self._pipeline(samples[0])(generator=noise, **given)
            except RuntimeWarning:
                raise ValueError(
                    f"{self.name} computes pixels that are not numbers: its weights are damaged, "
                    "or want float32"
                ) from None

    def _result(self, job: Job, images: Sequence[Image.Image | None], seconds: float) -> Any:
        refused, prompt = ValueError("the safety checker refuses a picture"), job.asked.prompt
        info = {"prompt": prompt, "model": self.name, "sample": "0"}
        wrapped: list[Image.Image] = []
        for seed, image in zip(job.seeds, images, strict=True):
            if image is None:
                return failure(job.asked, 0, refused)
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
            wrapped.append(Picture.wrap(pixels, info | {"seed": str(seed)}))
        first, made = job.seeds[0], tuple(wrapped)
        return DrawResult(
            prompt, made, first, "complete", 0, 0, seconds, job.asked, seeds=job.seeds
        )


def seeds_of(asked: Draw | Edit) -> tuple[int, ...]:
    """A seed for each picture of a request.

    Raises:
        ValueError: One does not fit in 64 bits.
    """
    first = pick_seed(asked.seed) if not isinstance(asked.seed, Sequence) else 0
    seeds = asked.seeds or tuple(range(first, first + asked.samples))
    check_seeds(*seeds)
    return seeds


def check_size(size: tuple[int, int], multiple: int) -> None:
    """Check the size of a picture that is to be made.

    Raises:
        ValueError: It has too many pixels, or a side is no multiple.
    """
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
    if width % multiple or height % multiple:
        raise ValueError(f"width and height must be multiples of {multiple}: {width} x {height}")
