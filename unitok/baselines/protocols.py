"""What baselines can do, and what evaluation takes: small protocols, which `unitok.Model` fits."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from unitok.pictures import PictureLike
from unitok.results import Result


@runtime_checkable
class Runner(Protocol):
    """Whatever takes requests and gives results, as `unitok.Model.run` does.

    A captioner takes `Caption` requests and gives a `TextResult` for each. An image generator takes
    `Draw`, and `Edit` if it can, and gives a `DrawResult` for each. A request that fails gives a
    result with the finish reason "error"; the others go on.
    """

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def run(self, requests: Iterable[Any]) -> Iterator[Result]:
        """Results in any order, each with its `index` among the requests, and its `request`."""
        ...

    def close(self) -> None:
        """Free what it holds. Closing again does nothing."""
        ...


@runtime_checkable
class Captioner(Runner, Protocol):
    """Describes pictures and answers questions about them."""

    def caption(self, image: Any, question: str | None = None, **options: Any) -> Any:
        """A `TextResult` of a picture, or a list of them of a list of pictures."""
        ...


@runtime_checkable
class ImageGenerator(Runner, Protocol):
    """Makes pictures of prompts."""

    def draw(self, prompt: Any, **options: Any) -> Any:
        """A `DrawResult` of a prompt, or a list of them of a list of prompts."""
        ...


@runtime_checkable
class ImageTextScorer(Protocol):
    """Says how well pictures and texts match."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def image_features(self, images: Sequence[PictureLike]) -> Tensor:
        """Embeddings of unit length [n, d] of pictures, on the CPU in float32."""
        ...

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of unit length [m, d] of texts, on the CPU in float32."""
        ...

    def score(self, images: Sequence[PictureLike], texts: Sequence[str]) -> Tensor:
        """Logits [n, m], as the model was trained with: its scale and bias are in them."""
        ...

    def classify(self, images: Sequence[PictureLike], labels: Sequence[str]) -> Tensor:
        """The probability [n, labels] of each label."""
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """Turns pictures into features."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    @property
    def width(self) -> int:
        """How many numbers the features of a picture are."""
        ...

    def features(self, images: Sequence[PictureLike]) -> Tensor:
        """Features [n, width] of pictures, on the CPU in float32."""
        ...


@dataclass(frozen=True)
class Segmentation:
    """Masks of one picture.

    Attributes:
        masks: [k, height, width], bool, in the picture's own size.
        scores: How good the model thinks that each is [k].
    """

    masks: Tensor
    scores: tuple[float, ...]


@runtime_checkable
class Segmenter(Protocol):
    """Cuts things out of pictures."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def segment(
        self,
        image: PictureLike,
        points: Sequence[tuple[float, float]] = (),
        boxes: Sequence[tuple[float, float, float, float]] = (),
    ) -> Segmentation:
        """Masks of what lies at points (x, y) or in boxes (left, top, right, bottom), in pixels."""
        ...


@dataclass(frozen=True)
class Detection:
    """A thing that was found.

    Attributes:
        label: What it is: one of the labels that were asked for.
        box: Left, top, right, bottom, in pixels.
        score: In [0, 1].
    """

    label: str
    box: tuple[float, float, float, float]
    score: float


@runtime_checkable
class Detector(Protocol):
    """Finds things in pictures by their names."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def detect(
        self, image: PictureLike, labels: Sequence[str], threshold: float = 0.3
    ) -> list[Detection]:
        """What is there of the labels, the surest first."""
        ...


@dataclass(frozen=True)
class Audio:
    """A sound.

    Attributes:
        samples: [channels, n], float32 in [-1, 1].
        rate: Samples in a second.
    """

    samples: np.ndarray[Any, Any] = field(repr=False)
    rate: int


@runtime_checkable
class SpeechRecognizer(Protocol):
    """Writes down what is said."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def transcribe(self, audio: Audio) -> str:
        """The words of a sound."""
        ...


@runtime_checkable
class AudioGenerator(Protocol):
    """Makes sounds of prompts."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def generate(self, prompt: str, seconds: float, seed: int = 0) -> Audio:
        """A sound of so many seconds, or of a little less as the model counts."""
        ...


@dataclass(frozen=True)
class Video:
    """A clip.

    Attributes:
        frames: Its pictures, in order.
        rate: Pictures in a second.
    """

    frames: tuple[Image.Image, ...] = field(repr=False)
    rate: float


@runtime_checkable
class VideoGenerator(ImageGenerator, Protocol):
    """Makes clips of prompts."""

    def film(self, prompt: str, frames: int, **options: Any) -> Video:
        """A clip of so many frames."""
        ...
