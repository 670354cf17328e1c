"""Lines become entries: requests with keys that are the same in every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from unitok.batch.form import Entry, Form
from unitok.batch.keys import digest, file_digest
from unitok.batch.openai_lines import OpenAILines, is_openai_line
from unitok.batch.own_lines import OwnLines
from unitok.batch.picture_paths import picture_files
from unitok.batch.source import MAX_LINE, Line, Source
from unitok.requests import AnyRequest, Reply
from unitok.strict_json import JsonObject, parse_json


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


@dataclass
class EntryReader:
    """Makes entries of lines.

    A key is made of the model, the content of the line, the pictures that it names, and which of
    several equal lines it is.

    Attributes:
        source: Where the lines come from.
        identity: The model's, see `unitok.batch.keys.model_identity`.
        form_of: The form that a line is in. A line that is no object counts as an empty one.
    """

    source: Source
    identity: str
    form_of: Callable[[JsonObject], Form]
    _seen: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry | WrongLine]:
        """The entries, and what is wrong with the other lines."""
        for line in self.source.lines():
            form, asked = self.form_of({}), {}
            try:
                asked = parse_line(line)
                form = self.form_of(asked)
                request = form.request(line.number, asked, self.source.folder)
                key = self._key(asked, request)
                request = form.seeded(request, key)
            except (ValueError, TypeError, OSError) as error:
                yield WrongLine(line.number, asked, form, error)
                continue
            yield Entry(line.number, key, asked, request, form)

    def _key(self, asked: JsonObject, request: AnyRequest) -> str:
        content = digest(self.identity, asked, picture_digest(request))
        key = digest(content, self._seen[content])
        self._seen[content] += 1
        return key


def own_or_openai(model_name: str) -> Callable[[JsonObject], Form]:
    """The form that a line is in: our own, or that of OpenAI's Batch API.

    Args:
        model_name: The model's, for answers in OpenAI's form.
    """
    own, openai = OwnLines(), OpenAILines(model_name)
    return lambda asked: openai if is_openai_line(asked) else own


def parse_line(line: Line) -> JsonObject:
    """The JSON object of a line.

    Raises:
        ValueError: The line is anything else, or too long.
    """
    if line.too_long:
        raise ValueError(f"the line is longer than {MAX_LINE:,} bytes; give pictures by their path")
    asked = parse_json(line.data)
    if not isinstance(asked, dict):
        raise ValueError(
            'a line must be an object such as {"caption": "cat.png"} or {"draw": "a cat"}'
        )
    return asked


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
