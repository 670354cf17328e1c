"""Requests of people become jobs of the driver: prepared for the engine, fed, and answered.

A job collects what the engine gives for its request: text as it comes, or the ids of pictures,
which it hands to the image decoder.
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from PIL import Image
from torch import Tensor

from unitok.families import Family, GenerationSpec, ImageOptions
from unitok.handles import FailReason, Job
from unitok.image_decoder import ImageDecoder
from unitok.pictures import PictureLike, open_picture
from unitok.prompt import EncodedImage, Message
from unitok.requests import Caption, Draw, TextOptions, check_ranges
from unitok.results import DrawResult, Event, Picture, Result, TextResult, failure
from unitok.terminal import one_line
from unitok_engine import Branch, Output, Request, Sampling, join_outputs
from unitok_tokenizers.detokenizer import Detokenizer

AnyJob = Job[Event, Any]


class Preparer:
    """Makes jobs for one model."""

    def __init__(self, family: Family, image_decoder: ImageDecoder) -> None:
        self.family, self.image_decoder = family, image_decoder

    def job(self, asked: Caption | Draw, index: int = 0) -> TextJob | DrawJob:
        """The job of a request that stands alone.

        Raises:
            FileNotFoundError, ValueError, TypeError: as `Model.caption` and `Model.draw`.
        """
        if isinstance(asked, Caption):
            question = self.family.defaults.question if asked.question is None else asked.question
            check_text(question, "the question")
            messages = [Message("user", question, (self.encode(asked.image),))]
            return self.answer(asked, messages, asked.system, index)
        if isinstance(asked, Draw):
            check_text(asked.prompt, "the prompt")
            return self.drawing(asked, [Message("user", asked.prompt)], index)
        raise TypeError(f"a request is a Caption or a Draw, not {type(asked).__name__}")

    def job_or_failure(self, asked: Caption | Draw, index: int) -> AnyJob:
        """As `job`; one that cannot be made is a job that failed before it began."""
        try:
            return self.job(asked, index)
        except Exception as error:  # of a picture, or of the family's code
            return FailedJob(failure(asked, index, error))

    def answer(
        self,
        asked: TextOptions,
        messages: Sequence[Message],
        system: str | None,
        index: int = 0,
    ) -> TextJob:
        """The job of an answer to a conversation."""
        check_ranges(asked)
        self._warn_of_unknown_words(messages[-1].text)
        line = self.family.chat_prompt(messages, system)
        limit = min(asked.max_tokens, self._room(line))
        seed = pick_seed(asked.seed)
        sampling = Sampling(
            temperature=asked.temperature,
            top_k=asked.top_k,
            top_p=asked.top_p,
            seed=seed,
            min_p=asked.min_p,
            repetition_penalty=asked.repetition_penalty,
        )
        request = Request(
            branches=(line,),
            plan=self.family.text_plan(limit),
            sampling=sampling,
            logprobs=asked.logprobs,
            branch_logprobs=asked.branch_logprobs,
        )
        return TextJob(asked, request, self.family.tokenizer.stream(), seed, index)

    def drawing(self, asked: Draw, messages: Sequence[Message], index: int = 0) -> DrawJob:
        """The job of a drawing at the end of a conversation."""
        check_ranges(asked)
        self._warn_of_unknown_words(asked.prompt, asked.negative_prompt or "")
        d, seed = self.family.defaults, pick_seed(asked.seed)
        guidance = d.guidance if asked.guidance is None else asked.guidance
        if guidance == 1 and asked.negative_prompt is not None:
            warnings.warn("negative_prompt does nothing at guidance 1", UserWarning, stacklevel=2)
        drawing = self.family.generation_spec(
            messages, ImageOptions(guidance, asked.negative_prompt, asked.size)
        )
        for branch in drawing.branches:
            self._room(branch, drawing.plan.max_length)
        sampling = Sampling(
            temperature=d.temperature if asked.temperature is None else asked.temperature,
            top_k=d.top_k if asked.top_k is None else asked.top_k,
            top_p=d.top_p if asked.top_p is None else asked.top_p,
            seed=seed,
            min_p=asked.min_p,
        )
        request = Request(
            branches=drawing.branches,
            plan=drawing.plan,
            sampling=sampling,
            n=asked.n,
            logprobs=asked.logprobs,
            branch_logprobs=asked.branch_logprobs,
        )
        info = {"prompt": asked.prompt, "seed": str(seed), "model": self.family.name}
        return DrawJob(asked, request, drawing, self.image_decoder, info, seed, index)

    def encode(self, image: PictureLike) -> EncodedImage:
        """A picture of any kind -> what it is in a prompt."""
        return self.family.encode_image(open_picture(image))

    def _room(self, line: Branch, needed: int = 1) -> int:
        """Tokens that still fit behind a prompt."""
        room = self.family.max_context - len(line.token_ids)
        if room < needed:
            raise ValueError(
                f"the prompt takes {len(line.token_ids)} tokens and needs {needed} more; the "
                f"context holds {self.family.max_context}: shorten it, or take a smaller picture"
            )
        return room

    def _warn_of_unknown_words(self, *texts: str) -> None:
        known = self.family.defaults.known_words
        if known is None:
            return
        words = {w for text in texts for w in split_words(text)}
        if unknown := sorted(words - known):
            names = ", ".join(repr(w) for w in unknown)
            warnings.warn(f"this model never saw the word {names}", UserWarning, stacklevel=2)


class TextJob:
    """Collects an answer's text; it ends where a stop string appears."""

    pictures: tuple[Future[Tensor], ...] = ()

    def __init__(
        self, asked: TextOptions, request: Request, detokenizer: Detokenizer, seed: int, index: int
    ) -> None:
        self.asked, self.request, self.seed, self.index = asked, request, seed, index
        self.result: TextResult | None = None
        self._text = StoppedText((asked.stop,) if isinstance(asked.stop, str) else asked.stop)
        self._detokenizer = detokenizer
        self._tokens = 0
        self._told = 0  # characters of the text that events had
        self._told_all = False
        self._start = time.monotonic()
        self._outputs: list[Output] = []

    @property
    def ended(self) -> bool:
        return self.result is not None

    def feed(self, output: Output) -> None:
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
        if self.result is None:
            self._finish(reason, error)

    def news(self) -> list[Event]:
        text = self._text.certain if self.result is None else self.result.text
        new, self._told = text[self._told :], len(text)
        total = self.request.plan.max_length
        events = [Event("text", text=new, done=self._tokens, total=total)] if new else []
        if self.result is not None and not self._told_all:
            self._told_all = True
            events.append(Event("result", done=self._tokens, total=total, result=self.result))
        return events

    def merge(self, unread: Event, new: Event) -> Event | None:
        if (unread.kind, new.kind) != ("text", "text"):
            return None
        return Event("text", text=unread.text + new.text, done=new.done, total=new.total)

    def _finish(self, reason: str, error: str | None) -> None:
        whole = join_outputs(self._outputs) if self._outputs else None
        self.result = TextResult(
            text=self._text.whole,
            seed=self.seed,
            finish_reason=reason,
            prompt_tokens=len(self.request.branches[0].token_ids),
            completion_tokens=self._tokens,
            seconds=time.monotonic() - self._start,
            request=self.asked if isinstance(self.asked, Caption) else None,
            index=self.index,
            error=error,
            logprobs=None if whole is None else whole.logprobs,
            branch_logprobs=None if whole is None else whole.branch_logprobs,
        )


class StoppedText:
    """Text that grows until a stop string appears; that is cut off, and blanks at both ends."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stopped = False
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._text = ""

    def add(self, text: str) -> None:
        """Add what came; nothing once it is stopped."""
        if self.stopped or not text:
            return
        begin = max(0, len(self._text) - self._longest + 1)  # a stop string may have begun before
        self._text += text
        found = [self._text.find(stop, begin) for stop in self._stops]
        cut = min((at for at in found if at >= 0), default=None)
        if cut is not None:
            self._text, self.stopped = self._text[:cut], True

    @property
    def whole(self) -> str:
        return self._text.strip()

    @property
    def certain(self) -> str:
        """What `whole` begins with, whatever may come."""
        open_end = max((self._overlap(stop) for stop in self._stops), default=0)
        return self._text[: len(self._text) - open_end].strip()

    def _overlap(self, stop: str) -> int:
        """How many characters at the text's end may be the beginning of a stop string."""
        lengths = range(min(len(stop) - 1, len(self._text)), 0, -1)
        return next((n for n in lengths if self._text.endswith(stop[:n])), 0)


class DrawJob:
    """Collects the ids of n pictures, and the pictures as they are painted."""

    def __init__(
        self,
        asked: Draw,
        request: Request,
        drawing: GenerationSpec,
        image_decoder: ImageDecoder,
        info: dict[str, str],
        seed: int,
        index: int,
    ) -> None:
        self.asked, self.request, self.seed, self.index = asked, request, seed, index
        self._drawing, self._image_decoder, self._info = drawing, image_decoder, info
        self._outputs: dict[int, list[Output]] = {}  # of each sample, so far
        self._finished: dict[int, Output] = {}  # all of each sample that has ended
        self._decoded: dict[int, Future[Tensor]] = {}
        self._done = 0  # tokens of all samples so far
        self._untold: dict[int, Future[Tensor]] = {}  # pictures that no event had yet
        self._told_done = 0
        self._told_all = False
        self._images: dict[int, Image.Image] = {}
        self._start = self._end = time.monotonic()
        self._result: DrawResult | None = None

    @property
    def ended(self) -> bool:
        return len(self._finished) == self.request.n or self._result is not None

    @property
    def pictures(self) -> tuple[Future[Tensor], ...]:
        return tuple(self._decoded.values())

    def feed(self, output: Output) -> None:
        self._done += len(output.token_ids)
        outputs = self._outputs.setdefault(output.sample, [])
        outputs.append(output)
        if not output.finished:
            return
        output = self._finished[output.sample] = join_outputs(outputs)
        self._end = time.monotonic()
        if output.finish_reason == "complete":
            picture = self._image_decoder.submit(self._drawing.decode, output.token_ids)
            picture.add_done_callback(self._note_time)
            self._decoded[output.sample] = self._untold[output.sample] = picture

    def fail(self, reason: FailReason, error: str) -> None:
        if self._result is None:
            self._result = self._make_result(reason, error)

    def news(self) -> list[Event]:
        events = []
        done, total = self._done, self.request.n * self.request.plan.max_length
        if done > self._told_done:
            self._told_done = done
            events.append(Event("tokens", done=done, total=total))
        for sample in [s for s, picture in self._untold.items() if picture.done()]:
            if not failed(self._untold.pop(sample)):
                image = self._image(sample)
                events.append(Event("image", done=done, total=total, sample=sample, image=image))
        if self.result is not None and not self._told_all:
            self._told_all = True
            events.append(Event("result", done=done, total=total, result=self.result))
        return events

    def merge(self, unread: Event, new: Event) -> Event | None:
        return new if (unread.kind, new.kind) == ("tokens", "tokens") else None

    @property
    def result(self) -> DrawResult | None:
        if self._result is None and self.ended and all(p.done() for p in self.pictures):
            self._result = self._make_result(*self._reason())
        return self._result

    def _note_time(self, _: Future[Tensor]) -> None:
        self._end = time.monotonic()

    def _reason(self) -> tuple[str, str | None]:
        """The finish reason of all together, and the first error."""
        outputs = [self._finished[sample] for sample in range(self.request.n)]
        wrong = next((o for o in outputs if o.finish_reason != "complete"), None)
        if wrong is not None:
            return str(wrong.finish_reason), wrong.error
        broken = next(filter(None, (p.exception() for p in self.pictures)), None)
        if broken is not None:
            return "error", one_line(str(broken) or type(broken).__name__)
        return "complete", None

    def _make_result(self, reason: str, error: str | None) -> DrawResult:
        outputs = [self._finished[sample] for sample in sorted(self._finished)]
        samples = range(self.request.n) if reason == "complete" else ()
        return DrawResult(
            prompt=self.asked.prompt,
            images=tuple(self._image(sample) for sample in samples),
            seed=self.seed,
            finish_reason=reason,
            prompt_tokens=len(self.request.branches[0].token_ids),
            completion_tokens=sum(len(o.token_ids) for o in outputs),
            seconds=self._end - self._start,
            request=self.asked,
            index=self.index,
            error=error,
            logprobs=of_all(o.logprobs for o in outputs),
            branch_logprobs=of_all(o.branch_logprobs for o in outputs),
        )

    def _image(self, sample: int) -> Image.Image:
        """A painted sample as a picture, made once."""
        if sample not in self._images:
            pixels = self._decoded[sample].result()
            self._images[sample] = Picture.wrap(pixels, self._info | {"sample": str(sample)})
        return self._images[sample]


class FailedJob:
    """A request that could not be prepared: it has its result before it begins."""

    pictures: tuple[Future[Tensor], ...] = ()
    ended = True

    def __init__(self, result: Result) -> None:
        self.result = result

    @property
    def request(self) -> Request:
        raise ValueError(str(self.result.error))

    def feed(self, output: Output) -> None:
        """Nothing comes."""

    def fail(self, reason: FailReason, error: str) -> None:
        """It has failed already."""

    def news(self) -> list[Event]:
        return [Event("result", result=self.result)]

    def merge(self, unread: Event, new: Event) -> Event | None:
        return None


def failed(picture: Future[Tensor]) -> bool:
    """Whether a picture that is done could not be painted, or nobody wanted it."""
    return picture.cancelled() or picture.exception() is not None


def of_all(logprobs: Iterable[tuple[float, ...] | None]) -> tuple[tuple[float, ...], ...] | None:
    """Those of each picture; None if they were not asked for."""
    told = tuple(one for one in logprobs if one is not None)
    return told or None


def pick_seed(seed: int | None) -> int:
    """The seed that was asked for, or a new one."""
    return secrets.randbelow(2**32) if seed is None else seed


def check_text(text: str, what: str) -> None:
    """Raise TypeError for what is no text, ValueError for text without a word."""
    if not isinstance(text, str):
        raise TypeError(f"{what} is text, not {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{what} is empty")


def split_words(text: str) -> list[str]:
    """Words in lower case; whatever is no letter parts them."""
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()
