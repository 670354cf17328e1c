"""What is seen of a run: a progress bar, log.jsonl, TensorBoard, a plot. Only rank 0 shows any."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from unitok.extras import need
from unitok.training.curves import plot
from unitok.training.log import TrainingLog

GIGABYTE = 2**30


class RunProgress:
    """Shows and records a run.

    Attributes:
        log: log.jsonl in the run's folder.
    """

    def __init__(self, folder: Path, steps: int, done: int, shown: bool = True) -> None:
        """Open the records.

        Args:
            folder: The run's.
            steps: Updates of the whole run.
            done: How many are made.
            shown: Whether there is a bar on stderr, or a line for each record where stderr is no
                terminal.
        """
        self.folder, self.log, self.shown = folder, TrainingLog(folder / "log.jsonl"), shown
        writer = need("torch.utils.tensorboard", "train").SummaryWriter
        self._board = writer(str(folder / "tensorboard"), purge_step=done + 1)
        self._console = Console(stderr=True)
        live = shown and self._console.is_terminal
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=not live,
        )
        self._task = self._bar.add_task("", total=steps, completed=done, status="")
        self._live, self._began = live, time.monotonic()

    def __enter__(self) -> RunProgress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the records, and draw the plot.

        Raises:
            OSError: One could not be written, unless the run ends with an error already.
        """
        self._bar.stop()
        try:
            self._board.close()
            if self.log.path.is_file():
                plot(self.log, self.folder / "curves.png")
        except OSError:  # of a full disk, which the run's own error tells better
            if kind is None:
                raise

    def advance(self, step: int, status: str) -> None:
        """Show an update."""
        self._bar.update(self._task, completed=step, status=status)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Write values to the log and to TensorBoard."""
        minutes = (time.monotonic() - self._began) / 60
        self.log.append({"step": step, "minutes": round(minutes, 3), **values})
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()
        if not self._live:
            self.say(f"step {step}: {in_words(values)}")

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        if not self.shown:
            return
        if self._live:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def show_picture(self, step: int, path: Path) -> None:
        """Give a picture to TensorBoard."""
        from PIL import Image

        with Image.open(path) as image:
            pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
            shape = (image.height, image.width, 3)
        self._board.add_image("samples", pixels.view(shape), step, dataformats="HWC")

    def show_text(self, step: int, path: Path) -> None:
        """Give captions to TensorBoard."""
        self._board.add_text("captions", path.read_text(encoding="utf-8"), step)


def in_words(values: Mapping[str, Any]) -> str:
    """Values by name, as a line for people."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items() if value
    )


def memory_in_use(device: torch.device) -> float:
    """The most gigabytes that the run has held: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIGABYTE
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIGABYTE
