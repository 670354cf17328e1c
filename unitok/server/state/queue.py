"""Which batch runs when: one of each owner at a time, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time

from unitok.server.errors import ApiError
from unitok.server.keys import Owner
from unitok.server.state.batch_store import BatchRecord
from unitok.server.state.work import BatchWork, Interrupted, Workplace

logger = logging.getLogger(__name__)

AT_ONCE = 4  # batches that run beside each other, of as many owners
PAUSE = 5.0  # seconds until a batch is tried again whose model took nothing
LOOK = 0.1  # seconds between looks whether the server is about to end


class BatchQueue:
    """Runs batches in the background: of each owner the oldest one, and of several owners a few.

    Attributes:
        place: What all batches share.
    """

    def __init__(self, place: Workplace) -> None:
        """Run what earlier servers left unfinished."""
        self.place = place
        self._lock = threading.Lock()
        self._running: dict[str, threading.Thread] = {}  # by the batch's id
        self._stuck: set[str] = set()  # batches that the disk does not let end
        self.look()

    def look(self) -> None:
        """Begin the batches whose turn it is."""
        with self._lock:
            for record in self.place.batches.unfinished():
                if self._is_next(record):
                    self._begin(record.id)

    @property
    def idle(self) -> bool:
        """Whether no batch is being run."""
        return not self._running

    def join(self) -> None:
        """Wait for the batches that run to end, or to stop."""
        for thread in list(self._running.values()):
            thread.join()

    def cancel(self, owner: Owner, batch_id: str) -> BatchRecord:
        """Cancel a batch. The lines that are being run finish.

        Raises:
            ApiError: The owner has no such batch, or it has ended.
            OSError: The disk does not take it.
        """
        self.place.batches.find(owner, batch_id)
        record = self.place.batches.change(batch_id, cancelled)
        with self._lock:
            if batch_id not in self._running and not self.place.stops():
                self._begin(batch_id)  # which runs no line, so it takes nobody's turn
        return record

    def _is_next(self, record: BatchRecord) -> bool:
        if self.place.stops() or record.id in self._stuck or len(self._running) >= AT_ONCE:
            return False
        owners = {self.place.batches.get(batch_id).owner for batch_id in self._running}
        return record.owner not in owners

    def _begin(self, batch_id: str) -> None:
        name = f"unitok-{batch_id[:12]}"
        thread = threading.Thread(target=self._run, args=(batch_id,), name=name, daemon=True)
        self._running[batch_id] = thread
        thread.start()

    def _run(self, batch_id: str) -> None:
        try:
            self._work(BatchWork(self.place, batch_id))
        finally:
            with self._lock:
                del self._running[batch_id]
            self.look()

    def _work(self, work: BatchWork) -> None:
        """Run a batch to its end, or until the server is about to end."""
        while not (work.record.ended or self.place.stops()):
            try:
                work.run()
            except Interrupted:
                self._pause()
            except Exception:
                logger.exception("batch %s failed", work.id)
                self._fail(work)
                return

    def _fail(self, work: BatchWork) -> None:
        try:
            work.fail("internal_error", "the server failed; its log tells more")
        except OSError:
            self._stuck.add(work.id)
            logger.exception("batch %s could not be ended; the next start tries it again", work.id)

    def _pause(self) -> None:
        end = time.monotonic() + PAUSE
        while time.monotonic() < end and not self.place.stops():
            time.sleep(LOOK)


def cancelled(record: BatchRecord) -> BatchRecord:
    """The record of a batch that is to be cancelled.

    Raises:
        ApiError: It has ended.
    """
    if record.status == "cancelling":
        return record
    if record.status not in ("validating", "in_progress") or record.ending is not None:
        raise ApiError(
            409,
            f"the batch is {record.status} already, so it cannot be cancelled",
            code="batch_ended",
            headers={"x-should-retry": "false"},
        )
    return record.at("cancelling")
