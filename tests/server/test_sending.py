"""Answers to clients that read slowly count until they are taken."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.server.keeping import chat, jsonl, keeping
from tests.server.live import KEYS, PATIENCE, Live, served
from unitok import Model
from unitok.server import listen
from unitok.server.keys import ApiKeys
from unitok.server.settings import ServerSettings

OWNER = ApiKeys(KEYS).owner(f"Bearer {KEYS[0]}")
SMALL = 4096  # bytes that the system keeps of what is sent


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "SEND_BUFFER", SMALL)


@contextmanager
def asked(live: Live, method: str, path: str, body: Any = None) -> Iterator[socket.socket]:
    """A connection of a client that has sent a request, and reads nothing yet."""
    parts = urlsplit(live.url)
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEYS[0]}\r\n"
        f"connection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        client.settimeout(PATIENCE)
        client.connect((parts.hostname, parts.port))
        client.sendall(head.encode() + data)
        yield client


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def rest(client: socket.socket) -> bytes:
    """All that comes, without its head."""
    return b"".join(iter(lambda: client.recv(2**16), b"")).partition(b"\r\n\r\n")[2]


def test_a_plain_answer_counts_until_its_client_has_taken_it(tiny: Model):
    with served(tiny, settings=ServerSettings(max_requests=16)) as live:
        admission = live.app.services.admission
        body = {"prompt": "a cat", "n": 16, "seed": 1, "size": "auto", "output_format": "png"}
        with asked(live, "POST", "/v1/images/generations", body) as client:
            until(lambda: admission._bytes > 4 * SMALL)  # the answer is there
            time.sleep(0.1)
            assert admission.admitted == 16
            with pytest.raises(openai.InternalServerError) as caught:
                live.openai().images.generate(prompt="a dog")
            assert caught.value.code == "overloaded"
            assert len(json.loads(rest(client))["data"]) == 16
        live.settle()
        assert admission._bytes == 0
        assert live.openai().images.generate(prompt="a dog").data


@pytest.mark.parametrize("ends", [True, False])
def test_what_is_told_of_kept_responses_counts_as_long_as_it_is_in_memory(tiny: Model, ends: bool):
    with served(tiny, settings=ServerSettings(max_bodies=1_000_000)) as live:
        client, admission = live.openai(), live.app.services.admission
        shown = "data:image/png;base64," + "A" * 400_000
        content = [{"type": "input_text", "text": "what is this?"}]
        message: Any = {"role": "user", "content": content}
        kept = client.responses.create(model=tiny.name, input=[message], max_output_tokens=2)
        stored = live.app.responses.store.find(OWNER, kept.id)
        stored.read[0].body["content"][0]["text"] = shown
        path = f"/v1/responses/{kept.id}/input_items"
        with asked(live, "GET", path) as first, asked(live, "GET", path) as second:
            until(lambda: admission._bytes > 800_000)
            with pytest.raises(openai.InternalServerError) as caught:
                client.responses.input_items.list(kept.id)
            assert caught.value.code == "overloaded"
            assert admission.admitted == 0  # a request that makes something would be taken in
            if ends:
                assert json.loads(rest(first)) == json.loads(rest(second))
        until(lambda: admission._bytes == 0)
        (item,) = client.responses.input_items.list(kept.id).data
        assert item.to_dict()["content"] == [{"type": "input_text", "text": shown}]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
def test_lists_count_as_long_as_they_are_in_memory(tiny: Model, tmp_path: Path, path: str):
    with keeping(tmp_path, tiny, max_bodies=100_000) as live:
        client, admission = live.openai(), live.app.services.admission
        name = "long" * 50 + ".jsonl"
        sent = [
            client.files.create(file=(name, jsonl([chat("a")])), purpose="batch").id
            for _ in range(90 if path == "/v1/files" else 1)
        ]
        metadata = {str(i): "long" * 120 for i in range(16)}
        for _ in range(5 if path == "/v1/batches" else 0):
            client.batches.create(
                input_file_id=sent[0],
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata=metadata,
            )
        live.settle()
        with asked(live, "GET", path) as first, asked(live, "GET", path):
            until(lambda: admission._bytes > 60_000)
            with live.http() as http:
                refused = http.get(path)
            assert refused.status_code == 503 and refused.json()["error"]["code"] == "overloaded"
            assert len(json.loads(rest(first))["data"]) in (5, 90)
        until(lambda: admission._bytes == 0)


def test_items_that_never_fit_are_refused_by_the_key_that_helps(tiny: Model):
    with served(tiny, settings=ServerSettings(max_bodies=1000)) as live:
        client = live.openai()
        kept = client.responses.create(model=tiny.name, input="cat", max_output_tokens=2)
        stored = live.app.responses.store.find(OWNER, kept.id)
        stored.read[0].body["content"][0]["text"] = "cat " * 1000
        with pytest.raises(openai.BadRequestError, match="ask for fewer") as caught:
            client.responses.input_items.list(kept.id)
        assert caught.value.param == "limit"
