"""Reads the answer of a host that pictures are fetched from: HTTP/1.1, within limits (RFC 9112)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_HEADERS = 100
CHUNK = 2**16  # bytes that are read at a time
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)( .*)?")
_LENGTH = re.compile(r"\d{1,15}", re.ASCII)
_CHUNK_LENGTH = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(;.*)?\r\n")


class FetchError(Exception):
    """A picture that is not fetched.

    Attributes:
        code: OpenAI's word for it.
    """

    def __init__(self, message: str, code: str = "invalid_image_url") -> None:
        """Say why."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Reply:
    """What a host answers.

    Attributes:
        status: The status.
        location: Where a redirect leads; "" for none.
        body: The bytes, if the status is 200.
    """

    status: int
    location: str
    body: bytes


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer.

    Raises:
        FetchError: It is no answer of HTTP.
        EOFError, OSError, asyncio.LimitOverrunError: It is cut off, or too long.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or len(lines) > MAX_HEADERS:
        raise _failed("the host of the picture does not speak HTTP/1.1")
    headers = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return int(status[1]), headers


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str], most: int) -> bytes:
    """The body of an answer.

    Args:
        reader: What the host sends.
        headers: The answer's headers.
        most: The most bytes.

    Raises:
        FetchError: It is too large, encoded, or damaged.
        EOFError, OSError, asyncio.LimitOverrunError: It is cut off or damaged.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _failed("the host of the picture sends it compressed, though it was not asked to")
    encoding = headers.get("transfer-encoding", "").lower()
    if encoding == "chunked":
        return await _chunks(reader, most)
    if encoding:
        raise _failed("the host of the picture sends it in an unknown way")
    length = headers.get("content-length")
    if length is None:
        return await _to_end(reader, most)
    if not _LENGTH.fullmatch(length):
        raise _failed("the host of the picture does not say how long it is")
    _check(int(length), most)
    return await reader.readexactly(int(length))


async def _chunks(reader: asyncio.StreamReader, most: int) -> bytes:
    data = bytearray()
    while True:
        length = _CHUNK_LENGTH.fullmatch(await reader.readuntil(b"\r\n"))
        if length is None:
            raise _failed("the picture arrives damaged")
        size = int(length[1], 16)
        if size == 0:
            return bytes(data)
        _check(len(data) + size, most)
        data += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise _failed("the picture arrives damaged")


async def _to_end(reader: asyncio.StreamReader, most: int) -> bytes:
    data = bytearray()
    while piece := await reader.read(CHUNK):
        _check(len(data) + len(piece), most)
        data += piece
    return bytes(data)


def _check(size: int, most: int) -> None:
    if size > most:
        told = f"the picture is larger than {most:,} bytes, the most that are fetched"
        raise FetchError(told, "image_file_too_large")


def _failed(message: str) -> FetchError:
    return FetchError(message, "failed_to_download_image")
