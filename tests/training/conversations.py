"""What tests of data sets share: pictures, records and files of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unitok.training.data.conversations import Conversation, parse_conversation


def noise(seed: int = 0, width: int = 32, height: int = 24) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


def png(seed: int = 0, width: int = 32, height: int = 24) -> bytes:
    file = io.BytesIO()
    noise(seed, width, height).save(file, "PNG")
    return file.getvalue()


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def picture(name: str) -> dict[str, Any]:
    return {"type": "image", "image": name}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def assistant(*parts: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(parts), **keys}


def asked(question: str, answer: str) -> dict[str, Any]:
    """A record of one question and its answer."""
    return {"messages": [user(question), assistant(answer)]}


def conversation(*messages: Any, folder: Path | None = None, **keys: Any) -> Conversation:
    return parse_conversation({"messages": list(messages), **keys}, "here:1", folder)


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_tar(path: Path, members: Mapping[str, bytes | object]) -> Path:
    """A tar of members. What is no bytes is written as JSON."""
    with tarfile.open(path, "w") as tar:
        for name, value in members.items():
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def said(conversation: Conversation) -> list[str]:
    """All texts of a conversation."""
    return [part for turn in conversation.turns for part, _ in turn.texts]
