"""The folder of `unitok serve --state FOLDER`: files, batches, and the batches that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from unitok.results import Result
from unitok.saving import make_folder
from unitok.server.served import Served, ServedModels
from unitok.server.settings import ServerSettings
from unitok.server.state.batch_store import BatchStore
from unitok.server.state.file_store import FileStore
from unitok.server.state.queue import BatchQueue
from unitok.server.state.work import Workplace

try:
    import fcntl
except ImportError:  # not a Unix: nothing then keeps two servers from using one folder
    fcntl = None


class State:
    """What a server keeps on disk. Leaving the `with` statement waits for its batches to stop.

    Attributes:
        files: The files.
        batches: What is known of batches.
        stopping: Whether the server is about to end. Batches go on when the next one starts.
    """

    def __init__(
        self,
        folder: Path,
        settings: ServerSettings,
        identities: Mapping[str, Callable[[], str]],
    ) -> None:
        """Open a folder, and lock it.

        Args:
            folder: The folder. It is made, for its owner alone, if it is not there.
            settings: The limits.
            identities: What gives a model's identity, by the model's name; see
                `unitok.batch.keys.model_identity`. It is asked when a batch first needs it.

        Raises:
            OSError: The folder cannot be read or written.
            ValueError: Another server uses it, or something in it is damaged.
        """
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
        make_folder(folder)
        self._settings, self._identities = settings, identities
        self._lock = (folder / "lock").open("ab")
        try:
            lock(self._lock.fileno(), folder)
            self.batches = BatchStore(folder / "batches", settings.max_batches)
            self.files = FileStore(folder / "files", settings, self.batches.inputs)
        except BaseException:
            self._lock.close()
            raise
        self.stopping = False
        self._queue: BatchQueue | None = None

    def __enter__(self) -> State:
        """The state itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the batches, wait for that, and unlock the folder."""
        self.stopping = True
        if self._queue is not None:
            self._queue.join()
        self._lock.close()

    def start(self, models: ServedModels, note: Callable[[str, Result], None]) -> None:
        """Run batches by these models, first those that are left from an earlier server.

        Args:
            models: The models.
            note: Counts a result of a model, by the model's name.
        """
        name_of = cache(lambda name: self._identities[name]())
        identity_of: Callable[[Served], str] = lambda served: name_of(served.model.name)  # noqa: E731
        stops = lambda: self.stopping  # noqa: E731
        place = Workplace(
            self.batches, self.files, self._settings, models, identity_of, stops, note
        )
        self._queue = BatchQueue(place)

    @property
    def queue(self) -> BatchQueue:
        """Which batch runs when. `start` comes first."""
        assert self._queue is not None
        return self._queue

    @property
    def idle(self) -> bool:
        """Whether no batch is being run."""
        return self._queue is None or self._queue.idle


def lock(descriptor: int, folder: Path) -> None:
    """Lock a folder as long as a file of it is open.

    Raises:
        ValueError: Another server has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another server uses {folder}: give each its own --state") from None
