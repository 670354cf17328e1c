"""Ray: started here or joined, within a bounded time, and with room for the replicas."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from unitok.extras import need
from unitok.shown import shown
from unitok.terminal import one_line

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of what is not Python
}
LOCAL = "local"
AUTO = "auto"
ADDRESS = re.compile(r"(\[[^]]+\]|[^][:/\s]+):([0-9]{1,5})")
KNOCK = 5.0  # seconds until something must listen at an address
WAIT = 60.0  # seconds until a cluster must have answered
# Joins a cluster and leaves it. Ray ends the whole process where some addresses do not answer, and
# waits long where others do not, so another process tries first.
TRY = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:
    sys.exit(f"Ray says: {error}")
"""


@dataclass(frozen=True)
class Replicas:
    """How many replicas there are, and what each takes.

    Attributes:
        count: How many.
        cpus: CPU cores of each, which is also the number of its threads.
        gpus: GPUs of each; two replicas share one if it is a half.

    Raises:
        ValueError: A number is out of its range.
    """

    count: int = 1
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("replicas", self.count), ("cpus_per_replica", self.cpus)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not (math.isfinite(self.gpus) and self.gpus >= 0):
            raise ValueError(f"gpus_per_replica must be 0 or more, not {self.gpus}")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(
                f"gpus_per_replica must be whole or a part of one GPU, not {self.gpus:g}"
            )

    def fit(self, node: Mapping[str, float]) -> int:
        """How many of them have room on a machine with these resources."""
        rooms = [node.get("CPU", 0) // self.cpus]
        if self.gpus:  # 0.1 three times is not quite 0.3
            rooms.append((node.get("GPU", 0) + 1e-6) // self.gpus)
        return int(min(rooms))


@contextmanager
def joined(address: str, replicas: Replicas, show_logs: bool = False) -> Iterator[None]:
    """Join a cluster, or start Ray on this machine, and leave or end it afterwards.

    Meanwhile nothing is printed on stdout, where Ray would tell of each process that dies.

    Args:
        address: "local" to start one; "auto" for one that runs on this machine; or HOST:PORT.
        replicas: What a local one must have room for.
        show_logs: Whether what replicas write to stderr is written here, too.

    Raises:
        ConnectionError: No cluster answers.
        RuntimeError: Ray does not start.
        ValueError: It is no address.
        ImportError: Ray is not installed.
    """
    for name, value in SETTINGS.items():  # which Ray reads when it is imported
        os.environ.setdefault(name, value)
    ray = need("ray", "ray")
    need("ray.data", "ray")  # which sets its loggers up
    with hushed(), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        if address == LOCAL:
            cores = max(os.cpu_count() or 1, replicas.count * replicas.cpus)
            own = {"num_cpus": cores, "include_dashboard": False}
        else:
            check_answers(address)
            own = {}
        try:
            ray.init(address=address, log_to_driver=show_logs, logging_level=logging.ERROR, **own)
        except Exception as error:  # Ray raises plain exceptions, too
            raise RuntimeError(f"Ray does not start: {one_line(error)}") from None
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def hushed() -> Iterator[None]:
    """Let Ray's loggers tell nothing: what goes wrong is raised."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def check_answers(address: str, wait: float = WAIT) -> None:
    """Check that a cluster answers at an address.

    Args:
        address: As in `joined`.
        wait: Seconds until it must have answered.

    Raises:
        ConnectionError: It does not.
        ValueError: It is no address.
    """
    if address != AUTO:
        knock(address)
    words = [sys.executable, "-c", TRY, address]
    try:
        tried = subprocess.run(words, capture_output=True, timeout=wait, check=False)
    except subprocess.TimeoutExpired:
        raise ConnectionError(no_answer(address, f"it took more than {wait:g} s")) from None
    if tried.returncode:
        said = tried.stderr.decode("utf-8", "replace").splitlines()
        why = next((line for line in said if line.startswith("Ray says: ")), "Ray gave up")
        raise ConnectionError(no_answer(address, one_line(why)))


def knock(address: str) -> None:
    """Check that something listens at an address, which takes less time than to join a cluster.

    Raises:
        ConnectionError: Nothing does.
        ValueError: It is no address.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or int(found[2]) > 65535:
        raise ValueError(f"--ray takes local, auto or HOST:PORT, not {shown(address)}")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), KNOCK).close()
    except (OSError, UnicodeError) as error:
        raise ConnectionError(no_answer(address, one_line(error))) from None


def no_answer(address: str, why: str) -> str:
    """What is said of an address where no cluster answers."""
    return (
        f"no Ray cluster answers at {address}: {why}. Start one with `ray start --head`, or run on "
        "this machine with --ray local"
    )


def check_room(replicas: Replicas) -> None:
    """Check that the cluster can hold a replica. A UserWarning tells if it cannot hold all.

    Raises:
        ValueError: No machine of the cluster can hold one.
    """
    nodes = need("ray", "ray").nodes()
    check_nodes([node["Resources"] for node in nodes if node["Alive"]], replicas)


def check_nodes(nodes: Iterable[Mapping[str, float]], replicas: Replicas) -> None:
    """As `check_room`, for machines with these resources."""
    nodes = list(nodes)
    room, gpus = sum(map(replicas.fit, nodes)), sum(node.get("GPU", 0) for node in nodes)
    each = f"{replicas.cpus} CPUs and {replicas.gpus:g} GPUs"
    if not room and replicas.gpus and not gpus:
        raise ValueError(
            f"a replica is to have {replicas.gpus:g} GPUs, and the cluster has none: leave out "
            "--gpus-per-replica (gpus_per_replica), or join a cluster with GPUs"
        )
    if not room:
        raise ValueError(f"a replica is to have {each}, and no machine of the cluster has as many")
    if room < replicas.count:
        tell(f"the cluster has room for {room} of {replicas.count} replicas with {each} each")
    if gpus and not replicas.gpus:
        tell(f"the cluster has {gpus:g} GPUs, which no replica uses: see --gpus-per-replica")


def tell(what: str) -> None:
    """Warn the user."""
    warnings.warn(what, UserWarning, stacklevel=2)


def reason(error: BaseException) -> str:
    """The innermost cause of an error of Ray's, in one line."""
    cause = getattr(error, "cause", None) or error.__cause__
    return reason(cause) if isinstance(cause, BaseException) else one_line(error)
