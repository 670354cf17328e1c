"""Pictures that cannot be read are refused with a code and a place, before they cost anything."""

import base64
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from tests.fuzz.guard import forget_peak, memory_peak
from tests.server.live import Live, png

MEBI = 2**20
PICTURE = png(Image.new("RGB", (64, 64), "red"))
PLACE = "messages[0].content[1]"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says that it has many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(4 * MEBI), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def ask(live: Live, source: object) -> Any:
    part = {"type": "image_url", "image_url": {"url": source}}
    content = [{"type": "text", "text": "what is this?"}, part]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2}
    with live.http() as http:
        return http.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize(
    ("source", "param", "code"),
    [
        (url(b"no picture"), PLACE, "invalid_image_format"),
        (url(b"<svg/>", "image/svg+xml"), PLACE, "invalid_image_format"),
        (url(PICTURE[:90]), PLACE, "image_parse_error"),
        (url(bomb(100_000, 100_000)), PLACE, "image_too_large"),
        (url(bomb(6_000, 6_000)), PLACE, "image_too_large"),
        (url(bomb(0, 5)), PLACE, "invalid_image_format"),
        (url(PICTURE) + "%", PLACE, "invalid_base64_image"),
        ("data:image/png,abc", PLACE, "invalid_base64_image"),
        (url(PICTURE, "application/pdf"), f"{PLACE}.image_url.url", "unsupported_image_media_type"),
        (url(b""), f"{PLACE}.image_url.url", "empty_image_file"),
        ("cat.png", f"{PLACE}.image_url.url", "invalid_image_url"),
        (7, PLACE, None),
    ],
)
def test_a_picture_of_a_chat_that_cannot_be_read(
    live: Live, source: object, param: str, code: str | None
):
    response = ask(live, source)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


def test_a_picture_of_a_chat_may_have_any_type_of_pictures(live: Live):
    for kind in ("image/png", "image/jpeg", "application/octet-stream", ""):
        assert ask(live, url(PICTURE, kind)).status_code == 200


def edit(live: Live, image: bytes, mask: bytes) -> Any:
    files = {"image": ("a.png", image), "mask": ("m.png", mask)}
    with live.http() as http:
        return http.post("/v1/images/edits", data={"prompt": "a dog"}, files=files)


def test_a_bomb_costs_no_memory(live: Live):
    """Of 9,000 x 9,000 pixels, 324 MB would be decoded."""
    large, mask = bomb(9_000, 9_000), png(Image.new("RGBA", (64, 64)))
    assert len(large) < 10_000
    for sent in (
        lambda: ask(live, url(large)),
        lambda: edit(live, large, mask),
        lambda: edit(live, PICTURE, large),
    ):
        assert sent().json()["error"]["code"] == "image_too_large"  # what is made once is made
        before = forget_peak()
        response = sent()
        assert memory_peak() - before < 50 * MEBI
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "image_too_large"
