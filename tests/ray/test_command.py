"""`unitok batch --ray`, killed and run again, and used wrongly."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.ray.batches import (
    command,
    environment,
    mixed,
    records,
    run_unitok,
    without_times,
    write_work,
)

LINES = 96


def parts(out: Path) -> int:
    return len(list((out / "results").glob("lines-*")))


def killed_after(count: int, *words: str | Path) -> None:
    """Start the command, and kill it when there are so many files of results."""
    out = Path(words[words.index("-o") + 1])
    process = subprocess.Popen(
        command(*words), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and parts(out) < count:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.timeout(900)  # it starts Ray twice
def test_a_command_that_is_killed_goes_on_where_it_stopped(short_folder, tmp_path):
    lines = mixed(LINES)
    work, out = write_work(tmp_path / "in", lines), tmp_path / "out"
    words = ["batch", work, "-o", out, "--model", short_folder, "--ray", "local", "--replicas", "2"]
    killed_after(1, *words)
    kept = records(out)
    done = run_unitok(*words)
    errors = records(out, "errors")
    assert done.returncode == 1, done.stderr
    summary = f"{out}/results: {LINES - len(errors) - len(kept)} new, {len(kept)} kept, "
    assert done.stdout == f"{summary}{len(errors)} failed\n"
    found = [record["line"] for record in [*records(out), *errors]]
    assert sorted(found) == list(range(1, LINES + 1))
    assert all(record in without_times(records(out)) for record in without_times(kept))
    named = [name for record in records(out) for name in record.get("pictures", ())]
    assert len(named) == len(set(named)) > 0
    for name in named:
        with Image.open(out / name) as picture:
            picture.load()
    told = done.stderr.splitlines()
    assert sum(line.startswith("unitok: line ") for line in told) == len(errors)
    assert sum(line.startswith("replica on ") and line.endswith(" lines/s") for line in told) >= 1


def test_wrong_use_is_one_line_before_ray_starts(short_folder, tmp_path):
    work = write_work(tmp_path / "in", [{"draw": "a cat"}])
    full = tmp_path / "full"
    full.mkdir()
    (full / "photo.jpg").touch()
    for words, told in (
        (["-o", tmp_path / "out", "--replicas", "2"], "--replicas and its like need --ray: add"),
        (["-o", tmp_path / "out", "--ray", "here"], "--ray takes local, auto or HOST:PORT"),
        (["-o", tmp_path / "out", "--ray", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
        (["-o", "hdfs://a/b", "--ray", "local"], "hdfs://a/b"),
        (["-o", tmp_path / "out", "--ray", "local", "--gpus-per-replica", "1.5"], "a part of one"),
    ):
        done = run_unitok("batch", work, "--model", short_folder, *words)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("unitok: ")
        assert told in done.stderr
