"""/v1/images/generations: a body asks for pictures of a prompt, and the answer holds them.

Beside OpenAI's own keys, a body may have options of `Draw`, such as "seed" and "guidance".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from PIL import Image

from unitok.openai_wire.body import (
    ANY_TEXT,
    WireError,
    given_keys,
    made,
    read_body,
    take_count,
    take_flag,
    take_options,
    take_text,
)
from unitok.openai_wire.output_format import KEYS as FORMAT_KEYS
from unitok.openai_wire.output_format import OutputFormat, output_format_of
from unitok.requests import AnyRequest, Draw, Edit, options_of, streamed_options
from unitok.results import DrawResult
from unitok.strict_json import JsonObject, shown_json

R = TypeVar("R", bound=AnyRequest)
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
# What a server does beside, see `images_of`.
STREAM_KEYS = ("stream", "partial_images")
SERVED_NEUTRAL: dict[str, tuple[object, ...]] = {
    "quality": ("auto",),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
    "style": ("auto",),
    "response_format": ("b64_json",),  # a server keeps no pictures that links could lead to
}
SERVED = ("prompt", "size", *ANY_TEXT, *OPTIONS, *STREAM_KEYS, *FORMAT_KEYS, *SERVED_NEUTRAL)
MOST_PREVIEWS = 3  # of a picture
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


@dataclass(frozen=True)
class ImagesAsked:
    """What a body asks a server for: pictures of a prompt, or changed ones.

    Attributes:
        request: The drawing or the edit.
        format: What the pictures are answered as.
        stream: Whether they come one by one, with their previews.
    """

    request: Draw | Edit
    format: OutputFormat
    stream: bool

    def seeds(self, first: int) -> tuple[int, ...]:
        """The seed of each picture.

        Args:
            first: That of the first one, unless the request has one for each. Each other picture
                has the next number, so that it can be had again alone.
        """
        return self.request.seeds or tuple(range(first, first + self.request.samples))

    def requests(self, first: int) -> list[Draw | Edit]:
        """A request for each picture.

        Args:
            first: As in `seeds`.
        """
        return [replace(self.request, n=None, seed=seed) for seed in self.seeds(first)]


def with_own_seeds(request: R) -> R:
    """A request in which each picture has a seed of its own, so that it can be had again alone.

    Args:
        request: It has a seed. If that is one for several pictures, each picture behind the first
            has the next number.
    """
    if isinstance(request, Draw | Edit) and isinstance(request.seed, int) and request.samples > 1:
        seeds = tuple(range(request.seed, request.seed + request.samples))
        return replace(request, n=None, seed=seeds)
    return request


def draw_of(body: object) -> Draw:
    """The request that a body means.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    given = read_body(body, KNOWN, NEUTRAL)
    response_format(body)
    return _draw(given)


def images_of(body: object, most: int) -> ImagesAsked:
    """What a body asks a server for: also a stream, previews, and other formats.

    Args:
        body: The body.
        most: The most pictures that it may ask for.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    given = read_body(body, SERVED, SERVED_NEUTRAL)
    return asked_of(given, _draw(given), most)


def asked_of(given: JsonObject, request: Draw | Edit, most: int) -> ImagesAsked:
    """What a body asks a server for beside its request.

    Args:
        given: The body.
        request: The request.
        most: The most pictures that it may ask for.

    Raises:
        WireError: A key is wrong, or there are too many pictures.
    """
    if request.samples > most:
        name = "seed" if request.seeds else "n"
        raise WireError(f"at most {most} pictures are made at once, not {request.samples}", name)
    stream = take_flag(given, "stream")
    return ImagesAsked(_with_previews(given, request, stream), output_format_of(given), stream)


def _with_previews(given: JsonObject, request: Draw | Edit, stream: bool) -> Draw | Edit:
    count = take_count(given, "partial_images", 0, MOST_PREVIEWS, 0)
    if count and not stream:
        raise WireError('"partial_images" is only for "stream": true', "partial_images")
    return replace(request, preview=True, preview_count=count) if count else request


def _draw(given: JsonObject) -> Draw:
    prompt = take_prompt(given)
    width, height = take_size(given)
    options = take_options(given, Draw, OPTIONS)
    return made(Draw, prompt, width=width, height=height, **options)


def take_prompt(given: JsonObject) -> str:
    """The prompt of a body.

    Raises:
        WireError: It is missing, empty, or no text.
    """
    prompt = take_text(given, "prompt")
    if not prompt.strip():
        raise WireError("the prompt is empty", "prompt")
    return prompt


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
    return _body([result], data, created, OutputFormat())


def pictures_body(
    results: Sequence[DrawResult], pictures: Sequence[str], created: int, format: OutputFormat
) -> JsonObject:
    """The body that answers with pictures, each of which has a result and a seed of its own.

    Args:
        results: The results, of a picture each.
        pictures: The pictures in base64.
        created: The time, in seconds since 1970.
        format: What the pictures are.
    """
    data = [
        {"b64_json": picture, "seed": result.seed}
        for picture, result in zip(pictures, results, strict=True)
    ]
    return _body(results, data, created, format)


def _body(
    results: Sequence[DrawResult], data: Sequence[JsonObject], created: int, format: OutputFormat
) -> JsonObject:
    return {
        "created": created,
        "data": list(data),
        "background": "opaque",
        "output_format": format.kind,
        "size": size_of(results[0].image),
        "usage": usage_body(results),
        "seed": results[0].seed,
    }


def usage_body(results: Sequence[DrawResult]) -> JsonObject:
    """The counts of tokens. The prompt of several pictures counts once.

    Those of pictures in the prompt are counted with those of its text.
    """
    text = results[0].prompt_tokens
    image = sum(result.completion_tokens for result in results)
    return {
        "input_tokens": text,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": text},
        "output_tokens": image,
        "output_tokens_details": {"image_tokens": image, "text_tokens": 0},
        "total_tokens": text + image,
    }


def size_of(image: Image.Image) -> str:
    """The size of a picture, as bodies tell it."""
    return f"{image.width}x{image.height}"


def in_base64(image: Image.Image) -> str:
    """A picture as PNG in base64."""
    return OutputFormat().in_base64(image)


def take_size(given: JsonObject) -> tuple[int | None, int | None]:
    """Width and height in pixels; None for the model's own.

    Raises:
        WireError: The size is something else.
    """
    size = given.get("size", "auto")
    if size == "auto":
        return None, None
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        raise WireError(f'"size" must be "auto" or like "512x512", not {shown_json(size)}', "size")
    return int(found[1]), int(found[2])
