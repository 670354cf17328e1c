"""A hundred mixed requests, killed and resumed, give what an unbroken run gives, byte by byte."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest

import unitok
from tests.unitok.batches import by_line, results, runner, work_in, write

WHEN = ("seconds", "created")  # keys that differ from run to run


def mixed(count: int) -> list[dict]:
    """Questions, conversations and drawings in both forms of lines, in a fixed random order."""
    rng, lines = random.Random(11), []
    for i in range(count):
        seed = {"seed": i} if rng.random() < 0.5 else {}
        said = [{"role": "user", "content": f"what is {i}?"}]
        drawn = {"prompt": f"a cat and {i} dogs", "n": i % 3 + 1, **seed}
        lines += rng.choice(
            [
                [{"caption": "scene.png", "question": f"is it {i}?", "max_tokens": 1 + i % 9}],
                [{"messages": said, "temperature": 1, "max_tokens": 8, **seed}],
                [{"draw": f"a cat and {i} dogs", "n": i % 3 + 1, **seed}],
                [{"draw": f"{i} dogs", "guidance": 1.0 + i % 4, **seed}],
                [openai_line(i, "/v1/images/generations", drawn)],
                [openai_line(i, "/v1/chat/completions", {"messages": said, "max_tokens": 5})],
            ]
        )
    return lines


def openai_line(number: int, url: str, body: dict) -> dict:
    return {"custom_id": str(number), "method": "POST", "url": url, "body": body}


def without_times(value):
    """A record without the times that it was made at."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in WHEN}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


def killed_after(count: int, source: Path, out: Path, model: Path) -> None:
    """Start the command, and kill it when there are so many results."""
    process = subprocess.Popen(
        [sys.executable, "-m", "unitok", "batch", source, "-o", out, "--model", model],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    journal = out / "results.jsonl"
    while process.poll() is None:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= count:
            break
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(short_folder, tmp_path_factory) -> Path:
    """A folder with the lines and what an unbroken run makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    write(work_in(folder / "input"), mixed(100))
    done = runner(short_folder, folder)(folder / "input/work.jsonl")
    assert "100 new, 0 kept, 0 failed" in done.stdout, done.output
    return folder


def test_a_killed_and_resumed_batch_gives_what_an_unbroken_one_gives(whole, short_folder, tmp_path):
    source, out = whole / "input/work.jsonl", tmp_path / "out"
    killed_after(30, source, out, short_folder)
    kept = len(results(out))
    assert 30 <= kept < 100
    done = runner(short_folder, tmp_path)(source)
    assert f"{100 - kept} new, {kept} kept, 0 failed" in done.stdout, done.output
    assert without_times(by_line(out)) == without_times(by_line(whole / "out"))
    assert pictures(out) == pictures(whole / "out")


def test_a_drawing_of_a_batch_has_the_bytes_of_one_that_is_drawn_alone(whole, short_folder):
    drawings = [r for r in by_line(whole / "out") if "pictures" in r]
    assert len(drawings) >= 20
    model = unitok.load(short_folder)
    for record in itertools.islice(drawings, 0, None, 3):
        options = {k: v for k, v in record["request"].items() if k not in ("draw", "seed")}
        alone = model.draw(record["request"]["draw"], seed=record["seed"], **options)
        for name, image in zip(record["pictures"], alone.images, strict=True):
            assert (whole / "out" / name).read_bytes() == png(image)


def png(image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
