"""Answers with pictures: all at once, or in a stream with previews."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from starlette.responses import JSONResponse, Response

from unitok.openai_wire.image_events import PictureEvents
from unitok.openai_wire.images import ImagesAsked, pictures_body
from unitok.preparer import pick_seed
from unitok.requests import Draw, Edit
from unitok.results import DrawResult
from unitok.server.endpoint import Call
from unitok.server.running import merged
from unitok.server.served import Served
from unitok.strict_json import JsonObject


async def respond(call: Call, served: Served, asked: ImagesAsked, prefix: str) -> Response:
    """The response to what asks for pictures.

    Args:
        call: The call, whose body is read.
        served: The model.
        asked: What is asked for.
        prefix: What the types of events begin with: "image_generation" or "image_edit".
    """
    count = asked.request.samples
    call.ticket.count(count)
    call.passage.log |= {"model": served.name, "n": count, "stream": asked.stream}
    seed, created = first_seed(asked.request), int(time.time())
    if asked.stream:
        made = PictureEvents(prefix, created, asked.format)
        return call.stream(_events(call, served, asked, seed, made))
    results: list[DrawResult] = await call.services.runner.results(
        call.request, served, asked.requests(seed), call.passage.owner
    )
    call.note_usage(results)
    return await asyncio.to_thread(_response, results, created, asked)


def first_seed(request: Draw | Edit) -> int:
    """The seed of the first picture of a request, which is random if it has none."""
    if request.seeds:
        return request.seeds[0]
    assert not isinstance(request.seed, tuple)
    return pick_seed(request.seed)  # type: ignore[arg-type]


def _response(results: list[DrawResult], created: int, asked: ImagesAsked) -> Response:
    pictures = [asked.format.in_base64(result.image) for result in results]
    return JSONResponse(pictures_body(results, pictures, created, asked.format))


async def _events(
    call: Call, served: Served, asked: ImagesAsked, seed: int, made: PictureEvents
) -> AsyncGenerator[JsonObject]:
    runner, owner = call.services.runner, call.passage.owner
    seeds = asked.seeds(seed)
    previews = [0] * len(seeds)
    results: list[DrawResult] = []
    streams = [runner.events(served, request, owner) for request in asked.requests(seed)]
    async for index, event in merged(streams):
        if event.kind == "preview":
            number = previews[index]
            previews[index] += 1
            yield await asyncio.to_thread(made.partial, index, seeds[index], number, event)
        elif isinstance(event.result, DrawResult):
            results.append(event.result)
            yield await asyncio.to_thread(made.completed, index, event.result)
    call.note_usage(results)
