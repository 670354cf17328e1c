"""Clients of a server, as light as can be: they run in a process beside it, and must not slow it.

Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 600.0  # seconds for one answer


@dataclass(frozen=True)
class Wanted:
    """A request.

    Attributes:
        path: Where it goes.
        content_type: What its body is.
        body: Its body.
        stream: Whether the answer is a stream of events.
    """

    path: str
    content_type: str
    body: bytes
    stream: bool = False


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        status: The HTTP status.
        said: The text, or the first picture in base64; the error's code if it is one.
        seconds: From the moment when it was due to its last byte.
        after: The seconds that the server asks to wait, if it refuses; None if it says nothing.
    """

    status: int
    said: str | None
    seconds: float
    after: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the request was taken in and done."""
        return self.status == 200


class Client:
    """A connection to a server that is used for one request after the other."""

    def __init__(self, url: str) -> None:
        """Connect with the first request."""
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, wanted: Wanted, due: float | None = None) -> Answer:
        """Send a request and read its answer.

        Args:
            wanted: The request.
            due: When it was due, on the clock of `time.monotonic`; None for now.
        """
        start = time.monotonic() if due is None else due
        async with asyncio.timeout(PATIENCE):
            status, headers, body = await self._exchange(wanted)
        seconds = time.monotonic() - start
        return Answer(status, _said(wanted, status, body), seconds, headers.get("retry-after"))

    async def _exchange(self, wanted: Wanted) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=2**24)
        reader, writer = self._streams
        head = (
            f"POST {wanted.path} HTTP/1.1\r\nhost: {self._host}\r\n"
            f"content-type: {wanted.content_type}\r\ncontent-length: {len(wanted.body)}\r\n\r\n"
        )
        writer.write(head.encode() + wanted.body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        parts = (line.partition(":") for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in parts}
        body = await _body(reader, headers)
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), headers, body

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body


def _said(wanted: Wanted, status: int, body: bytes) -> str | None:
    if status != 200:
        return json.loads(body)["error"]["code"]
    if not wanted.stream:
        return _content(json.loads(body))
    lines = (line[6:] for line in body.decode().splitlines() if line.startswith("data: "))
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    if any("error" in event for event in events):
        return None
    if "choices" in events[0]:
        return "".join(c["delta"].get("content", "") for e in events for c in e["choices"])
    return events[-1]["b64_json"]


def _content(body: Any) -> str:
    if "choices" in body:
        return body["choices"][0]["message"]["content"]
    return body["data"][0]["b64_json"]


def closed_loop(url: str, wanted: Sequence[Wanted], clients: int) -> list[Answer]:
    """The answers to requests of clients that each ask again when they have an answer.

    Args:
        url: The server's.
        wanted: The requests.
        clients: How many there are.
    """
    return asyncio.run(_closed_loop(url, wanted, clients))


async def _closed_loop(url: str, wanted: Sequence[Wanted], clients: int) -> list[Answer]:
    answers: dict[int, Answer] = {}
    todo = iter(enumerate(wanted))

    async def one_client() -> None:
        client = Client(url)
        for number, request in todo:
            answers[number] = await client.ask(request)
        client.close()

    await asyncio.gather(*(one_client() for _ in range(min(clients, len(wanted)))))
    return [answers[number] for number in range(len(wanted))]


def open_loop(url: str, wanted: Sequence[Wanted], moments: Sequence[float]) -> list[Answer]:
    """The answers to requests that come when they come, whether the server is ready or not.

    Args:
        url: The server's.
        wanted: The requests.
        moments: When each is due, in seconds from the start.
    """
    return asyncio.run(_open_loop(url, wanted, moments))


async def _open_loop(url: str, wanted: Sequence[Wanted], moments: Sequence[float]) -> list[Answer]:
    start, unused = time.monotonic() + 0.1, list[Client]()

    async def one(request: Wanted, moment: float) -> Answer:
        await asyncio.sleep(max(0.0, start + moment - time.monotonic()))
        client = unused.pop() if unused else Client(url)
        answer = await client.ask(request, start + moment)
        unused.append(client)
        return answer

    answers = await asyncio.gather(*map(one, wanted, moments))
    for client in unused:
        client.close()
    return answers
