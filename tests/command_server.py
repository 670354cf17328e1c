"""`unitok` for tests that run it often: each command is a fork of a process that has torch already.

Importing torch takes seconds, and what the commands of the guides do takes less. A program on the
path hands its words, its folder, its environment and its three streams to the server by a socket,
and ends as the command ends. The command runs in a process of its own, as it does for a user.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATHS = [str(ROOT / root) for root in (".", "engine", "tokenizers")]
LONGEST = 2**20  # bytes of words and environment

# It starts in a moment, as it imports little.
PROGRAM = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [asked], [0, 1, 2])
    sys.exit(int(server.recv(16) or 255))
"""


@contextmanager
def command_server(folder: Path) -> Iterator[Path]:
    """A program `unitok` in a folder, which works until the end of the block.

    Args:
        folder: An empty folder with a short path.

    Yields:
        The folder of the program, for the path.
    """
    address, program = str(folder / "socket"), folder / "unitok"
    program.write_text(PROGRAM.format(python=sys.executable, address=address))
    program.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        command = [sys.executable, "-m", "tests.command_server", str(listening.fileno())]
        paths = {"PYTHONPATH": os.pathsep.join(PATHS)}
        server = subprocess.Popen(
            command, env=os.environ | paths, cwd=ROOT, pass_fds=[listening.fileno()]
        )
    try:
        yield folder
    finally:
        server.kill()
        server.wait()


def serve(number: int) -> None:
    """Fork for each command, until the server is killed.

    Args:
        number: The file descriptor of the socket.
    """
    for name in ("api", "cli", "conversation", "loading"):
        import_module(f"unitok.{name}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(fileno=number) as listening:
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listening.close()
                connection.sendall(str(run(connection)).encode())
                os._exit(0)
            connection.close()


def run(connection: socket.socket) -> int:
    """Run the command that a program hands over, in this process.

    Returns:
        The exit code.
    """
    asked, streams, _, _ = socket.recv_fds(connection, LONGEST, 3)
    words, folder, environment = json.loads(asked)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (opened(0, "r"), opened(1, "w"), opened(2, "w"))
    sys.argv = ["unitok", *words]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        import_module("unitok.cli").main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def opened(number: int, mode: str) -> io.TextIOWrapper:
    """A stream of text over a file descriptor."""
    return io.TextIOWrapper(open(number, f"{mode}b", closefd=False), line_buffering=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
