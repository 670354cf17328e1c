"""Random JSON schemas, and a check of values against them that shares no code with what made them.

The schemas have the keys that schemas of answers mostly have. What is bounded by none of them, such
as a text of any length, a model may go on with for as long as it likes.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from random import Random
from typing import Any

Schema = dict[str, Any]

WORDS = "apple bus cat colour count dog fish house name note place size star thing tree".split()
PATTERNS = (
    "^[a-z]{2,5}$",
    "^(red|green|blue)( and (red|green))?$",
    "^[A-F][0-9]+$",
    "^#[0-9a-f]{6}$",
)
DEEPEST = 3
TREE: Schema = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 8},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
            },
            "required": ["name", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


def random_schema(random: Random) -> Schema:
    """A schema: of an object mostly, as answers are."""
    if random.random() < 0.1:
        return TREE
    return (_object if random.random() < 0.7 else _any)(random, 0)


def _any(random: Random, depth: int) -> Schema:
    makers = _LEAVES if depth >= DEEPEST else (*_LEAVES, _object, _array, _any_of)
    return random.choice(makers)(random, depth)


def _object(random: Random, depth: int) -> Schema:
    keys = random.sample(WORDS, random.randint(1, 4))
    return {
        "type": "object",
        "properties": {key: _any(random, depth + 1) for key in keys},
        "required": [key for key in keys if random.random() < 0.7],
        "additionalProperties": random.choice((False, False, True, {"type": "integer"})),
    }


def _array(random: Random, depth: int) -> Schema:
    least = random.randint(0, 2)
    bounds = {"minItems": least, "maxItems": least + random.randint(0, 2)}
    return {"type": "array", "items": _any(random, depth + 1)} | random.choice((bounds, {}))


def _any_of(random: Random, depth: int) -> Schema:
    return {"anyOf": [_any(random, depth + 1) for _ in range(random.randint(2, 3))]}


def _enum(random: Random, _depth: int) -> Schema:
    return {"enum": random.sample([*WORDS, 1, 2.5, True, None, "naïve ☃", 'a "b" \\'], 3)}


def _const(random: Random, _depth: int) -> Schema:
    return {"const": random.choice([*WORDS, 7, False])}


def _integer(random: Random, _depth: int) -> Schema:
    low = random.randint(-20, 20)
    bounds = {"minimum": low, "maximum": low + random.randint(0, 300)}
    return {"type": "integer"} | random.choice((bounds, {}))


def _number(random: Random, _depth: int) -> Schema:
    bounds = {"minimum": 0, "exclusiveMaximum": random.choice((1, 2.5, 100))}
    return {"type": "number"} | random.choice((bounds, {}))


def _string(random: Random, _depth: int) -> Schema:
    least = random.randint(0, 3)
    bounds = {"minLength": least, "maxLength": least + random.randint(0, 12)}
    return {"type": "string"} | random.choice((bounds, {}, {"pattern": random.choice(PATTERNS)}))


def _simple(random: Random, _depth: int) -> Schema:
    return {"type": random.choice(("boolean", "null", ["boolean", "null"]))}


_LEAVES = (_enum, _const, _integer, _number, _string, _simple)


def is_answer(text: str, schema: Schema) -> bool:
    """Whether a text is JSON that fits a schema that was made here."""
    try:
        return fits(json.loads(text, parse_float=_number_of), schema)
    except ValueError:
        return False


def _number_of(text: str) -> Decimal | float:
    """A fraction as it is written: 0.99999999999999999999 is less than 1."""
    try:
        return Decimal(text)
    except InvalidOperation:  # the exponent has too many digits
        return float(text)


def fits(value: object, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> bool:
    """Whether a value of JSON fits a schema that was made here.

    Args:
        value: The value.
        schema: The schema, or a part of one.
        root: The schema that it is a part of.
    """
    root = root or schema
    return all(check(value, schema, root) for key, check in _CHECKS.items() if key in schema)


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds: dict[str, type | tuple[type, ...]] = {
        "integer": int, "number": (int, float, Decimal), "string": str, "array": list,
        "object": dict, "null": type(None), "boolean": (),
    }  # fmt: skip
    return isinstance(value, kinds[kind])


def _equal(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    return [schema["type"]] if isinstance(schema["type"], str) else schema["type"]


def _additional(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    more, known = schema["additionalProperties"], schema.get("properties", {})
    others = [part for key, part in value.items() if key not in known]
    return not others if more is False else more is True or all(fits(o, more, root) for o in others)


Check = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], bool]
_CHECKS: dict[str, Check] = {
    "$ref": lambda v, s, root: fits(v, root["$defs"][s["$ref"].rpartition("/")[2]], root),
    "type": lambda v, s, _: any(_is(v, kind) for kind in _types(s)),
    "enum": lambda v, s, _: any(_equal(v, one) for one in s["enum"]),
    "const": lambda v, s, _: _equal(v, s["const"]),
    "anyOf": lambda v, s, root: any(fits(v, one, root) for one in s["anyOf"]),
    "minimum": lambda v, s, _: v >= s["minimum"],
    "maximum": lambda v, s, _: v <= s["maximum"],
    "exclusiveMaximum": lambda v, s, _: v < s["exclusiveMaximum"],
    "minLength": lambda v, s, _: len(v) >= s["minLength"],
    "maxLength": lambda v, s, _: len(v) <= s["maxLength"],
    "pattern": lambda v, s, _: re.search(s["pattern"], v) is not None,
    "minItems": lambda v, s, _: len(v) >= s["minItems"],
    "maxItems": lambda v, s, _: len(v) <= s["maxItems"],
    "items": lambda v, s, root: all(fits(one, s["items"], root) for one in v),
    "required": lambda v, s, _: set(s["required"]) <= set(v),
    "properties": lambda v, s, root: all(
        fits(part, s["properties"][key], root) for key, part in v.items() if key in s["properties"]
    ),
    "additionalProperties": _additional,
}
