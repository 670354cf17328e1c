"""What every request passes: its key, its headers, its body; and the requests about the server."""

import json
import logging
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.server.live import KEYS, Live, data_url, served, told, told_raw
from unitok import Model
from unitok.server.keys import ANYBODY, ApiKeys
from unitok.server.openapi import document
from unitok.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


OPEN = ("/", "/assets/{name}", "/health", "/ready")  # without a key
DESCRIBED = [
    (method.upper(), path) for path, methods in document()["paths"].items() for method in methods
]
CLOSED = [one for one in DESCRIBED if one[1] not in OPEN]


@pytest.mark.parametrize(("method", "path"), [*CLOSED, ("GET", "/nothing"), ("GET", CHAT)])
@pytest.mark.parametrize("key", [None, "wrong-key-of-the-tests", KEYS[0][:-1], KEYS[0] + "x"])
def test_no_path_without_a_key(live: Live, method: str, path: str, key: str | None):
    with live.http(key) as http:
        response = http.request(method, path)
    assert told(response) == (401, "invalid_api_key", None)
    assert response.headers["www-authenticate"] == "Bearer"


def test_health_needs_no_key(live: Live):
    assert len(DESCRIBED) - len(CLOSED) == len(OPEN)
    with live.http(None) as http:
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get("/ready").json() == {"status": "ready"}


def test_models_are_listed_with_their_aliases(live: Live):
    assert [model.id for model in live.openai().models.list()] == ["default", "gpt-image-1"]
    assert live.openai().models.retrieve("gpt-image-1").id == "gpt-image-1"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/nothing", 404, "not_found"), (CHAT, 405, "method_not_allowed")],
)
def test_paths_and_methods_that_do_not_exist(live: Live, path: str, status: int, code: str):
    with live.http() as http:
        response = http.get(path)
    assert told(response) == (status, code, None)
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_may_not_use_the_server(live: Live, model: Model, site: str):
    foreign = {"sec-fetch-site": site, "origin": "https://example.org"}
    with live.http() as http:
        response = http.post(CHAT, json=HELLO, headers=foreign)
        assert told(response) == (403, "origin_not_allowed", None)
        assert "access-control-allow-origin" not in response.headers
        response = http.get("/v1/models", headers=foreign)
        assert told(response) == (403, "origin_not_allowed", None)
        own = {"sec-fetch-site": "same-origin", "origin": live.url}
        assert http.post(CHAT, json=HELLO, headers=own).status_code == 200
    settings = ServerSettings(allowed_origins=("https://example.org",))
    with served(model, settings=settings) as open_to, open_to.http() as http:
        response = http.post(CHAT, json=HELLO, headers=foreign)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://example.org"
        other = {**foreign, "origin": "https://example.com"}
        assert http.post(CHAT, json=HELLO, headers=other).status_code == 403


def test_a_server_of_this_machine_answers_to_no_foreign_name(model: Model):
    with served(model, settings=ServerSettings(local_only=True)) as local, local.http() as http:
        for name in ("localhost", "127.0.0.1:8000", "[::1]:8000", "localhost:1"):
            assert http.get("/version", headers={"host": name}).status_code == 200
        for name in ("example.org", "example.org:8000", "localhost.example.org", "10.0.0.1", ""):
            response = http.get("/version", headers={"host": name})
            assert told(response) == (403, "host_not_allowed", None)


def test_a_request_has_an_id(live: Live):
    with live.http() as http:
        assert http.get("/version").headers["x-request-id"].startswith("req_")
        told = http.get("/version", headers={"x-request-id": "my-own_1"})
        assert told.headers["x-request-id"] == "my-own_1"
        told = http.get("/version", headers={"x-request-id": "<script>"})
        assert told.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b'{"a": 1, "a": 2}', {}, 400, "invalid_json"),
        (b"[" * 100_000, {}, 400, "invalid_json"),
        (b"\xff", {}, 400, "invalid_json"),
        (b"[]", {}, 400, None),
        (b"3", {}, 400, None),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        (b"{}", {"content-encoding": "gzip"}, 415, "unsupported_encoding"),
    ],
)
def test_bodies_that_are_not_read(
    live: Live, body: bytes, headers: dict[str, str], status: int, code: str | None
):
    with live.http() as http:
        response = http.post(
            CHAT, content=body, headers={"content-type": "application/json", **headers}
        )
    assert told(response) == (status, code, None)


def raw(live: Live, request: bytes) -> bytes:
    """What the server answers to bytes, until it closes the connection."""
    parts = urlsplit(live.url)
    with socket.create_connection((parts.hostname, parts.port), 30) as connection:
        connection.sendall(request)
        answer = b""
        with suppress(ConnectionResetError):  # what was sent was not read to its end
            while piece := connection.recv(65536):
                answer += piece
    return answer


def test_a_large_body_is_refused_before_it_is_read(live: Live):
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\n"
        "content-type: application/json\r\ncontent-length: 99999999999\r\n\r\n"
    )
    answer = raw(live, head.encode())
    assert told_raw(answer) == (413, "body_too_large", None)


def test_who_sends_all_before_reading_hears_why_it_was_refused(live: Live):
    length = live.app.services.settings.max_body + 1
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    parts = urlsplit(live.url)
    with socket.create_connection((parts.hostname, parts.port), 30) as connection:
        connection.sendall(head.encode())
        select.select([connection], [], [], 30)  # the answer is there, and not yet read
        for start in range(0, length, 2**18):
            connection.sendall(b" " * min(2**18, length - start))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert told_raw(answer) == (413, "body_too_large", None)


def test_what_is_waited_for_behind_a_refusal_is_no_time_of_the_request(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("unitok.server.last_response.QUIET_SECONDS", 1.0)
    caplog.set_level(logging.INFO, "unitok.server")
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\n"
        "content-type: application/json\r\ncontent-length: 999999999\r\n\r\n"
    )
    start = time.monotonic()
    assert told_raw(raw(live, head.encode())) == (413, "body_too_large", None)
    assert time.monotonic() - start >= 1.0
    live.settle()
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    (took,) = [line["ms"] for line in lines if line["status"] == 413]
    assert took < 1000


def test_a_body_of_unknown_length_is_cut_off(model: Model):
    with served(model, settings=ServerSettings(max_body=1000)) as small, small.http() as http:
        response = http.post(
            CHAT, content=iter([b" " * 600] * 3), headers={"content-type": "application/json"}
        )
        assert told(response) == (413, "body_too_large", None)
        assert http.post(CHAT, json=HELLO).status_code == 200


def test_a_body_that_never_comes_is_waited_for_only_so_long(model: Model):
    with served(model, settings=ServerSettings(body_seconds=0.2)) as quick:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\n"
            "content-type: application/json\r\ncontent-length: 10\r\n\r\n"
        )
        assert told_raw(raw(quick, head.encode())) == (408, "body_timeout", None)


@pytest.mark.parametrize("body", [b"zz\r\n", b"2\r\nabcd\r\n"])
def test_a_body_that_is_no_http_has_one_answer(
    live: Live, body: bytes, caplog: pytest.LogCaptureFixture
):
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    answer = raw(live, head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
    with live.http() as http:
        assert http.get("/health").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_body_with_two_lengths_is_refused(live: Live):
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\n"
        "content-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    answer = raw(live, head.encode() + b"0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    assert told_raw(answer) == (400, "invalid_header", None)


def test_headers_are_bounded(live: Live):
    with live.http() as http:
        many = http.get("/version", headers={f"x-{i}": "y" for i in range(200)})
        assert told(many) == (431, "headers_too_large", None)
        long = http.get("/version", headers={"x-long": "y" * 40_000})
        assert told(long) == (431, "headers_too_large", None)
    answer = raw(live, b"GET /version HTTP/1.1\r\nx-long: " + b"y" * 200_000)
    assert answer == b"" or b" 400 " in answer[:20]


def test_when_there_is_no_room_it_says_so_and_when_to_come_again(model: Model):
    with served(model, settings=ServerSettings(max_requests=2)) as small, small.http() as http:
        response = http.post(CHAT, json={**HELLO, "n": 3})
        assert told(response) == (503, "overloaded", None)
        assert int(response.headers["retry-after"]) >= 1
        assert http.post(CHAT, json={**HELLO, "n": 2}).status_code == 200
    settings = ServerSettings(max_per_key=1)
    with served(model, settings=settings) as fair, fair.http() as http:
        response = http.post(CHAT, json={**HELLO, "n": 2})
        assert told(response) == (429, "rate_limit_exceeded", None)
        assert int(response.headers["retry-after"]) >= 1


def test_a_full_server_refuses_before_it_opens_a_picture(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    opened = []

    def note(*arguments: object) -> None:
        opened.append(arguments)
        raise ValueError("no picture is opened")

    for module in ("pictures", "server.masks"):
        monkeypatch.setattr(f"unitok.{module}.opened_file", note)
    part = {"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (64, 64)))}}
    asked = {"messages": [{"role": "user", "content": [part]}]}
    with served(model, settings=ServerSettings(max_requests=1)) as full, full.http() as http:
        ticket = full.app.services.admission.enter(ANYBODY)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: http.post(CHAT, json=asked), range(64)))
        assert {told(answer) for answer in answers} == {(503, "overloaded", None)}
        assert not opened
        ticket.leave()
        assert http.post(CHAT, json=asked).status_code == 400 and opened


def test_a_server_bounds_the_time_of_every_request(model: Model):
    with (
        served(model, settings=ServerSettings(request_seconds=1e-6)) as hasty,
        hasty.http() as http,
    ):
        for more in ({}, {"timeout": 50}):
            response = http.post(CHAT, json={**HELLO, **more})
            assert told(response) == (504, "timeout", None)
            assert response.headers["x-should-retry"] == "false"


def test_a_draining_server_takes_nothing_new(model: Model):
    with served(model) as live, live.http() as http:
        live.app.drain()
        assert told(http.get("/ready")) == (503, "shutting_down", None)
        assert http.get("/health").status_code == 200
        response = http.post(CHAT, json=HELLO)
        assert told(response) == (503, "shutting_down", None)
        assert int(response.headers["retry-after"]) >= 1


def test_the_log_has_no_prompt_and_no_key(live: Live, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "unitok.server"), live.http() as http:
        secret = {"messages": [{"role": "user", "content": "a secret wish"}], "max_tokens": 2}
        http.post(CHAT, json=secret)
        http.get("/of/secret/paths")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [line["status"] for line in lines] == [200, 404]
    assert lines[0]["route"] == CHAT and lines[0]["tokens"] >= 1
    assert "secret" not in caplog.text and KEYS[0] not in caplog.text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "has 0 keys"),
        ("# none\n", "has 0 keys"),
        ("short\n", "line 1: the key has fewer than 16"),
        ("a-key-that-is-long-enough\n\na-key-that-is-long-enough", "line 3: the key of line 1"),
        ("a key that is long enough", "line 1: a key is of plain letters"),
    ],
)
def test_files_of_keys_that_are_wrong(tmp_path, text: str, wrong: str):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ValueError, match=wrong):
        ApiKeys.read(file)


def test_a_page_of_an_allowed_origin_may_use_openais_client(model: Model):
    settings = ServerSettings(allowed_origins=("https://page.example",))
    with served(model, settings=settings) as live, live.http(None) as http:
        headers = {
            "origin": "https://page.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-stainless-os",
        }
        answer = http.options("/v1/chat/completions", headers=headers)
        assert answer.status_code == 200
        assert "x-stainless-os" in answer.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        other = http.options(
            "/v1/chat/completions", headers={**headers, "origin": "https://other.example"}
        )
        assert "access-control-allow-origin" not in other.headers
