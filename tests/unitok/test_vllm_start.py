"""A start of vLLM that is interrupted, with a process in vLLM's place."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from unitok.backends.vllm.loop import LoopThread
from unitok.backends.vllm.starting import ENGINE, started

LONG = 600.0  # seconds that the process would take to start


def interrupt_once(ready: Callable[[], object]) -> None:
    """Send this process Ctrl-C as soon as something holds."""

    def wait() -> None:
        while not ready():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


async def nothing(client: object) -> None:
    """Ends nothing."""


def test_an_interrupt_ends_the_start_and_the_processes_of_it():
    process = multiprocessing.get_context("spawn").Process(
        target=time.sleep, args=(LONG,), name=f"{ENGINE}_DP0"
    )
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(LONG,))
    thread = LoopThread("start")

    async def start(stopped: threading.Event) -> None:
        process.start()
        other.start()
        process.join()
        raise RuntimeError("Engine core initialization failed")

    interrupt_once(lambda: other.pid)
    try:
        with pytest.raises(KeyboardInterrupt):
            started(thread, start, nothing)
        assert process.exitcode == -signal.SIGKILL and other.is_alive()
        assert thread.loop.is_closed()
    finally:
        other.kill()
        other.join()


def test_an_interrupt_before_a_process_begins_stops_the_start():
    thread, begun = LoopThread("start"), threading.Event()

    async def start(stopped: threading.Event) -> None:
        begun.set()
        assert stopped.wait(LONG)
        raise RuntimeError("it was not to start any more")

    interrupt_once(begun.is_set)
    with pytest.raises(KeyboardInterrupt):
        started(thread, start, nothing)
    assert thread.loop.is_closed()


def test_what_has_started_when_it_is_interrupted_is_ended():
    thread, ended = LoopThread("start"), []

    async def start(stopped: threading.Event) -> str:
        begun.set()
        assert stopped.wait(LONG)
        return "a client"

    async def end(client: str) -> None:
        ended.append(client)

    begun = threading.Event()
    interrupt_once(begun.is_set)
    with pytest.raises(KeyboardInterrupt):
        started(thread, start, end)
    assert ended == ["a client"] and thread.loop.is_closed()


def test_a_start_that_fails_raises_and_ends_the_thread():
    thread = LoopThread("start")

    async def start(stopped: threading.Event) -> Any:
        await asyncio.sleep(0)
        raise ValueError("a setting is wrong")

    with pytest.raises(ValueError, match="a setting is wrong"):
        started(thread, start, nothing)
    assert thread.loop.is_closed()
