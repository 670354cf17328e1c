"""Which messages ask for a picture, and for which one."""

import pytest

from unitok.openai_wire.responses_wishes import is_change, wish_of


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("draw a cat", "a cat"),
        ("Draw a cat.", "a cat"),
        ("DRAW: two dogs and a car!", "two dogs and a car"),
        ("please draw me a cat", "a cat"),
        ("Hi, could you please paint us a red house, please?", "a red house"),
        ("can you sketch a robot?", "a robot"),
        ("ok, now draw it again", "it again"),
        ("I would like you to illustrate a rose", "a rose"),
        ("draw a picture of a cat", "a cat"),
        ("draw an image with two cats", "two cats"),
        ("generate an image of a cat on a mat", "a cat on a mat"),
        ("Create a picture: three stars", "three stars"),
        ("make me a blue logo", "a blue logo"),
        ("create a very old photo of a train", "a very old photo of a train"),
        ("give me two pictures of a cat", "two pictures of a cat"),
        ("I want a picture of a lion", "a lion"),
        ("a picture of a cat", "a cat"),
        ("A watercolour painting of a cat", "A watercolour painting of a cat"),
        ("draw a cat\nwith a hat", "a cat\nwith a hat"),
        ("draw", None),
        ("draw ...", None),
        ("", None),
        ("what is in the picture?", None),
        ("a picture of a cat or of a dog?", None),
        ("drawing is fun", None),
        ("withdraw the money", None),
        ("what did you draw?", None),
        ("do not draw a cat", None),
        ("make a list of animals", None),
        ("generate a caption for this picture", None),
        ("create a poem about a picture of a cat", None),
        ("show me the picture", None),
        ("describe the picture of a cat", None),
        ("the picture of a cat is nice", None),
    ],
)
def test_a_wish_is_what_a_message_asks_to_be_drawn(text: str, wish: str | None):
    assert wish_of(text) == wish


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("make it blue", True),
        ("Please make the cat red", True),
        ("now remove the hat", True),
        ("could you turn the car into a boat?", True),
        ("add a star", True),
        ("make a list", False),
        ("what would you change?", False),
        ("draw a cat", False),
        ("addition is easy", False),
    ],
)
def test_a_change_begins_with_a_verb_of_changing(text: str, changes: bool):
    assert is_change(text) == changes


def test_a_long_message_takes_no_longer():
    assert wish_of("please " * 100_000 + "draw a cat") is None
    assert wish_of("draw " + "a very " * 100_000 + "red cat") is not None
    assert wish_of("draw a cat" + " ." * 100_000) == "a cat"
