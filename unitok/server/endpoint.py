"""What an endpoint gets: one call of a client, and the services of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from unitok.results import Result
from unitok.server.admission import Admission, Ticket
from unitok.server.bodies import read_json
from unitok.server.errors import ApiError
from unitok.server.gate import Passage
from unitok.server.keys import Owner
from unitok.server.metrics import Metrics
from unitok.server.picture_parts import Fetcher
from unitok.server.running import Runner, while_connected
from unitok.server.sending import Sending
from unitok.server.served import ServedModels
from unitok.server.settings import ServerSettings
from unitok.server.state.folder import State
from unitok.server.streams import EventStream
from unitok.strict_json import JsonObject


@dataclass(frozen=True)
class Services:
    """What all endpoints share.

    Attributes:
        models: The models.
        settings: The limits and the times.
        admission: Counts what is on its way.
        runner: Runs requests.
        metrics: Counts them.
        fetcher: Fetches pictures; None if no host is allowed.
        state: What is kept on disk; None for nothing.
    """

    models: ServedModels
    settings: ServerSettings
    admission: Admission
    runner: Runner
    metrics: Metrics
    fetcher: Fetcher | None = None
    state: State | None = None


@dataclass(frozen=True)
class Call:
    """A request that was admitted.

    Attributes:
        request: The request.
        passage: Its id, and whose it is.
        ticket: Its room.
        services: What all endpoints share.
    """

    request: Request
    passage: Passage
    ticket: Ticket
    services: Services

    async def json(self) -> Any:
        """The JSON value of the body."""
        return await read_json(self.request, self.ticket, self.services.settings)

    @cached_property
    def fetcher(self) -> Fetcher | None:
        """Fetches pictures, whose bytes count as those of the request; None if none may be."""
        fetcher, seconds = self.services.fetcher, self.services.settings.fetch_seconds
        return None if fetcher is None else HeldFetcher(fetcher, self.request, self.ticket, seconds)

    def stream(self, bodies: AsyncGenerator[JsonObject], named: bool = False) -> Response:
        """The response that sends bodies as they come; see `EventStream`."""
        return EventStream(bodies, self.passage, self.services.settings, named)

    def held(self, response: Response) -> Response:
        """A response whose bytes find room beside the bodies of other requests.

        Raises:
            ApiError: They do not.
        """
        self.ticket.hold(len(response.body))
        return response

    def note_usage(self, results: Sequence[Result]) -> None:
        """Put the counts of tokens into the log line."""
        self.passage.log["prompt_tokens"] = sum(result.prompt_tokens for result in results)
        self.passage.log["tokens"] = sum(result.completion_tokens for result in results)


@dataclass
class HeldFetcher:
    """Fetches the pictures of one request, one after the other.

    Attributes:
        fetcher: Fetches them.
        request: The request, whose connection is watched.
        ticket: Its room, which holds their bytes.
        seconds: The most that all of its pictures may take.
    """

    fetcher: Fetcher
    request: Request
    ticket: Ticket
    seconds: float
    _spent: float = field(default=0.0, init=False)

    async def fetch(self, url: str, param: str) -> bytes:
        """The bytes of a picture; see `Fetcher.fetch`."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(self.seconds - self._spent):
                data = await while_connected(self.request, self.fetcher.fetch(url, param))
        except TimeoutError:
            told = f"{param}: the pictures did not all arrive within {self.seconds:g} s"
            raise ApiError(400, told, param=param, code="failed_to_download_image") from None
        self._spent += time.monotonic() - start
        self.ticket.hold(len(data))
        return data


Work = Callable[[Call], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Sending]]


def admitted(work: Work, services: Services) -> Endpoint:
    """An endpoint that is counted before its body is read, and until its response is taken.

    Args:
        work: What it does.
        services: What all endpoints share.
    """
    return _counted(work, services, services.admission.enter)


def told(work: Work, services: Services) -> Endpoint:
    """An endpoint that tells what is kept. It makes nothing, so only its bytes are counted.

    Args:
        work: What it does.
        services: What all endpoints share.
    """
    return _counted(work, services, services.admission.visit)


def _counted(work: Work, services: Services, enter: Callable[[Owner], Ticket]) -> Endpoint:
    async def endpoint(request: Request) -> Sending:
        passage: Passage = request.scope["state"]["passage"]
        ticket = enter(passage.owner)
        try:
            response = await work(Call(request, passage, ticket, services))
        except BaseException:
            ticket.leave()
            raise
        return Sending(response, ticket)

    return endpoint
