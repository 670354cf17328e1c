"""load(), caption, draw, chat and run: what people use.

Every call becomes requests to one engine, so captions and drawings share its steps.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
import warnings
from collections.abc import Collection, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unitok.families import Drawing, Family, Wish, open_folder
from unitok.files import find_folder
from unitok.painting import Painter
from unitok.pictures import PictureLike, open_picture
from unitok.prompt import Line, Message, ReadPicture
from unitok.terminal import one_line
from unitok_engine import Branch, Engine, EngineConfig, Output, Request, Sampling
from unitok_tokenizers.text import Detokenizer

DEFAULT_FOLDER = Path(__file__).parent / "assets" / "default"
MAX_TOKENS = 256  # of an answer, unless asked otherwise
IN_FLIGHT = 64  # requests that `run` keeps going at once


# --- what is asked -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caption:
    """Describe a picture, or answer a question about it. Text is greedy unless temperature > 0.

    min_p, repetition_penalty: see `unitok_engine.Sampling`. logprobs, branch_logprobs: whether the
    result tells them.
    """

    image: PictureLike
    question: str | None = None  # None: the model's own way to ask for a caption
    system: str | None = None
    max_tokens: int = MAX_TOKENS
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: str | Sequence[str] = ()
    seed: int | None = None  # None: one is drawn, and told in the result
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: bool = False
    branch_logprobs: bool = False

    def __post_init__(self) -> None:
        reals = ("temperature", "top_p", "min_p", "repetition_penalty")
        check_numbers(self, integers=("max_tokens", "top_k", "seed"), reals=reals)
        check_flags(self, "logprobs", "branch_logprobs")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")


@dataclass(frozen=True)
class Draw:
    """Draw a prompt, n times. What is None follows the model's own defaults.

    min_p: see `unitok_engine.Sampling`. logprobs, branch_logprobs: whether the result tells them.
    """

    prompt: str
    seed: int | None = None
    guidance: float | None = None  # 1: none; higher follows the prompt more closely
    n: int = 1
    negative_prompt: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    width: int | None = None  # in pixels; give both or none
    height: int | None = None
    min_p: float = 0.0
    logprobs: bool = False
    branch_logprobs: bool = False

    def __post_init__(self) -> None:
        integers = ("n", "top_k", "seed", "width", "height")
        check_numbers(self, integers, reals=("guidance", "temperature", "top_p", "min_p"))
        check_flags(self, "logprobs", "branch_logprobs")
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        if (self.width is None) != (self.height is None):
            raise ValueError("give both width and height, or none of them")

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, if any were asked for."""
        return None if self.width is None or self.height is None else (self.width, self.height)


def check_numbers(asked: Any, integers: Sequence[str], reals: Sequence[str]) -> None:
    """Raise for a number that is none; what it means is checked where it is used."""
    for name in (*integers, *reals):
        value = getattr(asked, name)
        kinds = (int,) if name in integers else (int, float)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kinds):
            kind = "a whole number" if name in integers else "a number"
            raise TypeError(f"{name} must be {kind}, not {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, not {value}")


def check_flags(asked: Any, *names: str) -> None:
    for name in names:
        if not isinstance(value := getattr(asked, name), bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")


# --- what comes back -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TextResult:
    """An answer. finish_reason: "stop", "length" or, from `run` only, "error" (see `error`).

    logprobs, branch_logprobs: of each of the completion's ids, if asked for; of text that a stop
    string cut off too. What they are says `unitok_engine.Output`.
    """

    text: str
    seed: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float  # from the request to the answer
    request: Caption | None = field(default=None, repr=False)
    index: int = 0  # place in the list or iterable that was asked
    error: str | None = None
    logprobs: tuple[float, ...] | None = None
    branch_logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DrawResult:
    """n pictures. finish_reason: "complete" or, from `run` only, "error" (see `error`).

    logprobs, branch_logprobs: of each id of each picture, if asked for: see `unitok_engine.Output`.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    seed: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int  # picture ids, of all n together
    seconds: float
    request: Draw | None = field(default=None, repr=False)
    index: int = 0
    error: str | None = None
    logprobs: tuple[tuple[float, ...], ...] | None = None
    branch_logprobs: tuple[tuple[float, ...], ...] | None = None

    @property
    def image(self) -> Image.Image:
        """The first picture."""
        return self.images[0]


Result = TextResult | DrawResult


class Picture(Image.Image):
    """A drawn picture: `save` writes its prompt, seed and model into a PNG's text."""

    @classmethod
    def wrap(cls, pixels: Tensor, info: dict[str, str]) -> Picture:
        """Bytes [H, W, 3] -> an RGB picture."""
        image = Image.fromarray(pixels.numpy())
        image.__class__ = cls
        image.info.update(info)
        return image  # type: ignore[return-value]

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        text = PngInfo()
        for key, value in self.info.items():
            text.add_itxt(str(key), str(value))
        super().save(fp, format, **({"pnginfo": text} | params))


# --- jobs: a request on its way -----------------------------------------------------------------


class TextJob:
    """Collects an answer's ids; ends it where a stop string appears."""

    pictures: tuple[Future[Tensor], ...] = ()

    def __init__(self, asked: Caption, detokenizer: Detokenizer, seed: int, index: int) -> None:
        self.asked, self.detokenizer, self.seed, self.index = asked, detokenizer, seed, index
        self.stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop)
        self.text, self.tokens, self.start = "", 0, time.monotonic()
        self.result: TextResult | None = None

    @property
    def ended(self) -> bool:
        """Whether it wants nothing more of the engine."""
        return self.result is not None

    def feed(self, output: Output) -> bool:
        """Take what came; True when the engine need not go on."""
        if self.result is not None:
            return False
        self.tokens += len(output.new_ids)
        self.text += self.detokenizer.push(output.new_ids)
        if output.finished:
            self.text += self.detokenizer.finish()
        cut = min((at for s in self.stops if (at := self.text.find(s)) >= 0), default=None)
        if cut is not None:
            self.text = self.text[:cut]
        if cut is not None or output.finished:
            self.result = TextResult(
                text=self.text.strip(),
                seed=self.seed,
                finish_reason="stop" if cut is not None else str(output.finish_reason),
                prompt_tokens=output.prompt_tokens,
                completion_tokens=self.tokens,
                seconds=time.monotonic() - self.start,
                request=self.asked,
                index=self.index,
                error=output.error,
                logprobs=output.logprobs,
                branch_logprobs=output.branch_logprobs,
            )
        return cut is not None and not output.finished


class DrawJob:
    """Collects the ids of n pictures, and the pictures as they are painted."""

    def __init__(
        self,
        asked: Draw,
        drawing: Drawing,
        painter: Painter,
        info: dict[str, str],
        seed: int,
        index: int,
    ) -> None:
        self.asked, self.drawing, self.painter, self.info = asked, drawing, painter, info
        self.seed, self.index = seed, index
        self.done: dict[int, Output] = {}
        self.painted: dict[int, Future[Tensor]] = {}
        self.start = self.end = time.monotonic()
        self._result: DrawResult | None = None

    @property
    def ended(self) -> bool:
        """Whether it wants nothing more of the engine."""
        return len(self.done) == self.asked.n

    @property
    def pictures(self) -> tuple[Future[Tensor], ...]:
        """Those that are painted, or will be."""
        return tuple(self.painted.values())

    def feed(self, output: Output) -> bool:
        """Take what came; a picture whose ids are there is ordered."""
        if not output.finished:
            return False
        self.done[output.sample] = output
        self.end = time.monotonic()
        if output.finish_reason == "complete":
            picture = self.painter.order(self.drawing.paint, output.ids)
            picture.add_done_callback(self._note_time)
            self.painted[output.sample] = picture
        return False

    def _note_time(self, _: Future[Tensor]) -> None:
        self.end = time.monotonic()

    @property
    def result(self) -> DrawResult | None:
        """What became of it; None while ids or pictures are to come."""
        if self._result is None and self.ended and all(p.done() for p in self.pictures):
            self._result = self._finish([self.done[i] for i in range(self.asked.n)])
        return self._result

    def _finish(self, outputs: list[Output]) -> DrawResult:
        reason, error = "complete", None
        failed = next((o for o in outputs if o.finish_reason != "complete"), None)
        if failed is not None:
            reason, error = str(failed.finish_reason), failed.error
        elif broken := next(filter(None, (p.exception() for p in self.pictures)), None):
            reason, error = "error", one_line(str(broken) or type(broken).__name__)
        images: tuple[Image.Image, ...] = ()
        if reason == "complete":
            images = tuple(
                Picture.wrap(self.painted[i].result(), self.info | {"sample": str(i)})
                for i in range(self.asked.n)
            )
        return DrawResult(
            prompt=self.asked.prompt,
            images=images,
            seed=self.seed,
            finish_reason=reason,
            prompt_tokens=outputs[0].prompt_tokens,
            completion_tokens=sum(len(o.ids) for o in outputs),
            seconds=self.end - self.start,
            request=self.asked,
            index=self.index,
            error=error,
            logprobs=of_all(o.logprobs for o in outputs),
            branch_logprobs=of_all(o.branch_logprobs for o in outputs),
        )


def of_all(logprobs: Iterable[tuple[float, ...] | None]) -> tuple[tuple[float, ...], ...] | None:
    """Those of each picture; None if they were not asked for."""
    told = tuple(one for one in logprobs if one is not None)
    return told or None


Job = TextJob | DrawJob


# --- the model -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Info:
    """What `unitok info` prints. Bytes and counts."""

    name: str
    parameters: int
    device: str
    dtype: str
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
    """A loaded model and its engine. Make one by `unitok.load`; calls from any thread are safe."""

    def __init__(self, family: Family, memory: int | float | None = None) -> None:
        self.family = family
        self._parameters = sum(p.numel() for p in family.model.parameters())
        family.model.prepare()
        self.painter = Painter(family.model.device)
        config = EngineConfig(memory=memory, max_context=family.max_context)
        self.engine = Engine(family.model, config)
        self._jobs: dict[int, Job] = {}
        self._step_lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<unitok.Model {self.family.name!r} on {self.family.model.device}>"

    # -- one call, one answer

    @overload
    def caption(
        self, images: PictureLike, question: str | None = None, **options: Any
    ) -> TextResult: ...
    @overload
    def caption(
        self, images: list[Any] | tuple[Any, ...], question: str | None = None, **options: Any
    ) -> list[TextResult]: ...
    def caption(self, images, question=None, **options):
        """Describe a picture, or a list of them at once; with a question, answer it.

        Options: system, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, stop,
        seed, logprobs, branch_logprobs: see `Caption`.

        Raises:
            FileNotFoundError, ValueError, TypeError: a picture that cannot be read, an empty
                question, a line longer than the context, an unknown or wrong option.
            RuntimeError: the model failed: logits that are not finite, an encoder that raises.
        """
        many = isinstance(images, list | tuple)
        asked = [Caption(image, question, **options) for image in (images if many else [images])]
        results = self._all(asked)
        return results if many else results[0]

    @overload
    def draw(self, prompts: str, **options: Any) -> DrawResult: ...
    @overload
    def draw(self, prompts: list[str] | tuple[str, ...], **options: Any) -> list[DrawResult]: ...
    def draw(self, prompts, **options):
        """Draw a prompt, or a list of them at once.

        Options: seed, guidance, n, negative_prompt, temperature, top_k, top_p, min_p, width,
        height, logprobs, branch_logprobs: see `Draw`.

        Raises:
            ValueError, TypeError: an empty prompt, one longer than the context, an unknown or wrong
                option.
            RuntimeError: the model failed: logits that are not finite, a decoder that raises.
        """
        many = isinstance(prompts, list | tuple)
        asked = [Draw(prompt, **options) for prompt in (prompts if many else [prompts])]
        results = self._all(asked)
        return results if many else results[0]

    def chat(self, system: str | None = None) -> Chat:
        """Start a conversation that reads and paints."""
        return Chat(self, system)

    # -- many at once

    def run(self, requests: Iterable[Caption | Draw]) -> Generator[Result, None, None]:
        """Results as they finish, each with `.index` and `.request`.

        Requests are taken lazily, a bounded number in flight. One that fails comes back as a result
        with finish_reason "error" and its `error`; the others go on.
        """
        source = enumerate(requests)
        flying: dict[int, Job] = {}
        try:
            while True:
                while len(flying) < IN_FLIGHT and (item := next(source, None)) is not None:
                    try:
                        request_id, job = self._submit(item[1], item[0])
                        flying[request_id] = job
                    except Exception as error:  # of a picture, or of the family's code
                        yield failure(item[1], item[0], error)
                if not flying:
                    return
                self._pump(flying.values())
                for request_id in [i for i, job in flying.items() if job.result is not None]:
                    result = flying.pop(request_id).result
                    assert result is not None
                    yield result
        finally:
            self._abandon(flying)

    def info(self) -> Info:
        """Sizes and defaults."""
        model, engine, d = self.family.model, self.engine.config, self.family.defaults
        return Info(
            name=self.family.name,
            parameters=self._parameters,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
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

    # -- from requests to the engine and back

    def _all(self, asked: Sequence[Caption | Draw]) -> list[Any]:
        """Submit all, or none if one is wrong; wait for all."""
        ready = [self._request(a, index) for index, a in enumerate(asked)]
        for request, _ in ready:
            self.engine.check(request)
        return self._wait([self._start(*r) for r in ready])

    def _submit(self, asked: Caption | Draw, index: int) -> tuple[int, Job]:
        return self._start(*self._request(asked, index))

    def _request(self, asked: Caption | Draw, index: int) -> tuple[Request, Job]:
        if isinstance(asked, Caption):
            question = self.family.defaults.question if asked.question is None else asked.question
            check_text(question, "the question")
            messages = [Message("user", question, (self._read(asked.image),))]
            return self._text_request(asked, messages, index)
        if isinstance(asked, Draw):
            check_text(asked.prompt, "the prompt")
            return self._draw_request(asked, [Message("user", asked.prompt)], index)
        raise TypeError(f"a request is a Caption or a Draw, not {type(asked).__name__}")

    def _text_request(
        self, asked: Caption, messages: Sequence[Message], index: int = 0
    ) -> tuple[Request, Job]:
        self._warn_of_unknown_words(messages[-1].text)
        line = self.family.answer(messages, asked.system)
        room = self._room(line)
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
            branches=(Branch(line.ids, 1.0, line.features),),
            plan=self.family.text_plan(min(asked.max_tokens, room)),
            sampling=sampling,
            logprobs=asked.logprobs,
            branch_logprobs=asked.branch_logprobs,
        )
        return request, TextJob(asked, self.family.tokenizer.stream(), seed, index)

    def _draw_request(
        self, asked: Draw, messages: Sequence[Message], index: int = 0
    ) -> tuple[Request, Job]:
        self._warn_of_unknown_words(asked.prompt, asked.negative_prompt or "")
        d, seed = self.family.defaults, pick_seed(asked.seed)
        guidance = d.guidance if asked.guidance is None else asked.guidance
        if guidance == 1 and asked.negative_prompt is not None:
            warnings.warn("negative_prompt does nothing at guidance 1", UserWarning, stacklevel=2)
        wish = Wish(guidance, asked.negative_prompt, asked.size)
        drawing = self.family.draw(messages, wish)
        for line, _ in drawing.lines:
            self._room(line, drawing.plan.max_length)
        sampling = Sampling(
            temperature=d.temperature if asked.temperature is None else asked.temperature,
            top_k=d.top_k if asked.top_k is None else asked.top_k,
            top_p=d.top_p if asked.top_p is None else asked.top_p,
            seed=seed,
            min_p=asked.min_p,
        )
        request = Request(
            branches=tuple(Branch(line.ids, w, line.features) for line, w in drawing.lines),
            plan=drawing.plan,
            sampling=sampling,
            n=asked.n,
            logprobs=asked.logprobs,
            branch_logprobs=asked.branch_logprobs,
        )
        info = self._metadata(asked, seed)
        return request, DrawJob(asked, drawing, self.painter, info, seed, index)

    def _room(self, line: Line, needed: int = 1) -> int:
        """Ids that still fit behind a line."""
        room = self.family.max_context - len(line.ids)
        if room < needed:
            raise ValueError(
                f"the prompt takes {len(line.ids)} tokens and needs {needed} more; the context "
                f"holds {self.family.max_context}: shorten it, or take a smaller picture"
            )
        return room

    def _read(self, image: PictureLike) -> ReadPicture:
        return self.family.read(open_picture(image))

    def _start(self, request: Request, job: Job) -> tuple[int, Job]:
        job.start = time.monotonic()
        with self._step_lock:
            request_id = self.engine.add(request)
            self._jobs[request_id] = job
        return request_id, job

    def _metadata(self, asked: Draw, seed: int) -> dict[str, str]:
        return {"prompt": asked.prompt, "seed": str(seed), "model": self.family.name}

    def _wait(self, started: Sequence[tuple[int, Job]]) -> list[Any]:
        jobs = [job for _, job in started]
        try:
            while any(job.result is None for job in jobs):
                self._pump(jobs)
        finally:
            self._abandon(dict(started))
        results = [job.result for job in jobs]
        for result in results:
            if result is not None and result.error is not None:
                raise RuntimeError(result.error)
        return results

    def _pump(self, jobs: Collection[Job]) -> None:
        """Bring a caller's jobs on: one step of the engine, whoever's turn it is, or a wait for
        their pictures."""
        stepping = any(not job.ended for job in jobs)
        with self._step_lock:
            if stepping:
                self._step()
            self.painter.work()
        if not stepping:
            self.painter.wait([p for job in jobs for p in job.pictures if not p.done()])

    def _step(self) -> None:
        """One step of the engine; its outputs go to their jobs."""
        for output in self.engine.step():
            job = self._jobs.get(output.request_id)
            if job is None:
                continue
            if job.feed(output):
                self.engine.abort(output.request_id)
            if job.ended:
                self._jobs.pop(output.request_id)

    def _abandon(self, flying: dict[int, Job]) -> None:
        """Abort what has no result, and paint no more of it, when a caller stops waiting."""
        with self._step_lock:
            for request_id, job in flying.items():
                if not job.ended:
                    self.engine.abort(request_id)
                    self._jobs.pop(request_id, None)
                self.painter.cancel(job.pictures)

    def _warn_of_unknown_words(self, *texts: str) -> None:
        known = self.family.defaults.known_words
        if known is None:
            return
        words = {w for text in texts for w in split_words(text)}
        if unknown := sorted(words - known):
            names = ", ".join(repr(w) for w in unknown)
            warnings.warn(f"this model never saw the word {names}", UserWarning, stacklevel=2)


def failure(asked: Any, index: int, error: Exception) -> Result:
    """What `run` gives for a request that could not start."""
    if isinstance(asked, Draw):
        return DrawResult(
            asked.prompt, (), asked.seed or 0, "error", 0, 0, 0.0, asked, index, one_line(error)
        )
    request = asked if isinstance(asked, Caption) else None
    seed = (request.seed if request else 0) or 0
    return TextResult("", seed, "error", 0, 0, 0.0, request, index, one_line(error))


def pick_seed(seed: int | None) -> int:
    return secrets.randbelow(2**32) if seed is None else seed


def check_text(text: str, what: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{what} is text, not {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{what} is empty")


def split_words(text: str) -> list[str]:
    """Words in lower case; whatever is no letter parts them."""
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()


# --- chat ----------------------------------------------------------------------------------------


class Chat:
    """A conversation: pictures can be shown, asked about, drawn, and asked about again.

    The history holds text and pixels; a drawing that is talked about is read like any picture.
    """

    def __init__(self, model: Model, system: str | None = None) -> None:
        self.model, self.system = model, system
        self.messages: list[Message] = []

    def send(
        self, text: str, images: PictureLike | list[Any] | tuple[Any, ...] = (), **options: Any
    ) -> TextResult:
        """Say something, and perhaps show a picture or several; returns the answer.

        Options: those of `Model.caption` but for system. Nothing is added to the history if this
        raises; errors are those of `Model.caption`.
        """
        check_text(text, "the message")
        several = isinstance(images, list | tuple)
        shown = tuple(self.model._read(image) for image in (images if several else [images]))
        messages = [*self.messages, Message("user", text, shown)]
        asked = Caption(image="", question=text, system=self.system, **options)
        ready = self.model._text_request(asked, messages)
        result = self.model._wait([self.model._start(*ready)])[0]
        result = replace(result, request=None)
        self.messages = [*messages, Message("assistant", result.text)]
        return result

    def draw(self, prompt: str, **options: Any) -> DrawResult:
        """Have something drawn; later turns may ask about it. Options: as `Model.draw`."""
        check_text(prompt, "the prompt")
        asked = Draw(prompt, **options)
        messages = [*self.messages, Message("user", prompt)]
        ready = self.model._draw_request(asked, messages)
        result = self.model._wait([self.model._start(*ready)])[0]
        drawn = tuple(self.model._read(i) for i in result.images)
        self.messages = [*messages, Message("assistant", "", drawn)]
        return result


# --- load ----------------------------------------------------------------------------------------


def load(
    path: str | Path | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    memory: int | float | str | None = None,
) -> Model:
    """Load a model: the embedded one, a checkpoint's folder, or a Hugging Face hub id.

    docs/checkpoints.md lists the families. A hub id such as "deepseek-community/Janus-Pro-1B" is
    downloaded once.

    device: "cuda" if there is a GPU, else "cpu". dtype: float32 on a CPU, bfloat16 on CUDA.
    memory: of the K/V pool: bytes, "512MB" or "2GB"; or a share of what is free, 0.5 or "50%".

    Raises:
        FileNotFoundError: no such folder, or a file in it is missing.
        ValueError: a file that cannot be read or does not fit; an unknown device, dtype or memory.
    """
    device = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    chosen = parse_dtype(dtype or ("float32" if device == "cpu" else "bfloat16"))
    size = parse_memory(memory)
    folder = DEFAULT_FOLDER if path is None else find_folder(path)
    family = open_folder(folder, device, chosen)
    return Model(family, size)


def check_device(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from None
    return device


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in names:
        raise ValueError(f"dtype must be one of {', '.join(names)}, not {dtype!r}")
    return names[dtype]


def parse_memory(memory: int | float | str | None) -> int | float | None:
    """Bytes, of a number or of text such as "512MB"; a share, of a float or of text such as "50%".

    Raises:
        ValueError: other text, or a share that is not above 0 and at most 1.
    """
    if memory is None or isinstance(memory, int):
        return memory
    size = parse_size(memory) if isinstance(memory, str) else memory
    if isinstance(size, float) and not 0 < size <= 1:
        raise ValueError(f"memory as a share must be above 0 and at most 1 (100%), not {memory!r}")
    return size


def parse_size(text: str) -> int | float:
    """As `parse_memory`, of text."""
    units = {"KB": 2**10, "MB": 2**20, "GB": 2**30}
    text = text.strip()
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        if text.replace(".", "", 1).isdecimal() and "." in text:
            return float(text)
        return int(float(text[:-2]) * units[text[-2:].upper()])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(
            "memory must be bytes, such as '512MB' or '2GB', or a share of what is free, such as "
            f"'50%', not {text!r}"
        ) from None
