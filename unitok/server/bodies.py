"""Reads the bodies of requests within limits."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from unitok.server.admission import Ticket
from unitok.server.errors import ApiError, ClientGone
from unitok.server.settings import ServerSettings
from unitok.strict_json import parse_json

LARGE = 2**18  # bytes of JSON that are parsed in a thread, as that takes milliseconds
JSON_TYPES = ("application/json", "")


async def read_json(request: Request, ticket: Ticket, settings: ServerSettings) -> Any:
    """The JSON value of a request's body.

    Raises:
        ApiError: It is too large, too slow, compressed, of another type, or not JSON.
        ClientGone: The client has closed the connection.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in JSON_TYPES:
        raise ApiError(
            415,
            f"the body must be application/json, not {kind[:60]}",
            code="unsupported_media_type",
        )
    data = await read_body(request, ticket, settings)
    try:
        if len(data) < LARGE:
            return parse_json(data)
        return await asyncio.to_thread(parse_json, data)
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_json") from None


async def read_body(request: Request, ticket: Ticket, settings: ServerSettings) -> bytes:
    """The bytes of a request's body.

    Raises:
        ApiError: There are too many, they come too slowly, or they are compressed.
        ClientGone: The client has closed the connection.
    """
    check_length(request, settings.max_body)
    try:
        async with asyncio.timeout(settings.body_seconds):
            return await _collected(request, ticket, settings.max_body)
    except TimeoutError:
        raise ApiError(
            408,
            f"the body did not arrive within {settings.body_seconds:g} s",
            code="body_timeout",
            headers={"connection": "close"},
        ) from None
    except ClientDisconnect:
        raise ClientGone from None


def check_length(request: Request, most: int) -> None:
    """Refuse a body by what its headers say, before any of it is read.

    Raises:
        ApiError: It is too large, or compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise ApiError(
            415, "compressed bodies are not read: send it as it is", code="unsupported_encoding"
        )
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise ApiError(400, "content-length is no number", code="invalid_header")
    if len(length) > 18 or int(length) > most:
        raise too_large(most)


def too_large(most: int) -> ApiError:
    """The error of a body that is too large."""
    return ApiError(
        413,
        f"the body is larger than {most:,} bytes, the most that is read",
        code="body_too_large",
        headers={"connection": "close"},  # the rest of it is not read
    )


async def _collected(request: Request, ticket: Ticket, most: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        if len(data) + len(chunk) > most:
            raise too_large(most)
        ticket.hold(len(chunk))
        data += chunk
    return bytes(data)
