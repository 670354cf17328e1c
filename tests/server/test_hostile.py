"""Hostile requests: no failure, no hang, no way past the key, and no bomb that costs anything."""

import asyncio
import logging
import time

import httpx2
import pytest

from tests.fuzz.guard import forget_peak, memory_peak
from tests.server.fuzz_requests import fire, fire_all, shots, every_bomb, Shot
from tests.server.live import Live, served
from unitok import Model
from unitok.server.settings import ServerSettings

MEBI = 2**20
SEED, COUNT = 15, 1500
SETTINGS = ServerSettings(max_n=2, head_seconds=1.0, body_seconds=1.0, request_seconds=50.0)


def test_hostile_requests_do_no_harm(model: Model, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR), served(model, settings=SETTINGS) as live:
        found = asyncio.run(fire_all(live.url, shots(SEED, COUNT), at_once=16))
        assert not found, "\n".join(found[:10])
        with live.http() as http:
            assert http.get("/health").json() == {"status": "ok"}
    failed = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert not failed, failed[:5]
