"""The checkpoints of a run: folders that any number of ranks can write and read.

FOLDER/step-000250/ holds tensors in safetensors files, written by torch.distributed.checkpoint, and
plain values in state.json. No file is a pickle. A folder is written under another name, synced and
then renamed, so that one that is there is whole.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)

from unitok.checkpoints.folders import read_json
from unitok.terminal import one_line
from unitok.training.ranks import Ranks

NAME = re.compile(r"step-(\d{6,})")
VALUES = "state.json"


class RunCheckpoints:
    """The checkpoints of a run, the last few of which are kept.

    Attributes:
        folder: Where they lie.
        keep: How many are kept.
    """

    def __init__(self, folder: Path, keep: int, ranks: Ranks | None = None) -> None:
        self.folder, self.keep, self.ranks = folder, keep, ranks or Ranks()

    def steps(self) -> list[int]:
        """The updates after which there is a checkpoint, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(m[1]) for path in self.folder.iterdir() if (m := NAME.fullmatch(path.name))
        )

    def path(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / f"step-{step:06d}"

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Write a checkpoint, and then remove the oldest ones.

        Every rank calls it. What is not sharded (no DTensor) is written once, by whoever has it.

        Args:
            step: The number of updates so far.
            tensors: By name.
            values: Plain values, for JSON; those of rank 0 are written.

        Raises:
            OSError: It could not be written, for example because the disk is full. The checkpoints
                that were there stay.
        """
        temporary = self.folder / f".step-{step:06d}.part"
        problem = self._begin(temporary)
        self._agree(problem, step)
        self._agree(self._write(temporary, tensors), step)
        if self.ranks.is_first:
            problem = self._finish(temporary, step, values)
        self._agree(problem, step)

    def _begin(self, temporary: Path) -> str:
        """Make an empty folder; what is wrong, or nothing."""
        if not self.ranks.is_first:
            return ""
        try:
            for left in self.folder.glob(".step-*"):  # by a process that was killed
                shutil.rmtree(left)
            temporary.mkdir(parents=True)
        except OSError as error:
            return one_line(error)
        return ""

    def _write(self, temporary: Path, tensors: Mapping[str, Tensor]) -> str:
        """Write this rank's tensors; what is wrong, or nothing."""
        writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        try:
            with _without_warnings():
                state_dict_saver.save(
                    dict(tensors), storage_writer=writer, no_dist=self.ranks.count == 1
                )
        except CheckpointException as error:
            return _causes(error)
        return ""

    def _finish(self, temporary: Path, step: int, values: Mapping[str, Any]) -> str:
        """Put a whole checkpoint in its place; what is wrong, or nothing."""
        try:
            (temporary / VALUES).write_text(json.dumps(dict(values), indent=1), encoding="utf-8")
            for path in temporary.iterdir():
                _sync(path)
            _sync(temporary)
            if self.path(step).exists():  # of a run that went back and came here again
                self._remove(step)
            temporary.rename(self.path(step))
            _sync(self.folder)
            for old in self.steps()[: -self.keep]:
                self._remove(old)
        except OSError as error:
            return one_line(error)
        return ""

    def _remove(self, step: int) -> None:
        """Take the name first: a folder half removed must not look like a checkpoint."""
        leaving = self.folder / f".step-{step:06d}.old"
        self.path(step).rename(leaving)
        shutil.rmtree(leaving)

    def _agree(self, problem: str, step: int) -> None:
        """Raise OSError on all ranks if one has a problem."""
        problems = [text for text in self.ranks.gather_text(problem) if text]
        if problems:
            kept = self.steps()
            last = f"the last one, {self.path(kept[-1])}, is whole" if kept else "there is none yet"
            raise OSError(f"{self.path(step)} could not be written: {problems[0]}; {last}")

    def values(self, step: int) -> dict[str, Any]:
        """The plain values of a checkpoint.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: The file is broken, or beyond a limit of `bounded_files`.
        """
        return dict(read_json(self.path(step) / VALUES))

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """The names and the shapes of a checkpoint's tensors.

        Raises:
            ValueError: A file is broken.
        """
        try:
            metadata = HuggingFaceStorageReader(str(self.path(step))).read_metadata()
        except Exception as error:  # safetensors has its own
            raise ValueError(f"{self.path(step)} is broken: {error}") from None
        return {name: tuple(stored.size) for name, stored in metadata.state_dict_metadata.items()}  # pyright: ignore[reportAttributeAccessIssue]

    def load(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Read tensors in place, whatever the number of ranks that wrote them.

        Raises:
            ValueError: One is missing, has another shape, or a file is broken.
        """
        reader = HuggingFaceStorageReader(str(self.path(step)))
        try:
            with _without_warnings():
                state_dict_loader.load(
                    dict(tensors), storage_reader=reader, no_dist=self.ranks.count == 1
                )
        except (CheckpointException, RuntimeError) as error:
            why = _causes(error) if isinstance(error, CheckpointException) else error
            raise ValueError(f"{self.path(step)} does not fit, or is broken: {why}") from None


def _causes(error: CheckpointException) -> str:
    """What went wrong on the ranks, for people.

    Raises:
        KeyboardInterrupt: It was Ctrl-C, which torch takes for a failure like others.
    """
    causes = [cause for cause, _ in error.failures.values()]
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        raise KeyboardInterrupt from None
    return "; ".join(dict.fromkeys(map(one_line, causes)))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide that torch takes note of there being one process, as was said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _sync(path: Path) -> None:
    """Have the system write a file or a folder to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
