"""Records of data sets: parsed, and refused by the place of what is wrong."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.training.conversations import (
    assistant,
    conversation,
    noise,
    picture,
    png,
    said,
    text,
    user,
)
from unitok.messages import MAX_PICTURES
from unitok.training.data.conversations import DataError, parse_conversation


def test_turns_keep_their_parts_and_what_the_assistant_says_is_learned():
    talk = conversation(
        {"role": "system", "content": "Be brief."},
        user(text("a"), picture("x.png")),
        assistant(text("b")),
        user("c"),
        assistant(picture("y.png")),
    )
    assert talk.system == "Be brief."
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2
    assert [turn.learned for turn in talk.turns] == [(False, False), (True,), (False,), (True,)]
    assert said(talk) == ["a", "b", "c"]
    assert [p.where for turn in talk.turns for p, _ in turn.pictures] == [
        "messages[1].content[1]",
        "messages[4].content[0]",
    ]


def test_a_message_or_a_part_can_be_left_out_of_the_loss():
    talk = conversation(
        user("a"),
        assistant("b", train=False),
        user(
            "c",
        ),
        assistant(text("d") | {"train": False}, text("e") | {"train": None}, "f"),
        assistant("g", train=True),
        {"role": "user", "content": "h", "train": False},
        {"role": "assistant", "content": "i", "train": None},
    )
    learned = [turn.learned for turn in talk.turns]
    assert learned == [(False,), (False,), (False,), (False, True, True, True), (False,), (True,)]


def test_pictures_lie_beside_the_file_or_in_the_line(tmp_path: Path):
    noise(1).save(tmp_path / "a.png")
    uri = "data:image/png;base64," + base64.b64encode(png(2)).decode()
    url = {"type": "image_url", "image_url": {"url": uri}}
    encoded = {"type": "image", "base64": base64.b64encode(png(3)).decode()}
    talk = conversation(
        user({"type": "image", "path": "a.png"}, url, encoded), assistant("b"), folder=tmp_path
    )
    opened = [picture.open() for picture, _ in talk.turns[0].pictures]
    assert [image.tobytes() for image in opened] == [noise(i).tobytes() for i in (1, 2, 3)]


def test_pictures_of_a_list_stand_for_the_parts_that_name_none(tmp_path: Path):
    for i in (1, 2):
        noise(i).save(tmp_path / f"{i}.png")
    nameless = {"type": "image", "image": None, "text": None}
    talk = conversation(
        user(nameless, "a"),
        assistant({"type": "image", "train": False}, "b"),
        folder=tmp_path,
        images=["1.png", "2.png"],
    )
    opened = [picture.open() for turn in talk.turns for picture, _ in turn.pictures]
    assert [image.tobytes() for image in opened] == [noise(i).tobytes() for i in (1, 2)]
    assert talk.turns[1].learned == (False, True)


WRONG: list[tuple[Any, str]] = [
    ([], "the record must be a dictionary, not list"),
    ({}, "the record: 'messages' is missing"),
    ({"messages": [], "mesages": 1}, "unknown key 'mesages'; the keys are messages, images, id"),
    ({"messages": []}, "messages has no message of the user"),
    ({"messages": "a"}, "messages must be a list of messages, not str"),
    ({"messages": [user("a")]}, "messages[0]: the last message must be of the assistant"),
    ({"messages": [assistant("a")]}, "messages[0]: the user begins, not the assistant"),
    ({"messages": [{"role": "user"}]}, "messages[0]: 'content' is missing"),
    ({"messages": [user("a"), assistant(" ")]}, "messages[1]: the message is empty"),
    ({"messages": [user("a"), assistant()]}, "messages[1]: the message is empty"),
    ({"messages": [user("a"), assistant(5)]}, "messages[1].content[0]"),
    ({"messages": [user("a"), assistant("b", train="no")]}, "messages[1]: train must be true or"),
    (
        {"messages": [user("a"), assistant(text("b") | {"train": 0})]},
        "messages[1].content[0]: train must be true or false, not 0",
    ),
    (
        {"messages": [user(text("a") | {"train": True}), assistant("b")]},
        "messages[0]: only what the assistant says is learned",
    ),
    ({"messages": [user("a"), assistant("b", train=False)]}, "nothing is learned"),
    (
        {"messages": [user({"type": "image"}), assistant("b")], "images": []},
        "messages[0].content[0]: images has no picture for it",
    ),
    (
        {"messages": [user({"type": "image"}), assistant("b")], "images": ["a", "b"]},
        "images has 2 pictures, and the messages show 1",
    ),
    (
        {"messages": [user({"type": "image"}), assistant("b")]},
        "messages[0].content[0]: an image part needs one of",
    ),
    (
        {"messages": [user("a"), *[assistant(picture("a.png"))] * (MAX_PICTURES + 1)]},
        f"messages has {MAX_PICTURES + 1} pictures; at most {MAX_PICTURES} are read",
    ),
]


@pytest.mark.parametrize(("record", "message"), WRONG, ids=[m for _, m in WRONG])
def test_an_error_names_the_line_and_the_place(record: Any, message: str):
    with pytest.raises(DataError) as caught:
        parse_conversation(record, "train.jsonl:12")
    assert str(caught.value).startswith("train.jsonl:12: ")
    assert message in str(caught.value)
