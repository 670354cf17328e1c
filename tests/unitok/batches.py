"""What tests of `unitok batch` share: lines, and running the command on them."""

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner, Result

from unitok.cli import app

WORK: list[dict] = [
    {"draw": "a cat", "n": 2, "id": "first"},
    {"caption": "scene.png", "max_tokens": 8},
    {"draw": "a dog", "seed": 5, "guidance": 1.0, "temperature": 0.9, "top_k": 5, "top_p": 0.9},
    {"caption": "scene.png", "question": "is there a cat?", "max_tokens": 4, "stop": ["z"]},
    {"draw": "a cat", "negative_prompt": "a dog"},
    {"caption": "scene.png", "max_tokens": 8},
]


def work_in(folder: Path) -> Path:
    """The lines of WORK in a file, beside the picture they read."""
    folder.mkdir()
    Image.new("RGB", (64, 64), "pink").save(folder / "scene.png")
    return write(folder / "work.jsonl", WORK)


def runner(model: Path, folder: Path) -> Callable[..., Result]:
    """Run `unitok batch` into one folder, again and again."""

    def batch(source: Path | str, out: str = "out", model: Path = model, **given) -> Result:
        words = ["batch", str(source), "-o", str(folder / out), "--model", str(model)]
        return CliRunner().invoke(app, words, **given)

    return batch


def write(path: Path, lines: list) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def by_line(folder: Path) -> list[dict]:
    """The results in the order of their lines."""
    return sorted(results(folder), key=lambda result: result["line"])
