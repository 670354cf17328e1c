"""The prompts of UniToken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unitok.families.chameleon.prompts import Template as ChameleonTemplate
from unitok.families.common.family import ImageOptions
from unitok.families.common.guidance import guided
from unitok.prompt import EncodedImage, Message
from unitok_engine import Branch, Embeddings, GridPlan

SIZE_TOKEN = "<reserved{:05d}>"  # of 8800 + n: a side is n times 32 pixels
FIRST_SIZE = 8800
ANSWER = 16853  # begins an answer that is a drawing; the reference gives the number alone
REQUEST = "Generate an image according to the following prompt:\n{}"


@dataclass(frozen=True)
class Template(ChameleonTemplate):
    """Chameleon's conversation format, with sizes and rows around pictures.

    Attributes:
        grid: Rows and columns of a picture's codes.
        separator: Stands between the ids and the embeddings of a picture.
        new_line: Closes each row of a picture.
    """

    grid: int = 32
    separator: str = "<sentinel:0>"
    new_line: str = "<reserved08799>"

    @property
    def text_ends(self) -> tuple[str, ...]:
        """The names of the tokens that end an answer."""
        return (self.eos, self.end_of_turn)

    @property
    def size(self) -> str:
        """The token of a picture's height, and of its width."""
        return SIZE_TOKEN.format(FIRST_SIZE + self.grid // 2)

    @property
    def opening(self) -> tuple[int, ...]:
        """What stands before a picture's ids: begin of image, height, width."""
        return tuple(map(self.tokenizer.id, (self.begin_of_image, self.size, self.size)))

    def check(self) -> None:
        """Raise ValueError if the tokenizer lacks a token that Chameleon's has not."""
        for token in (self.separator, self.new_line, self.size):
            self.tokenizer.id(token)

    def image_plan(self, grid: int) -> GridPlan:
        """Rows of ids that each end in a new line, then the end of the image."""
        row_end, end = map(self.tokenizer.id, (self.new_line, self.end_of_image))
        return GridPlan(self.image_range, grid, grid, row_end, (end,))

    def opened_picture(self, ids: Tensor) -> tuple[int, ...]:
        """Image ids [grid, grid] between the opening and the separator."""
        new_line, separator = map(self.tokenizer.id, (self.new_line, self.separator))
        rows = torch.nn.functional.pad(ids, (0, 1), value=new_line).flatten().tolist()
        return (*self.opening, *rows, separator)

    def guided(self, messages: Sequence[Message], options: ImageOptions) -> tuple[Branch, ...]:
        """Guidance away from a prompt of nothing, which begins at the picture, at position 0."""
        *before, last = messages
        against = Branch(self.opening)
        if options.negative is not None:
            against = self.draw([asked(Message("user", options.negative))])
        return guided(self.draw([*before, asked(last)]), against, options.guidance)

    def draw(self, messages: Sequence[Message]) -> Branch:
        """A conversation up to the size of the picture, which the reference forces.

        Of the pictures in it a drawing sees the ids alone (`generate_img` of the reference's
        inference_solver_base.py).
        """
        seen = [replace(m, pictures=tuple(map(self.ids_alone, m.pictures))) for m in messages]
        builder = self.conversation(seen).id(ANSWER)
        for id in self.opening:
            builder.id(id)
        return builder.branch()

    def ids_alone(self, picture: EncodedImage) -> EncodedImage:
        """A picture without its embeddings and the separator before them."""
        separator = self.tokenizer.id(self.separator)
        segments = (s for s in picture.segments if not isinstance(s, Embeddings))
        return EncodedImage((tuple(id for ids in segments for id in ids if id != separator),))


def asked(message: Message) -> Message:
    """The request for a drawing, in the words of the reference."""
    return Message(message.role, REQUEST.format(message.text), message.pictures)
