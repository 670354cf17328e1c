"""The job of an answer: the engine's tokens become text, which ends at a stop string."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future

from torch import Tensor

from unitok.handles import FailReason
from unitok.requests import Caption, Reply, TextOptions
from unitok.results import Event, TextResult
from unitok_engine import Output, Request, join_outputs
from unitok_tokenizers.detokenizer import Detokenizer


class TextJob:
    """Collects the text of an answer, which ends where a stop string appears.

    It is a `unitok.handles.Job`.

    Attributes:
        pictures: Empty, as an answer has no pictures.
        request: The engine's request.
        timeout: The most seconds until the result; None for no limit.
        seed: The seed of the sampling.
        index: The request's place among those that were given together.
        result: The answer; None until it has ended.
    """

    pictures: tuple[Future[Tensor], ...] = ()

    def __init__(
        self,
        asked: TextOptions,
        request: Request,
        detokenizer: Detokenizer,
        seed: int,
        index: int,
        lead: str | None = None,
    ) -> None:
        """Start the clock; nothing has been generated yet.

        Args:
            asked: What the caller asked for.
            request: What the engine is asked for.
            detokenizer: Makes text of the tokens.
            seed: The seed of the sampling.
            index: The request's place among those that were given together.
            lead: What stands before a text whose blanks all count; None if blanks at the ends do
                not.
        """
        self.asked, self.request, self.seed, self.index = asked, request, seed, index
        self.timeout = asked.timeout
        self.result: TextResult | None = None
        self._text = StoppedText(asked.stops, lead)
        self._detokenizer = detokenizer
        self._tokens = 0
        self._reported = 0  # characters of the text that were in an event
        self._reported_result = False
        self._start = time.monotonic()
        self._outputs: list[Output] = []

    @property
    def ended(self) -> bool:
        """Whether the answer is complete, so that no more tokens are needed."""
        return self.result is not None

    def feed(self, output: Output) -> None:
        """Add the tokens of an output; once the job has ended, they are ignored."""
        if self.result is not None:
            return
        self._outputs.append(output)
        self._tokens += len(output.token_ids)
        self._text.add(self._detokenizer.push(output.token_ids))
        if output.finished:
            self._text.add(self._detokenizer.finish())
        if self._text.stopped:
            self._finish("stop", None)
        elif output.finished:
            self._finish(str(output.finish_reason), output.error)

    def fail(self, reason: FailReason, error: str) -> None:
        """End the job with the text so far, unless it has ended."""
        if self.result is None:
            self._finish(reason, error)

    def new_events(self) -> list[Event]:
        """The text that no event had yet and, at the end, the result."""
        text = self._text.certain if self.result is None else self.result.text
        new, self._reported = text[self._reported :], len(text)
        total = self.request.plan.max_length
        events = [Event("text", text=new, done=self._tokens, total=total)] if new else []
        if self.result is not None and not self._reported_result:
            self._reported_result = True
            events.append(Event("result", done=self._tokens, total=total, result=self.result))
        return events

    def merge(self, unread: Event, new: Event) -> Event | None:
        """Two pieces of text as one event; None for other events."""
        if (unread.kind, new.kind) != ("text", "text"):
            return None
        return Event("text", text=unread.text + new.text, done=new.done, total=new.total)

    def _finish(self, reason: str, error: str | None) -> None:
        joined = join_outputs(self._outputs) if self._outputs else None
        self.result = TextResult(
            text=self._text.stripped,
            seed=self.seed,
            finish_reason=reason,
            prompt_tokens=len(self.request.branches[0].token_ids),
            completion_tokens=self._tokens,
            seconds=time.monotonic() - self._start,
            request=self.asked if isinstance(self.asked, Caption | Reply) else None,
            index=self.index,
            error=error,
            logprobs=None if joined is None else joined.logprobs,
            branch_logprobs=None if joined is None else joined.branch_logprobs,
            weight_version=None if joined is None else joined.weight_version,
            token_ids=joined.token_ids
            if joined is not None and self.request.any_logprobs
            else None,
            cached_tokens=0 if joined is None else joined.cached_tokens,
        )


class StoppedText:
    """Text that grows until a stop string appears.

    The stop string and what follows it are cut off, and so are the blanks at both ends, unless all
    blanks count.

    Attributes:
        stopped: Whether a stop string has appeared.
    """

    def __init__(self, stops: Sequence[str], lead: str | None = None) -> None:
        """Begin with empty text.

        Args:
            stops: The strings that stop it.
            lead: What stands before the text, whose blanks all count; None if those at its ends do
                not.
        """
        self.stopped = False
        self._lead = lead
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._text = ""

    def add(self, text: str) -> None:
        """Add text; once a stop string has appeared, nothing is added."""
        if self.stopped or not text:
            return
        begin = max(0, len(self._text) - self._longest + 1)  # a stop string may have begun before
        self._text += text
        found = [self._text.find(stop, begin) for stop in self._stops]
        cut = min((at for at in found if at >= 0), default=None)
        if cut is not None:
            self._text, self.stopped = self._text[:cut], True

    @property
    def stripped(self) -> str:
        """The text so far, without blanks at its ends."""
        return self._bare(self._text)

    @property
    def certain(self) -> str:
        """The part of `stripped` that no further text can change."""
        open_end = max((self._overlap(stop) for stop in self._stops), default=0)
        return self._bare(self._text[: len(self._text) - open_end])

    def _bare(self, text: str) -> str:
        return text.strip() if self._lead is None else text.removeprefix(self._lead)

    def _overlap(self, stop: str) -> int:
        """How many characters at the text's end may be the beginning of a stop string."""
        lengths = range(min(len(stop) - 1, len(self._text)), 0, -1)
        return next((n for n in lengths if self._text.endswith(stop[:n])), 0)
