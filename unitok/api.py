"""Model: caption, draw, edit, chat, score, run, stream. Every call becomes jobs of one driver."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor

from unitok.backends.backend import Backend, OtherBackend
from unitok.best_job import BestJob
from unitok.chat import Chat
from unitok.drafts import Drafts, KeptTable, decide_drafts, drafter_of
from unitok.draw_job import DrawJob
from unitok.driver import Driver
from unitok.families import Family
from unitok.handles import Handle, Job
from unitok.image_decoder import ImageDecoder
from unitok.nn.linear import count_parameters
from unitok.nn.lora import LoraAdapter
from unitok.pictures import PictureLike
from unitok.precision import name_of
from unitok.preparer import AnyJob, Preparer, unwatched
from unitok.requests import AnyRequest, Caption, Draw, Edit, Reply, RequestOptions
from unitok.results import DrawResult, Event, Result, ScoreResult, TextResult
from unitok.saving import expanded
from unitok.scoring import ScoreJob, Scorer, check_asked, pairs_of
from unitok.signatures import (
    answer,
    answer_or_start,
    are_several,
    one_or_many,
    one_or_many_async,
)
from unitok.stats import Stats
from unitok.tuning import Tuning
from unitok_engine import Engine, EngineConfig, GridDrafter
from unitok_engine.user_warnings import at_callers_line
from unitok_tokenizers.text import TextTokenizer

IN_FLIGHT = 128  # requests that `run` keeps going at once: with guidance, `max_running` branches
AT_ONCE = 1024  # requests of a list that are handed to the engine at once

R = TypeVar("R", bound=Result)
T = TypeVar("T")


@dataclass(frozen=True)
class Info:
    """What a model is, as `unitok info` prints it.

    Attributes:
        name: The model's name.
        parameters: How many numbers its weights are.
        device: Where it computes, such as "cpu" or "cuda:0".
        dtype: The type it computes in, such as "float32".
        precision: The type, and in words why it is this one.
        context: The most tokens of a prompt and what follows it.
        picture_size: Width and height of a drawing in pixels, unless asked otherwise.
        picture_tokens: The tokens of such a drawing.
        kv_memory: Bytes of the K/V pool.
        kv_tokens: Tokens that the K/V pool holds.
        temperature: The default for pictures.
        top_k: The default for pictures; 0 for all.
        top_p: The default for pictures.
        guidance: The default guidance scale.
        adapter: The name of the adapter that was merged into the weights when the model was loaded;
            None for no adapter.
        quantization: How the linear layers were quantised, such as "int8"; None if they were not.
    """

    name: str
    parameters: int
    device: str
    dtype: str
    precision: str
    context: int
    picture_size: tuple[int, int]
    picture_tokens: int
    kv_memory: int
    kv_tokens: int
    temperature: float
    top_k: int
    top_p: float
    guidance: float
    adapter: str | None = None
    quantization: str | None = None


class Model:
    """A loaded model, as `unitok.load` returns it. Any thread and any task may call it.

    `close`, or the end of a `with` statement, aborts the requests that still run. A model without
    either is closed when it is garbage collected.

    Attributes:
        family: The checkpoint: its weights, tokenizer and prompts.
        driver: Runs the engine.
        prepare: Makes jobs of requests.
    """

    def __init__(
        self,
        family: Family,
        config: EngineConfig | None = None,
        image_decoder: ImageDecoder | None = None,
        precision: str | None = None,
        compile: bool = False,
        adapter: str | None = None,
        drafts: Drafts = False,
        other: OtherBackend | None = None,
    ) -> None:
        """Start a driver for a checkpoint.

        Args:
            family: The checkpoint.
            config: Our own engine's; by default one with the family's context.
            image_decoder: By default one that suits the device.
            precision: What `info` says of the precision.
            compile: Whether decode steps go through torch.compile.
            adapter: What `info` says of an adapter that was merged into the weights.
            drafts: Whether pictures are drafted, see `unitok.load`.
            other: An engine that runs the model in the place of our own. It is closed with the
                model.
        """
        self.family = family
        self._adapter = adapter
        self._keep_drafts: Callable[[], object] = lambda: None
        self._precision = precision or f"{name_of(family.model.dtype)}, as the model was made"
        self._parameters = count_parameters(family.model)
        image_decoder = image_decoder or ImageDecoder(family.model.device)
        own = None if other else self._make_engine(config, compile, drafts)
        self.driver = Driver(cast("Backend", other or own), image_decoder)
        self.prepare = Preparer(family, image_decoder)
        self._other = other
        self._own = own
        self._tuner = None if own is None else Tuning(family, self.driver, own)
        self._scorer = Scorer(self.prepare, self.driver.engine)

    def _make_engine(self, config: EngineConfig | None, compile: bool, drafts: Drafts) -> Engine:
        """Our own engine, which computes with the family's weights."""
        self.family.model.prepare(compile=compile)
        config = config or EngineConfig(max_context=self.family.max_context)
        return Engine(self.family.model, config, drafter=self._make_drafter(drafts))

    def _make_drafter(self, drafts: Drafts) -> GridDrafter | None:
        """Who drafts pictures, if they are drafted; what is learned is kept at the model's end."""
        if not decide_drafts(drafts, self.family.model):
            return None
        kept = KeptTable.of(self.family.model)
        self._keep_drafts = weakref.finalize(self, kept.save)
        return drafter_of(self.family.model, kept.table)

    def __repr__(self) -> str:
        dtype = name_of(self.dtype)
        return (
            f"<unitok.Model {self.name!r}: {self._parameters:,} parameters, {dtype} on "
            f"{self.device}>"
        )

    # -- what it is

    @property
    def name(self) -> str:
        """The model's name."""
        return self.family.name

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.family.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the model computes in."""
        return self.family.model.dtype

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of text."""
        return self.family.tokenizer

    def stats(self) -> Stats:
        """Counts of what the engine has done, of what it holds now, and its speed."""
        rate = self.driver.tokens_per_second
        return Stats(**vars(self.driver.engine.stats), tokens_per_second=rate)

    def info(self) -> Info:
        """The model's sizes and defaults."""
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
            adapter=self._adapter,
            quantization=model.quantization,
        )

    def save(self, folder: str | Path, layout: str | None = None) -> None:
        """Write the checkpoint into a folder.

        Args:
            folder: The folder, which is made if it does not exist.
            layout: Whose file and tensor names to use; None for the usual ones of the family.

        Raises:
            ValueError: The family cannot be saved, or knows no such layout; or the model runs on
                vLLM, which has its weights.
        """
        self._check_own("save")
        self.family.save(expanded(folder), layout)

    # -- adapters and weights

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the loaded adapters, of which each request may choose one."""
        return () if self._tuner is None else tuple(self._tuner.adapters)

    def load_adapter(self, name: str, source: str | Path | LoraAdapter) -> None:
        """Load a LoRA adapter beside the weights, for requests with `adapter=name`.

        Args:
            name: What requests call it.
            source: The adapter's folder, in PEFT's form, or an adapter in memory.

        Raises:
            FileNotFoundError: There is no such folder, or a file in it is missing.
            ValueError: There is an adapter of this name already; it is of another base; it changes
                other layers than those of the decoder and its heads, so that it has to be merged;
                a file cannot be read; or the model is compiled.
            RuntimeError: The model is closed.
        """
        self._check_own("load_adapter")
        self._tuning.load(name, source)

    def unload_adapter(self, name: str) -> None:
        """Take an adapter away, and free its memory.

        Raises:
            ValueError: There is no such adapter.
            RuntimeError: Requests that have not ended use it, or the model is closed.
        """
        self._check_own("unload_adapter")
        self._tuning.unload(name)

    @property
    def weight_version(self) -> int:
        """The version of the weights: 0 when they are loaded, and one more after each update."""
        return self.driver.engine.weight_version

    def update_weights(self, tensors: Mapping[str, Tensor], version: int | None = None) -> int:
        """Put other numbers in the place of some weights, in the model as it is loaded.

        Requests that have begun are run to their end with the old weights. Those that wait begin
        afterwards. What was computed with the old weights is found no more. Each result has the
        `weight_version` that it was computed with.

        Args:
            tensors: The new weights, by their names in `model.family.model.state_dict()`. Weights
                that are not named stay. The image tokenizer's may be there if they are the same.
            version: The version of the weights from now on; by default one more than before.

        Returns:
            The new version.

        Raises:
            TypeError: Something is no tensor.
            ValueError: A name is unknown, a shape or a type does not fit, a number is not finite,
                two names of one parameter have different numbers, the image tokenizer would change,
                or the version is not above the present one. Then nothing has changed.
            RuntimeError: The model is closed.
        """
        self._check_own("update_weights")
        return self._tuning.update_weights(tensors, version)

    def update_adapter(
        self, name: str, tensors: Mapping[str, Tensor], version: int | None = None
    ) -> int:
        """Put other numbers in the place of some of a loaded adapter's, as `update_weights` does.

        Args:
            name: The adapter.
            tensors: The new matrices, by the names of layers with ".lora_A.weight" or
                ".lora_B.weight" behind them, as `peft.get_peft_model_state_dict` gives them.
            version: The version of the weights from now on; by default one more than before.

        Returns:
            The new version.

        Raises:
            TypeError: Something is no tensor.
            ValueError: There is no such adapter, it has no such matrix, a shape does not fit, a
                number is not finite, or the version is not above the present one. Then nothing has
                changed.
            RuntimeError: The model is closed.
        """
        self._check_own("update_adapter")
        return self._tuning.update_adapter(name, tensors, version)

    @property
    def _tuning(self) -> Tuning:
        """What changes the weights, where they are here."""
        assert self._tuner is not None
        return self._tuner

    def _check_own(self, call: str) -> None:
        """Raise ValueError for a call that needs the weights here, if another engine has them."""
        if self._other is not None:
            raise ValueError(
                f"{call} needs the weights, which are in the processes of {self._other.name}: load "
                "the model without backend for it"
            )

    def _own_engine(self, call: str) -> Engine:
        """Our own engine. Raise ValueError for a call that needs it, if another one runs."""
        if self._own is None:
            assert self._other is not None
            raise ValueError(
                f"{self._other.name} has no {call}: load the model without backend for it"
            )
        return self._own

    # -- pauses

    def pause(self) -> None:
        """Let all requests wait where they are, until `resume`. New ones wait too.

        Raises:
            ValueError: Another engine runs the model.
            RuntimeError: The model is closed.
        """
        self.driver.between_steps(self._own_engine("pause").pause)

    def resume(self) -> None:
        """Go on after `pause`, or after `sleep`. What was paused gives what it would have given.

        Raises:
            ValueError: Another engine runs the model.
            RuntimeError: The model is closed.
        """
        self.driver.between_steps(self._own_engine("resume").wake)

    def sleep(self) -> None:
        """Give the memory of keys and values back, until `wake`, for example to train meanwhile.

        Requests that have begun are run to their end. Those that wait, and new ones, begin after
        `wake`. The weights stay, and may be updated. Nothing is found of prompts that were computed
        before.

        Raises:
            ValueError: Another engine runs the model.
            RuntimeError: The model is closed, or it is paused and requests have begun.
        """
        self.driver.between_steps(self._own_engine("sleep").sleep, alone=True)

    def wake(self) -> None:
        """Go on after `sleep`, or after `pause`.

        Raises:
            ValueError: Another engine runs the model.
            RuntimeError: The model is closed.
            torch.OutOfMemoryError: There is no room for the keys and values. The model sleeps on.
        """
        self.driver.between_steps(self._own_engine("wake").wake)

    # -- one call, one answer

    @one_or_many(Caption)
    def caption(self, asked: Sequence[Caption]) -> list[TextResult]:
        """Describe a picture, or answer a question about it. A list is captioned together.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A file is not a picture, the question is empty, the prompt is longer than
                the context, or an option is out of its range.
            TypeError: An option is unknown or of a wrong type.
            TimeoutError: The request was not done within its timeout.
            RuntimeError: The model failed, for example with logits that are not finite, or it is
                closed.
        """
        return self._all(asked)

    @one_or_many(Draw)
    def draw(self, asked: Sequence[Draw]) -> list[DrawResult]:
        """Generate pictures of a prompt. A list of prompts is drawn together.

        Raises:
            ValueError: A prompt is empty or longer than the context, or an option is out of its
                range.
            TypeError: An option is unknown or of a wrong type.
            TimeoutError: The request was not done within its timeout.
            RuntimeError: The model failed, for example with logits that are not finite, or it is
                closed.
        """
        return self._all(asked)

    @one_or_many(Edit)
    def edit(self, asked: Sequence[Edit]) -> list[DrawResult]:
        """Change a picture as a prompt says. A list of pictures is edited together.

        With a mask, a box, a margin or a strength, a part of the picture is painted anew, and the
        rest stays. The prompt then says what the whole picture is to show. Without them, the prompt
        is an instruction, for a model that takes some, such as Janus-4o.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The model cannot do it, a file is not a picture, the mask has another size,
                nothing or all of the picture is to be painted, the prompt is empty or longer than
                the context, or an option is out of its range.
            TypeError: An option is unknown or of a wrong type.
            TimeoutError: The request was not done within its timeout.
            RuntimeError: The model failed, for example with logits that are not finite, or it is
                closed.
        """
        return self._all(asked)

    @one_or_many_async(Caption)
    async def acaption(self, asked: Sequence[Caption]) -> list[TextResult]:
        """`caption` for `await`. Cancelling the task cancels its requests."""
        return await self._aall(asked)

    @one_or_many_async(Draw)
    async def adraw(self, asked: Sequence[Draw]) -> list[DrawResult]:
        """`draw` for `await`. Cancelling the task cancels its requests."""
        return await self._aall(asked)

    @one_or_many_async(Edit)
    async def aedit(self, asked: Sequence[Edit]) -> list[DrawResult]:
        """`edit` for `await`. Cancelling the task cancels its requests."""
        return await self._aall(asked)

    @answer_or_start(Reply, Chat)
    def chat(self, asked: Reply) -> TextResult:
        """Answer a conversation that is given as messages, or start a `Chat`.

        `chat(messages=[...])` answers the last message, with the options of `caption`.
        `unitok.messages` explains the form. `chat(system=None, when_full="error")` starts a `Chat`,
        in which pictures can be shown, drawn and asked about.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The messages are not of the form, a file is not a picture, the prompt is
                longer than the context, or an option is out of its range.
            TypeError: An option is unknown, or something is of a wrong type.
            TimeoutError: The request was not done within its timeout.
            RuntimeError: The model failed, for example with logits that are not finite, or it is
                closed.
        """
        return self._all([asked])[0]

    @answer(Reply)
    async def achat(self, asked: Reply) -> TextResult:
        """`chat` with messages, for `await`. Cancelling the task cancels the request."""
        return (await self._aall([asked]))[0]

    # -- how likely an answer is

    @overload
    def score(self, image: PictureLike, text: str, **options: Any) -> ScoreResult: ...
    @overload
    def score(
        self, image: PictureLike, text: Iterable[str], **options: Any
    ) -> list[ScoreResult]: ...
    @overload
    def score(
        self, image: Iterable[PictureLike], text: str | Iterable[str], **options: Any
    ) -> list[ScoreResult]: ...
    def score(self, image: Any, text: Any, **options: Any) -> Any:
        """How likely a text is as the answer about a picture, its end included.

        Several texts or pictures are scored together. A list of both is one of pairs.

        Args:
            image: A picture, or several.
            text: A text, or several.
            options: Those of `caption`, such as a `question`. At a temperature of 0, the scores are
                those of a temperature of 1 without filters.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A file is not a picture, a text is none that the model can say, it does not
                fit into the context, an option is out of its range, or there are not as many texts
                as pictures.
            TypeError: An option is unknown or of a wrong type.
            TimeoutError: The request was not done within its timeout.
            RuntimeError: The model failed, or it is closed.
        """
        several = are_several(image) or are_several(text)
        results = self._scores(self._score_jobs(image, text, options))
        return results if several else results[0]

    @overload
    async def ascore(self, image: PictureLike, text: str, **options: Any) -> ScoreResult: ...
    @overload
    async def ascore(
        self, image: PictureLike, text: Iterable[str], **options: Any
    ) -> list[ScoreResult]: ...
    @overload
    async def ascore(
        self, image: Iterable[PictureLike], text: str | Iterable[str], **options: Any
    ) -> list[ScoreResult]: ...
    async def ascore(self, image: Any, text: Any, **options: Any) -> Any:
        """`score` for `await`. Cancelling the task cancels its requests."""
        several = are_several(image) or are_several(text)
        results = await self._ascores(lambda: self._score_jobs(image, text, options))
        return results if several else results[0]

    def _score_jobs(self, image: Any, text: Any, options: Mapping[str, Any]) -> list[ScoreJob]:
        pairs = pairs_of(image, text)
        asked = [Caption(picture, **options) for picture, _ in pairs]
        self.driver.check_open()
        return self._scorer.of_texts(asked, [text for _, text in pairs])

    @overload
    def score_tokens(self, asked: AnyRequest, token_ids: Sequence[int]) -> ScoreResult: ...
    @overload
    def score_tokens(
        self, asked: Sequence[AnyRequest], token_ids: Sequence[Sequence[int]]
    ) -> list[ScoreResult]: ...
    def score_tokens(self, asked: Any, token_ids: Any) -> Any:
        """The log-probabilities that token ids have as the result of a request, in one prefill.

        They are what generating these tokens would report: guidance, temperature, filters, and what
        the model does not choose are all included. `TextResult` and `DrawResult` have their
        `token_ids` if log-probabilities were asked for. The tokens may end before a result would.

        Args:
            asked: A request, or several. Their seeds and `n` play no part, nor does `max_tokens`
                unless the answer has a form (a schema, a regular expression or a choice).
            token_ids: The token ids, or those of each request.

        Raises:
            ValueError: The request could never generate these tokens, or they do not fit into the
                context; and as for `caption`, `draw` and `edit`.
            FileNotFoundError, TypeError, TimeoutError, RuntimeError: As `caption`, `draw`, `edit`.
        """
        results = self._scores(self._token_jobs(asked, token_ids))
        return results[0] if isinstance(asked, RequestOptions) else results

    @overload
    async def ascore_tokens(self, asked: AnyRequest, token_ids: Sequence[int]) -> ScoreResult: ...
    @overload
    async def ascore_tokens(
        self, asked: Sequence[AnyRequest], token_ids: Sequence[Sequence[int]]
    ) -> list[ScoreResult]: ...
    async def ascore_tokens(self, asked: Any, token_ids: Any) -> Any:
        """`score_tokens` for `await`. Cancelling the task cancels its requests."""
        results = await self._ascores(lambda: self._token_jobs(asked, token_ids))
        return results[0] if isinstance(asked, RequestOptions) else results

    def _token_jobs(self, asked: Any, token_ids: Any) -> list[ScoreJob]:
        check_asked(asked)
        self.driver.check_open()
        one = isinstance(asked, RequestOptions)
        return self._scorer.of_tokens(*(([asked], [token_ids]) if one else (asked, token_ids)))  # type: ignore[arg-type]

    def _scores(self, jobs: Sequence[ScoreJob]) -> list[ScoreResult]:
        for _ in self.driver.run(jobs, AT_ONCE):
            pass
        return [job.score for job in jobs]

    async def _ascores(self, make: Callable[[], Sequence[ScoreJob]]) -> list[ScoreResult]:
        jobs = await self._in_thread(make)
        async for _ in self.driver.arun(each(jobs), AT_ONCE):
            pass
        return [job.score for job in jobs]

    # -- as it comes

    def stream(self, asked: AnyRequest) -> Generator[Event]:
        """Events of a request as they come. The last one has the result.

        Each event of kind "text" has new text; all of them together are the result's text. A
        request with `preview` has events of kind "preview", which show a part of a picture. Unread
        events are merged, so a slow caller misses nothing but old previews, and delays nobody.
        Closing the generator cancels the request. If the request's timeout ends it, the result says
        so in its finish reason and its error, and has the text so far.

        Raises:
            FileNotFoundError, ValueError, TypeError, RuntimeError: As `caption`, `draw` and `edit`.
        """
        self.driver.check_open()
        return self._stream(self.prepare.job(asked))

    async def astream(self, asked: AnyRequest) -> AsyncGenerator[Event]:
        """`stream` for `async for`."""
        async for event in await self.asubmit(asked, stream=True):
            yield checked_event(event, timeouts=False)

    async def asubmit(
        self,
        asked: AnyRequest,
        *,
        share: Hashable | None = None,
        stream: bool = False,
        progress: bool = True,
    ) -> Handle[Event, Result]:
        """Submit a request, for those who serve many callers.

        Args:
            asked: The request.
            share: Requests of one share together get as much of the engine as those of any other
                share; None is a share of the request's own.
            stream: Whether the handle gives events.
            progress: Whether events of the kind "tokens" tell how far pictures are. Else there is
                one of them, when the first tokens are there.

        Returns:
            The handle. `await` gives the result, which may have an error, and `async for` the
            events. The request is cancelled when the handle is garbage collected.

        Raises:
            FileNotFoundError, ValueError, TypeError, RuntimeError: As `caption`, `draw` and `edit`.
        """
        self.driver.check_open()
        job = await self._in_thread(lambda: self.prepare.job(asked))
        if isinstance(job, DrawJob | BestJob):
            job.tells_progress = progress
        return self.driver.submit(job, share=share, stream=stream)

    def _stream(self, job: AnyJob) -> Generator[Event]:
        for event in self.driver.submit(job, stream=True):
            yield checked_event(event, timeouts=False)

    # -- many at once

    def run(self, requests: Iterable[AnyRequest]) -> Generator[Result]:
        """Results as they finish, each with its `index` and its `request`.

        A request that fails gives a result with the finish reason "error" and an `error`. The
        others go on. One whose timeout ends it has the finish reason "timeout".

        Args:
            requests: Taken lazily, as only a bounded number runs at once. A request's timeout
                counts from when it begins to run.

        Raises:
            TypeError: The requests are no list or other iterable of requests.
            RuntimeError: The model is closed.
        """
        check_several(requests, "run")
        return self._run(requests)

    def _run(self, requests: Iterable[AnyRequest]) -> Generator[Result]:
        self.driver.check_open()
        make, check = self.prepare.job_or_failure, self.driver.engine.check
        jobs = (make(unwatched(a), i, check) for i, a in enumerate(requests))
        yield from self.driver.run(jobs, self._in_flight)

    def arun(
        self, requests: Iterable[AnyRequest] | AsyncIterable[AnyRequest]
    ) -> AsyncGenerator[Result]:
        """`run` for `async for`. The requests may be an async iterable too."""
        check_several(requests, "arun")
        return self._arun(requests)

    async def _arun(
        self, requests: Iterable[AnyRequest] | AsyncIterable[AnyRequest]
    ) -> AsyncGenerator[Result]:
        self.driver.check_open()

        async def jobs() -> AsyncGenerator[AnyJob]:
            index, check = 0, self.driver.engine.check
            async for asked in each(requests):
                job = partial(self.prepare.job_or_failure, unwatched(asked), index, check)
                yield await self._in_thread(job)
                index += 1

        async for result in self.driver.arun(jobs(), self._in_flight):
            yield result

    @property
    def _in_flight(self) -> int:
        """How many requests `run` keeps going at once: another engine may have room for more."""
        if self._other is None:
            return IN_FLIGHT
        return max(IN_FLIGHT, self._other.config.max_running // 2)

    # -- jobs

    def finish(self, jobs: Sequence[Job[Event, R]]) -> list[R]:
        """The results of jobs, in the order of the jobs.

        Raises:
            ValueError: A job could never run. Then none was started.
            TimeoutError: The timeout of a job ended it. All have ended.
            RuntimeError: A job failed. All have ended.
        """
        for job in jobs:
            self.driver.engine.check(job.request)
        results = sorted(self.driver.run(jobs, AT_ONCE), key=lambda result: result.index)
        return [checked(result) for result in results]

    def events(self, job: AnyJob) -> Generator[Event]:
        """Events of a job as they come. The last one has the result.

        Raises:
            TimeoutError: The job's timeout ended it.
            RuntimeError: The job failed.
        """
        for event in self.driver.submit(job, stream=True):
            yield checked_event(event)

    # -- its end

    def close(self) -> None:
        """Abort the requests that still run, and end the threads. Closing again does nothing."""
        self.driver.close()
        self._keep_drafts()
        if self._other is not None:
            self._other.close()

    def __enter__(self) -> Model:
        """The model itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the model."""
        self.close()

    # -- from requests to jobs and back

    def _all(self, asked: Sequence[AnyRequest]) -> list[Any]:
        """Submit all requests, or none if one is wrong, and wait for the results."""
        self.driver.check_open()
        return self.finish([self.prepare.job(unwatched(a), i) for i, a in enumerate(asked)])

    async def _aall(self, asked: Sequence[AnyRequest]) -> list[Any]:
        self.driver.check_open()
        make = lambda: [self.prepare.job(unwatched(a), i) for i, a in enumerate(asked)]  # noqa: E731
        jobs = await self._in_thread(make)
        for job in jobs:
            self.driver.engine.check(job.request)
        results: list[Any] = [None] * len(jobs)
        async for result in self.driver.arun(each(jobs), AT_ONCE):
            results[result.index] = result
        return [checked(result) for result in results]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run a function beside the event loop: opening pictures and tokenizing take time."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._helper, at_callers_line(work))

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


def check_several(requests: object, name: str) -> None:
    """Check that an argument can hold several requests.

    Args:
        requests: The argument.
        name: The method that was called, for the message.

    Raises:
        TypeError: It is one request, text or a dict, or nothing that can be iterated over.
    """
    single = isinstance(requests, RequestOptions | str | bytes | Mapping)
    if single or not isinstance(requests, Iterable | AsyncIterable):
        kind = type(requests).__name__
        raise TypeError(
            f"{name} takes a list of requests, such as {name}([unitok.Draw(...)]), not one {kind}"
        )


def checked(result: R) -> R:
    """A result without an error.

    Raises:
        TimeoutError: The request's timeout ended it.
        RuntimeError: The result has another error.
    """
    if result.error is not None:
        raise (TimeoutError if result.finish_reason == "timeout" else RuntimeError)(result.error)
    return result


def checked_event(event: Event, timeouts: bool = True) -> Event:
    """An event whose result, if there is one, has no error.

    Args:
        event: The event.
        timeouts: Whether the end by a timeout is such an error.

    Raises:
        TimeoutError: The request's timeout ended it.
        RuntimeError: The result has another error.
    """
    result = event.result
    if result is not None and (timeouts or result.finish_reason != "timeout"):
        checked(result)
    return event
