"""`unitok serve` is killed and ended amid a batch: each line is answered once all the same."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

import unitok
from tests.server.keeping import IMAGES, begin, drawing, ended, jsonl, records
from tests.server.live import KEYS
from unitok.batch.keys import model_identity
from unitok.batch.runner import run_batch
from unitok.batch.source import Source

LINES = 50
PATIENCE = 100


@contextmanager
def serving(model: Path, state: Path, keys: Path) -> Iterator[tuple[subprocess.Popen, Any]]:
    """Run `unitok serve` while the block runs, and give a client of it."""
    words = ["serve", model, "--state", state, "--api-key-file", keys, "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unitok", *map(str, words)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        found = re.search(r"http://\S+", first)
        assert found is not None, first + process.stderr.read()
        yield (
            process,
            openai.OpenAI(base_url=f"{found[0]}/v1", api_key=KEYS[0], max_retries=3),
        )
    finally:
        process.kill()
        process.communicate()


def results_above(journal: Path, count: int) -> None:
    """Wait until there are so many results."""
    end = time.monotonic() + PATIENCE
    while not journal.is_file() or journal.read_bytes().count(b"\n") < count:
        assert time.monotonic() < end
        time.sleep(0.002)


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(record), object_hook=lambda o: {**o, "created": 0})


@pytest.mark.timeout(400)
def test_a_batch_survives_a_killed_server_and_an_ended_one(untrained_folder: Path, tmp_path: Path):
    state, keys = tmp_path / "state", tmp_path / "keys"
    keys.write_text("\n".join(KEYS))
    lines = [drawing(f"picture {i}", prompt=f"a cat and {i} dogs") for i in range(LINES)]
    lines[7] = drawing("wrong", n=0)
    with serving(untrained_folder, state, keys) as (process, client):
        batch = begin(client, lines, IMAGES)
        journal = state / "batches" / batch.id / "results.jsonl"
        results_above(journal, 8)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    # What a kill at another moment leaves: half a result, and half an upload.
    killed = journal.read_bytes()
    assert 8 <= killed.count(b"\n") < LINES - 20
    journal.write_bytes(killed + b'{"id": "batch_req_')
    (state / "files" / f"file-{'0' * 32}.part").write_bytes(b"half")
    with serving(untrained_folder, state, keys) as (process, client):
        results_above(journal, killed.count(b"\n") + 4)
        assert client.batches.retrieve(batch.id).status == "in_progress"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    stopped = journal.read_bytes()
    assert stopped.startswith(killed[: killed.rindex(b"\n")]) and stopped.endswith(b"\n")
    assert killed.count(b"\n") < stopped.count(b"\n") < LINES - 1
    with serving(untrained_folder, state, keys) as (_, client):
        done = ended(client, batch)
        assert done.status == "completed" and done.request_counts is not None
        counts = done.request_counts
        assert (counts.total, counts.completed, counts.failed) == (LINES, LINES - 1, 1)
        told = records(client, done.output_file_id)
        (wrong,) = records(client, done.error_file_id)
        assert len(list(client.files.list())) == 3
        assert client.files.content(done.output_file_id or "").content.startswith(stopped)
    assert wrong["custom_id"] == "wrong"
    assert [record["custom_id"] for record in [*told, wrong]] == [
        *(line["custom_id"] for line in lines if line["custom_id"] != "wrong"),
        "wrong",
    ]
    (tmp_path / "in.jsonl").write_bytes(jsonl(lines))
    with unitok.load(untrained_folder) as model:
        identity = model_identity(untrained_folder)
        list(run_batch(model, Source(tmp_path / "in.jsonl"), tmp_path, identity))
    unbroken = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert [without_times(record) for record in told] == sorted(
        map(without_times, unbroken), key=lambda record: record["line"]
    )
