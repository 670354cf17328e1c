"""/v1/responses: conversations that the server keeps, in which the model answers and paints."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unitok.families.common.editing import Editor
from unitok.families.common.family import DrawsFromText
from unitok.messages import ParsedPicture
from unitok.openai_wire.body import WireError
from unitok.openai_wire.pages import page_at, page_of
from unitok.openai_wire.responses import ResponseAsked, echoed, response_of
from unitok.openai_wire.responses_input import NAME, Item, read_input, read_items
from unitok.openai_wire.responses_output import Output, PictureOutput, Teller, TextOutput
from unitok.openai_wire.responses_painting import Ability, action_of, painting_of
from unitok.openai_wire.responses_talk import Talk
from unitok.openai_wire.responses_tool import AT, MASK, Tool
from unitok.picture_sources import Refused, is_data_uri, read_data_uri
from unitok.preparer import pick_seed
from unitok.requests import AnyRequest, Reply
from unitok.server.admission import Ticket
from unitok.server.edits import white_mask
from unitok.server.endpoint import Call, Services
from unitok.server.errors import ApiError, of_picture
from unitok.server.gate import Passage
from unitok.server.keys import Owner
from unitok.server.no_responses import NoResponses, not_kept
from unitok.server.picture_cost import check_cost_aside
from unitok.server.picture_parts import check_data_uri, fetched, with_pictures
from unitok.server.response_errors import check_talk, located
from unitok.server.response_run import ResponseRun
from unitok.server.response_store import ResponseStore
from unitok.server.served import Served

PAGE, MOST = 20, 100  # items of a page
FileOf = Callable[[Owner, str, str], bytes]


class Responses:
    """The endpoints of responses.

    Attributes:
        services: What all endpoints share.
        store: The responses that are kept.
        file_of: The bytes of an uploaded file, by its owner, its id, and its place in the body;
            None if there are no files.
    """

    def __init__(
        self,
        services: Services,
        store: ResponseStore | NoResponses,
        file_of: FileOf | None = None,
    ) -> None:
        """Keep what all endpoints share."""
        self.services, self.store, self.file_of = services, store, file_of

    async def create(self, call: Call) -> Response:
        """POST /v1/responses: answer, or paint."""
        body = await call.json()
        served = call.services.models.find(body)
        asked = self._storable(body, response_of(body))
        read = await self._read(call, body, asked)
        talk = Talk.of(read, asked.instructions)
        await check_talk(talk)
        run = await self._run(call, served, asked, read, talk)
        call.passage.log |= {"model": run.served.name, "stream": asked.stream}
        try:
            return await run.respond(call, asked.stream)
        except ApiError as error:
            painted = not isinstance(run.request, Reply)
            raise await located(error, asked, talk, painted) from None

    async def one(self, call: Call) -> Response:
        """GET /v1/responses/{id}: a response that was kept."""
        request = call.request
        for name, value in request.query_params.multi_items():
            if (name, value) != ("stream", "false"):
                raise WireError(f'"{name}" is not supported: a response is told as a whole', name)
        found = self.store.find(call.passage.owner, request.path_params["id"])
        call.ticket.hold(found.size + found.written.size)
        return await asyncio.to_thread(lambda: JSONResponse(found.told))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/responses/{id}: forget a response. Those that went on from it stay."""
        id = request.path_params["id"]
        self.store.remove(owner_of(request), id)
        return JSONResponse({"id": id, "object": "response", "deleted": True})

    async def input_items(self, call: Call) -> Response:
        """GET /v1/responses/{id}/input_items: what the model read, earlier responses included."""
        request = call.request
        asked = page_of(request.query_params.multi_items(), PAGE, MOST, ("order",))
        found = self.store.find(call.passage.owner, request.path_params["id"])
        page = page_at(found.read[::-1], asked)
        self._hold(call.ticket, sum(item.size for item in page.items))
        return await asyncio.to_thread(lambda: JSONResponse(page.body(lambda item: item.told)))

    def _hold(self, ticket: Ticket, size: int) -> None:
        """Note the bytes of items that are about to be told.

        Raises:
            ApiError: There is no room for them, or never will be.
        """
        most = self.services.settings.max_bodies
        if size > most:
            wrong = f"the items have {size:,} bytes, and at most {most:,} are told at once: "
            raise ApiError(400, f'{wrong}ask for fewer with "limit"', param="limit")
        ticket.hold(size)

    def _storable(self, body: dict[str, object], asked: ResponseAsked) -> ResponseAsked:
        """What is asked for, kept only where responses are.

        Raises:
            ApiError: It says by itself that it shall be kept, and none are.
        """
        if not isinstance(self.store, NoResponses):
            return asked
        if body.get("store"):
            raise not_kept("store")
        return replace(asked, store=False)

    async def _read(self, call: Call, body: object, asked: ResponseAsked) -> list[Item]:
        """The items that the model reads: earlier ones, and those of the body."""
        owner, before = call.passage.owner, []
        if asked.previous is not None:
            before = self.store.find(owner, asked.previous, "previous_response_id").items
        given = read_input(body)
        opened = await self._opened(call, given)
        return before + read_items(given, opened, new_id, partial(self.store.item, owner))

    async def _opened(self, call: Call, given: list[object]) -> list[object]:
        """Input in which pictures that come by their address or as a file are bytes."""
        file_of = None if self.file_of is None else partial(self._kept, call)
        opened = await with_pictures(given, call.fetcher, file_of, NAME)
        assert isinstance(opened, list)
        return opened

    async def _run(
        self, call: Call, served: Served, asked: ResponseAsked, read: list[Item], talk: Talk
    ) -> ResponseRun:
        painter = self._painter(served, asked)
        action = action_of(asked.tool, asked.choice, talk, ability_of(painter))
        request: AnyRequest
        output: Output
        if asked.tool is None or action is None:
            seed = pick_seed(asked.seed)
            request, output = asked.reply(talk, seed), TextOutput(new_id("msg"))
        else:
            mask = await self._mask(call, asked.tool, talk)
            painting = painting_of(
                asked.tool, action, talk, ability_of(painter), mask, asked.shared
            )
            seed = pick_seed(painting.seed)
            served, request = painter, replace(painting.request, seed=seed)
            output = PictureOutput(new_id("ig"), painting, asked.tool.format, seed)
        teller = Teller(new_id("resp"), int(time.time()), served.name, seed, echoed(asked))
        keep = partial(self.store.add, call.passage.owner) if asked.store else None
        return ResponseRun(served, request, teller, output, read, keep)

    def _painter(self, served: Served, asked: ResponseAsked) -> Served:
        """The model that the tool names, or that of the response."""
        if asked.tool is None or "model" not in asked.tool.body:
            return served
        try:
            return self.services.models.find(asked.tool.body)
        except ApiError as error:
            error.param = f"{AT}model"
            raise

    async def _mask(self, call: Call, tool: Tool, talk: Talk) -> bytes | None:
        """The mask of the tool, white where its own is transparent; None without one.

        Raises:
            ApiError: It cannot be read.
            WireError: It cannot be had, or nothing of it is transparent.
        """
        if tool.mask is None:
            return None
        ((key, value),) = tool.mask.items()
        place = f"{AT}{MASK}.{key}"
        try:
            data = await self._file(call, key, value, place)
            await check_cost_aside([*talk.parsed.pictures, ParsedPicture(data, place)])
            return await asyncio.to_thread(white_mask, data)
        except Refused as error:
            raise of_picture(error, place) from None
        except WireError as error:
            raise WireError(str(error), place, error.code) from None

    async def _file(self, call: Call, key: str, value: str, place: str) -> bytes:
        """The bytes of a picture that is given by its address, or as a file."""
        if key == "file_id":
            return await self._kept(call, value, place)
        if not is_data_uri(value):
            return await fetched(value, call.fetcher, place)
        check_data_uri(value, place)
        return (await asyncio.to_thread(read_data_uri, value)).getvalue()

    async def _kept(self, call: Call, file_id: str, place: str) -> bytes:
        """The bytes of an uploaded file, which count as those of the request."""
        if self.file_of is None:
            raise WireError(f"{place}: this server has no files", place)
        data = await asyncio.to_thread(self.file_of, call.passage.owner, file_id, place)
        call.ticket.hold(len(data))
        return data


def ability_of(served: Served) -> Ability:
    """What a model can do beside drawing from a text."""
    family = served.model.family
    return Ability(isinstance(family, Editor), not isinstance(family, DrawsFromText))


def new_id(prefix: str) -> str:
    """The id of something new, which nobody can guess."""
    return f"{prefix}_{secrets.token_hex(24)}"


def owner_of(request: Request) -> Owner:
    """Whose a request is."""
    passage: Passage = request.scope["state"]["passage"]
    return passage.owner
