"""Decodes the tokens of complete drawings to pixels, apart from the engine's steps.

Each picture is decoded in a call of its own, so that its bytes do not depend on the others: in a
batch, rounding differs, and the last bit of a pixel may turn. On CUDA and for rollouts, drawings
that wait at the same time are decoded together nevertheless, a bounded number in one call, for
speed. Previews of unfinished drawings wait until no finished one does, and are decoded in calls of
their own.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unitok.cores import has_idle_core
from unitok.preview_budget import PreviewBudget, PreviewCost
from unitok_engine.user_warnings import warn

IMAGES_PER_CALL = 16  # on CUDA
IMAGES_PER_CALL_ON_CPU = 8  # 16 take longer each, as a CPU's caches hold them no more
TOKENS_PER_CALL = 2304  # 4 pictures of Janus; a VQ-16 decoder takes about 0.7 MB for each token
BACKLOG = 8  # for each so many that wait, one more batch is decoded between two steps

Decode = Callable[[Sequence[Sequence[int]]], Tensor]


@dataclass(eq=False)
class DecodeJob:
    """The tokens of one drawing, and the picture that they become.

    Attributes:
        decode: Decodes the tokens of several drawings to pictures [n, 3, H, W] in [0, 1].
        token_ids: What the plan emitted for this drawing.
        budget: Says when a preview may be decoded; None for a finished picture.
        picture: Holds the picture once it is decoded.
    """

    decode: Decode
    token_ids: Sequence[int]
    budget: PreviewBudget | None = None
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
        preview_cost: What previews have cost so far.
    """

    def __init__(
        self,
        device: torch.device,
        background: bool | None = None,
        batched: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without jobs.

        Args:
            device: Where pictures are decoded.
            background: Whether to decode in a thread; None chooses what suits the device.
            batched: Whether a job is decoded together with the waiting jobs that are like it; None
                does so on CUDA alone.
            clock: Tells the time in seconds.
        """
        self.notify: Callable[[], None] = nothing
        self.preview_cost = PreviewCost(clock)
        if background is None:
            background = device.type == "cuda" or has_idle_core()
        if batched is None:
            batched = device.type == "cuda"
        most = IMAGES_PER_CALL if device.type == "cuda" else IMAGES_PER_CALL_ON_CPU
        self._images_per_call = most if batched else 1
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._waiting: deque[DecodeJob] = deque()  # finished pictures
        self._previews: deque[DecodeJob] = deque()
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

    def submit_preview(
        self, decode: Decode, token_ids: Sequence[int], budget: PreviewBudget
    ) -> DecodeJob:
        """Submit the tokens of an unfinished drawing.

        They are decoded when no finished picture waits and the budget allows it.

        Args:
            decode: As in `submit`.
            token_ids: What the plan emitted, and something in the place of the rest.
            budget: How much time previews may take.

        Returns:
            The job, which `renew` may give newer tokens.
        """
        job = DecodeJob(decode, token_ids, budget)
        with self._lock:
            self._previews.append(job)
        return job

    def renew(self, job: DecodeJob, token_ids: Sequence[int]) -> bool:
        """Give a preview that has not been begun newer tokens. It keeps its turn.

        Returns:
            Whether it had not been begun.
        """
        with self._lock:
            if job not in self._previews:
                return False
            job.token_ids = token_ids
            return True

    def cancel(self, pictures: Iterable[Future[Tensor]]) -> None:
        """Cancel pictures. Those that have not been begun are never decoded."""
        for picture in pictures:
            picture.cancel()
        with self._lock:
            for queue in (self._waiting, self._previews):
                for job in [job for job in queue if job.picture.cancelled()]:
                    queue.remove(job)

    def work(self) -> None:
        """Wake the thread or, if there is none, decode one batch."""
        if self._worker is None:
            self._decode_batch()
        elif self._has_jobs():
            try:
                self._worker.submit(self._decode_all)
            except RuntimeError:  # the interpreter exits, and its thread pools have ended already
                self._decode_batch()

    @property
    def due(self) -> int:
        """How often `work` is to be called between two steps: more often if many pictures wait.

        Drawings that wait for their pictures keep others from running, so steps would get few rows.
        """
        return 1 if self._worker is not None else 1 + len(self._waiting) // BACKLOG

    @property
    def has_work(self) -> bool:
        """Whether `work` has to be called again; never if there is a thread.

        Previews do not count: while their drawings go on, there are steps, and after each of them
        `work` is called.
        """
        return self._worker is None and bool(self._waiting)

    def close(self) -> None:
        """End the thread, if there is one, after the batch that it decodes now."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    def _has_jobs(self) -> bool:
        """Whether something can be decoded now."""
        with self._lock:
            return bool(self._waiting) or any(self._may_begin(job, 1) for job in self._previews)

    def _decode_all(self) -> None:
        while self._has_jobs():
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
                for job in reversed(jobs):
                    if not job.picture.done():
                        self._queue_of(job).appendleft(job)
            raise

    def _queue_of(self, job: DecodeJob) -> deque[DecodeJob]:
        return self._waiting if job.budget is None else self._previews

    def _take(self) -> list[DecodeJob]:
        """Take the oldest job and, if batched, those like it, as many as fit in one call.

        Previews are taken only if no finished picture waits, and as many as their budgets allow.
        """
        taken: list[DecodeJob] = []
        with self._lock:
            queue = self._waiting or self._previews
            for job in queue:
                alike = not taken or job.goes_with(taken[0])
                if alike and self._may_begin(job, len(taken) + 1):
                    taken.append(job)
                if taken and len(taken) == self._most(taken[0]):
                    break
            for job in taken:
                queue.remove(job)
        return taken

    def _most(self, job: DecodeJob) -> int:
        """How many jobs like this one are decoded in one call."""
        return min(self._images_per_call, max(1, TOKENS_PER_CALL // len(job.token_ids)))

    def _may_begin(self, job: DecodeJob, count: int) -> bool:
        """Whether a job may be decoded now, in a call of so many pictures."""
        return job.budget is None or job.budget.allows(count * len(job.token_ids))

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
        cost = self.preview_cost
        start = cost.clock()
        with torch.inference_mode(), self._own_stream():
            pixels = jobs[0].decode([job.token_ids for job in jobs])  # [n, 3, H, W] in [0, 1]
            if len(pixels) != len(jobs):
                raise ValueError(f"{len(pixels)} pictures were decoded, not {len(jobs)}")
            made = to_bytes(pixels).permute(0, 2, 3, 1).contiguous().cpu()
        tokens = len(jobs) * len(jobs[0].token_ids)
        cost.note(cost.clock() - start, tokens, previews=jobs[0].budget is not None)
        return made

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
