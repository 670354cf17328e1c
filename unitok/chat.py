"""A conversation that reads and paints."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from unitok.jobs import DrawJob, Preparer, TextJob, check_text
from unitok.prompt import Message
from unitok.requests import Draw, Turn
from unitok.results import DrawResult, Event, TextResult, counted
from unitok.signatures import one


class Talker(Protocol):
    """What a chat needs of a model."""

    @property
    def name(self) -> str: ...

    @property
    def prepare(self) -> Preparer: ...

    def finish(self, jobs: Sequence[Any]) -> list[Any]:
        """Results of jobs, in their order."""
        ...

    def events(self, job: Any) -> Generator[Event]:
        """Events of a job as they come, its result last."""
        ...


class Chat:
    """A conversation: pictures can be shown, asked about, drawn, and asked about again.

    The history holds text and pixels; a drawing that is talked about is read like any picture.
    Nothing is added to it by a turn that raises or is broken off.
    """

    def __init__(self, model: Talker, system: str | None = None) -> None:
        self.model, self.system = model, system
        self.messages: list[Message] = []

    def __repr__(self) -> str:
        turns = sum(message.role == "user" for message in self.messages)
        pictures = sum(len(message.pictures) for message in self.messages)
        told = f"{counted(turns, 'turn')}, {counted(pictures, 'picture')}"
        return f"<unitok.Chat with {self.model.name!r}: {told}>"

    @one(Turn)
    def send(self, turn: Turn) -> TextResult:
        """Say something, and perhaps show a picture or several as `images`; returns the answer.

        Options are those of `Model.caption` but for system; errors are those of `Model.caption`.
        """
        messages, job = self._turn(turn)
        return self._heard(messages, self.model.finish([job])[0])

    @one(Turn)
    def stream(self, turn: Turn) -> Generator[Event]:
        """As `send`, with the answer as it comes: events of kind "text", then "result"."""
        messages, job = self._turn(turn)
        for event in self.model.events(job):
            if isinstance(event.result, TextResult):
                event = replace(event, result=self._heard(messages, event.result))
            yield event

    @one(Draw)
    def draw(self, asked: Draw) -> DrawResult:
        """Have something drawn; later turns may ask about it. Options: as `Model.draw`."""
        messages, job = self._drawing(asked)
        return self._seen(messages, self.model.finish([job])[0])

    @one(Draw)
    def stream_drawing(self, asked: Draw) -> Generator[Event]:
        """As `draw`, with events of kind "tokens" and "image" underway, then "result"."""
        messages, job = self._drawing(asked)
        for event in self.model.events(job):
            if isinstance(event.result, DrawResult):
                self._seen(messages, event.result)
            yield event

    def _turn(self, turn: Turn) -> tuple[list[Message], TextJob]:
        check_text(turn.text, "the message")
        several = isinstance(turn.images, list | tuple)
        images = turn.images if several else [turn.images]
        shown = tuple(self.model.prepare.encode(image) for image in images)  # type: ignore[arg-type]
        messages = [*self.messages, Message("user", turn.text, shown)]
        return messages, self.model.prepare.answer(turn, messages, self.system)

    def _drawing(self, asked: Draw) -> tuple[list[Message], DrawJob]:
        check_text(asked.prompt, "the prompt")
        messages = [*self.messages, Message("user", asked.prompt)]
        return messages, self.model.prepare.drawing(asked, messages)

    def _heard(self, messages: list[Message], result: TextResult) -> TextResult:
        self.messages = [*messages, Message("assistant", result.text)]
        return result

    def _seen(self, messages: list[Message], result: DrawResult) -> DrawResult:
        drawn = tuple(self.model.prepare.encode(image) for image in result.images)
        self.messages = [*messages, Message("assistant", "", drawn)]
        return result
