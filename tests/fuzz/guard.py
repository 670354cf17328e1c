"""Watches what an input makes the program do: start others, write elsewhere, use memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Events of sys.addaudithook, by what an input must never cause.
PROCESS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
}
NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}
START, CONNECT, WRITE = "start a process", "use the network", "write elsewhere"  # what deeds are
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Guard:
    """Forbids other processes, the network, and files outside a folder, while it is on.

    A hook cannot be taken away again, so a process has one guard.

    Attributes:
        folder: The one place where files may be written.
        seen: What was forbidden since the guard is on.
    """

    def __init__(self, folder: Path) -> None:
        """Add the hook, which does nothing yet.

        Args:
            folder: The one place where files may be written.
        """
        self.folder = os.path.realpath(folder)
        self.seen: list[str] = []
        self._on = False
        sys.addaudithook(self._hear)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch until the end of the block."""
        self.seen.clear()
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._on and (deed := self._deed(event, arguments)):
            self.seen.append(deed)
            raise PermissionError(f"the input makes the program {deed}")

    def _deed(self, event: str, arguments: tuple[Any, ...]) -> str:
        """What an event does that is forbidden; "" if it is allowed."""
        if event in PROCESS:
            return f"{START}: {event} {str(arguments[:2])[:200]}"
        if event in NETWORK:
            return f"{CONNECT}: {event}"
        if event == "open" and arguments[2] & WRITING and self._is_outside(arguments[0]):
            return f"{WRITE}: {arguments[0]!r}"
        return ""

    def _is_outside(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike) or os.fspath(path) == os.devnull:
            return False
        return not os.path.realpath(os.fsdecode(path)).startswith(self.folder)


def limit_memory(size: int) -> None:
    """Let allocations fail that need so many bytes more than there are now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def forget_peak() -> int:
    """Begin to measure memory anew.

    Returns:
        Bytes of memory that the process has now, which is the least that `memory_peak` says.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return memory_peak()


def memory_peak() -> int:
    """The most bytes of memory that the process had since the last `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
