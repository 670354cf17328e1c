"""When the tool of a response paints, and when it changes a picture."""

from typing import Any

import pytest

from unitok.openai_wire.body import WireError
from unitok.openai_wire.responses_input import read_items
from unitok.openai_wire.responses_painting import Ability, action_of, painting_of
from unitok.openai_wire.responses_talk import Talk
from unitok.openai_wire.responses_tool import tool_of
from unitok.requests import Draw, Edit

PLAIN, EDITOR, BLIND = Ability(False, True), Ability(True, True), Ability(False, False)
PICTURE = {"type": "image_generation_call", "result": "aGVsbG8="}
SHOWN = {"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8="}
MASK = {"input_image_mask": {"image_url": "data:image/png;base64,aGVsbG8="}}


def talk(text: str, painted: bool = False, shown: bool = False) -> Talk:
    """A conversation whose last message is a text, perhaps with a picture before or beside it."""
    before = [{"role": "user", "content": "draw a cat"}, PICTURE] if painted else []
    beside = [SHOWN] if shown else []
    given = [
        *before,
        {"role": "user", "content": [{"type": "input_text", "text": text}, *beside]},
    ]
    numbers = iter(range(100))
    items = read_items(given, given, lambda kind: f"{kind}_{next(numbers)}", lambda *_: items[0])
    return Talk.of(items, None)


def tool(**options: Any) -> Any:
    return tool_of({"tools": [{"type": "image_generation", **options}]}, stream=False)


@pytest.mark.parametrize(
    ("text", "painted", "options", "choice", "ability", "action"),
    [
        ("draw a cat", False, {}, "auto", PLAIN, "generate"),
        ("what is this?", False, {}, "auto", PLAIN, None),
        ("draw a cat", False, {}, "none", PLAIN, None),
        ("what is this?", False, {}, "required", PLAIN, "generate"),
        ("make it blue", True, {}, "auto", PLAIN, None),
        ("make it blue", True, {}, "required", PLAIN, "generate"),
        ("make it blue", True, {"action": "edit"}, "required", PLAIN, "edit"),
        ("make it blue", True, {}, "auto", EDITOR, "edit"),
        ("make it blue", True, {"action": "generate"}, "auto", EDITOR, None),
        ("make it blue", False, {}, "auto", EDITOR, None),
        ("blue", True, {}, "required", EDITOR, "edit"),
        ("draw a dog", True, {}, "auto", EDITOR, "generate"),
        ("draw a dog", True, {"action": "edit"}, "auto", EDITOR, "edit"),
        ("draw a dog", True, MASK, "auto", PLAIN, "edit"),
        ("draw a dog", True, {"strength": 0.5}, "auto", PLAIN, "edit"),
        ("make it blue", True, MASK, "auto", PLAIN, "edit"),
        ("what is this?", True, MASK, "auto", PLAIN, None),
    ],
)
def test_what_the_tool_does(
    text: str, painted: bool, options: Any, choice: Any, ability: Ability, action: str | None
):
    assert action_of(tool(**options), choice, talk(text, painted), ability) == action


def test_without_the_tool_nothing_is_painted():
    assert action_of(None, "auto", talk("draw a cat"), PLAIN) is None


def test_a_model_that_draws_from_text_sees_no_earlier_picture():
    def request(ability: Ability, **where: bool) -> Draw:
        painting = painting_of(tool(), "generate", talk("draw a dog", **where), ability, None, {})
        assert isinstance(painting.request, Draw)
        return painting.request

    assert len(request(PLAIN, painted=True).images) == 1  # type: ignore[arg-type]
    assert request(BLIND, painted=True).images == ()
    assert len(request(BLIND, shown=True).images) == 1  # type: ignore[arg-type]


def test_an_instruction_stays_as_it_is_and_a_wish_does_not():
    def prompt(ability: Ability, **options: Any) -> str:
        said = talk("draw a dog", painted=True)
        painting = painting_of(tool(**options), "edit", said, ability, None, {"seed": 3})
        assert isinstance(painting.request, Edit) and painting.seed == 3
        assert painting.revised == (None if painting.request.prompt == said.text else "a dog")
        return painting.request.prompt

    assert prompt(EDITOR, action="edit") == "draw a dog"
    assert prompt(PLAIN, strength=0.5) == "a dog"


def test_a_picture_needs_words():
    shown = [{"role": "user", "content": [SHOWN]}]
    items = read_items(shown, shown, lambda kind: kind, lambda *_: items[0])
    with pytest.raises(WireError, match="needs words"):
        painting_of(tool(), "generate", Talk.of(items, None), PLAIN, None, {})
