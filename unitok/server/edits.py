"""POST /v1/images/edits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from starlette.responses import Response

from unitok.families.common.editing import need_editor
from unitok.openai_wire.body import WireError
from unitok.openai_wire.edits import edit_of, values_of
from unitok.openai_wire.images import ImagesAsked
from unitok.picture_sources import Refused
from unitok.requests import Edit
from unitok.server.endpoint import Call
from unitok.server.errors import of_picture
from unitok.server.masks import MASK, white_mask
from unitok.server.multipart import Part, read_form
from unitok.server.picture_cost import check_cost_aside, pictures_of
from unitok.server.picture_parts import check_media_type
from unitok.server.pictures import respond
from unitok.server.served import Served

IMAGES = ("image", "image[]")


async def create(call: Call) -> Response:
    """Change a picture as a prompt says, where its mask is transparent."""
    services = call.services
    parts = await read_form(call.request, call.ticket, services.settings)
    image = one_picture([part for part in parts if part.name in IMAGES], "image")
    masks = [part for part in parts if part.name == MASK]
    mask = one_picture(masks, MASK) if masks else None
    rest = [part for part in parts if part.name not in (*IMAGES, MASK)]
    values = values_of((part.name, part.text) for part in rest)
    served = services.models.find(values)
    asked = edit_of(values, image, mask, services.settings.max_n)
    call.ticket.count(asked.request.samples)  # before a picture is decoded
    _check_served(asked, served)
    assert isinstance(asked.request, Edit)
    await check_cost_aside(pictures_of(asked.request), asked.request.samples)
    return await respond(call, served, await with_white_mask(asked), "image_edit")


def one_picture(parts: Sequence[Part], name: str) -> bytes:
    """The bytes of a picture that is uploaded. They are not decoded.

    Args:
        parts: The parts of the form that have it.
        name: Its name.

    Raises:
        WireError: There is none, several, or it is empty or something else.
    """
    if not parts:
        raise WireError(f'"{name}" is missing: upload a picture', name)
    if len(parts) > 1:
        raise WireError(f'"{name}" must be one picture, not {len(parts)}', name)
    (part,) = parts
    if not part.is_file:
        raise WireError(f'"{name}" must be a file', name, "invalid_image")
    if not part.data:
        raise WireError(f'"{name}" is an empty file', name, "empty_image_file")
    check_media_type(part.media_type, name)
    return part.data


def _check_served(asked: ImagesAsked, served: Served) -> None:
    """Raise WireError if a model that follows no instructions is to edit without a mask."""
    assert isinstance(asked.request, Edit)
    if not asked.request.is_partial:
        try:
            need_editor(served.model.family)
        except ValueError as error:
            raise WireError(str(error), MASK) from None


async def with_white_mask(asked: ImagesAsked) -> ImagesAsked:
    """What is asked for, with a mask that is white where its own is transparent.

    Raises:
        ApiError: The mask cannot be read.
        WireError: Nothing of it is transparent.
    """
    request = asked.request
    if not isinstance(request, Edit) or request.mask is None:
        return asked
    assert isinstance(request.mask, bytes)
    try:
        mask = await asyncio.to_thread(white_mask, request.mask)
    except Refused as error:
        raise of_picture(error, MASK) from None
    return replace(asked, request=replace(request, mask=mask))
