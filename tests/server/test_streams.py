"""Streams of clients that go away, or that take nothing: what they held is given back."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.types import Message, Scope

from tests.server.live import KEYS, Live
from tests.server.test_ends import CHAT, LONG
from unitok import Model
from unitok.server.app import App
from unitok.server.gate import Gate
from unitok.server.keys import ApiKeys
from unitok.server.settings import ServerSettings

RESPONSES = "/v1/responses"
BODIES = {
    CHAT: {**LONG, "stream": True, "n": 2},
    RESPONSES: {"input": "what is this?", "stream": True, "regex": "([a-z] ){150}"},
    "/v1/images/generations": {"prompt": "a cat", "stream": True, "partial_images": 2},
}


def scope_of(path: str) -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {KEYS[0]}".encode())],
        "asgi": {"version": "3.0"},
    }


class Client:
    """A client of an ASGI app that sends a body, and goes away after a few messages.

    Attributes:
        takes: How many messages it takes.
    """

    def __init__(self, body: bytes, takes: int) -> None:
        self._body, self.takes = [body], takes
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.takes -= 1
        if self.takes < 0:
            self._gone.set()
            await asyncio.Event().wait()


def ask(app: App, path: str, body: bytes, takes: int) -> dict[str, Any]:
    """What the log says of a request."""
    logs = []
    assert isinstance(app.asgi, Gate)
    app.asgi.ended, ended = lambda end: logs.append(end.passage.log), app.asgi.ended
    client = Client(body, takes)
    asyncio.run(app.asgi(scope_of(path), client.receive, client.send))
    app.asgi.ended = ended
    return logs[0]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("takes", [0, 1, 2])
def test_a_client_that_takes_no_more_holds_nothing(
    model: Model, path: str, takes: int, caplog: pytest.LogCaptureFixture
):
    """Not even one that does not take the head of the response, so that no body is made."""
    app = App([model], ServerSettings(heartbeat_seconds=0.05), ApiKeys(KEYS))
    with caplog.at_level(logging.ERROR):
        log = ask(app, path, json.dumps(BODIES[path]).encode(), takes)
    assert log["aborted"] and "error" not in log
    assert not caplog.records
    admission = app.services.admission
    assert (admission.admitted, admission._bytes) == (0, 0)
    assert model.driver.wait_until_idle(100)


WRONG = {
    CHAT: {"n": 3, "regex": "("},
    RESPONSES: {"regex": "("},
    "/v1/images/generations": {"size": "1x1", "n": 3},
}


@pytest.mark.parametrize("path", BODIES)
def test_a_wrong_request_is_refused_before_its_stream_begins(live: Live, path: str):
    with live.http() as http:
        streamed = http.post(path, json=BODIES[path] | WRONG[path])
        body = {**BODIES[path], **WRONG[path], "stream": False}
        body.pop("partial_images", None)
        plain = http.post(path, json=body)
    assert streamed.status_code == plain.status_code == 400
    assert streamed.json() == plain.json() and plain.json()["error"]["param"]
