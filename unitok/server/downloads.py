"""Sends a file's bytes to a client that may be slow."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unitok.server.errors import ClientGone

AT_ONCE = 2**18  # bytes that are in memory


class Download(Response):
    """The response that holds a file. Browsers save it, and never show it as a page."""

    media_type = "application/octet-stream"

    def __init__(self, file: BinaryIO, size: int, send_seconds: float) -> None:
        """Prepare to send a file.

        Args:
            file: The file, which is closed at the end.
            size: Its bytes.
            send_seconds: The most seconds that the client may take nothing.
        """
        headers = {"content-disposition": "attachment", "content-length": str(size)}
        super().__init__(None, headers=headers)
        self._file, self._seconds = file, send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file.

        Raises:
            ClientGone: The client has taken nothing for too long.
        """
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        with self._file:
            await send(start)
            while piece := await asyncio.to_thread(self._file.read, AT_ONCE):
                await self._send(send, piece)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, piece: bytes) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise ClientGone from None
