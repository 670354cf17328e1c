"""Warnings that point at the line of the user's program that led to them, not at our own files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import currentframe
from types import FrameType
from typing import Any, TypeVar

OURS = frozenset({"unitok", "unitok_engine", "unitok_tokenizers"})
# Packages of Python that may stand between the user's lines and ours.
BETWEEN = frozenset({"asyncio", "concurrent", "contextlib", "threading"})

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """A line that a warning points at.

    Attributes:
        file: The file.
        number: The line's number.
        module: The name of its module.
        registry: Where Python keeps which warnings this module has had.
    """

    file: str
    number: int
    module: str
    registry: dict[Any, Any]


_line: ContextVar[Line | None] = ContextVar("_line", default=None)


def warn(message: str) -> None:
    """Give a UserWarning at the line outside of our packages that called us.

    In a thread of ours there is no such line. There it points at the line that `at_callers_line`
    found, else at the line of ours that warns.
    """
    # A variable for our own frame would keep all that our callers hold until the garbage collector
    # comes by.
    line = _line.get() or find_line() or _line_of(_caller())
    warnings.warn_explicit(message, UserWarning, line.file, line.number, line.module, line.registry)


def at_callers_line(work: Callable[[], T]) -> Callable[[], T]:
    """Have the warnings of a function point at who calls now, whatever thread runs it.

    Args:
        work: The function.

    Returns:
        A function that does the same.
    """
    line = find_line()

    def run() -> T:
        token = _line.set(line)
        try:
            return work()
        finally:
            _line.reset(token)

    return run


def find_line() -> Line | None:
    """The line that called us from outside of our packages; None in a thread of ours."""
    frame = currentframe()
    while frame is not None and _package(frame) in OURS | BETWEEN:
        frame = frame.f_back
    return None if frame is None else _line_of(frame)


def _caller() -> FrameType:
    """The frame that called the function that calls this."""
    frame = currentframe()
    for _ in range(2):
        assert frame is not None  # CPython has frames
        frame = frame.f_back
    assert frame is not None
    return frame


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _line_of(frame: FrameType) -> Line:
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    module = str(frame.f_globals.get("__name__", "<string>"))
    return Line(frame.f_code.co_filename, frame.f_lineno, module, registry)
