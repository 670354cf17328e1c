"""What the generators of diffusers share: requests in, pictures out, in batches."""

import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from unitok.api import check_several, checked
from unitok.baselines.extra import need
from unitok.baselines.pipelines import open_pipeline
from unitok.loading import check_device
from unitok.precision import parse_dtype
from unitok.preparer import as_list, check_text, pick_seed
from unitok.requests import Draw, Edit, check_ranges, options_of
from unitok.results import DrawResult, Picture, failure
from unitok.shown import shown
from unitok.signatures import one_or_many

MAX_STEPS = 1000
MAX_PIXELS = 2**22
SEEDS = range(-(2**63), 2**64)
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
    """A request that was checked, and its pictures opened.

    Attributes:
        asked: The request.
        index: Its place among those that were given together.
        seeds: One for each picture.
        pictures: What the pipeline is shown, by the names of its arguments.
        size: Width and height of the result; None for the pipeline's own.
        pipeline: The class that runs it.
    """

    asked: Draw | Edit
    index: int
    seeds: tuple[int, ...]
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    pipeline: str = ""

    @property
    def negative_prompt(self) -> str | None:
        """What guidance steers away from."""
        return getattr(self.asked, "negative_prompt", None)

    @property
    def strength(self) -> float | None:
        """How far an edit may go from its picture."""
        return getattr(self.asked, "freedom", None)

    @property
    def settings(self) -> Hashable:
        """What is the same for all jobs of a batch."""
        sizes = tuple((name, image.size) for name, image in self.pictures.items())
        has_negative = self.negative_prompt is not None
        return self.pipeline, self.asked.guidance, has_negative, self.strength, self.size, sizes


@dataclass(frozen=True)
class Sample:
    """One picture of a job."""

    job: Job
    seed: int


class Diffusion:
    """An image generator of diffusers. The picture of a seed is the same alone or in a batch.

    The first picture of a request has the request's seed, and each further one the next number.
    """

    honoured: ClassVar[frozenset[str]] = frozenset()
    schedulers: ClassVar[tuple[str, ...]] = ()
    gpu_dtype: ClassVar[torch.dtype] = torch.float16
    edits: ClassVar[bool] = False

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        *,
        steps: int | None = None,
        scheduler: str | None = None,
        dtype: str = "auto",
        batch_size: int = 4,
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
        where = check_device(None if device == "auto" else device)
        own = torch.float32 if where.startswith("cpu") else self.gpu_dtype
        self._folder, self._steps, self._batch_size, self._bars = folder, steps, batch_size, bars
        self._dtype, self._device = parse_dtype(dtype) or own, where
        self._pipeline: Any = self._ready(open_pipeline(folder, self._dtype))
        self._choose_scheduler(scheduler)

    @property
    def name(self) -> str:
        """The folder's name; for a hub id, that of the repository."""
        folder = self._folder
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

    def run(self, requests: Iterable[Draw | Edit]) -> Iterator[DrawResult]:
        """Results as they finish, each with its `index` and its `request`.

        A request that fails gives a result with the finish reason "error"; the others go on.

        Args:
            requests: Taken lazily, a batch at a time.

        Raises:
            TypeError: The requests are no list or other iterable of requests.
            RuntimeError: The model is closed.
        """
        check_several(requests, "run")
        return self._run(requests)

    def _run(self, requests: Iterable[Draw | Edit]) -> Iterator[DrawResult]:
        self._check_open()
        numbered = enumerate(requests)
        while batch := list(islice(numbered, self._batch_size)):
            jobs: list[Job] = []
            for index, asked in batch:
                try:
                    jobs.append(self._job(asked, index))
                except Exception as error:  # of the request, or of a picture in it
                    yield failure(asked, index, error)  # type: ignore[misc]
            yield from self._finish(jobs)

    def close(self) -> None:
        """Free the model. Closing again does nothing."""
        self._pipeline = None

    # -- what differs between pipelines

    def _job(self, asked: Draw | Edit, index: int = 0) -> Job:
        """The job of a request.

        Raises:
            ValueError, TypeError, FileNotFoundError: The request cannot be honoured.
        """
        self._check(asked)
        if as_list(getattr(asked, "images", ())):
            raise ValueError(f"{self._kind} is shown no pictures: leave out images")
        size = getattr(asked, "size", None)
        if size is not None:
            check_size(size, self._multiple)
        return Job(asked, index, seeds_of(asked), size=size)

    def _check_prompt(self, prompt: str) -> None:
        check_text(prompt, "the prompt")

    def _paint(self, samples: Sequence[Sample]) -> list[Any]:
        """The picture of each sample; None where the safety checker refuses it."""
        raise NotImplementedError

    # -- what they share

    @property
    def _multiple(self) -> int:
        """What width and height are multiples of."""
        return 1

    @property
    def _kind(self) -> str:
        return type(self._pipeline).__name__

    def _choose_scheduler(self, name: str | None) -> None:
        if name is None:
            return
        if name not in self.schedulers:
            known = f"one of {', '.join(self.schedulers)}" if self.schedulers else "left out"
            raise ValueError(f"{self._kind}: scheduler must be {known}, not {shown(name)}")
        made = getattr(need("diffusers"), SCHEDULERS[name])
        self._pipeline.scheduler = made.from_config(self._pipeline.scheduler.config)

    def _ready(self, pipeline: Any) -> Any:
        pipeline.set_progress_bar_config(disable=not self._bars, leave=False)
        return pipeline.to(self._device)

    def _call(self, pipeline: Any, samples: Sequence[Sample], **options: Any) -> Any:
        """What a pipeline makes of samples; an option that is None is left to the pipeline."""
        steps, guidance = self._steps, samples[0].job.asked.guidance
        known = given(num_inference_steps=steps, guidance_scale=guidance, **options)
        return pipeline(generator=generators_of(samples), **known)

    def _check_open(self) -> None:
        if self._pipeline is None:
            raise RuntimeError(f"{self.name} is closed")

    def _check(self, asked: Draw | Edit) -> None:
        self._check_open()
        if not isinstance(asked, Draw | Edit):
            raise TypeError(f"a request is a Draw or an Edit, not {type(asked).__name__}")
        if isinstance(asked, Edit) and not self.edits:
            raise ValueError(f"{self._kind} cannot edit pictures")
        check_ranges(asked)
        for name, spec in options_of(type(asked)).items():
            known = name in self.honoured or name in ("prompt", "seed", "n")
            if not known and getattr(asked, name) != spec.default:
                raise ValueError(f"{self._kind} has no {name}: leave it out")
        if asked.guidance is not None and asked.guidance < 1:
            raise ValueError(f"{self._kind}: guidance must be 1 or more, not {asked.guidance:g}")
        self._check_prompt(asked.prompt)

    def _all(self, asked: Sequence[Draw | Edit]) -> list[Any]:
        """Run all requests, or none if one is wrong."""
        self._check_open()
        results = self._finish([self._job(one, index) for index, one in enumerate(asked)])
        return sorted(map(checked, results), key=lambda result: result.index)

    def _finish(self, jobs: Sequence[Job]) -> Iterator[DrawResult]:
        """The results of jobs. Those of the same settings are made together."""
        start = time.monotonic()
        alike = sorted(jobs, key=lambda job: str(job.settings))
        for _, group in groupby(alike, key=lambda job: job.settings):
            yield from self._finish_alike(list(group), start)

    def _finish_alike(self, jobs: Sequence[Job], start: float) -> Iterator[DrawResult]:
        samples = iter([Sample(job, seed) for job in jobs for seed in job.seeds])
        images: dict[int, list[Image.Image]] = {job.index: [] for job in jobs}
        errors: dict[int, Exception] = {}
        while batch := list(islice(samples, self._batch_size)):
            try:
                painted = self._paint(batch)
            except Exception as error:  # of memory, or of the library
                errors |= {sample.job.index: error for sample in batch}
                continue
            for sample, image in zip(batch, painted, strict=True):
                if image is None:
                    errors[sample.job.index] = ValueError("the safety checker refuses a picture")
                else:
                    images[sample.job.index].append(self._picture(sample, image))
        for job in jobs:
            seconds = time.monotonic() - start
            yield self._result(job, images[job.index], seconds, errors.get(job.index))

    def _picture(self, sample: Sample, image: Image.Image) -> Picture:
        info = {"prompt": sample.job.asked.prompt, "model": self.name}
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
        return Picture.wrap(pixels, info | {"seed": str(sample.seed), "sample": "0"})

    def _result(
        self, job: Job, images: list[Image.Image], seconds: float, error: Exception | None
    ) -> DrawResult:
        if error is not None:
            return failure(job.asked, job.index, error)  # type: ignore[return-value]
        return DrawResult(
            prompt=job.asked.prompt,
            images=tuple(images),
            seed=job.seeds[0],
            finish_reason="complete",
            prompt_tokens=0,
            completion_tokens=0,
            seconds=seconds,
            request=job.asked,
            index=job.index,
            seeds=job.seeds,
        )


def seeds_of(asked: Draw | Edit) -> tuple[int, ...]:
    """A seed for each picture of a request.

    Raises:
        ValueError: One does not fit in 64 bits.
    """
    first = 0 if asked.seeds else pick_seed(asked.seed)  # type: ignore[arg-type]
    seeds = asked.seeds or tuple(range(first, first + asked.samples))
    if not all(seed in SEEDS for seed in seeds):
        raise ValueError("seed must fit in 64 bits")
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


def prompts_of(samples: Sequence[Sample]) -> list[str]:
    """The prompt of each sample."""
    return [sample.job.asked.prompt for sample in samples]


def generators_of(samples: Sequence[Sample]) -> list[torch.Generator]:
    """A source of noise for each sample, which no other sample changes."""
    return [torch.Generator().manual_seed(sample.seed) for sample in samples]


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None, which would override a pipeline's own."""
    return {name: value for name, value in options.items() if value is not None}
