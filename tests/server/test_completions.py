"""/v1/chat/completions, driven by OpenAI's client: what the library gives, and clear refusals."""

import json
from typing import Any

import openai
import pytest
from PIL import Image

from tests.server.live import Live, data_url
from unitok import Model, Reply

PICTURE = Image.new("RGB", (64, 64), "red")
SHOWN: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": data_url(PICTURE)}},
        ],
    }
]
WORDS: list[Any] = [{"role": "user", "content": "what is in the picture?"}]


def reply(model: Model, messages: list[Any], **options: Any) -> str:
    return next(iter(model.run([Reply(messages, **options)]))).text  # type: ignore[union-attr]


def test_an_answer_is_the_librarys(live: Live, model: Model):
    answer = live.openai().chat.completions.create(model="default", messages=SHOWN)
    assert answer.choices[0].message.content == reply(model, SHOWN)
    assert answer.model == "default"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_several_answers_have_seeds_one_after_the_other(live: Live, model: Model):
    options: dict[str, Any] = {"temperature": 5.0, "max_tokens": 12}
    answer = live.openai().chat.completions.create(
        model="default", messages=WORDS, n=3, seed=5, **options
    )
    told = [choice.message.content for choice in answer.choices]
    assert told == [reply(model, WORDS, seed=seed, **options) for seed in (5, 6, 7)]
    assert len(set(told)) > 1
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_a_stream_has_the_same_text_and_counts(live: Live, model: Model):
    options: dict[str, Any] = {"temperature": 5.0, "max_tokens": 12}
    chunks = list(
        live.openai().chat.completions.create(
            model="default",
            messages=WORDS,
            n=2,
            seed=5,
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
    )
    texts, ends = ["", ""], {}
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert texts == [reply(model, WORDS, seed=seed, **options) for seed in (5, 6)]
    assert set(ends) == {0, 1}
    assert all(chunk.to_dict()["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens <= 24


def test_a_stream_without_counts_does_not_name_them(live: Live):
    chunks = live.openai().chat.completions.create(
        model="default", messages=WORDS, stream=True, max_tokens=2
    )
    assert all("usage" not in chunk.to_dict() for chunk in chunks)


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_the_tokens_that_were_found_computed_are_told(live: Live, model: Model, endpoint: str):
    client, text = live.openai(), f"is there a cat in {endpoint}? " * 12

    def cached() -> int | None:
        if endpoint == "responses":
            usage = client.responses.create(model="default", input=text).usage
            return usage and usage.input_tokens_details.cached_tokens
        asked: Any = [{"role": "user", "content": text}]
        usage = client.chat.completions.create(model="default", messages=asked).usage
        return usage and usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens

    first, before = cached(), model.stats().cached_tokens
    again = cached()
    assert again == model.stats().cached_tokens - before
    assert again and again > (first or 0) + 16


def test_a_stream_has_the_events_of_the_wire(live: Live):
    body = {"messages": WORDS, "stream": True, "max_tokens": 3}
    with live.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0][6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_the_librarys(live: Live, model: Model, stream: bool):
    client = live.openai().chat.completions
    expected = next(iter(model.run([Reply(WORDS, logprobs=True, max_tokens=6)])))
    if stream:
        *_, last = client.create(
            model="default", messages=WORDS, logprobs=True, max_tokens=6, stream=True
        )
        told = last.choices[0].logprobs
    else:
        answer = client.create(model="default", messages=WORDS, logprobs=True, max_tokens=6)
        told = answer.choices[0].logprobs
    assert told is not None and told.content is not None
    assert [token.logprob for token in told.content] == list(expected.logprobs or ())
    assert "".join(token.token for token in told.content).strip() == expected.text  # type: ignore[union-attr]


def test_an_answer_can_have_a_form(live: Live):
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    answer = live.openai().chat.completions.create(
        model="default",
        messages=WORDS,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["yes"], bool)


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"model": "nope"}, 404, "model", "model_not_found"),
        ({"n": 0}, 400, "n", None),
        ({"n": 10_000}, 400, "n", None),
        ({"n": True}, 400, "n", None),
        ({"stream": "yes"}, 400, "stream", None),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", None),
        ({"tools": [{"type": "function"}]}, 400, "tools", None),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias", None),
        ({"top_logprobs": 3}, 400, "top_logprobs", None),
        ({"temprature": 1}, 400, "temprature", None),
        ({"temperature": -1}, 400, "temperature", None),
        ({"priority": -1}, 400, "priority", None),
        ({"messages": []}, 400, "messages", None),
        ({"messages": None}, 400, "messages", None),
        ({"messages": [{"role": "user"}]}, 400, "messages[0]", None),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    live: Live, change: dict[str, Any], status: int, param: str, code: str | None
):
    with live.http() as http:
        response = http.post("/v1/chat/completions", json={"messages": WORDS, **change})
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"]


@pytest.mark.parametrize(
    "url", ["/etc/hostname", "scene.png", "file:///etc/hostname", "http://127.0.0.1/x.png"]
)
def test_a_picture_is_no_path_and_no_address(live: Live, url: str):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(openai.BadRequestError) as caught:
        live.openai().chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": content}],  # type: ignore[typeddict-item]
        )
    assert caught.value.code == "invalid_image_url"
    assert caught.value.param == "messages[0].content[0].image_url.url"


def test_a_picture_of_another_form_of_messages_is_refused(live: Live):
    content = [{"type": "image", "path": "/etc/hostname"}]
    with live.http() as http:
        response = http.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]}
        )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[0].content[0].type"
