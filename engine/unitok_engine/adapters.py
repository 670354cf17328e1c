"""Which rows of a step belong to which adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok_engine.transfer import send


@dataclass(frozen=True, eq=False)
class AdapterRows:
    """The rows of adapters among a step's tokens, or among those whose logits are wanted.

    Rows without an adapter are in none of them.

    Attributes:
        rows: The name of an adapter -> its rows: a slice if they follow on each other, else their
            indices [k] int64.
    """

    rows: Mapping[str, slice | Tensor]

    def to(self, device: torch.device) -> "AdapterRows":
        """The same with the indices on a device; on CUDA the transfer is only queued."""
        sent = {
            name: send(rows, device) if isinstance(rows, Tensor) else rows
            for name, rows in self.rows.items()
        }
        return AdapterRows(sent)


def adapter_rows(names: Sequence[str | None]) -> AdapterRows | None:
    """Find the rows of each adapter.

    Args:
        names: The adapter of each row; None for a row without one.

    Returns:
        The rows; None if no row has an adapter.
    """
    places: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name is not None:
            places.setdefault(name, []).append(row)
    return AdapterRows({name: _rows(mine) for name, mine in places.items()}) if places else None


def _rows(places: list[int]) -> slice | Tensor:
    first, stop = places[0], places[-1] + 1
    return slice(first, stop) if stop - first == len(places) else torch.tensor(places)
