"""Bodies of OpenAI's API become requests, and results become bodies that its clients read."""

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from unitok.openai_wire.body import WireError, error_body
from unitok.openai_wire.chat import completion_body, reply_of
from unitok.openai_wire.images import draw_of, images_body, in_base64, response_format
from unitok.requests import Draw, Reply
from unitok.results import DrawResult, TextResult

SAID = [{"role": "user", "content": "what is this?"}]
SHOWN = [
    {"role": "system", "content": "be brief"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "cat.png", "detail": "auto"}},
        ],
    },
]


# --- chat ----------------------------------------------------------------------------------------


def test_a_chat_body_is_a_reply():
    body = {
        "model": "gpt-4o-mini",
        "messages": SHOWN,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 3,
        "top_k": 5,
        "user": "me",
    }
    options = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 3}
    assert reply_of(body, Path("here")) == Reply(SHOWN, Path("here"), top_k=5, **options)


def test_null_is_as_absent_and_so_is_what_asks_for_nothing_else():
    nothing = {
        "n": 1,
        "stream": False,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "tools": [],
    }
    nulls = dict.fromkeys(("temperature", "stop", "tool_choice", "seed", "logprobs", "model"))
    assert reply_of({"messages": SAID} | nothing | nulls) == Reply(SAID)


def test_max_tokens_has_a_newer_name():
    assert reply_of({"messages": SAID, "max_completion_tokens": 9}).max_tokens == 9
    both = {"messages": SAID, "max_completion_tokens": 9, "max_tokens": 9}
    assert reply_of(both).max_tokens == 9
    with pytest.raises(WireError, match='"max_tokens" or "max_completion_tokens", not both'):
        reply_of(both | {"max_tokens": 8})


@pytest.mark.parametrize(
    ("more", "param", "told"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "supported only as"),
        ({"n": 2}, "n", '"n" is supported only as 1, not 2'),
        ({"n": True}, "n", '"n" is supported only as 1, not true'),
        ({"stream": True}, "stream", '"stream" is supported only as false, not true'),
        ({"logprobs": True}, "logprobs", "supported only as false"),
        ({"presence_penalty": 0.1}, "presence_penalty", "supported only as 0"),
        ({"top_logprobs": 3}, "top_logprobs", '"top_logprobs" is not supported'),
        ({"temprature": 1}, "temprature", 'did you mean "temperature"?'),
        ({"temperature": "1"}, "temperature", '"temperature" must be a number, not "1"'),
        ({"top_p": 0}, "top_p", "top_p must be above 0"),
        ({"seed": True}, "seed", '"seed" must be a whole number'),
        (
            {"max_completion_tokens": 0},
            "max_completion_tokens",
            "max_completion_tokens must be at least 1",
        ),
        ({"model": 4}, "model", '"model" must be text, not 4'),
        ({"messages": None}, "messages", '"messages" is missing'),
        ({"messages": []}, "messages", "messages has no message"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "tool"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0]",
            "input_audio",
        ),
    ],
)
def test_a_wrong_chat_body_is_refused_by_name(more, param, told):
    with pytest.raises(WireError) as caught:
        reply_of({"messages": SAID} | more)
    assert told in str(caught.value)
    assert caught.value.param == param


def test_a_completion_has_the_text_the_reason_and_the_usage():
    result = TextResult("a cat", 3, "length", 40, 2, 0.5)
    body = completion_body(result, "tiny", "chatcmpl-1", 17)
    assert body["object"] == "chat.completion"
    assert (body["id"], body["model"], body["created"]) == ("chatcmpl-1", "tiny", 17)
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "a cat", "refusal": None}
    assert choice["finish_reason"] == "length" and choice["index"] == 0
    assert body["usage"] == {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
    assert body["seed"] == 3


# --- images --------------------------------------------------------------------------------------


def test_an_images_body_is_a_drawing():
    body = {"model": "gpt-image-1", "prompt": "a cat", "n": 3, "size": "64x32", "seed": 5}
    more = {"guidance": 2.0, "negative_prompt": "a dog", "quality": "auto", "user": None}
    drawn = Draw("a cat", n=3, width=64, height=32, seed=5, guidance=2.0, negative_prompt="a dog")
    assert draw_of(body | more) == drawn
    assert draw_of({"prompt": "a cat", "size": "auto"}) == Draw("a cat")


@pytest.mark.parametrize(
    ("more", "param", "told"),
    [
        ({"prompt": None}, "prompt", '"prompt" must be text; it is missing'),
        ({"prompt": ["a cat"]}, "prompt", '"prompt" must be text, not ["a cat"]'),
        ({"prompt": " "}, "prompt", "the prompt is empty"),
        ({"n": 0}, "n", "n must be at least 1"),
        ({"n": 1001}, "n", "at most 1000"),
        ({"n": "2"}, "n", '"n" must be a whole number, not "2"'),
        ({"size": "large"}, "size", '"size" must be "auto" or like "512x512", not "large"'),
        ({"size": "0x64"}, "size", '"size" must be'),
        ({"size": [64, 64]}, "size", '"size" must be'),
        ({"width": 64}, "width", '"width" is not supported'),
        ({"style": "vivid"}, "style", '"style" is not supported'),
        ({"quality": "hd"}, "quality", '"quality" is supported only as "auto", not "hd"'),
        ({"background": "transparent"}, "background", 'only as "auto" or "opaque"'),
        ({"output_format": "webp"}, "output_format", 'only as "png"'),
        ({"response_format": "png"}, "response_format", '"b64_json" or "url", not "png"'),
        ({"response_format": ["url"]}, "response_format", '"b64_json" or "url"'),
        ({"logprobs": True}, "logprobs", '"logprobs" is not supported'),
    ],
)
def test_a_wrong_images_body_is_refused_by_name(more, param, told):
    with pytest.raises(WireError) as caught:
        draw_of({"prompt": "a cat"} | more)
    assert told in str(caught.value)
    assert caught.value.param == param


@pytest.mark.parametrize("made", [draw_of, reply_of])
@pytest.mark.parametrize("body", [None, [], "a cat", 7])
def test_a_body_must_be_an_object(made, body):
    with pytest.raises(WireError, match='"body" must be an object'):
        made(body)


def test_pictures_are_answered_in_base64_unless_files_are_asked_for():
    assert response_format({"prompt": "a cat"}) == "b64_json"
    assert response_format({"prompt": "a cat", "response_format": "url"}) == "url"
    image = Image.new("RGB", (8, 4), "red")
    result = DrawResult("a cat", (image,), 5, "complete", 10, 32, 0.5)
    body = images_body(result, [{"b64_json": in_base64(image)}], 17)
    with Image.open(BytesIO(base64.b64decode(body["data"][0]["b64_json"]))) as read:
        assert read.format == "PNG" and read.tobytes() == image.tobytes()
    assert (body["created"], body["size"], body["seed"]) == (17, "8x4", 5)
    assert body["usage"]["total_tokens"] == 42
    assert body["usage"]["input_tokens_details"] == {"image_tokens": 0, "text_tokens": 10}


def test_an_error_says_what_where_and_whose_fault():
    told = {"message": "no", "type": "invalid_request_error", "param": "n", "code": None}
    assert error_body("no", "n") == {"error": told}
    assert error_body("no", server=True)["error"]["type"] == "server_error"
