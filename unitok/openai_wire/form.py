"""response_format: the form that an answer must have, in the words of OpenAI's API."""

from typing import Any

from unitok.openai_wire.body import WireError, check_known, given_keys, take_text
from unitok.strict_json import JsonObject, shown_json

NAME = "response_format"
# A schema of ours is always followed, so "strict" changes nothing.
SCHEMA_KEYS = ("name", "description", "schema", "strict")


def form_of(given: JsonObject) -> dict[str, Any]:
    """The option of `Reply` that a body's response_format means; {} if any text will do.

    Args:
        given: The body.

    Raises:
        WireError: It is of an unknown kind, or a part of it is missing or wrong.
    """
    if NAME not in given:
        return {}
    form = given_keys(given[NAME], f'"{NAME}"', NAME)
    kind = take_text(form, "type", f"{NAME}.")
    check_known(form, ("type", "json_schema") if kind == "json_schema" else ("type",), f"{NAME}.")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": {"type": "object"}}
    if kind == "json_schema":
        return {"json_schema": _schema(form.get("json_schema"))}
    known = '"text", "json_object" or "json_schema"'
    raise WireError(f'"{NAME}.type" must be {known}, not {shown_json(kind)}', f"{NAME}.type")


def _schema(value: object) -> JsonObject:
    place = f"{NAME}.json_schema"
    given = given_keys(value, f'"{place}"', place)
    check_known(given, SCHEMA_KEYS, f"{place}.")
    take_text(given, "name", f"{place}.")
    if not isinstance(given.get("strict", True), bool):
        strict = shown_json(given["strict"])
        raise WireError(f'"{place}.strict" must be true or false, not {strict}', f"{place}.strict")
    return given_keys(given.get("schema"), f'"{place}.schema"', f"{place}.schema")
