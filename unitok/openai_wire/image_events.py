"""The events of a stream of pictures: their previews, and then the pictures themselves.

Beside OpenAI's own keys, each has "image_index", the number of its picture among several, and the
picture's "seed".
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from unitok.openai_wire.images import size_of, usage_body
from unitok.openai_wire.output_format import OutputFormat
from unitok.results import DrawResult, Event
from unitok.strict_json import JsonObject


@dataclass(frozen=True)
class PictureEvents:
    """Makes the bodies of a stream of pictures.

    Attributes:
        prefix: "image_generation", or "image_edit".
        created: The time, in seconds since 1970.
        format: What the pictures are.
    """

    prefix: str
    created: int
    format: OutputFormat

    def partial(self, index: int, seed: int, number: int, event: Event) -> JsonObject:
        """The body of a preview.

        Args:
            index: Which of several pictures it is of.
            seed: The picture's.
            number: How many previews of it there were before.
            event: The preview.
        """
        assert event.image is not None
        body = self._body("partial_image", index, seed, event.image)
        return body | {"partial_image_index": number}

    def completed(self, index: int, result: DrawResult) -> JsonObject:
        """The body of a picture.

        Args:
            index: Which of several pictures it is.
            result: The picture.
        """
        body = self._body("completed", index, result.seed, result.image)
        return body | {"usage": usage_body([result])}

    def _body(self, kind: str, index: int, seed: int, image: Image.Image) -> JsonObject:
        return {
            "type": f"{self.prefix}.{kind}",
            "b64_json": self.format.in_base64(image),
            "background": "opaque",
            "created_at": self.created,
            "output_format": self.format.kind,
            "quality": "auto",
            "size": size_of(image),
            "image_index": index,
            "seed": seed,
        }
