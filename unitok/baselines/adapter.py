"""What all adapters of a folder share: its name, its device, and how transformers opens it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unitok.baselines.parts import check_complete, find_dtype, open_model, open_processor
from unitok.extras import need
from unitok.loading import check_device
from unitok.shown import shown

SEEDS = range(-(2**63), 2**64)

T = TypeVar("T")


class Adapter:
    """A folder of a model of others.

    Attributes:
        folder: Where the model lies.
        device: Where it computes.
    """

    _model: Any
    _processor: Any

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.folder, self.device = folder, find_device(device)

    @property
    def name(self) -> str:
        """What it is called in reports: the folder's name; for a hub id, the repository's."""
        folder = self.folder.resolve()
        return folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name

    def _open(
        self,
        model: str,
        *parts: tuple[str, ...],
        processor: str = "AutoProcessor",
        dtype: str = "float32",
        **options: Any,
    ) -> None:
        """Open the model, and what prepares its inputs.

        Args:
            model: Its class in transformers.
            *parts: Files that the folder must have: one of each.
            processor: The class of what prepares its inputs.
            dtype: The type to compute in; "auto" is the checkpoint's own on a GPU.
            **options: Of the model's class.

        Raises:
            FileNotFoundError, ValueError, ImportError: As `unitok.baselines.parts`.
        """
        check_complete(self.folder, *parts)
        library = need("transformers", "baselines")
        self._processor = open_processor(getattr(library, processor), self.folder)
        kind, chosen = getattr(library, model), find_dtype(dtype, self.device)
        self._model = open_model(kind, self.folder, chosen, **options).to(self.device)


def find_device(device: str) -> str:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        ValueError: It does not exist.
    """
    return check_device(None if device == "auto" else device)


def check_count(name: str, count: int) -> int:
    """A count that an option gives; ValueError if it is below 1."""
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {shown(count)}")
    return count


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of a size; the last may be shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def check_finite(name: str, values: Tensor) -> Tensor:
    """What a model computed; ValueError if some of it are no numbers."""
    if not values.isfinite().all():
        raise ValueError(
            f"{name} computes values that are not numbers: its weights are damaged, or want float32"
        )
    return values


def joined(parts: Iterable[Tensor], width: int = 0) -> Tensor:
    """Features [n, width] of batches, on the CPU in float32."""
    found = [part.float().cpu() for part in parts]
    return torch.cat(found) if found else torch.zeros(0, width)


def check_seeds(*seeds: int) -> None:
    """Check that torch takes some seeds; ValueError if it does not."""
    if not all(seed in SEEDS for seed in seeds):
        raise ValueError("seed must fit in 64 bits, and so must those of further pictures")


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Let torch's noise begin with a seed; afterwards it goes on as before.

    Raises:
        ValueError: It does not fit in 64 bits.
    """
    check_seeds(seed)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield
