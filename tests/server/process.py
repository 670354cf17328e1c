"""`unitok serve` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

PATIENCE = 100
ROOT = Path(__file__).parents[2]


class Process:
    """A server that was started by the command line."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def http(self) -> httpx2.Client:
        """A plain HTTP client."""
        return httpx2.Client(base_url=self.url, timeout=PATIENCE)

    def end(self) -> tuple[int, str]:
        """Its exit code and the rest of what it said, once it has ended."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@contextmanager
def started(*arguments: str) -> Iterator[Process]:
    """A server on a free port. It is killed at the end, if it still runs."""
    roots = os.pathsep.join(str(ROOT / part) for part in (".", "engine", "tokenizers"))
    process = subprocess.Popen(
        [sys.executable, "-m", "unitok", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": roots},
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert "http://" in line, line + process.stderr.read()
        url = line[line.index("http://") :].strip()
        with httpx2.Client(base_url=url, timeout=PATIENCE) as http:
            assert http.get("/ready").status_code == 200
        yield Process(process, url)
    finally:
        process.kill()
        process.communicate()
