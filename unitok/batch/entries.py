"""Lines become entries: requests with keys that are the same in every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from unitok.batch.form import Entry, Form
from unitok.batch.keys import digest, file_digest
from unitok.batch.openai_lines import OpenAILines, is_openai_line
from unitok.batch.own_lines import OwnLines
from unitok.batch.picture_paths import picture_files
from unitok.batch.source import Line, parse_line
from unitok.requests import AnyRequest, Reply
from unitok.strict_json import JsonObject


@dataclass(frozen=True)
class WrongLine:
    """A line of the input that cannot be run.

    Attributes:
        line: Its number, from 1 on.
        asked: The JSON object; empty if there is none.
        form: The form that the line is in.
        error: What is wrong.
    """

    line: int
    asked: JsonObject
    form: Form
    error: Exception


class Lines(Protocol):
    """Where lines come from, such as a `unitok.batch.source.Source`."""

    @property
    def folder(self) -> Path:
        """What the paths of pictures are relative to."""
        ...

    def lines(self) -> Iterator[Line]:
        """The lines that are not blank."""
        ...


class Repeats:
    """Counts equal lines as they come."""

    def __init__(self) -> None:
        """No line has come yet."""
        self._seen: Counter[str] = Counter()

    def __call__(self, line: int, content: str) -> int:
        """Which of several equal lines a line is, from 0 on.

        Args:
            line: Its number, which does not matter here.
            content: The digest of its content.
        """
        self._seen[content] += 1
        return self._seen[content] - 1


@dataclass
class EntryReader:
    """Makes entries of lines.

    A key is made of the model, the content of the line, the pictures that it names, and which of
    several equal lines it is.

    Attributes:
        source: Where the lines come from.
        identity: The model's, see `unitok.batch.keys.model_identity`.
        form_of: The form that a line is in. A line that is no object counts as an empty one.
        repeat_of: Which of several equal lines a line is, by its number and the digest of its
            content.
    """

    source: Lines
    identity: str
    form_of: Callable[[JsonObject], Form]
    repeat_of: Callable[[int, str], int] = field(default_factory=Repeats)

    def __iter__(self) -> Iterator[Entry | WrongLine]:
        """The entries, and what is wrong with the other lines."""
        for line in self.source.lines():
            form, asked = self.form_of({}), {}
            try:
                asked = parse_line(line)
                form = self.form_of(asked)
                request = form.request(line.number, asked, self.source.folder)
                key = self._key(line.number, asked, request)
                request = form.seeded(request, key)
            except (ValueError, TypeError, OSError) as error:
                yield WrongLine(line.number, asked, form, error)
                continue
            yield Entry(line.number, key, asked, request, form)

    def _key(self, line: int, asked: JsonObject, request: AnyRequest) -> str:
        content = digest(self.identity, asked, picture_digest(request))
        return digest(content, self.repeat_of(line, content))


def own_or_openai(
    model_name: str, line_of: Mapping[str, int] | None = None
) -> Callable[[JsonObject], Form]:
    """The form that a line is in: our own, or that of OpenAI's Batch API.

    Args:
        model_name: The model's, for answers in OpenAI's form.
        line_of: The lines that have a custom_id already; None for no lines.
    """
    own, openai = OwnLines(), OpenAILines(model_name, line_of)
    return lambda asked: openai if is_openai_line(asked) else own


def picture_digest(request: AnyRequest) -> str | list[str] | None:
    """The digests of the files that a request reads: a list for messages and for several files.

    Else it is the one, or None.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is something else than a file.
    """
    digests = [file_digest(path) for path in picture_files(request)]
    several = isinstance(request, Reply) or len(digests) > 1
    return digests if several else next(iter(digests), None)
