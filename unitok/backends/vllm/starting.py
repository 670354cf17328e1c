"""Has vLLM start, and ends a start that is interrupted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Set
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from multiprocessing import active_children
from typing import Any, TypeVar

from unitok.backends.vllm.loop import LoopThread

T = TypeVar("T")
ENGINE = "EngineCore"  # how the names of vLLM's processes begin


def started(
    thread: LoopThread,
    start: Callable[[threading.Event], Coroutine[Any, Any, T]],
    end: Callable[[T], Coroutine[Any, Any, object]],
) -> T:
    """Have vLLM start in a loop, and wait for it.

    While its processes start, they put off every signal until they are ready, which may take
    minutes. So those of a start that is interrupted are killed, upon which the start fails.

    Args:
        thread: Runs the loop, and is ended if nothing starts.
        start: Starts vLLM; an event is set if it need not go on.
        end: Ends what has started all the same.

    Raises:
        Exception: Of the start.
        KeyboardInterrupt: The wait was interrupted. No process of vLLM's is left.
    """
    before, stopped = frozenset(active_children()), threading.Event()
    starting = asyncio.run_coroutine_threadsafe(start(stopped), thread.loop)
    try:
        return starting.result()
    except BaseException:
        stopped.set()
        thread.end(_undone(starting, end), meanwhile=partial(_kill_engines, before))
        raise


async def _undone(starting: Future[T], end: Callable[[T], Coroutine[Any, Any, object]]) -> None:
    """Wait for a start that nobody wants any more, and end what it has started."""
    with suppress(Exception):  # which the caller has, or which comes of the kill
        await end(await asyncio.wrap_future(starting))


def _kill_engines(before: Set[Any]) -> None:
    """Kill those of vLLM's processes that were not there before."""
    for process in active_children():
        if process.name.startswith(ENGINE) and process not in before:
            process.kill()
