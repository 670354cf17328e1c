"""A run on several replicas: what it writes, what kills leave, and what ends it."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.ray.batches import (
    mixed,
    pictures,
    plain_records,
    records,
    run,
    without_times,
    write_work,
)
from tests.ray.loaders import DEADLY, deadly, dying_at_start, found_by, in_the_way, wrong
from unitok.backends.ray.api import started
from unitok.backends.ray.cluster import Replicas
from unitok.backends.ray.lines import lines_of_file
from unitok.backends.ray.output import Output
from unitok.backends.ray.replica import Work
from unitok.cli import app

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(900)]
LINES = 48


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_work(tmp_path_factory.mktemp("input"), mixed(LINES))


@pytest.fixture(scope="module")
def plain(source, short_folder, tmp_path_factory) -> Path:
    """What `unitok batch` makes of the lines without Ray."""
    out = tmp_path_factory.mktemp("plain")
    words = ["batch", source, "-o", out, "--model", short_folder]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 1
    return out


def kill_replicas(pids: Path, out: Path, times: int, killed: list[int]) -> None:
    """Kill replicas one after another, each as soon as two more files of results are there."""
    while len(killed) < times:
        there = len(list((out / "results").glob("lines-*"))) if (out / "results").is_dir() else 0
        living = sorted({int(p.name) for p in pids.glob("*")} - set(killed)) if there else []
        if living and there >= 1 + 2 * len(killed):
            os.kill(living[0], signal.SIGKILL)
            killed.append(living[0])
        time.sleep(0.005)


def test_replicas_that_are_killed_give_what_one_process_gives(
    source, plain, short_folder, tmp_path
):
    out, pids, killed = tmp_path / "out", tmp_path / "pids", list[int]()
    threading.Thread(target=kill_replicas, args=(pids, out, 3, killed), daemon=True).start()
    report = run(source, out, short_folder, found_by(pids, short_folder), replicas=2)
    assert len(killed) == 3
    failed = plain_records(plain / "errors.jsonl")
    assert (report.new, report.kept) == (LINES - len(failed), 0)
    assert [one.line for one in report.failed] == [one["line"] for one in failed]
    assert without_times(records(out)) == without_times(plain_records(plain / "results.jsonl"))
    assert without_times(records(out, "errors")) == without_times(failed)
    assert pictures(out) == pictures(plain)
    assert sum(replica.lines for replica in report.replicas) == LINES
    assert all(replica.lines_per_second > 0 for replica in report.replicas)


def test_a_later_run_keeps_results_and_tries_failed_lines_again(short_folder, tmp_path):
    lines = [{"draw": "a cat", "seed": 1}, {"caption": "later.png", "max_tokens": 2}]
    source, out = write_work(tmp_path / "in", [*lines, *lines, {"draw": "a dog"}]), tmp_path / "out"
    load = found_by(tmp_path / "pids", short_folder)
    first = run(source, out, short_folder, load, part=2)
    assert (first.new, first.kept, len(first.failed)) == (3, 0, 2)
    before = {p.name: p.stat().st_mtime_ns for p in (out / "results").iterdir()}
    (tmp_path / "in/scene.png").rename(tmp_path / "in/later.png")
    second = run(source, out, short_folder, load, part=2)
    assert (second.new, second.kept, len(second.failed)) == (2, 3, 0)
    assert [record["line"] for record in records(out)] == [1, 2, 3, 4, 5]
    assert list((out / "errors").iterdir()) == []
    whole = "lines-000000005-000000005.jsonl"
    assert (out / "results" / whole).stat().st_mtime_ns == before[whole]
    with pytest.raises(ValueError, match="other lines"):
        run(write_work(tmp_path / "in", lines), out, short_folder, wrong, part=2)
    with pytest.raises(ValueError, match="other lines per part"):
        run(
            write_work(tmp_path / "in", [*lines, *lines, {"draw": "a dog"}]),
            out,
            short_folder,
            wrong,
        )


def test_a_line_that_kills_every_replica_has_an_error_and_the_others_go_on(short_folder, tmp_path):
    lines = [{"draw": "a cat"}, {"draw": DEADLY, "id": "deadly"}, {"draw": "a dog"}]
    source, out = write_work(tmp_path / "in", lines), tmp_path / "out"
    report = run(source, out, short_folder, deadly(short_folder), part=3)
    assert (report.new, [one.line for one in report.failed]) == (2, [2])
    assert "the process of the replica died each time" in report.failed[0].error
    assert [record["line"] for record in records(out)] == [1, 3]
    assert records(out, "errors")[0]["id"] == "deadly"


def test_a_replica_that_dies_at_every_start_ends_the_run(short_folder, tmp_path):
    source, out = write_work(tmp_path / "in", [{"draw": "a cat"}]), tmp_path / "out"
    starts = tmp_path / "starts"
    with pytest.raises(RuntimeError, match=r"died 3 times in a row while it loaded the model"):
        run(source, out, short_folder, dying_at_start(starts))
    assert starts.read_text() == "died\n" * 3
    good = run(source, out, short_folder, found_by(tmp_path / "pids", short_folder))
    assert (good.new, good.failed) == (1, ())


def test_a_model_that_cannot_be_loaded_ends_the_run(short_folder, tmp_path):
    source = write_work(tmp_path / "in", [{"draw": "a cat"}])
    told = r"a replica cannot load the model: config\.json is damaged; finished results are kept"
    with pytest.raises(RuntimeError, match=told):
        run(source, tmp_path / "out", short_folder, wrong)


def test_an_output_that_cannot_be_written_ends_the_run(short_folder, tmp_path):
    source, out = write_work(tmp_path / "in", [{"draw": "a cat"}]), tmp_path / "out"
    load = in_the_way(out / "results", short_folder)
    with pytest.raises(RuntimeError, match=r"out/results.*; finished results are kept"):
        run(source, out, short_folder, load)


def test_a_cluster_without_gpus_is_told_before_anything_is_written(short_folder, tmp_path):
    source, out = write_work(tmp_path / "in", [{"draw": "a cat"}]), tmp_path / "out"
    work = Work(Output.at(str(out)), "jsonl", tmp_path, "a model", wrong)
    lines = lines_of_file(str(source))
    with (
        pytest.raises(ValueError, match="the cluster has none"),
        started(lines, work, Replicas(gpus=1)),
    ):
        raise AssertionError("it has begun")
    assert list(out.iterdir()) == []
