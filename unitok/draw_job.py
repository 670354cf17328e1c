"""The job of a drawing or an edit: the engine's tokens are decoded to pictures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import TypeVar

from PIL import Image
from torch import Tensor

from unitok.families import GenerationSpec
from unitok.handles import FailReason
from unitok.image_decoder import ImageDecoder
from unitok.previews import Preview, Previews
from unitok.requests import Draw, Edit
from unitok.results import DrawResult, Event, Picture
from unitok.terminal import one_line
from unitok_engine import Output, Request, join_outputs

T = TypeVar("T")


class _Stopwatch:
    """Tells how long a job took.

    A picture to come calls it and not the job: a cycle of both would keep pictures in memory until
    the garbage collector comes by.

    Attributes:
        seconds: From the start to what was noted last.
    """

    def __init__(self) -> None:
        """Start."""
        self._start, self.seconds = time.monotonic(), 0.0

    def note(self, _: object = None) -> None:
        """Note that something has ended."""
        self.seconds = time.monotonic() - self._start


class DrawJob:
    """Collects the tokens of n samples, and their pictures as they are decoded.

    It is a `unitok.handles.Job`.

    Attributes:
        request: The engine's request.
        timeout: The most seconds until the result; None for no limit.
        index: The request's place among those that were given together.
        tells_progress: Whether events tell of tokens again and again, and not only of the first.
    """

    tells_progress = True

    def __init__(
        self,
        asked: Draw | Edit,
        request: Request,
        specs: Sequence[GenerationSpec],
        image_decoder: ImageDecoder,
        info: dict[str, str],
        index: int,
        previews: Sequence[Previews] = (),
    ) -> None:
        """Start the clock; nothing has been generated yet.

        Args:
            asked: What the caller asked for.
            request: What the engine is asked for.
            specs: How tokens are decoded to a picture: one of each picture, or one of all.
            image_decoder: Where that is done.
            info: What a saved picture says of itself, beside its seed.
            index: The request's place among those that were given together.
            previews: Make previews, if they are wanted: as many as `specs`. They are made only
                where events are taken.
        """
        self.asked, self.request, self.index = asked, request, index
        self.timeout = asked.timeout
        self._specs, self._image_decoder, self._info = specs, image_decoder, info
        self._previews = previews
        self._to_preview: set[int] = set()  # samples that have tokens since the last event
        self._outputs: dict[int, list[Output]] = {}  # of each sample that goes on
        self._finished: dict[int, Output] = {}  # all of each sample that has ended
        self._decoded: dict[int, Future[Tensor]] = {}
        self._done = 0  # tokens of all samples so far
        self._steps = 0  # that brought some
        self._weight_version: int | None = None
        self._unreported: dict[int, Future[Tensor]] = {}  # pictures that no event had yet
        self._reported_done = 0
        self._reported_result = False
        self._images: dict[int, Image.Image] = {}
        self._stopwatch = _Stopwatch()
        self._result: DrawResult | None = None

    @property
    def ended(self) -> bool:
        """Whether every sample has all its tokens, or the job has failed."""
        return len(self._finished) == self.request.n or self._result is not None

    @property
    def pictures(self) -> tuple[Future[Tensor], ...]:
        """The pictures that were handed to the image decoder."""
        previews = chain.from_iterable(previews.pictures for previews in self._previews)
        return (*self._decoded.values(), *previews)

    def feed(self, output: Output) -> None:
        """Add the tokens of an output; those of a complete sample go to the image decoder."""
        self._done += len(output.token_ids)
        self._steps += bool(output.token_ids)
        self._weight_version = output.weight_version
        outputs = self._outputs.setdefault(output.sample, [])
        outputs.append(output)
        self._to_preview.add(output.sample)
        if not output.finished:
            return
        output = self._finished[output.sample] = join_outputs(self._outputs.pop(output.sample))
        self._stopwatch.note()
        if self._previews:
            of_sample(self._previews, output.sample).end(output.sample)
        if output.finish_reason == "complete":
            decode = of_sample(self._specs, output.sample).decode
            picture = self._image_decoder.submit(decode, output.token_ids)
            picture.add_done_callback(self._stopwatch.note)
            self._decoded[output.sample] = self._unreported[output.sample] = picture

    def fail(self, reason: FailReason, error: str) -> None:
        """End the job without pictures, unless it has its result."""
        if self._result is None:
            self._stopwatch.note()
            self._result = self._make_result(reason, error)

    def new_events(self) -> list[Event]:
        """The progress and the pictures that no event had yet and, at the end, the result."""
        events = []
        done, total = self._done, self.request.n * self.request.plan.max_length
        if done > self._reported_done and (self.tells_progress or not self._reported_done):
            self._reported_done = done
            events.append(Event("tokens", done=done, total=total))
        for preview in self._new_previews():
            image, rows = self._image_of(preview), preview.rows
            events.append(Event("preview", "", done, total, preview.sample, image, rows=rows))
        for sample in [s for s, picture in self._unreported.items() if picture.done()]:
            if not failed(self._unreported.pop(sample)):
                image = self._image(sample)
                events.append(Event("image", done=done, total=total, sample=sample, image=image))
        if self.result is not None and not self._reported_result:
            self._reported_result = True
            events.append(Event("result", done=done, total=total, result=self.result))
        return events

    def merge(self, unread: Event, new: Event) -> Event | None:
        """The newer of two events of progress or of one picture; None for other events."""
        if unread.kind == "preview":
            same = new.kind in ("preview", "image") and new.sample == unread.sample
        else:
            same = unread.kind == new.kind == "tokens"
        return new if same else None

    @property
    def result(self) -> DrawResult | None:
        """The pictures of all samples; None while one of them is still to be decoded."""
        if self._result is None and self.ended and all(map(Future.done, self._decoded.values())):
            self._result = self._make_result(*self._reason())
        return self._result

    def _new_previews(self) -> list[Preview]:
        """The previews that no event had yet. Further ones are handed to the image decoder."""
        if not self._previews or self.ended:
            return []
        made = list(chain.from_iterable(previews.take() for previews in self._previews))
        for sample in self._to_preview & self._outputs.keys():
            of_sample(self._previews, sample).update(sample, self._outputs[sample])
        self._to_preview.clear()
        return made

    def _reason(self) -> tuple[str, str | None]:
        """The finish reason of all samples together, and the first error."""
        outputs = [self._finished[sample] for sample in range(self.request.n)]
        wrong = next((o for o in outputs if o.finish_reason != "complete"), None)
        if wrong is not None:
            return str(wrong.finish_reason), wrong.error
        broken = next(filter(None, map(Future.exception, self._decoded.values())), None)
        if broken is not None:
            return "error", one_line(str(broken) or type(broken).__name__)
        return "complete", None

    def _make_result(self, reason: str, error: str | None) -> DrawResult:
        outputs = [self._finished[sample] for sample in sorted(self._finished)]
        samples = range(self.request.n) if reason == "complete" else ()
        return DrawResult(
            prompt=self.asked.prompt,
            images=tuple(self._image(sample) for sample in samples),
            seed=self._seed(0),
            finish_reason=reason,
            prompt_tokens=len(self.request.branches[0].token_ids),
            completion_tokens=self._done,
            seconds=self._stopwatch.seconds,
            request=self.asked,
            index=self.index,
            error=error,
            logprobs=of_all(o.logprobs for o in outputs),
            branch_logprobs=of_all(o.branch_logprobs for o in outputs),
            seeds=tuple(map(self._seed, range(self.request.n))),
            weight_version=self._weight_version,
            steps=self._steps,
            token_ids=tuple(o.token_ids for o in outputs) if self.request.any_logprobs else None,
            cached_tokens=outputs[0].cached_tokens if outputs else 0,
        )

    def _seed(self, sample: int) -> int:
        return self.request.noise_of(sample)[0]

    def _image(self, sample: int) -> Image.Image:
        """The picture of a decoded sample, which is made only once."""
        if sample not in self._images:
            pixels = self._decoded[sample].result()
            self._images[sample] = Picture.wrap(pixels, self._info_of(sample))
        return self._images[sample]

    def _image_of(self, preview: Preview) -> Image.Image:
        shown = {"preview": f"{preview.rows} of {preview.of} rows"}
        return Picture.wrap(preview.pixels, self._info_of(preview.sample) | shown)

    def _info_of(self, sample: int) -> dict[str, str]:
        """What a saved picture of a sample says of itself."""
        seed, number = self.request.noise_of(sample)
        return self._info | {"seed": str(seed), "sample": str(number)}


def of_sample(things: Sequence[T], sample: int) -> T:
    """What is a sample's own, of as many things as there are samples; or one, which is of all."""
    return things[sample % len(things)]


def failed(picture: Future[Tensor]) -> bool:
    """Whether a picture that is done could not be decoded, or was cancelled."""
    return picture.cancelled() or picture.exception() is not None


def of_all(logprobs: Iterable[tuple[float, ...] | None]) -> tuple[tuple[float, ...], ...] | None:
    """The log-probabilities of each picture; None if they were not asked for."""
    return tuple(one for one in logprobs if one is not None) or None
