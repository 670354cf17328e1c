"""/v1/responses, driven by OpenAI's client: conversations, pictures, and who may see them."""

import base64
import json
from io import BytesIO
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from openai.types.responses.response_output_item import ImageGenerationCall
from PIL import Image

from tests.server.live import KEYS, Live, data_url, png, told
from unitok import Edit, Model, Reply
from unitok.server.keys import Owner

FORCED: Any = {"type": "image_generation"}
PICTURE = Image.new("RGB", (64, 64), "red")
SHOWN: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "what is this?"},
            {"type": "input_image", "image_url": data_url(PICTURE)},
        ],
    }
]
QUESTION = "what is in the picture?"


def create(live: Live, input: Any, key: str = KEYS[0], **options: Any) -> Response:
    """A response; options that OpenAI does not have are sent too."""
    own = {name: options.pop(name) for name in ("seed", "timeout") if name in options}
    answer = live.openai(key).responses.create(
        model="default", input=input, extra_body=own, **options
    )
    assert isinstance(answer, Response)
    return answer


def tool(**options: Any) -> list[Any]:
    return [{"type": "image_generation", **options}]


def call_of(answer: Response) -> ImageGenerationCall:
    (call,) = answer.output
    assert isinstance(call, ImageGenerationCall) and call.status == "completed"
    return call


def opened(answer: Response) -> Image.Image:
    result = call_of(answer).result
    assert result is not None
    return Image.open(BytesIO(base64.b64decode(result)))


def result_of(model: Model, asked: Any) -> Any:
    return next(iter(model.run([asked])))


def said(role: str, *parts: str | Image.Image) -> dict[str, Any]:
    """A message in the library's form."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part}
        for part in parts
    ]
    return {"role": role, "content": content}


def test_an_answer_is_the_librarys(live: Live, model: Model):
    answer = create(live, SHOWN)
    expected = result_of(model, Reply([said("user", "what is this?", PICTURE)]))
    assert answer.output_text == expected.text
    assert (answer.status, answer.error, answer.incomplete_details) == ("completed", None, None)
    assert answer.usage is not None
    assert answer.usage.input_tokens == expected.prompt_tokens
    assert answer.usage.output_tokens == expected.completion_tokens
    plain = create(live, QUESTION, temperature=5.0, max_output_tokens=9, seed=3, instructions="do")
    messages = [{"role": "system", "content": "do"}, said("user", QUESTION)]
    asked = Reply(messages, temperature=5.0, max_tokens=9, seed=3)
    assert plain.output_text == result_of(model, asked).text
    assert (plain.temperature, plain.max_output_tokens, plain.instructions) == (5.0, 9, "do")


def test_an_answer_that_is_cut_off_is_incomplete(live: Live):
    answer = create(live, SHOWN, max_output_tokens=1)
    assert answer.status == "incomplete" and answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"  # type: ignore[union-attr]


def test_an_answer_can_have_a_form(live: Live):
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    form: Any = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    answer = create(live, QUESTION, text={"format": form}, max_output_tokens=60)
    assert isinstance(json.loads(answer.output_text)["yes"], bool)


def test_a_picture_is_the_librarys(live: Live, model: Model):
    answer = create(live, "Please draw a cat.", tools=tool(seed=5))
    drawn = model.draw("a cat", seed=5)
    assert opened(answer).tobytes() == drawn.image.tobytes()
    call = call_of(answer)
    assert (call.revised_prompt, call.size, call.output_format) == ("a cat", "64x64", "png")
    assert call.seed == answer.seed == 5  # type: ignore[attr-defined]
    assert answer.usage is not None and answer.usage.output_tokens == drawn.completion_tokens


def test_a_tool_that_is_asked_for_draws_any_words(live: Live, model: Model):
    answer = create(
        live,
        "a dog",
        tools=tool(output_format="jpeg", output_compression=80, guidance=3.0),
        tool_choice=FORCED,
        seed=7,
    )
    file = BytesIO()
    model.draw("a dog", seed=7, guidance=3.0).image.save(file, "JPEG", quality=80)
    assert base64.b64decode(call_of(answer).result or "") == file.getvalue()
    assert call_of(answer).revised_prompt is None


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 1.0},
        {"top_p": 0.5},
        {"top_k": 3},
        {"min_p": 0.1},
        {"max_output_tokens": 9},
        {"stop": ["x"]},
    ],
)
def test_options_of_text_are_refused_where_a_picture_is_asked_for(
    live: Live, option: dict[str, Any]
):
    (name,) = option
    body = {"input": "a dog", "tools": tool(), **option}
    with live.http() as http:
        answer = http.post("/v1/responses", json={**body, "tool_choice": FORCED})
        assert told(answer) == (400, None, name)
        assert http.post("/v1/responses", json=body).status_code == 200, "which is text"


@pytest.mark.parametrize(
    ("option", "name"),
    [({"regex": "a"}, "regex"), ({"text": {"format": {"type": "json_object"}}}, "text.format")],
)
def test_a_form_is_refused_where_a_picture_is_asked_for(
    live: Live, option: dict[str, Any], name: str
):
    body = {"input": "a dog", "tools": tool(), "tool_choice": FORCED, **option}
    with live.http() as http:
        answer = http.post("/v1/responses", json=body)
    assert told(answer) == (400, None, "tool_choice")
    assert f'leave "{name}" or "tool_choice" out' in answer.json()["error"]["message"]


def test_a_tool_that_is_not_needed_is_not_used(live: Live):
    assert create(live, QUESTION, tools=tool()).output_text
    assert create(live, "draw a cat", tools=tool(), tool_choice="none").output_text
    assert create(live, "draw a cat").output_text


def test_what_was_painted_can_be_asked_about(live: Live, model: Model):
    drawn = create(live, "draw a cat", tools=tool(seed=5))
    picture = model.draw("a cat", seed=5).image
    asked = create(live, QUESTION, previous_response_id=drawn.id)
    talk = [said("user", "draw a cat"), said("assistant", picture), said("user", QUESTION)]
    assert asked.output_text == result_of(model, Reply(talk)).text
    assert asked.output_text != create(live, QUESTION).output_text
    again = create(live, "how many?", previous_response_id=asked.id)
    talk += [said("assistant", asked.output_text), said("user", "how many?")]
    assert again.output_text == result_of(model, Reply(talk)).text


def test_a_client_can_keep_the_conversation_itself(live: Live):
    drawn = create(live, "draw a cat", tools=tool(seed=5), store=False)
    talk = [{"role": "user", "content": "draw a cat"}, call_of(drawn).to_dict()]
    asked = create(live, [*talk, {"role": "user", "content": QUESTION}])
    kept = create(live, "draw a cat", tools=tool(seed=5))
    by_id: Any = [
        {"role": "user", "content": "draw a cat"},
        {"type": "image_generation_call", "id": call_of(kept).id},
        {"role": "user", "content": QUESTION},
    ]
    same = create(live, QUESTION, previous_response_id=kept.id)
    assert asked.output_text == same.output_text == create(live, by_id).output_text
    talk += [{"role": "user", "content": QUESTION}, asked.output[0].to_dict()]
    more = create(live, [*talk, {"role": "user", "content": "how many?"}])
    assert more.output_text == create(live, "how many?", previous_response_id=same.id).output_text


def test_a_drawing_sees_the_pictures_of_the_conversation(live: Live, model: Model):
    first = create(live, "draw a cat", tools=tool(seed=5))
    second = create(live, "draw a dog", tools=tool(seed=6), previous_response_id=first.id)
    picture = model.draw("a cat", seed=5).image
    assert opened(second).tobytes() == model.draw("a dog", seed=6, images=[picture]).image.tobytes()


def test_instructions_are_not_carried_over(live: Live, model: Model):
    first = create(live, QUESTION, instructions="do", max_output_tokens=4)
    again = create(live, "how many?", previous_response_id=first.id)
    talk = [said("user", QUESTION), said("assistant", first.output_text)]
    expected = result_of(model, Reply([*talk, said("user", "how many?")]))
    assert again.output_text == expected.text and again.instructions is None
    both: Any = [{"role": "developer", "content": "you see"}, {"role": "user", "content": QUESTION}]
    system = {"role": "system", "content": "do\nyou see"}
    expected = result_of(model, Reply([system, said("user", QUESTION)]))
    assert create(live, both, instructions="do").output_text == expected.text


@pytest.mark.parametrize("mode", ["mask", "strength"])
def test_the_last_picture_is_changed(live: Live, model: Model, mode: str):
    first = create(live, "draw a cat", tools=tool(seed=5))
    picture = model.draw("a cat", seed=5).image
    if mode == "strength":
        asked = Edit(picture, "a dog", strength=0.5, seed=9)
        options: dict[str, Any] = {"strength": 0.5}
    else:
        mask = Image.new("RGBA", (64, 64), "white")
        mask.paste((0, 0, 0, 0), (0, 0, 32, 64))  # what is transparent is painted anew
        asked = Edit(picture, "a dog", box=(0, 0, 32, 64), seed=9)
        options = {"input_image_mask": {"image_url": data_url(mask)}}
    edited = create(
        live,
        "draw a dog",
        tools=tool(seed=9, action="edit", **options),
        previous_response_id=first.id,
    )
    assert opened(edited).tobytes() == result_of(model, asked).image.tobytes()
    assert call_of(edited).action == "edit"
    # The mask may be large, and bodies do not repeat it.
    assert "input_image_mask" not in edited.tools[0].to_dict()


def test_a_picture_and_a_mask_can_be_files(live: Live, monkeypatch: pytest.MonkeyPatch):
    mask = Image.new("RGBA", (64, 64), "white")
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    files = {"file_picture": png(PICTURE), "file_mask": png(mask)}
    asked: list[tuple[Owner, str, str]] = []

    def file_of(owner: Owner, file_id: str, param: str) -> bytes:
        asked.append((owner, file_id, param))
        return files[file_id]

    monkeypatch.setattr(live.app.responses, "file_of", file_of)
    as_file = {"role": "user", "content": [{"type": "input_image", "file_id": "file_picture"}]}
    answer = create(live, [as_file, {"role": "user", "content": QUESTION}])
    shown = [{"type": "input_image", "image_url": data_url(PICTURE)}]
    message = {"role": "user", "content": shown}
    question = {"role": "user", "content": QUESTION}
    assert answer.output_text == create(live, [message, question]).output_text
    again = create(live, QUESTION, previous_response_id=answer.id)  # the bytes are kept
    assert len(asked) == 1 and again.output_text
    items = list(live.openai().responses.input_items.list(answer.id, order="asc"))
    assert items[0].content[0].file_id == "file_picture"  # type: ignore[union-attr]

    wish = {"role": "user", "content": "draw a dog"}
    by_file = {"input_image_mask": {"file_id": "file_mask"}}
    by_url = {"input_image_mask": {"image_url": data_url(mask)}}
    edited, same = (
        create(live, [as_file, wish], tools=tool(seed=9, **how)) for how in (by_file, by_url)
    )
    assert call_of(edited).action == "edit" and call_of(edited).result == call_of(same).result
    assert asked[2][1:] == ("file_mask", "tools[0].input_image_mask.file_id")
    assert {owner for owner, *_ in asked} == {asked[0][0]} != {Owner()}


def test_a_response_is_found_and_deleted(live: Live):
    client = live.openai()
    made = create(live, SHOWN, metadata={"a": "b"}, max_output_tokens=4)
    assert client.responses.retrieve(made.id) == made
    assert made.metadata == {"a": "b"}
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve(made.id)
    assert (caught.value.code, caught.value.param) == ("response_not_found", None)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)


def test_a_response_that_is_not_to_be_kept_is_not(live: Live):
    made = create(live, QUESTION, store=False, max_output_tokens=4)
    with pytest.raises(openai.NotFoundError):
        live.openai().responses.retrieve(made.id)


def test_a_response_is_of_the_key_that_made_it(live: Live):
    made, other = create(live, "draw a cat", tools=tool()), live.openai(KEYS[1])
    for ask in (
        lambda: other.responses.retrieve(made.id),
        lambda: other.responses.delete(made.id),
        lambda: other.responses.input_items.list(made.id),
        lambda: create(live, QUESTION, KEYS[1], previous_response_id=made.id),
        lambda: create(live, [{"type": "item_reference", "id": call_of(made).id}], KEYS[1]),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert live.openai().responses.retrieve(made.id).id == made.id


def test_what_was_read_is_listed_page_by_page(live: Live):
    first = create(live, SHOWN, max_output_tokens=4)
    second = create(live, QUESTION, previous_response_id=first.id, max_output_tokens=4)
    items = live.openai().responses.input_items
    oldest_first = list(items.list(second.id, order="asc", limit=1))
    assert [item.role for item in oldest_first] == ["user", "assistant", "user"]  # type: ignore[union-attr]
    assert oldest_first[0].content[1].image_url == data_url(PICTURE)  # type: ignore[union-attr]
    assert [item.id for item in items.list(second.id)] == [i.id for i in oldest_first[::-1]]
    assert len(list(items.list(second.id, after=oldest_first[0].id or "", order="asc"))) == 2


@pytest.mark.parametrize(
    ("query", "param"), [("stream=true", "stream"), ("include[]=x", "include[]")]
)
def test_what_a_response_is_not_told_with(live: Live, query: str, param: str):
    with live.http() as http:
        response = http.get(f"/v1/responses/resp_x?{query}")
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


USER = {"role": "user", "content": "draw a cat"}
CLEAR = data_url(Image.new("RGBA", (64, 64)))
BROKEN = "data:image/png;base64,aGVsbG8="
BAD_PART = "input[0].content[0]"


def part(**keys: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_image", **keys}]}, USER]}


def painted(**keys: Any) -> dict[str, Any]:
    return {"input": "draw a cat", "tools": tool(**keys)}


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "input", None),
        ({"input": []}, 400, "input", None),
        ({"input": 3}, 400, "input", None),
        ({"input": " "}, 400, "input[0]", None),
        ({"input": ["x"]}, 400, "input[0]", None),
        ({"input": [{"role": "user"}]}, 400, "input[0]", None),
        ({"input": [{"role": "robot", "content": "x"}]}, 400, "input[0]", None),
        ({"input": [{**USER, "name": "x"}]}, 400, "input[0].name", None),
        ({"input": [{"type": "reasoning", "id": "x"}]}, 400, "input[0].type", None),
        ({"input": [{"role": "assistant", "content": "x"}, USER]}, 400, "input[0]", None),
        ({"input": [USER, {"role": "assistant", "content": "x"}]}, 400, "input[1]", None),
        ({"input": [USER, {"role": "system", "content": "x"}, USER]}, 400, "input[1]", None),
        ({"input": [{"type": "item_reference", "id": "x"}]}, 404, "input[0].id", "item_not_found"),
        (
            part(image_url="http://127.0.0.1/x.png"),
            400,
            f"{BAD_PART}.image_url",
            "invalid_image_url",
        ),
        (part(image_url="/etc/hostname"), 400, f"{BAD_PART}.image_url", "invalid_image_url"),
        (part(image_url=BROKEN), 400, BAD_PART, "invalid_image_format"),
        (part(image_url=BROKEN) | {"tools": tool()}, 400, BAD_PART, "invalid_image_format"),
        (part(image_url=data_url(PICTURE), detail="low"), 400, BAD_PART, None),
        (part(file_id="file_x"), 400, BAD_PART, None),
        (part(type="input_audio"), 400, f"{BAD_PART}.type", None),
        (
            {"input": "x", "previous_response_id": "resp_x"},
            404,
            "previous_response_id",
            "response_not_found",
        ),
        ({"input": "x", "model": "nope"}, 404, "model", "model_not_found"),
        ({"input": "x", "background": True}, 400, "background", None),
        ({"input": "x", "truncation": "auto"}, 400, "truncation", None),
        ({"input": "x", "include": ["message.output_text.logprobs"]}, 400, "include", None),
        ({"input": "x", "conversation": "c"}, 400, "conversation", None),
        ({"input": "x", "max_tokens": 3}, 400, "max_tokens", None),
        ({"input": "x", "max_output_tokens": 0}, 400, "max_output_tokens", None),
        ({"input": "x", "temperature": -1}, 400, "temperature", None),
        ({"input": "x", "stream": 1}, 400, "stream", None),
        ({"input": "x", "metadata": {"a": 1}}, 400, "metadata", None),
        ({"input": "x", "metadata": {str(i): "" for i in range(17)}}, 400, "metadata", None),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, 400, "text.format.type", None),
        (
            {"input": "x", "text": {"format": {"type": "json_schema"}}},
            400,
            "text.format.name",
            None,
        ),
        ({"input": "x", "text": {"verbosity": "low"}}, 400, "text.verbosity", None),
        ({"input": "x", "tools": [{"type": "web_search"}]}, 400, "tools[0].type", None),
        ({"input": "x", "tools": [*tool(), *tool()]}, 400, "tools", None),
        ({"input": "x", "tool_choice": FORCED}, 400, "tool_choice", None),
        ({"input": "x", "tool_choice": "maybe"}, 400, "tool_choice", None),
        (painted(n=2), 400, "tools[0].n", None),
        (painted(size="big"), 400, "tools[0].size", None),
        (painted(size="65x64"), 400, "tools[0].size", None),
        (painted(model="nope"), 404, "tools[0].model", "model_not_found"),
        (painted(input_fidelity="high"), 400, "tools[0].input_fidelity", None),
        (painted(quality="high"), 400, "tools[0].quality", None),
        (painted(background="transparent"), 400, "tools[0].background", None),
        (painted(output_format="gif"), 400, "tools[0].output_format", None),
        (painted(partial_images=4), 400, "tools[0].partial_images", None),
        (painted(partial_images=1), 400, "tools[0].partial_images", None),
        (
            painted(partial_images=1, tries=2) | {"stream": True},
            400,
            "tools[0].partial_images",
            None,
        ),
        (
            painted(input_image_mask={"image_url": CLEAR}, box=[0, 0, 1, 1]),
            400,
            "tools[0].box",
            None,
        ),
        (painted(box=[0, 0, 1, 1], margin=[-1, 0, 0, 0]), 400, "tools[0].box", None),
        (painted(priority=-1), 400, "tools[0].priority", None),
        (painted() | {"priority": -1}, 400, "priority", None),
        (painted(seed=[1]), 400, "tools[0].seed", None),
        (painted(guidance="x"), 400, "tools[0].guidance", None),
        (painted(strength=0.5), 400, "tools[0].strength", None),
        (painted(action="edit"), 400, "tools[0].action", None),
        (painted(action="paint"), 400, "tools[0].action", None),
        (painted(input_image_mask={}), 400, "tools[0].input_image_mask", None),
        (painted(input_image_mask={"image_url": CLEAR}), 400, "tools[0].input_image_mask", None),
        (
            part(image_url=data_url(PICTURE))
            | {"tools": tool(input_image_mask={"image_url": BROKEN})},
            400,
            "tools[0].input_image_mask.image_url",
            "invalid_image_format",
        ),
        (
            part(image_url=data_url(PICTURE)) | {"tools": tool(input_image_mask={"file_id": "x"})},
            400,
            "tools[0].input_image_mask.file_id",
            None,
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    live: Live, body: dict[str, Any], status: int, param: str, code: str | None
):
    with live.http() as http:
        response = http.post("/v1/responses", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["message"]
