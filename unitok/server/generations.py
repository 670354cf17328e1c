"""POST /v1/images/generations."""

from __future__ import annotations

from starlette.responses import Response

from unitok.openai_wire.images import images_of
from unitok.server.endpoint import Call
from unitok.server.pictures import respond


async def create(call: Call) -> Response:
    """Draw pictures of a prompt."""
    body = await call.json()
    served = call.services.models.find(body)
    asked = images_of(body, call.services.settings.max_n)
    return await respond(call, served, asked, "image_generation")
