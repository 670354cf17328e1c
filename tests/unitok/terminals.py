"""The program as a person runs it: in a terminal, and stopped with Ctrl-C."""

import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 120.0  # seconds until what is waited for will never come
AGAIN = 2.0  # seconds until a person presses Ctrl-C again
# The program, with steps so slow that a test can stop it in the middle. Opening its terminal makes
# that the one whose Ctrl-C it hears.
SLOW = """
import os, time
from unitok_engine import Engine
step = Engine.step
Engine.step = lambda self: (time.sleep(0.02), step(self))[1]
if os.isatty(0):
    os.close(os.open(os.ttyname(0), os.O_RDWR))
from unitok.cli import main
main()
"""


def start(words: tuple[object, ...], folder: Path, **streams: int) -> subprocess.Popen[str]:
    """Start the slow program in a folder."""
    plain = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    more = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, words)],
        cwd=folder,
        env=plain | more,
        text=True,
        start_new_session=True,
        **streams,  # type: ignore[arg-type]
    )


def wait_for(happened: Callable[[], object]) -> None:
    """Return when something is so."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class Terminal:
    """A terminal, from the side of the person: what is shown, and what is typed."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._bytes = b""
        self._expected = 0  # characters

    @property
    def shown(self) -> str:
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def interrupt_prompt(self) -> None:
        """Press Ctrl-C at a prompt, and wait until something comes of it.

        Python does not hear one between the moment in which it shows a prompt and that in which it
        begins to wait for a key; a person presses again.
        """
        before, end = len(self._bytes), time.monotonic() + PATIENCE
        while True:
            self.type("\x03")
            again = time.monotonic() + AGAIN
            while time.monotonic() < again:
                if not self.read() or len(self._bytes) > before:
                    return
            assert time.monotonic() < end, f"Ctrl-C does nothing at {self.shown!r}"

    def expect(self, text: str) -> None:
        """Wait until a text is shown, after what was expected before."""
        end = time.monotonic() + PATIENCE
        while (at := self.shown.find(text, self._expected)) < 0:
            assert time.monotonic() < end, f"no {text!r} in {self.shown[self._expected :]!r}"
            assert self.read(), f"it ended with {self.shown[self._expected :]!r}"
        self._expected = at + len(text)

    def read(self) -> bool:
        """Take what is shown within a moment; False at the end."""
        if not select.select([self._side], [], [], 0.1)[0]:
            return True
        try:
            new = os.read(self._side, 65536)
        except OSError:  # Linux says so that the program closed the other side
            return False
        self._bytes += new
        return bool(new)

    def read_all(self) -> None:
        while self.read():
            pass


@contextmanager
def program_in_terminal(
    *words: object, folder: Path
) -> Iterator[tuple[Terminal, subprocess.Popen[str]]]:
    """The slow program, all of whose streams are one terminal."""
    mine, its = pty.openpty()
    process = start(words, folder, stdin=its, stdout=its, stderr=its)
    os.close(its)
    try:
        yield Terminal(mine), process
    finally:
        process.kill()
        process.wait()
        os.close(mine)


@contextmanager
def terminal_as(stream: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Inside, `sys.stdout` or `sys.stderr` is a terminal; what was shown is complete at the end."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    mine, its = pty.openpty()
    terminal = Terminal(mine)
    reader = threading.Thread(target=terminal.read_all)
    reader.start()
    try:
        with os.fdopen(its, "w", encoding="utf-8") as file, monkeypatch.context() as patch:
            patch.setattr(sys, stream, file)
            yield terminal
    finally:
        reader.join()
        os.close(mine)


_CODE = re.compile(r"\x1b\[\??([0-9;]*)([A-Za-z])")


def screen(shown: str) -> list[str]:
    """The lines that a terminal holds in the end, without colours, and without empty last ones.

    It knows what rich writes.
    """
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[\??[0-9;]*[A-Za-z]|\n|\r)", shown):
        code = _CODE.fullmatch(part)
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif code is None:
            lines[row] = lines[row][:column].ljust(column) + part
            column += len(part)
        elif code[2] == "A":
            row -= int(code[1] or 1)
        elif code[2] == "K":
            lines[row] = ""
    return "\n".join(lines).rstrip("\n").split("\n")
