"""Methods that take the options of a kind of request as keyword arguments.

A decorator turns a method that takes requests into one that takes the fields of a request. Its
parameters are those of the request's class. Editors complete them and type checkers check them, so
no option is declared twice.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints, overload

import numpy as np
from PIL import Image
from torch import Tensor

from unitok.pictures import PictureLike
from unitok.requests import options_of

P = ParamSpec("P")
Q = ParamSpec("Q")
X = TypeVar("X")
X_in = TypeVar("X_in", contravariant=True)
R = TypeVar("R")
R_out = TypeVar("R_out", covariant=True)
S = TypeVar("S")
S_out = TypeVar("S_out", covariant=True)


class OneOrMany(Protocol[P, X_in, R]):
    """A method that returns one result for one thing, and a list of results for an iterable."""

    @overload
    def __call__(self, thing: X_in, /, *args: P.args, **options: P.kwargs) -> R: ...
    @overload
    def __call__(
        self, things: Iterable[X_in], /, *args: P.args, **options: P.kwargs
    ) -> list[R]: ...


class OneOrManyAsync(Protocol[P, X_in, R]):
    """`OneOrMany` for `await`."""

    @overload
    def __call__(self, thing: X_in, /, *args: P.args, **options: P.kwargs) -> Awaitable[R]: ...
    @overload
    def __call__(
        self, things: Iterable[X_in], /, *args: P.args, **options: P.kwargs
    ) -> Awaitable[list[R]]: ...


class One(Protocol[P, X_in, R_out]):
    """A method that returns one result for one thing."""

    def __call__(self, thing: X_in, /, *args: P.args, **options: P.kwargs) -> R_out: ...


class AnswerOrStart(Protocol[P, R_out, Q, S_out]):
    """A method that answers messages; without messages it starts a conversation."""

    @overload
    def __call__(self, *args: Q.args, **options: Q.kwargs) -> S_out: ...
    @overload
    def __call__(self, *args: P.args, **options: P.kwargs) -> R_out: ...


class Answer(Protocol[P, R_out]):
    """A method that answers messages."""

    def __call__(self, *args: P.args, **options: P.kwargs) -> R_out: ...


def answer_or_start(
    made: Callable[P, Any], start: Callable[Concatenate[Any, Q], S]
) -> Callable[[Callable[..., R]], AnswerOrStart[P, R, Q, S]]:
    """Decorate a method that answers a request which holds messages.

    Args:
        made: The class of the request.
        start: What is called instead if no messages are given, with the method's object first.
    """

    def decorate(method: Callable[..., R]) -> Any:
        @wraps(method)
        def call(self: Any, *args: Any, **options: Any) -> Any:
            if "messages" in options or isinstance(next(iter(args), None), list | tuple):
                return method(self, made(*args, **options))
            return start(self, *args, **options)

        del call.__wrapped__  # type: ignore[attr-defined]  # its parameters are not those of a caller
        call.__doc__ = _with_help_of(made, call)
        return call

    return decorate


def answer(made: Callable[P, Any]) -> Callable[[Callable[..., R]], Answer[P, R]]:
    """Decorate a method that answers a request which holds messages.

    Args:
        made: The class of the request.
    """

    def decorate(method: Callable[..., R]) -> Any:
        @wraps(method)
        def call(self: Any, *args: Any, **options: Any) -> Any:
            return method(self, made(*args, **options))

        return _with_parameters_of(made, call, first=inspect.Parameter.POSITIONAL_OR_KEYWORD)

    return decorate


def one_or_many(
    made: Callable[Concatenate[X, P], Any],
) -> Callable[[Callable[..., list[R]]], OneOrMany[P, X, R]]:
    """Decorate a method that takes a list of requests and returns a list of results.

    The method that this makes takes one prompt or picture, or any iterable of them.

    Args:
        made: The class of the requests.
    """

    def decorate(method: Callable[..., list[R]]) -> Any:
        @wraps(method)
        def call(self: Any, things: Any, *args: Any, **options: Any) -> Any:
            several = are_several(things)
            asked = [made(thing, *args, **options) for thing in (things if several else [things])]
            results = method(self, asked)
            return results if several else results[0]

        return _with_parameters_of(made, call)

    return decorate


def one_or_many_async(
    made: Callable[Concatenate[X, P], Any],
) -> Callable[[Callable[..., Awaitable[list[R]]]], OneOrManyAsync[P, X, R]]:
    """`one_or_many` for a coroutine.

    Args:
        made: The class of the requests.
    """

    def decorate(method: Callable[..., Awaitable[list[R]]]) -> Any:
        @wraps(method)
        async def call(self: Any, things: Any, *args: Any, **options: Any) -> Any:
            several = are_several(things)
            asked = [made(thing, *args, **options) for thing in (things if several else [things])]
            results = await method(self, asked)
            return results if several else results[0]

        return _with_parameters_of(made, call)

    return decorate


def one(
    made: Callable[Concatenate[X, P], Any],
) -> Callable[[Callable[..., R]], One[P, X, R]]:
    """Decorate a method that takes one request.

    Args:
        made: The class of the request.
    """

    def decorate(method: Callable[..., R]) -> Any:
        @wraps(method)
        def call(self: Any, thing: Any, *args: Any, **options: Any) -> Any:
            return method(self, made(thing, *args, **options))

        return _with_parameters_of(made, call)

    return decorate


# Some of these can be iterated over, but each of them is one prompt or one picture.
_SINGLE = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, np.ndarray, Tensor)


def are_several(things: object) -> bool:
    """Whether an argument holds several prompts or pictures, and is not one itself.

    Raises:
        TypeError: It is a dict, whose keys nobody means.
    """
    if isinstance(things, Mapping):
        raise TypeError("give one prompt or picture or a list of them, not a dict")
    is_file = hasattr(things, "read")  # its lines are not meant
    return isinstance(things, Iterable) and not isinstance(things, _SINGLE) and not is_file


def _with_parameters_of(
    made: Any, call: Any, first: Any = inspect.Parameter.POSITIONAL_ONLY
) -> Any:
    """Give a function the signature of a request's class, and the help of its options.

    Args:
        made: The class of the request.
        call: The function.
        first: The kind of the first parameter after `self`.
    """
    hints = get_type_hints(made, localns={"PictureLike": PictureLike})
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    for name, parameter in inspect.signature(made).parameters.items():
        kind = first if len(parameters) == 1 else parameter.kind
        parameters.append(parameter.replace(kind=kind, annotation=hints[name]))
    call.__signature__ = inspect.Signature(parameters)
    call.__doc__ = _with_help_of(made, call)
    return call


def _with_help_of(made: Any, call: Any) -> str:
    """A function's docstring, with the help of the options of a request's class."""
    options = [f"    {name}: {spec.option.help}" for name, spec in options_of(made).items()]
    return "\n".join([inspect.cleandoc(call.__doc__ or ""), "", "Options:", *options])
