"""Random changes of bytes and of JSON values, for inputs that are nearly valid."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
# Values that programs often forget. json writes infinity as Infinity, which is no JSON.
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    0.5,
    1e308,
    float("inf"),
    float("nan"),
    10**10,
    2**63,
    -(10**30),
    "",
    " ",
    "a",
    "1",
    "auto",
    "x" * 5000,
    "\x00",
    "\ud800",
    "../../outside",
    "/etc/passwd",
    "http://127.0.0.1/cat.png",
    "data:image/png;base64,AAAA",
    [],
    [1, "a", None],
    [[[]]],
    {},
    {"a": {"b": []}},
)

# --- bytes ---------------------------------------------------------------------------------------


def mutated_bytes(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Some bytes after one to four random changes.

    Args:
        random: Where the choices come from.
        data: The bytes.
        others: What parts may be taken from.
    """
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if changed:
            random.choice(_CHANGES)(random, changed, others)
    return bytes(changed)


def _flip(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    data[random.randrange(len(data))] = random.choice(
        (0, 1, 0x7F, 0x80, 0xFF, random.randrange(256))
    )


def _put_number(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place, order, size = random.randrange(len(data)), random.choice("<>"), random.choice("HI")
    value = random.choice(NUMBERS) & (0xFFFF if size == "H" else 0xFFFFFFFF)
    data[place : place + struct.calcsize(size)] = struct.pack(order + size, value)


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[random.randrange(len(data)) :]


def _remove(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _range(random, data)
    del data[start:end]


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _range(random, data)
    data[start:start] = data[start:end] * random.choice((1, 2, 20))


def _insert(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    place = random.randrange(len(data) + 1)
    data[place:place] = random.randbytes(random.choice((1, 4, 30)))


def _take_from_another(random: Random, data: bytearray, others: Sequence[bytes]) -> None:
    if others and (other := random.choice(others)):
        start, end = _range(random, other)
        place = random.randrange(len(data) + 1)
        data[place : place + random.choice((0, end - start))] = other[start:end]


def _range(random: Random, data: Sequence[int]) -> tuple[int, int]:
    start = random.randrange(len(data))
    return start, min(len(data), start + random.choice((1, 4, 16, 200)))


_CHANGES: tuple[Callable[[Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip,
    _flip,
    _set,
    _put_number,
    _put_number,
    _cut,
    _remove,
    _repeat,
    _insert,
    _take_from_another,
)

# --- JSON ----------------------------------------------------------------------------------------


def mutated_value(random: Random, value: Any, values: Sequence[Any] = VALUES) -> Any:
    """A copy of a JSON value in which one to three places are others.

    Args:
        random: Where the choices come from.
        value: The value.
        values: What may be put in.
    """
    changed = [copy.deepcopy(value)]
    for _ in range(random.choice((1, 1, 2, 3))):
        holder, key = _somewhere(random, changed)
        _change_at(random, holder, key, values)
    return changed[0]


def _somewhere(random: Random, root: list[Any]) -> tuple[Any, Any]:
    """A random place: a list or a dictionary, and an index or a key of it."""
    holder, key = root, 0
    while random.random() < 0.8:
        inner = holder[key]
        if not isinstance(inner, list | dict) or not inner:
            break
        holder = inner
        key = (
            random.choice(list(inner)) if isinstance(inner, dict) else random.randrange(len(inner))
        )
    return holder, key


def _change_at(random: Random, holder: Any, key: Any, values: Sequence[Any]) -> None:
    what = random.choice(("put", "put", "put", "near", "remove", "add"))
    if what == "near" and isinstance(holder[key], int | float | str):
        holder[key] = _near(random, holder[key])
    elif what == "remove" and isinstance(holder, dict):
        del holder[key]
        holder.setdefault("kept", None)  # so that a later change finds a place
    elif what == "add" and isinstance(holder, dict):
        holder[random.choice(("extra", f"{key}s", str(key).upper()))] = holder[key]
    else:
        holder[key] = copy.deepcopy(random.choice(values))


def _near(random: Random, value: Any) -> Any:
    """A value of the same type that is likely to be wrong in another way."""
    if isinstance(value, str):
        return mutated_bytes(random, value.encode("utf-8", "surrogatepass")).decode(
            "utf-8", "replace"
        )
    return random.choice((-value, value + 1, value - 1, value * 2, value * 1000, value * 10**9))


def mutated_json(random: Random, text: bytes) -> bytes:
    """A JSON text in which something is wrong: in what it says or, more rarely, in how."""
    if random.random() < 0.2:
        return mutated_bytes(random, text)
    written = json.dumps(mutated_value(random, json.loads(text))).encode()
    return random.choice(_WRITTEN)(random, written) if random.random() < 0.1 else written


def _twice(random: Random, text: bytes) -> bytes:
    """The first key of an object, given again."""
    first = text[1 : text.find(b",")]
    return b"{" + first + b", " + text[1:] if text[:1] == b"{" and b"," in text else text


def _deep(random: Random, text: bytes) -> bytes:
    depth = random.choice((100, 2000, 200_000))
    return text[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"


def _huge_number(random: Random, text: bytes) -> bytes:
    return text[:-1] + b', "seed": ' + random.choice((b"1e400", b"-1e400", b"9" * 5000)) + b"}"


_WRITTEN = (_twice, _deep, _huge_number)
