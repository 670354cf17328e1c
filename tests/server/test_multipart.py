"""Forms that upload files: read in memory, within limits, and refused if they are damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.live import Live, served, told
from unitok import Model
from unitok.server.errors import ApiError
from unitok.server.multipart import MAX_PARTS, MAX_TEXT, Part, parse_form
from unitok.server.settings import ServerSettings

URL = "/v1/images/edits"
BOUNDARY = "boundary"


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def field(name: str, value: bytes, more: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value


def test_parts_have_names_types_and_bytes():
    upload = (
        b'content-disposition: form-data; filename="../../etc/passwd"; name="image"\r\n'
        b"Content-Type: image/PNG; x=y\r\n\r\n\r\n--bound\r\n"
    )
    parts = parse_form(
        form(field("prompt", "ä cat".encode()), upload, field("n", b"")), b"boundary"
    )
    assert parts == [
        Part("prompt", "ä cat".encode()),
        Part("image", b"\r\n--bound\r\n", True, "image/png"),
        Part("n", b""),
    ]
    assert parts[0].text == "ä cat"
    assert parse_form(form(), b"boundary") == []


PIECES = st.sampled_from(
    [b"\r\n", b"--", b"boundary", b"a", b"\r\n--boundary", b"\x00", b": ", b"\r"]
)


@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_any_bytes_are_read_or_refused(data: bytes):
    for whole in (data, b"--boundary" + data, form(field("a", data)), form(data)):
        try:
            parts = parse_form(whole, b"boundary")
        except ApiError as error:
            assert (error.status, error.code) == (400, "invalid_multipart")
        else:
            assert all(part.data in whole for part in parts)


@given(st.lists(st.binary(max_size=50).filter(lambda data: b"--boundary" not in data), max_size=5))
def test_bytes_come_as_they_were_sent(values: list[bytes]):
    parts = parse_form(form(*(field("a", value) for value in values)), b"boundary")
    assert [part.data for part in parts] == values


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        form(field("a", b"b"))[:-6],
        form(b"no headers"),
        form(b"x-other: y\r\n\r\nz"),
        form(b"content-disposition: form-data\r\n\r\nz"),
        form(b'content-disposition: attachment; name="a"\r\n\r\nz'),
        form(b'content-disposition: form-data; name="\xff"\r\n\r\nz'),
        form(
            field("a", b"b").replace(b"\r\n\r\n", b"\r\ncontent-transfer-encoding: base64\r\n\r\n")
        ),
        form(b"x: " + b"y" * 5000 + b"\r\n" + field("a", b"b")),
        form(*[field("a", b"b")] * (MAX_PARTS + 1)),
    ],
)
def test_damaged_forms_are_refused(live: Live, body: bytes):
    with live.http() as http:
        response = http.post(
            URL, content=body, headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        )
    assert told(response) == (400, "invalid_multipart", None)


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("application/json", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        ("multipart/mixed; boundary=a", 415, "unsupported_media_type"),
        ("", 415, "unsupported_media_type"),
        ("multipart/form-data", 400, "invalid_multipart"),
        ("multipart/form-data; boundary=", 400, "invalid_multipart"),
        (f"multipart/form-data; boundary={'a' * 71}", 400, "invalid_multipart"),
    ],
)
def test_bodies_of_other_types(live: Live, content_type: str, status: int, code: str):
    with live.http() as http:
        response = http.post(URL, content=form(), headers={"content-type": content_type})
    assert told(response) == (status, code, None)


@pytest.mark.parametrize("value", [b"\xff", b"a" * (MAX_TEXT + 1)])
def test_text_is_bounded_and_of_characters(live: Live, value: bytes):
    with live.http() as http:
        response = http.post(
            URL,
            content=form(field("image", b"x", '; filename="a"'), field("prompt", value)),
            headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
        )
    assert told(response) == (400, None, "prompt")


def test_uploads_are_bounded_alone_and_together(model: Model):
    files = {"image": ("a.png", b"x" * 2000)}
    with served(model, settings=ServerSettings(max_body=1000)) as small, small.http() as http:
        response = http.post(URL, files=files)
        assert told(response) == (413, "body_too_large", None)
    # The parts are copies of the body, and count too.
    with served(model, settings=ServerSettings(max_bodies=3000)) as full, full.http() as http:
        response = http.post(URL, files=files)
        assert told(response) == (503, "overloaded", None)
        assert full.app.services.admission._bytes == 0
