"""Runs replicas of the server on Ray Serve, behind one address."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from unitok.backends.ray.cluster import Replicas, check_room, joined
from unitok.extras import need
from unitok.server.app_spec import AppSpec
from unitok.server.listen import url_at
from unitok.server.log_lines import logged_to_stderr
from unitok.server.replica import Replica
from unitok.terminal import one_line

logger = logging.getLogger(__name__)

APP = "unitok"
TRIES = 3  # of replicas to start, before all is given up
QUIET = {"log_level": "ERROR", "enable_access_log": False}  # Ray Serve's log; ours has a line each


def serve_on_ray(spec: AppSpec, address: str, replicas: Replicas, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; then running requests finish within their limit.

    Args:
        spec: What the app of each replica is made of.
        address: Of a Ray cluster, as `unitok.backends.ray.cluster.joined` takes it.
        replicas: How many there are, and what each takes.
        host: The address that Ray Serve listens on.
        port: The port.

    Raises:
        ImportError: Ray Serve is not installed; the message says how to install it.
        ConnectionError: No cluster answers.
        ValueError: The cluster has no room for the replicas, or they do not start.
    """
    with (
        logged_to_stderr(spec.quiet),
        joined(address, replicas, show_logs=not spec.quiet),
        interrupted_by_sigterm(),
    ):
        serve = need("ray.serve", "ray")
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        check_room_of_all(replicas)
        check_not_served(serve)
        serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
        try:
            start(serve, spec, replicas)
            if not spec.quiet:
                told = f"{replicas.count} replicas: {url_at(host, port)}"
                print(told, file=sys.stderr, flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info("draining: running requests have %g s", spec.settings.drain_seconds)
        finally:
            stop(serve)


def check_room_of_all(replicas: Replicas) -> None:
    """Refuse replicas that have no room, for which Ray Serve would wait without an end.

    Raises:
        ValueError: The cluster cannot hold all of them.
    """
    nodes = [node["Resources"] for node in need("ray", "ray").nodes() if node["Alive"]]
    if 0 < (room := sum(map(replicas.fit, nodes))) < replicas.count:
        raise ValueError(f"--replicas {replicas.count}: the cluster has room for {room}")
    check_room(replicas)


def check_not_served(serve: Any) -> None:
    """Refuse to take the place of another server on the cluster.

    Raises:
        ValueError: There is one.
    """
    if APP in serve.status().applications:
        raise ValueError("this cluster serves unitok already: end that server, or `serve shutdown`")


def start(serve: Any, spec: AppSpec, replicas: Replicas) -> None:
    """Start the replicas, and wait until all are ready.

    Args:
        serve: The library.
        spec: What the app of each is made of.
        replicas: How many there are, and what each takes.

    Raises:
        ValueError: They do not start.
    """
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="server",
        num_replicas=replicas.count,
        # Each replica refuses what it has no room for, and says when to come again.
        max_ongoing_requests=4 * spec.settings.max_requests,
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        graceful_shutdown_timeout_s=spec.settings.drain_seconds,
        max_constructor_retry_count=TRIES,
        logging_config=QUIET,
    )
    try:
        serve.run(
            deployment.bind(placed(spec, replicas), replicas.cpus), name=APP, route_prefix="/"
        )
    except RuntimeError as error:
        raise ValueError(f"the replicas do not start: {why_not(serve, error)}") from None


def placed(spec: AppSpec, replicas: Replicas) -> AppSpec:
    """What replicas are made of: without a GPU, their models compute on the CPU."""
    if replicas.gpus:
        return spec
    models = (replace(m, device="cpu") if m.device is None else m for m in spec.models)
    return replace(spec, models=tuple(models))


def stop(serve: Any) -> None:
    """End the replicas, when what they run is finished, and Ray Serve, if it has nothing else."""
    serve.delete(APP)
    if not serve.status().applications:
        serve.shutdown()


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM interrupts the block as Ctrl-C does. A second one interrupts its end, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def why_not(serve: Any, error: Exception) -> str:
    """Why replicas did not start: the cause, which Ray Serve has at the end of a traceback.

    Args:
        serve: The library.
        error: What it raised.
    """
    app = serve.status().applications.get(APP)
    told = [one.message for one in app.deployments.values()] if app is not None else []
    lines = [line for text in (str(error), *told) for line in text.splitlines() if line.strip()]
    return one_line(lines[-1])
