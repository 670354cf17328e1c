"""Mixed requests to a server, and the same requests to the library."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.http_clients import Answer, Wanted
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.openai_wire.output_format import OutputFormat
from unitok.requests import AnyRequest, Draw, Edit, Reply
from unitok.results import DrawResult, Result

CHAT, DRAW, EDIT = "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits"
JSON = "application/json"
BOUNDARY = "----a-boundary-of-the-benchmark"
QUESTIONS = ("what is in the picture?", "how many are there?", "what color is it?")
PROMPTS = ("two apples on a blue background", "a red car", "a dog left of a cat", "three stars")
KINDS = 5  # of requests, in turns


@dataclass(frozen=True)
class Item:
    """One request in both forms.

    Attributes:
        wanted: For a server.
        request: For the library.
    """

    wanted: Wanted
    request: AnyRequest


def mixed(count: int, seed: int) -> list[Item]:
    """Chats about a picture, plain chats, drawings, streams of both, and edits by a mask.

    Args:
        count: How many.
        seed: Other seeds give other pictures and other seeds of the requests.
    """
    scenes = [to_pil(scene) for scene in render(SceneSampler(seed, "heldout").batch(count))]
    chance = random.Random(seed)
    return [_item(number, scene, chance) for number, scene in enumerate(scenes)]


def is_right(answer: Answer, result: Result) -> bool:
    """Whether a server's answer is the library's, byte for byte."""
    if isinstance(result, DrawResult):
        return answer.said == OutputFormat().in_base64(result.image)
    return answer.said == result.text  # type: ignore[union-attr]


def in_order(results: Sequence[Result]) -> list[Result]:
    """Results in the order of their requests."""
    return sorted(results, key=lambda result: result.index or 0)


def _item(number: int, scene: Image.Image, chance: random.Random) -> Item:
    seed = chance.randrange(2**31)
    kind, stream = number % KINDS, number // KINDS % 2 == 1
    if kind == 0:
        content = [
            {"type": "text", "text": chance.choice(QUESTIONS)},
            {"type": "image_url", "image_url": {"url": data_url(scene)}},
        ]
        return _chat(content, seed, stream)
    if kind == 1:
        return _chat(chance.choice(PROMPTS) + "?", seed, stream)
    if kind == 2:
        return _edit(chance.choice(PROMPTS), scene, seed)
    return _drawing(chance.choice(PROMPTS), seed, stream)


def _chat(content: Any, seed: int, stream: bool) -> Item:
    messages = [{"role": "user", "content": content}]
    options: dict[str, Any] = {"temperature": 1.0, "max_tokens": 40, "seed": seed}
    return Item(
        _json(CHAT, {"messages": messages, "stream": stream, **options}, stream),
        Reply(messages, **options),
    )


def _drawing(prompt: str, seed: int, stream: bool) -> Item:
    body = {"prompt": prompt, "seed": seed, "stream": stream}
    return Item(_json(DRAW, body, stream), Draw(prompt, seed=seed))


def _edit(prompt: str, scene: Image.Image, seed: int) -> Item:
    box = (0, 0, scene.width // 2, scene.height)
    see_through = Image.new("RGBA", scene.size, "black")
    see_through.paste((0, 0, 0, 0), box)
    white = Image.new("RGB", scene.size, "black")
    ImageDraw.Draw(white).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), "white")
    fields = {"prompt": prompt, "seed": str(seed), "tries": "1"}
    files = {"image": _png(scene), "mask": _png(see_through)}
    wanted = Wanted(EDIT, f"multipart/form-data; boundary={BOUNDARY}", form(fields, files))
    return Item(wanted, Edit(_png(scene), prompt, mask=_png(white), seed=seed, tries=1))


def _json(path: str, body: Any, stream: bool) -> Wanted:
    return Wanted(path, JSON, json.dumps(body).encode(), stream)


def form(fields: dict[str, str], files: dict[str, bytes]) -> bytes:
    """A body of multipart/form-data with this module's boundary."""
    mark = f"--{BOUNDARY}"
    body = b""
    for name, text in fields.items():
        body += (
            f'{mark}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        )
    for name, data in files.items():
        head = f'content-disposition: form-data; name="{name}"; filename="{name}.png"'
        body += f"{mark}\r\n{head}\r\ncontent-type: image/png\r\n\r\n".encode() + data + b"\r\n"
    return body + f"{mark}--\r\n".encode()


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def data_url(image: Image.Image) -> str:
    """A picture as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"
