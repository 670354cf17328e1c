"""Loads models in replicas: sound ones whose processes can be found, and some that fail."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import unitok
from unitok.backends.ray.replica import Runs
from unitok.requests import AnyRequest, Draw
from unitok.results import Result

DEADLY = "a deadly prompt"


def found_by(pids: Path, folder: Path) -> Callable[[], Runs]:
    """Loads a model, and notes the process in a folder."""
    return partial(_found, pids, folder)


def _found(pids: Path, folder: Path) -> Runs:
    model = unitok.load(folder, device="cpu")
    pids.mkdir(exist_ok=True)
    (pids / str(os.getpid())).touch()
    return model


def deadly(folder: Path) -> Callable[[], Runs]:
    """Loads a model whose process dies with one prompt."""
    return partial(Deadly, folder)


class Deadly:
    """A model that kills its process when it is to draw one prompt."""

    def __init__(self, folder: Path) -> None:
        self._model = unitok.load(folder, device="cpu")
        self.name = self._model.name

    def run(self, requests: Iterable[AnyRequest]) -> Iterator[Result]:
        return self._model.run(map(dead_or_alive, requests))


def dead_or_alive(request: AnyRequest) -> AnyRequest:
    if isinstance(request, Draw) and request.prompt == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return request


def dying_at_start(starts: Path) -> Callable[[], Runs]:
    """Ends its process, and notes in a file that it did."""
    return partial(_die, starts)


def _die(starts: Path) -> Runs:
    with starts.open("a") as file:
        file.write("died\n")
    os._exit(1)


def wrong() -> Runs:
    raise ValueError("config.json is damaged")


def in_the_way(place: Path, folder: Path) -> Callable[[], Runs]:
    """Loads a model, and puts a file where a folder is to be."""
    return partial(_in_the_way, place, folder)


def _in_the_way(place: Path, folder: Path) -> Runs:
    place.touch()
    return unitok.load(folder, device="cpu")
