"""Reads bodies of multipart/form-data, such as those that upload pictures (RFC 7578).

A body is bounded, so it is read as a whole and cut at its boundary: nothing is written to disk, and
names of files are not looked at.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from unitok.server.admission import Ticket
from unitok.server.bodies import LARGE, read_body
from unitok.server.errors import ApiError
from unitok.server.settings import ServerSettings

FORM = "multipart/form-data"
MAX_PARTS = 100
MAX_TEXT = 2**20  # bytes of a part that is no file
MAX_PART_HEADERS = 4096  # bytes
MAX_BOUNDARY = 70  # characters, as RFC 2046 has it
PLAIN = ("", "7bit", "8bit", "binary")  # encodings of parts that leave their bytes as they are


@dataclass(frozen=True)
class Part:
    """A part of a form.

    Attributes:
        name: Its name.
        data: Its bytes.
        is_file: Whether it is an uploaded file.
        media_type: What it says that it is, such as "image/png"; "" if it says nothing.
    """

    name: str
    data: bytes
    is_file: bool = False
    media_type: str = ""

    @property
    def text(self) -> str:
        """The text of a part that is no file.

        Raises:
            ApiError: It is a file, too long, or not in UTF-8.
        """
        if self.is_file:
            raise ApiError(400, f'"{self.name}" must be text, not a file', param=self.name)
        if len(self.data) > MAX_TEXT:
            told = f'"{self.name}" is longer than {MAX_TEXT:,} bytes'
            raise ApiError(400, told, param=self.name)
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise ApiError(400, f'"{self.name}" is not in UTF-8', param=self.name) from None


async def read_form(request: Request, ticket: Ticket, settings: ServerSettings) -> list[Part]:
    """The parts of a request's body, in order.

    Raises:
        ApiError: It is too large, too slow, compressed, of another type, or no form.
        ClientGone: The client has closed the connection.
    """
    boundary = boundary_of(request.headers.get("content-type", ""))
    data = await read_body(request, ticket, settings)
    ticket.hold(len(data))  # of the parts, which are copies
    if len(data) < LARGE:
        return parse_form(data, boundary)
    return await asyncio.to_thread(parse_form, data, boundary)


def boundary_of(content_type: str) -> bytes:
    """What stands between the parts of a form.

    Args:
        content_type: The header of this name.

    Raises:
        ApiError: It is of another type, or has no such text.
    """
    kind, options = parse_options_header(content_type)
    if kind.decode("latin-1").lower() != FORM:
        raise ApiError(
            415,
            f"the body must be {FORM}, not {content_type.partition(';')[0][:60]}",
            code="unsupported_media_type",
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise _wrong(f"content-type has no boundary of 1 to {MAX_BOUNDARY} characters")
    return boundary


def parse_form(data: bytes, boundary: bytes) -> list[Part]:
    """The parts of a form.

    Args:
        data: All of it.
        boundary: What stands between the parts.

    Raises:
        ApiError: It is damaged, or has too many parts.
    """
    mark, parts = b"\r\n--" + boundary, []
    if not data.startswith(mark[2:]):
        raise _wrong("the form does not begin with its boundary")
    at = len(mark) - 2
    while data[at : at + 2] != b"--":
        end = data.find(mark, at)
        if end < 0 or data[at : at + 2] != b"\r\n":
            raise _wrong("the form is cut off or damaged")
        if len(parts) == MAX_PARTS:
            raise _wrong(f"the form has more than {MAX_PARTS} parts, the most that are read")
        parts.append(_part(data, at + 2, end))
        at = end + len(mark)
    return parts


def _part(data: bytes, start: int, end: int) -> Part:
    """The part of a form that lies between two places."""
    split = data.find(b"\r\n\r\n", start, min(end, start + MAX_PART_HEADERS))
    if split < 0:
        raise _wrong("a part of the form has no headers, or too many")
    headers = dict(map(_header, data[start:split].split(b"\r\n")))
    kind, options = parse_options_header(headers.get("content-disposition"))
    if kind != b"form-data" or not options.get(b"name"):
        raise _wrong("a part of the form has no name")
    if headers.get("content-transfer-encoding", "").lower() not in PLAIN:
        raise _wrong("a part of the form is encoded: send its bytes as they are")
    try:
        name = options[b"name"].decode()
    except UnicodeDecodeError:
        raise _wrong("the name of a part is not in UTF-8") from None
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return Part(name, data[split + 4 : end], b"filename" in options, media_type)


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(":")
    return name.strip().lower(), value.strip()


def _wrong(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_multipart")
