"""Parts of the command line: errors, warnings and logs of one line each, Ctrl-C, previews."""

import logging
import os
import signal
import sys
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

LONGEST = 400  # characters of an error or warning, which may quote what a user typed
STOPPED = 130  # the exit code after Ctrl-C, as in shells
LOGGERS = ("unitok", "unitok_engine")
HALF_BLOCK = "▀"
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by how often --verbose is given

Colour = tuple[int, int, int]


def complain(what: str | BaseException) -> None:
    """Report an error on stderr, in one line."""
    say(f"unitok: {one_line(what)}")


def say(line: str) -> None:
    """Print a line on the current stderr, which a progress bar may have replaced."""
    print(line, file=sys.stderr, flush=True)


def one_line(what: str | BaseException) -> str:
    """A message or an exception as one line of bounded length.

    Control characters are escaped. The name of a file may hold them, and they could command a
    terminal.
    """
    if isinstance(what, OSError) and what.strerror and what.filename is not None:
        what = f"{what.filename}: {what.strerror}"
    text = " ".join(str(what).split()) or type(what).__name__
    text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" else c for c in text)


@contextmanager
def speech(verbose: int = 0, quiet: bool = False) -> Iterator[None]:
    """Print warnings and log records on stderr, one line each.

    Args:
        verbose: 0 for warnings only, 1 for progress, 2 for details.
        quiet: Whether only errors are printed.
    """
    level = logging.ERROR if quiet else LEVELS[min(verbose, len(LEVELS) - 1)]
    with warnings_in_one_line(quiet), logs_in_one_line(level):
        yield


@contextmanager
def warnings_in_one_line(quiet: bool = False) -> Iterator[None]:
    """Print each UserWarning once, as a line on stderr, and no other warning.

    Args:
        quiet: Whether no warning is printed.
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
    """Prints a log record as a line, such as `info: loading ...`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {one_line(record.exc_info[1])}"
            say(f"{record.levelname.lower()}: {one_line(text)}")
        except Exception:  # as in every handler, a failure to log must not stop the program
            self.handleError(record)


@contextmanager
def logs_in_one_line(level: int) -> Iterator[None]:
    """Print the records of our loggers on stderr, from a level on."""
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
    """Delay Ctrl-C until the end of the block, so that finished work is recorded."""
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
    """Let Ctrl-C end the program at once.

    This is for imports, as some libraries swallow KeyboardInterrupt while they are imported, and do
    not work afterwards.
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
    """Whether Ctrl-C raises KeyboardInterrupt here, as in the main thread, unless ignored."""
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def half_blocks(image: Image.Image, columns: int) -> str:
    """A picture for a terminal, in half blocks of 24-bit colours with two pixels each.

    Args:
        image: The picture.
        columns: The most columns to use.
    """
    width = max(1, min(columns, image.width))
    height = max(1, round(image.height * width / image.width / 2)) * 2
    rows = colour_pairs(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    return "\n".join("".join(map(half_block, row)) + "\x1b[0m" for row in rows)


def half_block(colours: tuple[Colour, Colour]) -> str:
    """A character whose upper and lower half have these colours."""
    upper, lower = (";".join(map(str, colour)) for colour in colours)
    return f"\x1b[38;2;{upper};48;2;{lower}m{HALF_BLOCK}"


def colour_pairs(image: Image.Image) -> Iterator[list[tuple[Colour, Colour]]]:
    """The colours of the upper and the lower half of each character, row by row.

    Args:
        image: An RGB picture of an even number of rows of pixels.
    """
    pixels = image.tobytes()
    colours = list(zip(pixels[0::3], pixels[1::3], pixels[2::3], strict=True))
    width = image.width
    for start in range(0, len(colours), 2 * width):
        middle, stop = start + width, start + 2 * width
        yield list(zip(colours[start:middle], colours[middle:stop], strict=True))
