"""/v1/images/generations: a body asks for pictures of a prompt, and the answer holds them.

Beside OpenAI's own keys, a body may have options of `Draw`, such as "seed" and "guidance".
"""

import base64
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Literal

from PIL import Image

from unitok.openai_wire.body import (
    ANY_TEXT,
    WireError,
    given_keys,
    made,
    read_body,
    take_options,
    take_text,
)
from unitok.requests import Draw, options_of, streamed_options
from unitok.results import DrawResult
from unitok.strict_json import JsonObject, shown_json

ResponseFormat = Literal["b64_json", "url"]

# Width and height come as "size". Log-probabilities and previews have no place in the answer.
# Adapters have no form here yet.
_NOT_OPTIONS = (
    "width",
    "height",
    "logprobs",
    "branch_logprobs",
    *streamed_options(Draw),
    "adapter",
)
OPTIONS = tuple(name for name in options_of(Draw) if name not in _NOT_OPTIONS)
# "model" and "user" may be any text. The answer says nothing of either, and neither changes it.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "stream": (False,),
    "quality": ("auto",),
    "background": ("auto", "opaque"),
    "output_format": ("png",),
}
KNOWN = ("prompt", "size", "response_format", *ANY_TEXT, *OPTIONS, *NEUTRAL)
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


def draw_of(body: object) -> Draw:
    """The request that a body means.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    given = read_body(body, KNOWN, NEUTRAL)
    response_format(body)
    prompt = take_text(given, "prompt")
    if not prompt.strip():
        raise WireError("the prompt is empty", "prompt")
    width, height = _size(given)
    options = take_options(given, Draw, OPTIONS)
    return made(Draw, prompt, width=width, height=height, **options)


def response_format(body: object) -> ResponseFormat:
    """How the answer holds pictures: "b64_json", unless "url" is asked for.

    Raises:
        WireError: It is something else.
    """
    value = given_keys(body, '"body"').get("response_format", "b64_json")
    if value not in ("b64_json", "url"):
        raise WireError(
            f'"response_format" must be "b64_json" or "url", not {shown_json(value)}',
            "response_format",
        )
    return value


def images_body(result: DrawResult, data: Sequence[JsonObject], created: int) -> JsonObject:
    """The body that answers with pictures.

    Args:
        result: The drawing.
        data: A picture each, as {"b64_json": ...} or {"url": ...}.
        created: The time, in seconds since 1970.
    """
    text, image = result.prompt_tokens, result.completion_tokens
    return {
        "created": created,
        "data": list(data),
        "background": "opaque",
        "output_format": "png",
        "size": f"{result.image.width}x{result.image.height}",
        "usage": {
            "input_tokens": text,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": text},
            "output_tokens": image,
            "output_tokens_details": {"image_tokens": image, "text_tokens": 0},
            "total_tokens": text + image,
        },
        "seed": result.seed,
    }


def in_base64(image: Image.Image) -> str:
    """A picture as PNG in base64."""
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _size(given: JsonObject) -> tuple[int | None, int | None]:
    """Width and height in pixels; None for the model's own."""
    size = given.get("size", "auto")
    if size == "auto":
        return None, None
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        raise WireError(f'"size" must be "auto" or like "512x512", not {shown_json(size)}', "size")
    return int(found[1]), int(found[2])
