"""Hostile requests: no failure, no hang, no way past the key, and no bomb that costs anything."""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, openapi
from schemathesis.core.result import Ok

from tests.fuzz.guard import forget_peak, memory_peak
from tests.server.fuzz_requests import CHAT, EDIT, FORM, MASK, PICTURE, fire_all, form, shots, shown
from tests.server.hostile_pictures import MEBI, bombs, url
from tests.server.live import KEYS, Live, served
from unitok import Model
from unitok.server.openapi import document
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
    """In a chat, as what is edited, and as a mask; beside a picture that is none."""
    for sent in (
        lambda data: shown(url(data)),
        lambda data: form("a dog", data, MASK),
        lambda data: form("a dog", PICTURE, data),
    ):
        usual, _, _ = cost(live, sent(PICTURE))
        seconds, memory, answer = cost(live, sent(data))
        assert answer.status_code in (200, 400), answer.text
        assert seconds - usual < 0.1, f"{seconds:.3f} s, else {usual:.3f} s"
        assert memory < 50 * MEBI, f"{memory / MEBI:.0f} MiB"
    assert len(data) < MEBI


def cost(live: Live, body: bytes) -> tuple[float, int, httpx2.Response]:
    """The CPU seconds and the bytes that a request takes when it comes for the second time."""
    path, kind = (EDIT, FORM) if body.startswith(b"--") else (CHAT, "application/json")
    with live.http() as http:
        for _ in range(2):
            before, start = forget_peak(), time.process_time()
            answer = http.post(path, content=body, headers={"content-type": kind})
            seconds, memory = time.process_time() - start, memory_peak() - before
    return seconds, memory, answer
