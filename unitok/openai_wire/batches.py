"""/v1/batches: a body asks for all lines of a file to be run, and an object tells how far that is.

https://platform.openai.com/docs/api-reference/batch
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitok.openai_wire.body import (
    WireError,
    check_known,
    check_neutral,
    given_keys,
    take_text,
)
from unitok.strict_json import JsonObject, shown_json

WINDOW = "24h"
WINDOW_SECONDS = 24 * 60 * 60
KEYS = ("input_file_id", "endpoint", "completion_window", "metadata")
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512  # of metadata; as in OpenAI's own API
FINAL = ("completed", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class BatchAsked:
    """What a body asks for.

    Attributes:
        input_file_id: The file with the lines.
        endpoint: Where every line leads.
        metadata: What the client keeps with the batch.
    """

    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str]


def batch_of(body: object, endpoints: Sequence[str]) -> BatchAsked:
    """What a body asks for.

    Args:
        body: The body.
        endpoints: Where lines may lead.

    Raises:
        WireError: A key is missing, unknown or wrong.
    """
    given = given_keys(body, "the body")
    check_known(given, KEYS)
    file_id, endpoint = take_text(given, "input_file_id"), take_text(given, "endpoint")
    if endpoint not in endpoints:
        known = ", ".join(f'"{known}"' for known in endpoints)
        raise WireError(
            f'"endpoint" must be one of {known}, not {shown_json(endpoint)}', "endpoint"
        )
    take_text(given, "completion_window")
    check_neutral(given, {"completion_window": (WINDOW,)})
    return BatchAsked(file_id, endpoint, _metadata(given.get("metadata", {})))


def not_run(line: int, custom_id: object, key: str, code: str, message: str) -> JsonObject:
    """What the file of errors says of a line that was not run.

    Args:
        line: The line's number.
        custom_id: The line's name.
        key: A key that no other line has.
        code: Why, for programs: "batch_expired" or "batch_cancelled".
        message: Why, in words.
    """
    return {
        "id": f"batch_req_{key[:32]}",
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message},
        "line": line,
    }


def line_error(
    line: int | None, message: str, param: str | None = None, code: str | None = None
) -> JsonObject:
    """Why a batch failed.

    Args:
        line: The number of the line that is wrong; None for the whole file.
        message: What is wrong.
        param: The key that is wrong, if one is.
        code: A word for programs.
    """
    return {"code": code or "invalid_line", "line": line, "message": message, "param": param}


def _metadata(value: object) -> dict[str, str]:
    given = given_keys(value, '"metadata"', "metadata")
    if len(given) > MAX_PAIRS:
        raise WireError(f'"metadata" has {len(given)} keys; at most {MAX_PAIRS}', "metadata")
    for name in given:
        if len(name) > MAX_KEY:
            raise WireError(
                f'"metadata": the key {shown_json(name)} is longer than {MAX_KEY} characters',
                "metadata",
            )
        if len(take_text(given, name, "metadata.")) > MAX_VALUE:
            raise WireError(
                f'"metadata.{name}" is longer than {MAX_VALUE} characters', f"metadata.{name}"
            )
    return given
