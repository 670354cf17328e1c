"""The codes of a painted picture, as a record of a data set may have them.

`{"type": "image", "image": "a.png", "codes": [5, 0, 7, 2]}` is a picture of these codes, row by
row, which the model learns as they are. To encode the picture anew would give others: a decoded
picture is not quite the one that its codes came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unitok.messages import TEXT_PARTS
from unitok.shown import shown

Codes = tuple[int, ...]

MAX_CODES = 2**16  # of a picture: 256 x 256
LARGEST = 2**31  # of a code


def without_codes(part: Any, where: str) -> tuple[Any, Codes | None]:
    """A part without its key "codes", and the codes; None if it has none.

    Raises:
        TypeError: They are no whole numbers.
        ValueError: They are too many or too large, or the part is a text.
    """
    if not isinstance(part, Mapping) or "codes" not in part:
        return part, None
    given = part["codes"]
    plain = {key: value for key, value in part.items() if key != "codes"}
    if given is None:
        return plain, None
    if part.get("type") in TEXT_PARTS:
        raise ValueError(f"{where}: a text has no codes")
    return plain, read_codes(given, f"{where}.codes")


def read_codes(given: object, where: str) -> Codes:
    """Codes, row by row.

    Raises:
        TypeError, ValueError: As `without_codes`.
    """
    if not isinstance(given, Sequence) or isinstance(given, str | bytes) or not given:
        raise TypeError(f"{where} must be a list of whole numbers, not {shown(given)}")
    if len(given) > MAX_CODES:
        raise ValueError(f"{where} has {len(given):,} entries; at most {MAX_CODES:,} are read")
    for code in given:
        if type(code) is not int:
            raise TypeError(f"{where} must be whole numbers, not {shown(code)}")
        if not 0 <= code < LARGEST:
            raise ValueError(f"{where}: {code} is no code")
    return tuple(given)
