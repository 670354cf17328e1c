"""How the command line speaks: a line per error, warning or log record; Ctrl-C, previews."""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

LONGEST = 400  # characters of an error or warning; what a user typed may be quoted in it
STOPPED = 130  # the exit code after Ctrl-C, as shells have it
LOGGERS = ("unitok", "unitok_engine")
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by how often --verbose is said


def complain(what: str | BaseException) -> None:
    """Say on stderr what went wrong, in one line."""
    say(f"unitok: {one_line(what)}")


def say(line: str) -> None:
    """Print a line on what is stderr now: a bar that is shown may stand in for it."""
    print(line, file=sys.stderr, flush=True)


def one_line(what: str | BaseException) -> str:
    """A message or an exception in one line of bounded length."""
    if isinstance(what, OSError) and what.strerror and what.filename is not None:
        what = f"{what.filename}: {what.strerror}"
    text = " ".join(str(what).split()) or type(what).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


@contextmanager
def speech(verbose: int = 0, quiet: bool = False) -> Iterator[None]:
    """Inside, warnings and log records are one line each on stderr.

    verbose: 0 for warnings only, 1 for what is done, 2 for how. quiet: errors only.
    """
    level = logging.ERROR if quiet else LEVELS[min(verbose, len(LEVELS) - 1)]
    with warnings_in_one_line(quiet), logs_in_one_line(level):
        yield


@contextmanager
def warnings_in_one_line(quiet: bool = False) -> Iterator[None]:
    """Inside, each UserWarning is one line on stderr, once; no other warning is shown.

    quiet: none at all is.
    """
    said: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        text = one_line(str(message))
        if text not in said:
            said.add(text)
            say(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not quiet:
            warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


class OneLineHandler(logging.Handler):
    """Says each record as warnings are said: `info: loading ...`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {one_line(record.exc_info[1])}"
            say(f"{record.levelname.lower()}: {one_line(text)}")
        except Exception:  # as every handler: what cannot be logged stops nothing
            self.handleError(record)


@contextmanager
def logs_in_one_line(level: int) -> Iterator[None]:
    """Inside, what our loggers tell from this level on is on stderr."""
    handler = OneLineHandler()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, Ctrl-C waits for the end, so that what was done is noted as done."""
    if not hears_ctrl_c():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the program on the spot.

    For imports: a library may swallow KeyboardInterrupt while it is imported, and be broken then.
    """
    if not hears_ctrl_c():
        yield
        return

    def stop(*_: object) -> None:
        complain("stopped")
        os._exit(STOPPED)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def hears_ctrl_c() -> bool:
    """Whether Ctrl-C is KeyboardInterrupt here: in the main thread, unless it is to be ignored."""
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def half_blocks(image: Image.Image, columns: int) -> str:
    """A picture in 24-bit coloured half blocks, two pixels each; at most `columns` wide."""
    width = max(1, min(columns, image.width))
    height = max(1, round(image.height * width / image.width / 2)) * 2
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    pixels = small.tobytes()

    def colour(x: int, y: int) -> str:
        start = 3 * (y * width + x)
        return ";".join(str(value) for value in pixels[start : start + 3])

    rows = (
        "".join(f"\x1b[38;2;{colour(x, y)};48;2;{colour(x, y + 1)}m▀" for x in range(width))
        for y in range(0, height, 2)
    )
    return "\n".join(row + "\x1b[0m" for row in rows)
