"""/v1/images/edits: a form asks for changes of a picture, and the answer holds what they give.

Beside OpenAI's own keys, a form may have options of `Edit`, such as "seed", "strength" and "box".
Numbers of a list are given as "box[]" each, or as "1,2,3,4".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from unitok.openai_wire.body import ANY_TEXT, WireError, made, read_body, take_options
from unitok.openai_wire.images import STREAM_KEYS, ImagesAsked, asked_of, take_prompt
from unitok.openai_wire.output_format import COMPRESSION
from unitok.openai_wire.output_format import KEYS as FORMAT_KEYS
from unitok.requests import Edit, options_of, streamed_options
from unitok.strict_json import JsonObject, shown_json

# The mask is a file. Log-probabilities and previews have no place in the answer.
_NOT_OPTIONS = ("prompt", "mask", "logprobs", "branch_logprobs", *streamed_options(Edit), "adapter")
OPTIONS = tuple(name for name in options_of(Edit) if name not in _NOT_OPTIONS)
NEUTRAL: dict[str, tuple[object, ...]] = {
    "size": ("auto",),  # that of the picture
    "quality": ("auto",),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
    "response_format": ("b64_json",),
}
KNOWN = ("prompt", *ANY_TEXT, *OPTIONS, *STREAM_KEYS, *FORMAT_KEYS, *NEUTRAL)
KINDS = {name: options_of(Edit)[name].kind for name in OPTIONS} | {
    "stream": "flag",
    "partial_images": "whole number",
    COMPRESSION: "whole number",
}
FLAGS = {"true": True, "false": False}
_WHOLE = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)


def edit_of(given: object, image: bytes, mask: bytes | None, most: int) -> ImagesAsked:
    """What a form asks for. No picture is opened.

    Args:
        given: The values of its fields; see `values_of`.
        image: The file of the picture.
        mask: The file of the mask, white where the picture is painted anew; None for none.
        most: The most pictures that it may ask for.

    Raises:
        WireError: A key is missing, wrong, or not supported.
    """
    body = read_body(given, KNOWN, NEUTRAL)
    options = take_options(body, Edit, OPTIONS)
    if mask is not None and "box" in options:
        raise WireError("give a mask or a box, not both", "box")
    request = made(Edit, image, take_prompt(body), mask=mask, **options)
    asked = asked_of(body, request, most)
    if asked.request.preview and options.get("tries", 1) > 1:
        raise WireError(
            'there are no previews of several tries: leave "partial_images" out, or give "tries" '
            "as 1",
            "partial_images",
        )
    return asked


def values_of(fields: Iterable[tuple[str, str]]) -> JsonObject:
    """The values of the fields of a form, by name, as JSON would have them.

    A text that is no value of its field's type stays as it is, and is refused later.

    Args:
        fields: Names and texts. Fields of one list have "[]" behind their name.

    Raises:
        WireError: A field that is no list is there twice.
    """
    values: dict[str, Any] = {}
    for field, text in fields:
        name = field.removesuffix("[]")
        kind = KINDS.get(name, "text")
        if name != field and kind in ("sides", "whole numbers"):
            values.setdefault(name, [])
            if isinstance(values[name], list):
                values[name].append(_whole(text))
                continue
        if field in values:
            raise WireError(f"{shown_json(field)} is there twice", field)
        values[field] = _value(kind, text)
    return values


def _value(kind: str, text: str) -> object:
    if kind == "flag":
        return FLAGS.get(text.lower(), text)
    if kind == "whole number":
        return _whole(text)
    if kind == "number":
        return _number(text)
    if kind in ("sides", "whole numbers") and "," in text:
        return [_whole(part.strip()) for part in text.split(",")]
    return _whole(text) if kind == "whole numbers" else text


def _whole(text: str) -> int | str:
    return int(text) if _WHOLE.fullmatch(text) else text


def _number(text: str) -> float | str:
    whole = _whole(text)
    if isinstance(whole, int) or not _NUMBER.fullmatch(text):
        return whole
    value = float(text)
    return value if math.isfinite(value) else text
