"""What the tests of public suites share: results without a model, and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.evaluation.run import check_keys
from unitok.evaluation.suite import Item, Judgement, Suite
from unitok.requests import Caption, Draw
from unitok.results import DrawResult, TextResult


def save_pictures(folder: Path, *names: str, side: int = 16) -> Path:
    """Pictures of those names, each of another grey."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (i * 20, i * 20, i * 20)).save(path)
    return folder


def write_lines(path: Path, *records: Any) -> Path:
    """A file with a line for each record; text is written as it is."""
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def answered(item: Item, text: str) -> TextResult:
    """The answer to an item that asks for one."""
    assert isinstance(item.request, Caption)
    return TextResult(text, 0, "stop", 1, 1, 0.1, item.request)


def drawn(item: Item, image: Image.Image) -> DrawResult:
    """The drawing of an item that asks for one."""
    assert isinstance(item.request, Draw)
    return DrawResult(item.request.prompt, (image,), 0, "complete", 1, 1, 0.1, item.request)


def judge_answers(suite: Suite, texts: Sequence[str]) -> list[Judgement]:
    """What a suite says of answers, one for each of its items."""
    items = list(suite.items())
    check_keys(items)
    return [
        through_journal(suite.judge(item, answered(item, text)))
        for item, text in zip(items, texts, strict=True)
    ]


def judge_drawings(suite: Suite, images: Sequence[Image.Image], folder: Path) -> list[Judgement]:
    """What a suite says of drawings, one for each of its items, which are saved in a folder."""
    items, found = list(suite.items()), []
    check_keys(items)
    (folder / "pictures").mkdir(parents=True)
    for item, image in zip(items, images, strict=True):
        image.save(folder / "pictures" / f"{item.key}.png")
        judged = suite.judge(item, drawn(item, image))
        found.append(through_journal(judged, f"pictures/{item.key}.png"))
    return found


def through_journal(judged: Judgement, picture: str | None = None) -> Judgement:
    """A judgement as it comes back of a journal."""
    return Judgement(**{**json.loads(json.dumps(vars(judged))), "picture": picture})


def failed(item: Item) -> Judgement:
    """The judgement of an item whose request failed."""
    return Judgement(item.key, item.group, False, wanted=item.wanted, error="too long")
