"""Hostile requests, made from a seed: bytes for a socket, and what must not come of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from tests.fuzz.mutations import mutated_bytes, mutated_json
from tests.fuzz.pictures import valid_files, with_checksums
from tests.server.hostile_pictures import bombs, saved, url
from tests.server.live import KEYS

CHAT, DRAW, EDIT = "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits"
RESPONSES = "/v1/responses"
OPEN = (b"/health", b"/ready", b"/")  # without a key
JSON, BOUNDARY = "application/json", "an-edge"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PATIENCE = 60.0  # seconds; what takes longer hangs
PICTURE = saved(Image.new("RGB", (64, 64), "red"), "PNG")
MASK = saved(Image.new("RGBA", (64, 64)), "PNG")
LIVE_KEY = f"authorization: Bearer {KEYS[0]}".encode()


def asked(content: Any, **options: Any) -> bytes:
    """The body of a chat."""
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2, **options}
    return json.dumps(body).encode()


def shown(source: str) -> bytes:
    """The body of a chat about a picture."""
    part = {"type": "image_url", "image_url": {"url": source, "detail": "auto"}}
    return asked([{"type": "text", "text": "what is this?"}, part])


def form(prompt: str, image: bytes, mask: bytes) -> bytes:
    """The body of an edit."""
    parts = [
        b'content-disposition: form-data; name="prompt"\r\n\r\n' + prompt.encode(),
        b'content-disposition: form-data; name="seed"\r\n\r\n5',
        b'content-disposition: form-data; name="tries"\r\n\r\n1',
        b'content-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + image,
        b'content-disposition: form-data; name="mask"; filename="m.png"\r\n\r\n' + mask,
    ]
    mark = f"--{BOUNDARY}\r\n".encode()
    return b"".join(mark + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


BODIES: tuple[tuple[str, bytes], ...] = (
    (CHAT, shown(url(PICTURE))),
    (CHAT, asked("hello", stream=True, stream_options={"include_usage": True}, n=2)),
    (CHAT, asked("hello", logprobs=True, stop=["a"], seed=5, temperature=1.0)),
    (
        CHAT,
        asked(
            "hello",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}},
            },
        ),
    ),
    (DRAW, b'{"prompt": "a cat", "n": 1, "size": "64x64", "seed": 5, "output_format": "png"}'),
    (
        RESPONSES,
        b'{"input": "hello", "max_output_tokens": 2, "tools": [{"type": "image_generation"}], '
        b'"tool_choice": "none", "metadata": {"a": "b"}, "stream": true}',
    ),
    (
        RESPONSES,
        b'{"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}'
        b']}], "max_output_tokens": 2, "previous_response_id": "resp_1", "store": false}',
    ),
    (
        "/v1/batches",
        b'{"input_file_id": "file-1", "endpoint": "/v1/responses", "completion_window": "24h"}',
    ),
    (DRAW, b'{"prompt": "a cat", "stream": true, "partial_images": 1, "guidance": 2.0}'),
)
PATHS = (
    CHAT,
    DRAW,
    EDIT,
    "/v1/models",
    "/v1/models/default",
    "/v1/responses/resp_1",
    "/v1/files",
    "/v1/files/file-1/content",
    "/v1/batches?limit=2",
    "/v1/batches/batch_1",
    "/metrics",
    "/version",
    "/openapi.json",
)
ODD_PATHS = (
    "/",
    "//",
    "/health/",
    "/HEALTH",
    "/health/../metrics",
    "/health;a",
    "/health%00",
    "/%2e%2e/metrics",
    "//metrics",
    "/v1//models",
    "/v1/models/%2fetc%2fpasswd",
    "/v1/models/" + "a" * 9000,
    "/v1/models/%ff",
    "/metrics?x=/health",
    "/metrics/health",
    "/ready/..%2fmetrics",
    "http://x/health",
    "*",
    "/\u00e9",
)
ODD_HEADERS = (
    "x-request-id: " + "a" * 3000,
    "x-request-id: \x7f",
    "content-length: -1",
    "content-length: +5",
    "content-length: 1e3",
    "content-length: 99999999999999999999",
    "content-length: \u0665",
    "transfer-encoding: gzip",
    "transfer-encoding: chunked, identity",
    "content-encoding: gzip",
    "content-encoding: br",
    "expect: 100-continue",
    "expect: 200-ok",
    "upgrade: websocket",
    "connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAA",
    "authorization: Bearer wrong-key-of-a-stranger",
    "authorization: Basic YTpi",
    "authorization: Bearer",
    f"authorization: bearer\t{KEYS[0][:-1]}",
    "host: a\r\nhost: b",
    "origin: null",
    "x-forwarded-for: 127.0.0.1",
    "x-original-url: /health",
    "x-http-method-override: GET",
    "content-type: application/json; charset=utf-16",
    "content-type: \xff",
    "content-type: multipart/form-data",
    "content-type: multipart/form-data; boundary=" + "a" * 400,
    "traceparent: 00-" + "0" * 32 + "-x-01",
    "cookie: " + "a=b; " * 5000,
    "range: bytes=0-1",
    "a b: c",
    ": c",
    " folded: a",
    "x: a\r\n b",
    "accept: " + "," * 20000,
    "te: trailers",
    "trailer: authorization",
)
RAW = (
    b"",
    b"\r\n" * 500,
    b"\x00" * 4000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /metrics\r\n\r\n",
    b"GET /metrics HTTP/0.9\r\n\r\n",
    b"G" * 70_000,
    b"GET /metrics HTTP/1.1\n\n",
    b"GET  /metrics HTTP/1.1\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n",
    b"GET /metrics HTTP/1.1\r\nhost: x\r\na",
)


@dataclass(frozen=True)
class Shot:
    """What is sent on one connection.

    Attributes:
        kind: Which kind of hostility it is.
        data: The bytes.
        leaves: Whether the client goes away without reading.
    """

    kind: str
    data: bytes
    leaves: bool = False

    @property
    def keys(self) -> int:
        """How many requests with a key it can have."""
        return self.data.count(LIVE_KEY)


def head(path: str, content_type: str | None, length: int | None, *headers: str) -> bytes:
    """The head of a request."""
    lines = [f"{'GET' if content_type is None else 'POST'} {path} HTTP/1.1", "host: x"]
    lines += [] if content_type is None else [f"content-type: {content_type}"]
    lines += [] if length is None else [f"content-length: {length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("utf-8", "surrogateescape")


def posted(path: str, body: bytes, content_type: str = JSON, *headers: str) -> bytes:
    """A whole request with a key, after which the connection is closed."""
    key = (LIVE_KEY.decode(), "connection: close", *headers)
    return head(path, content_type, len(body), *key) + body


def shots(seed: int, count: int) -> Iterator[Shot]:
    """Hostile requests of all kinds.

    Args:
        seed: Where the choices come from.
        count: How many.
    """
    random, pictures = Random(seed), list(valid_files())
    yield from every_bomb()
    for number in range(count):
        made = MAKERS[number % len(MAKERS)](random, pictures)
        yield made if random.random() < 0.85 else _weakened(random, made)


def every_bomb() -> Iterator[Shot]:
    """Each bomb, in a chat, as what is edited, and as a mask."""
    for name, data in bombs():
        yield Shot(f"{name}, shown", posted(CHAT, shown(url(data))))
        yield Shot(f"{name}, edited", posted(EDIT, form("a dog", data, MASK), FORM))
        yield Shot(f"{name} as a mask", posted(EDIT, form("a dog", PICTURE, data), FORM))


def _weakened(random: Random, shot: Shot) -> Shot:
    """The same without a key, cut off, or left early."""
    what = random.choice(("keyless", "cut", "left", "left"))
    if what == "keyless":
        return replace(
            shot, kind=f"{shot.kind}, keyless", data=shot.data.replace(KEYS[0].encode(), b"")
        )
    if what == "cut":
        cut = shot.data[: random.randrange(len(shot.data) + 1)]
        return Shot(f"{shot.kind}, cut off", cut, random.random() < 0.7)
    return replace(shot, kind=f"{shot.kind}, left", leaves=True)


def _json(random: Random, _: Sequence[bytes]) -> Shot:
    path, body = random.choice(BODIES)
    return Shot("JSON", posted(path, mutated_json(random, body)))


def _form(random: Random, _: Sequence[bytes]) -> Shot:
    body = form(random.choice(("a dog", "\u202e\x00", "x" * 3000)), PICTURE, MASK)
    return Shot("form", posted(EDIT, mutated_bytes(random, body), FORM))


def _picture(random: Random, pictures: Sequence[bytes]) -> Shot:
    data = mutated_bytes(random, random.choice(pictures), pictures)
    data = with_checksums(data) if random.random() < 0.5 else data
    where = random.choice(("shown", "edited", "mask"))
    if where == "shown":
        return Shot("picture", posted(CHAT, shown(url(data))))
    image, mask = (data, MASK) if where == "edited" else (PICTURE, data)
    return Shot("picture", posted(EDIT, form("a dog", image, mask), FORM))


def _base64(random: Random, _: Sequence[bytes]) -> Shot:
    source = mutated_bytes(random, url(PICTURE).encode()).decode("latin-1")
    return Shot("base64", posted(CHAT, shown(source)))


def _path(random: Random, _: Sequence[bytes]) -> Shot:
    path, key = random.choice(PATHS + ODD_PATHS), random.choice((LIVE_KEY.decode(), "a: b"))
    method = random.choice(
        ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "A" * 90)
    )
    line = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{key}\r\n\r\n"
    return Shot("path", line.encode())


def _headers(random: Random, _: Sequence[bytes]) -> Shot:
    path, body = random.choice(BODIES)
    odd = random.sample(ODD_HEADERS, random.choice((1, 1, 2, 3)))
    many = [f"x-{i}: y" for i in range(random.choice((0, 0, 0, 99, 3000)))]
    return Shot("headers", posted(path, body, JSON, *odd, *many))


def _raw(random: Random, _: Sequence[bytes]) -> Shot:
    data = random.choice((*RAW, random.randbytes(random.choice((1, 50, 5000)))))
    if random.random() < 0.5:
        path, body = random.choice(BODIES)
        whole = posted(path, body)
        end = whole.index(b"\r\n\r\n") + 4
        data = mutated_bytes(random, whole[:end]) + whole[end:]
    return Shot("raw", data)


def _pipelined(random: Random, pictures: Sequence[bytes]) -> Shot:
    """Several requests at once, some of them with a key."""
    parts = []
    for _ in range(random.choice((2, 3, 20))):
        key = random.choice((LIVE_KEY.decode(), "a: b"))
        if random.random() < 0.5:
            parts.append(head(random.choice(PATHS[3:]), None, None, key))
        else:
            body = random.choice((asked("hello"), b"{", mutated_json(random, asked("hello"))))
            parts.append(head(CHAT, JSON, len(body), key) + body)
    return Shot("pipelined", b"".join(parts))


def _smuggled(random: Random, _: Sequence[bytes]) -> Shot:
    """A request whose length is ambiguous, with another in its body that has no key."""
    inner = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    key = random.choice((LIVE_KEY.decode(), "a: b"))
    first, second = random.sample(
        ("content-length: 4", f"content-length: {len(inner) + 5}", "content-length: 0",
         "transfer-encoding: chunked", "transfer-encoding: xchunked", "transfer-encoding : chunked",
         "transfer-encoding:\tchunked", "transfer-encoding: identity, chunked", "x: a\r\n\tb",
         "transfer-encoding: chunked\r\ntransfer-encoding: identity", "content-length: 0, 4",
         "content-length: 4\ncontent-length: 9"), 2,
    )  # fmt: skip
    body = random.choice(
        (b"0\r\n\r\n", b"4;a=b\r\nabcd\r\n0\r\n\r\n", b"-1\r\n", b"ffffffffffffffff1\r\n")
    )
    return Shot("smuggled", head(CHAT, JSON, None, key, first, second) + body + inner)


MAKERS = (_json, _json, _json, _form, _form, _picture, _picture, _base64, _path, _headers, _raw,
          _pipelined, _smuggled)  # fmt: skip


@dataclass(frozen=True)
class Response:
    """One response on a connection.

    Attributes:
        status: The HTTP status.
        headers: Its headers, with names in small letters.
        body: Its body.
    """

    status: int
    headers: dict[str, str]
    body: bytes


async def fire(base: str, shot: Shot) -> list[Response]:
    """What a server answers to a shot, until it closes the connection.

    Raises:
        TimeoutError: It does not close it.
    """
    parts = urlsplit(base)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            with suppress(ConnectionError):
                writer.write(shot.data)
                await writer.drain()
            return [] if shot.leaves else responses_in(await _all_of(reader))
        finally:
            writer.transport.abort()


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    data = b""
    with suppress(ConnectionError):  # what was sent was not read to its end
        while piece := await reader.read(2**16):
            data += piece
    return data


def responses_in(data: bytes) -> list[Response]:
    """The responses in the bytes of a connection. Those to HEAD have no body."""
    found = []
    while data:
        top, _, data = data.partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body, data = _body(status, headers, data)
        found.append(Response(status, headers, body))
    return found


def _body(status: int, headers: dict[str, str], data: bytes) -> tuple[bytes, bytes]:
    if status < 200 or data.startswith(b"HTTP/1.1 "):
        return b"", data
    if "content-length" in headers:
        length = int(headers["content-length"])
        return data[:length], data[length:]
    if headers.get("transfer-encoding") != "chunked":
        return data, b""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            break
    return body, data


def faults(shot: Shot, responses: Sequence[Response]) -> Iterator[str]:
    """What is wrong with what a server answered."""
    done = [response for response in responses if 200 <= response.status < 300]
    if len(done) > shot.keys + sum(shot.data.count(b" %b " % path) for path in OPEN):
        yield f"{len(done)} requests were done, of {shot.keys} with a key"
    for response in responses:
        if response.status >= 500 and response.status not in (503, 504):
            yield f"status {response.status}: {response.body[:300]!r}"
        if response.status == 503 and "retry-after" not in response.headers:
            yield f"503 without retry-after: {response.body[:300]!r}"
        if response.status >= 400 and response.body:
            yield from _untold(response)
        if KEYS[0].encode() in response.body:
            yield "the key is in the answer"
        if b"Traceback" in response.body:
            yield "a traceback is in the answer"


def _untold(response: Response) -> Iterator[str]:
    """What is wrong with an error."""
    if response.body == b"Invalid HTTP request received.":  # uvicorn's, to what is no request
        return
    try:
        error = json.loads(response.body)["error"]
    except (ValueError, KeyError, TypeError):
        yield f"status {response.status} without an error: {response.body[:300]!r}"
        return
    if not error["message"] or set(error) != {"message", "type", "param", "code"}:
        yield f"status {response.status} with a strange error: {error}"


async def fire_all(base: str, shots: Iterator[Shot], at_once: int) -> list[str]:
    """Fire shots, and say what is wrong.

    Args:
        base: The server's address.
        shots: The shots.
        at_once: On how many connections at once.
    """
    found: list[str] = []

    async def one_after_another() -> None:
        for shot in shots:
            try:
                told = list(faults(shot, await fire(base, shot)))
            except TimeoutError:
                told = ["it hangs"]
            found.extend(f"{shot.kind}: {fault} {shot.data[:500]!r}" for fault in told)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return found
