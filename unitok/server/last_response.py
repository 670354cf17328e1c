"""A response behind which the connection is closed, though the client may still be sending."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

LINGER_SECONDS = 5.0  # the most that the rest of a body is waited for
QUIET_SECONDS = 0.5  # without a byte, after which no more is expected
LINGER_BYTES = 2**26  # of a body that are thrown away


class LastResponse(JSONResponse):
    """Sends itself, and throws away what the client still sends before the connection is closed.

    A connection that is closed while bytes arrive is reset, and a reset can take the response from
    a client that reads only when it has sent all: https://www.rfc-editor.org/rfc/rfc9112#section-9.6
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, then wait for the rest of the request within limits.

        The gate's note of the request says when the response was sent.
        """
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        scope["state"]["passage"].answered = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _throw_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _throw_away(receive: Receive) -> None:
    """Take what comes of a body.

    Raises:
        TimeoutError: No more comes.
    """
    left = LINGER_BYTES
    while left > 0:
        async with asyncio.timeout(QUIET_SECONDS):
            message = await receive()
        if not message.get("more_body"):  # the last part, or the client has closed the connection
            return
        left -= len(message["body"])
