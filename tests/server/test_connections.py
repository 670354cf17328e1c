"""Connections whose clients do nothing are cut, and those that are only slow are not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from starlette.responses import Response
from starlette.routing import Route, Router

from tests.server.live import KEYS, Live, served
from unitok import Model
from unitok.server.gate import Gate
from unitok.server.settings import ServerSettings

SECONDS = 1.0
LARGE = 2**25  # bytes; more than the system keeps of a connection
HEAD = (
    "GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
    f"authorization: Bearer {KEYS[0]}\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def short(model: Model) -> Iterator[Live]:
    """A server that waits for nobody for long, and has a large page."""
    settings = ServerSettings(head_seconds=SECONDS, send_seconds=SECONDS)
    with served(model, settings=settings) as live:
        gate = live.app.asgi
        assert isinstance(gate, Gate)
        assert isinstance(gate.app, Router)
        gate.app.routes.append(Route("/large", lambda request: Response(b"x" * LARGE)))
        yield live


def connected(live: Live) -> socket.socket:
    url = urlsplit(live.url)
    return socket.create_connection((url.hostname, url.port or 0), timeout=20)


def received(client: socket.socket) -> int:
    """How many bytes still come."""
    size = 0
    try:
        while data := client.recv(2**20):
            size += len(data)
    except ConnectionResetError:
        pass
    return size


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: a\r\nx: "])
def test_a_client_that_sends_no_head_is_cut_off(short: Live, sent: bytes):
    with connected(short) as client:
        client.sendall(sent)
        assert received(client) == 0


def test_a_head_that_comes_drop_by_drop_is_cut_off_and_so_is_a_second_one(short: Live):
    with connected(short) as client:
        client.sendall(b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(2**16).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /ready HTTP/1.1\r\nx: ")
        with pytest.raises(OSError):
            for _ in range(100):
                client.sendall(b"a")
                time.sleep(0.1)


def test_a_client_that_takes_nothing_of_a_response_is_cut_off(short: Live):
    with connected(short) as client:
        client.sendall(HEAD)
        time.sleep(3 * SECONDS)
        assert received(client) < LARGE


def test_a_client_that_is_slow_is_waited_for(short: Live):
    with connected(short) as client:
        client.sendall(HEAD)
        size = 0
        for _ in range(8):  # longer than a client may take nothing
            size += sum(len(client.recv(2**20)) for _ in range(4))
            time.sleep(SECONDS / 4)
        assert size + received(client) > LARGE
