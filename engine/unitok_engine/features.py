"""Features are computed when a prefill chunk first needs them, those of one step together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unitok_engine.request import Features

if TYPE_CHECKING:
    from unitok_engine.scheduler import Chunk


class FeatureStore:
    """The features of one request, by digest, kept until it ends."""

    def __init__(self) -> None:
        self._vectors: dict[str, Tensor] = {}

    def __contains__(self, features: Features) -> bool:
        return features.digest in self._vectors

    def get(self, features: Features) -> Tensor:
        """[length, d]; KeyError if they were not put here."""
        return self._vectors[features.digest]

    def put(self, features: Features, vectors: Tensor) -> None:
        """ValueError for vectors of another length."""
        if vectors.ndim != 2 or vectors.shape[0] != features.length:
            shape = list(vectors.shape)
            raise ValueError(f"features must be [{features.length}, d], not {shape}")
        self._vectors[features.digest] = vectors


def compute_features(chunks: Iterable[Chunk]) -> None:
    """Compute what the chunks need and their requests lack; what fails fails its sequences alone.

    Equal digests are computed once, and features with the same `compute_many` in one call.
    """
    wanted: dict[str, list[tuple[Chunk, Features]]] = {}
    for chunk in chunks:
        for features in chunk.line.branch.features:
            needed = features.start < chunk.stop and chunk.start < features.stop
            if needed and features not in chunk.sequence.features:
                wanted.setdefault(features.digest, []).append((chunk, features))
    made = _compute([uses[0][1] for uses in wanted.values()])
    for digest, uses in wanted.items():
        try:
            if isinstance(vectors := made[digest], Exception):
                raise vectors
            for chunk, features in uses:
                chunk.sequence.features.put(features, vectors)
        except Exception as error:
            for chunk, _ in uses:
                if not chunk.sequence.finished:
                    chunk.sequence.fail(error)


def _compute(wanted: Sequence[Features]) -> dict[str, Tensor | Exception]:
    """Vectors by digest, or why there are none."""
    groups: dict[Callable[[Sequence[Any]], Sequence[Tensor]], list[Features]] = {}
    made: dict[str, Tensor | Exception] = {}
    for features in wanted:
        if features.compute_many is None:
            made[features.digest] = _compute_alone(features)
        else:
            groups.setdefault(features.compute_many, []).append(features)
    for compute_many, group in groups.items():
        made |= _compute_together(compute_many, group)
    return made


def _compute_together(
    compute_many: Callable[[Sequence[Any]], Sequence[Tensor]], group: Sequence[Features]
) -> dict[str, Tensor | Exception]:
    """As `_compute`. If the call fails each is computed alone, which shows the one to blame.

    If none is (memory may have been too short for all), no request fails, and a warning tells it.
    """
    if len(group) == 1:
        return {group[0].digest: _compute_alone(group[0])}
    try:
        vectors = compute_many([features.payload for features in group])
        return {f.digest: v for f, v in zip(group, vectors, strict=True)}
    except Exception as error:  # the caller's code
        alone = {features.digest: _compute_alone(features) for features in group}
        if not any(isinstance(vectors, Exception) for vectors in alone.values()):
            message = f"{len(group)} features had to be computed one by one: {error}"
            warnings.warn(message, stacklevel=2)
        return alone


def _compute_alone(features: Features) -> Tensor | Exception:
    try:
        return features.compute()
    except Exception as error:  # the caller's code: only the requests that want it fail
        return error
