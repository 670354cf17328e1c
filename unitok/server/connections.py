"""Connections of clients, with limits on how slow a client may be.

uvicorn has limits on time only between requests. Here a client also has to send the head of its
request, and to take its response, within a time; else its connection is closed, and what runs for
it is cancelled.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """A connection. Its buffer of what the client has not taken holds one message."""

    def __init__(self, *arguments: Any, head_seconds: float, send_seconds: float, **named: Any):
        """Take a new connection.

        Args:
            arguments: uvicorn's.
            head_seconds: The most seconds until the head of a request is there.
            send_seconds: The most seconds that the client may take nothing of its response.
            named: uvicorn's.
        """
        super().__init__(*arguments, **named)
        self._head_seconds, self._send_seconds = head_seconds, send_seconds
        self._heading: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless a response has begun, to which nothing can be added.

        Args:
            msg: What is wrong.
        """
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
        if not self._between_requests:  # the app's own response would be a second one
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def pause_writing(self) -> None:
        """Watch the client, which has not taken all that was sent."""
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        """Go on: the client has taken all."""
        super().resume_writing()
        _stop(self._sending)

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no more."""
        _stop(self._heading)
        _stop(self._sending)
        super().connection_lost(exc)

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch_head(self) -> None:
        """Close the connection if the head of a request that has begun does not come to its end."""
        if not self._between_requests:
            _stop(self._heading)
            self._heading = None
        elif self._heading is None:
            self._heading = self.loop.call_later(self._head_seconds, self._close_headless)

    def _close_headless(self) -> None:
        self._heading = None
        if self._between_requests:
            self.transport.abort()

    def _watch_sending(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._sending = self.loop.call_later(self._send_seconds, self._let_go, left)

    def _let_go(self, left: int) -> None:
        """End the connection if the client has taken nothing meanwhile."""
        if self.transport.get_write_buffer_size() < left:
            self._watch_sending()
        else:
            self.transport.abort()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
