"""Limits on what stands around the pixels of a picture, before any of it is read in full.

Pillow reads headers part by part in Python, and keeps texts. So a file of many parts costs seconds,
and one of many compressed texts a thousand times its size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

from unitok.picture_sources import Refused

MAX_READS = 5_000  # until the pixels; a picture of a camera takes about a hundred
MAX_TEXTS = 16  # compressed ones of a PNG, of which Pillow makes up to a mebibyte each
COMPRESSED_TEXTS = (b"zTXt", b"iTXt")
# Encoders write chunks of 4,096 bytes and more, and about a dozen smaller ones.
FEW_CHUNKS, LEAST_CHUNK = 2_000, 2048
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class HeaderReader(BytesIO):
    """The bytes of a picture. They can be read only so often, until its pixels are reached."""

    def __init__(self, file: BytesIO, name: str) -> None:
        """Share the bytes of a file.

        Args:
            file: The file.
            name: Its name in messages.
        """
        super().__init__(file.getvalue())
        self._name, self._left = name, MAX_READS
        self._is_bounded = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes.

        Raises:
            Refused: The headers have too many parts.
        """
        if self._is_bounded:
            self._left -= 1
            if self._left < 0:
                raise too_many_parts(self._name)
        return super().read(size)

    def reached_pixels(self) -> None:
        """Read as often as you like from now on."""
        self._is_bounded = False


def check_chunks(file: BytesIO, name: str) -> None:
    """Refuse a PNG of many small chunks, or of many compressed texts.

    Args:
        file: All bytes of a picture. Those of another format are not looked at.
        name: Its name in messages.

    Raises:
        Refused: It is one.
    """
    data = file.getvalue()  # no copy
    if not data.startswith(PNG_SIGNATURE):
        return
    texts, most = 0, FEW_CHUNKS + len(data) // LEAST_CHUNK
    for number, kind in enumerate(_chunks(data)):
        texts += kind in COMPRESSED_TEXTS
        if number >= most or texts > MAX_TEXTS:
            raise too_many_parts(name)


def too_many_parts(name: str) -> Refused:
    """The error of a picture that has too much around its pixels."""
    return Refused(f"{name} has too many parts beside its pixels: save it anew", "damaged")


def _chunks(data: bytes) -> Iterator[bytes]:
    """The kinds of the chunks of a PNG."""
    place = len(PNG_SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind
        place += 12 + length
