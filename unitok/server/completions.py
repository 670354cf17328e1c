"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response

from unitok.api import Model
from unitok.messages import parse_messages
from unitok.openai_wire.chat import (
    ChatAsked,
    chat_of,
    chunk_body,
    completions_body,
    logprobs_body,
    usage_chunk,
)
from unitok.preparer import pick_seed
from unitok.results import Event, TextResult
from unitok.server.endpoint import Call
from unitok.server.picture_cost import check_cost_aside
from unitok.server.picture_parts import with_pictures
from unitok.server.running import merged
from unitok.server.served import Served
from unitok.strict_json import JsonObject


async def create(call: Call) -> Response:
    """Answer a conversation."""
    body = await call.json()
    served = call.services.models.find(body)
    if isinstance(body, dict) and "messages" in body:
        body = {**body, "messages": await with_pictures(body["messages"], call.fetcher)}
    asked = chat_of(body, call.services.settings.max_n)
    call.ticket.count(asked.n)
    await check_cost_aside(parse_messages(asked.reply.messages).pictures, asked.n)
    completion = Completion.of(asked, served, call.passage.id)
    call.passage.log |= {"model": served.name, "n": asked.n, "stream": asked.stream}
    runner, replies = call.services.runner, asked.replies(completion.seed)
    if asked.stream:
        streams = await runner.started(call.request, served, replies, call.ticket)
        return call.stream(completion.chunks(call, streams))
    results: list[TextResult] = await runner.results(
        call.request, served, replies, call.passage.owner
    )
    call.note_usage(results)
    return JSONResponse(completion.body(results))


@dataclass(frozen=True)
class Completion:
    """An answer to a conversation, or several of which one may be chosen.

    Attributes:
        asked: What was asked for.
        served: The model.
        id: The id of the answer.
        created: The time, in seconds since 1970.
        seed: That of the first answer.
    """

    asked: ChatAsked
    served: Served
    id: str
    created: int
    seed: int

    @classmethod
    def of(cls, asked: ChatAsked, served: Served, request_id: str) -> Completion:
        """The answer that is to be made of a request."""
        id = f"chatcmpl-{request_id.removeprefix('req_')}"
        return cls(asked, served, id, int(time.time()), pick_seed(asked.reply.seed))

    def body(self, results: Sequence[TextResult]) -> JsonObject:
        """The body of the answer."""
        logprobs = [self._logprobs(result) for result in results]
        return completions_body(results, self.served.name, self.id, self.created, logprobs)

    async def chunks(
        self, call: Call, streams: Sequence[AsyncGenerator[Event]]
    ) -> AsyncGenerator[JsonObject]:
        """The pieces of the answer, as they come.

        Args:
            call: The call.
            streams: The events of each answer.
        """
        results: list[Any] = [None] * self.asked.n
        for index in range(self.asked.n):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async for index, event in merged(streams):
            if event.kind == "text":
                yield self._chunk(index, {"content": event.text})
            elif event.result is not None:
                results[index] = result = event.result
                assert isinstance(result, TextResult)
                yield self._chunk(index, {}, result.finish_reason, self._logprobs(result))
        call.note_usage(results)
        if self.asked.usage:
            yield usage_chunk(self.served.name, self.id, self.created, results)

    def _chunk(
        self,
        index: int,
        delta: dict[str, str],
        finish_reason: str | None = None,
        logprobs: JsonObject | None = None,
    ) -> JsonObject:
        name, id, created = self.served.name, self.id, self.created
        body = chunk_body(name, id, created, index, delta, finish_reason, logprobs)
        # As OpenAI's pieces: whoever wants the counts finds the key in each.
        return {**body, "usage": None} if self.asked.usage else body

    def _logprobs(self, result: TextResult) -> JsonObject | None:
        if result.logprobs is None or result.token_ids is None:
            return None
        return logprobs_body(texts_of(self.served.model, result.token_ids), result.logprobs)


def texts_of(model: Model, token_ids: Sequence[int]) -> list[str]:
    """What each token adds to the text. A part of a character adds nothing."""
    detokenizer = model.tokenizer.stream()
    return [detokenizer.push((token_id,)) for token_id in token_ids]
