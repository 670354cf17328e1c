"""Bodies of responses with something wrong in them: each is refused, or understood all the same."""

import json
import random
from collections.abc import Iterator
from typing import Any

from unitok.openai_wire.body import WireError
from unitok.openai_wire.responses import KNOWN, echoed, response_of
from unitok.openai_wire.responses_input import CALL_KEYS, Item, read_input, read_items
from unitok.openai_wire.responses_painting import Ability, action_of, painting_of
from unitok.openai_wire.responses_talk import Talk
from unitok.openai_wire.responses_tool import KNOWN as TOOL_KEYS

URL = "data:image/png;base64,aGVsbG8="
WRONG = json.loads(
    """[null, true, false, 0, -1, 1.5, 1e308, 99999999999999999999, "", " ", "x", "auto", "edit",
    "messages[0]", "input[0].content", "\\ud800", "draw a cat", [], [[]], [null], {}, {"": {}},
    {"type": "x"}, {"url": 3}, [1, 2, 3, 4], [{"type": "input_text"}], {"type": "json_schema"}]"""
)
WORDS = {"role": "user", "content": [{"type": "input_text", "text": "draw a cat"}]}
SHOWN = {"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "auto"}]}
ANSWER = {"role": "assistant", "content": [{"type": "output_text", "text": "x", "logprobs": []}]}
CALL = {"type": "image_generation_call", "result": "aGVsbG8=", "id": "ig_x"}
SCHEMA = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
TOOL = {"type": "image_generation", "guidance": 2, "input_image_mask": {"image_url": URL}}
BODIES: list[dict[str, Any]] = [
    {"input": "draw a cat", "tools": [{"type": "image_generation"}], "metadata": {"a": "b"}},
    {"input": [WORDS, CALL, SHOWN, WORDS], "tools": [{"type": "image_generation"}], "seed": 3},
    {"input": [{"role": "developer", "content": "x"}, SHOWN, ANSWER, WORDS], "instructions": "x"},
    {"input": [SHOWN, WORDS], "tools": [TOOL], "tool_choice": {"type": "image_generation"}},
    {"input": [WORDS, {"type": "item_reference", "id": "x"}, WORDS], "text": {"format": SCHEMA}},
    {"input": "x", "temperature": 1, "top_p": 0.5, "max_output_tokens": 9, "stop": ["x"]},
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a JSON value: what holds something, and under which key."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def spoilt(rng: random.Random) -> Any:
    """A body with one or two things that are wrong, missing, or too much."""
    body = json.loads(json.dumps(rng.choice(BODIES)))
    for _ in range(rng.randint(1, 2)):
        holder, key = rng.choice(list(places(body)))
        if rng.random() < 0.2:
            del holder[key]
        elif rng.random() < 0.3 and isinstance(holder, dict):
            holder[rng.choice([*KNOWN, *TOOL_KEYS, *CALL_KEYS])] = rng.choice(WRONG)
        else:
            holder[key] = rng.choice(WRONG)
        if not body:
            break
    return body


def understood(body: Any) -> None:
    """Go as far with a body as a server does before it asks its model."""
    asked = response_of(body)
    echoed(asked)
    numbers = iter(range(100))
    found = Item.of({"id": "ig_x", "type": "image_generation_call", "result": "aGVsbG8="})
    read = read_input(body)
    items = read_items(read, read, lambda kind: f"{kind}_{next(numbers)}", lambda *_: found)
    talk = Talk.of(items, asked.instructions)
    assert all(item.size > 0 and item.told["id"] == item.id for item in items)
    for ability in (Ability(True, True), Ability(False, False)):
        action = action_of(asked.tool, asked.choice, talk, ability)
        if action is not None and asked.tool is not None:
            painting_of(asked.tool, action, talk, ability, None, asked.shared)
    asked.reply(talk, 5)


def test_bodies_that_are_right_are_understood():
    for body in BODIES:
        understood(body)


def test_bodies_that_are_spoilt_are_refused_or_understood():
    rng, refused = random.Random(0), 0
    for _ in range(5000):
        try:
            understood(spoilt(rng))
        except WireError as error:
            refused += 1
            assert str(error)
    assert refused > 2500
