"""Chat: a conversation in which pictures are shown, drawn and asked about."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from unitok.draw_job import DrawJob
from unitok.handles import Job
from unitok.preparer import AnyJob, Preparer, check_text
from unitok.prompt import Message
from unitok.requests import Draw, Turn
from unitok.results import DrawResult, Event, Result, TextResult, counted
from unitok.signatures import one
from unitok.text_job import TextJob

R = TypeVar("R", bound=Result)


class ChatModel(Protocol):
    """What a chat needs of a model."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def prepare(self) -> Preparer:
        """Makes jobs of requests."""
        ...

    def finish(self, jobs: Sequence[Job[Event, R]]) -> list[R]:
        """The results of jobs, in the order of the jobs."""
        ...

    def events(self, job: AnyJob) -> Generator[Event]:
        """Events of a job as they come. The last one has the result."""
        ...


class Chat:
    """A conversation, in which pictures can be shown, drawn and asked about.

    The history holds text and encoded pictures. A drawing is encoded like a picture that is shown.
    A turn that raises or is interrupted adds nothing to the history.

    Attributes:
        model: Who answers.
        system: The system prompt; None for the model's own.
        messages: The history.
    """

    def __init__(self, model: ChatModel, system: str | None = None) -> None:
        """Begin with an empty history.

        Args:
            model: Who answers.
            system: The system prompt; None for the model's own.
        """
        self.model, self.system = model, system
        self.messages: list[Message] = []

    def __repr__(self) -> str:
        turns = sum(message.role == "user" for message in self.messages)
        pictures = sum(len(message.pictures) for message in self.messages)
        size = f"{counted(turns, 'turn')}, {counted(pictures, 'picture')}"
        return f"<unitok.Chat with {self.model.name!r}: {size}>"

    @one(Turn)
    def send(self, turn: Turn) -> TextResult:
        """Send a message, with one picture or several as `images` if you like.

        Options and errors are those of `Model.caption`, without `system`.

        Returns:
            The answer.
        """
        messages, job = self._turn(turn)
        return self._add_answer(messages, self.model.finish([job])[0])

    @one(Turn)
    def stream(self, turn: Turn) -> Generator[Event]:
        """`send`, with the answer as it comes: events of kind "text", then "result"."""
        messages, job = self._turn(turn)
        for event in self.model.events(job):
            if isinstance(event.result, TextResult):
                event = replace(event, result=self._add_answer(messages, event.result))
            yield event

    @one(Draw)
    def draw(self, asked: Draw) -> DrawResult:
        """Draw a prompt. Later messages may ask about the drawing.

        Options and errors are those of `Model.draw`.
        """
        messages, job = self._drawing(asked)
        return self._add_drawing(messages, self.model.finish([job])[0])

    @one(Draw)
    def stream_drawing(self, asked: Draw) -> Generator[Event]:
        """`draw`, with progress: events of kind "tokens" and "image", then "result"."""
        messages, job = self._drawing(asked)
        for event in self.model.events(job):
            if isinstance(event.result, DrawResult):
                self._add_drawing(messages, event.result)
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

    def _add_answer(self, messages: list[Message], result: TextResult) -> TextResult:
        self.messages = [*messages, Message("assistant", result.text)]
        return result

    def _add_drawing(self, messages: list[Message], result: DrawResult) -> DrawResult:
        drawn = tuple(self.model.prepare.encode(image) for image in result.images)
        self.messages = [*messages, Message("assistant", "", drawn)]
        return result
