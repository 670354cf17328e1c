"""Runs requests for clients: results and events of the driver, cancelled if a client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import Request

from unitok.handles import Handle
from unitok.openai_wire.body import WireError
from unitok.requests import AnyRequest
from unitok.results import Event, Result
from unitok.server.admission import Ticket
from unitok.server.errors import ApiError, ClientGone, of_library, overloaded, timed_out
from unitok.server.keys import Owner
from unitok.server.metrics import Metrics
from unitok.server.served import Served
from unitok.server.settings import ServerSettings

R = TypeVar("R")
T = TypeVar("T")


class Runner:
    """Hands requests to the models' drivers.

    Attributes:
        settings: The times.
        metrics: Counts results.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        """Keep the settings."""
        self.settings, self.metrics = settings, metrics

    async def results(
        self, request: Request, served: Served, asked: Sequence[AnyRequest], owner: Owner
    ) -> list[Any]:
        """The results of what one client asked for, in order.

        Args:
            request: The client's, whose connection is watched.
            served: The model.
            asked: What is asked for.
            owner: Whose it is. The owners share the engine fairly.

        Raises:
            ApiError: A request is wrong, failed, or its time is over. All have ended.
            ClientGone: The client has closed the connection. All have ended.
        """
        return await while_connected(request, self._results(served, asked, owner))

    async def _results(
        self, served: Served, asked: Sequence[AnyRequest], owner: Owner
    ) -> list[Result]:
        handles: list[Handle[Event, Result]] = []
        try:
            for one in asked:
                handles.append(await self.submit(served, one, owner))
            results = [checked(await handle) for handle in handles]
        finally:
            for handle in handles:
                handle.cancel()
        for result in results:
            self.metrics.result(served.name, result)
        return results

    async def submit(
        self, served: Served, asked: AnyRequest, owner: Owner, stream: bool = False
    ) -> Handle[Event, Result]:
        """Hand a request to its model's driver.

        Raises:
            ApiError: The request is wrong, or the model takes none.
        """
        timeout = self.settings.request_seconds
        if asked.timeout is not None:
            timeout = min(timeout, asked.timeout)
        if asked.priority < 0:
            raise ApiError(
                400,
                '"priority" must be 0 or more here: no request goes before others',
                param="priority",
            )
        asked = replace(asked, timeout=timeout, adapter=served.adapter)
        share = owner.id or None
        try:
            return await served.model.asubmit(asked, share=share, stream=stream, progress=False)
        except WireError:
            raise
        except (ValueError, TypeError) as error:
            raise of_library(error, asked) from None
        except RuntimeError as error:  # closed, or full
            raise overloaded(str(error), 5) from None

    async def started(
        self, request: Request, served: Served, asked: Sequence[AnyRequest], ticket: Ticket
    ) -> list[AsyncGenerator[Event]]:
        """Events of what one client asked for, as they come. The last one of each has the result.

        All are submitted here, so that a wrong one raises before a stream begins. Leaving an
        iterator cancels its request, and so does the end of the ticket.

        Args:
            request: The client's, whose connection is watched.
            served: The model.
            asked: What is asked for.
            ticket: The client's.

        Raises:
            ApiError: A request is wrong, or the model takes none. The iterators raise it if one
                failed, or its time is over.
            ClientGone: The client has closed the connection.
        """
        return await while_connected(request, self._started(served, asked, ticket))

    async def _started(
        self, served: Served, asked: Sequence[AnyRequest], ticket: Ticket
    ) -> list[AsyncGenerator[Event]]:
        start, streams = time.monotonic(), []
        for one in asked:
            handle = await self.submit(served, one, ticket.owner, stream=True)
            ticket.at_leaving(handle.cancel)
            streams.append(self._events(served, handle, start))
        return streams

    async def _events(
        self, served: Served, handle: Handle[Event, Result], start: float
    ) -> AsyncGenerator[Event]:
        begun = False
        try:
            async for event in handle:
                if not begun:
                    self.metrics.first_token(served.name, time.monotonic() - start)
                    begun = True
                if event.result is not None:
                    self.metrics.result(served.name, checked(event.result))
                yield event
        finally:
            handle.cancel()


def checked(result: Result) -> Result:
    """A result without an error.

    Raises:
        ApiError: It has one.
    """
    if result.error is None:
        return result
    if result.finish_reason == "timeout":
        raise timed_out(result.error)
    if result.finish_reason == "abort":
        raise ApiError(503, result.error, code="aborted", headers={"retry-after": "1"})
    raise ApiError(500, result.error, code="generation_failed")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Wait for work, and cancel it if the client goes away.

    Args:
        request: The client's, whose body has been read.
        work: What is waited for.

    Raises:
        ClientGone: The client has closed the connection.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        watching.cancel()
        working.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def merged(
    streams: Sequence[AsyncGenerator[Event]],
) -> AsyncGenerator[tuple[int, Event]]:
    """The events of several streams as they come, each with the number of its stream.

    At most one event of each stream is taken ahead, so a slow reader delays all of them.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as stream:
            async for event in stream:
                yield 0, event
        return
    taken: asyncio.Queue[tuple[int, Event | Exception | None]] = asyncio.Queue(1)
    tasks = [asyncio.ensure_future(_pass_on(n, one, taken)) for n, one in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            number, event = await taken.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                left -= 1
            else:
                yield number, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    number: int,
    stream: AsyncGenerator[Event],
    taken: asyncio.Queue[tuple[int, Event | Exception | None]],
) -> None:
    """Put the events of a stream into a queue, and then None or what broke it off."""
    try:
        async with aclosing(stream):
            async for event in stream:
                await taken.put((number, event))
        await taken.put((number, None))
    except Exception as error:
        await taken.put((number, error))
