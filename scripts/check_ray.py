"""Whether a batch on Ray writes each line exactly once, whatever is killed.

    python scripts/check_ray.py                          # 2,000 lines on two replicas
    python scripts/check_ray.py --lines 300 --kills 1

Mixed lines in both forms, some of them wrong, go to replicas of the embedded model on this machine.
Replicas are killed one after another, and then the command itself, by SIGKILL. The same command
runs again to its end, and a third time. The check fails if a line has no result or error, or two,
if a picture is damaged, or if a result that was there once has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

REPLICA = "ray::MapWorker(Map(Replica))"  # how Ray names the process
WRONG_EVERY = 20  # lines


@dataclass(frozen=True)
class Found:
    """What a run has left.

    Attributes:
        results: The lines of all results.
        errors: The lines of all errors.
        pictures: How many pictures the results name, each of them whole.
        records: The bytes of all results, by line.
    """

    results: tuple[int, ...]
    errors: tuple[int, ...]
    pictures: int
    records: dict[int, bytes]


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3, help="of replicas, before the command's")
    parser.add_argument("--model", help="by default the embedded one")
    return parser.parse_args()


def main() -> None:
    """Run the check."""
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        wrong = check(Path(folder), args.lines, args.replicas, args.kills, args.model)
    print("\n".join(wrong) or "every line is there exactly once, and every picture is whole")
    sys.exit(bool(wrong))


def check(
    folder: Path, lines: int, replicas: int, kills: int, model: str | None = None
) -> list[str]:
    """Run the lines, kill, run again, and give what is wrong.

    Args:
        folder: An empty one.
        lines: How many lines.
        replicas: How many replicas.
        kills: How many of them are killed before the command.
        model: A folder; None for the embedded model.
    """
    work, out = write_work(folder, lines), folder / "out"
    of_model = ["--model", model] if model else []
    on_ray = ["--ray", "local", "--replicas", str(replicas)]
    words = ["batch", str(work), "-o", str(out), "--quiet", *of_model, *on_ray]
    killed = killed_run(words, out, kills)
    before = found_in(out)
    print(f"killed {killed} replicas and the command: {len(before.results)} results are kept")
    told = [finished_run(words) for _ in range(2)]
    after = found_in(out)
    print(told[0], f"{after.pictures:,} pictures", sep="\n")
    return [
        *([] if killed == kills else [f"only {killed} of {kills} replicas were killed"]),
        *wrong_counts(after, lines),
        *(f"line {n} has changed" for n, r in before.records.items() if after.records[n] != r),
        *([] if f"0 new, {len(after.results)} kept" in told[1] else [f"at last: {told[1]}"]),
    ]


def wrong_counts(found: Found, lines: int) -> Iterator[str]:
    """Which lines are missing, or there more than once; or have results though they are wrong."""
    counts = Counter([*found.results, *found.errors])
    for line in range(1, lines + 1):
        if counts.pop(line, 0) != 1:
            yield f"line {line} is not there exactly once"
    yield from (f"there is no line {line}" for line in counts)
    wanted = tuple(n for n in range(1, lines + 1) if n % WRONG_EVERY == 0)
    if tuple(sorted(found.errors)) != wanted:
        yield f"other lines failed than the wrong ones: {found.errors}"


# --- lines ---------------------------------------------------------------------------------------


def write_work(folder: Path, count: int) -> Path:
    """The lines in a file, with the picture that they name beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), "pink").save(folder / "scene.png")
    path = folder / "work.jsonl"
    lines = [json.dumps(line_of(number)) for number in range(1, count + 1)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def line_of(number: int) -> dict[str, Any]:
    """A line of the input. Many are equal but for their seeds, which are made of their places."""
    said = [{"role": "user", "content": "what is a cat?"}]
    if number % WRONG_EVERY == 0:
        return [{"draw": "a cat", "sede": 1}, {"caption": "nowhere.png"}][number // WRONG_EVERY % 2]
    return [
        {"draw": "a cat"},
        {"caption": "scene.png", "max_tokens": 6},
        {"draw": "two apples", "n": 2, "seed": number},
        openai_line(number, "images/generations", {"prompt": "a tree", "response_format": "url"}),
        openai_line(number, "chat/completions", {"messages": said, "max_tokens": 6}),
        {"caption": "scene.png", "question": "what colour is it?", "max_tokens": 6},
        {"draw": "a dog", "guidance": 1.0},
    ][number % 7]


def openai_line(number: int, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """A line of OpenAI's Batch API."""
    return {"custom_id": f"line {number}", "method": "POST", "url": f"/v1/{url}", "body": body}


# --- runs ----------------------------------------------------------------------------------------


def killed_run(words: Sequence[str], out: Path, kills: int) -> int:
    """Start the command, kill replicas and then the command, and give how many replicas died.

    Each dies after one more file of results than the one before.
    """
    process = subprocess.Popen([sys.executable, "-m", "unitok", *words], stdout=subprocess.DEVNULL)
    killed: set[int] = set()
    while process.poll() is None and (len(killed) < kills or parts(out) <= kills):
        alive = sorted(set(replicas_of(process.pid)) - killed)
        if alive and len(killed) < kills and parts(out) > len(killed):
            os.kill(alive[0], signal.SIGKILL)
            killed.add(alive[0])
        time.sleep(0.02)
    process.kill()
    process.wait()
    return len(killed)


def finished_run(words: Sequence[str]) -> str:
    """Run the command to its end, and give what it prints at last."""
    done = subprocess.run(
        [sys.executable, "-m", "unitok", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout.strip()


def parts(out: Path) -> int:
    """How many files of results there are."""
    return len(list((out / "results").glob("lines-*")))


def replicas_of(driver: int) -> Iterator[int]:
    """The processes of a command's replicas that have loaded their models."""
    parents = {int(p.name): parent_of(p) for p in Path("/proc").glob("[0-9]*")}
    for pid in parents:
        title = read_or_empty(Path(f"/proc/{pid}/cmdline"))
        starting = title.startswith(f"{REPLICA}.__init__")
        if title.startswith(REPLICA) and not starting and is_below(pid, driver, parents):
            yield pid


def is_below(pid: int, driver: int, parents: dict[int, int]) -> bool:
    """Whether a process descends from another."""
    while pid > 1 and pid != driver:
        pid = parents.get(pid, 0)
    return pid == driver


def parent_of(process: Path) -> int:
    """The parent of a process; 0 if it is gone."""
    fields = read_or_empty(process / "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def read_or_empty(path: Path) -> str:
    """What a file of /proc holds; "" if the process is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# --- what is there -------------------------------------------------------------------------------


def found_in(out: Path) -> Found:
    """Read all that a run has left, every picture included."""
    results = list(records(out / "results"))
    names = [name for _, record in results for name in pictures_of(json.loads(record))]
    for name in names:
        with Image.open(out / name) as picture:
            picture.load()
    return Found(
        tuple(line for line, _ in results),
        tuple(line for line, _ in records(out / "errors")),
        len(names),
        dict(results),
    )


def records(folder: Path) -> Iterator[tuple[int, bytes]]:
    """The records of a folder, with their lines."""
    for part in sorted(folder.glob("lines-*.jsonl")):
        for record in part.read_bytes().splitlines():
            yield json.loads(record)["line"], record


def pictures_of(record: dict[str, Any]) -> list[str]:
    """The files that a result names."""
    answers = record.get("response", {}).get("body", {}).get("data", [])
    return [*record.get("pictures", []), *(answer["url"] for answer in answers)]


if __name__ == "__main__":
    main()
