"""How the command line speaks: one line per error or warning, and small previews of pictures."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

LONGEST = 400  # characters of an error or warning; what a user typed may be quoted in it


def complain(what: str | Exception) -> None:
    """Say on stderr what went wrong, in one line."""
    print(f"unitok: {one_line(what)}", file=sys.stderr, flush=True)


def one_line(what: str | BaseException) -> str:
    """A message or an exception in one line of bounded length."""
    if isinstance(what, OSError) and what.strerror and what.filename is not None:
        what = f"{what.filename}: {what.strerror}"
    text = " ".join(str(what).split()) or type(what).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Inside, each UserWarning is one line on stderr, once; no other warning is shown."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        text = one_line(str(message))
        if text not in said:
            said.add(text)
            print(f"warning: {text}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


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
