"""Ctrl-C in the middle of each command: a clear line, exit code 130, and nothing is lost."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.unitok.terminals import program_in_terminal, start, wait_for
from unitok.cli import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the program runs."""
    (tmp_path / "here").mkdir()
    Image.new("RGB", (64, 64), "pink").save(tmp_path / "scene.png")
    return tmp_path / "here"


@pytest.fixture
def begin(folder, untrained_folder):
    """Start a command; it is killed if the test leaves it."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        words = (*words, "--model", untrained_folder)
        pipe = subprocess.PIPE
        started.append(start(words, folder, stdin=pipe, stdout=pipe, stderr=pipe))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Press Ctrl-C; what is then on stdout, and the lines on stderr."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return out, err.splitlines()


def wait_for_line(process: subprocess.Popen[str], begin: str) -> None:
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith(begin):
        assert line, "it ended"


def check_pictures(folder: Path) -> int:
    """How many pictures there are; every one is whole, and there is nothing else."""
    files = list(folder.iterdir())
    for file in files:
        with Image.open(file) as picture:
            picture.load()
    return len(files)


@pytest.mark.parametrize(("command", "working"), [("info", "loading"), ("demo", "drawing")])
def test_what_has_nothing_to_keep_stops(command, working, begin, folder):
    process = begin(command, "-v")
    wait_for_line(process, f"info: {working}")
    out, err = interrupt(process)
    assert (process.returncode, out, err[-1]) == (130, "", "unitok: stopped")
    assert all(line.startswith("info: ") for line in err[:-1])
    assert list(folder.iterdir()) == []


def test_captions_that_are_finished_were_printed(begin, folder):
    process = begin("caption", *["../scene.png"] * 400, "--max-tokens", 8)
    first = process.stdout.readline()
    out, err = interrupt(process)
    lines = (first + out).splitlines()
    assert process.returncode == 130
    assert set(lines) == {first.strip()} and len(lines) < 400
    assert err == [f"unitok: stopped; {len(lines)} of 400 files are done"]


def test_pictures_that_are_painted_are_saved_and_none_is_half_written(begin, folder):
    process = begin("draw", "a cat", "-o", "cat.png", "-n", 300, "--seed", 7)
    wait_for(lambda: process.poll() is not None or (folder / "cat-0.png").exists())
    out, err = interrupt(process)
    count = check_pictures(folder)
    assert process.returncode == 130
    assert 0 < count < 300
    assert out.splitlines()[0] == "cat-0.png: seed 7, sample 0"
    assert len(out.splitlines()) == count
    assert err == [f"unitok: stopped; {count} of 300 pictures are saved"]


def test_a_batch_keeps_its_results_and_goes_on(begin, folder, untrained_folder):
    source, out = folder.parent / "work.jsonl", folder / "out"
    source.write_text('{"draw": "a cat"}\n' * 70)
    process = begin("batch", source, "-o", "out")
    journal = out / "results.jsonl"
    wait_for(lambda: process.poll() is not None or (journal.exists() and journal.stat().st_size))
    told, err = interrupt(process)
    assert (process.returncode, told) == (130, "")
    assert err == [
        "unitok: stopped; out keeps what is finished, and the same command resumes from there"
    ]
    kept = [json.loads(line) for line in journal.read_text().splitlines()]
    assert 0 < len(kept) < 70
    words = ["batch", str(source), "-o", str(out), "--model", str(untrained_folder)]
    done = CliRunner().invoke(app, words)
    assert f"{70 - len(kept)} new, {len(kept)} kept, 0 failed" in done.stdout
    assert check_pictures(out / "pictures") == 70


def test_a_chat_that_nobody_types_ends_politely(begin):
    process = begin("chat")
    print("is there a cat?", file=process.stdin, flush=True)
    answer = process.stdout.readline()
    print("is there a cat?", file=process.stdin, flush=True)
    out, err = interrupt(process)
    assert answer.strip()
    assert (process.returncode, out, err) == (0, "\n", [])


def test_a_chat_that_somebody_types_goes_on(folder, untrained_folder):
    words = ("chat", "--model", untrained_folder)
    with program_in_terminal(*words, folder=folder) as (terminal, process):
        terminal.expect("/quit\n> ")
        terminal.type("is there a cat?\n")
        terminal.expect("cat?\n")
        wait_for(lambda: terminal.read() and not terminal.shown.endswith("cat?\n"))
        terminal.type("\x03")
        terminal.expect("\nunitok: stopped; the chat goes on\n> ")
        terminal.type("/draw a cat\n")
        terminal.expect("drawing")
        terminal.type("\x03")
        terminal.expect("unitok: stopped; the chat goes on\n> ")
        terminal.type("half a line")
        terminal.expect("half a line")
        terminal.interrupt_prompt()
        terminal.expect("\n> ")
        terminal.type("/help\n")
        terminal.expect("/draw PROMPT")
        terminal.expect("\n> ")
        terminal.interrupt_prompt()
        terminal.read_all()
        assert process.wait(60) == 0
    assert "Traceback" not in terminal.shown
    assert list(folder.iterdir()) == []
