"""When a disk is full, a batch says so, keeps what is finished, and goes on later."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unitok.batches import WORK, results, runner, work_in, write
from unitok import saving as saving_module
from unitok.batch import journal as journal_module


@pytest.fixture
def source(tmp_path) -> Path:
    return work_in(tmp_path / "input")


@pytest.fixture
def batch(short_folder, tmp_path):
    return runner(short_folder, tmp_path)


def test_a_full_disk_is_told_with_the_file_and_what_is_kept(batch, source, tmp_path, monkeypatch):
    write(source, [line for line in WORK if "caption" in line])
    write_all, written = journal_module.write_all, []

    def full(file, data):
        if len(written) == 2:
            write_all(file, data[:40])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(data)
        write_all(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "write_all", full)
        done = batch(source)
    assert done.exit_code == 2
    assert done.stderr == (
        f"unitok: {tmp_path / 'out/results.jsonl'}: No space left on device; "
        "finished results are kept, and the same command resumes from there\n"
    )
    assert (tmp_path / "out/results.jsonl").read_bytes() == b"".join(written)
    assert "1 new, 2 kept, 0 failed" in batch(source).stdout


def test_what_cannot_be_flushed_to_disk_is_no_result(batch, source, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(source, WORK[1:2])
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", full)
        done = batch(source)
    assert done.exit_code == 2 and "results.jsonl: No space left on device; " in done.stderr
    assert results(tmp_path / "out") == []
    assert "1 new, 0 kept, 0 failed" in batch(source).stdout


def test_a_picture_that_cannot_be_saved_is_told_and_leaves_nothing(
    batch, source, tmp_path, monkeypatch
):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(source, WORK[:1])
    with monkeypatch.context() as patch:
        patch.setattr(saving_module.os, "fsync", full)
        done = batch(source)
    assert done.exit_code == 2
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith(f"unitok: {tmp_path / 'out/pictures/000001-'}")
    assert complaint.endswith("the same command resumes from there")
    assert list((tmp_path / "out/pictures").iterdir()) == []
    assert "1 new, 0 kept, 0 failed" in batch(source).stdout


def test_a_real_limit_of_the_size_of_files_loses_nothing(batch, source, tmp_path, short_folder):
    """RLIMIT_FSIZE stands for a full disk: a write is cut short, and the next one fails."""
    lines = [{"caption": "scene.png", "max_tokens": n % 3 + 1, "seed": n} for n in range(12)]
    code = (
        "import resource, sys; from unitok.cli import app; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); app(sys.argv[1:])"
    )
    words = ["batch", str(write(source, lines)), "-o", "out", "--model", str(short_folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2, process.stderr
    assert "out/results.jsonl: File too large; finished results are kept" in process.stderr
    kept = results(tmp_path / "out")
    assert 0 < len(kept) < 12
    assert (tmp_path / "out/results.jsonl").read_bytes().endswith(b"}\n")
    assert f"{12 - len(kept)} new, {len(kept)} kept, 0 failed" in batch(source).stdout
    assert len({r["key"] for r in results(tmp_path / "out")}) == 12
