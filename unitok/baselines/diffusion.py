"""What the generators of diffusers share: requests in, pictures out, in batches."""

import time
from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from unitok.api import checked
from unitok.baselines.asking import answer_all, check_request, run_in_batches
from unitok.baselines.batches import batches
from unitok.baselines.extra import need
from unitok.baselines.pipelines import open_pipeline
from unitok.loading import check_device
from unitok.precision import parse_dtype
from unitok.preparer import as_list, check_text, pick_seed
from unitok.requests import Draw, Edit
from unitok.results import DrawResult, Picture, failure
from unitok.shown import shown
from unitok.signatures import one_or_many

BATCH_SIZE = 4
MAX_STEPS = 1000
MAX_PIXELS = 2**22
SEEDS = range(-(2**63), 2**64)
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
        pipeline: The class that runs it, if it is not the folder's own.
    """

    asked: Draw | Edit
    seeds: tuple[int, ...]
    size: tuple[int, int] | None = None
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    pipeline: str = ""

    @property
    def negative_prompt(self) -> str | None:
        """What guidance steers away from."""
        return getattr(self.asked, "negative_prompt", None)

    @property
    def key(self) -> Hashable:
        """What is the same for all jobs of a batch."""
        sizes = tuple((name, image.size) for name, image in self.pictures.items())
        known = (self.asked.guidance, self.negative_prompt is None)
        return *known, self.size, sizes, self.pipeline, getattr(self.asked, "freedom", None)


class Diffusion:
    """An image generator of diffusers. The picture of a seed is the same alone or in a batch.

    The first picture of a request has the request's seed, and each further one the next number.

    Attributes:
        folder: Where the pipeline lies.
        device: Where it computes.
        batch_size: The most pictures that are made at once.
    """

    honoured: ClassVar[frozenset[str]] = frozenset()  # options of requests, beside those of all
    schedulers: ClassVar[tuple[str, ...]] = ()  # that may be chosen
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
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {shown(batch_size)}")
        self.folder, self.batch_size, self._steps, self._bars = folder, batch_size, steps, bars
        self.device = check_device(None if device == "auto" else device)
        own = torch.float32 if self.device.startswith("cpu") else self.gpu_dtype
        self._dtype = parse_dtype(dtype) or own
        self._pipeline: Any = self._ready(open_pipeline(folder, self._dtype))
        self._choose_scheduler(scheduler)

    @property
    def name(self) -> str:
        """The folder's name; for a hub id, that of the repository."""
        folder = self.folder.resolve()
        return folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name

    @one_or_many(Draw)
    def draw(self, asked: Sequence[Draw]) -> list[DrawResult]:
        """Generate pictures of a prompt. A list of prompts is drawn in batches.

        Raises:
            ValueError: A prompt is none of this model's, or an option is out of its range or cannot
                be honoured.
            RuntimeError: The model failed, or it is closed.
        """
        return self._all(asked)

    def run(self, requests: Iterable[Draw | Edit]) -> Generator[DrawResult]:
        """Results as they finish, each with its `index` and its `request`.

        A request that fails gives a result with the finish reason "error" and an `error`. The
        others go on.

        Raises:
            TypeError: The requests are no list or other iterable of requests.
        """
        return run_in_batches(self._answer, requests, self.batch_size, self._key)

    def close(self) -> None:
        """Free the model. Closing again does nothing."""
        self._pipeline = None

    # -- what differs between pipelines

    def _check(self, asked: object) -> None:
        check_request(asked, Draw, self.honoured | BY_ALL, self.name)

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

    def _paint(self, samples: Sequence[Job]) -> Sequence[Image.Image | None]:
        """The picture of each sample; None where the safety checker refuses it."""
        raise NotImplementedError

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
        made = getattr(need("diffusers"), SCHEDULERS[name])
        self._pipeline.scheduler = made.from_config(self._pipeline.scheduler.config)

    def _all(self, asked: Sequence[Draw | Edit]) -> list[DrawResult]:
        return [*map(checked, answer_all(self._answer, asked, self.batch_size, self._key))]

    def _key(self, asked: Draw | Edit) -> Hashable:
        return self._job(asked).key

    def _job(self, asked: Draw | Edit) -> Job:
        """The job of a request.

        Raises:
            ValueError, TypeError, OSError: The request cannot be honoured.
            RuntimeError: The model is closed.
        """
        if self._pipeline is None:
            raise RuntimeError(f"{self.name} is closed")
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
        """The results of requests that have the same key."""
        start, jobs = time.monotonic(), [self._job(one) for one in asked]
        samples = [replace(job, seeds=(seed,)) for job in jobs for seed in job.seeds]
        painted = [self._paint(batch) for batch in batches(samples, self.batch_size)]
        images = (image for batch in painted for image in batch)
        seconds = time.monotonic() - start
        return [self._result(job, [next(images) for _ in job.seeds], seconds) for job in jobs]

    def _result(self, job: Job, images: Sequence[Image.Image | None], seconds: float) -> Any:
        info = {"prompt": job.asked.prompt, "model": self.name, "sample": "0"}
        wrapped = [
            Picture.wrap(pixels_of(image), {**info, "seed": str(seed)})
            for seed, image in zip(job.seeds, images, strict=True)
            if image is not None
        ]
        if len(wrapped) < len(images):
            return failure(job.asked, 0, ValueError("the safety checker refuses a picture"))
        return DrawResult(
            prompt=job.asked.prompt,
            images=tuple(wrapped),
            seed=job.seeds[0],
            finish_reason="complete",
            prompt_tokens=0,
            completion_tokens=0,
            seconds=seconds,
            request=job.asked,
            seeds=job.seeds,
        )

    def _call(self, pipeline: Any, samples: Sequence[Job], **options: Any) -> Any:
        """What a pipeline makes of samples; an option that is None is left to the pipeline."""
        guidance = samples[0].asked.guidance
        known = given(num_inference_steps=self._steps, guidance_scale=guidance, **options)
        return pipeline(generator=generators_of(samples), **known)


def pixels_of(image: Image.Image) -> torch.Tensor:
    """The bytes of an image [H, W, 3]."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def seeds_of(asked: Draw | Edit) -> tuple[int, ...]:
    """A seed for each picture of a request.

    Raises:
        ValueError: One does not fit in 64 bits.
    """
    first = pick_seed(asked.seed) if not isinstance(asked.seed, Sequence) else 0
    seeds = asked.seeds or tuple(range(first, first + asked.samples))
    if not all(seed in SEEDS for seed in seeds):
        raise ValueError("seed must fit in 64 bits, and so must those of further pictures")
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


def prompts_of(samples: Sequence[Job]) -> list[str]:
    """The prompt of each sample."""
    return [sample.asked.prompt for sample in samples]


def negatives_of(samples: Sequence[Job]) -> list[str] | None:
    """The negative prompt of each sample; None if they have none."""
    return [text for sample in samples if (text := sample.negative_prompt) is not None] or None


def generators_of(samples: Sequence[Job]) -> list[torch.Generator]:
    """A source of noise for each sample, which no other sample changes."""
    return [torch.Generator().manual_seed(sample.seeds[0]) for sample in samples]


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None, which would override a pipeline's own."""
    return {name: value for name, value in options.items() if value is not None}
