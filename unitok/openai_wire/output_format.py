"""The files that pictures are answered as: output_format and output_compression."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, cast

from PIL import Image

from unitok.openai_wire.body import WireError, take_count
from unitok.strict_json import JsonObject, shown_json

Kind = Literal["png", "jpeg", "webp"]

KINDS: tuple[Kind, ...] = ("png", "jpeg", "webp")
FORMAT, COMPRESSION = KEYS = ("output_format", "output_compression")
BEST = 100  # the quality of the wire that leaves a picture as it is


@dataclass(frozen=True)
class OutputFormat:
    """How a picture becomes a file. A generated one has its prompt and its seed in it.

    Attributes:
        kind: The format.
        quality: Of a JPEG or a WebP, from 0 to 100; None for the one that `save` has.
    """

    kind: Kind = "png"
    quality: int | None = None

    def encoded(self, image: Image.Image) -> bytes:
        """The bytes of the file, which are those that `image.save` writes."""
        file = BytesIO()
        options = {} if self.quality is None else {"quality": self.quality}
        image.save(file, self.kind.upper(), **options)
        return file.getvalue()

    def in_base64(self, image: Image.Image) -> str:
        """The bytes of the file in base64."""
        return base64.b64encode(self.encoded(image)).decode()


def output_format_of(given: JsonObject) -> OutputFormat:
    """The format that a body asks for; PNG if it asks for none.

    Args:
        given: The body.

    Raises:
        WireError: There is no such format, or it has no such quality.
    """
    kind = given.get(FORMAT, "png")
    if kind not in KINDS:
        known = '"png", "jpeg" or "webp"'
        raise WireError(f'"{FORMAT}" must be {known}, not {shown_json(kind)}', FORMAT)
    if COMPRESSION not in given:
        return OutputFormat(cast("Kind", kind))
    quality = take_count(given, COMPRESSION, 0, BEST, BEST)
    if kind != "png":
        return OutputFormat(cast("Kind", kind), quality)
    if quality != BEST:
        raise WireError(
            f'"{COMPRESSION}" is for "jpeg" and "webp": a PNG keeps every pixel', COMPRESSION
        )
    return OutputFormat("png")
