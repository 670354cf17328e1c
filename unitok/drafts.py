"""Whether a model drafts its pictures, and the file in which it keeps what it learned for that.

Drafts change no token, whatever the file says: at worst, guesses are wrong and save nothing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from unitok.checkpoints.fingerprint import fingerprint_of
from unitok.checkpoints.folders import first_line
from unitok.nn.linear import LinearReplacement
from unitok.nn.model import UnifiedModel
from unitok.saving import make_folder, write_whole
from unitok.shown import shown
from unitok_engine import DraftTable, DraftWidth, GridDrafter

logger = logging.getLogger(__name__)

CACHE = "UNITOK_CACHE"
SHIPPED = Path(__file__).parent / "assets" / "drafts"  # of models whose pictures are known already
FREE_ROWS = 15.0  # see DraftWidth: of a large model on a CPU
FREE_ROWS_SMALL = 40.0  # of a model that is small enough to draft by default
FREE_ROWS_CUDA = 128.0  # an estimate
COLUMNS = 3  # a pair of neighbours, the token between them, its votes
MOST_BYTES = 4 * 2**20  # of a file

Drafts = bool | Literal["auto"]


class KeptTable:
    """A draft table, and the file that keeps it from one process to the next.

    Attributes:
        path: The file; it need not exist.
        table: What was in the files, and what is learned from now on.
    """

    def __init__(self, path: Path, start: Path | None = None) -> None:
        """Read the files. One that cannot be read is logged, and learned anew.

        Args:
            path: The file, which is replaced when the table is saved.
            start: A file of what is known before anything is learned; it need not exist either.
        """
        self.path = path
        self.table = DraftTable()
        for known in (start, path):  # what was learned last counts
            if known is not None:
                self._restore(known)

    @classmethod
    def of(cls, model: UnifiedModel) -> KeptTable:
        """The table of a model without an adapter beside its weights."""
        file = f"{name_of(model)}.safetensors"
        return cls(cache_folder() / "drafts" / file, SHIPPED / file)

    def _restore(self, path: Path) -> None:
        try:
            self.table.restore(read_entries(path))
        except FileNotFoundError:
            logger.info("there is no table of what this model mostly paints at %s", path)
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read and is learned anew: %s", path, first_line(error))

    def save(self) -> None:
        """Write the file, if something was learned. Where it cannot be written, that is logged."""
        if self.table.learned == 0:
            return
        try:
            write_table(self.table, self.path)
        except OSError as error:
            logger.info("what was learned of pictures is not kept: %s", first_line(error))


def drafter_of(model: UnifiedModel, table: DraftTable) -> GridDrafter:
    """Who drafts the pictures of a prepared model with what is known of them."""
    on_cpu = FREE_ROWS_SMALL if rounds_alike(model) else FREE_ROWS
    free_rows = on_cpu if model.device.type == "cpu" else FREE_ROWS_CUDA
    return GridDrafter(table, DraftWidth(free_rows))


def cache_folder() -> Path:
    """Where unitok keeps what it can do without: $UNITOK_CACHE, else ~/.cache/unitok."""
    given = os.environ.get(CACHE)
    path = given or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "unitok")
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no home: it is kept for as long as the machine runs
        return Path(tempfile.gettempdir()) / "unitok"


def name_of(model: UnifiedModel) -> str:
    """A name for a model's weights, the same whenever they are loaded, and in whatever type."""
    found = fingerprint_of(model)
    rounded = {name: torch.tensor(part).bfloat16().tolist() for name, part in found.weights.items()}
    fingerprint = dataclasses.asdict(dataclasses.replace(found, weights=rounded))
    return sha256(json.dumps(fingerprint, sort_keys=True, default=str).encode()).hexdigest()[:32]


def write_table(table: DraftTable, path: Path) -> None:
    """Write a file that `KeptTable` reads; OSError where that cannot be done."""
    entries = torch.tensor(table.entries(), dtype=torch.int64, device="cpu")
    make_folder(path.parent)
    write_whole(save({"entries": entries}), path)


def read_entries(path: Path) -> list[tuple[int, int, int]]:
    """What a file knows, as `DraftTable.restore` takes it.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: It is too large, or no file of a draft table.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
    try:
        entries = load(data).get("entries")
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(first_line(error)) from None
    if entries is None or not _is_table(entries):
        raise ValueError("it holds no table of three columns of whole numbers, 0 or more")
    return [(key, id, votes) for key, id, votes in entries.tolist()]


def _is_table(entries: Tensor) -> bool:
    """Whether a tensor is what `write_table` writes."""
    if entries.dtype != torch.int64 or entries.ndim != 2:
        return False
    return entries.shape[1] == COLUMNS and bool((entries >= 0).all())


def check_drafts(asked: object) -> None:
    """Check what was asked of drafts.

    Raises:
        ValueError: It is neither True, False nor "auto".
    """
    if not isinstance(asked, bool) and not (isinstance(asked, str) and asked == "auto"):
        raise ValueError(f"drafts must be True, False or 'auto', not {shown(asked)}")


def decide_drafts(asked: Drafts, model: UnifiedModel) -> bool:
    """Decide whether a prepared model drafts: as asked or, if that is "auto", where it is exact."""
    return asked if isinstance(asked, bool) else rounds_alike(model)


def rounds_alike(model: UnifiedModel) -> bool:
    """Whether a row of a step gets the same bits however many rows there are, from two rows up.

    That holds for float32 on a CPU where all linear layers do, such as those that are packed at
    their first call.
    """
    if model.device.type != "cpu" or model.dtype is not torch.float32:
        return False
    if model.decoder.compiled is not None or model.image_head is None:
        return False
    modules = [*model.decoder.modules(), *model.image_head.modules()]
    return all(
        module.rounds_alike
        if isinstance(module, LinearReplacement)
        else not isinstance(module, nn.Linear)
        for module in modules
    )
