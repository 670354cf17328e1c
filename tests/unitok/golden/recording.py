"""Recordings of golden requests: what each gave, and how sure each choice was.

The margin of a choice is the best score less the second best, noise included. Two scores closer
than `DOUBTFUL` may change places by the rounding of fp32 alone, so a comparison ends there. What
rounding does to a score grows with the weights of the branches, when guidance mixes them, and with
the inverse of the temperature: by this `slack`, at least 1, `DOUBTFUL` is multiplied.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DOUBTFUL = 1e-4


@dataclass(frozen=True)
class Pixels:
    """Every `stride`-th pixel of a picture, both ways, and a checksum of all of them.

    data: bytes [rows, columns, 3], compressed, in base64.
    """

    width: int
    height: int
    stride: int
    checksum: int
    data: str

    @classmethod
    def of(cls, image: Image.Image, stride: int) -> "Pixels":
        every = np.array(image)
        packed = base64.b64encode(zlib.compress(every[::stride, ::stride].tobytes(), 9))
        return cls(*image.size, stride, zlib.crc32(every.tobytes()), packed.decode())

    def array(self) -> np.ndarray:
        """[rows, columns, 3] bytes."""
        rows, columns = (-(-side // self.stride) for side in (self.height, self.width))
        raw = zlib.decompress(base64.b64decode(self.data))
        return np.frombuffer(raw, np.uint8).reshape(rows, columns, 3)


@dataclass(frozen=True)
class Sample:
    """One sample of a request: all that was emitted, forced ids and a final stop id included.

    margins: of each id; None for one that had no rival, because it was forced or alone, and 0 where
    it hangs on ids that the filters might as well have left out, or in.
    """

    ids: tuple[int, ...]
    margins: tuple[float | None, ...]
    slack: float = 1.0
    logprobs: tuple[float, ...] | None = None
    branch_logprobs: tuple[float, ...] | None = None
    pixels: Pixels | None = None

    @property
    def doubtful(self) -> list[int]:
        """Which choices rounding alone might have turned."""
        limit = DOUBTFUL * self.slack
        return [i for i, m in enumerate(self.margins) if m is not None and m < limit]

    @property
    def certain(self) -> int:
        """How many ids come before the first doubtful choice."""
        return min(self.doubtful, default=len(self.ids))


@dataclass(frozen=True)
class Recorded:
    """What one request gave. asked: the request itself, to see that it is still the same."""

    asked: dict[str, Any]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    samples: tuple[Sample, ...]
    text: str | None = None


Recordings = Mapping[str, Sequence[Recorded]]  # by the name of the case


def shortened(margins: Iterable[float | None]) -> tuple[float | None, ...]:
    return tuple(None if margin is None else float(f"{margin:.4g}") for margin in margins)


def rounded(logprobs: Iterable[float] | None) -> tuple[float, ...] | None:
    return None if logprobs is None else tuple(round(logprob, 6) for logprob in logprobs)


def stride_of(recordings: Recordings) -> int:
    """The stride of all pictures of a recording."""
    samples = (s for each in recordings.values() for one in each for s in one.samples)
    return next((sample.pixels.stride for sample in samples if sample.pixels), 1)


# --- files ---------------------------------------------------------------------------------------


def save(recordings: Recordings, path: Path) -> None:
    """Write JSON, a line for each case."""
    lines = (
        f"{json.dumps(name)}: {json.dumps([shorn(asdict(r)) for r in each], ensure_ascii=False)}"
        for name, each in recordings.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def shorn(data: Any) -> Any:
    """Leave out what is None, but in lists, where its place counts."""
    if isinstance(data, dict):
        return {key: shorn(value) for key, value in data.items() if value is not None}
    if isinstance(data, list | tuple):
        return [shorn(value) for value in data]
    return data


def load(path: Path) -> dict[str, list[Recorded]]:
    data = json.loads(path.read_text(encoding="utf-8"))
    return {name: [recorded_from_json(one) for one in each] for name, each in data.items()}


def recorded_from_json(data: dict[str, Any]) -> Recorded:
    samples = tuple(sample_from_json(sample) for sample in data.pop("samples"))
    return Recorded(samples=samples, **data)


def sample_from_json(data: dict[str, Any]) -> Sample:
    pixels = Pixels(**data.pop("pixels")) if "pixels" in data else None
    made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Sample(pixels=pixels, **made)
