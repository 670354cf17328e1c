"""When the image_generation tool is used, and what for. Models here call no tools: rules decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unitok.openai_wire.body import WireError, made
from unitok.openai_wire.responses_talk import Talk
from unitok.openai_wire.responses_tool import (
    AT,
    DRAW_OPTIONS,
    EDIT_OPTIONS,
    MASK,
    Choice,
    Tool,
    within,
)
from unitok.openai_wire.responses_wishes import is_change, wish_of
from unitok.pictures import PictureLike
from unitok.requests import Draw, Edit
from unitok.strict_json import JsonObject

Act = Literal["generate", "edit"]


@dataclass(frozen=True)
class Ability:
    """What a model can do beside drawing from a text.

    Attributes:
        follows: Whether it changes pictures by an instruction.
        sees: Whether it draws from a text and pictures.
    """

    follows: bool
    sees: bool


@dataclass(frozen=True)
class Painting:
    """A picture that is to be made.

    Attributes:
        request: The drawing or the edit, without a seed if none was given.
        revised: The prompt, if it is not the user's own words; else None.
    """

    request: Draw | Edit
    revised: str | None

    @property
    def action(self) -> Act:
        """What is done."""
        return "edit" if isinstance(self.request, Edit) else "generate"

    @property
    def seed(self) -> int | None:
        """The seed that was asked for; None for a random one."""
        seed = self.request.seed
        return seed if isinstance(seed, int) else None


def action_of(tool: Tool | None, choice: Choice, talk: Talk, ability: Ability) -> Act | None:
    """What the tool does; None if the answer is text.

    The tool is used if "tool_choice" asks for it or, with "auto", if what the user said last asks
    for a picture, or for a change of one that the conversation has. It then changes the last
    picture of the conversation if "action" says so or, with "auto", if a mask or an option names a
    part of it, or if the model follows instructions and the user asks for no new picture. Else it
    draws, and the model sees the pictures of the conversation if it can.

    Args:
        tool: The tool; None for none.
        choice: Whether it is used.
        talk: The conversation.
        ability: What the model can do.
    """
    if tool is None or choice == "none":
        return None
    wishes = wish_of(talk.text) is not None
    may_edit = tool.action != "generate" and bool(talk.pictures)
    may_edit &= tool.is_partial or ability.follows
    if choice == "auto" and not wishes and not (may_edit and is_change(talk.text)):
        return None
    edits = may_edit and (tool.is_partial or not wishes)
    return "edit" if edits or tool.action == "edit" else "generate"


def painting_of(
    tool: Tool,
    action: Act,
    talk: Talk,
    ability: Ability,
    mask: PictureLike | None,
    shared: JsonObject,
) -> Painting:
    """The picture that is to be made.

    Args:
        tool: The tool.
        action: What it does.
        talk: The conversation.
        ability: What the model can do.
        mask: The mask, in whose white parts a picture is painted anew; None for none.
        shared: Options of the body, for a tool that does not have them.

    Raises:
        WireError: What is asked for cannot be done, or an option does nothing.
    """
    if not talk.text.strip():
        raise WireError("a picture needs words: the user's last message has none", "input")
    # An instruction stays as it is. Else the prompt says what the picture shows.
    wish = None if action == "edit" and not tool.is_partial else wish_of(talk.text)
    prompt = talk.text if wish is None else wish
    options = shared | tool.options
    request = (
        _draw(tool, options, prompt, talk, ability)
        if action == "generate"
        else _edit(tool, options, prompt, talk, mask)
    )
    if tool.previews:
        request = replace(request, preview=True, preview_count=tool.previews)
    return Painting(request, None if prompt == talk.text else prompt)


def _draw(tool: Tool, options: JsonObject, prompt: str, talk: Talk, ability: Ability) -> Draw:
    _check_of(options, DRAW_OPTIONS, "an edit")
    if tool.mask is not None:
        raise WireError(f"{AT}{MASK}: the conversation has no picture", AT + MASK)
    # What the user shows with the wish is for the picture, and refused if the model cannot see it.
    pictures = talk.pictures if ability.sees else talk.shown
    size = {} if tool.size is None else {"width": tool.size[0], "height": tool.size[1]}
    with within(AT):
        return made(Draw, prompt, images=tuple(pictures), **size, **options)


def _edit(
    tool: Tool, options: JsonObject, prompt: str, talk: Talk, mask: PictureLike | None
) -> Edit:
    if not talk.pictures:
        raise WireError(f'{AT}action "edit": the conversation has no picture', f"{AT}action")
    _check_of(options, EDIT_OPTIONS, "a new picture")
    if tool.size is not None:
        raise WireError(f'{AT}size can only be "auto" for an edit', f"{AT}size")
    with within(AT):
        return made(Edit, talk.pictures[-1], prompt, mask=mask, **options)


def _check_of(options: JsonObject, known: Sequence[str], of: str) -> None:
    """Refuse an option that does nothing."""
    for name in options:
        if name not in known:
            raise WireError(f"{AT}{name} is for {of}", AT + name)
