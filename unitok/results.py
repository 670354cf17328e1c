"""What a model returns: text, pictures, and the events of a stream."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from math import fsum
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from unitok.picture_info import format_of, save_options
from unitok.requests import AnyRequest, Caption, Draw, Edit, Reply
from unitok.saving import MAX_SCALE
from unitok.terminal import one_line

SHOWN = 60  # characters of a text in a repr
SHEET_WIDTH = 1024  # pixels of a sheet of several pictures
SHEET_COLUMNS = 4  # at least, if there are so many pictures; large ones are shrunk for it
SHEET_MOST = 100  # pictures of a sheet


@dataclass(frozen=True)
class Dropped:
    """What a chat has left out of its history because the context was full.

    Attributes:
        pictures: The number of pictures.
        exchanges: The number of messages that are gone with their answers or drawings.
    """

    pictures: int
    exchanges: int

    def __str__(self) -> str:
        counts = {"picture": self.pictures, "exchange": self.exchanges}
        return " and ".join(counted(count, what) for what, count in counts.items() if count)


@dataclass(frozen=True)
class TextResult:
    """An answer.

    Attributes:
        text: The answer.
        seed: The seed that was used.
        finish_reason: "stop" or "length". From `run` also "error" or "abort". From `run` and
            `stream` also "timeout", with the text so far.
        prompt_tokens: The tokens of the prompt.
        completion_tokens: The tokens of the answer.
        seconds: From the request to the answer.
        request: What was asked; None for `Chat.send`.
        index: The request's place in the list or iterable that it came from.
        error: What went wrong; None if nothing did.
        logprobs: The log-probability of each token of the answer, if asked for. Text that a stop
            string cut off has them too. `unitok_engine.Output` explains them.
        branch_logprobs: The same before any filter, if asked for.
        dropped: What a chat has left out of its history to make room; None if nothing.
        weight_version: The version of the weights that computed it, see `Model.update_weights`;
            None if nothing was computed.
        token_ids: The token ids that have log-probabilities, if these were asked for.
        cause: What was raised, if the request could not be prepared or could never run; else None.
        cached_tokens: How many tokens of the prompt were found computed, by earlier requests.
    """

    text: str
    seed: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    request: Caption | Reply | None = field(default=None, repr=False)
    index: int = 0
    error: str | None = None
    logprobs: tuple[float, ...] | None = None
    branch_logprobs: tuple[float, ...] | None = None
    dropped: Dropped | None = None
    weight_version: int | None = None
    token_ids: tuple[int, ...] | None = field(default=None, repr=False)
    cause: Exception | None = field(default=None, repr=False, compare=False)
    cached_tokens: int = field(default=0, compare=False)

    def __repr__(self) -> str:
        return f"<TextResult {shortened(self.text)!r}: {summary(self)}>"


@dataclass(frozen=True)
class DrawResult:
    """The n pictures of a drawing or an edit.

    Attributes:
        prompt: What was asked for.
        images: The pictures; none if an error occurred.
        seed: The seed that was used; that of the first picture if each has its own.
        finish_reason: "complete". From `run` also "error" or "abort". From `run` and `stream` also
            "timeout".
        prompt_tokens: The tokens of the prompt.
        completion_tokens: The tokens of all pictures together.
        seconds: From the request to the last picture.
        request: What was asked.
        index: The request's place in the list or iterable that it came from.
        error: What went wrong; None if nothing did.
        logprobs: The log-probability of each token of each picture, if asked for.
            `unitok_engine.Output` explains them.
        branch_logprobs: The same without guidance and filters, if asked for.
        dropped: What a chat has left out of its history to make room; None if nothing.
        seeds: The seed of each picture.
        weight_version: The version of the weights that computed it, see `Model.update_weights`;
            None if nothing was computed.
        steps: In how many steps of the engine the tokens were sampled, of all pictures together.
        token_ids: The token ids of each picture, if log-probabilities were asked for.
        cause: What was raised, if the request could not be prepared or could never run; else None.
        cached_tokens: How many tokens of the prompt were found computed, by earlier requests.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    seed: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    request: Draw | Edit | None = field(default=None, repr=False)
    index: int = 0
    error: str | None = None
    logprobs: tuple[tuple[float, ...], ...] | None = None
    branch_logprobs: tuple[tuple[float, ...], ...] | None = None
    dropped: Dropped | None = None
    seeds: tuple[int, ...] = ()
    weight_version: int | None = None
    steps: int = 0
    token_ids: tuple[tuple[int, ...], ...] | None = field(default=None, repr=False)
    cause: Exception | None = field(default=None, repr=False, compare=False)
    cached_tokens: int = field(default=0, compare=False)

    @property
    def tokens_per_step(self) -> float:
        """The tokens of a picture that a step brought.

        They are more than 1 where drafts were right, and where a part of a picture stays.
        """
        return self.completion_tokens / self.steps if self.steps else 0.0

    @property
    def image(self) -> Image.Image:
        """The first picture."""
        return self.images[0]

    def __repr__(self) -> str:
        pictures = counted(len(self.images), "picture")
        if self.images:
            pictures += f" of {pixels_of(self.image)}"
        return f"<DrawResult {shortened(self.prompt)!r}: {pictures}, {summary(self)}>"

    def _repr_png_(self) -> bytes | None:
        """The PNG that a notebook shows: the picture, or a sheet of several pictures."""
        if not self.images:
            return None
        file = BytesIO()
        (self.image if len(self.images) == 1 else sheet(self.images)).save(file, "PNG")
        return file.getvalue()


Result = TextResult | DrawResult


@dataclass(frozen=True)
class ScoreResult:
    """How likely token ids that were given are.

    Attributes:
        token_ids: The token ids.
        logprobs: The log-probability of each under what the request samples from: with guidance,
            temperature and filters. It is 0 for a token that the model does not choose, such as the
            end of a row of a picture, and minus infinity for one that a filter leaves out.
        branch_logprobs: The same without guidance and filters.
        prompt_tokens: The tokens of the prompt.
        request: What was asked.
        weight_version: The version of the weights that computed it, see `Model.update_weights`.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    branch_logprobs: tuple[float, ...]
    prompt_tokens: int
    request: AnyRequest = field(repr=False)
    weight_version: int = 0

    @property
    def logprob(self) -> float:
        """The log-probability of all tokens together: the sum of `logprobs`."""
        return fsum(self.logprobs)

    def __repr__(self) -> str:
        tokens = counted(len(self.token_ids), "token")
        return f"<ScoreResult {self.logprob:.4f}: {tokens}>"


@dataclass(frozen=True)
class Event:
    """Progress of a request that is streamed.

    Attributes:
        kind: "text" for new text of an answer, "tokens" for new tokens of a drawing, "preview" for
            a picture of a part of a drawing, "image" for a picture, and "result" for the last
            event.
        text: The new text, in whole characters.
        done: The tokens so far.
        total: The most tokens that there will be.
        sample: The number of the picture, from 0 on.
        image: The picture, or the preview, in which the rows that are not drawn yet are filled.
        result: The result of the request.
        rows: How many rows of tokens a preview shows.
    """

    kind: Literal["text", "tokens", "preview", "image", "result"]
    text: str = ""
    done: int = 0
    total: int = 0
    sample: int = 0
    image: Image.Image | None = field(default=None, repr=False)
    result: Result | None = None
    rows: int = 0

    def __repr__(self) -> str:
        if self.kind == "result":
            return f"<Event result: {self.result!r}>"
        if self.image is not None:
            rows = f", {counted(self.rows, 'row')}" if self.kind == "preview" else ""
            return f"<Event {self.kind}: number {self.sample}, {pixels_of(self.image)}{rows}>"
        text = f"{shortened(self.text)!r}, " if self.kind == "text" else ""
        return f"<Event {self.kind}: {text}{self.done} of {self.total}>"


class Picture(Image.Image):
    """A generated picture, which remembers its prompt, seed and model in `info`.

    `save` writes them into the file: as text into a PNG, as EXIF into a JPEG, WebP, TIFF or AVIF.
    `unitok.read_info` reads them again.
    """

    @classmethod
    def wrap(cls, pixels: Tensor, info: dict[str, str]) -> Picture:
        """An RGB picture of pixels.

        Args:
            pixels: Bytes [H, W, 3].
            info: What a file of the picture says of it.
        """
        image = cls._adopt(Image.fromarray(pixels.numpy()))
        image.info.update(info)
        return image

    @classmethod
    def _adopt(cls, image: Image.Image) -> Picture:
        image.__class__ = cls
        return image  # type: ignore[return-value]

    def scaled(self, factor: int) -> Picture:
        """The picture, larger. Every pixel becomes a square of pixels, so nothing is invented.

        Args:
            factor: How many times as wide and as high, from 1 to 8.

        Raises:
            ValueError: The factor is out of its range.
            TypeError: It is not a whole number.
        """
        factor = operator.index(factor)
        if not 1 <= factor <= MAX_SCALE:
            raise ValueError(f"factor must be from 1 to {MAX_SCALE}, not {factor}")
        size = (self.width * factor, self.height * factor)
        return self._adopt(self.resize(size, Image.Resampling.NEAREST))

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """`PIL.Image.Image.save`, with the picture's `info` in the file, if the format can hold it.

        Args:
            fp: A path or a file.
            format: The file format; by default the one that the path's suffix names.
            params: Passed on. `pnginfo` or `exif` take the place of what would be written.
        """
        super().save(fp, format, **(save_options(self.info, format_of(fp, format)) | params))


def failure(asked: object, index: int, error: Exception) -> Result:
    """The result of a request that could not be prepared.

    Args:
        asked: The request, or whatever was given in its place.
        index: Its place among the requests.
        error: Why it could not be prepared.
    """
    told, cause = one_line(error), error.with_traceback(None)  # which would keep the pictures
    if isinstance(asked, Draw | Edit):
        seed = asked.seeds[0] if isinstance(asked.seed, Sequence) else asked.seed or 0
        values = (asked.prompt, (), seed, "error", 0, 0, 0.0, asked, index, told)
        return DrawResult(*values, cause=cause)
    request = asked if isinstance(asked, Caption | Reply) else None
    seed = (request.seed if request else 0) or 0
    return TextResult("", seed, "error", 0, 0, 0.0, request, index, told, cause=cause)


# --- parts of a repr -----------------------------------------------------------------------------


def summary(result: Result) -> str:
    """How a request ended, in a few words."""
    error = "" if result.error is None else f" ({shortened(one_line(result.error))})"
    tokens = counted(result.completion_tokens, "token")
    end = f", dropped {result.dropped}" if result.dropped else ""
    numbers = f"{tokens}, {result.seconds:.2f} s, seed {result.seed}"
    return f"{result.finish_reason}{error}, {numbers}{end}"


def shortened(text: str) -> str:
    """The beginning of a long text, or all of a short one."""
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def pixels_of(image: Image.Image) -> str:
    """The size of a picture, in words."""
    return f"{image.width} x {image.height} pixels"


def counted(count: int, what: str) -> str:
    """A number of things, such as "2 pictures"."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in rows and columns on one picture, shrunk if they are large."""
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
