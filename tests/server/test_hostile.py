"""Hostile requests: no failure, no hang, no way past the key, and no bomb that costs anything."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, GenerationMode, openapi
from schemathesis.core.result import Ok

from tests.fuzz.guard import forget_peak, memory_peak
from tests.server.fuzz_requests import (
    CHAT,
    EDIT,
    FORM,
    MASK,
    PICTURE,
    asked,
    fire_all,
    form,
    shots,
    shown,
)
from tests.server.hostile_pictures import MEBI, bombs, saved, url, whole_bombs
from tests.server.live import KEYS, Live, served, told
from unitok import Model
from unitok.messages import ParsedPicture
from unitok.picture_sources import Refused
from unitok.server.openapi import document
from unitok.server.picture_cost import check_cost
from unitok.server.settings import ServerSettings
from unitok.server.state.folder import State

SEED, COUNT = 15, 2400
EXAMPLES = 40  # of each operation, of valid and of invalid requests each
SETTINGS = ServerSettings(max_n=2, head_seconds=1.0, body_seconds=1.0, request_seconds=50.0)
AUTHORIZED = {"authorization": f"Bearer {KEYS[0]}"}
FOUND = openapi.from_dict(document()).get_all_operations()
OPERATIONS = [found.ok() for found in FOUND if isinstance(found, Ok)]


@pytest.fixture(scope="module")
def target(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with (
        State(tmp_path_factory.mktemp("hostile") / "state", SETTINGS, {}) as state,
        served(model, settings=SETTINGS, state=state) as live,
    ):
        yield live


def test_hostile_requests_do_no_harm(target: Live, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR):
        found = asyncio.run(fire_all(target.url, shots(SEED, COUNT), at_once=16))
        assert not found, "\n".join(found[:10])
        with target.http(None) as http:
            assert http.get("/health").json() == {"status": "ok"}
        target.settle()
    # Pillow has errors of its own for pictures that it refuses.
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    failed = [record.getMessage() for record in errors if not record.name.startswith("PIL.")]
    assert not failed, failed[:5]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_requests_made_from_the_description_do_no_harm(target: Live, operation: Any):
    cases = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    )

    @settings(
        max_examples=EXAMPLES * (2 if operation.body else 1),
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(cases)
    def check(case: Case) -> None:
        answer = case.call(base_url=target.url, headers=AUTHORIZED, timeout=60)
        assert answer.status_code < 500 or answer.status_code in (503, 504), answer.content[:500]
        if answer.status_code >= 400:
            assert answer.json()["error"]["message"]

    check()


def test_every_endpoint_is_in_the_description(live: Live):
    routes = {route.path.replace(":path", "") for route in live.app._routes()}
    described = set(document()["paths"])
    assert described <= routes
    assert {route for route in routes if route.startswith("/v1/")} <= described


def test_the_description_is_served(live: Live):
    with live.http() as http:
        told = http.get("/openapi.json").json()
    assert told["openapi"] == "3.1.0" and CHAT in told["paths"] and EDIT in told["paths"]


@pytest.mark.parametrize(
    ("name", "data"), bombs(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_bomb_costs_little(live: Live, name: str, data: bytes):
    """In a chat and a response, as what is edited, as masks; beside a picture that is none."""
    for sent in (
        lambda data: shown(url(data)),
        lambda data: seen(url(data)),
        lambda data: seen(url(PICTURE), url(data)),
        lambda data: form("a dog", data, MASK),
        lambda data: form("a dog", PICTURE, data),
    ):
        usual, _, _ = cost(live, sent(PICTURE))
        seconds, memory, answer = cost(live, sent(data))
        assert answer.status_code in (200, 400), answer.text
        assert seconds - usual < 0.1, f"{seconds:.3f} s, else {usual:.3f} s"
        assert memory < 50 * MEBI, f"{memory / MEBI:.0f} MiB"
    assert len(data) < MEBI


def test_pictures_that_several_answers_read_count_for_each():
    flat = saved(Image.new("RGB", (1200, 1200)), "PNG")
    pictures = [ParsedPicture(flat, "image")]
    check_cost(pictures)
    told = (
        f"^image: 1,440,000 pixels in files of {len(flat):,} bytes; at most "
        f"{1_000_000 + 50 * len(flat):,} are read for 2 answers: shrink the picture first, or ask "
        "for fewer$"
    )
    with pytest.raises(Refused, match=told):
        check_cost(pictures, 2)


@pytest.mark.parametrize(("name", "data"), whole_bombs())
def test_a_bomb_with_all_of_its_pixels_is_refused_by_its_header(
    live: Live, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
):
    monkeypatch.setattr("unitok.pictures.to_rgb", None)  # nothing is decoded
    monkeypatch.setattr("unitok.server.masks._alpha", None)
    wanted = [
        (shown(url(data)), "messages[0].content[1]"),
        (seen(url(data)), "input[0].content[1]"),
        (form("a dog", data, MASK), "image"),
        (form("a dog", PICTURE, data), "mask"),
        (seen(url(PICTURE), url(data)), "tools[0].input_image_mask.image_url"),
    ]
    for body, param in wanted:
        _, _, answer = cost(live, body)
        assert told(answer) == (400, "image_too_large", param), answer.text


def test_many_pictures_and_answers_cost_as_one(live: Live):
    """Each of them alone would be read."""
    data = saved(Image.new("RGB", (1400, 1400)), "WEBP", lossless=True)
    part = {"type": "image_url", "image_url": {"url": url(data)}}
    usual, _, answer = cost(live, asked([part, {"type": "text", "text": "what is this?"}]))
    assert answer.status_code == 200
    many = asked([*[part] * 99, {"type": "text", "text": "what is this?"}])
    for body in (many, shown(url(data)).replace(b"{", b'{"n": 16, ', 1)):
        seconds, memory, answer = cost(live, body)
        assert answer.json()["error"]["code"] == "image_too_large"
        assert seconds < 0.1 + usual and memory < 50 * MEBI


def test_a_photo_of_a_phone_and_its_mask_are_read(live: Live):
    """A mask has hardly any bytes, and so has to count with its picture."""
    noise = Image.effect_noise((400, 300), 40).resize((4000, 3000)).convert("RGB")
    photo = saved(noise, "JPEG", quality=85)
    mask = Image.new("LA", noise.size, (0, 255))
    mask.paste((0, 0), (1000, 1000, 2000, 2000))
    for body in (shown(url(photo)), seen(url(photo)), form("a dog", photo, saved(mask, "PNG"))):
        _, _, answer = cost(live, body)
        assert answer.status_code == 200, answer.text


def seen(picture: str, mask: str | None = None) -> bytes:
    """The body of a response: about a picture, or one that paints a part of it anew."""
    text = "what is this?" if mask is None else "a dog"
    parts = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": picture}]
    body: dict[str, Any] = {"input": [{"role": "user", "content": parts}]}
    if mask is None:
        body["max_output_tokens"] = 2
    else:
        tool = {"type": "image_generation", "input_image_mask": {"image_url": mask}, "tries": 1}
        body |= {"tools": [tool], "tool_choice": "required"}
    return json.dumps(body).encode()


def cost(live: Live, body: bytes) -> tuple[float, int, httpx2.Response]:
    """The CPU seconds and the bytes that a request takes when it comes for the second time."""
    path, kind = (EDIT, FORM) if body.startswith(b"--") else (CHAT, "application/json")
    if body.startswith(b'{"input"'):
        path = "/v1/responses"
    with live.http() as http:
        for _ in range(2):
            before, start = forget_peak(), time.process_time()
            answer = http.post(path, content=body, headers={"content-type": kind})
            seconds, memory = time.process_time() - start, memory_peak() - before
    return seconds, memory, answer
