"""Runs inputs in a process of its own, so that a hang or a crash is seen from outside."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.guard import Guard, forget_peak, limit_memory, memory_peak
from tests.fuzz.target import DOCUMENTED, Target, check_message

START_SECONDS = 300  # to import torch and to make the tiny models
CASE_SECONDS = 30  # for an input; other programs may use the processor too
MEMORY = 6 * 2**30  # bytes of address space beside what is there at the start
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Verdict:
    """What came of an input.

    Attributes:
        problem: What was wrong; "" if nothing was.
        accepted: Whether the input was taken, not refused.
        seconds: How long it took.
        memory: Bytes by which the process had grown at the peak.
    """

    problem: str
    accepted: bool = False
    seconds: float = 0.0
    memory: int = 0

    @property
    def kind(self) -> str:
        """The problem without what differs from input to input: the beginning, and the place."""
        return self.problem.split(": ")[0] + self.problem.rpartition("\nat ")[2]


# --- outside -------------------------------------------------------------------------------------


class Worker:
    """A process that runs inputs. After a hang or a crash a new one takes its place.

    Attributes:
        targets: The names of the targets.
    """

    def __init__(
        self, module: str, folder: Path, seed: int, case_seconds: float = CASE_SECONDS
    ) -> None:
        """Start the process.

        Args:
            module: The name of a module with a function `make_targets`, which takes a folder.
            folder: Where the process may write.
            seed: What the random inputs are made of.
            case_seconds: The most seconds of an input.
        """
        self._start, self._case_seconds = (module, folder, seed), case_seconds
        self._begin()

    def random_case(self, name: str, index: int) -> bytes:
        """A target's random input of that index."""
        self._connection.send((name, index, None))
        return self._receive(self._case_seconds)

    def judge(self, name: str, case: bytes) -> Verdict:
        """Run an input."""
        try:
            self._connection.send((name, None, case))
            return self._receive(self._case_seconds)
        except TimeoutError:
            problem = f"hang: it takes longer than {self._case_seconds:g} seconds"
        except (EOFError, OSError):
            self._process.join()
            problem = f"crash: the process ends with code {self._process.exitcode}"
        self.close()
        self._begin()
        return Verdict(problem)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *self._start), daemon=True)
        self._process.start()
        theirs.close()
        self.targets: list[str] = self._receive(START_SECONDS)

    def _receive(self, seconds: float) -> Any:
        if not self._connection.poll(seconds):
            raise TimeoutError
        return self._connection.recv()


# --- inside --------------------------------------------------------------------------------------


def work(connection: Connection, module: str, folder: Path, seed: int) -> None:
    """What the process does: it makes inputs and runs them, as it is told."""
    own = {"HF_HUB_OFFLINE": "1", "HOME": str(folder), "UNITOK_CACHE": str(folder / "cache")}
    os.environ |= own
    place = folder / str(os.getpid())
    place.mkdir(parents=True)
    targets: Mapping[str, Target] = import_module(module).make_targets(place)
    guard = Guard(folder)
    limit_memory(MEMORY)
    connection.send(list(targets))
    while True:
        name, index, case = connection.recv()
        if case is None:
            connection.send(targets[name].make(Random(f"{seed}-{name}-{index}")))
        else:
            connection.send(judge(targets[name], case, guard))


@contextmanager
def silence() -> Iterator[None]:
    """Drop what the process prints: libraries in C complain about damaged pictures at length."""
    kept = [os.dup(stream) for stream in (1, 2)]
    with open(os.devnull, "w") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)
    try:
        yield
    finally:
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream)
            os.close(before)


def judge(target: Target, case: bytes, guard: Guard) -> Verdict:
    """Run an input, and judge what it does."""
    before, began = forget_peak(), time.monotonic()
    with silence(), guard.on():
        problem, accepted = outcome(target, case)
    seconds = time.monotonic() - began
    grown = memory_peak() - before
    forbidden = [deed for deed in guard.seen if deed.partition(":")[0] not in target.permits]
    if forbidden:
        problem = f"it makes the program {forbidden[0]}"
    elif grown > target.memory and not problem:
        problem = f"memory: it takes {grown / 2**20:.0f} MB"
    return Verdict(problem, accepted, seconds, grown)


def outcome(target: Target, case: bytes) -> tuple[str, bool]:
    """What is wrong with what an input does, "" if nothing is; and whether it was accepted."""
    try:
        target.run(case)
    except DOCUMENTED as error:
        try:
            check_message(str(error), target.names(case))
        except AssertionError as wrong:
            return f"{type(error).__name__}, but {wrong}\nat {place_of(error)}", False
        return "", False
    except AssertionError as wrong:
        return f"{wrong}\nat {place_of(wrong)}", True
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}\nat {place_of(error)}", False
    return "", True


def place_of(error: BaseException) -> str:
    """The line of our own code where an error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f for f in frames if f.filename.startswith(str(ROOT)) and "site-packages" not in f.filename
    ]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
