"""Server-sent events: bodies one after the other, with heartbeats, for clients that may be slow.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unitok.openai_wire.body import WireError
from unitok.server.errors import ApiError, internal, of_wire
from unitok.server.gate import Passage
from unitok.server.running import while_connected
from unitok.server.settings import ServerSettings
from unitok.strict_json import JsonObject

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": still here\n\n"


class EventStream(Response):
    """The response that sends bodies as they come.

    Nothing is sent ahead of a client that reads slowly: the next body is made when the last one is
    on its way. A client that goes away, or is let go by its connection, takes its requests along.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        bodies: AsyncGenerator[JsonObject],
        passage: Passage,
        settings: ServerSettings,
        named: bool = False,
    ) -> None:
        """Prepare to send.

        Args:
            bodies: The bodies. Its errors are sent as a body, too.
            passage: The request's.
            settings: The times.
            named: Whether each event has the name that its body has as "type", and the end is not
                marked, as in the responses API.
        """
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self.body = b""  # as a whole, that is
        self._bodies, self._passage = bodies, passage
        self._heartbeat, self._named = settings.heartbeat_seconds, named
        self._last = 0.0  # when something was sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all.

        Raises:
            ClientGone: The client has closed the connection.
        """
        try:
            await while_connected(Request(scope, receive), self._sent(send))
        finally:
            await self._bodies.aclose()

    async def _sent(self, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        beating = asyncio.ensure_future(self._beat(send))
        try:
            async with aclosing(self._events()) as events:
                async for event in events:
                    await self._send(send, event)
        finally:
            beating.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, event: bytes) -> None:
        await send({"type": "http.response.body", "body": event, "more_body": True})
        self._last = time.monotonic()

    async def _beat(self, send: Send) -> None:
        """Send something whenever nothing was sent for a while."""
        self._last = time.monotonic()
        while True:
            await asyncio.sleep(max(0.0, self._last + self._heartbeat - time.monotonic()))
            if time.monotonic() >= self._last + self._heartbeat:
                await self._send(send, HEARTBEAT)

    async def _events(self) -> AsyncGenerator[bytes]:
        passage = self._passage
        try:
            async for body in self._bodies:
                yield encoded(body, self._named)
            if not self._named:
                yield DONE
        except (ApiError, WireError) as error:
            told = of_wire(error) if isinstance(error, WireError) else error
            passage.log["error"] = told.code or "invalid_request"
            yield encoded(told.body, False)
        except Exception:
            logger.exception("request %s failed", passage.id)
            passage.log["error"] = "internal_error"
            yield encoded(internal(passage.id).body, False)


def encoded(body: JsonObject, named: bool) -> bytes:
    """A body as an event.

    Args:
        body: The body.
        named: Whether the event has the name that its body has as "type".
    """
    name = f"event: {body['type']}\n" if named else ""
    return f"{name}data: {json.dumps(body)}\n\n".encode()
