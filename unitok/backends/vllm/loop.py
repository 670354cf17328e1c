"""An event loop in a thread of its own, for a program that has none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
LOOK = 0.1  # seconds between two calls of what is done while the thread ends


class LoopThread:
    """Runs an event loop until it is stopped.

    Attributes:
        loop: The loop.
    """

    def __init__(self, name: str) -> None:
        """Start the thread.

        Args:
            name: The thread's.
        """
        self.loop = asyncio.new_event_loop()
        # An interpreter that exits does not wait for it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Have a coroutine run in the loop, and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def end(
        self, last: Coroutine[Any, Any, object], meanwhile: Callable[[], object] | None = None
    ) -> None:
        """Have a last coroutine run in the loop, then end the thread, and wait for that.

        The thread itself does not wait, as when it collects what nobody has any more.

        Args:
            last: The coroutine.
            meanwhile: Called again and again by those who wait.

        Raises:
            Exception: What the coroutine raised.
        """
        ended = asyncio.run_coroutine_threadsafe(last, self.loop)
        ended.add_done_callback(lambda _: self.loop.call_soon_threadsafe(self.loop.stop))
        if threading.current_thread() is not self._thread:
            while meanwhile is not None and self._thread.is_alive():
                meanwhile()
                self._thread.join(LOOK)
            self._thread.join()
            ended.result()
