"""What the bodies of OpenAI's API share: keys that are checked, options, and errors."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from unitok.requests import known_names, options_of
from unitok.strict_json import JsonObject, shown_json

R = TypeVar("R")

ANY_TEXT = (
    "model",
    "user",
    "safety_identifier",
)  # keys that may have any text, which changes nothing

MAX_NAME = 60  # characters of an unknown key that are compared with known ones


class WireError(ValueError):
    """A body that is refused.

    Attributes:
        param: The key that is wrong, such as "messages[0].content"; None for the whole body.
        code: A word for programs, such as "invalid_image"; None for no special one.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        """Say what is wrong, and where."""
        super().__init__(message)
        self.param, self.code = param, code


def error_body(
    message: str,
    param: str | None = None,
    server: bool = False,
    kind: str | None = None,
    code: str | None = None,
) -> JsonObject:
    """The body of a response that reports an error.

    Args:
        message: What went wrong.
        param: The key that is wrong, if one is.
        server: Whether the server failed, rather than that the request is wrong.
        kind: The error's type, if it is neither of these two.
        code: A word for programs, if there is one.
    """
    kind = kind or ("server_error" if server else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def read_body(
    body: object, known: Iterable[str], neutral: Mapping[str, tuple[object, ...]]
) -> JsonObject:
    """The keys of a body that are not null, each of which is one that its request may have.

    Args:
        body: The body.
        known: All keys that it may have.
        neutral: Those that may have no other values than these.

    Raises:
        WireError: It is no object, or a key is unknown or has a value that is not supported.
    """
    given = given_keys(body, '"body"')
    check_known(given, known)
    check_neutral(given, neutral)
    for name in ANY_TEXT:
        if name in given:
            take_text(given, name)
    return given


def given_keys(value: object, what: str, param: str | None = None) -> JsonObject:
    """The keys of an object that are not null.

    Args:
        value: The object.
        what: Its name in messages.
        param: Where it is; None for the whole body.

    Raises:
        WireError: It is no object.
    """
    if not isinstance(value, dict):
        raise WireError(f"{what} must be an object, not {shown_json(value)}", param)
    return {name: part for name, part in value.items() if part is not None}


def take_text(given: JsonObject, name: str, at: str = "") -> str:
    """A text that must be there.

    Args:
        given: The object that has it.
        name: Its key.
        at: Where the object is, such as "messages[0]."; "" for the body.

    Raises:
        WireError: It is missing, or no text.
    """
    text = given.get(name)
    if not isinstance(text, str):
        wrong = f", not {shown_json(text)}" if name in given else "; it is missing"
        raise WireError(f'"{at}{name}" must be text{wrong}', at + name)
    return text


def take_flag(given: JsonObject, name: str, at: str = "") -> bool:
    """A value that is true or false; false if it is missing.

    Args:
        given: The object that has it.
        name: Its key.
        at: Where the object is, such as "stream_options."; "" for the body.

    Raises:
        WireError: It is something else.
    """
    value = given.get(name, False)
    if not isinstance(value, bool):
        wrong = shown_json(value)
        raise WireError(f'"{at}{name}" must be true or false, not {wrong}', at + name)
    return value


def take_count(given: JsonObject, name: str, least: int, most: int, default: int) -> int:
    """A whole number within bounds.

    Args:
        given: The body.
        name: Its key.
        least: The least that it may be.
        most: The most that it may be.
        default: What it is if it is missing.

    Raises:
        WireError: It is something else.
    """
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise WireError(f'"{name}" must be a whole number, not {shown_json(value)}', name)
    if not least <= value <= most:
        raise WireError(f'"{name}" must be from {least} to {most}, not {shown_json(value)}', name)
    return value


def check_known(given: Iterable[str], known: Iterable[str], at: str = "") -> None:
    """Refuse a key that is not supported.

    Raises:
        WireError: There is one.
    """
    known = list(known)
    for name in given:
        if name not in known:
            near = get_close_matches(name[:MAX_NAME], known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise WireError(f"{shown_json(at + name)} is not supported{hint}", at + name)


def check_neutral(given: JsonObject, neutral: Mapping[str, tuple[object, ...]]) -> None:
    """Refuse a key that asks for something else than what is always done.

    Args:
        given: The body.
        neutral: The values that ask for nothing else, by key.

    Raises:
        WireError: A key has another value.
    """
    for name, values in neutral.items():
        if name in given and not any(_equal(given[name], value) for value in values):
            allowed = " or ".join(shown_json(value) for value in values)
            raise WireError(
                f'"{name}" is supported only as {allowed}, not {shown_json(given[name])}', name
            )


def take_options(given: JsonObject, kind: type, names: Iterable[str]) -> dict[str, Any]:
    """The options of a request, checked.

    Args:
        given: The body.
        kind: The class of the request.
        names: The options that a body may have.

    Raises:
        WireError: One is of a wrong type, or out of its range.
    """
    specs, options = options_of(kind), {}
    for name in names:
        if name in given:
            spec, value = specs[name], given[name]
            if not spec.fits(value):
                raise WireError(f'"{name}" must be {spec.in_words}, not {shown_json(value)}', name)
            try:
                spec.check_range(value)
            except ValueError as error:
                raise WireError(str(error), name) from None
            options[name] = value
    return options


def made(request: type[R], *args: Any, **options: Any) -> R:
    """A request of options that are right one by one.

    Args:
        request: The class of the request.
        args: What is asked for.
        options: The options.

    Raises:
        WireError: The options do not go together.
    """
    try:
        return request(*args, **options)
    except (TypeError, ValueError) as error:
        raise WireError(str(error), param_of(error, request)) from None


def param_of(error: Exception, kind: type) -> str | None:
    """The option that an error of a request is about: its message begins with it. Else None.

    Args:
        error: The error.
        kind: The class of the request.
    """
    begin = str(error).removeprefix("the ").partition(" ")[0]
    return begin if begin in known_names(kind) else None


def _equal(left: object, right: object) -> bool:
    """Whether two JSON values are equal. true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)
