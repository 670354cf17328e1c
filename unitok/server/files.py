"""/v1/files: a file is sent, listed, read and deleted."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unitok.openai_wire.body import WireError
from unitok.openai_wire.pages import page_body, page_of
from unitok.server.downloads import AT_ONCE, Download
from unitok.server.endpoint import Call, Services
from unitok.server.errors import ApiError
from unitok.server.gate import Passage
from unitok.server.keys import Owner
from unitok.server.state.file_store import PURPOSES
from unitok.server.state.folder import State
from unitok.server.state.stored_file import StoredFile
from unitok.server.uploads import receive, text_field

MOST = 10_000  # files of a page


class Files:
    """The endpoints of files."""

    def __init__(self, services: Services) -> None:
        """Keep what all endpoints share."""
        self.services = services

    async def create(self, call: Call) -> Response:
        """POST /v1/files: receive a file."""
        store, owner = state_of(self.services).files, call.passage.owner
        try:
            incoming = await asyncio.to_thread(store.begin, owner)
            with incoming:
                form = await receive(call.request, incoming, self.services.settings)
                purpose = text_field(form, "purpose", PURPOSES)
                if form.filename is None:
                    raise WireError('"file" is missing', "file")
                file = await asyncio.to_thread(incoming.keep, form.filename, purpose)
        except OSError as error:
            raise disk_error(error) from None
        call.passage.log |= {"bytes": file.bytes, "purpose": purpose}
        return JSONResponse(file.body)

    async def listed(self, call: Call) -> Response:
        """GET /v1/files: the owner's files."""
        params = call.request.query_params.multi_items()
        asked = page_of(params, MOST, MOST, ("order", "purpose"))
        mine = state_of(self.services).files.of(call.passage.owner, asked.purpose)
        return call.held(JSONResponse(page_body(mine, asked, lambda file: file.body)))

    async def one(self, request: Request) -> Response:
        """GET /v1/files/{id}: what is known of a file."""
        return JSONResponse(self._find(request).body)

    async def content(self, call: Call) -> Response:
        """GET /v1/files/{id}/content: the bytes of a file, of which few are in memory."""
        file = self._find(call.request)
        call.ticket.hold(min(file.bytes, AT_ONCE))
        opened = await asyncio.to_thread(state_of(self.services).files.open, file)
        return Download(opened, file.bytes, self.services.settings.send_seconds)

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/files/{id}: delete a file."""
        store, file = state_of(self.services).files, self._find(request)
        await asyncio.to_thread(store.delete, owner_of(request), file.id)
        return JSONResponse({"id": file.id, "object": "file", "deleted": True})

    def _find(self, request: Request) -> StoredFile:
        store = state_of(self.services).files
        return store.find(owner_of(request), request.path_params["id"])


def owner_of(request: Request) -> Owner:
    """Whose a request is."""
    passage: Passage = request.scope["state"]["passage"]
    return passage.owner


def state_of(services: Services) -> State:
    """What the server keeps on disk.

    Raises:
        ApiError: It keeps nothing.
    """
    if services.state is None:
        raise ApiError(
            404,
            "this server keeps no files and no batches: start it with --state FOLDER",
            code="files_not_kept",
        )
    return services.state


def disk_error(error: OSError) -> ApiError:
    """The error of a disk that takes nothing, such as a full one."""
    told = f"the server's disk does not take it: {error.strerror or 'an error'}"
    return ApiError(503, told, code="disk_error", headers={"x-should-retry": "false"})
