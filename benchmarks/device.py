"""Measuring on a device: sizes, waiting for it, and going on when something fails."""

import dataclasses
import gc
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping

import torch

from benchmarks.measure import MemoryReader, paired
from benchmarks.models import TOY, random_model
from benchmarks.report import Result
from unitok.nn.config import DecoderConfig
from unitok.nn.model import UnifiedModel


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured: full size, or a rehearsal.

    Attributes:
        counts: Drawings at once.
        context: Tokens of a sequence in the middle of a drawing.
        prompt: Tokens of a drawing's prompt.
        tokens: Image tokens of a drawing.
        question: Tokens of a picture to read and of words about it.
        rounds: How often a step is timed.
        codebook: How many image tokens there are.
        read: Bytes that are read to measure the bandwidth of the memory.
    """

    counts: tuple[int, ...] = (1, 16, 64)
    context: int = 304
    prompt: int = 16
    tokens: int = 576
    question: int = 608
    rounds: int = 20
    codebook: int = 16384
    read: int = 2**32


SMALL = Sizes((1, 2), context=40, tokens=6, question=48, rounds=2, codebook=64, read=2**22)


@dataclasses.dataclass(frozen=True)
class DeviceBench:
    """A device, the sizes to measure at, and what failed so far.

    Attributes:
        device: Where everything runs.
        rehearse: Whether sizes are those of toys.
        failures: The names of what failed.
    """

    device: torch.device
    rehearse: bool = False
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def sizes(self) -> Sizes:
        """Full sizes, or those of a rehearsal."""
        return SMALL if self.rehearse else Sizes()

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def attempt(self, name: str, results: Iterator[Result]) -> Iterator[Result]:
        """The results of a part; if it fails, say so, note its name, and go on without it."""
        try:
            yield from results
        except Exception as error:  # one part that fails must not cost the others
            traceback.print_exc()
            print(f"{name} failed ({type(error).__name__}); going on", file=sys.stderr, flush=True)
            self.failures.append(name)
        gc.collect()  # models of this part leave room for the next
        if self.is_cuda:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Wait until the device has nothing more to do."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def finished(self, run: Callable[[], object]) -> Callable[[], None]:
        """A function that calls `run`, and then waits for the device."""

        def timed() -> None:
            run()
            self.wait()

        return timed

    def median(
        self, contenders: Mapping[str, Callable[[], object]], rounds: int
    ) -> dict[str, float]:
        """Median seconds of contenders, side by side.

        The first rounds compile and record, and do not count.
        """
        runs = {name: self.finished(run) for name, run in contenders.items()}
        seconds = paired(runs, rounds, warm_up=3)
        return {name: statistics.median(times) for name, times in seconds.items()}

    def bandwidth(self) -> float:
        """Bytes per second that the device reads, the best of ten."""
        with self.device:
            reader = MemoryReader(self.sizes.read)
        return reader.bandwidth(paired({"read": self.finished(reader)}, 10)["read"])

    def model(self, decoder: DecoderConfig) -> UnifiedModel:
        """A random bf16 model on the device."""
        with self.device:
            model = random_model(
                TOY if self.rehearse else decoder, self.sizes.codebook, torch.bfloat16
            )
        return model.to(self.device)  # its table of positions is made on the host
