"""What comes back: text, pictures, and the events of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unitok.requests import Caption, Draw
from unitok.terminal import one_line


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


@dataclass(frozen=True)
class DrawResult:
    """n pictures.

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
    request: Draw | None = field(default=None, repr=False)
    index: int = 0
    error: str | None = None
    logprobs: tuple[tuple[float, ...], ...] | None = None
    branch_logprobs: tuple[tuple[float, ...], ...] | None = None

    @property
    def image(self) -> Image.Image:
        """The first picture."""
        return self.images[0]


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
    if isinstance(asked, Draw):
        return DrawResult(
            asked.prompt, (), asked.seed or 0, "error", 0, 0, 0.0, asked, index, one_line(error)
        )
    request = asked if isinstance(asked, Caption) else None
    seed = (request.seed if request else 0) or 0
    return TextResult("", seed, "error", 0, 0, 0.0, request, index, one_line(error))
