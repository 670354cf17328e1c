"""Decodes the tokens of complete drawings to pixels, apart from the engine's steps.

Each picture is decoded in a call of its own, so that its bytes do not depend on the others: in a
batch, rounding differs, and the last bit of a pixel may turn. On CUDA, drawings that wait at the
same time are decoded together nevertheless, a bounded number in one call, for speed.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from unitok_engine.user_warnings import warn

IMAGES_PER_CALL = 16
TOKENS_PER_CALL = 2304  # 4 pictures of Janus; a VQ-16 decoder takes about 0.7 MB for each token

Decode = Callable[[Sequence[Sequence[int]]], Tensor]


@dataclass(frozen=True, eq=False)
class DecodeJob:
    """The tokens of one drawing, and the picture that they become.

    Attributes:
        decode: Decodes the tokens of several drawings to pictures [n, 3, H, W] in [0, 1].
        token_ids: What the plan emitted for this drawing.
        picture: Holds the picture once it is decoded.
    """

    decode: Decode
    token_ids: Sequence[int]
    picture: Future[Tensor] = field(default_factory=Future)

    def goes_with(self, other: "DecodeJob") -> bool:
        """Whether both can be decoded in one call."""
        return self.decode == other.decode and len(self.token_ids) == len(other.token_ids)


class ImageDecoder:
    """Decodes jobs, the oldest first.

    It decodes either in a thread of its own, while the engine goes on, or between steps, in `work`.
    On CUDA the thread has a stream of its own. On a CPU there is a thread only if torch leaves a
    core to it. Otherwise the OpenMP threads of both would wait for each other: with 2 threads on
    2 cores, steps took 1.9 times as long beside it.

    Attributes:
        notify: Called by the thread, if there is one, when pictures are decoded.
    """

    def __init__(
        self,
        device: torch.device,
        background: bool | None = None,
        batched: bool | None = None,
    ) -> None:
        """Start without jobs.

        Args:
            device: Where pictures are decoded.
            background: Whether to decode in a thread; None chooses what suits the device.
            batched: Whether a job is decoded together with the waiting jobs that are like it; None
                does so on CUDA alone. Elsewhere it gains little: 4.8 instead of 5.3 ms a picture.
        """
        self.notify: Callable[[], None] = nothing
        if background is None:
            background = device.type == "cuda" or has_idle_core()
        if batched is None:
            batched = device.type == "cuda"
        self._images_per_call = IMAGES_PER_CALL if batched else 1
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._waiting: deque[DecodeJob] = deque()
        self._lock = threading.RLock()
        self._worker = ThreadPoolExecutor(1, "unitok-image-decoder") if background else None

    def submit(self, decode: Decode, token_ids: Sequence[int]) -> Future[Tensor]:
        """Submit the tokens of a drawing; `work` has to be called for it.

        Args:
            decode: Decodes the tokens of several drawings to pictures [n, 3, H, W] in [0, 1].
            token_ids: What the plan emitted.

        Returns:
            The picture to come, bytes [H, W, 3].
        """
        job = DecodeJob(decode, token_ids)
        with self._lock:
            self._waiting.append(job)
        return job.picture

    def cancel(self, pictures: Iterable[Future[Tensor]]) -> None:
        """Cancel pictures. Those that have not been begun are never decoded."""
        for picture in pictures:
            picture.cancel()
        with self._lock:
            self._waiting = deque(o for o in self._waiting if not o.picture.cancelled())

    def work(self) -> None:
        """Wake the thread or, if there is none, decode one batch."""
        if self._worker is None:
            self._decode_batch()
        elif self._waiting:
            try:
                self._worker.submit(self._decode_all)
            except RuntimeError:  # the interpreter exits, and its thread pools have ended already
                self._decode_batch()

    @property
    def has_work(self) -> bool:
        """Whether `work` has to be called again; never if there is a thread."""
        return self._worker is None and bool(self._waiting)

    def close(self) -> None:
        """End the thread, if there is one, after the batch that it decodes now."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    def _decode_all(self) -> None:
        while self._waiting:
            try:
                with suppress(
                    Warning
                ):  # warnings may be errors, which must not end the thread's work
                    self._decode_batch()
            finally:
                self.notify()

    def _decode_batch(self) -> None:
        jobs = self._take()
        try:
            self._fill(jobs)
        except BaseException:  # Ctrl-C: the pictures that others wait for must not be lost
            with self._lock:
                self._waiting.extendleft(o for o in reversed(jobs) if not o.picture.done())
            raise

    def _take(self) -> list[DecodeJob]:
        """Take the oldest job and, if batched, those like it, as many as fit in one call."""
        with self._lock:
            if not self._waiting:
                return []
            first = self._waiting[0]
            most = min(self._images_per_call, max(1, TOKENS_PER_CALL // len(first.token_ids)))
            taken = list(islice((job for job in self._waiting if job.goes_with(first)), most))
            for job in taken:
                self._waiting.remove(job)
            return taken

    def _fill(self, jobs: Sequence[DecodeJob]) -> None:
        """Decode jobs in one call. If that fails, decode each alone, to find the one that fails."""
        if not jobs:
            return
        try:
            made = self._decode(jobs)
        except Exception as error:  # of the family's code: only its drawings fail
            if len(jobs) == 1:
                settle(jobs[0].picture, error)
                return
            for job in jobs:
                self._fill([job])
            if not any(o.picture.cancelled() or o.picture.exception() for o in jobs):
                warn(f"{len(jobs)} pictures had to be decoded one by one: {error}")
            return
        for job, picture in zip(jobs, made, strict=True):
            settle(job.picture, picture)

    def _decode(self, jobs: Sequence[DecodeJob]) -> Tensor:
        """The pictures of jobs, bytes [n, H, W, 3]."""
        with torch.inference_mode(), self._own_stream():
            pixels = jobs[0].decode([job.token_ids for job in jobs])  # [n, 3, H, W] in [0, 1]
            if len(pixels) != len(jobs):
                raise ValueError(f"{len(pixels)} pictures were decoded, not {len(jobs)}")
            return to_bytes(pixels).permute(0, 2, 3, 1).contiguous().cpu()

    def _own_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] -> bytes. Fractions of levels are cut off, not rounded.

    All families' authors do so: deepseek-ai/Janus, generation_inference.py; Chameleon's and
    UniToken's image_tokenizer.py; baaivision/Emu3, image_processing_emu3visionvq.py.
    """
    return pixels.mul(255).byte()


def nothing() -> None:
    """Notify nobody."""


def settle(picture: Future[Tensor], result: Tensor | Exception) -> None:
    """Hand over a picture or an exception, unless the picture was cancelled."""
    if not picture.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        picture.set_exception(result)
    else:
        picture.set_result(result)


def has_idle_core() -> bool:
    """Whether torch leaves a core to another thread."""
    return torch.get_num_threads() == 1 and (os.cpu_count() or 1) > 1
