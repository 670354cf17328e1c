# pyright: reportMissingImports=false
"""vLLM's chat, with the conversation format of a folder that brings no template."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unitok
from tests.vllm.engines import serving
from tests.vllm.tiny import save_tiny
from tests.vllm.work import Work, emitted, own_ids, parameters, to_pictures
from unitok import Reply
from unitok.prompt import Message

GREEDY: dict[str, Any] = {"temperature": 0.0, "logprobs": True, "max_tokens": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a system prompt of its own."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "janus")


@pytest.mark.timeout(300)
def test_conversations_have_the_prompts_and_answers_of_our_own(folder: Path):
    model = unitok.load(folder, device="cpu", dtype="float32")
    (picture,) = to_pictures(1)
    conversations = [
        [("user", "what is this?")],
        [("system", " say no "), ("user", " a cat "), ("assistant", "yes "), ("user", "no")],
        [("system", ""), ("user", "a dog")],
        [("user", picture, "what color is the background?")],
        [("user", picture, "a cat"), ("assistant", "no"), ("user", picture, "a dog")],
    ]
    asked = [[message(*turn) for turn in conversation] for conversation in conversations]
    own = Work((), (), tuple(Reply(messages, **GREEDY) for messages in asked))
    with serving(folder) as llm:
        sampling = parameters(own.texts[0], 8)
        outputs = llm.chat([list(map(for_vllm, each)) for each in asked], sampling, use_tqdm=False)
    assert [emitted(output) for output in outputs] == own_ids(model, own)
    plain = model.family.chat_prompt([Message("user", "what is this?")], None)
    assert list(outputs[0].prompt_token_ids) == list(plain.token_ids)
    assert outputs[0].prompt != outputs[2].prompt  # an empty system prompt is none


def message(role: str, *parts: Any) -> dict[str, Any]:
    """A message in our form and OpenAI's."""
    content = [
        {"type": "image", "image": part}
        if isinstance(part, Image.Image)
        else {"type": "text", "text": part}
        for part in parts
    ]
    return {"role": role, "content": parts[0] if len(parts) == 1 else content}


def for_vllm(message: dict[str, Any]) -> dict[str, Any]:
    """A message of which vLLM knows the pictures."""
    if isinstance(message["content"], str):
        return message
    parts = [
        {"type": "image_pil", "image_pil": part["image"]} if part["type"] == "image" else part
        for part in message["content"]
    ]
    return {**message, "content": parts}
