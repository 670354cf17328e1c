"""GET /openapi.json: what each endpoint takes, as the option tables and the wire declare it.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unitok import __version__
from unitok.openai_wire import chat
from unitok.requests import OptionSpec, Reply, options_of
from unitok.strict_json import JsonObject

ERROR: JsonObject = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
TEXT: JsonObject = {"type": ["string", "null"]}
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


def operation(
    summary: str,
    body: JsonObject | None = None,
    content: str = "application/json",
    parameters: Iterable[str] = (),
    answer: str = "application/json",
    status: int = 200,
    open: bool = False,
) -> JsonObject:
    """What one method of a path takes and answers.

    Args:
        summary: What it does.
        body: The schema of its body; None for none.
        content: The type of the body.
        parameters: The names of parts of its path.
        answer: The type of the answer.
        status: Of an answer without an error.
        open: Whether no key is needed.
    """
    error = {"description": "An error.", "content": {"application/json": {"schema": ERROR}}}
    types = {answer: {}} | ({"text/event-stream": {}} if body and "stream" in str(body) else {})
    made: JsonObject = {
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ],
        "responses": {
            str(status): {"description": "The answer.", "content": types},
            "default": error,
        },
    }
    if body is not None:
        made["requestBody"] = {"required": True, "content": {content: {"schema": body}}}
    if open:
        made["security"] = []
    return made


def paths() -> dict[str, dict[str, JsonObject]]:
    """All paths, and their methods."""
    return {
        "/health": {"get": operation("Whether the engines step.", open=True)},
        "/ready": {"get": operation("Whether new requests are taken in.", open=True)},
        "/version": {"get": operation("The version of unitok.")},
        "/metrics": {"get": operation("Numbers for Prometheus.", answer="text/plain")},
        "/openapi.json": {"get": operation("This document.")},
        "/v1/models": {"get": operation("The models.")},
        "/v1/models/{name}": {"get": operation("A model.", parameters=["name"])},
        "/v1/chat/completions": {"post": operation("Answer a conversation.", chat_schema())},
    }


def document() -> JsonObject:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "unitok",
            "version": __version__,
            "description": "One engine for models that read pictures and paint them, behind the "
            "API of OpenAI's clients. Keys that are not listed are refused by name.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": paths(),
    }
