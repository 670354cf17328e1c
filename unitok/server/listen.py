"""Listens on a port until a signal ends it: first gently, then at once."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from functools import partial
from math import ceil
from types import FrameType

import uvicorn

from unitok.server.app import App
from unitok.server.connections import Connection
from unitok.server.loopback import is_loopback
from unitok.server.settings import ServerSettings

logger = logging.getLogger(__name__)

BACKLOG = 2048
SEND_BUFFER = 2**17  # bytes that the system keeps for a client that reads slowly; Linux doubles it
POLL = 0.05  # seconds between looks whether all is done


class Listener(uvicorn.Server):
    """Serves an app. The first SIGTERM or Ctrl-C lets it drain, and a second one ends it at once.

    While it drains, /ready says so, new requests are refused with 503, and running ones finish
    within a limit.
    """

    def __init__(self, app: App, host: str, port: int) -> None:
        """Prepare to listen; `run` or `serve` listens.

        Args:
            app: What is served.
            host: The address to listen on.
            port: The port; 0 for any free one.
        """
        self.app_served, self.settings = app, app.services.settings
        config = uvicorn.Config(
            app.asgi,
            host,
            port,
            http=partial(  # type: ignore[arg-type]
                Connection,
                head_seconds=self.settings.head_seconds,
                send_seconds=self.settings.send_seconds,
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=2 * self.settings.max_header_bytes,
            timeout_keep_alive=ceil(self.settings.head_seconds),
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        allow_many_connections()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; end at once at the second."""
        if self.app_served.services.admission.draining:
            self.should_exit = self.force_exit = True
            return
        self.app_served.drain()
        if self._loop is None:  # it does not listen yet
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        """End when nothing is on its way any more, or the time for that is over."""
        logger.info("draining: running requests have %g s", self.settings.drain_seconds)
        end = time.monotonic() + self.settings.drain_seconds
        while not self.app_served.idle and time.monotonic() < end:
            await asyncio.sleep(POLL)
        self.should_exit = True


def allow_many_connections() -> None:
    """Have as many files open at once as the system lets this process."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_exposure(host: str, has_keys: bool, insists: bool) -> None:
    """Refuse to listen where others can reach the server without a key.

    Args:
        host: The address or the name to listen on.
        has_keys: Whether there are keys.
        insists: Whether the user wants it all the same.

    Raises:
        ValueError: Others could reach it.
    """
    if not (has_keys or insists or is_loopback(host)):
        raise ValueError(
            f"anybody who reaches {host} could use the server: give --api-key-file FILE, or "
            "--no-key if that is meant"
        )


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that an error is told before a model is loaded.

    Raises:
        OSError: The port is taken, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # connections have it
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        reason = error.strerror or error
        raise OSError(error.errno, f"cannot listen on {host}, port {port}: {reason}") from None
    return opened


def url_of(opened: socket.socket) -> str:
    """Where a socket can be reached."""
    return url_at(*opened.getsockname()[:2])


def url_at(host: str, port: int) -> str:
    """The address of a host and a port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_settings(**given: object) -> ServerSettings:
    """Settings, of which those that are None have their defaults.

    Raises:
        ValueError: A limit is not above 0.
    """
    settings = ServerSettings(**{n: v for n, v in given.items() if v is not None})  # type: ignore[arg-type]
    for name, value in vars(settings).items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    return settings
