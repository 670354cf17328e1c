"""What the forms of lines have in common: a line becomes a request, and its result a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from unitok.requests import AnyRequest
from unitok.results import Result
from unitok.strict_json import JsonObject


class RunFailed(RuntimeError):
    """A request was run, and failed. The line itself is right.

    Attributes:
        timed_out: Whether its time was over.
    """

    def __init__(self, message: str, timed_out: bool = False) -> None:
        """Say what went wrong."""
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True)
class Entry:
    """A line of the input that can be run.

    Attributes:
        line: Its number, from 1 on.
        key: The key of its result.
        asked: The JSON object.
        request: The request that the object means.
        form: The form that the line is in.
    """

    line: int
    key: str
    asked: JsonObject
    request: AnyRequest
    form: Form


class Pictures(Protocol):
    """Where the pictures of results are saved."""

    def save(self, entry: Entry, images: Sequence[Image.Image]) -> list[str]:
        """Save pictures, and give their paths, relative to the folder of the results."""
        ...


class Form(Protocol):
    """A form of lines."""

    def request(self, line: int, asked: JsonObject, folder: Path) -> AnyRequest:
        """The request that a line means.

        Args:
            line: The line's number.
            asked: The JSON object.
            folder: The folder that a picture's path is relative to.

        Raises:
            ValueError: The object means none. The message names the key.
        """
        ...

    def seeded(self, request: AnyRequest, key: str) -> AnyRequest:
        """A request that has its seeds, which are the same in every run.

        Args:
            request: The request.
            key: The key of its result.

        Raises:
            ValueError: The seeds become too large.
        """
        ...

    def record(self, entry: Entry, result: Result, pictures: Pictures) -> JsonObject:
        """What results.jsonl says of a result. The record has the key of the entry as "key".

        Args:
            entry: The line.
            result: Its result, which has no error.
            pictures: Where pictures are saved.
        """
        ...

    def failure(self, line: int, asked: JsonObject, error: Exception, ran: bool) -> JsonObject:
        """What errors.jsonl says of a line that failed.

        Args:
            line: The line's number.
            asked: The JSON object.
            error: What went wrong.
            ran: Whether the model ran, so that the line itself is right.
        """
        ...
