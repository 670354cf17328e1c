"""`unitok serve --ray local --replicas 2`, driven by OpenAI's client: two replicas, one address."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import unitok
from tests.server.live import png
from unitok import Model

ROOT = Path(__file__).parents[2]
KEYS = ("first-key-of-the-tests", "second-key-of-the-tests")
PATIENCE = 300
IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"
# Two hundred tokens, whatever the model says.
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "what is this?"}],
    "regex": "([a-z] ){150}",
    "max_tokens": 400,
}
pytestmark = pytest.mark.timeout(2 * PATIENCE)


@dataclass(frozen=True)
class Cluster:
    """A server on Ray, in processes of its own.

    Attributes:
        process: The command.
        url: The address of all replicas.
        mark: A word in the environment of all its processes.
        said: What it has said on stderr so far.
    """

    process: subprocess.Popen[str]
    url: str
    mark: str
    said: list[str]

    def openai(self, key: str = KEYS[0]) -> openai.OpenAI:
        """OpenAI's client, which tries nothing twice."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def http(self, key: str | None = KEYS[0]) -> httpx2.Client:
        """A plain HTTP client."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    def replicas(self) -> set[int]:
        """The processes that hold a replica."""
        return {pid for pid, words in processes(self.mark) if b"ServeReplica:unitok" in words}


def processes(mark: str) -> Iterator[tuple[int, bytes]]:
    """Processes with a word in their environment, and their command lines."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                yield int(folder.name), (folder / "cmdline").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue


def command(*arguments: str, mark: str = "") -> subprocess.Popen[str]:
    """`unitok serve --ray`, with a word in the environment of all that it starts."""
    roots = os.pathsep.join(str(ROOT / part) for part in (".", "engine", "tokenizers"))
    return subprocess.Popen(
        [sys.executable, "-m", "unitok", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": roots,
            "UNITOK_TEST": mark,
            "OMP_NUM_THREADS": "1",
            "RAY_raylet_start_wait_time_s": str(PATIENCE),
        },
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two replicas of the embedded model, with two keys."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("\n".join(KEYS))
    mark, said = secrets.token_hex(8), []
    flags = ("--ray", "local", "--replicas", "2", "--api-key-file", str(keys), "--no-drafts")
    process = command(*flags, "--alias", "gpt-image-1", mark=mark)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            said.append(line)
            if line.startswith("2 replicas: "):
                break
        else:
            raise AssertionError("".join(said))
        url = said[-1].split()[-1]
        reading = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
        reading.start()
        yield Cluster(process, url, mark, said)
    finally:
        process.kill()
        for pid, _ in processes(mark):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """The embedded model."""
    with unitok.load() as loaded:
        yield loaded


def drawn_by(cluster: Cluster, seed: int) -> tuple[bytes, str]:
    """A picture, and the replica that has drawn it."""
    with cluster.http() as http:
        answer = http.post(IMAGES, json={"prompt": "a cat", "seed": seed})
    assert answer.status_code == 200, answer.text
    data = base64.b64decode(answer.json()["data"][0]["b64_json"])
    return data, answer.headers["x-unitok-replica"]


def test_both_replicas_draw_and_a_seed_is_the_same_picture_from_either(
    cluster: Cluster, model: Model
):
    expected = png(model.draw("a cat", seed=7).image)
    seen: set[str] = set()
    for _ in range(40):
        data, replica = drawn_by(cluster, 7)
        assert data == expected
        seen.add(replica)
        if len(seen) == 2:
            break
    assert len(seen) == len(cluster.replicas()) == 2


def is_running(cluster: Cluster, replica: str) -> bool:
    """Whether a replica runs something when it is asked next."""
    with cluster.http() as http, ThreadPoolExecutor(8) as pool:
        for _ in range(PATIENCE):  # of many at once, some reach the busier of two
            told = pool.map(lambda _: http.get("/v1/queue"), range(8))
            for one in [one for one in told if one.headers["x-unitok-replica"] == replica]:
                return bool(one.json()["running"])
    raise AssertionError("the replica answers nothing")


def test_streams_come_as_they_are_written(cluster: Cluster, model: Model):
    asked = {**LONG, "stream": True, "n": 8}
    with cluster.http() as http, http.stream("POST", CHAT, json=asked) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in got.iter_lines() if line.startswith("data: "))
        next(lines)
        assert is_running(cluster, got.headers["x-unitok-replica"]), "the first event is the last"
        assert len(list(lines)) > 800
    events: Any = cluster.openai().images.generate(
        prompt="a cat", stream=True, partial_images=2, extra_body={"seed": 7}
    )
    *previews, last = events
    assert [event.type for event in previews] == ["image_generation.partial_image"] * len(previews)
    assert previews and last.type == "image_generation.completed"
    assert base64.b64decode(last.b64_json) == png(model.draw("a cat", seed=7).image)


def test_a_client_that_leaves_takes_its_requests_along(cluster: Cluster):
    with (
        cluster.http() as http,
        http.stream("POST", CHAT, json={**LONG, "stream": True, "n": 8}) as got,
    ):
        next(line for line in got.iter_lines() if line)
    with cluster.http() as http:
        for _ in range(PATIENCE):
            told = [http.get("/v1/queue") for _ in range(8)]
            busy = [one.json()["running"] for one in told]
            if len({one.headers["x-unitok-replica"] for one in told}) == 2 and not any(busy):
                return
            time.sleep(0.2)
    raise AssertionError(f"requests still run: {busy}")


def test_keys_are_needed_as_ever(cluster: Cluster):
    for key in (None, "not-a-key-of-the-tests"):
        with cluster.http(key) as http:
            assert http.post(IMAGES, json={"prompt": "a cat"}).status_code == 401
            assert http.get("/ready").status_code == 200
    with cluster.http(KEYS[1]) as http:
        assert http.get("/v1/models").json()["data"][1]["id"] == "gpt-image-1"


def test_what_one_replica_would_keep_is_refused(cluster: Cluster):
    client = cluster.openai()
    made = client.responses.create(model="default", input="what is a cat?")
    assert made.model_dump()["store"] is False
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="default", input="hm?", previous_response_id=made.id)
    assert caught.value.code == "responses_not_kept"
    with pytest.raises(openai.NotFoundError):
        client.files.list()


def test_a_killed_replica_has_a_successor(cluster: Cluster, model: Model):
    expected = png(model.draw("a cat", seed=8).image)
    before = cluster.replicas()
    victim = before.pop()
    os.kill(victim, signal.SIGKILL)
    now: set[int] = set()
    for _ in range(PATIENCE):  # until there are two again; one draws on meanwhile
        time.sleep(1)
        if len(now := cluster.replicas()) == 2 and victim not in now:
            break
    assert len(now) == 2 and before < now
    (successor,) = now - before
    for _ in range(PATIENCE):
        data, replica = drawn_by(cluster, 8)
        assert data == expected
        if replica.endswith(f"-{successor}"):
            return
        time.sleep(0.2)
    raise AssertionError("the successor draws nothing")


def test_at_a_signal_what_runs_is_finished_and_nothing_is_left(cluster: Cluster):
    """The last test of the module: the server has ended afterwards."""
    answers: list[httpx2.Response] = []

    def ask() -> None:
        with cluster.http() as http:
            answers.append(http.post(CHAT, json=LONG))

    asking = threading.Thread(target=ask)
    asking.start()
    with cluster.http() as http:
        while not any(http.get("/v1/queue").json()["running"] for _ in range(4)):
            assert asking.is_alive() or not answers
            if not asking.is_alive():
                break
    cluster.process.send_signal(signal.SIGTERM)
    asking.join(PATIENCE)
    assert answers[0].status_code == 200
    assert cluster.process.wait(PATIENCE) == 0
    for _ in range(PATIENCE):
        if not (left := list(processes(cluster.mark))):
            break
        time.sleep(0.2)
    assert left == []
    said = "".join(cluster.said)
    assert "Traceback" not in said
    assert '"route": "/v1/chat/completions", "status": 200' in said, "a line for each request"
    assert "draining: running requests have 30 s" in said


def test_replicas_that_cannot_start_are_said_in_one_line():
    mark = secrets.token_hex(8)
    process = command("--ray", "local", "/nowhere/model", mark=mark)
    try:
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        for pid, _ in processes(mark):
            os.kill(pid, signal.SIGKILL)
    assert process.returncode == 2
    line = said.strip().splitlines()[-1]
    assert line.startswith("unitok: the replicas do not start: "), said
    assert "/nowhere/model" in line
