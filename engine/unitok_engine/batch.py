"""One step's work as flat tensors, and its rows as attention needs them."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unitok_engine.adapters import AdapterRows, adapter_rows
from unitok_engine.attention.base import AttentionMetadata
from unitok_engine.ids import IdRange
from unitok_engine.scheduler import Chunk
from unitok_engine.sequence import BranchState, Sequence, Target
from unitok_engine.transfer import send


@dataclass(frozen=True, eq=False)
class EmbeddingRows:
    """Vectors that replace the embeddings of flat rows.

    Attributes:
        start: The first of the rows.
        vectors: [m, d].
    """

    start: int
    vectors: Tensor


@dataclass(frozen=True, eq=False)
class LogitsGroup:
    """Tokens that are sampled from one range.

    Attributes:
        id_range: The range.
        rows: [m] int64, the flat rows whose logits are wanted: token by token, branch by branch.
        targets: The tokens: whose, and where.
        adapters: Which of the m rows belong to adapters; None if none does.
    """

    id_range: IdRange
    rows: Tensor
    targets: tuple[tuple[Sequence, Target], ...]
    adapters: AdapterRows | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """A step over r rows (runs of pending ids) of n ids in all, rows ordered by their length.

    It is made on the host; `to` a device, the flat tensors go.
    ids, positions: [n] int64. attention: the rows, and the slots of the n ids. decodes: whether no
    row is part of a prompt. adapters: which of the n ids belong to adapters; None if none does.
    """

    ids: Tensor
    positions: Tensor
    attention: AttentionMetadata
    embeddings: tuple[EmbeddingRows, ...]
    groups: tuple[LogitsGroup, ...]
    decodes: bool
    adapters: AdapterRows | None = None

    @property
    def can_be_recorded(self) -> bool:
        """Whether rows decode or are single tokens, and none has embeddings or an adapter."""
        decodes = self.decodes or self.attention.query_lengths[-1] == 1
        return decodes and not self.embeddings and self.adapters is None

    def to(self, device: torch.device) -> "Batch":
        """The batch with its flat tensors on a device; on CUDA the transfer is only queued."""
        if self.ids.device == device:
            return self
        ids, positions = send(self.ids, device), send(self.positions, device)
        attention, adapters = self.attention.to(device), self.adapters
        return replace(
            self,
            ids=ids,
            positions=positions,
            attention=attention,
            adapters=adapters and adapters.to(device),
        )


@dataclass(frozen=True, eq=False)
class DecodesAhead:
    """The next step if every branch goes on by one id, laid out before these ids are known.

    positions, attention: as of a `Batch`, with the branches' blocks at that time.
    """

    chunks: tuple[Chunk, ...]
    positions: Tensor
    attention: AttentionMetadata

    def are(self, chunks: Seq[Chunk]) -> bool:
        """Whether these chunks were foreseen, and no branch was given other blocks since."""
        return len(chunks) == len(self.chunks) and all(
            chunk == foreseen and chunk.branch.blocks is table
            for chunk, foreseen, table in zip(
                chunks, self.chunks, self.attention.block_tables, strict=True
            )
        )

    def batch(self) -> Batch:
        """With the ids, which are there by now."""
        chunks = self.chunks
        return Batch(
            ids=torch.tensor([chunk.sequence.emitted[-1] for chunk in chunks]),
            positions=self.positions,
            attention=self.attention,
            embeddings=(),
            groups=_logits_groups(chunks, {chunk.branch: row for row, chunk in enumerate(chunks)}),
            decodes=True,
            adapters=_adapter_rows(chunks),
        )


def lay_out_ahead(chunks: Seq[Chunk], block_size: int) -> DecodesAhead | None:
    """What follows on chunks that were all decodes; None if a branch needs another block first."""
    following = tuple([Chunk(c.sequence, c.branch, c.stop, c.stop + 1) for c in chunks])
    decodes = all(c.length == 1 and c.stop == c.sequence.length(c.branch) for c in chunks)
    if not decodes or any(
        len(chunk.branch.blocks) * block_size < chunk.stop for chunk in following
    ):
        return None
    positions = [chunk.branch.prompt.first_position + chunk.start for chunk in following]
    slots = [
        chunk.branch.blocks[chunk.start // block_size] * block_size + chunk.start % block_size
        for chunk in following
    ]
    metadata = _attention_metadata(following, torch.tensor(slots))
    return DecodesAhead(following, torch.tensor(positions), metadata)


def build_batch(chunks: Seq[Chunk], block_size: int, ahead: DecodesAhead | None = None) -> Batch:
    """Lay the chunks out by length, so that attention takes equal runs as one slice.

    ahead: that of the step before, to be taken if it came to that.
    """
    if ahead is not None and ahead.are(chunks):
        return ahead.batch()
    # Rows of one adapter follow on each other, so that they are one slice more often.
    chunks = sorted(chunks, key=lambda c: (c.stop - c.start, c.sequence.adapter or ""))
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    embeddings: list[EmbeddingRows] = []
    last_rows: dict[BranchState, int] = {}  # the flat row of a branch's last token, drafts apart
    for sequence, branch, start, stop in chunks:
        if branch.prompt.embeddings:
            embeddings += _embedding_rows(sequence, branch, start, stop, len(ids))
        first, blocks = branch.prompt.first_position, branch.blocks
        ids += sequence.ids(branch, start, stop)
        for index in range(start, stop):
            positions.append(first + index)
            slots.append(blocks[index // block_size] * block_size + index % block_size)
        if (drafts := stop - sequence.length(branch)) >= 0:
            last_rows[branch] = len(ids) - 1 - drafts
    flat = torch.tensor([ids, positions, slots], dtype=torch.int64)
    return Batch(
        ids=flat[0],
        positions=flat[1],
        attention=_attention_metadata(chunks, flat[2]),
        embeddings=tuple(embeddings),
        groups=_logits_groups(chunks, last_rows),
        decodes=all(c.sequence.decoding and not c.sequence.request.given for c in chunks),
        adapters=_adapter_rows(chunks),
    )


def _attention_metadata(chunks: Seq[Chunk], slot_mapping: Tensor) -> AttentionMetadata:
    return AttentionMetadata(
        slot_mapping=slot_mapping,
        query_lengths=tuple([chunk.length for chunk in chunks]),
        context_lengths=tuple([chunk.stop for chunk in chunks]),
        block_tables=tuple([chunk.branch.blocks for chunk in chunks]),
    )


def _adapter_rows(chunks: Seq[Chunk]) -> AdapterRows | None:
    if all(chunk.sequence.adapter is None for chunk in chunks):
        return None
    names: list[str | None] = []
    for chunk in chunks:
        names += [chunk.sequence.adapter] * chunk.length
    return adapter_rows(names)


def _embedding_rows(
    sequence: Sequence, branch: BranchState, start: int, stop: int, row: int
) -> list[EmbeddingRows]:
    """Those among the branch's embeddings that lie in [start, stop), which begins at a flat row."""
    rows = []
    for embeddings in branch.prompt.embeddings:
        first, last = max(start, embeddings.start), min(stop, embeddings.stop)
        if first < last:
            vectors = sequence.embeddings.get(embeddings)[
                first - embeddings.start : last - embeddings.start
            ]
            rows.append(EmbeddingRows(row + first - start, vectors))
    return rows


def _logits_groups(
    chunks: Seq[Chunk], last_rows: dict[BranchState, int]
) -> tuple[LogitsGroup, ...]:
    """Group what is sampled, of the sequences all of whose branches are complete, by its range."""
    groups: dict[IdRange, tuple[list[int], list[tuple[Sequence, Target]]]] = {}
    for sequence in dict.fromkeys(chunk.sequence for chunk in chunks):
        last = [last_rows[branch] for branch in sequence.branches if branch in last_rows]
        if len(last) < len(sequence.branches):
            continue
        for target in sequence.targets:
            rows, targets = groups.setdefault(target.allow.id_range, ([], []))
            rows += [row + target.offset for row in last] if target.offset else last
            targets.append((sequence, target))
    return tuple(
        LogitsGroup(id_range, torch.tensor(rows), tuple(targets), _target_rows(targets))
        for id_range, (rows, targets) in groups.items()
    )


def _target_rows(targets: Seq[tuple[Sequence, Target]]) -> AdapterRows | None:
    if all(sequence.adapter is None for sequence, _ in targets):
        return None
    return adapter_rows([s.adapter for s, _ in targets for _ in s.branches])
