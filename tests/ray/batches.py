"""What tests of batches on Ray share: mixed lines, and what a run has left."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.backends.ray.api import started
from unitok.backends.ray.cluster import Replicas
from unitok.backends.ray.lines import lines_of_file
from unitok.backends.ray.output import Output
from unitok.backends.ray.replica import Runs, Work
from unitok.backends.ray.report import DatasetReport, report_of
from unitok.batch.keys import model_identity

ROOT = Path(__file__).resolve().parents[2]
WHEN = ("seconds", "created")  # keys that differ from run to run


def mixed(count: int) -> list[dict[str, Any]]:
    """Lines of every kind, in both forms, some of them equal, and some of them wrong."""
    return [line for i in range(0, count, 6) for line in six(i)][:count]


def six(i: int) -> list[dict[str, Any]]:
    """Six lines, from number i on."""
    said = [{"role": "user", "content": "is there a cat?"}]
    wrong = {"caption": "nowhere.png"} if i % 12 else {"draw": "a cat", "sede": i}
    return [
        {"draw": "a cat", "n": i // 6 % 2 + 1},
        {"caption": "scene.png", "max_tokens": 2 + i % 5},
        {"draw": f"{i} dogs", "seed": i, "guidance": 1.0},
        openai_line(f"tree {i % 24}", "images/generations", {"prompt": "a tree", "seed": i}),
        openai_line(f"cat {i}", "chat/completions", {"messages": said, "max_tokens": 3}),
        wrong,
    ]


def openai_line(name: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": f"/v1/{url}", "body": body}


def write_work(folder: Path, lines: list[dict[str, Any]]) -> Path:
    """The lines in a file, with the picture that they name beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), "pink").save(folder / "scene.png")
    path = folder / "work.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def records(folder: Path, what: str = "results") -> list[dict[str, Any]]:
    """All records of a run on Ray, in the order of the names of their files."""
    parts = sorted((folder / what).glob("lines-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def plain_records(path: Path) -> list[dict[str, Any]]:
    """The records of a run without Ray, in the order of their lines."""
    lines = map(json.loads, path.read_text().splitlines())
    return sorted(lines, key=lambda record: record["line"])


def without_times(value: Any) -> Any:
    """A record without the times that it was made at."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in WHEN}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


def environment() -> dict[str, str]:
    paths = [ROOT, ROOT / "engine", ROOT / "tokenizers"]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}


def run(
    source: Path, out: Path, model: Path, load: Callable[[], Runs], replicas: int = 1, part: int = 4
) -> DatasetReport:
    """Run the lines of a file on the Ray that is there."""
    work = Work(Output.at(str(out)), "jsonl", source.parent, model_identity(model), load)
    lines = lines_of_file(str(source))
    with started(lines, work, Replicas(replicas), part) as (running, _):
        return report_of(str(out), running.outcomes())
