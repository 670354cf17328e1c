"""GET /openapi.json: what each endpoint takes, as the option tables and the wire declare it.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Iterable

from unitok import __version__
from unitok.server.openapi_bodies import (
    batch_schema,
    chat_schema,
    edit_schema,
    file_schema,
    generation_schema,
    response_schema,
)
from unitok.strict_json import JsonObject

FORM, BYTES = "multipart/form-data", "application/octet-stream"
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
        "/": {"get": operation("The page.", answer="text/html", open=True)},
        "/assets/{name}": {
            "get": operation("A file of the page.", parameters=["name"], answer="*/*", open=True)
        },
        "/v1/queue": {"get": operation("How many requests run, and how many wait.")},
        "/v1/models": {"get": operation("The models.")},
        "/v1/models/{name}": {"get": operation("A model.", parameters=["name"])},
        "/v1/chat/completions": {"post": operation("Answer a conversation.", chat_schema())},
        "/v1/images/generations": {"post": operation("Draw pictures.", generation_schema())},
        "/v1/images/edits": {
            "post": operation("Change a picture.", edit_schema(), FORM),
        },
        "/v1/responses": {
            "post": operation("Go on with a conversation, or paint.", response_schema())
        },
        "/v1/responses/{id}": {
            "get": operation("A response.", parameters=["id"]),
            "delete": operation("Delete a response.", parameters=["id"]),
        },
        "/v1/responses/{id}/input_items": {
            "get": operation("What a response answers.", parameters=["id"])
        },
        "/v1/files": {
            "get": operation("Your files."),
            "post": operation("Send a file.", file_schema(), FORM),
        },
        "/v1/files/{id}": {
            "get": operation("A file.", parameters=["id"]),
            "delete": operation("Delete a file.", parameters=["id"]),
        },
        "/v1/files/{id}/content": {
            "get": operation("The bytes of a file.", parameters=["id"], answer=BYTES)
        },
        "/v1/batches": {
            "get": operation("Your batches."),
            "post": operation("Run the lines of a file.", batch_schema()),
        },
        "/v1/batches/{id}": {"get": operation("A batch.", parameters=["id"])},
        "/v1/batches/{id}/cancel": {"post": operation("End a batch.", parameters=["id"])},
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
