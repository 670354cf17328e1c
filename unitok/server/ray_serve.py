"""Runs replicas of the server on Ray Serve, behind one address."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unitok.extras import need
from unitok.server.app_spec import AppSpec
from unitok.server.replica import Replica

logger = logging.getLogger(__name__)

APP = "unitok"
LOCAL = "local"
TRIES = 3  # of a replica to start, before the deployment is given up


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many replicas there are, and where.

    Attributes:
        address: Of a Ray cluster; "local" starts one on this machine, which ends with the server.
        count: How many replicas.
        gpus: GPUs of each; a fraction shares one.
        host: The address that Ray Serve listens on.
        port: The port.
    """

    address: str
    count: int = 1
    gpus: float = 0.0
    host: str = "127.0.0.1"
    port: int = 8000


def serve_on_ray(spec: AppSpec, replicas: Replicas) -> None:
    """Serve until SIGTERM or Ctrl-C; then running requests finish within their limit.

    Args:
        spec: What the app of each replica is made of.
        replicas: How many there are, and where.

    Raises:
        ImportError: Ray is not installed; the message says how to install it.
        OSError: No cluster answers at the address.
        ValueError: The cluster has no room for the replicas, or they do not start.
    """
    ray, serve = need("ray", "ray"), need("ray.serve", "ray")
    with connected(ray, replicas), interrupted_by_signal():
        check_room(ray, replicas)
        serve.start(http_options={"host": replicas.host, "port": replicas.port})
        try:
            start(serve, spec, replicas)
            if not spec.quiet:
                where = f"http://{replicas.host}:{replicas.port}"
                print(f"{replicas.count} replicas: {where}", file=sys.stderr, flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info("draining: running requests have %g s", spec.settings.drain_seconds)
        finally:
            serve.delete(APP)


@contextmanager
def connected(ray: Any, replicas: Replicas) -> Iterator[None]:
    """Be a client of a cluster while the block runs.

    Args:
        ray: The library.
        replicas: Where they shall run. A local cluster ends with the block.

    Raises:
        OSError: No cluster answers.
    """
    try:
        if replicas.address == LOCAL:
            cores = max(replicas.count, os.cpu_count() or 1)  # a small machine may try it, too
            ray.init("local", num_cpus=cores, include_dashboard=False)
        else:
            ray.init(replicas.address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {replicas.address!r} ({_last_line(error)}): give --ray "
            "local, or the address that `ray start --head` tells"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def check_room(ray: Any, replicas: Replicas) -> None:
    """Refuse what the cluster could never hold, which Ray Serve would wait for.

    Raises:
        ValueError: It has too few CPUs or GPUs.
    """
    has = ray.cluster_resources()
    for name, each in (("CPU", 1.0), ("GPU", replicas.gpus)):
        if each * replicas.count > has.get(name, 0.0):
            raise ValueError(
                f"{replicas.count} replicas of {each:g} {name} need {each * replicas.count:g}, and "
                f"the cluster has {has.get(name, 0.0):g}: give fewer --replicas, or add nodes"
            )


def start(serve: Any, spec: AppSpec, replicas: Replicas) -> None:
    """Start the replicas, and wait until all are ready.

    Raises:
        ValueError: One does not start.
    """
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="server",
        num_replicas=replicas.count,
        # The replica's own admission says what has no room.
        max_ongoing_requests=4 * spec.settings.max_requests,
        ray_actor_options={"num_cpus": 1, "num_gpus": replicas.gpus},
        graceful_shutdown_timeout_s=spec.settings.drain_seconds,
        max_constructor_retry_count=TRIES,
    )
    try:
        serve.run(deployment.bind(spec), name=APP, route_prefix="/")
    except RuntimeError as error:
        raise ValueError(f"the replicas do not start: {_last_line(error)}") from None


@contextmanager
def interrupted_by_signal() -> Iterator[None]:
    """SIGTERM interrupts the block as Ctrl-C does. A second one interrupts what follows, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _last_line(error: Exception) -> str:
    """What an error says at its end, where Ray has the cause below its own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
