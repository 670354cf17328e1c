"""Many clients, clients that leave, clients that read slowly, and more of them than there is room
for: each gets its answer, nothing is left behind, and nobody else notices."""

import asyncio
import gc
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.http_clients import Answer, Client, Wanted, closed_loop
from benchmarks.serving_mix import CHAT, DRAW, JSON, Item, in_order, is_right, mixed
from tests.server.live import KEYS, PATIENCE, Live, served
from unitok import Model
from unitok.server import listen
from unitok.server.openapi import document
from unitok.server.settings import ServerSettings

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
# Hundreds of tokens, whatever the model says.
LONG = {"messages": HELLO["messages"], "regex": "([a-z] ){120}", "max_tokens": 300}
PAINTED = {"prompt": "a cat", "n": 2}


def post(path: str, body: object) -> Wanted:
    return Wanted(path, JSON, json.dumps(body).encode())


def head(wanted: Wanted) -> bytes:
    """A request that waits for no other on its connection."""
    lines = (
        f"POST {wanted.path} HTTP/1.1", "host: x", f"content-type: {wanted.content_type}",
        f"content-length: {len(wanted.body)}", f"authorization: Bearer {KEYS[0]}", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + wanted.body


def port_of(live: Live) -> int:
    return int(live.url.rpartition(":")[2])


def opened(live: Live, wanted: Wanted | bytes, buffer: int | None = None) -> socket.socket:
    """A connection on which a request was sent."""
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", port_of(live)))
    connection.sendall(wanted if isinstance(wanted, bytes) else head(wanted))
    return connection


def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(PATIENCE * 50):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(what)


def check_right(model: Model, wanted: Sequence[Item], answers: Sequence[Answer]) -> None:
    results = in_order(list(model.run([item.request for item in wanted])))
    assert [answer.status for answer in answers] == [200] * len(wanted)
    assert all(map(is_right, answers, results))


def test_mixed_requests_of_many_clients_are_the_librarys_byte_for_byte(model: Model):
    items = mixed(64, seed=1)
    with served(model, keys=()) as live:
        answers = closed_loop(live.url, [item.wanted for item in items], clients=64)
    check_right(model, items, answers)


def test_of_300_clients_that_leave_nothing_is_left(model: Model):
    """Of streams, plain requests, several answers, those that wait, and drawings."""
    kinds = [
        post(CHAT, LONG), post(CHAT, {**LONG, "stream": True}), post(CHAT, {**LONG, "n": 4}),
        post(CHAT, {**LONG, "n": 3, "stream": True}), post(DRAW, PAINTED),
        post(DRAW, {**PAINTED, "stream": True, "partial_images": 3}), mixed(3, 0)[2].wanted,
    ]  # fmt: skip
    chance = random.Random(0)

    async def leave(live: Live, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(live))
        writer.write(head(kinds[number % len(kinds)]))
        with suppress(TimeoutError):
            await asyncio.wait_for(
                reader.read(chance.choice((1, 100))), chance.choice((0, 0.05, 0.5))
            )
        writer.transport.abort()

    async def all_leave(live: Live) -> None:
        for start in range(0, 300, 60):
            await asyncio.gather(*(leave(live, number) for number in range(start, start + 60)))

    with served(model, settings=ServerSettings(max_requests=1000)) as live:
        with live.http() as http:
            assert http.post(CHAT, json=HELLO).status_code == 200
            before = model.stats()
            asyncio.run(all_leave(live))
            live.settle()  # and all blocks are free
            after = model.stats()
            assert after.generated_tokens - before.generated_tokens < 300 * 100
            assert http.post(CHAT, json=HELLO).status_code == 200
        until(lambda: not live.tasks(), "tasks are left")
        # Those of the model and of the pool stay for the next request.
        known = ("MainThread", "test-server", "unitok-", "asyncio_", "ThreadPoolExecutor")
        names = [thread.name for thread in threading.enumerate()]
        assert all(name.startswith(known) for name in names), names
        assert len(names) < 20


def test_a_thousand_idle_streams_harm_nobody(model: Model):
    """They wait for an engine that makes no step, and then 990 of their clients leave."""
    settings = ServerSettings(max_requests=1100, heartbeat_seconds=2.0)
    stream = post(CHAT, {**HELLO, "stream": True})
    go_on, stands = threading.Event(), threading.Event()

    def stand() -> None:
        stands.set()
        go_on.wait(PATIENCE)

    with served(model, settings=settings) as live, live.http() as http:
        expected = http.post(CHAT, json=HELLO).json()["choices"]
        standing = threading.Thread(target=model.driver.between_steps, args=(stand,))
        standing.start()
        try:
            assert stands.wait(PATIENCE)
            files = open_files()
            streams = [opened(live, stream) for _ in range(1000)]
            for connection in streams:
                assert b"200 OK" in connection.recv(2000)
            assert live.app.services.admission.admitted == 1000
            assert len(http.get("/v1/models").json()["data"]) == 1
            assert http.get("/ready").status_code == 200
            until(lambda: b": still here" in streams[0].recv(2000), "no heartbeat came")
            for connection in streams[10:]:
                connection.close()
        finally:
            go_on.set()
            standing.join(PATIENCE)
        assert http.post(CHAT, json=HELLO).json()["choices"] == expected
        for connection in streams[:10]:
            text = b""
            while b"[DONE]" not in text:
                text += (piece := connection.recv(2**16))
                assert piece
            connection.close()
        live.settle()
        until(lambda: open_files() <= files + 5, "files stay open")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_at_overload_each_request_is_answered_and_health_goes_on(model: Model):
    items = mixed(120, seed=2)
    with served(model, settings=ServerSettings(max_requests=8), keys=()) as live:
        done, health = threading.Event(), []

        def ask_health() -> None:
            with live.http(None) as http:
                while not done.wait(0.05):
                    health.append(http.get("/health").status_code)

        asking = threading.Thread(target=ask_health)
        asking.start()
        answers = closed_loop(live.url, [item.wanted for item in items], clients=40)
        done.set()
        asking.join(PATIENCE)
        rejected = live.app.services.admission.rejected
    assert health and set(health) == {200}
    refused = [answer for answer in answers if not answer.accepted]
    assert {(answer.status, answer.said) for answer in refused} == {(503, "overloaded")}
    assert all(answer.after is not None and int(answer.after) >= 1 for answer in refused)
    assert len(refused) == rejected
    accepted = [number for number, answer in enumerate(answers) if answer.accepted]
    assert len(accepted) >= 8
    check_right(model, [items[n] for n in accepted], [answers[n] for n in accepted])


def test_many_who_ask_for_health_wait_in_one_thread(model: Model):
    stands, go_on = threading.Event(), threading.Event()
    with served(model) as live, live.http() as http:
        assert http.get("/health").status_code == 200
        standing = threading.Thread(
            target=model.driver.between_steps, args=(lambda: (stands.set(), go_on.wait(PATIENCE)),)
        )
        standing.start()
        try:
            assert stands.wait(PATIENCE)
            before = threading.active_count()
            asking = [opened(live, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n") for _ in range(50)]
            assert http.get("/metrics").status_code == 200  # which needs a thread, too
            assert threading.active_count() <= before + 2
        finally:
            go_on.set()
            standing.join(PATIENCE)
        for connection in asking:
            assert connection.recv(2000).startswith(b"HTTP/1.1 200 ")
            connection.close()


def test_a_client_that_reads_nothing_of_its_stream_is_let_go(
    model: Model, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listen, "SEND_BUFFER", 2048)
    settings = ServerSettings(send_seconds=0.3, heartbeat_seconds=0.01)
    stands, go_on = threading.Event(), threading.Event()
    with caplog.at_level(logging.INFO, "unitok.server"), served(model, settings=settings) as live:
        # The engine stands still, so that only heartbeats fill the buffers.
        standing = threading.Thread(
            target=model.driver.between_steps, args=(lambda: (stands.set(), go_on.wait(PATIENCE)),)
        )
        standing.start()
        assert stands.wait(PATIENCE)
        slow = opened(live, post(CHAT, {**LONG, "n": 4, "stream": True}), buffer=1024)
        try:
            until(lambda: live.app.services.admission.admitted == 4, "it did not begin")
            until(lambda: live.app.idle, "it was not let go")
        finally:
            go_on.set()
            standing.join(PATIENCE)
            slow.close()
        live.settle()
        until(lambda: any("aborted" in r.getMessage() for r in caplog.records), "no log line")


def test_a_client_that_reads_nothing_of_plain_answers_is_let_go(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listen, "SEND_BUFFER", 2048)
    with served(model, settings=ServerSettings(send_seconds=0.3), keys=()) as live:
        asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 20
        slow = opened(live, asked, buffer=1024)
        until(lambda: bool(live.tasks()), "nothing waits")
        until(lambda: not live.tasks(), "it was not let go")
        read = 0
        with suppress(ConnectionResetError):
            while piece := slow.recv(2**16):
                read += len(piece)
        slow.close()
    assert read < 20 * len(json.dumps(document()))


def test_a_client_that_reads_slowly_gets_all(model: Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listen, "SEND_BUFFER", 2048)
    with served(model) as live:
        stream = post(CHAT, {**LONG, "stream": True, "seed": 5, "temperature": 1.0})
        slow = opened(live, stream, buffer=1024)
        text = b""
        while b"[DONE]" not in text:
            text += (piece := slow.recv(500))
            assert piece
            time.sleep(0.002)
        slow.close()
    events = [json.loads(x[6:]) for x in text.decode().splitlines() if x.startswith("data: {")]
    said = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert said.count(" ") == 120


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: x\r\n"])
def test_the_head_of_a_request_is_waited_for_only_so_long(model: Model, sent: bytes):
    with served(model, settings=ServerSettings(head_seconds=0.2)) as live, socket.socket() as slow:
        slow.settimeout(PATIENCE)
        slow.connect(("127.0.0.1", port_of(live)))
        slow.sendall(sent)
        with suppress(ConnectionResetError):
            assert slow.recv(100) == b""


def test_memory_stays_flat(model: Model):
    wanted = [post(CHAT, {**HELLO, "seed": seed}) for seed in range(200)]
    with served(model, keys=()) as live:
        closed_loop(live.url, wanted, clients=16)
        gc.collect()
        before = resident_bytes()
        answers = closed_loop(live.url, wanted * 2, clients=16)
        assert all(answer.accepted for answer in answers)
        gc.collect()
        assert resident_bytes() - before < 16 * 2**20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_connection_is_used_again(live: Live):
    async def twice() -> list[int]:
        client = Client(live.url)
        answers = [await client.ask(post("/v1/nothing", {})) for _ in range(2)]
        client.close()
        return [answer.status for answer in answers]

    assert asyncio.run(twice()) == [401, 401]
