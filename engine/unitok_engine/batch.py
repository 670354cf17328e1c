"""One step's work as flat tensors: ids, positions, slots and block tables."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok_engine.request import IdRange
from unitok_engine.scheduler import Chunk
from unitok_engine.sequence import Sequence


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Vectors [m, d] that replace the embeddings of the flat rows from `start` on."""

    start: int
    vectors: Tensor


@dataclass(frozen=True, eq=False)
class LogitsGroup:
    """Sequences whose next id comes from one range.

    rows: [m] int64, the flat row of each line's last id, sequence by sequence, line by line.
    """

    id_range: IdRange
    rows: Tensor
    sequences: tuple[Sequence, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """A step over r rows (runs of pending ids) of n ids in all, rows ordered by their length.

    ids, positions, slots: [n] int64; an id's K/V goes to its slot, block * block_size + offset.
    query_lengths, context_lengths, block_tables: one per row; a context includes the run itself.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    block_tables: tuple[Seq[int], ...]
    features: tuple[FeatureRows, ...]
    groups: tuple[LogitsGroup, ...]


def build_batch(chunks: Seq[Chunk], block_size: int, device: torch.device) -> Batch:
    """Lay the chunks out by length, so that attention takes equal runs as one slice."""
    chunks = sorted(chunks, key=lambda chunk: chunk.length)
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    features: list[FeatureRows] = []
    last_rows: dict[int, int] = {}  # id of the line -> flat row of its last id
    for chunk in chunks:
        features += _feature_rows(chunk, len(ids))
        first = chunk.line.branch.first_position
        blocks = chunk.line.blocks
        ids += chunk.sequence.ids(chunk.line, chunk.start, chunk.stop)
        positions += range(first + chunk.start, first + chunk.stop)
        slots += [
            blocks[i // block_size] * block_size + i % block_size
            for i in range(chunk.start, chunk.stop)
        ]
        if chunk.stop == chunk.sequence.length(chunk.line):
            last_rows[id(chunk.line)] = len(ids) - 1
    flat = torch.tensor([ids, positions, slots], dtype=torch.int64).to(device)
    return Batch(
        ids=flat[0],
        positions=flat[1],
        slots=flat[2],
        query_lengths=tuple(chunk.length for chunk in chunks),
        context_lengths=tuple(chunk.stop for chunk in chunks),
        block_tables=tuple(chunk.line.blocks for chunk in chunks),
        features=tuple(features),
        groups=_logits_groups(chunks, last_rows, device),
    )


def _feature_rows(chunk: Chunk, row: int) -> list[FeatureRows]:
    rows = []
    for features in chunk.line.branch.features:
        start, stop = max(chunk.start, features.start), min(chunk.stop, features.stop)
        if start < stop:
            vectors = chunk.sequence.features.get(features)
            vectors = vectors[start - features.start : stop - features.start]
            rows.append(FeatureRows(row + start - chunk.start, vectors))
    return rows


def _logits_groups(
    chunks: Seq[Chunk], last_rows: dict[int, int], device: torch.device
) -> tuple[LogitsGroup, ...]:
    """Group the sequences all of whose lines are complete by the range of their next id."""
    ready: dict[IdRange, list[Sequence]] = {}
    for sequence in dict.fromkeys(chunk.sequence for chunk in chunks):
        if sequence.allow and all(id(line) in last_rows for line in sequence.lines):
            ready.setdefault(sequence.allow.id_range, []).append(sequence)
    groups = []
    for id_range, sequences in ready.items():
        rows = [last_rows[id(line)] for sequence in sequences for line in sequence.lines]
        groups.append(LogitsGroup(id_range, torch.tensor(rows, device=device), tuple(sequences)))
    return tuple(groups)
