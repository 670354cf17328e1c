"""Lines in our own form, such as {"draw": "a cat", "seed": 7}: their requests and their records."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from unitok.batch.form import Entry, Pictures
from unitok.batch.keys import seeded
from unitok.batch.picture_paths import picture_in
from unitok.messages import parse_messages
from unitok.requests import (
    AnyRequest,
    Caption,
    Draw,
    Edit,
    OptionSpec,
    Reply,
    options_of,
)
from unitok.results import DrawResult, Result
from unitok.strict_json import JsonObject, shown_json
from unitok.terminal import one_line

MAX_NAME = 60  # characters of an unknown key that are compared with known ones
KINDS: dict[str, type[AnyRequest]] = {
    "caption": Caption,
    "messages": Reply,
    "draw": Draw,
    "edit": Edit,
}


class OwnLines:
    """Our own form. It is a `unitok.batch.form.Form`."""

    def request(self, line: int, asked: JsonObject, folder: Path) -> AnyRequest:
        """The request that a line means.

        Raises:
            ValueError: A key is missing, unknown or of the wrong type. The message names it.
        """
        kinds = [kind for kind in KINDS if kind in asked]
        if len(kinds) != 1:
            raise ValueError(
                'a line has either "caption" or "edit", a picture\'s path, or "draw", a prompt, or '
                '"messages", a conversation'
            )
        kind = kinds[0]
        subject = asked[kind]
        if kind != "messages" and not isinstance(subject, str):
            raise ValueError(f'"{kind}" must be text, not {shown_json(subject)}')
        if isinstance(asked.get("id", ""), dict | list):
            raise ValueError('"id" must be text or a number')
        options = options_in(kind, {k: v for k, v in asked.items() if k not in (kind, "id")})
        if kind == "messages":
            parse_messages(asked[kind], folder)
            return Reply(asked[kind], folder, **options)
        if kind == "draw":
            return Draw(subject, **options)
        if kind == "edit" and "mask" in options:
            if not isinstance(options["mask"], str):
                raise ValueError(f'"mask" must be text, not {shown_json(options["mask"])}')
            options["mask"] = picture_in(folder, options["mask"])
        return (Caption if kind == "caption" else Edit)(picture_in(folder, subject), **options)

    def seeded(self, request: AnyRequest, key: str) -> AnyRequest:
        """A request with a seed, if it has none."""
        return seeded(request, key)

    def record(self, entry: Entry, result: Result, pictures: Pictures) -> JsonObject:
        """What is written of a result."""
        record = {"line": entry.line, "key": entry.key, "request": entry.asked}
        if "id" in entry.asked:
            record["id"] = entry.asked["id"]
        if isinstance(result, DrawResult):
            record["pictures"] = pictures.save(entry, result.images)
            if len(set(result.seeds)) > 1:
                record["seeds"] = list(result.seeds)
        else:
            record["text"] = result.text
        names = ("seed", "finish_reason", "prompt_tokens", "completion_tokens")
        record |= {name: getattr(result, name) for name in names}
        logprobs = {name: getattr(result, name) for name in ("logprobs", "branch_logprobs")}
        record |= {name: value for name, value in logprobs.items() if value is not None}
        return record | {"seconds": round(result.seconds, 3)}

    def failure(self, line: int, asked: JsonObject, error: Exception, ran: bool) -> JsonObject:
        """What is written of a line that failed."""
        named = {"id": asked["id"]} if "id" in asked else {}
        return {"line": line, **named, "error": one_line(error)}


def options_in(kind: str, given: JsonObject) -> JsonObject:
    """The options of a line. One that is null counts as not given.

    Args:
        kind: Of the request, such as "draw".
        given: All keys but the kind and the id.

    Raises:
        ValueError: An option is missing, unknown, of a wrong type or too large.
    """
    for name, value in given.items():
        check_option(kind, name, value)
    options = {name: value for name, value in given.items() if value is not None}
    for name, spec in options_of(KINDS[kind]).items():
        if spec.required and name not in options:
            raise ValueError(f'"{kind}" needs "{name}" too, which is {spec.in_words}')
    return options


def check_option(kind: str, name: str, value: object) -> None:
    """Check an option of a line.

    Args:
        kind: Of the request, such as "draw".
        name: The key.
        value: Its value. null leaves the option out.

    Raises:
        ValueError: The kind has no such option, or the value is of a wrong type or too large.
    """
    options = options_of(KINDS[kind])
    if name not in options:
        raise ValueError(f"unknown key {shown_json(name)}; {what_is_known(kind, name, options)}")
    spec = options[name]
    if spec.option.streamed:
        raise ValueError(f'"{name}" is for pictures that are watched: a batch has no previews')
    if value is not None and not spec.fits(value):
        raise ValueError(f'"{name}" must be {json_type(spec)}, not {shown_json(value)}')
    high = spec.option.high
    if spec.kind == "whole number" and isinstance(value, int) and high is not None and value > high:
        raise ValueError(f'"{name}" must be at most {high:g}, not {value}')


def what_is_known(kind: str, name: str, options: Iterable[str]) -> str:
    """The known key that is nearest to an unknown one, else all known keys, in words."""
    known = ["id", *options]
    near = get_close_matches(name[:MAX_NAME], known, n=1)
    return (
        f'did you mean "{near[0]}"?' if near else f'the keys beside "{kind}" are {", ".join(known)}'
    )


def json_type(spec: OptionSpec) -> str:
    """The JSON type of an option, in words."""
    return "true or false" if spec.kind == "flag" else spec.in_words
