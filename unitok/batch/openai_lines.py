"""Lines of OpenAI's Batch API, and their results and errors in the form that its clients read.

https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from unitok.batch.form import Entry, Pictures
from unitok.batch.keys import digest
from unitok.openai_wire.body import (
    WireError,
    check_known,
    check_neutral,
    error_body,
    given_keys,
    take_text,
)
from unitok.openai_wire.chat import completion_body, reply_of
from unitok.openai_wire.images import draw_of, images_body, in_base64, response_format
from unitok.requests import AnyRequest
from unitok.results import DrawResult, Result
from unitok.strict_json import JsonObject, shown_json
from unitok.terminal import one_line

CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"
KEYS = ("custom_id", "method", "url", "body")
MARKS = ("custom_id", "body")  # keys that no line of our own has


def is_openai_line(asked: JsonObject) -> bool:
    """Whether a line is in this form."""
    return any(key in asked for key in MARKS)


class OpenAILines:
    """The form of OpenAI's Batch API. It is a `unitok.batch.form.Form`.

    Results and errors have "line", and results have "key", beside the keys of that form.

    Attributes:
        urls: Where lines may lead.
    """

    urls: tuple[str, ...] = (CHAT, IMAGES)

    def __init__(self, model_name: str, line_of: Mapping[str, int] | None = None) -> None:
        """No line has been read here yet.

        Args:
            model_name: What answers name as their model.
            line_of: The lines that have a custom_id already; None for no lines.
        """
        self._model_name = model_name
        self._line_of = dict(line_of or {})

    def request(self, line: int, asked: JsonObject, folder: Path) -> AnyRequest:
        """The request that a line means.

        Raises:
            ValueError: A key is missing, unknown or wrong. The message names it.
        """
        given = self.check(line, asked)
        return self.read(given["url"], given.get("body"), folder)

    def read(self, url: str, body: object, folder: Path) -> AnyRequest:
        """The request that a body means.

        Args:
            url: Where the line leads, one of `urls`.
            body: The body.
            folder: Where relative paths of pictures start.

        Raises:
            ValueError: A key is missing, unknown or wrong. The message names it.
        """
        return draw_of(body) if url == IMAGES else reply_of(body, folder)

    def check(self, line: int, asked: JsonObject) -> JsonObject:
        """The keys of a line that are not null, checked, but for its body.

        Raises:
            ValueError: A key is missing, unknown or wrong. The message names it.
        """
        given = given_keys(asked, "a line")
        self._check_id(line, given)
        check_known(given, KEYS)
        take_text(given, "method")
        check_neutral(given, {"method": ("POST",)})
        if (url := take_text(given, "url")) not in self.urls:
            known = " or ".join(f'"{known}"' for known in self.urls)
            raise WireError(f'"url" must be {known}, not {shown_json(url)}', "url")
        return given

    def _check_id(self, line: int, given: JsonObject) -> None:
        """Refuse a custom_id that is missing, or that an earlier line has."""
        name = take_text(given, "custom_id")
        earlier = self._line_of.setdefault(name, line)
        if earlier != line:
            raise WireError(
                f"the custom_id {shown_json(name)} is that of line {earlier} already", "custom_id"
            )

    def record(self, entry: Entry, result: Result, pictures: Pictures) -> JsonObject:
        """What is written of a result."""
        created = int(time.time())
        if isinstance(result, DrawResult):
            body = images_body(result, _data(entry, result, pictures), created)
        else:
            body = completion_body(result, self._model_name, f"chatcmpl-{entry.key[:32]}", created)
        return _response(entry.line, entry.asked, entry.key, 200, body) | {"key": entry.key}

    def failure(self, line: int, asked: JsonObject, error: Exception, ran: bool) -> JsonObject:
        """What is written of a line that failed."""
        wrong = error if isinstance(error, WireError) else WireError(str(error))
        body = error_body(one_line(error), wrong.param, server=ran, code=wrong.code)
        return _response(line, asked, digest(line, asked), 500 if ran else 400, body)


def _data(entry: Entry, result: DrawResult, pictures: Pictures) -> list[JsonObject]:
    """The pictures of a result, in base64 or, as asked, saved in files."""
    if response_format(entry.asked["body"]) == "url":
        return [{"url": name} for name in pictures.save(entry, result.images)]
    return [{"b64_json": in_base64(image)} for image in result.images]


def _response(line: int, asked: JsonObject, key: str, status: int, body: JsonObject) -> JsonObject:
    return {
        "id": f"batch_req_{key[:32]}",
        "custom_id": asked.get("custom_id"),
        "response": {"status_code": status, "request_id": f"req_{key[:32]}", "body": body},
        "error": None,
        "line": line,
    }
