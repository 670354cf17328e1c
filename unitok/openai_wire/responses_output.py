"""What a response answers with: its body, its items, and the events of its stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from PIL import Image

from unitok.openai_wire.images import size_of
from unitok.openai_wire.output_format import OutputFormat
from unitok.openai_wire.responses_input import CALL
from unitok.openai_wire.responses_painting import Painting
from unitok.results import DrawResult, Event, Result, TextResult
from unitok.strict_json import JsonObject

Status = Literal["in_progress", "completed", "incomplete", "failed"]
ENDS = {"complete": "completed", "stop": "completed", "length": "incomplete"}


@dataclass
class Teller:
    """Makes the bodies of one response, and numbers its events.

    Attributes:
        id: The response's id.
        created: The time, in seconds since 1970.
        model: The name of the model.
        seed: The seed.
        echoed: What the bodies repeat of what was asked for.
    """

    id: str
    created: int
    model: str
    seed: int
    echoed: Mapping[str, Any]
    _events: int = field(default=0, init=False)

    def body(
        self,
        status: Status,
        output: JsonObject | None = None,
        result: Result | None = None,
        error: JsonObject | None = None,
        completed: int | None = None,
    ) -> JsonObject:
        """The body of the response.

        Args:
            status: How far it is.
            output: Its item, if there is one.
            result: The result, if there is one.
            error: Why it failed.
            completed: When it was completed, in seconds since 1970.
        """
        too_long = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": completed,
            "status": status,
            "error": error,
            "incomplete_details": too_long,
            "model": self.model,
            "output": [] if output is None else [output],
            "usage": None if result is None else usage_body(result),
            "seed": self.seed,
            **self.echoed,
        }

    def event(self, kind: str, **rest: Any) -> JsonObject:
        """The next event of the stream.

        Args:
            kind: Its type, without "response.".
            rest: What else it has.
        """
        event = {"type": f"response.{kind}", "sequence_number": self._events, **rest}
        self._events += 1
        return event

    def error(self, message: str, code: str) -> JsonObject:
        """The event of a server that failed."""
        event = {"type": "error", "code": code, "message": message, "param": None}
        return {**event, "sequence_number": self._events}


class Output(Protocol):
    """The only item of a response, which comes piece by piece."""

    id: str

    def begin(self, teller: Teller) -> Iterator[JsonObject]:
        """The events before the first piece."""
        ...

    def add(self, teller: Teller, event: Event) -> Iterator[JsonObject]:
        """The events of a piece."""
        ...

    def end(self, teller: Teller, item: JsonObject) -> Iterator[JsonObject]:
        """The events after the last piece, before that of the item."""
        ...

    def item(self, result: Any) -> JsonObject:
        """The item of a result."""
        ...

    def failed(self) -> JsonObject:
        """The item of a response that failed."""
        ...


@dataclass
class TextOutput:
    """An answer in words. It is an `Output`.

    Attributes:
        id: The item's id.
        text: What was said so far.
    """

    id: str
    text: str = ""

    def begin(self, teller: Teller) -> Iterator[JsonObject]:
        """The message, and its only part, are empty yet."""
        yield teller.event("output_item.added", output_index=0, item=self._item("in_progress"))
        yield self._part(teller, "content_part.added", part=text_part(""))

    def add(self, teller: Teller, event: Event) -> Iterator[JsonObject]:
        """Further text."""
        if event.kind == "text":
            self.text += event.text
            yield self._part(teller, "output_text.delta", delta=event.text, logprobs=[])

    def end(self, teller: Teller, item: JsonObject) -> Iterator[JsonObject]:
        """The whole text."""
        (part,) = item["content"]
        yield self._part(teller, "output_text.done", text=part["text"], logprobs=[])
        yield self._part(teller, "content_part.done", part=part)

    def item(self, result: TextResult) -> JsonObject:
        """The message."""
        return self._item(ENDS[result.finish_reason], text_part(result.text))

    def failed(self) -> JsonObject:
        """The message so far."""
        return self._item("incomplete", text_part(self.text))

    def _item(self, status: str, *content: JsonObject) -> JsonObject:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": list(content),
        }

    def _part(self, teller: Teller, kind: str, **rest: Any) -> JsonObject:
        return teller.event(kind, item_id=self.id, output_index=0, content_index=0, **rest)


@dataclass
class PictureOutput:
    """A picture that is drawn or changed. It is an `Output`.

    Attributes:
        id: The item's id.
        painting: What is asked for.
        format: What the picture is answered as.
        seed: The seed.
        previews: How many previews there were so far.
    """

    id: str
    painting: Painting
    format: OutputFormat
    seed: int
    previews: int = 0

    def begin(self, teller: Teller) -> Iterator[JsonObject]:
        """The call, which has begun."""
        item = self._item("in_progress", None)
        yield teller.event("output_item.added", output_index=0, item=item)
        yield self._call(teller, "in_progress")
        yield self._call(teller, "generating")

    def add(self, teller: Teller, event: Event) -> Iterator[JsonObject]:
        """A preview."""
        if event.kind == "preview" and event.image is not None:
            yield self._call(
                teller,
                "partial_image",
                partial_image_b64=self.format.in_base64(event.image),
                partial_image_index=self.previews,
                **self._facts(event.image),
            )
            self.previews += 1

    def end(self, teller: Teller, item: JsonObject) -> Iterator[JsonObject]:
        """The picture is there, and comes with its item."""
        yield self._call(teller, "completed")

    def item(self, result: DrawResult) -> JsonObject:
        """The picture."""
        item = self._item("completed", self.format.in_base64(result.image))
        return item | self._facts(result.image)

    def failed(self) -> JsonObject:
        """No picture."""
        return self._item("failed", None)

    def _item(self, status: str, result: str | None) -> JsonObject:
        return {
            "id": self.id,
            "type": CALL,
            "status": status,
            "result": result,
            "revised_prompt": self.painting.revised,
            "action": self.painting.action,
            "seed": self.seed,
        }

    def _call(self, teller: Teller, kind: str, **rest: Any) -> JsonObject:
        return teller.event(f"{CALL}.{kind}", item_id=self.id, output_index=0, **rest)

    def _facts(self, image: Image.Image) -> JsonObject:
        return {
            "background": "opaque",
            "output_format": self.format.kind,
            "quality": "auto",
            "size": size_of(image),
        }


def text_part(text: str) -> JsonObject:
    """The part of a message that holds its text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def usage_body(result: Result) -> JsonObject:
    """The counts of tokens of a result."""
    input, output = result.prompt_tokens, result.completion_tokens
    image = output if isinstance(result, DrawResult) else 0
    return {
        "input_tokens": input,
        "input_tokens_details": {
            "cached_tokens": result.cached_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": output,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "image_tokens": image,
            "text_tokens": output - image,
        },
        "total_tokens": input + output,
    }
