"""How long an answer of a form may have to be: what its largest part takes at the least.

This is an estimate, in characters, of which a token has one or more. It decides how early a plan
looks whether an answer can still end in time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST = 2**16  # a larger number is taken for this one
WORD = 5  # characters of a number, null, true or false, or of a key that has any name
KEY = 6  # characters around a key: two quotes, a colon, a comma and two blanks
ATOM = re.compile(
    r"""(?P<open>\((?:\?[a-zA-Z-]*(?::|P?<\w+>|(?=\))))?) | (?P<close>\)) | (?P<bar>\|)
    | \{(?P<count>\d+)[\d,]*\} | (?P<none>[*+?^$]) | \\[xupPU]\{[^}]*\} | \\.
    | \[(?:\\.|\^?\]|[^]\\])*\] | .""",
    re.VERBOSE | re.DOTALL,
)


def regex_size(regex: str) -> int:
    """How many characters the longest of the ways through a regular expression has, at the least.

    What may be left out counts as if it came once.
    """
    groups = [_Group()]
    for found in ATOM.finditer(regex):
        match found.lastgroup:
            case "open":
                groups.append(_Group())
            case "close" if len(groups) > 1:
                groups[-2].add(groups.pop().most)
            case "bar":
                groups[-1].bar()
            case "count":
                groups[-1].repeat(_count(int(found["count"][:9])))
            case "none":
                pass
            case _:
                groups[-1].add(1)
    return min(sum(group.most for group in groups), MOST)


class _Group:
    """The ways through a group that were read so far."""

    def __init__(self) -> None:
        self._parts: list[int] = []
        self._longest = 0

    @property
    def most(self) -> int:
        return max(self._longest, sum(self._parts))

    def add(self, size: int) -> None:
        self._parts.append(size)

    def repeat(self, times: int) -> None:
        if self._parts:
            self._parts[-1] = min(self._parts[-1] * max(times, 1), MOST)

    def bar(self) -> None:
        self._longest, self._parts = self.most, []


def schema_size(schema: Mapping[str, Any]) -> int:
    """How many characters the largest part of a schema has, at the least."""
    sizes = _Sizes(schema)
    return max(map(sizes.of, _parts(schema)), default=0)


def schema_literals(schema: Mapping[str, Any]) -> list[Any]:
    """The constants of a schema."""
    parts = list(_parts(schema))
    enums = [value for part in parts for value in _list(part.get("enum"))]
    return [part["const"] for part in parts if "const" in part] + enums


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    """All that could be a schema within a schema."""
    if isinstance(value, dict):
        yield value
        value = [part for key, part in value.items() if key not in ("const", "enum")]
    if isinstance(value, list):
        for part in value:
            yield from _parts(part)


class _Sizes:
    """The sizes of the parts of a schema. One that holds itself is none there."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._known: dict[int, int] = {}

    def of(self, part: Any) -> int:
        """How many characters a part has."""
        if not isinstance(part, dict):
            return 0
        if id(part) not in self._known:
            self._known[id(part)] = 0
            self._known[id(part)] = min(self._measured(part), MOST)
        return self._known[id(part)]

    def _measured(self, part: Mapping[str, Any]) -> int:
        literals = [part["const"]] if "const" in part else _list(part.get("enum"))
        sizes = [len(json.dumps(value, ensure_ascii=False)) for value in literals]
        choices = [min(map(self.of, of), default=0) for of in _lists(part, "anyOf", "oneOf")]
        return (
            max(sizes, default=0)
            + sum(choices)
            + sum(self.of(one) for of in _lists(part, "allOf") for one in of)
            + self.of(self._referred(part.get("$ref")))
            + self._text(part)
            + self._array(part)
            + self._object(part)
        )

    def _text(self, part: Mapping[str, Any]) -> int:
        pattern = part.get("pattern")
        return max(
            _count(part.get("minLength")),
            regex_size(pattern) if isinstance(pattern, str) else 0,
            WORD * (part.get("type") in ("number", "integer", "boolean", "null")),
        )

    def _array(self, part: Mapping[str, Any]) -> int:
        least, first = _count(part.get("minItems")), _list(part.get("prefixItems"))
        rest = max(least - len(first), 0) * (2 + self.of(part.get("items")))
        return sum(2 + self.of(one) for one in first[:least]) + rest

    def _object(self, part: Mapping[str, Any]) -> int:
        keys, known = _list(part.get("required")), part.get("properties")
        named = sum(len(key) + KEY for key in keys if isinstance(key, str))
        parts = known if isinstance(known, dict) else {}
        values = sum(self.of(parts.get(key)) for key in keys if isinstance(key, str))
        return max(named + values, (2 * WORD + KEY) * _count(part.get("minProperties")))

    def _referred(self, name: Any) -> Any:
        part: Any = self._root
        for key in name.split("/")[1:] if isinstance(name, str) else ("",):
            part = part.get(key) if isinstance(part, dict) else None
        return part


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _lists(part: Mapping[str, Any], *keys: str) -> Iterator[Sequence[Any]]:
    yield from (_list(part.get(key)) for key in keys)


def _count(value: Any) -> int:
    """A number of a schema, within bounds."""
    return int(min(value, MOST)) if isinstance(value, int | float) and value > 0 else 0
