"""How batches end: completed, cancelled, expired or failed, now or after the next start."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.keeping import CHAT, begin, chat, ended, jsonl, keeping, records, send
from tests.server.live import KEYS, Live
from unitok import Model
from unitok.server.state import batch_store, work
from unitok.server.state.file_store import FileStore


class Held:
    """Holds the model's lines back until they are let go."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._held, self._job = True, model.prepare.job_or_failure
        monkeypatch.setattr(model.prepare, "job_or_failure", self._later)
        monkeypatch.setattr(work, "IN_FLIGHT", 2)

    def _later(self, asked: Any, index: int, *rest: Any) -> Any:
        self.begun += 1
        while self._held and index:
            time.sleep(0.005)
        return self._job(asked, index, *rest)

    def until(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not what():
            assert time.monotonic() < end
            time.sleep(0.005)

    def release(self) -> None:
        self._held = False

    def hold(self) -> None:
        self._held = True


@pytest.fixture
def held(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    holding = Held(tiny, monkeypatch)
    yield holding
    holding.release()


def test_a_batch_goes_on_without_its_input_file(client: openai.OpenAI, held: Held):
    batch = begin(client, [chat(str(i)) for i in range(3)])
    client.files.delete(batch.input_file_id)
    held.release()
    done = ended(client, batch)
    assert done.status == "completed" and len(records(client, done.output_file_id)) == 3


def test_the_input_of_a_batch_counts_until_the_batch_ends(tiny: Model, tmp_path: Path, held: Held):
    lines = [chat(str(i), user="x" * 5000) for i in range(3)]
    size = len(jsonl(lines))
    with keeping(tmp_path, tiny, max_stored=size * 3 // 2) as live:
        client = live.openai()
        batch = begin(client, lines)
        held.until(lambda: held.begun == 2)
        client.files.delete(batch.input_file_id)
        for _ in range(2):
            with pytest.raises(openai.PermissionDeniedError) as caught:
                send(client, jsonl(lines))
            assert caught.value.code == "storage_full"
        send(live.openai(KEYS[1]), jsonl(lines))  # another owner's room is their own
        held.release()
        done = ended(client, batch)
        assert len(records(client, done.output_file_id)) == 3
        send(client, b"x" * (size * 3 // 2 - 4000))


def test_the_input_counts_once_while_its_file_is_there_and_after_a_start(
    tiny: Model, tmp_path: Path, held: Held
):
    lines = [chat(str(i), user="x" * 5000) for i in range(8)]
    most = len(jsonl(lines)) * 3 // 2
    with keeping(tmp_path, tiny, max_stored=most) as live:
        batch = begin(live.openai(), lines)
        held.until(lambda: held.begun == 2)
        left = most - len(jsonl(lines))
        live.openai().files.delete(send(live.openai(), b"x" * left).id)
        live.openai().files.delete(batch.input_file_id)
        live.app.drain()
        held.release()
        live.settle()
    held.hold()
    with keeping(tmp_path, tiny, max_stored=most) as live:
        with pytest.raises(openai.PermissionDeniedError):
            send(live.openai(), b"x" * (left + 1))
        held.release()
        assert ended(live.openai(), batch).status == "completed"


def test_a_cancelled_batch_keeps_its_results_and_names_the_lines_that_were_not_run(
    client: openai.OpenAI, held: Held
):
    batch = begin(client, [chat(str(i)) for i in range(6)])
    held.until(lambda: held.begun == 2)
    assert client.batches.cancel(batch.id).status == "cancelling"
    assert client.batches.cancel(batch.id).status == "cancelling"
    held.release()
    done = ended(client, batch)
    assert done.status == "cancelled" and done.cancelling_at and done.cancelled_at
    finished, left = records(client, done.output_file_id), records(client, done.error_file_id)
    assert [r["custom_id"] for r in finished + left] == [str(i) for i in range(6)]
    assert len(finished) == 2
    assert {r["error"]["code"] for r in left} == {"batch_cancelled"}
    assert {r["response"] for r in left} == {None}
    with pytest.raises(openai.ConflictError) as caught:
        client.batches.cancel(batch.id)
    assert caught.value.code == "batch_ended"


def test_a_batch_that_waits_is_cancelled_at_once(client: openai.OpenAI, held: Held):
    first = begin(client, [chat(str(i)) for i in range(3)])
    held.until(lambda: held.begun == 2)
    second = begin(client, [chat("a")])
    client.batches.cancel(second.id)
    done = ended(client, second)
    assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)
    assert client.batches.retrieve(first.id).status == "in_progress"
    held.release()
    assert ended(client, first).status == "completed"


def test_an_expired_batch_keeps_its_results(
    client: openai.OpenAI, held: Held, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch_store, "WINDOW_SECONDS", 3600)
    batch = begin(client, [chat(str(i)) for i in range(4)])
    held.until(lambda: held.begun == 2)
    monkeypatch.setattr(batch_store, "WINDOW_SECONDS", -1)
    held.release()
    done = ended(client, batch)
    assert done.status == "expired" and done.expired_at
    finished, left = records(client, done.output_file_id), records(client, done.error_file_id)
    assert [r["custom_id"] for r in finished + left] == [str(i) for i in range(4)]
    assert {r["error"]["code"] for r in left} == {"batch_expired"}


def test_an_owner_has_only_so_many_batches_at_once(kept: Live, held: Held):
    client = kept.openai()
    batches = [begin(client, [chat(str(i)) for i in range(2)]) for _ in range(3)]
    with pytest.raises(openai.RateLimitError) as caught:
        begin(client, [chat("a")])
    assert caught.value.code == "too_many_batches"
    other = begin(kept.openai(KEYS[1]), [chat("a")])
    assert ended(kept.openai(KEYS[1]), other).status == "completed"  # while the first one is held
    held.release()
    assert {ended(client, batch).status for batch in batches} == {"completed"}


def test_a_server_that_ends_stops_a_batch_between_lines_and_the_next_one_goes_on(
    tiny: Model, tmp_path: Path, held: Held
):
    with keeping(tmp_path, tiny) as first:
        batch = begin(first.openai(), [chat(str(i)) for i in range(8)])
        held.until(lambda: held.begun == 2)
        first.app.drain()
        assert not first.app.idle
        held.release()
        first.settle()
        stopped = first.openai().batches.retrieve(batch.id)
        assert stopped.status == "in_progress"
    journal = tmp_path / "batches" / batch.id / "results.jsonl"
    finished = journal.read_bytes().splitlines()
    assert len(finished) == 2 == held.begun
    with keeping(tmp_path, tiny) as second:
        done = ended(second.openai(), batch)
        told = second.openai().files.content(done.output_file_id or "").content.splitlines()
        assert told[:2] == finished and held.begun == 8
        assert sorted(json.loads(one)["line"] for one in told) == list(range(1, 9))
    assert [path.name for path in journal.parent.iterdir()] == ["batch.json"]


def test_a_batch_ends_if_its_model_has_changed(tiny: Model, tmp_path: Path, held: Held):
    with keeping(tmp_path, tiny) as first:
        batch = begin(first.openai(), [chat(str(i)) for i in range(4)])
        held.until(lambda: held.begun == 2)
        first.app.drain()
        held.release()
    with keeping(tmp_path, tiny, identity="another") as second:
        done = ended(second.openai(), batch)
        assert done.status == "failed" and done.errors is not None and done.errors.data is not None
        assert [error.code for error in done.errors.data] == ["model_changed"]
        assert len(records(second.openai(), done.output_file_id)) == 2


def test_a_batch_that_the_server_fails_at_says_so(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(work.Journal, "append", broken)
    done = ended(client, begin(client, [chat("a")]))
    assert done.status == "failed" and done.errors is not None and done.errors.data is not None
    assert [error.code for error in done.errors.data] == ["internal_error"]


def test_a_batch_whose_files_cannot_be_written_gets_them_at_the_next_start(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The results are in the place of their file already, but nothing says whose they are."""

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with keeping(tmp_path, tiny) as first, monkeypatch.context() as patch:
        input_id = send(first.openai(), jsonl([chat("a"), chat("b", temprature=1)])).id
        patch.setattr(FileStore, "_keep", broken)
        batch = first.openai().batches.create(
            input_file_id=input_id, endpoint=CHAT, completion_window="24h"
        )
        first.settle()
        left = first.openai().batches.retrieve(batch.id)
        assert (left.status, left.output_file_id) == ("finalizing", None)
        assert len(list((tmp_path / "files").glob("*.data"))) == 2
    with keeping(tmp_path, tiny) as second:
        done = ended(second.openai(), batch)
        assert done.status == "completed"
        assert [r["custom_id"] for r in records(second.openai(), done.output_file_id)] == ["a"]
        assert [r["custom_id"] for r in records(second.openai(), done.error_file_id)] == ["b"]
