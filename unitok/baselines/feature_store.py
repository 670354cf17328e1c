"""Features of picture files, kept in a safetensors file, so that each is computed once.

A picture is known by the SHA-256 of its file, so that it may be renamed, and a model by its
fingerprint, so that one file may hold the features of several models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from unitok.baselines.adapter import batches
from unitok.checkpoints.folders import first_line
from unitok.picture_sources import read_path
from unitok.pictures import PictureLike, decode
from unitok.saving import write_whole

SAVE_EVERY = 4096  # pictures, so that a run which is killed loses little
KEY_BYTES = 32

Prepared = Mapping[str, Tensor]
Known = dict[bytes, Tensor]


class Encoder(Protocol):
    """What is needed of a model whose features are kept; a `Scorer` has it."""

    batch_size: int

    @property
    def fingerprint(self) -> str:
        """What decides about the features of a picture."""
        ...

    def prepare_image(self, image: Image.Image) -> Prepared:
        """What the encoder takes of a picture."""
        ...

    def features_of(self, prepared: Sequence[Prepared]) -> Tensor:
        """Features of unit length [n, d] of prepared pictures."""
        ...


class FeatureStore:
    """Features of pictures by model and by content, in memory and in a file.

    Attributes:
        path: The file, which is made when the first features are kept; None for none.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open a file, or begin a new one.

        Args:
            path: The file; None keeps features in memory alone.

        Raises:
            ValueError: It holds something else, or cannot be read.
            OSError: It is a folder, or its folder does not exist.
        """
        self.path = path
        self._models: dict[str, Known] = {} if path is None else open_store(path)

    def features(
        self,
        scorer: Encoder,
        files: Iterable[PictureLike],
        wrong: Callable[[Path, Exception], None] | None = None,
    ) -> Tensor:
        """Features of unit length [n, d] of picture files, computed where they are not known.

        What was computed is saved, also if an error or Ctrl-C ends the work.

        Args:
            scorer: The model.
            files: The paths of the pictures.
            wrong: Called with a file that cannot be read, and why; it is then left out. By default
                it is an error.

        Raises:
            OSError, ValueError: A file cannot be read.
            TypeError: A picture is no path.
        """
        known = self._models.setdefault(scorer.fingerprint, {})
        found: list[Tensor] = []
        saved = before = len(known)
        try:
            for batch in batches(read_files(scorer, files, known, wrong), scorer.batch_size):
                keys = learn(scorer, batch, known)
                found += [known[key] for key in keys]
                if len(known) - saved >= SAVE_EVERY:
                    self._save()
                    saved = len(known)
        finally:
            if len(known) > before:
                self._save()
        return torch.stack(found) if found else torch.zeros(0, 0)

    def _save(self) -> None:
        if self.path is None:
            return
        tensors: dict[str, Tensor] = {}
        for model, known in self._models.items():
            if known:
                keys = torch.frombuffer(bytearray(b"".join(known)), dtype=torch.uint8)
                tensors[f"{model}.keys"] = keys.reshape(-1, KEY_BYTES)
                tensors[f"{model}.features"] = torch.stack(list(known.values()))
        write_whole(save(tensors), self.path)


def read_files(
    scorer: Encoder,
    files: Iterable[PictureLike],
    known: Known,
    wrong: Callable[[Path, Exception], None] | None,
) -> Iterator[tuple[bytes, Prepared | None]]:
    """The key of each file, and the picture prepared for the model if it is not known."""
    for file in files:
        if not isinstance(file, str | Path):
            kind = type(file).__name__
            raise TypeError(f"features are kept of files alone: give paths, not {kind}")
        try:
            content = read_path(file)
            key = sha256(content.getbuffer()).digest()
            new = None if key in known else prepare(scorer, content, str(file))
        except (OSError, ValueError) as error:
            if wrong is None:
                raise
            wrong(Path(file), error)
        else:
            yield key, new


def prepare(scorer: Encoder, content: BytesIO, name: str) -> Prepared:
    """A picture as the model takes it; ValueError names it if it cannot be read."""
    return scorer.prepare_image(decode(content, name))


def learn(
    scorer: Encoder, batch: Sequence[tuple[bytes, Prepared | None]], known: Known
) -> list[bytes]:
    """Compute the features of those pictures of a batch that are not known; all their keys."""
    new = {key: prepared for key, prepared in batch if prepared is not None}
    if new:
        known.update(zip(new, scorer.features_of(list(new.values())), strict=True))
    return [key for key, _ in batch]


def open_store(path: Path) -> dict[str, Known]:
    """Features of a file by model; none if there is no file yet."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    return read_store(path) if path.exists() else {}


def read_store(path: Path) -> dict[str, Known]:
    """Features of a file by model; ValueError if it holds something else."""
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors has errors of its own
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from None
    models = {name.rpartition(".")[0] for name in tensors}
    if len(tensors) != 2 * len(models) or not all(fits(tensors, model) for model in models):
        raise ValueError(f"{path} holds no features of pictures; name another file")
    return {model: rows(tensors, model) for model in models}


def fits(tensors: Mapping[str, Tensor], model: str) -> bool:
    """Whether the tensors of a model are keys and as many features."""
    keys, features = tensors.get(f"{model}.keys"), tensors.get(f"{model}.features")
    if keys is None or features is None or features.ndim != 2:
        return False
    return keys.dtype == torch.uint8 and keys.shape == (len(features), KEY_BYTES)


def rows(tensors: Mapping[str, Tensor], model: str) -> Known:
    """The features of a model by key."""
    keys = tensors[f"{model}.keys"].numpy()
    return {key.tobytes(): row for key, row in zip(keys, tensors[f"{model}.features"], strict=True)}
