"""How a server ends, and how its requests do when their clients go away."""

import asyncio
import json
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from tests.server.live import KEYS, Live
from tests.server.process import PATIENCE, started
from unitok import Model
from unitok.cli import app
from unitok.server import listen
from unitok.server.listen import make_settings
from unitok.server.settings import ServerSettings, limit_flags

CHAT = "/v1/chat/completions"
# Two hundred tokens, whatever the model says.
LONG = {
    "messages": [{"role": "user", "content": "what is this?"}],
    "regex": "([a-z] ){150}",
    "max_tokens": 400,
}


def begun(http: httpx2.Client) -> None:
    """Wait until the engine runs something."""
    for _ in range(PATIENCE * 50):
        if "unitok_running_requests{" in (text := http.get("/metrics").text):
            line = next(x for x in text.splitlines() if x.startswith("unitok_running_requests{"))
            if float(line.split()[-1]) > 0:
                return
        time.sleep(0.02)
    raise AssertionError("nothing runs")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_at_a_signal_what_runs_is_finished_and_nothing_new_begins(
    untrained_folder: Path, sent: signal.Signals
):
    with started(str(untrained_folder)) as server, server.http() as http:
        answers, many = [], {**LONG, "n": 16}  # so that it runs for some seconds
        asking = threading.Thread(
            target=lambda: answers.append(httpx2.post(server.url + CHAT, json=many, timeout=100))
        )
        asking.start()
        begun(http)
        server.process.send_signal(sent)
        while (ready := http.get("/ready")).status_code == 200:
            time.sleep(0.01)
        assert ready.json()["error"]["code"] == "shutting_down"
        refused = http.post(CHAT, json=LONG)
        assert refused.status_code == 503 and "retry-after" in refused.headers
        asking.join(PATIENCE)
        assert answers[0].status_code == 200
        assert answers[0].json()["choices"][0]["message"]["content"]
        code, said = server.end()
        assert code == 0
        assert "Traceback" not in said


def test_a_second_signal_ends_it_at_once(untrained_folder: Path):
    with started(str(untrained_folder), "--drain-seconds", "600") as server, server.http() as http:
        many = {**LONG, "n": 16}
        broken = [threading.Thread(target=_post, args=(server.url + CHAT, many)) for _ in range(8)]
        for thread in broken:
            thread.start()
        begun(http)
        server.process.send_signal(signal.SIGTERM)
        while http.get("/ready").status_code == 200:
            time.sleep(0.01)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.end()
        assert time.monotonic() - start < 30, "the first signal gives 600 s"
        for thread in broken:
            thread.join(PATIENCE)


def _post(url: str, body: object) -> None:
    with suppress(httpx2.HTTPError):
        httpx2.post(url, json=body, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--host", "0.0.0.0"], "anybody who reaches 0.0.0.0 could use the server"),
        (["--api-key-file", "/nowhere/keys"], "/nowhere/keys"),
        (["--alias", "a", "--alias", "a"], "each name once"),
        (["--alias", "a=b"], "stands for 'b'"),
        (["--max-requests", "0"], "--max-requests must be above 0"),
        (["--head-seconds", "-1"], "--head-seconds must be above 0"),
        (["--keep-seconds", "nan"], "--keep-seconds must be above 0"),
        (["--max-response-bytes", "0"], "--max-response-bytes must be above 0"),
        (["--host", "203.0.113.7", "--no-key"], "cannot listen on 203.0.113.7, port 0"),
        (["/nowhere/model"], "/nowhere/model"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], wrong: str):
    done = CliRunner().invoke(app, ["serve", "--port", "0", *arguments])
    assert done.exit_code == 2
    assert wrong in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_limit_has_a_flag_that_sets_it(monkeypatch: pytest.MonkeyPatch):
    made: list[ServerSettings] = []

    def note(**given: object) -> ServerSettings:
        made.append(make_settings(**given))
        raise ValueError("that is enough")

    monkeypatch.setattr(listen, "make_settings", note)
    flags = list(limit_flags())
    assert {"head_seconds", "max_responses", "max_response_bytes", "keep_seconds"} <= {
        flag.name for flag in flags
    }
    CliRunner().invoke(app, ["serve"])
    for number, flag in enumerate(flags):
        CliRunner().invoke(app, ["serve", f"--{flag.name.replace('_', '-')}", str(number + 1)])
        assert made[-1] == replace(made[0], **{flag.name: flag.kind(number + 1)})
    assert made[0] == ServerSettings(local_only=True)


def test_without_its_libraries_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    done = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert done.exit_code == 2
    assert done.stderr.strip().endswith("pip install 'unitok-engine[serve]'")


def test_a_client_that_goes_away_takes_its_requests_along(live: Live, model: Model):
    """Of a stream, of a plain request, of several answers, and of what still waits."""
    bodies = [LONG, {**LONG, "stream": True}, {**LONG, "n": 4}, {**LONG, "n": 3, "stream": True}]
    before = model.stats().generated_tokens

    async def leave(client: httpx2.AsyncClient, number: int) -> None:
        body = bodies[number % len(bodies)]
        try:
            await asyncio.wait_for(client.post(CHAT, json=body), 0.02 * (number % 7))
        except (TimeoutError, httpx2.HTTPError):
            return

    async def all_leave() -> None:
        headers = {"authorization": f"Bearer {KEYS[0]}"}
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(
            base_url=live.url, headers=headers, timeout=PATIENCE, limits=limits
        ) as client:
            await asyncio.gather(*(leave(client, number) for number in range(40)))

    asyncio.run(all_leave())
    live.settle()
    # They would have generated 40 x 2 x 300 tokens.
    assert model.stats().generated_tokens - before < 12_000


def test_a_stream_that_is_left_leaves_its_room(live: Live):
    with live.http() as http:
        for _ in range(3):
            with http.stream("POST", CHAT, json={**LONG, "stream": True, "n": 8}) as response:
                first = next(line for line in response.iter_lines() if line)
                assert json.loads(first[6:])["object"] == "chat.completion.chunk"
    live.settle()
