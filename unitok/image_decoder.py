"""The ids of finished drawings -> pixels, apart from the engine's steps.

Drawings that wait together are painted together, a bounded number in one call. A picture does not
depend on its company but for fp32 rounding, which may turn the last bit of a pixel.
"""

import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

IMAGES_PER_CALL = 16
TOKENS_PER_CALL = 2304  # 4 pictures of Janus; a VQ-16 decoder takes about 0.7 MB for each id

Decode = Callable[[Sequence[Sequence[int]]], Tensor]


@dataclass(frozen=True, eq=False)
class DecodeJob:
    """The tokens of one drawing, and the picture that they become.

    Attributes:
        decode: Turns the tokens of several drawings into pictures.
        ids: What the plan emitted for this drawing.
        picture: Holds the picture once it is decoded.
    """

    decode: Decode
    ids: Sequence[int]
    picture: Future[Tensor] = field(default_factory=Future)

    def goes_with(self, other: "DecodeJob") -> bool:
        return self.decode == other.decode and len(self.ids) == len(other.ids)


class ImageDecoder:
    """Takes jobs and paints them, oldest first, each with those that wait and are like it.

    notify: called by the thread, if there is one, when pictures are there.
    background: whether one thread of its own paints, on CUDA on a stream of its own, while the
    engine steps on; else `work` does, between steps. None chooses.

    On a CPU it is a thread where torch leaves a core to it. Else the OpenMP threads of both would
    spin against each other: with 2 threads on 2 cores, steps took 1.9 times as long beside it.
    """

    def __init__(self, device: torch.device, background: bool | None = None) -> None:
        self.notify: Callable[[], None] = nothing
        if background is None:
            background = device.type == "cuda" or has_idle_core()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._waiting: deque[DecodeJob] = deque()
        self._lock = threading.RLock()
        self._worker = ThreadPoolExecutor(1, "unitok-image-decoder") if background else None

    def submit(self, decode: Decode, ids: Sequence[int]) -> Future[Tensor]:
        """A picture [H, W, 3] of bytes, to come once there was `work`."""
        job = DecodeJob(decode, ids)
        with self._lock:
            self._waiting.append(job)
        return job.picture

    def cancel(self, pictures: Iterable[Future[Tensor]]) -> None:
        """Nobody wants these any more: those not begun are never painted."""
        for picture in pictures:
            picture.cancel()
        with self._lock:
            self._waiting = deque(o for o in self._waiting if not o.picture.cancelled())

    def work(self) -> None:
        """See to it that jobs are painted: wake the thread or, without one, paint a batch."""
        if self._worker is None:
            self._decode_batch()
        elif self._waiting:
            try:
                self._worker.submit(self._decode_all)
            except RuntimeError:  # the interpreter ends, and its pools have: no thread is left
                self._decode_batch()

    @property
    def has_work(self) -> bool:
        """Whether `work` has to be called for pictures that wait; a thread sees to its own."""
        return self._worker is None and bool(self._waiting)

    def close(self) -> None:
        """End the thread, if there is one, after what it paints just now."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    def _decode_all(self) -> None:
        while self._waiting:
            try:
                with suppress(Warning):  # where warnings are errors: none may end the thread's work
                    self._decode_batch()
            finally:
                self.notify()

    def _decode_batch(self) -> None:
        jobs = self._take()
        try:
            self._fill(jobs)
        except BaseException:  # Ctrl-C: what others may still wait for is not lost
            with self._lock:
                self._waiting.extendleft(o for o in reversed(jobs) if not o.picture.done())
            raise

    def _take(self) -> list[DecodeJob]:
        """The oldest job and those like it, as many as one call takes."""
        with self._lock:
            if not self._waiting:
                return []
            first = self._waiting[0]
            most = min(IMAGES_PER_CALL, max(1, TOKENS_PER_CALL // len(first.ids)))
            taken = [job for job in self._waiting if job.goes_with(first)][:most]
            self._waiting = deque(job for job in self._waiting if job not in taken)
            return taken

    def _fill(self, jobs: Sequence[DecodeJob]) -> None:
        """Paint jobs in one call; if that fails each alone, to see which one is to blame."""
        if not jobs:
            return
        try:
            made = self._decode(jobs)
        except Exception as error:  # the family's code: only the drawings that want it fail
            if len(jobs) == 1:
                settle(jobs[0].picture, error)
                return
            for job in jobs:
                self._fill([job])
            if not any(o.picture.cancelled() or o.picture.exception() for o in jobs):
                warnings.warn(
                    f"{len(jobs)} pictures had to be decoded one by one: {error}", stacklevel=2
                )
            return
        for job, picture in zip(jobs, made, strict=True):
            settle(job.picture, picture)

    def _decode(self, jobs: Sequence[DecodeJob]) -> Tensor:
        """Pictures [n, H, W, 3] of bytes."""
        with torch.inference_mode(), self._own_stream():
            pixels = jobs[0].decode([job.ids for job in jobs])  # [n, 3, H, W] in [0, 1]
            if len(pixels) != len(jobs):
                raise ValueError(f"{len(pixels)} pictures were decoded, not {len(jobs)}")
            return pixels.mul(255).round().byte().permute(0, 2, 3, 1).contiguous().cpu()

    def _own_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def nothing() -> None:
    """Nobody is to be notified."""


def settle(picture: Future[Tensor], result: Tensor | Exception) -> None:
    """Hand over a picture or what went wrong, unless nobody wants it any more."""
    if not picture.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        picture.set_exception(result)
    else:
        picture.set_result(result)


def has_idle_core() -> bool:
    """Whether torch leaves a core to a thread beside it, and no others would spin against that."""
    return torch.get_num_threads() == 1 and (os.cpu_count() or 1) > 1
