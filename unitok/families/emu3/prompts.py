"""The prompts of Emu3."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unitok.prompt import EncodedImage, Message, PromptBuilder
from unitok_engine import Branch, GridPlan, IdRange
from unitok_tokenizers.text import TextTokenizer

SYSTEM = "You are a helpful assistant."
# What the reference steers away from (baaivision/Emu3, image_generation.py).
NEGATIVE = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, "
    "cropped, worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, "
    "username, blurry."
)


@dataclass(frozen=True)
class Template:
    """Emu3's prompts (baaivision/Emu3, emu3/mllm/processing_emu3.py).

    Attributes:
        tokenizer: The text tokenizer of the checkpoint.
        full_stop: What follows each thing a user says. The original's template has "." there; that
            of transformers' checkpoints has nothing.
        bos: The name of a special token, as all others.
    """

    tokenizer: TextTokenizer
    full_stop: str
    bos: str = "<|extra_203|>"
    eos: str = "<|extra_204|>"
    begin_of_image: str = "<|image start|>"
    begin_of_ids: str = "<|image token|>"
    end_of_line: str = "<|extra_200|>"
    end_of_frame: str = "<|extra_201|>"
    end_of_image: str = "<|image end|>"

    @property
    def specials(self) -> tuple[str, ...]:
        """The names of all special tokens."""
        begin = self.bos, self.begin_of_image, self.begin_of_ids
        return *begin, self.end_of_line, self.end_of_frame, self.end_of_image, self.eos

    def open_grid(self, builder: PromptBuilder, height: int, width: int) -> PromptBuilder:
        """Add what stands before a picture's ids: its rows and columns, in words."""
        builder.special(self.begin_of_image).text(f"{height}*{width}")
        return builder.special(self.begin_of_ids)

    def picture(self, ids: Tensor) -> EncodedImage:
        """Image ids [h, w] -> how they enter a prompt."""
        builder = self.open_grid(PromptBuilder(self.tokenizer), *ids.shape)
        for row in ids.tolist():
            builder.token_ids += row
            builder.special(self.end_of_line)
        builder.special(self.end_of_frame).special(self.end_of_image)
        return EncodedImage((builder.branch().token_ids,))

    def image_plan(self, image_range: IdRange, height: int, width: int) -> GridPlan:
        """What a drawing of so many rows and columns may emit."""
        names = (self.end_of_line, self.end_of_frame, self.end_of_image, self.eos)
        row_end, *closing = map(self.tokenizer.id, names)
        return GridPlan(image_range, height, width, row_end, tuple(closing))

    def draw(self, text: str, height: int, width: int) -> Branch:
        """The prompt after which the model draws."""
        builder = PromptBuilder(self.tokenizer).special(self.bos).text(text)
        return self.open_grid(builder, height, width).branch()

    def answer(self, messages: Sequence[Message], system: str) -> Branch:
        """The prompt after which the model writes its next message."""
        builder = PromptBuilder(self.tokenizer).special(self.bos)
        if system:
            builder.text(system + " ")
        for message in messages:
            self.turn(builder, message)
        return builder.text("ASSISTANT:").branch()

    def turn(self, builder: PromptBuilder, message: Message) -> PromptBuilder:
        """Add a whole turn: its pictures, then its text, as in the template of the reference."""
        builder.text(message.role.upper() + ": ")
        for picture in message.pictures:
            builder.picture(picture)
        if message.text:
            stop = self.full_stop if message.role == "user" else ""
            builder.text(message.text + stop + " ")
        return builder
