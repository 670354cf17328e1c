"""Streams of /v1/responses: every event of the wire, in its order, and what failures look like."""

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from openai.types.responses import Response
from PIL import Image

import unitok
from tests.server.live import Live, served
from unitok import Draw, Event, Model
from unitok.openai_wire.output_format import OutputFormat
from unitok.openai_wire.responses_output import PictureOutput, Teller
from unitok.openai_wire.responses_painting import Painting

START = ["response.created", "response.in_progress", "response.output_item.added"]
QUESTION = "what is in the picture?"
CALL = "response.image_generation_call"
TOOL = {"type": "image_generation", "seed": 5}


@pytest.fixture(scope="module")
def slow() -> Iterator[Live]:
    """A server that paints token by token, so that there is time for previews."""
    with unitok.load(drafts=False) as undrafted, served(undrafted) as running:
        yield running


def events_of(live: Live, input: Any, **options: Any) -> list[Any]:
    """All events, whose numbers have no gap."""
    own = {name: options.pop(name) for name in ("seed", "timeout") if name in options}
    stream = live.openai().responses.create(
        model="default", input=input, stream=True, extra_body=own, **options
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def last_of(events: list[Any]) -> Response:
    return events[-1].response


def test_an_answer_comes_with_every_event_in_its_order(live: Live):
    options: dict[str, Any] = {"temperature": 5.0, "max_output_tokens": 12, "seed": 3}
    events = events_of(live, QUESTION, **options)
    kinds = [event.type for event in events]
    pieces = kinds.count("response.output_text.delta")
    assert pieces > 1
    assert kinds == [
        *START,
        "response.content_part.added",
        *["response.output_text.delta"] * pieces,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete" if last_of(events).incomplete_details else "response.completed",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    answer = last_of(events)
    assert text == answer.output_text
    whole = live.openai().responses.create(
        model="default",
        input=QUESTION,
        temperature=5.0,
        max_output_tokens=12,
        extra_body={"seed": 3},
    )
    assert whole.output_text == text and whole.usage == answer.usage
    assert live.openai().responses.retrieve(answer.id) == answer
    begun = [event.response for event in events[:2]]
    assert {(one.id, one.status, len(one.output)) for one in begun} == {
        (answer.id, "in_progress", 0)
    }


def test_a_picture_comes_with_every_event_in_its_order(slow: Live, model: Model):
    events = events_of(slow, "draw a cat", tools=[{**TOOL, "partial_images": 2}])
    partial = [event for event in events if event.type == f"{CALL}.partial_image"]
    assert 1 <= len(partial) <= 2  # one is left out if the next rows are there before it is decoded
    assert [event.type for event in events] == [
        *START,
        f"{CALL}.in_progress",
        f"{CALL}.generating",
        *[f"{CALL}.partial_image"] * len(partial),
        f"{CALL}.completed",
        "response.output_item.done",
        "response.completed",
    ]
    (call,) = last_of(events).output
    assert events[-2].item == call
    drawn = model.draw("a cat", seed=5).image
    assert call.type == "image_generation_call" and call.result is not None
    assert Image.open(BytesIO(base64.b64decode(call.result))).tobytes() == drawn.tobytes()
    numbers = [event.partial_image_index for event in partial]
    assert numbers == list(range(len(partial)))
    assert all(event.item_id == call.id for event in partial)


def test_a_preview_is_an_event_with_its_number():
    painting = Painting(Draw("a cat"), None)
    output = PictureOutput("ig_1", painting, OutputFormat("webp"), seed=5)
    teller = Teller("resp_1", 0, "default", 5, {})
    preview = Event("preview", image=Image.new("RGB", (64, 32), "red"), rows=2)
    events = [*output.add(teller, preview), *output.add(teller, preview)]
    events += output.add(teller, Event("tokens"))
    assert [event["partial_image_index"] for event in events] == [0, 1]
    assert [event["sequence_number"] for event in events] == [0, 1]
    facts = {"type": f"{CALL}.partial_image", "item_id": "ig_1", "output_index": 0}
    facts |= {"size": "64x32", "output_format": "webp", "background": "opaque", "quality": "auto"}
    assert facts.items() <= events[0].items()
    picture = Image.open(BytesIO(base64.b64decode(events[0]["partial_image_b64"])))
    assert (picture.format, picture.size) == ("WEBP", (64, 32))


def test_events_have_their_names_on_the_wire(live: Live):
    body = {"input": QUESTION, "stream": True, "max_output_tokens": 3}
    with live.http() as http, http.stream("POST", "/v1/responses", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    names = [line.removeprefix("event: ") for line in lines[::2]]
    bodies = [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    assert names == [body["type"] for body in bodies]
    assert names[-1] in ("response.completed", "response.incomplete")


@pytest.mark.parametrize(
    ("tools", "status"), [([], "incomplete"), ([TOOL], "failed")], ids=["text", "picture"]
)
def test_a_response_whose_time_is_over_has_failed(live: Live, tools: list[Any], status: str):
    events = events_of(live, "draw a cat", tools=tools, timeout=1e-6)
    assert [event.type for event in events[-2:]] == ["response.output_item.done", "response.failed"]
    failed = last_of(events)
    assert failed.status == "failed" and failed.error is not None
    assert failed.error.code == "timeout" and failed.error.message
    assert [item.status for item in failed.output] == [status]  # type: ignore[union-attr]


def test_a_request_that_is_wrong_is_refused_before_its_stream_begins(live: Live):
    words = "what is in the picture? " * 2000
    with live.http() as http:
        response = http.post("/v1/responses", json={"input": words, "stream": True})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_a_server_that_fails_amid_a_stream_says_so(live: Live, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> str:
        raise OSError("a secret of the server")

    monkeypatch.setattr(OutputFormat, "in_base64", fail)
    events = events_of(live, "draw a cat", tools=[TOOL])
    assert events[-1].type == "error"
    assert events[-1].code == "internal_error" and "secret" not in events[-1].message


@pytest.mark.parametrize("tools", [[], [{**TOOL, "partial_images": 3}]], ids=["text", "picture"])
@pytest.mark.parametrize("taken", [1, 4])
def test_a_client_that_goes_away_leaves_nothing(live: Live, tools: list[Any], taken: int):
    client = live.openai()
    with client.responses.create(
        model="default",
        input="draw a cat",
        stream=True,
        tools=tools,
        temperature=9.0,
        max_output_tokens=1500,
    ) as stream:
        for _ in range(taken):
            next(iter(stream))
    live.settle()
