"""The bytes of a picture, from a file, a stream or a data URI. Their number is bounded."""

from __future__ import annotations

import base64
import errno
import os
import re
import sys
from io import BytesIO, TextIOBase, UnsupportedOperation
from pathlib import Path
from typing import BinaryIO, Literal

# The largest picture that is read has 32 million pixels. Uncompressed, with four bytes a pixel, its
# file has this many bytes.
MAX_BYTES = 128_000_000
CHUNK = 2**20  # bytes that are read at a time, as a stream may give fewer than it is asked for
LONGEST_START = 200  # characters of a data URI up to its comma
# The names, in messages, of pictures that have no file.
PICTURE = "the picture"
DATA_URI = "the data URI"

_URL = re.compile(r"(https?):/+", re.IGNORECASE)  # a Path keeps one of the two slashes


Reason = Literal["empty", "bytes", "base64", "format", "no pixels", "pixels", "damaged"]


class Refused(ValueError):
    """A picture cannot be read; the message names it and says why.

    Attributes:
        reason: Why, in a word: "bytes" and "pixels" are too many of them, and a "format" is one
            that is not read.
        where: The place of the picture in messages; None if it is in none.
    """

    def __init__(self, message: str, reason: Reason, where: str | None = None) -> None:
        """Say why."""
        super().__init__(message)
        self.reason: Reason = reason
        self.where = where


def read_path(source: str | Path, what: str = "picture") -> BytesIO:
    """The bytes of a file, which may be a pipe.

    Args:
        source: Its path.
        what: What it holds, for messages.

    Raises:
        OSError: There is no such file, it is a folder, or it cannot be read.
        ValueError: It is empty or too large, the path is a URL, or it is a terminal.
    """
    refuse_url(source, what)
    path = Path(source)
    if not _is_name(path):
        raise FileNotFoundError(f"{str(path)!r}: no such file")
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; give the files in it")
        with path.open("rb") as file:
            if file.isatty():
                raise ValueError(f"{path} is a terminal; pipe a {what} into it")
            return read_stream(file, str(path))
    except OSError as error:
        raise _naming(error, str(path)) from None


def _is_name(path: Path) -> bool:
    """Whether the system can have a file of that name."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half a character, as JSON can have it
        return False


def refuse_url(source: str | Path, what: str = "picture") -> None:
    """Refuse the address of a picture, or of something else, on the web.

    Raises:
        ValueError: It is one.
    """
    if _URL.match(str(source)):
        address = _URL.sub(r"\1://", str(source), count=1)
        raise ValueError(f"{address} is a URL; download the {what}, and give its file")


def read_file_object(file: BinaryIO) -> BytesIO:
    """The bytes of an open file from its start on, if it can go back there.

    Raises:
        TypeError: It is open as text.
        ValueError: It is empty, too large, closed, or open for writing only.
    """
    name = name_of(file)
    if isinstance(file, TextIOBase):
        raise TypeError(f"{name} is open as text; open it as bytes, with the mode 'rb'")
    if getattr(file, "closed", False):
        raise ValueError(f"{name} is closed")
    try:
        if _says(file, "seekable"):
            file.seek(0)
        return read_stream(file, name)
    except UnsupportedOperation:
        raise ValueError(f"{name} is not open for reading") from None


def _says(file: object, what: str) -> bool:
    """What a file's method of that name says; False if it has none, as in some libraries."""
    method = getattr(file, what, None)
    return method is not None and method()


def name_of(file: object) -> str:
    """The name of an open file in messages."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and name else PICTURE


def read_stdin() -> BytesIO:
    """The picture that is piped into the program.

    Raises:
        ValueError: It is a terminal, empty or too large.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("stdin is a terminal; pipe a picture into it: unitok ... - < cat.png")
    read = read_stream(sys.stdin.buffer, "stdin")
    read.name = "stdin"
    return read


def read_stream(file: BinaryIO, name: str) -> BytesIO:
    """All bytes of a stream.

    Args:
        file: The stream.
        name: Its name in messages.

    Raises:
        ValueError: It is empty or too large.
    """
    read = BytesIO()
    while chunk := file.read(CHUNK):
        read.write(chunk)
        check_length(read.tell(), name)
    if not read.tell():
        raise Refused(f"{name} is empty", "empty")
    return read


def check_length(length: int, name: str) -> None:
    """Check the number of a picture's bytes.

    Raises:
        ValueError: There are too many.
    """
    if length > MAX_BYTES:
        told = f"{name} is larger than {MAX_BYTES:,} bytes, the most that are read"
        raise Refused(told, "bytes")


def is_data_uri(source: object) -> bool:
    """Whether something is text that holds a picture's bytes, and no path."""
    return isinstance(source, str) and source[:5].lower() == "data:"


def read_data_uri(uri: str) -> BytesIO:
    """The bytes of a data URI, as in RFC 2397, in base64.

    Raises:
        ValueError: It is too large, or not in base64.
    """
    start = uri[:LONGEST_START].partition(",")[0]
    if not start.lower().endswith(";base64"):
        raise Refused(f"{DATA_URI} must begin like data:image/png;base64,", "base64")
    # Four characters hold three bytes, of which two may be padding. This is before any are copied.
    check_length((len(uri) - len(start)) // 4 * 3 - 2, DATA_URI)
    try:
        data = base64.b64decode(uri[len(start) + 1 :], validate=True)
    except ValueError as error:
        raise Refused(f"{DATA_URI} is not in base64: {error}", "base64") from None
    check_length(len(data), DATA_URI)
    return BytesIO(data)


def _naming(error: OSError, path: str) -> OSError:
    """An error of the system, in words that name the file."""
    if error.errno == errno.ENOENT:
        return FileNotFoundError(f"{path}: no such file")
    if error.errno == errno.ENAMETOOLONG:
        return FileNotFoundError(f"{path[:40]}...: no file has a name of {len(path):,} characters")
    if error.errno is not None and error.filename is None:
        return type(error)(error.errno, os.strerror(error.errno), path)
    return error
