"""Pictures that a body only names count as if they were in it, whoever holds their bytes."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.keeping import keeping, send
from tests.server.live import Live, served
from unitok import Model
from unitok.server.keys import Owner
from unitok.server.settings import ServerSettings

SIZE = 100_000
URL = "https://pictures.example/a.png"
FILE = {"type": "input_image", "file_id": "file"}


def asked(part: dict[str, Any], count: int = 1) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [part] * count}]}


def test_a_file_that_a_body_names_many_times_fills_no_memory(model: Model, tmp_path: Path):
    with keeping(tmp_path / "state", model, max_bodies=3 * SIZE) as live, live.http() as http:
        file = send(live.openai(), b"x" * SIZE, "vision")
        part = {"type": "input_image", "file_id": file.id}
        answer = http.post("/v1/responses", json=asked(part, 50))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert http.post("/v1/responses", json=asked(part)).status_code == 400, "no picture"
        mask = {"type": "image_generation", "input_image_mask": {"file_id": file.id}}
        body = asked(part, 2) | {"tools": [mask], "tool_choice": "required"}
        body["input"][0]["content"].append({"type": "input_text", "text": "draw a cat"})
        assert http.post("/v1/responses", json=body).status_code == 503
        assert live.app.services.admission._bytes == 0


def test_a_mask_is_read_beside_the_event_loop(live: Live, monkeypatch: pytest.MonkeyPatch):
    threads = []

    def file_of(owner: Owner, file_id: str, param: str) -> bytes:
        threads.append(threading.current_thread().name)
        return b"no picture"

    monkeypatch.setattr(live.app.responses, "file_of", file_of)
    mask = {"type": "image_generation", "input_image_mask": {"file_id": "mask"}}
    with live.http() as http:
        http.post("/v1/responses", json={"input": "draw a cat", "tools": [mask]})
    assert threads and "test-server" not in threads


class Fetcher:
    """Fetches the same picture from everywhere, after a while.

    Attributes:
        seconds: How long it takes.
        begun: Whether it was asked.
        count: How many pictures it fetched.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.count, self.begun = seconds, 0, threading.Event()

    async def fetch(self, url: str, param: str) -> bytes:
        self.begun.set()
        await asyncio.sleep(self.seconds)
        self.count += 1
        return b"x" * SIZE


def fetching(live: Live, fetcher: Fetcher) -> None:
    object.__setattr__(live.app.services, "fetcher", fetcher)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_fetched_pictures_count_and_too_many_are_refused_before_one_is_fetched(
    model: Model, path: str
):
    chat = path.endswith("completions")
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": URL}}
    part = part if chat else {"type": "input_image", "image_url": URL}
    name = "messages" if chat else "input"
    with served(model, settings=ServerSettings(max_bodies=3 * SIZE)) as live, live.http() as http:
        fetcher = Fetcher()
        fetching(live, fetcher)

        def answer(count: int) -> tuple[int, Any]:
            message = {"role": "user", "content": [part] * count}
            got = http.post(path, json={name: [message]})
            return got.status_code, got.json()["error"]["param"]

        assert answer(101) == (400, name) and fetcher.count == 0
        assert answer(10) == (503, None) and fetcher.count == 3


def test_a_client_that_goes_away_has_no_more_pictures_fetched(model: Model):
    with served(model) as live:
        fetcher = Fetcher(seconds=600)
        fetching(live, fetcher)
        part = {"type": "input_image", "image_url": URL}
        with live.http() as http, suppress(httpx2.TimeoutException):
            http.post("/v1/responses", json=asked(part, 100), timeout=0.3)
        assert fetcher.begun.is_set()
        live.settle()
