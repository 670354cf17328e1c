"""/v1/batches: all lines of a file are run in the background."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unitok.openai_wire.batches import batch_of
from unitok.openai_wire.pages import page_body, page_of
from unitok.server.endpoint import Call, Services
from unitok.server.errors import ApiError
from unitok.server.files import disk_error, owner_of, state_of
from unitok.server.state.lines import ServedLines
from unitok.server.state.stored_file import link_or_copy

PAGE, MOST = 20, 100  # batches of a page


class Batches:
    """The endpoints of batches."""

    def __init__(self, services: Services) -> None:
        """Keep what all endpoints share."""
        self.services = services

    async def create(self, call: Call) -> Response:
        """POST /v1/batches: begin a batch."""
        state, owner = state_of(self.services), call.passage.owner
        asked = batch_of(await call.json(), list(ServedLines.kinds))
        file = state.files.find(owner, asked.input_file_id, "input_file_id")
        if file.purpose != "batch":
            raise ApiError(
                400,
                f'the file is for "{file.purpose}": send the lines with the purpose "batch"',
                param="input_file_id",
                code="invalid_purpose",
            )
        await asyncio.to_thread(state.files.check_room, owner)
        link = partial(link_or_copy, state.files.data_path(file.id))
        try:
            record = await asyncio.to_thread(state.batches.create, owner, asked, link)
        except FileNotFoundError:  # deleted meanwhile
            state.files.find(owner, file.id, "input_file_id")
            raise
        except OSError as error:
            raise disk_error(error) from None
        await asyncio.to_thread(state.queue.look)
        return JSONResponse(record.body)

    async def listed(self, call: Call) -> Response:
        """GET /v1/batches: the owner's batches."""
        asked = page_of(call.request.query_params.multi_items(), PAGE, MOST)
        mine = state_of(self.services).batches.of(call.passage.owner)
        return call.held(JSONResponse(page_body(mine, asked, lambda record: record.body)))

    async def one(self, request: Request) -> Response:
        """GET /v1/batches/{id}: how far a batch is."""
        batches = state_of(self.services).batches
        return JSONResponse(batches.find(owner_of(request), request.path_params["id"]).body)

    async def cancel(self, request: Request) -> Response:
        """POST /v1/batches/{id}/cancel: run no further lines of a batch."""
        queue, batch_id = state_of(self.services).queue, request.path_params["id"]
        try:
            record = await asyncio.to_thread(queue.cancel, owner_of(request), batch_id)
        except OSError as error:
            raise disk_error(error) from None
        return JSONResponse(record.body)
