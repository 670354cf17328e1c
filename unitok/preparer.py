"""Prepares requests: what a caller asks for becomes a job that the driver can run."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar, cast

from unitok.best_job import BestJob
from unitok.draw_job import DrawJob
from unitok.edit_part import part_of
from unitok.failed_job import FailedJob
from unitok.families import Family, GenerationSpec, ImageOptions
from unitok.families.common.editing import EditOptions, Editor, need_editor
from unitok.families.common.inpainting import FittedPart, inpainting_specs
from unitok.grammars import Grammars
from unitok.handles import Job
from unitok.image_decoder import ImageDecoder
from unitok.messages import Part, parse_messages
from unitok.pictures import PictureLike, open_picture
from unitok.previews import Previews
from unitok.prompt import EncodedImage, Message
from unitok.prompt_length import ContextFullError, check_length
from unitok.requests import (
    MAX_SAMPLES,
    TRIES,
    AnyRequest,
    Caption,
    Draw,
    Edit,
    Reply,
    RequestOptions,
    TextOptions,
    check_ranges,
    streamed_options,
)
from unitok.results import Event, Result, failure
from unitok.text_job import TextJob
from unitok_engine import Branch, GridPlan, Request, Sampling
from unitok_engine.user_warnings import warn

AnyJob = Job[Event, Result]
R = TypeVar("R")


class Preparer:
    """Makes the jobs of one model.

    Attributes:
        family: The model, its tokenizer and its prompts.
        image_decoder: Where the jobs have their pictures decoded.
    """

    def __init__(self, family: Family, image_decoder: ImageDecoder) -> None:
        """Keep what all jobs share."""
        self.family, self.image_decoder = family, image_decoder

    def job(self, asked: AnyRequest, index: int = 0) -> TextJob | DrawJob | BestJob:
        """The job of a request that is no part of a conversation.

        Args:
            asked: The request.
            index: Its place among those that were given together.

        Raises:
            FileNotFoundError, ValueError, TypeError: As `Model.caption`, `draw` and `edit`.
        """
        if isinstance(asked, Caption):
            question = self.family.defaults.question if asked.question is None else asked.question
            check_text(question, "the question")
            messages = [Message("user", question, (self.encode(asked.image),))]
            return self.answer(asked, messages, asked.system, index)
        if isinstance(asked, Reply):
            return self.reply(asked, index)
        if isinstance(asked, Draw):
            check_text(asked.prompt, "the prompt")
            shown = tuple(map(self.encode, as_list(asked.images)))
            return self.drawing(asked, [Message("user", asked.prompt, shown)], index)
        if isinstance(asked, Edit):
            return self.edit(asked, index)
        known = "a Caption, a Reply, a Draw or an Edit"
        raise TypeError(f"a request is {known}, not {type(asked).__name__}")

    def job_or_failure(
        self, asked: AnyRequest, index: int, check: Callable[[Request], object]
    ) -> AnyJob:
        """As `job`; a request that cannot be prepared, or is refused, becomes a `FailedJob`.

        Args:
            asked: The request.
            index: Its place among those that were given together.
            check: The engine's, which raises what it refuses a request for.
        """
        try:
            job = self.job(asked, index)
            check(job.request)
            return job
        except Exception as error:  # of the picture, or of the family's code
            return FailedJob(failure(asked, index, error))

    def reply(self, asked: Reply, index: int = 0) -> TextJob:
        """The job of an answer to messages.

        Raises:
            FileNotFoundError, ValueError, TypeError: As `Model.chat`.
        """
        parsed = parse_messages(asked.messages, asked.folder)
        messages = [
            Message.of(turn.role, map(self.encode_part, turn.parts)) for turn in parsed.turns
        ]
        return self.answer(asked, messages, parsed.system, index)

    def answer(
        self,
        asked: TextOptions,
        messages: Sequence[Message],
        system: str | None,
        index: int = 0,
        room: int = 1,
    ) -> TextJob:
        """The job of an answer to a conversation.

        Args:
            asked: How text is sampled.
            messages: The conversation, whose last message is to be answered.
            system: The system prompt; None for the family's own.
            index: The request's place among those that were given together.
            room: The tokens that must be left for the answer.

        Raises:
            ContextFullError: The prompt is too long.
            ValueError: An option is out of its range, or no answer can be of the form that is
                asked for.
        """
        check_ranges(asked)
        self._check_lengths("\n".join(message.text for message in messages), system)
        prompt = self.family.chat_prompt(messages, system)
        limit = min(asked.max_tokens, self._room(prompt, room))
        self._warn_of_unknown_words(asked, messages[-1].text)
        seed = pick_seed(asked.seed)
        plan = self.family.text_plan(limit)
        sampling = Sampling(
            temperature=asked.temperature,
            top_k=asked.top_k,
            top_p=asked.top_p,
            seed=seed,
            min_p=asked.min_p,
            repetition_penalty=asked.repetition_penalty,
        )
        request = Request(
            branches=(prompt,),
            plan=self._grammars.plan(asked, plan) if asked.is_structured else plan,
            sampling=sampling,
            logprobs=asked.logprobs,
            branch_logprobs=asked.branch_logprobs,
            priority=asked.priority,
            adapter=asked.adapter,
        )
        lead = self._grammars.lead if asked.is_structured else None
        return TextJob(asked, request, self.family.tokenizer.stream(), seed, index, lead)

    def drawing(self, asked: Draw, messages: Sequence[Message], index: int = 0) -> DrawJob:
        """The job of a drawing at the end of a conversation.

        Args:
            asked: How pictures are generated.
            messages: The conversation, whose last message is the prompt.
            index: The request's place among those that were given together.

        Raises:
            ContextFullError: The prompt is too long.
            ValueError: An option is out of its range.
        """
        check_ranges(asked)
        said = "\n".join(message.text for message in messages)
        self._check_lengths(said, asked.negative_prompt)
        guidance = self._guidance(asked)
        options = ImageOptions(guidance, asked.negative_prompt, asked.size)
        job = self._pictures(asked, [self.family.generation_spec(messages, options)], index)
        self._warn_of_unknown_words(asked, asked.prompt, asked.negative_prompt or "")
        if guidance == 1 and asked.negative_prompt is not None:
            warn("negative_prompt does nothing at guidance 1")
        return job

    def edit(self, asked: Edit, index: int = 0) -> DrawJob | BestJob:
        """The job of a picture that is to be changed, as a whole or in a part.

        Args:
            asked: The picture, and what to change.
            index: The request's place among those that were given together.

        Raises:
            FileNotFoundError, ValueError, TypeError: As `Model.edit`.
        """
        check_ranges(asked)
        check_text(asked.prompt, "the prompt")
        self._check_lengths(asked.prompt)
        if asked.is_partial:
            return self._edit_part(asked, index)
        editor = need_editor(self.family)
        image = open_picture(asked.image)
        self._warn_of_unknown_words(asked, asked.prompt)
        options = EditOptions(self._guidance(asked), asked.freedom)
        spec = editor.edit_spec(image, asked.prompt, options)
        return self._pictures(asked, [spec], index)

    def _edit_part(self, asked: Edit, index: int) -> DrawJob | BestJob:
        """The job of a picture of which a part is painted anew."""
        tries = TRIES if asked.tries is None else asked.tries
        if tries > max(TRIES, MAX_SAMPLES // asked.samples):
            raise ValueError(
                f"{asked.samples} pictures with {tries} tries each are more than the "
                f"{MAX_SAMPLES:,} that one request paints"
            )
        part = FittedPart.of(part_of(asked), self.family)
        self._warn_of_unknown_words(asked, asked.prompt)
        seeds = asked.seeds or (pick_seed(asked.seed),)  # type: ignore[arg-type]
        drawing = self._drawing_of(asked, part)
        specs = inpainting_specs(
            self.family, drawing, part, asked.strength, seeds, asked.decode_all
        )
        plans = [cast(GridPlan, spec.plan) for spec in specs]  # or the family could not do it
        if not any(plan.goes_on for plan in plans):
            tries = 1
        plans = [replace(plan, scored=tries > 1) for plan in plans]
        specs = [replace(spec, plan=plan) for spec, plan in zip(specs, plans, strict=True)]
        if asked.preview and tries > 1:
            warn("there are no previews of several tries: give tries=1")
        job = self._pictures(asked, specs, index, seeds[0])
        return job if tries == 1 else BestJob(job, tries)

    def _drawing_of(self, asked: Edit, part: FittedPart) -> GenerationSpec:
        """The whole picture that a prompt asks for, or what its instruction makes of a picture."""
        guidance = self._guidance(asked)
        if isinstance(self.family, Editor):
            return self.family.edit_spec(
                part.image, asked.prompt, EditOptions(guidance, asked.freedom)
            )
        if asked.freedom is not None:
            raise ValueError(
                f"{self.family.name} follows no instructions, so freedom means nothing to it: "
                "strength says how much of the part is painted anew"
            )
        messages = [Message("user", asked.prompt)]
        return self.family.generation_spec(messages, ImageOptions(guidance))

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self.family.tokenizer, self.family.answer_ids("a"))

    def _guidance(self, asked: Draw | Edit) -> float:
        return self.family.defaults.guidance if asked.guidance is None else asked.guidance

    def _pictures(
        self,
        asked: Draw | Edit,
        specs: Sequence[GenerationSpec],
        index: int,
        seed: int | None = None,
    ) -> DrawJob:
        """The job of pictures that are to be generated.

        Args:
            asked: How.
            specs: One of each picture, or one of all. They differ in what is known of a picture.
            index: The request's place among those that were given together.
            seed: The seed, if it was picked already.
        """
        spec = specs[0]
        for branch in spec.branches:
            self._room(branch, spec.plan.max_length)
        d = self.family.defaults
        sampling = Sampling(
            temperature=d.temperature if asked.temperature is None else asked.temperature,
            top_k=d.top_k if asked.top_k is None else asked.top_k,
            top_p=d.top_p if asked.top_p is None else asked.top_p,
            seed=0
            if isinstance(asked.seed, Sequence)
            else pick_seed(asked.seed if seed is None else seed),
            min_p=asked.min_p,
        )
        request = Request(
            branches=spec.branches,
            plan=spec.plan,
            sampling=sampling,
            n=asked.samples,
            logprobs=asked.logprobs,
            branch_logprobs=asked.branch_logprobs,
            seeds=asked.seeds,
            priority=asked.priority,
            adapter=asked.adapter,
            plans=tuple(spec.plan for spec in specs) if len(specs) > 1 else (),
            continued=False,  # a picture that is shown again is encoded from its pixels
        )
        adapter = "" if asked.adapter is None else f"+{asked.adapter}"
        info = {"prompt": asked.prompt, "model": f"{self.family.name}{adapter}"}
        previews = self._previews(asked, specs)
        return DrawJob(asked, request, specs, self.image_decoder, info, index, previews)

    def _previews(self, asked: Draw | Edit, specs: Sequence[GenerationSpec]) -> list[Previews]:
        """The previews of drawings; [] if none are wanted, or they do not come row by row."""
        if not asked.preview:
            return []
        plans = [spec.plan for spec in specs if isinstance(spec.plan, GridPlan)]
        if not plans:
            warn(f"{self.family.name} does not draw row by row: there are no previews")
        return [
            Previews(asked, plan, spec.decode, self.image_decoder)
            for plan, spec in zip(plans, specs, strict=False)
        ]

    def encode(self, image: PictureLike) -> EncodedImage:
        """How a picture of any kind enters a prompt.

        Raises:
            FileNotFoundError, ValueError, TypeError: The picture cannot be opened.
        """
        return self.family.encode_image(open_picture(image))

    def encode_part(self, part: Part) -> str | EncodedImage:
        """How a part of a message enters a prompt: text stays text.

        Raises:
            FileNotFoundError, ValueError, TypeError: The picture cannot be opened.
        """
        return part if isinstance(part, str) else self.family.encode_image(part.open())

    def _room(self, prompt: Branch, needed: int = 1) -> int:
        """How many tokens still fit behind a prompt; ContextFullError if fewer than needed."""
        room = self.family.max_context - len(prompt.token_ids)
        if room < needed:
            raise ContextFullError(len(prompt.token_ids), needed, self.family.max_context)
        return room

    def _check_lengths(self, *texts: str | None) -> None:
        for text in filter(None, texts):
            check_length(text, self.family.tokenizer, self.family.max_context)

    def _warn_of_unknown_words(self, asked: RequestOptions, *texts: str) -> None:
        known = self.family.defaults.known_words
        if known is None or asked.adapter is not None:  # which may have taught new ones
            return
        words = {w for text in texts for w in split_words(text)}
        if unknown := sorted(words - known):
            names = ", ".join(repr(w) for w in unknown)
            warn(f"this model never saw the word {names}")


def as_list(images: PictureLike | Sequence[PictureLike]) -> Sequence[PictureLike]:
    """Pictures as a list, of which one alone need not be one."""
    return images if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]


def unwatched(asked: R) -> R:
    """A request that is no stream, with a warning if it has options that are for streams."""
    if isinstance(asked, RequestOptions):
        names = [n for n in streamed_options(type(asked)) if getattr(asked, n) not in (None, False)]
        if names:
            warn(f"{names[0]} does nothing here: only a stream has previews")
    return asked


def pick_seed(seed: int | None) -> int:
    """The seed that was asked for, or a random one."""
    return secrets.randbelow(2**32) if seed is None else seed


def check_text(text: str, what: str) -> None:
    """Check that a text is there.

    Args:
        text: What was given.
        what: Its name in messages.

    Raises:
        TypeError: It is not text.
        ValueError: It is empty or blank.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is text, not {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{what} is empty")


def split_words(text: str) -> list[str]:
    """The words of a text in lower case. Every character that is not a letter separates them."""
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()
