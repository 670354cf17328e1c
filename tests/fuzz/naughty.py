"""A target that does whatever its input says, to try the fuzzer itself on."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.fuzz.target import Target


def refuse(error: Exception) -> Callable[[Path], None]:
    """What raises an error."""

    def do(_: Path) -> None:
        raise error

    return do


def start_a_process(_: Path) -> None:
    """Start a process, and hide that it did not work."""
    with suppress(OSError):
        subprocess.run(["true"])


def use_the_network(_: Path) -> None:
    """Look for a host, and hide that it did not work."""
    with suppress(OSError):
        socket.create_connection(("localhost", 9))


def write_outside(folder: Path) -> None:
    """Write a file beside the folder, and hide that it did not work."""
    with suppress(OSError):
        (folder.parents[1] / "outside.txt").write_text("x")


def write_inside(folder: Path) -> None:
    """Write a file in the folder."""
    (folder / "inside.txt").write_text("x")


def check_wrongly(_: Path) -> None:
    """Take an input, but give a wrong result."""
    raise AssertionError("two is one")


DEEDS: dict[str, Callable[[Path], object]] = {
    "take": lambda _: None,
    "refuse": refuse(ValueError("the thing is wrong")),
    "name nothing": refuse(ValueError("it is wrong")),
    "say nothing": refuse(OSError()),
    "say much": refuse(ValueError("the thing " * 1000)),
    "be python": refuse(TypeError("the thing: 'NoneType' object is not subscriptable")),
    "be undocumented": refuse(KeyError("the thing")),
    "be wrong": check_wrongly,
    "start a process": start_a_process,
    "use the network": use_the_network,
    "write outside": write_outside,
    "write inside": write_inside,
    "take memory": lambda _: b"x" * (60 * 2**20),
    "hang": lambda _: time.sleep(600),
    "crash": lambda _: os._exit(3),
}


class Naughty:
    """Does what its input says."""

    memory = 30 * 2**20
    permits: Collection[str] = ()

    def __init__(self, folder: Path) -> None:
        """Do it in a folder."""
        self.folder = folder

    def make(self, random: Random) -> bytes:
        """Any deed."""
        return random.choice(list(DEEDS)).encode()

    def run(self, case: bytes) -> None:
        """Do it."""
        DEEDS[case.decode()](self.folder)

    def names(self, case: bytes) -> Sequence[str]:
        """What a refusal must name."""
        return ("thing",)


def make_targets(folder: Path) -> Mapping[str, Target]:
    """The one target."""
    return {"naughty": Naughty(folder)}
