"""Sends responses. A request counts until its client has taken all of its response."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from unitok.server.admission import Ticket


class Sending:
    """A response whose request leaves when the client has taken it. It is an ASGI app.

    Attributes:
        response: The response.
        ticket: The request's.
    """

    def __init__(self, response: Response, ticket: Ticket) -> None:
        """Nothing has been sent yet."""
        self.response, self.ticket = response, ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            self.ticket.answer(len(self.response.body))
            await self.response(scope, receive, waiting(send))
        finally:
            self.ticket.leave()


def waiting(send: Send) -> Send:
    """A `send` that waits until the client has taken the last bytes of a response.

    Servers wait for that only before they take the next message, so the end is one of its own.

    Args:
        send: The server's.
    """

    async def send_and_wait(message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("more_body"):
            await send(message)
            return
        if message.get("body"):
            await send({**message, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_and_wait
