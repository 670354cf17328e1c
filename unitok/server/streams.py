"""Server-sent events: bodies one after the other, with heartbeats, for clients that may be slow.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent

from unitok.openai_wire.body import WireError
from unitok.server.admission import Ticket
from unitok.server.errors import ApiError, of_wire
from unitok.server.gate import Passage
from unitok.server.settings import ServerSettings
from unitok.strict_json import JsonObject

logger = logging.getLogger(__name__)

DONE = "[DONE]"


def stream_response(
    bodies: AsyncGenerator[JsonObject],
    ticket: Ticket,
    passage: Passage,
    settings: ServerSettings,
    named: bool = False,
) -> EventSourceResponse:
    """The response that sends bodies as they come.

    Nothing is sent ahead of a client that reads slowly: the next body is made when the last one is
    on its way. A client that takes nothing for too long is let go, and its requests are cancelled.

    Args:
        bodies: The bodies. Its errors are sent as a body, too.
        ticket: The request's, which leaves at the end.
        passage: The request's.
        settings: The times.
        named: Whether each event has the name that its body has as "type", and the end is not
            marked, as in the responses API.
    """
    return EventSourceResponse(
        _events(bodies, ticket, passage, named),
        ping=settings.heartbeat_seconds,
        send_timeout=settings.send_seconds,
        sep="\n",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _events(
    bodies: AsyncGenerator[JsonObject], ticket: Ticket, passage: Passage, named: bool
) -> AsyncGenerator[ServerSentEvent]:
    try:
        async with aclosing(bodies):
            async for body in bodies:
                yield _event(body, named)
        if not named:
            yield ServerSentEvent(DONE)
    except (ApiError, WireError) as error:
        told = of_wire(error) if isinstance(error, WireError) else error
        passage.log["error"] = told.code or "invalid_request"
        yield _event(told.body, False)
    except GeneratorExit:
        passage.log["aborted"] = True
        raise
    except Exception:
        logger.exception("request %s failed", passage.id)
        passage.log["error"] = "internal_error"
        told = f"the server failed; its log tells more of request {passage.id}"
        yield _event(ApiError(500, told, code="internal_error").body, False)
    finally:
        ticket.leave()


def _event(body: JsonObject, named: bool) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(body), event=body["type"] if named else None)
