"""A server that keeps files and batches, and lines for its batches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from openai.types import Batch, FileObject

from tests.server.live import PATIENCE, Live, served
from unitok import Model
from unitok.server.settings import ServerSettings
from unitok.server.state.folder import State

CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"


@contextmanager
def keeping(folder: Path, *models: Model, identity: str = "i", **limits: Any) -> Iterator[Live]:
    """Serve models with a folder for files and batches while the block runs."""
    settings = ServerSettings(**limits)
    identities = {model.name: lambda: identity for model in models}
    with (
        State(folder, settings, identities) as state,
        served(*models, settings=settings, state=state) as live,
    ):
        yield live


def line(name: str, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def chat(name: str, content: object = "what is this?", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return line(name, CHAT, **{"messages": messages, "max_tokens": 4, **body})


def drawing(name: str, **body: Any) -> dict[str, Any]:
    return line(name, IMAGES, **{"prompt": "a cat", **body})


def jsonl(lines: list[Any]) -> bytes:
    texts = (one if isinstance(one, str) else json.dumps(one) for one in lines)
    return "".join(f"{text}\n" for text in texts).encode()


def send(client: openai.OpenAI, data: bytes, purpose: Any = "batch") -> FileObject:
    return client.files.create(file=("lines.jsonl", data), purpose=purpose)


def begin(client: openai.OpenAI, lines: list[Any], endpoint: Any = CHAT, **more: Any) -> Batch:
    return client.batches.create(
        input_file_id=send(client, jsonl(lines)).id,
        endpoint=endpoint,
        completion_window="24h",
        **more,
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    """The batch, when it has ended."""
    end = time.monotonic() + PATIENCE
    while batch.status not in ("completed", "failed", "cancelled", "expired"):
        assert time.monotonic() < end, batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def records(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a file, in the order of the input."""
    assert file_id is not None
    lines = client.files.content(file_id).content.splitlines()
    return sorted(map(json.loads, lines), key=lambda record: record["line"])
