"""The codes of a painted picture, as a record of a data set may have them.

`{"type": "image", "image": "a.png", "codes": [[5, 0, 7], [2, 2, 1]]}` is a picture of two rows of
codes, which the model learns as they are. To encode the picture anew would give others: a decoded
picture is not quite the one that its codes came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unitok.shown import shown

Codes = tuple[tuple[int, ...], ...]

MAX_CODES = 2**16  # of a picture: 256 x 256
LARGEST = 2**31  # of a code


def without_codes(part: Any, where: str) -> tuple[Any, Codes | None]:
    """A part without its key "codes", and the codes; None if it has none.

    Raises:
        TypeError: They are no rows of whole numbers.
        ValueError: They are too many or too large, the rows differ in their lengths, or the part is
            no picture.
    """
    if not isinstance(part, Mapping) or "codes" not in part:
        return part, None
    given = part["codes"]
    plain = {key: value for key, value in part.items() if key != "codes"}
    if given is None:
        return plain, None
    if part.get("type") in ("text", "input_text", "output_text"):
        raise ValueError(f"{where}: a text has no codes")
    return plain, read_codes(given, f"{where}.codes")


def read_codes(given: object, where: str) -> Codes:
    """Codes, row by row.

    Raises:
        TypeError, ValueError: As `without_codes`.
    """
    if not _is_list(given) or not given or not all(_is_list(row) and row for row in given):
        raise TypeError(f"{where} must be a list of rows of whole numbers, not {shown(given)}")
    if len({len(row) for row in given}) > 1:
        raise ValueError(f"{where}: the rows differ in their lengths")
    if len(given) * len(given[0]) > MAX_CODES:
        raise ValueError(f"{where} has more than {MAX_CODES:,} codes")
    rows = tuple(tuple(row) for row in given)
    wrong = [code for row in rows for code in row if type(code) is not int]
    if wrong:
        raise TypeError(f"{where} must be whole numbers, not {shown(wrong[0])}")
    outside = [code for row in rows for code in row if not 0 <= code < LARGEST]
    if outside:
        raise ValueError(f"{where}: {outside[0]} is no code")
    return rows


def _is_list(value: object) -> Any:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
