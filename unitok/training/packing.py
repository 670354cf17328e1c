"""Samples of token ids and pictures, and how several of them become the rows of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

Picture = TypeVar("Picture")


@dataclass
class Sample(Generic[Picture]):
    """One sequence to learn. A picture is whatever the recipe's data set calls one.

    Attributes:
        ids: Token ids. Placeholders stand where pictures will be.
        target: For each id, whether it is to be predicted from those before it.
        input_pictures: (start, picture) of each picture whose embeddings stand at start.
        target_pictures: (start, picture) of each picture whose image tokens stand at start.
    """

    ids: list[int]
    target: list[bool]
    input_pictures: list[tuple[int, Picture]] = field(default_factory=list)
    target_pictures: list[tuple[int, Picture]] = field(default_factory=list)


@dataclass(frozen=True)
class PackedRows(Generic[Picture]):
    """Samples as tensors, one sample a row, padded on the right.

    Attributes:
        ids: Token ids [B, L].
        target: Whether each id is to be predicted, [B, L].
        input_at: (row, start) of each input picture, [R, 2].
        target_at: (row, start) of each target picture, [D, 2].
        input_pictures: The R pictures of `input_at`.
        target_pictures: The D pictures of `target_at`.
    """

    ids: Tensor
    target: Tensor
    input_at: Tensor
    target_at: Tensor
    input_pictures: list[Picture]
    target_pictures: list[Picture]


def pack(samples: Sequence[Sample[Picture]], pad: int) -> PackedRows[Picture]:
    """Pad samples on the right, with the id `pad`, to the length of the longest."""
    length = max(len(s.ids) for s in samples)
    ids = torch.tensor([s.ids + [pad] * (length - len(s.ids)) for s in samples])
    target = torch.tensor([s.target + [False] * (length - len(s.target)) for s in samples])
    input_at, inputs = _located([s.input_pictures for s in samples])
    target_at, targets = _located([s.target_pictures for s in samples])
    return PackedRows(ids, target, input_at, target_at, inputs, targets)


def _located(rows: list[list[tuple[int, Picture]]]) -> tuple[Tensor, list[Picture]]:
    """(row, start) of all pictures as a tensor [K, 2], and the pictures."""
    found = [(row, start, picture) for row, pairs in enumerate(rows) for start, picture in pairs]
    at = torch.tensor([(row, start) for row, start, _ in found]).reshape(-1, 2)
    return at, [picture for _, _, picture in found]


def fill(rows: Tensor, at: Tensor, values: Tensor) -> None:
    """Write values [K, n, ...] into rows [B, L, ...] at (row, start) pairs [K, 2]."""
    columns = at[:, 1:] + torch.arange(values.shape[1], device=rows.device)
    rows[at[:, :1], columns] = values.to(rows.dtype)
