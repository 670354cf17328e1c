"""Chat: a conversation in which pictures are shown, drawn and asked about."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

from PIL import Image

from unitok.chat_file import read_chat, write_chat
from unitok.draw_job import DrawJob
from unitok.handles import Job
from unitok.history import History, Said, pictures_of, shortened, what_dropped
from unitok.pictures import open_picture
from unitok.preparer import AnyJob, Preparer, as_list, check_text, unwatched
from unitok.prompt import Message, Role
from unitok.prompt_length import ContextFullError
from unitok.requests import Draw, Turn, check_is_text
from unitok.results import DrawResult, Dropped, Event, Result, TextResult, counted
from unitok.saving import expanded
from unitok.signatures import one
from unitok.text_job import TextJob

WhenFull = Literal["error", "drop"]

ANSWER_SHARE = 4  # with "drop", an answer has room for max_tokens, or for context / ANSWER_SHARE

J = TypeVar("J")
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


class ChatFullError(ContextFullError):
    """The context is too small for a chat and what comes next.

    Attributes:
        tokens: What the chat takes, with the new message; if `taken` says "more than", less than
            that, as not all of it was counted.
        needed: How many more are needed.
        limit: The size of the context.
    """

    def __init__(self, full: ContextFullError) -> None:
        """Say so, and how to go on.

        Args:
            full: What is said of the chat's prompt.
        """
        self._taken = full.taken
        super().__init__(full.tokens, full.needed, full.limit)
        self.args = (
            f"the chat is full: with this message it takes {full.taken} and needs "
            f"{full.needed:,} more, and the context holds {full.limit:,}. Drop the last exchange "
            "with undo(), start a new chat, or set when_full='drop', which goes on without the "
            "oldest pictures",
        )

    @property
    def taken(self) -> str:
        """What the chat takes, in words."""
        return self._taken


@dataclass(frozen=True)
class Ready(Generic[J]):
    """A turn that can begin.

    Attributes:
        job: What the model does.
        history: What was said, up to the user's new message.
        dropped: What the history has lost for want of room.
    """

    job: J
    history: History
    dropped: Dropped | None


class Chat:
    """A conversation, in which pictures can be shown, drawn and asked about.

    The history holds text and pictures. A drawing is encoded like a picture that is shown. A turn
    that raises or is interrupted changes nothing in the history.

    Attributes:
        model: Who answers.
        system: The system prompt; None for the model's own.
        when_full: What happens when the context is full. "error" raises an error. "drop" goes on
            without the oldest pictures and, when there are none left, without the oldest exchanges.
            The result's `dropped` tells how many.
    """

    def __init__(
        self, model: ChatModel, system: str | None = None, when_full: WhenFull = "error"
    ) -> None:
        """Begin with an empty history.

        Args:
            model: Who answers.
            system: The system prompt; None for the model's own.
            when_full: What happens when the context is full: "error" or "drop".
        """
        if system is not None:
            check_is_text("system", system)
        if when_full not in get_args(WhenFull):
            raise ValueError(f"when_full must be 'error' or 'drop', not {when_full!r}")
        self.model, self.system = model, system
        self.when_full: WhenFull = when_full
        self._history: History = []

    def __repr__(self) -> str:
        return f"<unitok.Chat with {self.model.name!r}: {self.size}>"

    # -- what was said

    @property
    def messages(self) -> list[Message]:
        """The history, as the model reads it."""
        return [said.message for said in self._history]

    @property
    def size(self) -> str:
        """How long the chat is, in words, such as "2 turns, 1 picture"."""
        turns, pictures = len(self._history) // 2, pictures_of(self._history)
        return f"{counted(turns, 'turn')}, {counted(pictures, 'picture')}"

    @property
    def tokens(self) -> int:
        """The tokens of the context that the chat takes so far."""
        return len(self.model.prepare.family.chat_prompt(self.messages, self.system).token_ids)

    @property
    def room(self) -> int:
        """The tokens that are left in the context for the next message and its answer."""
        return self.model.prepare.family.max_context - self.tokens

    def to_messages(self) -> list[dict[str, Any]]:
        """The chat in the form that `Model.chat(messages=...)` takes.

        Pictures are PNG in data URIs, so the list can be written as JSON.
        """
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *(said.to_json() for said in self._history)]

    def undo(self) -> list[dict[str, Any]]:
        """Drop the last exchange: what the user said last, and the answer or the drawing.

        Returns:
            The two messages that are dropped, in the form of `to_messages`.

        Raises:
            ValueError: Nothing was said yet.
        """
        if not self._history:
            raise ValueError("there is nothing to undo: the chat is empty")
        dropped = self._history[-2:]
        self._history = self._history[:-2]
        return [said.to_json() for said in dropped]

    # -- files

    def save(self, path: str | Path, new: bool = False) -> None:
        """Write the chat into a JSON file, with its pictures. `load` goes on from there.

        Args:
            path: The file. It is written completely or not at all.
            new: Whether the file must not exist yet. Else an old one is replaced.

        Raises:
            FileExistsError: The file exists, and `new` was asked for.
            OSError: The file cannot be written.
            ValueError: Nothing was said yet, or the chat is too large for a file.
        """
        if not self._history:
            raise ValueError("there is nothing to save: the chat is empty")
        write_chat(expanded(path), self.to_messages(), self.model.name, new)

    @classmethod
    def load(cls, model: ChatModel, path: str | Path, when_full: WhenFull = "error") -> Chat:
        """Open a chat that was saved.

        Args:
            model: Who answers from now on.
            path: The file.
            when_full: As in `Chat`.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The file cannot be read.
            ValueError: It is not a saved chat, or is damaged.
        """
        parsed = read_chat(expanded(path))
        chat = cls(model, parsed.system, when_full)
        chat._history = [
            chat._said(turn.role, (p if isinstance(p, str) else p.open() for p in turn.parts))
            for turn in parsed.turns
        ]
        return chat

    # -- turns

    @one(Turn)
    def send(self, turn: Turn) -> TextResult:
        """Send a message, with one picture or several as `images` if you like.

        Options and errors are those of `Model.caption`, without `system`.

        Returns:
            The answer.
        """
        ready = self._turn(turn)
        return self._add_answer(ready, self.model.finish([ready.job])[0])

    @one(Turn)
    def stream(self, turn: Turn) -> Generator[Event]:
        """`send`, with the answer as it comes: events of kind "text", then "result"."""
        ready = self._turn(turn)
        for event in self.model.events(ready.job):
            if isinstance(event.result, TextResult):
                event = replace(event, result=self._add_answer(ready, event.result))
            yield event

    @one(Draw)
    def draw(self, asked: Draw) -> DrawResult:
        """Draw a prompt. Later messages may ask about the drawing.

        Options and errors are those of `Model.draw`.
        """
        ready = self._drawing(unwatched(asked))
        return self._add_drawing(ready, self.model.finish([ready.job])[0])

    @one(Draw)
    def stream_drawing(self, asked: Draw) -> Generator[Event]:
        """`draw`, with progress: events of kind "tokens", "preview" if asked for and "image", then
        "result".
        """
        ready = self._drawing(asked)
        for event in self.model.events(ready.job):
            if isinstance(event.result, DrawResult):
                event = replace(event, result=self._add_drawing(ready, event.result))
            yield event

    def _turn(self, turn: Turn) -> Ready[TextJob]:
        check_text(turn.text, "the message")
        said = self._said("user", [*map(open_picture, as_list(turn.images)), turn.text])
        share = self.model.prepare.family.max_context // ANSWER_SHARE
        wanted = 1 if self.when_full == "error" else min(turn.max_tokens, share)

        def make(messages: list[Message]) -> TextJob:
            # Without a history there is nothing left to drop, so a short answer has to do.
            room = wanted if len(messages) > 1 else 1
            return self.model.prepare.answer(turn, messages, self.system, room=room)

        return self._fit(said, make)

    def _drawing(self, asked: Draw) -> Ready[DrawJob]:
        check_text(asked.prompt, "the prompt")
        said = self._said("user", [*map(open_picture, as_list(asked.images)), asked.prompt])
        return self._fit(said, lambda messages: self.model.prepare.drawing(asked, messages))

    def _said(self, role: Role, parts: Iterable[str | Image.Image]) -> Said:
        return Said.of(role, parts, self.model.prepare.family.encode_image)

    def _fit(self, said: Said, make: Callable[[list[Message]], J]) -> Ready[J]:
        """The job of a new message, after as much of the history as fits.

        Args:
            said: The new message.
            make: Makes the job of all messages.

        Raises:
            ChatFullError: Not all of it fits, and nothing may be dropped.
            ContextFullError: The message does not fit even alone.
        """
        try:
            return self._ready(self._history, said, make)
        except ContextFullError as error:
            if not self._history:
                raise
            full = error
        alone = self._ready([], said, make)  # raises, if the message is too long in itself
        if self.when_full == "error":
            raise ChatFullError(full)
        return self._fit_by_dropping(said, make, alone)

    def _fit_by_dropping(
        self, said: Said, make: Callable[[list[Message]], J], alone: Ready[J]
    ) -> Ready[J]:
        """The job of a new message after the longest history that fits.

        A history may be many times too long, and to try one takes a while. So the steps become
        longer until one fits, and then shorter.
        """
        histories = list(shortened(self._history))
        ready, low, high, step = alone, 0, len(histories) - 1, 1  # that of `high` fits
        while low < high:
            tried = min(low + step - 1, (low + high) // 2)
            try:
                ready, high = self._ready(histories[tried], said, make), tried
            except ContextFullError:
                low, step = tried + 1, 2 * step
        return ready

    def _ready(self, kept: History, said: Said, make: Callable[[list[Message]], J]) -> Ready[J]:
        """The job of a new message after a history; ContextFullError if they do not fit."""
        job = make([s.message for s in (*kept, said)])
        return Ready(job, [*kept, said], what_dropped(self._history, kept))

    def _add_answer(self, ready: Ready[TextJob], result: TextResult) -> TextResult:
        self._history = [*ready.history, self._said("assistant", [result.text])]
        return replace(result, dropped=ready.dropped)

    def _add_drawing(self, ready: Ready[DrawJob], result: DrawResult) -> DrawResult:
        drawn = map(open_picture, result.images)
        self._history = [*ready.history, self._said("assistant", drawn)]
        return replace(result, dropped=ready.dropped)
