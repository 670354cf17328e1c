"""Computes embeddings when a prefill chunk first needs them, those of one step together."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from unitok_engine.request import Embeddings
from unitok_engine.scheduler import Chunk
from unitok_engine.user_warnings import warn


def compute_embeddings(chunks: Iterable[Chunk], width: int) -> None:
    """Compute what the chunks need and their requests lack.

    What fails, fails the sequences alone that need it. Equal digests are computed once, and those
    with the same `compute_many` in one call. What one request cannot compute, or computes wrongly,
    the next one with that digest tries for itself.

    Args:
        chunks: What is about to run.
        width: Numbers in a vector.
    """
    wanted: dict[str, list[tuple[Chunk, Embeddings]]] = {}
    for chunk in chunks:
        for embeddings in chunk.branch.prompt.embeddings:
            needed = embeddings.start < chunk.stop and chunk.start < embeddings.stop
            if needed and embeddings not in chunk.sequence.embeddings:
                wanted.setdefault(embeddings.digest, []).append((chunk, embeddings))
    made = _compute([uses[0][1] for uses in wanted.values()])
    for digest, uses in wanted.items():
        vectors: Tensor | Exception | None = made[digest]
        for chunk, embeddings in uses:
            sequence = chunk.sequence
            if sequence.finished or embeddings in sequence.embeddings:
                continue
            try:
                # What failed may have been that request's own fault.
                vectors = embeddings.compute() if vectors is None else vectors
                if isinstance(vectors, Exception):
                    raise vectors
                sequence.embeddings.put(embeddings, vectors, width)
            except Exception as error:  # it is the caller's code: only its own request fails
                sequence.fail(error)
                vectors = None


def _compute(wanted: Sequence[Embeddings]) -> dict[str, Tensor | Exception]:
    """The vectors by digest, or why there are none."""
    groups: dict[Callable[[Sequence[Any]], Sequence[Tensor]], list[Embeddings]] = {}
    made: dict[str, Tensor | Exception] = {}
    for embeddings in wanted:
        if embeddings.compute_many is None:
            made[embeddings.digest] = _compute_alone(embeddings)
        else:
            groups.setdefault(embeddings.compute_many, []).append(embeddings)
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
        vectors = compute_many([embeddings.payload for embeddings in group])
        return {f.digest: v for f, v in zip(group, vectors, strict=True)}
    except Exception as error:  # the caller's code
        alone = {embeddings.digest: _compute_alone(embeddings) for embeddings in group}
        if not any(isinstance(vectors, Exception) for vectors in alone.values()):
            warn(f"{len(group)} embeddings had to be computed one by one: {error}")
        return alone


def _compute_alone(embeddings: Embeddings) -> Tensor | Exception:
    try:
        return embeddings.compute()
    except Exception as error:  # the caller's code: only the requests that want it fail
        return error
