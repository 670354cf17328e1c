"""/v1/responses, driven by OpenAI's client: conversations, pictures, events, and who may see them."""

import base64
from io import BytesIO
from typing import Any

import openai
import pytest
from PIL import Image

from tests.server.live import KEYS, Live, data_url
from unitok import Draw, Model, Reply

TOOL: Any = {"type": "image_generation"}
FORCED: Any = {"type": "image_generation"}
CONTENT = [
    {"type": "input_text", "text": "what is this?"},
    {"type": "input_image", "image_url": data_url(Image.new("RGB", (64, 64), "red"))},
]
SHOWN: list[Any] = [{"role": "user", "content": CONTENT}]


def reply(model: Model, messages: list[Any], **options: Any) -> str:
    return next(iter(model.run([Reply(messages, **options)]))).text  # type: ignore[union-attr]


def opened(result: str | None) -> Image.Image:
    assert result is not None
    return Image.open(BytesIO(base64.b64decode(result)))


def test_an_answer_is_the_librarys(live: Live, model: Model):
    answer = live.openai().responses.create(model="default", input=SHOWN)
    assert answer.output_text == reply(model, SHOWN)
    assert (answer.status, answer.error, answer.incomplete_details) == ("completed", None, None)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    plain = live.openai().responses.create(model="default", input="what is there?")
    assert plain.output_text == reply(model, [{"role": "user", "content": "what is there?"}])


def test_a_picture_is_the_librarys(live: Live, model: Model):
    answer = live.openai().responses.create(
        model="default", input="Please draw a cat.", tools=[{**TOOL, "seed": 5}]
    )
    (call,) = answer.output
    assert call.type == "image_generation_call" and call.status == "completed"
    drawn = model.draw("a cat", seed=5).image
    assert opened(call.result).tobytes() == drawn.tobytes()
    assert opened(call.result).info["prompt"] == "a cat"
    assert (call.revised_prompt, call.size) == ("a cat", "64x64")
    assert call.seed == 5  # type: ignore[attr-defined]
