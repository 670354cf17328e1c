"""The lines of a batch on a server: OpenAI's form, within what a server allows.

All lines lead to one endpoint and name one model. Pictures are data URLs, as a path would be one of
the server's own files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from unitok.batch.keys import digest
from unitok.batch.openai_lines import OpenAILines
from unitok.batch.source import Source, parse_line
from unitok.messages import parse_messages
from unitok.openai_wire.batches import line_error, not_run
from unitok.openai_wire.body import WireError
from unitok.openai_wire.edit_lines import edit_of_line
from unitok.openai_wire.images import response_format
from unitok.picture_sources import is_data_uri
from unitok.requests import AnyRequest, Draw, Edit, Reply
from unitok.server.errors import ApiError
from unitok.server.masks import white_mask
from unitok.server.picture_cost import check_cost, pictures_of
from unitok.server.served import Served, ServedModels
from unitok.strict_json import JsonObject, shown_json

EDITS = "/v1/images/edits"
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
    """The form of lines on a server, which may ask for edits too.

    It is a `unitok.batch.form.Form`.
    """

    kinds: ClassVar[Mapping[str, type[AnyRequest]]] = {**OpenAILines.kinds, EDITS: Edit}

    def __init__(self, endpoint: str, served: Served | None = None, max_n: int = 1) -> None:
        """No line has been read yet.

        Args:
            endpoint: Where every line has to lead.
            served: The model that every line has to name; None if lines are only checked.
            max_n: The most pictures of a line.
        """
        super().__init__("" if served is None else served.name)
        self._endpoint, self._max_n = endpoint, max_n
        self._adapter = None if served is None else served.adapter

    def check(self, line: int, asked: JsonObject) -> JsonObject:
        """The keys of a line that are not null, checked, but for its body.

        Raises:
            ValueError: A key is missing, unknown or wrong. The message names it.
        """
        given = super().check(line, asked)
        if len(given["custom_id"]) > MAX_ID:
            raise WireError(f'"custom_id" is longer than {MAX_ID} characters', "custom_id")
        if given["url"] != self._endpoint:
            raise WireError(
                f'"url" must be that of the batch, "{self._endpoint}", '
                f"not {shown_json(given['url'])}",
                "url",
                "mismatched_endpoint",
            )
        return given

    def read(self, url: str, body: object, folder: Path) -> AnyRequest:
        """The request that a body means.

        Args:
            url: Where the line leads.
            body: The body.
            folder: Where relative paths of pictures start. None is taken.

        Raises:
            ValueError: A key is missing, unknown or wrong. The message names it.
        """
        if url == EDITS:
            edit = edit_of_line(body, self._max_n)
            check_cost(pictures_of(edit), edit.samples)
            return with_white_mask(edit)
        request = super().read(url, body, folder)
        if isinstance(request, Reply):
            check_pictures(request)
        elif isinstance(request, Draw):
            check_drawing(body, request, self._max_n)
        return request

    def request(self, line: int, asked: JsonObject, folder: Path) -> AnyRequest:
        """The request that a line means, which waits for those of clients who wait.

        Raises:
            ValueError: A key is missing, unknown or wrong. The message names it.
        """
        request = super().request(line, asked, folder)
        priority = max(request.priority, BACKGROUND)
        return replace(request, priority=priority, adapter=self._adapter)

    def failure(self, line: int, asked: JsonObject, error: Exception, ran: bool) -> JsonObject:
        """What is written of a line that failed."""
        if isinstance(error, NotRun):
            key = digest(line, asked)
            return not_run(line, asked.get("custom_id"), key, error.code, str(error))
        return super().failure(line, asked, error, ran)


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
    seen, form = Validation(), ServedLines(endpoint)
    for line in source.lines():
        seen.total += 1
        if seen.total > most:
            told = f"the file has more than {most:,} lines"
            seen.errors.append(line_error(None, told, code="too_many_lines"))
            return seen
        try:
            asked = parse_line(line)
            form.check(line.number, asked)
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


def check_pictures(request: Reply) -> None:
    """Check that the pictures of a conversation are in its line, and not too large.

    Raises:
        WireError: One is not in it.
        Refused: They have too many pixels for their files.
    """
    pictures = parse_messages(request.messages, request.folder).pictures
    for picture in pictures:
        source, place = picture.source, picture.where
        if not (isinstance(source, bytes) or (isinstance(source, str) and is_data_uri(source))):
            raise WireError(
                f"{place}: a picture must be a data URL (data:image/png;base64,...)",
                place,
                "invalid_image_url",
            )
    check_cost(pictures)


def check_drawing(body: object, request: Draw, max_n: int) -> None:
    """Check that a drawing asks for no more than a server gives.

    Raises:
        WireError: It asks for too many pictures, or for links to them.
    """
    if response_format(body) == "url":
        raise WireError('"response_format" is supported only as "b64_json" here', "response_format")
    if request.samples > max_n:
        told = f"at most {max_n} pictures are made at once, not {request.samples}"
        raise WireError(told, "seed" if request.seeds else "n")


def with_white_mask(request: Edit) -> Edit:
    """An edit with a mask that is white where its own is transparent.

    Raises:
        ValueError: The mask cannot be read, or has no transparent pixel.
    """
    if request.mask is None:
        return request
    assert isinstance(request.mask, bytes)
    return replace(request, mask=white_mask(request.mask))


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
