"""Servers behind nginx: any draws, each key has one that keeps its things, streams come through."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import httpx2
import openai
import pytest

from tests.proxy.conftest import KEYS, Proxied, free_port, keeping, nginx
from tests.server.keeping import begin, chat, ended, records, send
from tests.server.live import PATIENCE, Live, png
from unitok import Model

IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"


def requests_of(live: Live, route: str) -> float:
    """How many requests of a route a server has answered well."""
    text = live.app.services.metrics.text().decode()
    named = f'unitok_requests_total{{route="{route}",status="200"}}'
    found = [line for line in text.splitlines() if line.startswith(named)]
    return float(found[0].split()[-1]) if found else 0.0


def test_both_servers_draw_and_a_seed_is_the_same_picture_from_either(
    proxied: Proxied, model: Model
):
    drawn = {seed: png(model.draw("a cat", seed=seed).image) for seed in (1, 2)}
    before = [requests_of(live, IMAGES) for live in proxied.servers]
    for _ in range(4):
        for seed, expected in drawn.items():
            answer = proxied.openai().images.generate(prompt="a cat", extra_body={"seed": seed})
            assert base64.b64decode((answer.data or [])[0].b64_json or "") == expected
    for _ in range(PATIENCE * 10):  # a request is counted when it has ended, after its answer
        after = [requests_of(live, IMAGES) for live in proxied.servers]
        counts = [now - then for now, then in zip(after, before, strict=True)]
        if sum(counts) == 8:
            break
        time.sleep(0.1)
    assert sum(counts) == 8 and min(counts) > 0


def test_a_stream_comes_as_it_is_written(proxied: Proxied, model: Model):
    """What a server writes while its model is paused arrives before there is more."""
    said = [{"role": "user", "content": "what is a cat?"}]
    asked = {"messages": said, "regex": "([a-z] ){20}", "max_tokens": 60, "stream": True}
    model.pause()
    try:
        with proxied.http() as http, http.stream("POST", CHAT, json=asked) as got:
            lines = got.iter_lines()
            assert '"role": "assistant"' in next(lines)
            model.resume()
            told = [line for line in lines if line.startswith("data: ")]
    finally:
        model.resume()
    assert len(told) > 10 and told[-1] == "data: [DONE]"


def test_conversations_go_on_at_the_server_of_their_key(proxied: Proxied):
    """With eight keys both servers have some, and each finds its own again."""
    for key in KEYS:
        client = proxied.openai(key).responses
        first = client.create(model="default", input="what is a cat?")
        again = client.create(model="default", input="and a dog?", previous_response_id=first.id)
        assert client.retrieve(again.id).output_text == again.output_text
    stores = [live.app.responses.store for live in proxied.servers]
    counts = [store.count for store in stores]  # type: ignore[union-attr]
    assert sum(counts) == 2 * len(KEYS) and min(counts) > 0


def test_files_and_batches_lie_with_their_key(proxied: Proxied):
    client = proxied.openai(KEYS[1])
    batch = ended(client, begin(client, [chat("a"), chat("b")]))
    assert [one["custom_id"] for one in records(client, batch.output_file_id)] == ["a", "b"]
    files = [file.id for file in client.files.list()]
    assert batch.input_file_id in files and batch.output_file_id in files
    with pytest.raises(openai.NotFoundError):
        proxied.openai(KEYS[2]).files.retrieve(batch.input_file_id)


def test_a_key_is_needed_as_ever(proxied: Proxied):
    with proxied.http("not-a-key-of-the-tests") as http:
        assert http.post(IMAGES, json={"prompt": "a cat"}).status_code == 401
        assert http.get("/v1/files").status_code == 401
        assert http.get("/metrics").status_code == 404


def test_what_is_drawn_goes_on_without_a_server_and_what_is_kept_waits_for_it(
    model: Model, tmp_path: Path
):
    """The server of a key is found again by its folder, as after a restart."""
    ports = {"8000": free_port(), "8001": free_port(), "8002": 0}
    with keeping(model, tmp_path / "2") as second:
        ports["8002"] = int(second.url.rpartition(":")[2])
        with nginx(tmp_path, ports):
            both = Proxied([second], f"http://127.0.0.1:{ports['8000']}")
            for _ in range(4):
                both.openai().images.generate(prompt="a cat", extra_body={"seed": 1})
            codes = set()
            for key in KEYS:
                try:
                    send(both.openai(key), b"{}\n")
                    codes.add(200)
                except openai.InternalServerError as error:
                    codes.add(error.status_code)
            assert codes == {200, 502}, "keys of the server that is gone are told so"
            assert httpx2.get(f"{both.url}/ready").status_code == 200
