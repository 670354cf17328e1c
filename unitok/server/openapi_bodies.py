"""The schemas of bodies in /openapi.json, as the option tables and the wire declare them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unitok.openai_wire import batches, chat, edits, images, responses, responses_tool
from unitok.openai_wire.output_format import COMPRESSION, FORMAT, KINDS
from unitok.requests import Draw, Edit, OptionSpec, Reply, options_of
from unitok.server.state.file_store import PURPOSES
from unitok.server.state.lines import ServedLines
from unitok.strict_json import JsonObject

TEXT: JsonObject = {"type": ["string", "null"]}
FILE: JsonObject = {"type": "string", "contentMediaType": "application/octet-stream"}
OBJECT: JsonObject = {"type": ["object", "null"]}
FLAG: JsonObject = {"type": ["boolean", "null"]}
TYPES: dict[str, JsonObject] = {
    "whole number": {"type": "integer"},
    "whole numbers": {
        "oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]
    },
    "number": {"type": "number"},
    "text": {"type": "string"},
    "texts": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "flag": {"type": "boolean"},
    "schema": {"type": "object"},
    "sides": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
}
MESSAGE: JsonObject = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            {
                                "type": "object",
                                "required": ["type", "text"],
                                "properties": {
                                    "type": {"const": "text"},
                                    "text": {"type": "string"},
                                },
                            },
                            {
                                "type": "object",
                                "required": ["type", "image_url"],
                                "properties": {
                                    "type": {"const": "image_url"},
                                    "image_url": {
                                        "type": "object",
                                        "required": ["url"],
                                        "properties": {"url": {"type": "string"}},
                                    },
                                },
                            },
                        ]
                    },
                },
            ]
        },
    },
}


def option_schema(spec: OptionSpec) -> JsonObject:
    """The schema of an option of a request."""
    option = spec.option
    bounds = {"minimum": option.low, "maximum": option.high, "exclusiveMinimum": option.above}
    schema = TYPES[spec.kind] | {name: v for name, v in bounds.items() if v is not None}
    return {"oneOf": [schema, {"type": "null"}], "description": option.help}


def options_schema(kind: type, names: Iterable[str]) -> dict[str, JsonObject]:
    """The schemas of options of a kind of request, by name."""
    specs = options_of(kind)
    return {name: option_schema(specs[name]) for name in names}


def neutral_schema(neutral: Mapping[str, tuple[object, ...]]) -> dict[str, JsonObject]:
    """The schemas of keys that may have no other values than these."""
    return {name: {"enum": [*values, None]} for name, values in neutral.items()}


def body_schema(required: Iterable[str], properties: Mapping[str, Any]) -> JsonObject:
    """The schema of a body that may have these keys and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": dict(properties),
        "additionalProperties": False,
    }


def chat_schema() -> JsonObject:
    """The schema of a body of /v1/chat/completions."""
    return body_schema(
        ["messages"],
        {
            "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
            "model": TEXT,
            "user": TEXT,
            "n": {"type": ["integer", "null"], "minimum": 1},
            "stream": FLAG,
            "stream_options": {"type": ["object", "null"]},
            "logprobs": FLAG,
            "response_format": {"type": ["object", "null"]},
            chat.NEWER: {"type": ["integer", "null"], "minimum": 1},
            **options_schema(Reply, chat.OPTIONS),
            **neutral_schema(chat.SERVED_NEUTRAL),
        },
    )


def pictures_schema(prefix: Mapping[str, Any], kind: type, module: Any) -> JsonObject:
    """The schema of a body that asks for pictures.

    Args:
        prefix: What only this kind of body has.
        kind: The class of its request.
        module: The module of `unitok.openai_wire` that reads it.
    """
    return body_schema(
        [name for name in ("image", "prompt") if name in prefix],
        {
            **prefix,
            "model": TEXT,
            "user": TEXT,
            "stream": FLAG,
            "partial_images": {
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": images.MOST_PREVIEWS,
            },
            FORMAT: {"enum": [*KINDS, None]},
            COMPRESSION: {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
            **options_schema(kind, module.OPTIONS),
        },
    )


def generation_schema() -> JsonObject:
    """The schema of a body of /v1/images/generations."""
    prompt: JsonObject = {"type": "string", "minLength": 1}
    own = {"prompt": prompt, "size": TEXT, **neutral_schema(images.SERVED_NEUTRAL)}
    return pictures_schema(own, Draw, images)


def edit_schema() -> JsonObject:
    """The schema of a form of /v1/images/edits."""
    own = {
        "image": FILE,
        "mask": FILE,
        "prompt": {"type": "string", "minLength": 1},
        **neutral_schema(edits.NEUTRAL),
    }
    return pictures_schema(own, Edit, edits)


def response_schema() -> JsonObject:
    """The schema of a body of /v1/responses."""
    texts = ("instructions", "previous_response_id", *responses.TEXTS)
    said: JsonObject = {
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]
    }
    return body_schema(
        [responses.INPUT],
        {
            responses.INPUT: said,
            **{name: TEXT for name in texts},
            "tools": {"type": ["array", "null"], "items": tool_schema(), "maxItems": 1},
            "tool_choice": {"type": ["string", "object", "null"]},
            "stream": FLAG,
            "store": FLAG,
            "metadata": OBJECT,
            "text": OBJECT,
            responses.MOST_TOKENS: {"type": ["integer", "null"], "minimum": 1},
            **options_schema(Reply, responses.OPTIONS),
            **neutral_schema(responses.NEUTRAL),
        },
    )


def tool_schema() -> JsonObject:
    """The schema of the image_generation tool."""
    options = options_schema(Edit, responses_tool.EDIT_OPTIONS)
    return body_schema(
        ["type"],
        {
            "type": {"const": responses_tool.KIND},
            "action": {"enum": ["auto", "generate", "edit", None]},
            "model": TEXT,
            "size": TEXT,
            responses_tool.MASK: OBJECT,
            responses_tool.PARTIAL: {"type": ["integer", "null"], "minimum": 0},
            FORMAT: {"enum": [*KINDS, None]},
            COMPRESSION: {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
            **neutral_schema(responses_tool.NEUTRAL),
            **(options | options_schema(Draw, responses_tool.DRAW_OPTIONS)),
        },
    )


def file_schema() -> JsonObject:
    """The schema of a form of /v1/files."""
    return body_schema(["file", "purpose"], {"file": FILE, "purpose": {"enum": list(PURPOSES)}})


def batch_schema() -> JsonObject:
    """The schema of a body of /v1/batches."""
    return body_schema(
        ["input_file_id", "endpoint", "completion_window"],
        {
            "input_file_id": {"type": "string"},
            "endpoint": {"enum": list(ServedLines.kinds)},
            "completion_window": {"const": batches.WINDOW},
            "metadata": OBJECT,
        },
    )
