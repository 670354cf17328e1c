"""/health is open to everybody, so whoever asks for it takes nothing from others."""

import asyncio
import threading

import httpx2
import pytest

from tests.server.live import PATIENCE, Live, told
from unitok import Model


def test_many_who_ask_wait_for_one_answer_and_keep_no_thread_from_others(
    live: Live, model: Model, monkeypatch: pytest.MonkeyPatch
):
    steps, asked = threading.Event(), []

    def stuck(work: object) -> None:
        asked.append(work)
        assert steps.wait(PATIENCE)

    monkeypatch.setattr(model.driver, "between_steps", stuck)

    async def all_ask() -> list[int]:
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(base_url=live.url, timeout=PATIENCE, limits=limits) as http:
            waiting = [asyncio.ensure_future(http.get("/health")) for _ in range(60)]
            while not asked:
                await asyncio.sleep(0.01)
            with live.http() as other:  # the numbers are read in a thread
                assert (await asyncio.to_thread(other.get, "/metrics")).status_code == 200
            steps.set()
            return [answer.status_code for answer in await asyncio.gather(*waiting)]

    assert asyncio.run(all_ask()) == [200] * 60
    assert len(asked) < 60


def test_an_engine_that_is_closed_is_told_to_all(
    live: Live, model: Model, monkeypatch: pytest.MonkeyPatch
):
    def closed(work: object) -> None:
        raise RuntimeError("the driver is closed")

    with live.http(None) as http:
        with monkeypatch.context() as patch:
            patch.setattr(model.driver, "between_steps", closed)
            for _ in range(2):
                assert told(http.get("/health")) == (503, "unhealthy", None)
        assert http.get("/health").status_code == 200


def test_an_engine_that_makes_no_step_is_waited_for_only_so_long(
    live: Live, model: Model, monkeypatch: pytest.MonkeyPatch
):
    steps = threading.Event()
    monkeypatch.setattr("unitok.server.status.STEP_SECONDS", 0.2)
    with live.http(None) as http:
        with monkeypatch.context() as patch:
            patch.setattr(model.driver, "between_steps", lambda work: steps.wait(PATIENCE))
            for _ in range(2):
                answer = http.get("/health")
                assert told(answer) == (503, "unhealthy", None)
                assert "has made no step for 0.2 s" in answer.json()["error"]["message"]
            steps.set()
        assert http.get("/health").status_code == 200
