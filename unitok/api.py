"""Model: caption, draw, edit, chat, run and stream. Every call becomes jobs of one driver."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from unitok.chat import Chat
from unitok.driver import Driver
from unitok.families import Family
from unitok.image_decoder import ImageDecoder
from unitok.jobs import AnyJob, Preparer
from unitok.precision import name_of
from unitok.requests import AnyRequest, Caption, Draw, Edit
from unitok.results import DrawResult, Event, Result, TextResult
from unitok.signatures import one_or_many, one_or_many_async
from unitok_engine import Engine, EngineConfig, EngineStats
from unitok_tokenizers.text import TextTokenizer

IN_FLIGHT = 64  # requests that `run` keeps going at once
AT_ONCE = 1024  # requests of a list that are handed to the engine at once

T = TypeVar("T")


@dataclass(frozen=True)
class Info:
    """What `unitok info` prints. Bytes and counts.

    precision: the dtype, and in words why it is this one.
    """

    name: str
    parameters: int
    device: str
    dtype: str
    precision: str
    context: int
    picture_size: tuple[int, int]  # width and height
    picture_tokens: int
    kv_memory: int
    kv_tokens: int
    temperature: float
    top_k: int
    top_p: float
    guidance: float


class Model:
    """A loaded model. Make one by `unitok.load`; calls from any thread and task are safe.

    `close` it, or use it in a `with` statement, to end what still runs; else it ends with its last
    reference.
    """

    def __init__(
        self,
        family: Family,
        config: EngineConfig | None = None,
        image_decoder: ImageDecoder | None = None,
        precision: str | None = None,
        compile: bool = False,
    ) -> None:
        """Take over a family's model, whose weights may not change any more.

        Args:
            family: The model, and how it is used.
            config: Of the engine; by default as long a context as the family allows.
            image_decoder: Decodes drawings to pixels.
            precision: What `info` says of the dtype.
            compile: Whether decode steps go through torch.compile.
        """
        self.family = family
        self._precision = precision or f"{name_of(family.model.dtype)}, as the model was made"
        self._parameters = sum(p.numel() for p in family.model.parameters())
        family.model.prepare(compile=compile)
        image_decoder = image_decoder or ImageDecoder(family.model.device)
        config = config or EngineConfig(max_context=family.max_context)
        self.driver = Driver(Engine(family.model, config), image_decoder)
        self.prepare = Preparer(family, image_decoder)

    def __repr__(self) -> str:
        dtype = name_of(self.dtype)
        return (
            f"<unitok.Model {self.name!r}: {self._parameters:,} parameters, {dtype} on "
            f"{self.device}>"
        )

    # -- what it is

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def device(self) -> torch.device:
        return self.family.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.family.model.dtype

    @property
    def tokenizer(self) -> TextTokenizer:
        """Of text."""
        return self.family.tokenizer

    def stats(self) -> EngineStats:
        """What the engine did so far, and what it holds now."""
        return self.driver.engine.stats

    def info(self) -> Info:
        """Sizes and defaults."""
        model, engine, d = self.family.model, self.driver.engine.config, self.family.defaults
        return Info(
            name=self.name,
            parameters=self._parameters,
            device=str(model.device),
            dtype=name_of(model.dtype),
            precision=self._precision,
            context=self.family.max_context,
            picture_size=self.family.picture_size,
            picture_tokens=self.family.picture_tokens,
            kv_memory=engine.memory,
            kv_tokens=engine.num_blocks * engine.block_size,
            temperature=d.temperature,
            top_k=d.top_k,
            top_p=d.top_p,
            guidance=d.guidance,
        )

    def save(self, folder: str | Path, layout: str | None = None) -> None:
        """Write the checkpoint into a folder; layout: whose names, None for the usual ones.

        Raises:
            ValueError: the family cannot be written, or knows no such layout.
        """
        self.family.save(Path(folder).expanduser(), layout)

    # -- one call, one answer

    @one_or_many(Caption)
    def caption(self, asked: Sequence[Caption]) -> list[TextResult]:
        """Describe a picture, or a list of them at once; with a question, answer it.

        Raises:
            FileNotFoundError, ValueError, TypeError: a picture that cannot be read, an empty
                question, a prompt longer than the context, an unknown or wrong option.
            RuntimeError: the model failed: logits that are not finite, an encoder that raises. Or
                it was closed.
        """
        return self._all(asked)

    @one_or_many(Draw)
    def draw(self, asked: Sequence[Draw]) -> list[DrawResult]:
        """Draw a prompt, or a list of them at once.

        Raises:
            ValueError, TypeError: an empty prompt, one longer than the context, an unknown or wrong
                option.
            RuntimeError: the model failed: logits that are not finite, a decoder that raises. Or it
                was closed.
        """
        return self._all(asked)

    @one_or_many(Edit)
    def edit(self, asked: Sequence[Edit]) -> list[DrawResult]:
        """Change a picture, or each of a list of them, as a prompt says.

        Raises:
            FileNotFoundError, ValueError, TypeError: a model that cannot edit, a picture that
                cannot be read, an empty prompt, one longer than the context, an unknown or wrong
                option.
            RuntimeError: the model failed: logits that are not finite, a decoder that raises. Or it
                was closed.
        """
        return self._all(asked)

    @one_or_many_async(Caption)
    async def acaption(self, asked: Sequence[Caption]) -> list[TextResult]:
        """`caption`, to be awaited. A task that is cancelled cancels its requests."""
        return await self._aall(asked)

    @one_or_many_async(Draw)
    async def adraw(self, asked: Sequence[Draw]) -> list[DrawResult]:
        """`draw`, to be awaited. A task that is cancelled cancels its requests."""
        return await self._aall(asked)

    @one_or_many_async(Edit)
    async def aedit(self, asked: Sequence[Edit]) -> list[DrawResult]:
        """`edit`, to be awaited. A task that is cancelled cancels its requests."""
        return await self._aall(asked)

    def chat(self, system: str | None = None) -> Chat:
        """Start a conversation that reads and paints."""
        return Chat(self, system)

    # -- as it comes

    def stream(self, asked: AnyRequest) -> Generator[Event]:
        """Events of a request as they come, its result last. Who stops reading cancels it.

        Text comes as deltas that together are the result's text. What comes while nobody reads is
        merged, so that a slow reader misses nothing and holds nothing up.

        Raises:
            As `caption`, `draw` and `edit`.
        """
        self.driver.check_open()
        return self.events(self.prepare.job(asked))

    async def astream(self, asked: AnyRequest) -> AsyncGenerator[Event]:
        """`stream`, for `async for`."""
        self.driver.check_open()
        job = await self._in_thread(lambda: self.prepare.job(asked))
        async for event in self.driver.submit(job, stream=True):
            yield checked_event(event)

    # -- many at once

    def run(self, requests: Iterable[AnyRequest]) -> Generator[Result]:
        """Results as they finish, each with `.index` and `.request`.

        Requests are taken lazily, a bounded number in flight. One that fails comes back as a result
        with finish_reason "error" and its `error`; the others go on.
        """
        self.driver.check_open()
        jobs = (self.prepare.job_or_failure(a, i) for i, a in enumerate(requests))
        yield from self.driver.run(jobs, IN_FLIGHT)

    async def arun(
        self, requests: Iterable[AnyRequest] | AsyncIterable[AnyRequest]
    ) -> AsyncGenerator[Result]:
        """`run`, for `async for`; requests may come from an async iterable too."""
        self.driver.check_open()

        async def jobs() -> AsyncGenerator[AnyJob]:
            index = 0
            async for asked in each(requests):
                yield await self._in_thread(partial(self.prepare.job_or_failure, asked, index))
                index += 1

        async for result in self.driver.arun(jobs(), IN_FLIGHT):
            yield result

    # -- jobs

    def finish(self, jobs: Sequence[AnyJob]) -> list[Any]:
        """Results of jobs, in their order.

        Raises:
            ValueError: one could never run; then none was started.
            RuntimeError: one of them failed; all have ended.
        """
        for job in jobs:
            self.driver.engine.check(job.request)
        results = sorted(self.driver.run(jobs, AT_ONCE), key=lambda result: result.index)
        return [checked(result) for result in results]

    def events(self, job: AnyJob) -> Generator[Event]:
        """Events of a job as they come, its result last.

        Raises:
            RuntimeError: it failed.
        """
        for event in self.driver.submit(job, stream=True):
            yield checked_event(event)

    # -- its end

    def close(self) -> None:
        """End what still runs as aborted, and the threads. Closing again does nothing."""
        self.driver.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- from requests to jobs and back

    def _all(self, asked: Sequence[AnyRequest]) -> list[Any]:
        """Submit all, or none if one is wrong; wait for all."""
        self.driver.check_open()
        return self.finish([self.prepare.job(a, index) for index, a in enumerate(asked)])

    async def _aall(self, asked: Sequence[AnyRequest]) -> list[Any]:
        self.driver.check_open()
        make = lambda: [self.prepare.job(a, index) for index, a in enumerate(asked)]  # noqa: E731
        jobs = await self._in_thread(make)
        for job in jobs:
            self.driver.engine.check(job.request)
        results: list[Any] = [None] * len(jobs)
        async for result in self.driver.arun(each(jobs), AT_ONCE):
            results[result.index] = result
        return [checked(result) for result in results]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Pictures are read and texts tokenized beside the event loop, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._helper, work)

    @cached_property
    def _helper(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "unitok-prepare")


async def each(things: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T]:
    """The elements of either kind of iterable."""
    if isinstance(things, AsyncIterable):
        async for thing in things:
            yield thing
    else:
        for thing in things:
            yield thing


def checked(result: Any) -> Any:
    """A result, unless it tells of an error: then RuntimeError."""
    if result.error is not None:
        raise RuntimeError(result.error)
    return result


def checked_event(event: Event) -> Event:
    """An event, unless its result tells of an error: then RuntimeError."""
    if event.result is not None:
        checked(event.result)
    return event
