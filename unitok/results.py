"""What comes back: text, pictures, and the events of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unitok.requests import Caption, Draw, Edit
from unitok.terminal import one_line

SHOWN = 60  # characters of a text that a result shows of itself
SHEET_WIDTH = 1024  # pixels of a sheet of several pictures
SHEET_COLUMNS = 4  # at least, if there are as many; larger pictures are shrunk
SHEET_MOST = 100  # pictures


@dataclass(frozen=True)
class TextResult:
    """An answer.

    finish_reason: "stop" or "length". From `run` and `stream` also "error" or "abort", with `error`
    in words.
    logprobs, branch_logprobs: of each token of the completion, if asked for; of text that a stop
    string cut off too. What they are says `unitok_engine.Output`.
    """

    text: str
    seed: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float  # from the request to the answer
    request: Caption | None = field(default=None, repr=False)
    index: int = 0  # place in the list or iterable that was asked
    error: str | None = None
    logprobs: tuple[float, ...] | None = None
    branch_logprobs: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        return f"<TextResult {shortened(self.text)!r}: {told(self)}>"


@dataclass(frozen=True)
class DrawResult:
    """n pictures, of a drawing or an edit.

    finish_reason: "complete". From `run` and `stream` also "error" or "abort", with `error` in
    words.
    logprobs, branch_logprobs: of each token of each picture, if asked for: see
    `unitok_engine.Output`.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    seed: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int  # picture tokens, of all n together
    seconds: float
    request: Draw | Edit | None = field(default=None, repr=False)
    index: int = 0
    error: str | None = None
    logprobs: tuple[tuple[float, ...], ...] | None = None
    branch_logprobs: tuple[tuple[float, ...], ...] | None = None

    @property
    def image(self) -> Image.Image:
        """The first picture."""
        return self.images[0]

    def __repr__(self) -> str:
        pictures = counted(len(self.images), "picture")
        if self.images:
            pictures += f" of {pixels_of(self.image)}"
        return f"<DrawResult {shortened(self.prompt)!r}: {pictures}, {told(self)}>"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the picture, or all of them on a sheet."""
        if not self.images:
            return None
        file = BytesIO()
        (self.image if len(self.images) == 1 else sheet(self.images)).save(file, "PNG")
        return file.getvalue()


Result = TextResult | DrawResult


@dataclass(frozen=True)
class Event:
    """Something new of a request that is streamed.

    kind: "text": `text` was added to the answer, never half a character. "tokens": a drawing has
    `done` of `total` tokens. "image": picture number `sample` is there, as `image`. "result": the
    last event, with the whole `result`.
    done, total: tokens so far, and the most there will be; of "text" too.
    """

    kind: Literal["text", "tokens", "image", "result"]
    text: str = ""
    done: int = 0
    total: int = 0
    sample: int = 0
    image: Image.Image | None = field(default=None, repr=False)
    result: Result | None = None

    def __repr__(self) -> str:
        if self.kind == "result":
            return f"<Event result: {self.result!r}>"
        if self.image is not None:
            return f"<Event image: number {self.sample}, {pixels_of(self.image)}>"
        said = f"{shortened(self.text)!r}, " if self.kind == "text" else ""
        return f"<Event {self.kind}: {said}{self.done} of {self.total}>"


class Picture(Image.Image):
    """A drawn picture: `save` writes its prompt, seed and model into a PNG's text."""

    @classmethod
    def wrap(cls, pixels: Tensor, info: dict[str, str]) -> Picture:
        """Bytes [H, W, 3] -> an RGB picture."""
        image = Image.fromarray(pixels.numpy())
        image.__class__ = cls
        image.info.update(info)
        return image  # type: ignore[return-value]

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        text = PngInfo()
        for key, value in self.info.items():
            text.add_itxt(str(key), str(value))
        super().save(fp, format, **({"pnginfo": text} | params))


def failure(asked: Any, index: int, error: Exception) -> Result:
    """What `run` gives for a request that could not start."""
    if isinstance(asked, Draw | Edit):
        return DrawResult(
            asked.prompt, (), asked.seed or 0, "error", 0, 0, 0.0, asked, index, one_line(error)
        )
    request = asked if isinstance(asked, Caption) else None
    seed = (request.seed if request else 0) or 0
    return TextResult("", seed, "error", 0, 0, 0.0, request, index, one_line(error))


# --- how results show themselves -----------------------------------------------------------------


def told(result: Result) -> str:
    """How a result came about, in a few words."""
    error = "" if result.error is None else f" ({shortened(one_line(result.error))})"
    tokens = counted(result.completion_tokens, "token")
    return f"{result.finish_reason}{error}, {tokens}, {result.seconds:.2f} s, seed {result.seed}"


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def pixels_of(image: Image.Image) -> str:
    return f"{image.width} x {image.height} pixels"


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size side by side, row by row, shrunk if they are large."""
    images = images[:SHEET_MOST]
    width, height = images[0].size
    columns = min(len(images), max(SHEET_COLUMNS, SHEET_WIDTH // width))
    scale = min(1.0, SHEET_WIDTH / (columns * width))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    whole = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    for i, image in enumerate(images):
        small = image.resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(small, (i % columns * width, i // columns * height))
    return whole
