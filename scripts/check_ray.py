"""Whether a batch on Ray writes each line exactly once, whatever is killed.

    python scripts/check_ray.py                          # 2,000 lines on two replicas
    python scripts/check_ray.py --folder runs/check-ray  # goes on there if it is stopped
    python scripts/check_ray.py --lines 300 --kills 1

Mixed lines in both forms, some of them wrong, go to replicas of the embedded model on this machine.
Replicas are killed one after another, and then the command itself, by SIGKILL. The same command
runs again to its end, and a third time. The check fails if a line has no result or error, or two,
if pictures are missing, damaged or named by no result, if a result that was there once has changed,
or if a replica of the killed command lives on. The last line says whether it holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.saving import write_whole

REPLICA = "ray::MapWorker(Map(Replica))"  # how Ray names the process
WRONG_EVERY = 20  # lines
TOLD = 20  # things that are wrong
PATIENCE = 60.0  # seconds that the replicas of a killed command may take to end


@dataclass(frozen=True)
class Asked:
    """What is checked. A folder goes on only with what it began with.

    Attributes:
        lines: How many lines.
        replicas: How many replicas.
        kills: How many of them are killed before the command.
        model: A folder; None for the embedded model.
    """

    lines: int = 2000
    replicas: int = 2
    kills: int = 3
    model: str | None = None


@dataclass
class Progress:
    """How far a check is, in a file, so that it can go on.

    Attributes:
        asked: What is checked.
        killed: How many replicas were killed.
        kept: The digests of the results that were there when the command was killed, by line; None
            before it.
        alive: The replicas that lived then.
    """

    asked: dict[str, Any]
    killed: int = 0
    kept: dict[str, str] | None = None
    alive: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, asked: Asked) -> Progress:
        """What a file tells; a beginning if there is none.

        Raises:
            ValueError: It is of another check.
        """
        if not path.exists():
            return cls(asdict(asked))
        found = cls(**json.loads(path.read_text(encoding="utf-8")))
        if found.asked != asdict(asked):
            raise ValueError(f"{path} is of another check, {found.asked}: name a new folder")
        return found

    def save(self, path: Path) -> None:
        """Write the file."""
        write_whole(json.dumps(asdict(self)).encode(), path)


@dataclass(frozen=True)
class Found:
    """What a run has left.

    Attributes:
        results: The lines of all results.
        errors: The lines of all errors.
        records: The digests of all results, by line.
        pictures: The files that each result names, by line.
    """

    results: tuple[int, ...]
    errors: tuple[int, ...]
    records: dict[str, str]
    pictures: dict[int, list[str]]


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Asked()
    parser.add_argument("--lines", type=int, default=usual.lines)
    parser.add_argument("--replicas", type=int, default=usual.replicas)
    parser.add_argument(
        "--kills", type=int, default=usual.kills, help="of replicas, before the command's"
    )
    parser.add_argument("--model", help="by default the embedded one")
    parser.add_argument("--folder", type=Path, help="kept, to go on from; by default temporary")
    return parser.parse_args()


def main() -> None:
    """Run the check, and print what is wrong and then the verdict."""
    args = parse()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.folder or Path(temporary)
            wrong = check(folder, args.lines, args.replicas, args.kills, args.model)
    except ValueError as error:
        sys.exit(f"check_ray: {error}")
    for one in wrong[:TOLD]:
        print(one)
    asked = f"{args.lines:,} lines, {args.kills} kills of replicas and one of the command"
    print(f"FAILED: {len(wrong)} things are wrong; {asked}" if wrong else f"PASSED: {asked}")
    sys.exit(bool(wrong))


def check(
    folder: Path, lines: int, replicas: int, kills: int, model: str | None = None
) -> list[str]:
    """Run the lines, kill, run again, and give what is wrong.

    Args:
        folder: An empty one, or one with a check that was stopped.
        lines: How many lines.
        replicas: How many replicas.
        kills: How many of them are killed before the command.
        model: A folder; None for the embedded model.

    Raises:
        ValueError: The folder has another check.
    """
    noted, out = folder / "check.json", folder / "out"
    progress = Progress.of(noted, Asked(lines, replicas, kills, model))
    of_model = ["--model", model] if model else []
    on_ray = ["--ray", "local", "--replicas", str(replicas)]
    words = ["batch", str(write_work(folder, lines)), "-o", str(out), "--quiet", *of_model, *on_ray]
    if progress.kept is None and not killed_run(words, out, progress, noted):
        return [f"the command ended by itself, after {progress.killed} of {kills} kills"]
    kept = progress.kept or {}
    print(f"killed {progress.killed} replicas and the command: {len(kept)} results are kept")
    told = [finished_run(words) for _ in range(2)]
    after = found_in(out)
    print(told[0])
    return [
        *wrong_counts(after, lines),
        *wrong_pictures(after, out),
        *(f"line {n} has changed" for n, one in kept.items() if after.records.get(n) != one),
        *([] if f"0 new, {len(after.results)} kept" in told[1] else [f"at last: {told[1]}"]),
        *(f"process {pid} of the killed command lives on" for pid in living(progress.alive)),
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


def wrong_pictures(found: Found, out: Path) -> Iterator[str]:
    """Which pictures are missing, damaged, or named by no result or by two."""
    for line, names in found.pictures.items():
        if len(names) != pictures_asked(line_of(line)):
            yield f"line {line} has {len(names)} pictures"
        for name in names:
            try:
                with Image.open(out / name) as picture:
                    picture.load()
            except (OSError, SyntaxError) as error:
                yield f"line {line}: {error}"
    named = Counter(Path(name).name for names in found.pictures.values() for name in names)
    yield from (f"{name} is named by {n} results" for name, n in named.items() if n > 1)
    folder = out / "pictures"
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    yield from (f"no result names {name}" for name in sorted(there - named.keys()))


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


def pictures_asked(line: dict[str, Any]) -> int:
    """How many pictures a line asks for."""
    drawn = "draw" in line or "prompt" in line.get("body", {})
    return line.get("n", 1) if drawn else 0


# --- runs ----------------------------------------------------------------------------------------


def killed_run(words: Sequence[str], out: Path, progress: Progress, noted: Path) -> bool:
    """Start the command, kill replicas and then the command, and note what was there then.

    Each dies after one more file of results than the one before.

    Returns:
        Whether all that was to be killed was. Else the command has ended by itself.
    """
    process = subprocess.Popen([sys.executable, "-m", "unitok", *words], stdout=subprocess.DEVNULL)
    dead: set[int] = set()
    there, kills = parts(out), progress.asked["kills"]
    alive: list[int] = []
    try:
        while process.poll() is None:
            alive = sorted(set(replicas_of(process.pid)) - dead)
            if parts(out) > there and progress.killed == kills:
                break
            if alive and parts(out) > there and progress.killed < kills:
                with suppress(ProcessLookupError):
                    os.kill(alive[0], signal.SIGKILL)
                dead.add(alive[0])
                progress.killed, there = progress.killed + 1, parts(out)
                progress.save(noted)
            time.sleep(0.02)
    finally:
        process.kill()
    if process.wait() != -signal.SIGKILL:
        return False
    progress.kept, progress.alive = found_in(out).records, alive
    progress.save(noted)
    return True


def finished_run(words: Sequence[str]) -> str:
    """Run the command to its end, and give what it prints at last."""
    done = subprocess.run(
        [sys.executable, "-m", "unitok", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout.strip()


def parts(out: Path) -> int:
    """How many files of results there are."""
    return len(list((out / "results").glob("lines-*")))


def living(pids: Sequence[int]) -> list[int]:
    """Which replicas still live, once they had time to end."""
    end = time.monotonic() + PATIENCE
    while (left := [pid for pid in pids if is_replica(pid)]) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def is_replica(pid: int) -> bool:
    """Whether a process is a replica."""
    return read_or_empty(Path(f"/proc/{pid}/cmdline")).startswith(REPLICA)


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
    """Read all that a run has left."""
    results = list(records(out / "results"))
    return Found(
        tuple(line for line, _ in results),
        tuple(line for line, _ in records(out / "errors")),
        {str(line): hashlib.sha256(record).hexdigest() for line, record in results},
        {line: pictures_of(json.loads(record)) for line, record in results},
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
