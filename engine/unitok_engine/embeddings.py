"""Embeddings are computed when a prefill chunk first needs them, those of one step together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unitok_engine.request import Embeddings

if TYPE_CHECKING:
    from unitok_engine.scheduler import Chunk


class FeatureStore:
    """The features of one request, by digest, kept until it ends."""

    def __init__(self) -> None:
        self._vectors: dict[str, Tensor] = {}

    def __contains__(self, features: Embeddings) -> bool:
        return features.digest in self._vectors

    def get(self, features: Embeddings) -> Tensor:
        """[length, d]; KeyError if they were not put here."""
        return self._vectors[features.digest]

    def put(self, features: Embeddings, vectors: Tensor, width: int) -> None:
        """ValueError for vectors of another shape than [length, width]."""
        if vectors.shape != (features.length, width):
            wanted, shape = f"[{features.length}, d] with d = {width}", list(vectors.shape)
            raise ValueError(f"features must be {wanted}, not {shape}")
        self._vectors[features.digest] = vectors


def compute_features(chunks: Iterable[Chunk], width: int) -> None:
    """Compute what the chunks need and their requests lack; what fails fails its sequences alone.

    Equal digests are computed once, and features with the same `compute_many` in one call. What one
    request cannot compute, or computes wrongly, the next one with that digest tries for itself.
    width: of a vector.
    """
    wanted: dict[str, list[tuple[Chunk, Embeddings]]] = {}
    for chunk in chunks:
        for features in chunk.branch.prompt.embeddings:
            needed = features.start < chunk.stop and chunk.start < features.stop
            if needed and features not in chunk.sequence.features:
                wanted.setdefault(features.digest, []).append((chunk, features))
    made = _compute([uses[0][1] for uses in wanted.values()])
    for digest, uses in wanted.items():
        vectors: Tensor | Exception | None = made[digest]
        for chunk, features in uses:
            sequence = chunk.sequence
            if sequence.finished or features in sequence.features:
                continue
            try:
                # What failed may have been that request's own fault.
                vectors = features.compute() if vectors is None else vectors
                if isinstance(vectors, Exception):
                    raise vectors
                sequence.features.put(features, vectors, width)
            except Exception as error:  # it is the caller's code: only its own request fails
                sequence.fail(error)
                vectors = None


def _compute(wanted: Sequence[Embeddings]) -> dict[str, Tensor | Exception]:
    """Embeddings by digest, or why there are none."""
    groups: dict[Callable[[Sequence[Any]], Sequence[Tensor]], list[Embeddings]] = {}
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
    compute_many: Callable[[Sequence[Any]], Sequence[Tensor]], group: Sequence[Embeddings]
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


def _compute_alone(features: Embeddings) -> Tensor | Exception:
    try:
        return features.compute()
    except Exception as error:  # the caller's code: only the requests that want it fail
        return error
