"""The prompts of Chameleon and Anole."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unitok.families.chameleon.image_ids import check_text
from unitok.families.common.family import ImageOptions
from unitok.families.common.guidance import guided, weighted
from unitok.prompt import Message, PromptBuilder
from unitok_engine import Branch, GridPlan, IdRange
from unitok_tokenizers.text import TextTokenizer

IMAGE_GUIDANCE = 1.2  # of the pictures in a prompt; `ImageOptions.guidance` is for its text


@dataclass(frozen=True)
class Template:
    """The conversation format of Chameleon: BOS, then turns that each end in a token.

    Attributes:
        tokenizer: The text tokenizer of the checkpoint.
        image_range: The ids of image codes.
        bos: The name of a special token, as all others.
    """

    tokenizer: TextTokenizer
    image_range: IdRange
    bos: str = "<s>"
    eos: str = "</s>"
    begin_of_image: str = "<racm3:break>"
    end_of_image: str = "<eoss>"
    end_of_turn: str = "<reserved08706>"

    @property
    def text_ends(self) -> tuple[str, ...]:
        """The names of the tokens that end an answer."""
        return (self.eos,)

    def image_plan(self, grid: int) -> GridPlan:
        """What a drawing of so many rows and columns may emit."""
        return GridPlan(self.image_range, grid, grid)

    def opened_picture(self, ids: Tensor) -> tuple[int, ...]:
        """Image ids [h, w] and what stands before them."""
        return (self.tokenizer.id(self.begin_of_image), *ids.flatten().tolist())

    def conversation(self, messages: Sequence[Message]) -> PromptBuilder:
        """BOS, then each turn: its texts and pictures in their order, end of turn."""
        builder = PromptBuilder(self.tokenizer).special(self.bos)
        for message in messages:
            check_text(message.text)
            for piece in message.pieces:
                builder.piece(piece)
            builder.special(self.end_of_turn)
        return builder

    def draw(self, messages: Sequence[Message]) -> Branch:
        """The prompt after which the model draws: it ends in begin-of-image."""
        return self.conversation(messages).special(self.begin_of_image).branch()

    def guided(self, messages: Sequence[Message], options: ImageOptions) -> tuple[Branch, ...]:
        """The branches of guidance by text and by pictures.

        u + g_image (i - u) + g_text (f - i), of the full prompt f, its pictures alone i, and
        nothing u, or what to steer away from (InBatchInstructCFGLogitsProcessor of
        chameleon/inference/logits_processor.py; https://arxiv.org/abs/2211.09800).
        """
        full, nothing = self.draw(messages), self.draw([])
        negative = options.negative
        against = nothing if negative is None else self.draw([Message("user", negative)])
        pictures = self.pictures_alone(full)
        if pictures == nothing or options.guidance == 1.0:  # then i is u, or f is all
            return guided(full, against, options.guidance)
        return weighted(
            (full, options.guidance),
            (pictures, IMAGE_GUIDANCE - options.guidance),
            (against, 1.0 - IMAGE_GUIDANCE),
        )

    def pictures_alone(self, prompt: Branch) -> Branch:
        """What is left of a prompt without its text."""
        names = (self.bos, self.begin_of_image, self.end_of_image)
        kept = set(map(self.tokenizer.id, names))
        return Branch(tuple(id for id in prompt.token_ids if id in self.image_range or id in kept))


# The special tokens that prompts need.
IMAGE_MARKS = (Template.begin_of_image, Template.end_of_image)
MARKS = (Template.bos, Template.eos, *IMAGE_MARKS, Template.end_of_turn)
