"""Conversations in the messages form: what is read, what is refused, and what the model gets."""

import asyncio
import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unitok
from tests.unitok.tiny import save_tiny
from unitok import Reply
from unitok.api import Model
from unitok.messages import (
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_PICTURES,
    ParsedPicture,
    ParsedTurn,
    parse_messages,
)
from unitok.prompt import EncodedImage, Message

HELLO = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "yes"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with unitok.load(save_tiny(tmp_path_factory.mktemp("messages")), memory="16MB") as model:
        yield model


def picture(seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array)


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def user(*parts: object) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def shown(source: object) -> dict[str, Any]:
    return {"type": "image", "image": source}


# --- what is read --------------------------------------------------------------------------------


def test_roles_and_texts_are_read():
    parsed = parse_messages([{"role": "system", "content": "be brief"}, HELLO, ANSWER, HELLO])
    assert parsed.system == "be brief"
    assert parsed.turns == (
        ParsedTurn("user", ("hello",)),
        ParsedTurn("assistant", ("yes",)),
        ParsedTurn("user", ("hello",)),
    )


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_may_be_in_parts_and_empty(role):
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert parse_messages([{"role": role, "content": parts}, HELLO]).system == "a\nb"
    assert parse_messages([{"role": role, "content": ""}, HELLO]).system == ""
    assert parse_messages([HELLO]).system is None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "auto"}},
        {"type": "image_url", "image_url": "a.png"},
        {"type": "input_image", "image_url": "a.png", "detail": "auto", "file_id": None},
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "url": "a.png", "image": None},
    ],
)
def test_every_kind_of_picture_part_is_read(part: dict[str, Any]):
    (turn,) = parse_messages([user(part, text("what is this?"))]).turns
    assert turn.parts == (ParsedPicture("a.png", "messages[0].content[0]"), "what is this?")


def test_a_picture_in_base64_becomes_bytes():
    data = png(picture())
    part = {"type": "image", "base64": base64.b64encode(data).decode()}
    assert parse_messages([user(part)]).pictures[0].source == data


def test_relative_paths_start_at_the_folder_and_nothing_else_does(tmp_path: Path):
    image = picture()
    uri = "data:image/png;base64,AAAA"
    sources = ["a.png", Path("b/c.png"), "/d.png", uri, "https://e/f.png", image, b"bytes"]
    parsed = parse_messages([user(*map(shown, sources))], tmp_path)
    assert [p.source for p in parsed.pictures] == [
        tmp_path / "a.png",
        tmp_path / "b/c.png",
        Path("/d.png"),
        *sources[3:],
    ]
    assert parse_messages([user(shown("a.png"))]).pictures[0].source == "a.png"


def test_neighbours_of_one_role_are_one_turn():
    parsed = parse_messages([HELLO, user(shown("a.png"), text("b")), ANSWER, ANSWER, HELLO])
    assert [turn.role for turn in parsed.turns] == ["user", "assistant", "user"]
    first = ParsedPicture("a.png", "messages[1].content[0]")
    assert parsed.turns[0].parts == ("hello", first, "b")
    assert parsed.turns[1].parts == ("yes", "yes")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "messages has no message of the user"),
        ([{"role": "system", "content": "a"}], "messages has no message of the user"),
        ([{"content": "a"}], r"messages\[0\]: 'role' is missing"),
        ([{"role": "user"}], r"messages\[0\]: 'content' is missing"),
        ([{"role": "user", "content": None}], r"messages\[0\]: 'content' is missing"),
        ([HELLO, {"role": "tool", "content": "a"}], r"messages\[1\]: unknown role 'tool'; the ro"),
        ([HELLO | {"name": "Ann"}], r"messages\[0\]: unknown key 'name'; the keys are role, con"),
        ([HELLO | {"tool_calls": []}], r"messages\[0\]: unknown key 'tool_calls'"),
        ([HELLO, {"role": "system", "content": "a"}, HELLO], r"messages\[1\]: a system message ca"),
        ([ANSWER, HELLO], r"messages\[0\]: the user begins, not the assistant"),
        ([HELLO, ANSWER], r"messages\[1\]: the last message must be of the user, not the assista"),
        ([user(text(" "))], r"messages\[0\]: the message is empty"),
        ([user()], r"messages\[0\]: the message is empty"),
        ([{"role": "system", "content": [shown("a.png")]}, HELLO], r"messages\[0\]: a system mes"),
        (
            [HELLO, ANSWER, user(text("a"), {"type": "audio"})],
            r"messages\[2\].content\[1\]: unknown part type 'audio'; the types are text, image_url",
        ),
        ([user({"text": "a"})], r"messages\[0\].content\[0\]: 'type' is missing"),
        ([user({"type": ["text"]})], r"content\[0\]: unknown part type \['text'\]"),
        ([user({"type": "text"})], r"messages\[0\].content\[0\]: 'text' is missing"),
        (
            [{"role": "user", "content": "\ud800"}],
            r"messages\[0\].content: the text is not valid U",
        ),
        ([user(text("\ud800"))], r"messages\[0\].content\[0\]: the text is not valid Unicode"),
        ([user(text("a") | {"cache": 1})], r"content\[0\]: unknown key 'cache'; the keys are ty"),
        ([user({"type": "image"})], "an image part needs one of 'image', 'path', 'url', 'base64'"),
        ([user(shown("a") | {"url": "b"})], "an image part needs one of"),
        ([user({"type": "image_url"})], "an image_url part needs 'image_url'"),
        ([user({"type": "image_url", "image_url": {}})], r"\[0\].image_url: 'url' is missing"),
        (
            [user({"type": "image_url", "image_url": {"url": "a", "detail": "high"}})],
            "detail can only be 'auto', not 'high'",
        ),
        ([user({"type": "image", "base64": "a?"})], "the picture is not valid base64"),
        ([user({"type": "image", "base64": "ä"})], "the picture is not valid base64"),
        ([HELLO] * (MAX_MESSAGES + 1), "messages has 1,001 entries; at most 1,000 are read"),
        ([user(*["a"] * (MAX_PARTS + 1))], r"messages\[0\].content has 101 entries"),
        (
            [user(*map(shown, ["a"] * 60)), ANSWER, user(*map(shown, ["a"] * 60))],
            f"messages has 120 pictures; at most {MAX_PICTURES}",
        ),
    ],
)
def test_errors_name_the_place(messages: list[Any], error: str):
    with pytest.raises(ValueError, match=error):
        parse_messages(messages)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ("hello", "messages must be a list of messages, not str"),
        (HELLO, "messages must be a list of messages, not dict"),
        (iter([HELLO]), "messages must be a list of messages"),
        (["hello"], r"messages\[0\] must be a dictionary, not str"),
        (
            [{"role": "user", "content": 3}],
            r"messages\[0\].content must be text or a list of parts",
        ),
        ([user(3)], r"messages\[0\].content\[0\] must be a dictionary, not int"),
        (
            [user({"type": "text", "text": 3})],
            r"messages\[0\].content\[0\]: text must be text, not",
        ),
        ([user({"type": "image", "path": 3})], r"\[0\]: path must be text, not int"),
        (
            [user({"type": "image_url", "image_url": {"url": b"a"}})],
            "image_url must be text, not by",
        ),
    ],
)
def test_wrong_types_are_named(messages: Any, error: str):
    with pytest.raises(TypeError, match=error):
        parse_messages(messages)


def test_a_picture_that_cannot_be_opened_is_named(model: Model, tmp_path: Path):
    (tmp_path / "b.png").write_bytes(b"no picture")
    for name, kind in (("a.png", FileNotFoundError), ("b.png", ValueError)):
        with pytest.raises(kind, match=rf"messages\[0\].content\[1\]: {tmp_path / name}"):
            model.chat(messages=[user(text("?"), shown(name))], folder=tmp_path)
    with pytest.raises(TypeError, match=r"messages\[0\].content\[0\]: a picture is"):
        model.chat(messages=[user(shown({}))])


# --- what the model gets -------------------------------------------------------------------------


def test_messages_are_answered_as_a_chat_answers(model: Model):
    chat = model.chat(system="a dog")
    first = chat.send("what is this?", images=[picture()], max_tokens=4)
    second = chat.send("and a cat?", max_tokens=4)
    messages = [
        {"role": "system", "content": "a dog"},
        user(shown(picture()), text("what is this?")),
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "and a cat?"},
    ]
    result = model.chat(messages=messages, max_tokens=4)
    assert (result.text, result.prompt_tokens) == (second.text, second.prompt_tokens)
    assert model.chat(messages, max_tokens=4).text == second.text
    assert result.request == Reply(messages, max_tokens=4)


def test_messages_go_every_way_that_requests_go(model: Model, tmp_path: Path):
    picture().save(tmp_path / "a.png")
    asked = Reply([user(shown("a.png"), text("what?"))], folder=tmp_path, max_tokens=4)
    options: dict[str, Any] = {"folder": tmp_path, "max_tokens": 4}
    wanted = model.chat(messages=asked.messages, **options).text
    assert wanted == model.caption(picture(), "what?", max_tokens=4).text

    async def awaited() -> list[Any]:
        answer = await model.achat(messages=asked.messages, **options)
        events = [event async for event in model.astream(asked)]
        return [answer, events[-1].result, *[result async for result in model.arun([asked])]]

    *_, last = model.stream(asked)
    bad, good = model.run([Reply([ANSWER]), asked])
    results: list[Any] = [last.result, good, *asyncio.run(awaited())]
    assert [r.text for r in results] == [wanted] * 5
    assert (bad.finish_reason, bad.request) == ("error", Reply([ANSWER]))
    assert bad.error == "messages[0]: the user begins, not the assistant"


def test_options_of_messages_are_checked(model: Model):
    with pytest.raises(TypeError, match="Reply has no option 'max_token'; did you mean 'max_tok"):
        model.chat(messages=[HELLO], max_token=4)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="top_p must be above 0"):
        model.chat(messages=[HELLO], top_p=0.0)
    with pytest.raises(ValueError, match="shorten it"):
        model.chat(messages=[user(text("dog " * 300))])


def test_pictures_keep_their_places_among_the_texts(model: Model):
    one, two = shown(picture(1)), shown(picture(2))
    orders = [[text("a"), one, text("b"), two], [one, text("a"), two, text("b")], [one, two]]
    assert len({model.chat(messages=[user(*o)], max_tokens=8).text for o in orders}) == 3


# --- the order of texts and pictures -------------------------------------------------------------

SEEN, ALSO = EncodedImage(((3, 4),)), EncodedImage(((3, 5, 4),))


def test_a_message_in_the_usual_order_is_the_plain_one():
    assert Message.of("user", [SEEN, ALSO, "a"]) == Message("user", "a", (SEEN, ALSO))
    assert Message.of("user", ["a", "", "b"]) == Message("user", "a\nb")
    assert Message.of("user", [SEEN]) == Message("user", "", (SEEN,))
    assert Message.of("assistant", [""]) == Message("assistant", "")


def test_a_message_in_another_order_keeps_it():
    message = Message.of("user", ["a", SEEN, "b", "c", ALSO])
    assert (message.text, message.pictures) == ("a\nb\nc", (SEEN, ALSO))
    assert message.pieces == ("a", SEEN, "b\nc", ALSO)
    assert Message("user", "a", (SEEN,)).pieces == (SEEN, "a")
