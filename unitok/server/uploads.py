"""Receives a file in a form: https://www.rfc-editor.org/rfc/rfc7578.

The bytes go to disk as they come, so that a large file takes no memory.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from unitok.openai_wire.body import WireError, check_known
from unitok.server.bodies import check_length
from unitok.server.errors import ApiError, ClientGone
from unitok.server.multipart import boundary_of
from unitok.server.settings import ServerSettings
from unitok.server.state.file_store import Incoming
from unitok.strict_json import shown_json

FIELDS = ("file", "purpose")
MAX_FIELD = 1000  # bytes of a field that is no file
MAX_NAME = 255  # characters of a file's name
AT_ONCE = 2**18  # bytes that are written at once
AROUND = 2**16  # bytes of a body beside those of the file
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass
class Part:
    """A part of a form.

    Attributes:
        headers: What stands before its content, by name in small letters.
        name: Of the field.
        filename: Of the file; None for a field that is none.
    """

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    filename: str | None = None


class UploadForm:
    """Takes a form apart as it comes: fields are kept, and the bytes of its file are passed on.

    Attributes:
        fields: The fields that are no file.
        filename: The name of the file; None until one has begun.
        complete: Whether the form has come to its end.
        piece: The bytes of the file that nobody has taken yet.
    """

    def __init__(self, content_type: str) -> None:
        """Nothing has come yet.

        Args:
            content_type: The header of this name.

        Raises:
            ApiError: It is of another type, or names no boundary.
        """
        boundary = boundary_of(content_type)
        self.fields: dict[str, bytes] = {}
        self.filename: str | None = None
        self.complete = False
        self.piece = bytearray()
        self._part, self._header, self._value = Part(), b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the form.

        Raises:
            WireError: It is damaged, or has another part than it may have.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise WireError(f"the form is damaged: {error}", None, "invalid_multipart") from None

    def take(self) -> bytes:
        """The bytes of the file that nobody has taken yet."""
        piece, self.piece = bytes(self.piece), bytearray()
        return piece

    def _begin(self) -> None:
        if self.complete:
            raise WireError("the form goes on behind its end", None, "invalid_multipart")
        self._part = Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._part.headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        check_known((part.name,), FIELDS)
        if part.name in self.fields or (part.name == "file" and self.filename is not None):
            raise WireError(f'"{part.name}" is given twice', part.name)
        if part.name != "file":
            self.fields[part.name] = b""
        elif b"filename" not in options:
            raise WireError('"file" must be a file, with a filename', "file")
        else:
            self.filename = plain_name(options[b"filename"])

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == "file":
            self.piece += data[start:end]
            return
        self.fields[self._part.name] += data[start:end]
        if len(self.fields[self._part.name]) > MAX_FIELD:
            raise WireError(
                f'"{self._part.name}" is longer than {MAX_FIELD} bytes', self._part.name
            )

    def _end(self) -> None:
        self.complete = True


async def receive(request: Request, incoming: Incoming, settings: ServerSettings) -> UploadForm:
    """Receive a form, and write its file to disk.

    Raises:
        ApiError: The body is too large, too slow, compressed or of another type.
        WireError: The form is damaged, breaks off, or has another part than it may have.
        ClientGone: The client has closed the connection.
    """
    check_length(request, settings.max_file + AROUND)
    form = UploadForm(request.headers.get("content-type", ""))
    try:
        async with asyncio.timeout(settings.upload_seconds):
            await _written(request, form, incoming, settings.max_file + AROUND)
    except TimeoutError:
        told = f"the file did not arrive within {settings.upload_seconds:g} s"
        last = {"connection": "close"}  # the rest of it is not read
        raise ApiError(408, told, code="body_timeout", headers=last) from None
    except ClientDisconnect:
        raise ClientGone from None
    if not form.complete:
        raise WireError("the form breaks off before its end", None, "invalid_multipart")
    return form


async def _written(request: Request, form: UploadForm, incoming: Incoming, most: int) -> None:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        form.feed(chunk)
        if len(form.piece) >= AT_ONCE:
            await asyncio.to_thread(incoming.write, form.take())
        if size > most:  # behind the file, as that has its own bound
            raise WireError("the form is far larger than its file", None, "invalid_multipart")
    if form.piece:
        await asyncio.to_thread(incoming.write, form.take())


def text_field(form: UploadForm, name: str, known: tuple[str, ...]) -> str:
    """A field that has one of some values.

    Raises:
        WireError: It is missing, or has another value.
    """
    value = form.fields.get(name)
    if value is None:
        raise WireError(f'"{name}" is missing', name)
    text = value.decode("utf-8", "replace")
    if text not in known:
        allowed = ", ".join(f'"{one}"' for one in known)
        raise WireError(f'"{name}" must be one of {allowed}, not {shown_json(text)}', name)
    return text


def plain_name(given: bytes) -> str:
    """What a file is called: the last part of a path, without signs that cannot be printed."""
    name = given.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return _UNPRINTABLE.sub("", name)[:MAX_NAME] or "file"
