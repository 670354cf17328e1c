"""Fuzzes the forms of answers: schemas, regular expressions and choices, damaged or hostile."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from random import Random
from typing import Any

from tests.fuzz.mutations import mutated_bytes, mutated_json
from tests.fuzz.pictures import picture
from tests.fuzz.target import Place
from unitok import Caption, TextResult

MOST = 24  # tokens of an answer

LEAVES: tuple[Any, ...] = (
    {"type": "string", "maxLength": 4},
    {"type": "integer", "minimum": -5, "maximum": 70},
    {"type": "number", "multipleOf": 0.5},
    {"type": ["boolean", "null"]},
    {"enum": ["red", 1, None, [2], {"a": "ü"}]},
    {"const": "x" * 30},
    {"type": "string", "pattern": "^(a|b)+c$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "ipv6"},
    {"$ref": "#"},
    {"$ref": "#/$defs/a"},
    True,
    {},
)
HUGE: tuple[Any, ...] = (
    -1,
    0,
    1,
    3,
    1000,
    10**6,
    10**10,
    2**64,
    10**300,
    0.5,
    1e-300,
    1e308,
    -1e18,
)
SIZES = (
    "minLength maxLength minItems maxItems minProperties maxProperties minimum maximum "
    "exclusiveMinimum exclusiveMaximum multipleOf"
).split()
PATTERNS = (
    "a", ".*", "[^x]{1000}y", "(x+x+)+y", "(a|aa)*b", "((a{1,90}){1,90}){1,90}", ".{60000}",
    "a{9999999}", "(?=a)b", r"(a)\1", r"\p{L}{200}", r"(\w|\d|_){1,300}$", "[", "(", "a**",
    "^a$|^b$", "(?i)ß{9}", "(.*a){30}", "(a?){200}a{200}", "(ab|a)*(bc|c){50}", "(?P<n>a)", "\\",
    r"\x{110000}", "[z-a]", "", "|".join(f"w{i}" for i in range(3000)),
    "(" * 3000 + "a" + ")" * 3000, "é|\u2028|\U0001f600",
)  # fmt: skip


class Forms:
    """Answers of a tiny model, each of a form."""

    memory = 600 * 2**20
    permits: Collection[str] = ()

    def __init__(self, place: Place) -> None:
        """Take the model."""
        self._model, self._picture = place.model, picture("RGB")

    def make(self, random: Random) -> bytes:
        """A schema mostly, which may be nested, huge, endless or no schema at all."""
        if random.random() < 0.25:
            regex = random.choice(PATTERNS)
            if random.random() < 0.3:
                regex = mutated_bytes(random, regex.encode()).decode("utf-8", "replace")
            return json.dumps({"regex": regex}).encode()
        if random.random() < 0.1:
            texts = [random.choice(("a", "red", "é☃", '"', "\n", " ", "x" * 500)) for _ in range(9)]
            return json.dumps({"choice": texts * random.choice((1, 1, 500))}).encode()
        if random.random() < 0.4:
            return json.dumps({"json_schema": hostile(random)}).encode()
        case = json.dumps({"json_schema": self._schema(random)}).encode()
        return mutated_json(random, case) if random.random() < 0.4 else case

    def _schema(self, random: Random, depth: int = 0) -> Any:
        """A schema that is likely to be one."""
        if depth == 3 or random.random() < 0.3:
            return _sized(random, random.choice(LEAVES))
        parts = {name: self._schema(random, depth + 1) for name in random.sample("abcdef", 2)}
        kind = random.choice(("object", "object", "array", "anyOf", "oneOf", "allOf", "not"))
        if kind == "object":
            schema = {
                "type": "object",
                "properties": parts,
                "required": random.sample(list(parts), 1),
            }
            more = random.choice(({}, {"additionalProperties": random.choice((False, {}))}))
            return _sized(random, schema | more | {"$defs": parts})
        if kind == "array":
            tuples = random.choice(({}, {"prefixItems": list(parts.values())}))
            return _sized(random, {"type": "array", "items": parts.popitem()[1]} | tuples)
        return {kind: parts.popitem()[1] if kind == "not" else list(parts.values())}

    def run(self, case: bytes) -> None:
        """Ask for an answer, and check its form."""
        try:
            form = json.loads(case)
        except (ValueError, RecursionError):  # a mutation may be no JSON, or nest without end
            form = None
        if not isinstance(form, dict):
            raise ValueError("json_schema, regex or choice is wanted")
        asked = Caption(self._picture, seed=1, temperature=1.0, max_tokens=MOST, **form)
        result = next(self._model.run([asked]))
        if result.error is not None:
            raise ValueError(result.error)
        assert isinstance(result, TextResult)
        if asked.choices:
            assert result.text in asked.choices, f"{result.text!r} is none of the choices"
        if asked.json_schema is not None:
            json.loads(result.text)

    def names(self, case: bytes) -> Sequence[str]:
        """The options, and the answer that is not complete."""
        return "json_schema", "regex", "choice", "answer", "option"


def _sized(random: Random, schema: Any) -> Any:
    if isinstance(schema, dict) and random.random() < 0.2:
        return schema | {random.choice(SIZES): random.choice(HUGE)}
    return schema


def hostile(random: Random) -> Any:
    """A schema that is made to take time or memory."""
    many = random.choice((50, 400, 3000))
    nested: Any = {"type": "integer"}
    for _ in range(many // 10):
        nested = {"type": "array", "items": nested, "minItems": 1}
    doubled = {
        f"d{i}": {"allOf": [{"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2}] * 2} for i in range(30)
    } | {"d30": {"type": "integer"}}
    keys = {f"key{i}": random.choice(LEAVES) for i in range(many)}
    return random.choice(
        (
            nested,
            {"enum": [f"word {i}" * 5 for i in range(many)]},
            {"$defs": doubled, "$ref": "#/$defs/d0"},
            {"type": "object", "properties": keys, "required": list(keys), "$defs": {"a": {}}},
            {"type": "object", "properties": keys, "$defs": {"a": {"$ref": "#/$defs/a"}}},
            {"type": "object", "patternProperties": {random.choice(PATTERNS): {}}},
            {"type": "string", "pattern": random.choice(PATTERNS)},
            {"allOf": [{"pattern": random.choice(PATTERNS)} for _ in range(4)], "type": "string"},
            {"oneOf": [{"minimum": i, "type": "integer"} for i in range(many)]},
            {"type": "array", "uniqueItems": True},
            {"type": "object", "minProperties": many},
            {"$ref": random.choice(("http://a.b/c", "#/a/b", "#/%", "file:///etc/passwd", "#a"))},
            {"x-guidance": random.choice(({"whitespace_pattern": "(a|aa)*"}, {"lenient": 1}, 5))},
            {"type": "string", "format": random.choice(("uri", "email", "hostname", "nothing"))},
        )
    )
