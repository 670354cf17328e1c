"""Errors of the model's library, with the places that they have in the body of a response."""

from __future__ import annotations

import asyncio

from unitok.openai_wire.refusals import OF_PICTURES
from unitok.openai_wire.responses import ResponseAsked
from unitok.openai_wire.responses_talk import Talk, placed
from unitok.openai_wire.responses_tool import AT
from unitok.server.errors import ApiError, of_picture, of_wire
from unitok.server.picture_cost import check_cost_aside


async def check_talk(talk: Talk) -> None:
    """Refuse pictures of a conversation that have too many pixels for their files.

    Raises:
        ApiError: They have, with the place of the first that is too much.
    """
    try:
        await check_cost_aside(talk.parsed.pictures)
    except ApiError as error:
        raise of_wire(placed(error.message, talk.places, error.code)) from None


async def located(error: ApiError, asked: ResponseAsked, talk: Talk, painted: bool) -> ApiError:
    """An error of the library, with its place in the body.

    Args:
        error: The error.
        asked: What the body asks for.
        talk: The conversation.
        painted: Whether a picture was asked for.
    """
    if error.param is None and error.code in OF_PICTURES.values():
        broken = await asyncio.to_thread(talk.broken)
        error = error if broken is None else of_picture(broken, None)
    param = error.param or ""
    if param.startswith("messages["):
        return of_wire(placed(error.message, talk.places, error.code))
    if painted and param == "image":
        error.param = placed(talk.parsed.pictures[-1].where, talk.places).param
    elif painted and asked.tool is not None and param in asked.tool.body:
        error.param = AT + param
    elif param == "json_schema" and param not in asked.given:
        error.param = "text.format.schema"
    return error
