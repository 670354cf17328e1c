"""/v1/images/generations, driven by OpenAI's client: what the library gives, and clear refusals."""

import asyncio
import base64
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any

import httpx2
import pytest
from PIL import Image

import unitok
from tests.server.live import Live, served, told
from unitok import Draw, Model, read_info
from unitok.handles import Flight

PROMPT = "a cat"
URL = "/v1/images/generations"


@cache
def drawn(model: Model, seed: int) -> Image.Image:
    return model.draw(PROMPT, seed=seed).image


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bytes_of(picture: Any) -> bytes:
    return base64.b64decode(picture.b64_json, validate=True)


def test_a_picture_is_the_file_that_the_library_saves(live: Live, model: Model):
    answer = live.openai().images.generate(
        model="gpt-image-1",
        prompt=PROMPT,
        size="64x64",
        user="me",
        safety_identifier="me",
        extra_body={"seed": 5, "guidance": 2.0},
    )
    (picture,) = answer.data or []
    expected = model.draw(PROMPT, seed=5, guidance=2.0)
    assert bytes_of(picture) == file_of(expected.image)
    assert read_info(bytes_of(picture))["prompt"] == PROMPT
    assert (answer.size, answer.output_format, answer.background) == ("64x64", "png", "opaque")
    assert answer.usage is not None
    assert answer.usage.output_tokens == expected.completion_tokens
    assert answer.usage.input_tokens == expected.prompt_tokens


def test_each_of_several_pictures_has_a_seed_of_its_own(live: Live, model: Model):
    answer = live.openai().images.generate(prompt=PROMPT, n=3, extra_body={"seed": 5})
    pictures = answer.data or []
    assert [bytes_of(p) for p in pictures] == [file_of(drawn(model, seed)) for seed in (5, 6, 7)]
    assert [p.seed for p in pictures] == [5, 6, 7]  # type: ignore[attr-defined]
    again = live.openai().images.generate(prompt=PROMPT, extra_body={"seed": [7, 5]})
    assert [bytes_of(p) for p in again.data or []] == [bytes_of(pictures[2]), bytes_of(pictures[0])]


def test_a_random_seed_is_told(live: Live, model: Model):
    (picture,) = live.openai().images.generate(prompt=PROMPT).data or []
    assert bytes_of(picture) == file_of(drawn(model, picture.seed))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "compression", "options"),
    [
        ("jpeg", 0, {"quality": 0}),
        ("webp", None, {}),
        ("webp", 60, {"quality": 60}),
        ("png", 100, {}),
    ],
)
def test_other_formats_are_the_librarys_files_too(
    live: Live, model: Model, kind: Any, compression: int | None, options: dict[str, int]
):
    more: dict[str, Any] = {} if compression is None else {"output_compression": compression}
    answer = live.openai().images.generate(
        prompt=PROMPT, output_format=kind, extra_body={"seed": 5}, **more
    )
    (picture,) = answer.data or []
    data = bytes_of(picture)
    assert data == file_of(drawn(model, 5), kind.upper(), **options)
    assert Image.open(BytesIO(data)).format == kind.upper()
    info = read_info(data)
    assert (info["prompt"], info["seed"]) == (PROMPT, "5")
    assert answer.output_format == kind


@pytest.fixture(scope="module")
def slow() -> Iterator[Live]:
    """A server that paints token by token, so that there is time for previews."""
    with unitok.load(drafts=False) as undrafted, served(undrafted) as running:
        yield running


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_has_previews_and_then_the_pictures(slow: Live, model: Model, n: int):
    events: Any = slow.openai().images.generate(
        prompt=PROMPT, n=n, stream=True, partial_images=2, extra_body={"seed": 5}
    )
    numbers: list[list[int]] = [[] for _ in range(n)]
    pictures: dict[int, bytes] = {}
    for event in events:
        data, index = bytes_of(event), event.image_index
        assert (event.seed, event.size, event.quality) == (5 + index, "64x64", "auto")
        assert index not in pictures
        if event.type == "image_generation.partial_image":
            numbers[index].append(event.partial_image_index)
            assert "rows" in read_info(data)["preview"]
        else:
            assert event.type == "image_generation.completed"
            assert event.usage.output_tokens == 64
            pictures[index] = data
    assert pictures == {i: file_of(drawn(model, 5 + i)) for i in range(n)}
    # A preview is left out if the next rows are there before it is decoded.
    assert all(told == list(range(len(told))) and len(told) <= 2 for told in numbers)
    assert any(numbers)


def test_a_stream_without_previews_has_only_the_picture(live: Live):
    events: Any = live.openai().images.generate(prompt=PROMPT, stream=True, output_format="webp")
    (event,) = events
    assert event.type == "image_generation.completed"
    assert Image.open(BytesIO(bytes_of(event))).format == "WEBP"


@pytest.mark.parametrize("path", ["generations", "edits"])
def test_a_stream_makes_no_events_that_it_does_not_send(
    slow: Live, model: Model, monkeypatch: pytest.MonkeyPatch, path: str
):
    """But for the first one, which tells the time to the first token."""
    published: list[str] = []
    add = Flight._add

    def count(flight: Flight[Any, Any], event: Any) -> None:
        published.append(event.kind)
        add(flight, event)

    monkeypatch.setattr(Flight, "_add", count)
    images, options = slow.openai().images, {"prompt": PROMPT, "stream": True}
    if path == "generations":
        made: Any = images.generate(**options, extra_body={"seed": 5})
    else:
        box = {"box": "8,8,40,40", "seed": 5}
        made = images.edit(**options, image=file_of(drawn(model, 5)), extra_body=box)
    assert [event.type.rpartition(".")[2] for event in made] == ["completed"]
    assert published == ["tokens", "image", "result"]


def test_events_of_a_submitted_drawing_tell_its_progress_unless_told_otherwise(slow: Live):
    async def kinds(progress: bool) -> list[str]:
        (model,) = slow.app.services.models.models
        handle = await model.asubmit(Draw(PROMPT, seed=5), stream=True, progress=progress)
        return [event.kind async for event in handle]

    assert asyncio.run(kinds(True)).count("tokens") > 1
    assert asyncio.run(kinds(False)).count("tokens") == 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": ["a cat"]}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": "2"}, "n"),
        ({"n": True}, "n"),
        ({"size": "128x128"}, "size"),
        ({"size": "big"}, "size"),
        ({"response_format": "url"}, "response_format"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": ["png"]}, "output_format"),
        ({"output_compression": 50}, "output_compression"),
        ({"output_compression": 101, "output_format": "webp"}, "output_compression"),
        ({"output_compression": 1.5, "output_format": "webp"}, "output_compression"),
        ({"background": "transparent"}, "background"),
        ({"quality": "hd"}, "quality"),
        ({"moderation": "low"}, "moderation"),
        ({"style": "vivid"}, "style"),
        ({"partial_images": 2}, "partial_images"),
        ({"partial_images": 4, "stream": True}, "partial_images"),
        ({"stream": "yes"}, "stream"),
        ({"seed": "one"}, "seed"),
        ({"seed": list(range(17))}, "seed"),
        ({"guidance": 5000}, "guidance"),
        ({"top_p": 0}, "top_p"),
        ({"timeout": -1}, "timeout"),
        ({"preview": True}, "preview"),
        ({"image": "x"}, "image"),
        ({"frame_count": 3}, "frame_count"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(live: Live, change: dict[str, Any], param: str):
    with live.http() as http:
        response = http.post(URL, json={"prompt": PROMPT, **change})
    assert told(response) == (400, None, param)
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"]


def test_a_prompt_that_is_too_long_is_refused(live: Live):
    with live.http() as http:
        response = http.post(URL, json={"prompt": "a cat " * 3000})
    assert told(response) == (400, "context_length_exceeded", None)


@pytest.mark.parametrize("change", [{"stream": True}, {"stream": True, "partial_images": 3}])
def test_a_client_that_leaves_ends_its_pictures(live: Live, change: dict[str, Any]):
    """That nothing is left is checked after each test."""
    body = {"prompt": PROMPT, "n": 3, **change}
    with live.http() as http, http.stream("POST", URL, json=body) as response:
        assert response.status_code == 200
    with live.http() as http, pytest.raises(httpx2.ReadTimeout):
        http.post(URL, json={"prompt": PROMPT, "n": 4}, timeout=0.05)


@pytest.mark.parametrize(("body", "param"), [([], None), ("a cat", None), ({}, "prompt")])
def test_a_body_without_a_prompt_is_refused(live: Live, body: Any, param: str | None):
    with live.http() as http:
        assert told(http.post(URL, json=body)) == (400, None, param)


def test_odd_characters_of_a_prompt_do_no_harm(live: Live):
    with live.http() as http:
        for kind in ("png", "jpeg"):
            body = {"prompt": "a \x00 cat\x7f \u202e\ufffe\U0001f408", "output_format": kind}
            assert http.post(URL, json=body).status_code == 200


def test_more_pictures_than_there_is_room_for_are_refused_before_they_begin(live: Live):
    admission = live.app.services.admission
    rejected = admission.rejected
    room, admission.settings = admission.settings, type(admission.settings)(max_requests=2)
    try:
        with live.http() as http:
            response = http.post(URL, json={"prompt": PROMPT, "n": 3})
    finally:
        admission.settings = room
    assert told(response) == (503, "overloaded", None)
    assert admission.rejected == rejected + 1


def test_a_time_limit_of_a_request_holds(live: Live):
    with live.http() as http:
        response = http.post(URL, json={"prompt": PROMPT, "n": 4, "timeout": 1e-6})
    assert told(response) == (504, "timeout", None)
