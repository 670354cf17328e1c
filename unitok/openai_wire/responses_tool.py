"""The image_generation tool: what a body tells it.

Beside OpenAI's own keys, the tool may have options of `Draw` and of `Edit`, such as "seed",
"guidance" and "strength".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from unitok.openai_wire.body import (
    WireError,
    check_known,
    check_neutral,
    given_keys,
    take_count,
    take_options,
    take_text,
)
from unitok.openai_wire.images import MOST_PREVIEWS, take_size
from unitok.openai_wire.output_format import KEYS as FORMAT_KEYS
from unitok.openai_wire.output_format import OutputFormat, output_format_of
from unitok.requests import Draw, Edit, options_of, streamed_options
from unitok.strict_json import JsonObject, shown_json

Action = Literal["auto", "generate", "edit"]
Choice = Literal["auto", "none", "required"]

KIND = "image_generation"
AT = "tools[0]."
MASK, PARTIAL = "input_image_mask", "partial_images"
# Size and mask come in OpenAI's form, and previews as partial_images. A response has one picture.
_NOT_OPTIONS = (
    *("prompt", "mask", "width", "height", "n", "logprobs", "branch_logprobs", "adapter"),
    *streamed_options(Draw),
)
DRAW_OPTIONS, EDIT_OPTIONS = (
    tuple(name for name in options_of(kind) if name not in _NOT_OPTIONS) for kind in (Draw, Edit)
)
PARTS = ("box", "margin", "strength")  # options that say which part is painted anew
NEUTRAL: dict[str, tuple[object, ...]] = {
    "quality": ("auto",),
    "background": ("auto", "opaque"),
    "moderation": ("auto",),
}
KNOWN = (
    *("type", "action", "model", "size", MASK, PARTIAL, *FORMAT_KEYS, *NEUTRAL),
    *DRAW_OPTIONS,
    *EDIT_OPTIONS,
)


@dataclass(frozen=True)
class Tool:
    """The image_generation tool, as a body gives it.

    Attributes:
        body: Its keys that are not null, but for the mask, which may be large.
        action: Whether it draws or changes a picture.
        size: Width and height in pixels; None for the model's own.
        format: What the picture is answered as.
        previews: How many previews come while it is drawn.
        mask: The keys of the mask; None without one.
        options: Those of the drawing or the edit.
    """

    body: JsonObject
    action: Action = "auto"
    size: tuple[int, int] | None = None
    format: OutputFormat = field(default_factory=OutputFormat)
    previews: int = 0
    mask: JsonObject | None = None
    options: JsonObject = field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        """Whether a mask or an option says which part of a picture is painted anew."""
        return self.mask is not None or any(name in self.options for name in PARTS)


def tool_of(given: JsonObject, stream: bool) -> Tool | None:
    """The tool of a body; None if it has none.

    Args:
        given: The body's keys that are not null.
        stream: Whether the response is streamed.

    Raises:
        WireError: There is another tool, or a key of it is wrong.
    """
    tools = given.get("tools", [])
    if not isinstance(tools, list) or len(tools) > 1:
        wrong = "at most one tool" if isinstance(tools, list) else f"not {shown_json(tools)}"
        raise WireError(f'"tools" must be a list: {wrong} is supported', "tools")
    if not tools:
        return None
    keys = given_keys(tools[0], AT[:-1], AT[:-1])
    if keys.get("type") != KIND:
        told = f'{AT}type must be "{KIND}", the only tool, not {shown_json(keys.get("type"))}'
        raise WireError(told, f"{AT}type")
    check_known(keys, KNOWN, AT)
    with within(AT):
        return _tool(keys, stream)


def _tool(keys: JsonObject, stream: bool) -> Tool:
    check_neutral(keys, NEUTRAL)
    if "model" in keys:
        take_text(keys, "model")
    action = keys.get("action", "auto")
    if action not in ("auto", "generate", "edit"):
        known = '"auto", "generate" or "edit"'
        raise WireError(f'"action" must be {known}, not {shown_json(action)}', "action")
    mask = _mask(keys)
    if mask is not None and action == "generate":
        raise WireError(f'"{MASK}" does nothing with "action": "generate"', MASK)
    previews = take_count(keys, PARTIAL, 0, MOST_PREVIEWS, 0)
    if previews and not stream:
        raise WireError(f'"{PARTIAL}" is only for "stream": true', PARTIAL)
    drawn = take_options(keys, Draw, DRAW_OPTIONS)
    options = drawn | take_options(keys, Edit, [n for n in EDIT_OPTIONS if n not in drawn])
    if not isinstance(options.get("seed", 0), int):
        raise WireError('"seed" must be a whole number: a response has one picture', "seed")
    if mask is not None and "box" in options:
        raise WireError("give a mask or a box, not both", "box")
    if previews and options.get("tries", 1) > 1:
        told = f'there are no previews of several tries: leave "{PARTIAL}" out, or give "tries": 1'
        raise WireError(told, PARTIAL)
    body = {name: value for name, value in keys.items() if name != MASK}
    width, height = take_size(keys)
    size = None if width is None or height is None else (width, height)
    return Tool(body, action, size, output_format_of(keys), previews, mask, options)


def _mask(keys: JsonObject) -> JsonObject | None:
    if MASK not in keys:
        return None
    mask = given_keys(keys[MASK], f'"{MASK}"', MASK)
    check_known(mask, ("image_url", "file_id"), f"{MASK}.")
    if len(mask) != 1:
        raise WireError(f'"{MASK}" has either image_url or file_id', MASK)
    take_text(mask, next(iter(mask)), f"{MASK}.")
    return mask


def choice_of(given: JsonObject, tool: Tool | None) -> Choice:
    """Whether the tool is used: as a rule says, never, or always.

    Args:
        given: The body's keys that are not null.
        tool: The tool.

    Raises:
        WireError: It is something else, or there is no tool that could be used.
    """
    choice = given.get("tool_choice", "auto")
    if choice in ({"type": KIND}, "required"):
        if tool is None:
            raise WireError(
                '"tool_choice" asks for a tool, and there are no "tools"', "tool_choice"
            )
        return "required"
    if choice not in ("auto", "none"):
        known = f'"auto", "none", "required" or {{"type": "{KIND}"}}'
        raise WireError(f'"tool_choice" must be {known}, not {shown_json(choice)}', "tool_choice")
    return choice


@contextmanager
def within(at: str) -> Iterator[None]:
    """Give the keys of errors their place in the body.

    Args:
        at: The place, such as "tools[0].".
    """
    try:
        yield
    except WireError as error:
        param = None if error.param is None else at + error.param
        raise WireError(f"{at[:-1]}: {error}", param, error.code) from None
