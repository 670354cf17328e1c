"""The lines of a batch on a server: OpenAI's form, within what a server allows.

All lines lead to one endpoint and name one model. Pictures are data URLs, as a path would be one of
the server's own files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from unitok.batch.entries import parse_line
from unitok.batch.keys import digest
from unitok.batch.openai_lines import OpenAILines
from unitok.batch.source import Source
from unitok.messages import parse_messages
from unitok.openai_wire.batches import line_error, not_run
from unitok.openai_wire.body import WireError
from unitok.openai_wire.images import response_format
from unitok.picture_sources import is_data_uri
from unitok.requests import AnyRequest, Draw, Edit, Reply
from unitok.server.errors import ApiError
from unitok.server.served import Served, ServedModels
from unitok.strict_json import JsonObject, shown_json

BACKGROUND = 1_000_000  # the priority of lines, behind that of requests with a client who waits
MAX_ERRORS = 100  # that are told of one batch
MAX_ID = 512  # characters of a custom_id


class NotRun(Exception):
    """A line is not run, as its batch ends before.

    Attributes:
        code: Why, for programs.
    """

    def __init__(self, code: str, message: str) -> None:
        """Say why."""
        super().__init__(message)
        self.code = code


CANCELLED = NotRun("batch_cancelled", "the batch was cancelled before this line was run")
EXPIRED = NotRun("batch_expired", "the batch expired before this line was run")


class ServedLines(OpenAILines):
    """The form of lines on a server. It is a `unitok.batch.form.Form`."""

    def __init__(self, endpoint: str, served: Served, max_n: int) -> None:
        """No line has been read yet.

        Args:
            endpoint: Where every line has to lead.
            served: The model that every line has to name.
            max_n: The most pictures of a line.
        """
        super().__init__(served.name)
        self._endpoint, self._served, self._max_n = endpoint, served, max_n

    def request(self, line: int, asked: JsonObject, folder: Path) -> AnyRequest:
        """The request that a line means, which waits for those of clients who wait.

        Raises:
            ValueError: A key is missing, unknown or wrong. The message names it.
        """
        check_endpoint(asked, self._endpoint)
        request = super().request(line, asked, folder)
        check_pictures(request)
        if isinstance(request, Draw | Edit):
            self._check_drawing(asked["body"], request)
        priority = max(request.priority, BACKGROUND)
        return replace(request, priority=priority, adapter=self._served.adapter)

    def failure(self, line: int, asked: JsonObject, error: Exception, ran: bool) -> JsonObject:
        """What is written of a line that failed."""
        if isinstance(error, NotRun):
            key = digest(line, asked)
            return not_run(line, asked.get("custom_id"), key, error.code, str(error))
        return super().failure(line, asked, error, ran)

    def _check_drawing(self, body: JsonObject, request: Draw | Edit) -> None:
        if response_format(body) == "url":
            raise WireError(
                '"response_format" is supported only as "b64_json" here', "response_format"
            )
        count = len(request.seed) if isinstance(request.seed, tuple) else request.n or 1
        if count > self._max_n:
            raise WireError(f'"n" must be at most {self._max_n}, not {count}', "n")


@dataclass
class Validation:
    """What a look at all lines has shown.

    Attributes:
        total: How many lines there are.
        served: The model that they name.
        errors: What is wrong with them; [] if they can be run.
    """

    total: int = 0
    served: Served | None = None
    errors: list[JsonObject] = field(default_factory=list)


def validate(source: Source, endpoint: str, models: ServedModels, most: int) -> Validation:
    """Look at the lines of a batch, but for what their bodies ask for.

    Args:
        source: The lines.
        endpoint: Where every line has to lead.
        models: The models.
        most: The most lines.

    Raises:
        OSError: The lines cannot be read.
    """
    seen, form = Validation(), OpenAILines("")
    for line in source.lines():
        seen.total += 1
        if seen.total > most:
            told = f"the file has more than {most:,} lines"
            seen.errors.append(line_error(None, told, code="too_many_lines"))
            return seen
        try:
            asked = parse_line(line)
            form.check(line.number, asked)
            check_endpoint(asked, endpoint)
            _check_id(asked["custom_id"])
            _check_model(seen, models, asked.get("body"))
        except WireError as error:
            seen.errors.append(line_error(line.number, str(error), error.param, error.code))
        except ApiError as error:
            seen.errors.append(line_error(line.number, error.message, error.param, error.code))
        except ValueError as error:
            seen.errors.append(line_error(line.number, str(error), code="invalid_json_line"))
        if len(seen.errors) == MAX_ERRORS:
            return seen
    if not seen.total:
        seen.errors.append(line_error(None, "the file has no lines", code="empty_file"))
    return seen


def check_endpoint(asked: JsonObject, endpoint: str) -> None:
    """Check that a line leads where its batch does.

    Raises:
        WireError: It does not.
    """
    if (url := asked.get("url")) != endpoint:
        raise WireError(
            f'"url" must be that of the batch, "{endpoint}", not {shown_json(url)}',
            "url",
            "mismatched_endpoint",
        )


def check_pictures(request: AnyRequest) -> None:
    """Check that the pictures of a request are in its line.

    Raises:
        WireError: One is not.
    """
    for source, place in _pictures(request):
        if not (isinstance(source, bytes) or (isinstance(source, str) and is_data_uri(source))):
            raise WireError(
                f"{place}: a picture must be a data URL (data:image/png;base64,...)",
                place,
                "invalid_image_url",
            )


def _pictures(request: AnyRequest) -> Iterator[tuple[object, str]]:
    if isinstance(request, Reply):
        for picture in parse_messages(request.messages, request.folder).pictures:
            yield picture.source, picture.where
    elif isinstance(request, Edit):
        yield request.image, "image"
        if request.mask is not None:
            yield request.mask, "mask"


def _check_id(custom_id: str) -> None:
    if len(custom_id) > MAX_ID:
        raise WireError(f'"custom_id" is longer than {MAX_ID} characters', "custom_id")


def _check_model(seen: Validation, models: ServedModels, body: object) -> None:
    if not isinstance(body, dict):
        raise WireError(f'"body" must be an object, not {shown_json(body)}', "body")
    served = models.find(body)
    seen.served = seen.served or served
    if served.name != seen.served.name:
        raise WireError(
            f'"body.model" is {served.name!r}, and that of the lines before {seen.served.name!r}: '
            "give all lines of a batch one model",
            "body.model",
            "mismatched_model",
        )
