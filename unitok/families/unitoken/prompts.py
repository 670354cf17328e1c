"""The prompts of UniToken."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.families.chameleon.prompts import Template as ChameleonTemplate
from unitok.families.common.family import ImageOptions
from unitok.families.common.guidance import guided
from unitok.prompt import Message
from unitok_engine import Branch, GridPlan

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
    def opening(self) -> tuple[int, ...]:
        """What stands before a picture's ids: begin of image, height, width."""
        size = self.tokenizer.id(SIZE_TOKEN.format(FIRST_SIZE + self.grid // 2))
        return self.tokenizer.id(self.begin_of_image), size, size

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
        """A conversation up to the size of the picture, which the reference forces."""
        builder = self.conversation(messages).id(ANSWER)
        for id in self.opening:
            builder.id(id)
        return builder.branch()


def asked(message: Message) -> Message:
    """The request for a drawing, in the words of the reference."""
    return Message(message.role, REQUEST.format(message.text), message.pictures)
