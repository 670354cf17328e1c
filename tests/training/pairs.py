"""Toy pairs of answers: of texts, of pictures, and conversations beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.training.toy import COLOURS, conversation, said

CODES = 64  # of a picture of the tiny model: 8 x 8


def text_pair(colour: str) -> dict[str, Any]:
    """A question, a good answer and a bad one."""
    return {
        "messages": [said("user", "what is this?")],
        "chosen": said("assistant", f"a {colour} apple"),
        "rejected": said("assistant", "a cat and a dog"),
    }


def picture_pair(colour: str, other: str, code: int) -> dict[str, Any]:
    """A request, a picture whose codes are known, and one whose codes are not."""
    codes = [(code + i) % 16 for i in range(CODES)]
    good = {"type": "image", "image": f"{colour}.png", "codes": codes}
    bad = {"type": "image", "image": f"{other}.png"}
    return {
        "messages": [said("user", f"a {colour} apple")],
        "chosen": [said("assistant", [good])],
        "rejected": said("assistant", [bad]),
    }


def write_pairs(folder: Path, plain: bool = True) -> Path:
    """JSON lines of pairs of both kinds, and of conversations if these are wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(COLOURS)
    records = []
    for i, name in enumerate(names):
        Image.new("RGB", (64, 64), COLOURS[name]).save(folder / f"{name}.png")
        records += [text_pair(name), picture_pair(name, names[i - 1], i)]
        records += [conversation(name, f"{name}.png", way) for way in ("read", "paint") if plain]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
