"""Makes the sequences that a model learns of a conversation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from unitok.families import Family, GenerationSpec, ImageOptions
from unitok.prompt import EncodedImage, Message
from unitok.prompt_length import ContextFullError, check_length
from unitok.terminal import one_line
from unitok.training.data.code_cache import CodeCache
from unitok.training.data.conversations import (
    CodedPicture,
    Conversation,
    ConversationTurn,
    DataError,
    Part,
    Picture,
)
from unitok.training.data.order import chance
from unitok.training.data.painted_sequences import Emission, emission_of, painted_sequence
from unitok.training.data.stream import OnError
from unitok.training.data.text_sequences import Answer, answer_of, cut, goes_on, with_answer
from unitok.training.sequences import PaintedImage, TrainingSequence
from unitok_engine import Branch, Plan

logger = logging.getLogger(__name__)

TooLong = Literal["drop", "cut"]
GUIDANCE = 2.0  # any other than 1, so that there is a branch to steer away from


@dataclass
class LeftOut:
    """What was left out so far.

    Attributes:
        dropped: Answers and painted pictures that were too long.
        cut: Answers of which only the beginning is learned.
        skipped: Conversations that were wrong.
    """

    dropped: int = 0
    cut: int = 0
    skipped: int = 0


class CodesError(RuntimeError):
    """Codes cannot be kept or read. No conversation is to blame, and so none is left out for it."""


class SequenceMaker:
    """Makes sequences of conversations, for one model.

    An answer is learned behind the prompt of all turns before its own, and so is each picture that
    the assistant paints. Texts and pictures of one turn do not see each other.

    Attributes:
        left_out: What was left out so far.
    """

    def __init__(
        self,
        family: Family,
        max_length: int | None = None,
        too_long: TooLong = "drop",
        dropout: float = 0.1,
        seed: int = 0,
        codes: CodeCache | None = None,
        on_error: OnError = "raise",
    ) -> None:
        """Make sequences for a model.

        Args:
            family: The model.
            max_length: The most ids of a sequence; None for the model's context.
            too_long: What happens to an answer that does not fit: it is dropped, or cut off. A
                painted picture that does not fit is dropped.
            dropout: The share of painted pictures whose prompt is the unconditional one, as
                classifier-free guidance needs (https://arxiv.org/abs/2207.12598).
            seed: Decides which pictures these are, in each epoch anew.
            codes: Keeps the codes of painted pictures; None leaves them to be computed.
            on_error: Whether a wrong conversation raises, or is left out, logged and counted.

        Raises:
            ValueError: The length or the share is out of range.
        """
        self.family = family
        self.max_length = family.max_context if max_length is None else max_length
        if not 1 < self.max_length <= family.max_context:
            raise ValueError(
                f"max_length must be from 2 to the model's context, {family.max_context:,}, not "
                f"{max_length}"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, not {dropout}")
        self.too_long, self.dropout, self.seed = too_long, dropout, seed
        self.codes, self.on_error = codes, on_error
        self.left_out = LeftOut()
        self._emissions: dict[Plan, Emission] = {}

    def __call__(self, conversation: Conversation) -> list[TrainingSequence]:
        """The sequences of a conversation. All its pictures are opened.

        Raises:
            DataError: A picture cannot be read, or the model cannot have such a conversation.
            CodesError: The folder of codes cannot be used.
        """
        try:
            return _Making(self, conversation).sequences()
        except (ValueError, TypeError, OSError) as error:
            told = DataError(f"{conversation.name}: {one_line(error)}")
            if self.on_error == "raise":
                raise told from error
            self.left_out.skipped += 1
            logger.warning("left out: %s", told)
            return []

    def estimate(self, conversation: Conversation) -> int:
        """About how many ids the sequences of a conversation have. No picture is opened."""
        turns = [turn for side in conversation.sides for turn in side.turns]
        texts = sum(len(text) for turn in turns for text, _ in turn.texts)
        pictures = sum(len(turn.pictures) for turn in turns)
        return texts // 4 + pictures * self.family.picture_tokens

    def without_dropout(self) -> SequenceMaker:
        """The same maker, of which no prompt is dropped. What is left out is counted by both."""
        other = copy(self)
        other.dropout = 0.0
        return other

    def emission(self, plan: Plan) -> Emission:
        """What a plan emits; equal plans are walked once."""
        if plan not in self._emissions:
            self._emissions[plan] = emission_of(plan)
        return self._emissions[plan]


class _Making:
    """The making of one conversation's sequences."""

    def __init__(self, maker: SequenceMaker, conversation: Conversation) -> None:
        self.maker, self.family, self.conversation = maker, maker.family, conversation
        self._opened: dict[int, Image.Image] = {}
        self._messages: list[Message] = []

    def sequences(self) -> list[TrainingSequence]:
        """The answers, then the pictures."""
        turns = self.conversation.turns
        made = [*self._answers(turns), *self._paintings(turns)]
        return [replace(sequence, name=self.conversation.name) for sequence in made]

    def _answers(self, turns: Sequence[ConversationTurn]) -> list[TrainingSequence]:
        made: list[TrainingSequence] = []
        places = [k for k, turn in enumerate(turns) if turn.answers]
        for i, k in enumerate(places):
            answer = answer_of(self.family, turns[k])
            prompt = self._prompt(k)
            before = made.pop() if prompt and made and goes_on(prompt, made[-1]) else None
            sequence = self._fitted(prompt, answer, before) if prompt else None
            made += [s for s in (sequence or before,) if s]
            if sequence is None:  # then those behind it are too long as well
                self.maker.left_out.dropped += len(places) - i
                break
        return made

    def _prompt(self, k: int) -> Branch | None:
        """The prompt of an answer; None if it is so long that it was not tokenized."""
        if not self._may_fit(k, self.conversation.system or ""):
            return None
        return self.family.chat_prompt(self._before(k), self.conversation.system)

    def _may_fit(self, k: int, *texts: str) -> bool:
        """Whether the texts before a turn are not certainly too long."""
        said = "\n".join([*texts, *(message.text for message in self._before(k))])
        try:
            check_length(said, self.family.tokenizer, self.maker.max_length)
        except ContextFullError:
            return False
        return True

    def _fitted(
        self, prompt: Branch, answer: Answer, before: TrainingSequence | None
    ) -> TrainingSequence | None:
        """A prompt and its answer, or as much of it as fits; None if it is to be dropped."""
        sequence, most = with_answer(prompt, answer, before), self.maker.max_length
        if len(sequence) <= most:
            return sequence
        shorter = cut(sequence, most) if self.maker.too_long == "cut" else None
        if shorter is None or len(shorter) <= len(prompt.token_ids):
            return None
        self.maker.left_out.cut += 1
        return shorter

    def _paintings(self, turns: Sequence[ConversationTurn]) -> Iterator[TrainingSequence]:
        for k, turn in enumerate(turns):
            pictures = [picture for picture, learned in turn.pictures if learned]
            spec = self._spec(k) if pictures else None
            for picture in pictures:
                prompt = self._drawn_prompt(spec, picture) if spec else None
                if spec is None or prompt is None:
                    self.maker.left_out.dropped += 1
                else:
                    yield self._painting(spec.plan, prompt, picture)

    def _spec(self, k: int) -> GenerationSpec | None:
        """What it takes to paint the pictures of a turn; None if its prompt is far too long."""
        if not self._may_fit(k):
            return None
        options = ImageOptions(GUIDANCE, self.family.defaults.dropped_prompt)
        return self.family.generation_spec(self._before(k), options)

    def _drawn_prompt(self, spec: GenerationSpec, picture: Picture) -> Branch | None:
        """The prompt of a picture, or what stands for a dropped one; None if it is too long."""
        maker, name, epoch = self.maker, self.conversation.name, self.conversation.epoch
        dropped = chance(maker.seed, epoch, name, picture.where) < maker.dropout
        prompt = spec.branches[-1 if dropped else 0]
        length = len(prompt.token_ids) + spec.plan.max_length
        return prompt if length <= maker.max_length else None

    def _painting(self, plan: Plan, prompt: Branch, picture: Picture) -> TrainingSequence:
        emission = self.maker.emission(plan)
        image = self._painted_image(picture, emission.places(len(prompt.token_ids)))
        return painted_sequence(prompt, emission, image)

    def _painted_image(self, picture: Picture, places: tuple[int, ...]) -> PaintedImage:
        """A picture with its codes, if they are known, else with its pixels."""
        if isinstance(picture, CodedPicture):
            codes = codes_of(picture, len(places), self.family.model.vocabulary.image_size)
            return PaintedImage(places, partial(pixels_of, self.family, picture), codes)
        pixels = self.family.picture_pixels(self._open(picture))
        if self.maker.codes is None:
            return PaintedImage(places, lambda: pixels)
        try:
            codes = self.maker.codes(pixels)
        except (OSError, ValueError) as error:
            raise CodesError(f"codes: {one_line(error)}") from error
        return PaintedImage(places, partial(pixels_of, self.family, picture), codes)

    def _before(self, k: int) -> list[Message]:
        """The messages before a turn, as the model reads them."""
        for turn in self.conversation.turns[len(self._messages) : k]:
            self._messages.append(Message.of(turn.role, map(self._encoded, turn.parts)))
        return self._messages[:k]

    def _encoded(self, part: Part) -> str | EncodedImage:
        return part if isinstance(part, str) else self.family.encode_image(self._open(part))

    def _open(self, picture: Picture) -> Image.Image:
        """A picture, opened once, though it is painted and seen in later turns."""
        if id(picture) not in self._opened:
            self._opened[id(picture)] = picture.open()
        return self._opened[id(picture)]


def codes_of(picture: CodedPicture, places: int, codebook: int) -> Tensor:
    """The codes of a picture whose codes are known, row by row.

    Raises:
        ValueError: The model's pictures have another number of codes, or not such codes.
    """
    codes = torch.tensor(picture.codes)
    if codes.numel() != places:
        raise ValueError(
            f"{picture.where}: it has {codes.numel()} codes, and a picture of this model {places}"
        )
    if int(codes.max()) >= codebook:
        raise ValueError(
            f"{picture.where}: {int(codes.max())} is no code of this model, which has {codebook}"
        )
    return codes


def pixels_of(family: Family, picture: Picture) -> Tensor:
    """The pixels of a picture that is to be painted, read anew."""
    return family.picture_pixels(picture.open())
