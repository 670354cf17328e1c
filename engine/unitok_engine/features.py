"""Features are computed when a prefill chunk first needs them, those of one step together."""

from __future__ import annotations

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

    def put(self, features: Features, vectors: Tensor, width: int) -> None:
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
    wanted: dict[str, list[tuple[Chunk, Features]]] = {}
    for chunk in chunks:
        for features in chunk.line.branch.features:
            needed = features.start < chunk.stop and chunk.start < features.stop
            if needed and features not in chunk.sequence.features:
                wanted.setdefault(features.digest, []).append((chunk, features))
    together = _compute_together([uses[0][1] for uses in wanted.values()])
    for digest, uses in wanted.items():
        vectors = together.get(digest)
        for chunk, features in uses:
            sequence = chunk.sequence
            if sequence.finished or features in sequence.features:
                continue
            try:
                vectors = features.compute() if vectors is None else vectors
                sequence.features.put(features, vectors, width)
            except Exception as error:  # it is the caller's code: only its own request fails
                sequence.fail(error)
                vectors = None


def _compute_together(features: Sequence[Features]) -> dict[str, Tensor]:
    """Vectors by digest of all that can be computed together.

    A call that fails gives none: then each is computed alone, and shows which one is to blame.
    """
    groups: dict[Callable[[Sequence[Any]], Sequence[Tensor]], list[Features]] = {}
    for one in features:
        if one.compute_many is not None:
            groups.setdefault(one.compute_many, []).append(one)
    vectors: dict[str, Tensor] = {}
    for compute_many, group in groups.items():
        try:
            made = compute_many([one.payload for one in group])
            vectors |= {one.digest: made[i] for i, one in enumerate(group)}
        except Exception:  # the caller's code: each is computed alone, and its error is told there
            continue
    return vectors
