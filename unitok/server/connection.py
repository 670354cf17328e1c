"""Connections of clients, which may not hold memory or a socket by doing nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from unitok.server.settings import ServerSettings


class Connection(H11Protocol):
    """A connection that is cut if its client sends no whole head, or takes nothing of a response.

    uvicorn bounds neither: its own limit is for connections that have had a response.

    Attributes:
        settings: The times.
    """

    def __init__(self, settings: ServerSettings, **given: Any) -> None:
        """Nothing is connected yet.

        Args:
            settings: The times.
            given: What uvicorn gives.
        """
        super().__init__(**given)
        self.settings = settings
        self._head: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head, self._sending = cancelled(self._head), cancelled(self._sending)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head = cancelled(self._head)
        elif self._head is None:  # a part of the next head
            self._await_head()

    def pause_writing(self) -> None:
        """The client is behind: look whether it takes something."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client has taken what was there, or almost."""
        self._sending = cancelled(self._sending)
        super().resume_writing()

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.settings.head_seconds, self.transport.abort)

    def _watch(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._sending = self.loop.call_later(self.settings.send_seconds, self._look, left)

    def _look(self, before: int) -> None:
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch()


def cancelled(timer: asyncio.TimerHandle | None) -> None:
    """Cancel a timer, if there is one."""
    if timer is not None:
        timer.cancel()
