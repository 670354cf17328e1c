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

PICTURES_A_CALL = 16
IDS_A_CALL = 2304  # 4 pictures of Janus; a VQ-16 decoder takes about 0.7 MB for each id

Paint = Callable[[Sequence[Sequence[int]]], Tensor]


@dataclass(frozen=True, eq=False)
class Order:
    """Ids to be painted, and the picture to come."""

    paint: Paint
    ids: Sequence[int]
    picture: Future[Tensor] = field(default_factory=Future)

    def goes_with(self, other: "Order") -> bool:
        return self.paint == other.paint and len(self.ids) == len(other.ids)


class Painter:
    """Takes orders and paints them, oldest first, each with those that wait and are like it.

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
        self._waiting: deque[Order] = deque()
        self._lock = threading.RLock()
        self._worker = ThreadPoolExecutor(1, "unitok-painter") if background else None

    def order(self, paint: Paint, ids: Sequence[int]) -> Future[Tensor]:
        """A picture [H, W, 3] of bytes, to come once there was `work`."""
        order = Order(paint, ids)
        with self._lock:
            self._waiting.append(order)
        return order.picture

    def cancel(self, pictures: Iterable[Future[Tensor]]) -> None:
        """Nobody wants these any more: those not begun are never painted."""
        for picture in pictures:
            picture.cancel()
        with self._lock:
            self._waiting = deque(o for o in self._waiting if not o.picture.cancelled())

    def work(self) -> None:
        """See to it that orders are painted: wake the thread or, without one, paint a batch."""
        if self._worker is None:
            self._paint_batch()
        elif self._waiting:
            try:
                self._worker.submit(self._paint_all)
            except RuntimeError:  # the interpreter ends, and its pools have: no thread is left
                self._paint_batch()

    @property
    def has_work(self) -> bool:
        """Whether `work` has to be called for pictures that wait; a thread sees to its own."""
        return self._worker is None and bool(self._waiting)

    def close(self) -> None:
        """End the thread, if there is one, after what it paints just now."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    def _paint_all(self) -> None:
        while self._waiting:
            try:
                with suppress(Warning):  # where warnings are errors: none may end the thread's work
                    self._paint_batch()
            finally:
                self.notify()

    def _paint_batch(self) -> None:
        orders = self._take()
        try:
            self._fill(orders)
        except BaseException:  # Ctrl-C: what others may still wait for is not lost
            with self._lock:
                self._waiting.extendleft(o for o in reversed(orders) if not o.picture.done())
            raise

    def _take(self) -> list[Order]:
        """The oldest order and those like it, as many as one call takes."""
        with self._lock:
            if not self._waiting:
                return []
            first = self._waiting[0]
            most = min(PICTURES_A_CALL, max(1, IDS_A_CALL // len(first.ids)))
            taken = [order for order in self._waiting if order.goes_with(first)][:most]
            self._waiting = deque(order for order in self._waiting if order not in taken)
            return taken

    def _fill(self, orders: Sequence[Order]) -> None:
        """Paint orders in one call; if that fails each alone, to see which one is to blame."""
        if not orders:
            return
        try:
            made = self._paint(orders)
        except Exception as error:  # the family's code: only the drawings that want it fail
            if len(orders) == 1:
                settle(orders[0].picture, error)
                return
            for order in orders:
                self._fill([order])
            if not any(o.picture.cancelled() or o.picture.exception() for o in orders):
                warnings.warn(
                    f"{len(orders)} pictures had to be painted one by one: {error}", stacklevel=2
                )
            return
        for order, picture in zip(orders, made, strict=True):
            settle(order.picture, picture)

    def _paint(self, orders: Sequence[Order]) -> Tensor:
        """Pictures [n, H, W, 3] of bytes."""
        with torch.inference_mode(), self._own_stream():
            pixels = orders[0].paint([order.ids for order in orders])  # [n, 3, H, W] in [0, 1]
            if len(pixels) != len(orders):
                raise ValueError(f"{len(pixels)} pictures were painted, not {len(orders)}")
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
