"""Runs what a response asks for, and tells it: at once, or in a stream of events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from unitok.openai_wire.responses_input import Item
from unitok.openai_wire.responses_output import Output, Status, Teller
from unitok.requests import AnyRequest
from unitok.results import Event, Result
from unitok.server.endpoint import Call
from unitok.server.errors import ApiError, internal
from unitok.server.served import Served
from unitok.strict_json import JsonObject

logger = logging.getLogger(__name__)

Keep = Callable[[JsonObject, Sequence[Item], Item], None]


@dataclass(frozen=True)
class ResponseRun:
    """A response that is to be made.

    Attributes:
        served: The model.
        request: What it is asked for.
        teller: Makes the bodies.
        output: Makes the item.
        read: What the model reads.
        keep: Stores the response; None if it is not wanted.
    """

    served: Served
    request: AnyRequest
    teller: Teller
    output: Output
    read: Sequence[Item]
    keep: Keep | None

    async def respond(self, call: Call, stream: bool) -> Response:
        """Begin, and answer.

        Args:
            call: The call, whose body is read.
            stream: Whether the response comes in events.

        Raises:
            ApiError: The request is wrong or, without a stream, failed.
        """
        runner = call.services.runner
        if stream:
            (events,) = await runner.started(call.request, self.served, [self.request], call.ticket)
            return call.stream(self._events(call, events), named=True)
        (result,) = await runner.results(
            call.request, self.served, [self.request], call.passage.owner
        )
        call.note_usage([result])
        item = await asyncio.to_thread(self.output.item, result)
        return await asyncio.to_thread(JSONResponse, self._ended(item, result))

    async def _events(
        self, call: Call, events: AsyncGenerator[Event]
    ) -> AsyncGenerator[JsonObject]:
        async with aclosing(events):
            try:
                async for body in self._told(call, events):
                    yield body
            except ApiError as error:
                call.passage.log["error"] = error.code or "invalid_request"
                for body in self._failed(error):
                    yield body
            except Exception:
                logger.exception("request %s failed", call.passage.id)
                call.passage.log["error"] = "internal_error"
                yield self.teller.error(internal(call.passage.id).message, "internal_error")

    async def _told(self, call: Call, events: AsyncGenerator[Event]) -> AsyncGenerator[JsonObject]:
        teller, output, result = self.teller, self.output, None
        for kind in ("created", "in_progress"):
            yield teller.event(kind, response=teller.body("in_progress"))
        for body in output.begin(teller):
            yield body
        async for event in events:
            result = event.result
            for body in await self._added(event):
                yield body
        assert result is not None
        call.note_usage([result])
        item = await asyncio.to_thread(output.item, result)
        for body in output.end(teller, item):
            yield body
        yield teller.event("output_item.done", output_index=0, item=item)
        ended = self._ended(item, result)
        yield teller.event(ended["status"], response=ended)

    async def _added(self, event: Event) -> list[JsonObject]:
        """The events of a piece. A picture is encoded beside the event loop."""
        if event.image is None:
            return list(self.output.add(self.teller, event))
        return await asyncio.to_thread(lambda: list(self.output.add(self.teller, event)))

    def _ended(self, item: JsonObject, result: Result) -> JsonObject:
        """The body of the response, which is kept if that is wanted."""
        status: Status = "incomplete" if item["status"] == "incomplete" else "completed"
        completed = int(time.time()) if status == "completed" else None
        body = self.teller.body(status, item, result, completed=completed)
        if self.keep is not None:
            self.keep(body, self.read, Item.of(item))
        return body

    def _failed(self, error: ApiError) -> list[JsonObject]:
        """The events of a response that failed."""
        item = self.output.failed()
        told = {"code": error.code or "server_error", "message": error.message}
        return [
            self.teller.event("output_item.done", output_index=0, item=item),
            self.teller.event("failed", response=self.teller.body("failed", item, error=told)),
        ]
