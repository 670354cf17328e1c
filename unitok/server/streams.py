"""Server-sent events: bodies one after the other, with heartbeats, for clients that may be slow.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from unitok.openai_wire.body import WireError
from unitok.server.admission import Ticket
from unitok.server.errors import ApiError, ClientGone, of_wire
from unitok.server.gate import Passage
from unitok.server.settings import ServerSettings
from unitok.strict_json import JsonObject

logger = logging.getLogger(__name__)

DONE = "[DONE]"


class Stream(EventSourceResponse):
    """The response that sends bodies as they come.

    Nothing is sent ahead of a client that reads slowly: the next body is made when the last one is
    on its way. A client that takes nothing for too long is let go, and its requests are cancelled.
    """

    def __init__(
        self,
        bodies: AsyncGenerator[JsonObject],
        ticket: Ticket,
        passage: Passage,
        settings: ServerSettings,
        named: bool = False,
    ) -> None:
        """Prepare to send.

        Args:
            bodies: The bodies. Its errors are sent as a body, too.
            ticket: The request's, which leaves at the end.
            passage: The request's.
            settings: The times.
            named: Whether each event has the name that its body has as "type", and the end is not
                marked, as in the responses API.
        """
        super().__init__(
            self._events(bodies),
            ping=settings.heartbeat_seconds,
            send_timeout=settings.send_seconds,
            sep="\n",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
        self._ticket, self._passage, self._named = ticket, passage, named
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bodies. The ticket leaves even if the first one is never asked for.

        Raises:
            ClientGone: The client has taken nothing for too long.
        """
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            raise ClientGone from None
        finally:
            self._ticket.leave()
            if not self._ended:
                self._passage.log["aborted"] = True

    async def _events(self, bodies: AsyncGenerator[JsonObject]) -> AsyncGenerator[ServerSentEvent]:
        try:
            async with aclosing(bodies):
                async for body in bodies:
                    yield _event(body, self._named)
            if not self._named:
                yield ServerSentEvent(DONE)
        except (ApiError, WireError) as error:
            yield self._failed(of_wire(error) if isinstance(error, WireError) else error)
        except Exception:
            logger.exception("request %s failed", self._passage.id)
            told = f"the server failed; its log tells more of request {self._passage.id}"
            yield self._failed(ApiError(500, told, code="internal_error"))
        self._ended = True

    def _failed(self, error: ApiError) -> ServerSentEvent:
        self._passage.log["error"] = error.code or "invalid_request"
        return _event(error.body, False)


def _event(body: JsonObject, named: bool) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(body), event=body["type"] if named else None)
